/**
 * `npm run sim -- [--seed N] [--steps M] [--minutes X] [--runs R] [--every-io K]
 * [--policies | --deferral | --detach | --raw | --resize] [--verbose] [--trace]`: runs the simulator from a seed and prints what it
 * met. With --policies sites have policies and may hold writers, with --deferral shippers put their work off, with
 * --detach the local images fail, with --raw some sites have no journal, with --resize the log gets other sizes. Without --seed it takes seeds from the clock
 * until the minutes are over.
 */
import { parseArgs } from 'node:util';
import { STORIES, countCalls, crashImagesAtEveryCall, everyPoint, killAtEvery } from '../support/sim-every.js';
import { Coverage } from '../support/sim-faults.js';
import { collect } from '../support/sim-memory.js';
import { failureText, runSeed } from '../support/sim-seed.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string', default: '3000' },
    minutes: { type: 'string' },
    runs: { type: 'string' },
    'every-io': { type: 'string' },
    policies: { type: 'boolean', default: false },
    deferral: { type: 'boolean', default: false },
    detach: { type: 'boolean', default: false },
    raw: { type: 'boolean', default: false },
    resize: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
});

const steps = Number(values.steps);
const first = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
const until = values.minutes === undefined ? Infinity : performance.now() + Number(values.minutes) * 60_000;
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
let done = 0;
let seed = first;
for (; done < runs && performance.now() < limit; done++, seed++) {
  const result = await runSeed({
    seed,
    steps,
    policies: values.policies,
    deferral: values.deferral,
    detach: values.detach,
    raw: values.raw,
    resize: values.resize,
    traceCalls: values.trace,
  });
  total.merge(result.coverage);
  records += result.records;
  bytes += result.bytes;
  calls += result.calls;
  if (values.verbose || runs === 1)
    console.log(`seed ${seed}: ${result.steps} steps, ${result.calls} calls, digest ${result.digest}`);
  if (!result.ok) {
    console.log(failureText(result));
    const mode = (['policies', 'deferral', 'detach', 'raw', 'resize'] as const).find((one) => values[one]);
    const also = mode === undefined ? '' : ` --${mode}`;
    console.log(`FAILED seed ${seed} step ${result.steps}: npm run sim -- --seed ${seed} --steps ${steps}${also}`);
    process.exit(1);
  }
  await collect();
}
const seconds = (performance.now() - began) / 1000;
console.log('what happened, and how often:');
for (const line of total.lines()) console.log(line);
console.log(
  `ok: seeds ${first}…${seed - 1} (${done}), ${steps} steps each, ${records} records, ${(bytes / 2 ** 20).toFixed(0)} MiB, ` +
    `${calls} calls in ${seconds.toFixed(1)} s = ${Math.round(records / seconds)} records/s`,
);
