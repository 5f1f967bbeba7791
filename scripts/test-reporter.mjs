/**
 * A mocha reporter: prints as `spec` does and appends one JSON line per finished test to the file named by
 * REPTOOL_TEST_RESULTS, at once, so that the results of a run that is killed are not lost.
 * Lines: {state: passed|failed|skipped, title, reason?} and, last, {state: end}.
 */
import { appendFileSync, writeSync } from 'node:fs';
import Mocha from 'mocha';

const { EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_TEST_PENDING, EVENT_RUN_END } = Mocha.Runner.constants;

/** How long a finished run may take to close what it opened. */
const LINGER_MS = 20_000;

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const results = process.env.REPTOOL_TEST_RESULTS;
    const note = (line) => results && appendFileSync(results, JSON.stringify(line) + '\n');

    runner.on(EVENT_TEST_PASS, (test) => note({ state: 'passed', title: test.fullTitle() }));
    runner.on(EVENT_TEST_FAIL, (test, err) =>
      note({ state: 'failed', title: test.fullTitle(), reason: String(err?.message ?? err).split('\n')[0] }),
    );
    runner.on(EVENT_TEST_PENDING, (test) => {
      const title = test.fullTitle().replace(` [skipped: ${test.skipReason}]`, '');
      note({ state: 'skipped', title, reason: test.skipReason });
    });
    runner.on(EVENT_RUN_END, () => {
      note({ state: 'end' });
      // Fires only where something still holds the event loop: a leak in a test, said instead of waited for.
      const timer = setTimeout(() => {
        const held = process.getActiveResourcesInfo().join(', ');
        note({ state: 'failed', title: 'the test process ends', reason: `still open after the last test: ${held}` });
        writeSync(2, `\nthe test process does not end; still open: ${held}\n`);
        process.exit(70);
      }, LINGER_MS);
      timer.unref();
    });
  }
}
