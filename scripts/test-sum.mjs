/**
 * Adds up one run of scripts/test.
 *
 *   test-sum.mjs check RESULTS STATUS    one stage: says what is wrong with it, exits 1 if something is
 *   test-sum.mjs sum FOLDER STRICT       the whole run: failures and skips with their reasons, then the
 *                                        line `N passed, N failed, N skipped`
 *
 * FOLDER holds <stage>.jsonl as scripts/test-reporter.mjs writes it, and <stage>.broken for each stage that
 * went wrong other than by a failing test; each of these counts as one failure.
 * STRICT=1: every test can run here, so a skipped one makes the sum fail.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [mode, where, argument] = process.argv.slice(2);

/** Lines of a stage; one cut short by a kill is left out. */
function read(path) {
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        return line ? [JSON.parse(line)] : [];
      } catch {
        return [];
      }
    });
}

const of = (lines, state) => lines.filter((line) => line.state === state);

/** What is wrong with a stage apart from its failed tests, or undefined. */
function fault(lines, status) {
  const ran = lines.length - of(lines, 'end').length;
  if (of(lines, 'end').length === 0)
    return ran === 0 ? 'no test ran' : `it ended after ${ran} tests, before the last one`;
  if (ran === 0) return 'no test ran';
  if (status !== 0 && of(lines, 'failed').length === 0) return `exit status ${status} although no test failed`;
  return undefined;
}

function check() {
  const lines = read(where);
  const wrong = fault(lines, Number(argument));
  if (wrong) console.log(wrong);
  return !wrong;
}

function sum() {
  const files = readdirSync(where).sort();
  const stages = files.filter((name) => name.endsWith('.jsonl'));
  const all = stages.flatMap((name) =>
    read(join(where, name)).map((line) => ({ ...line, title: `${name.slice(0, -6)}: ${line.title}` })),
  );
  const broken = files
    .filter((name) => name.endsWith('.broken'))
    .map((name) => ({ title: name.slice(0, -7), reason: readFileSync(join(where, name), 'utf8').trim() }));

  const skipped = of(all, 'skipped');
  const unexplained = skipped.filter((test) => !test.reason);
  const failed = [...of(all, 'failed'), ...broken];

  list('skipped', skipped);
  list('failed', failed);
  if (unexplained.length > 0) console.log(`\n${unexplained.length} skipped without a reason, which is not allowed`);
  const refused = argument === '1' && skipped.length > 0;
  if (refused) console.log('\nevery test can run here (root, /dev/fuse): a skipped one fails the run');

  console.log(`\n${of(all, 'passed').length} passed, ${failed.length} failed, ${skipped.length} skipped`);
  return failed.length === 0 && unexplained.length === 0 && !refused;
}

function list(heading, tests) {
  if (tests.length === 0) return;
  console.log(`\n${heading}:`);
  for (const test of tests) console.log(`  ${test.title}: ${test.reason ?? 'no reason given'}`);
}

const runs = { check, sum }[mode];
process.exitCode = runs?.() ? 0 : 1;
