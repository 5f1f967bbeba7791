/**
 * The simulator by hand: runs seeds and prints what it met.
 *
 *   npm run sim -- [--seed N] [--steps M] [--runs R | --minutes X] [--MODE] [--rough] [--verbose] [--trace]
 *
 * MODE says what else goes on in the group: with policies sites hold writers, with deferral shippers put their work off,
 * with detach the local images fail, with raw some sites have no journal, with resize the log gets other
 * sizes. With --rough everything goes wrong all the time, and passes soon. Without --seed seeds come from the clock, for
 * a minute. What fails is printed with the command that runs it again.
 *
 *   npm run sim -- --every-io K …                            before the seeds, a death at every K-th call of a scenario
 *   npm run sim -- --hours H --writes W --state FILE [--minutes X]    the long run, which goes on where FILE says that it was
 */
import { parseArgs } from 'node:util';
import { STORIES, countCalls, crashImagesAtEveryCall, everyPoint, killAtEvery } from '../support/sim-every.js';
import { runCampaign } from '../support/sim-campaign.js';
import { Coverage } from '../support/sim-coverage.js';
import { collect } from '../support/sim-memory.js';
import { commandOf, failureText, runSeed, type SimMode } from '../support/sim-seed.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string', default: '3000' },
    minutes: { type: 'string' },
    runs: { type: 'string' },
    'every-io': { type: 'string' },
    hours: { type: 'string' },
    writes: { type: 'string' },
    state: { type: 'string' },
    policies: { type: 'boolean', default: false },
    deferral: { type: 'boolean', default: false },
    detach: { type: 'boolean', default: false },
    raw: { type: 'boolean', default: false },
    resize: { type: 'boolean', default: false },
    resync: { type: 'boolean', default: false },
    rough: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
});

const steps = Number(values.steps);
const first = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
const until = values.minutes === undefined ? Infinity : performance.now() + Number(values.minutes) * 60_000;
const mode = (['policies', 'deferral', 'detach', 'raw', 'resize', 'resync'] as const).find(
  (one) => values[one],
) satisfies SimMode | undefined;

if (values.state !== undefined) {
  const { hours = '0', writes = '0', state: file } = values;
  const goal = { hours: Number(hours), writes: Number(writes), steps, seed: Number(values.seed ?? 1), file, until };
  process.exit((await runCampaign(goal, console.log)) ? 0 : 1);
}

const runs =
  values.runs !== undefined
    ? Number(values.runs)
    : values.minutes !== undefined || values.seed === undefined
      ? Infinity
      : 1;
const limit = runs === Infinity && until === Infinity ? performance.now() + 60_000 : until;

/** `--every-io K`: before the seeds, the scenario of sim-every with a death at every K-th call. */
if (values['every-io'] !== undefined) {
  const stride = Number(values['every-io']);
  try {
    const calls = countCalls();
    const points = everyPoint(calls, stride === 1 ? 9 : 1).filter(({ call }) => call % stride === 0);
    for (const story of Object.values(STORIES)) story();
    const looked = crashImagesAtEveryCall(stride, 2);
    console.log(`every I/O: ${looked} crash images and ${await killAtEvery(points)} deaths over ${calls} calls, ok`);
  } catch (error) {
    console.log(String(error));
    console.log(`FAILED seed every-io: npm run sim -- --every-io ${stride}`);
    process.exit(1);
  }
}

const total = new Coverage();
const began = performance.now();
let records = 0;
let bytes = 0;
let calls = 0;
let simulatedMs = 0;
let done = 0;
let seed = first;
for (; done < runs && performance.now() < limit; done++, seed++) {
  const result = await runSeed({
    seed,
    steps,
    ...(mode === undefined ? {} : { [mode]: true }),
    rough: values.rough,
    traceCalls: values.trace,
  });
  total.merge(result.coverage);
  records += result.records;
  bytes += result.bytes;
  calls += result.calls;
  simulatedMs += result.simulatedMs;
  if (values.verbose || runs === 1)
    console.log(`seed ${seed}: ${result.steps} steps, ${result.calls} calls, digest ${result.digest}`);
  if (!result.ok) {
    console.log(failureText(result));
    console.log(`FAILED seed ${seed} step ${result.steps}: ${commandOf(seed, steps, mode, values.rough)}`);
    process.exit(1);
  }
  await collect();
}
const seconds = (performance.now() - began) / 1000;
console.log('what happened, and how often:');
for (const line of total.lines()) console.log(line);
console.log('faults, and how often:');
for (const line of total.faultLines()) console.log(line);
console.log(
  `ok: seeds ${first}…${seed - 1} (${done}), ${steps} steps each, ${records} records, ${(bytes / 2 ** 20).toFixed(0)} MiB, ` +
    `${calls} calls, ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours ` +
    `in ${seconds.toFixed(1)} s = ${Math.round(records / seconds)} records/s`,
);
