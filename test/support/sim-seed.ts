/** One seed from its beginning to its end, and what is to be said of it. */
import { RepError } from '../../src/base/errors.js';
import { Broken } from './sim-broken.js';
import type { Coverage } from './sim-coverage.js';
import type { HostShape } from './sim-host.js';
import { Rng } from './sim-random.js';
import { SimRun } from './sim-run.js';
import { randomShape, withDeferral, withPolicies, withRaw, withResync } from './sim-shape.js';

/** What else goes on in a group: at most one of these. */
export type SimMode = 'policies' | 'deferral' | 'detach' | 'raw' | 'resize' | 'resync';

/** All modes, and the group that has none. */
export const MODES: readonly (SimMode | 'plain')[] = [
  'plain',
  'policies',
  'deferral',
  'raw',
  'detach',
  'resize',
  'resync',
];

/** The command that runs a seed again. */
export function commandOf(seed: number, steps: number, mode: SimMode | 'plain' | undefined, rough = false): string {
  const also = `${mode === undefined || mode === 'plain' ? '' : ` --${mode}`}${rough ? ' --rough' : ''}`;
  return `npm run sim -- --seed ${seed} --steps ${steps}${also}`;
}

export interface RunOptions {
  seed: number;
  steps: number;
  /** Sites have policies, and an operator changes them. */
  policies?: boolean;
  /** Shippers put their work off while the group is busy. */
  deferral?: boolean;
  /** Everything goes wrong all the time. */
  rough?: boolean;
  /** Links leave a full ring and are resynced. */
  resync?: boolean;
  /** Some sites have no journal. */
  raw?: boolean;
  /** The log gets other sizes. */
  resize?: boolean;
  /** Stops earlier after so many milliseconds of real time. */
  budgetMs?: number;
  /** Every call goes into the report of a failure. */
  traceCalls?: boolean;
  /** A group that detaches slink 0 where its images fail, which they do for a while now and then. */
  detach?: boolean;
}

export interface RunResult {
  seed: number;
  ok: boolean;
  /** Steps made. */
  steps: number;
  error: unknown;
  trace: string[];
  coverage: Coverage;
  /** The same for the same seed and steps. */
  digest: string;
  records: number;
  /** Requests that change a device. */
  writes: number;
  bytes: number;
  calls: number;
  simulatedMs: number;
}

/** The same group with a site at least, and without devices that come and go: those wait while it is detached. */
function detachable(shape: HostShape, rng: Rng): HostShape {
  const { late: _late, ...rest } = shape;
  const one = { nr: 1, area: 1 << 20, rpoMs: rng.pick([0, 10, 100]), direct: rng.chance(0.4) };
  return { ...rest, detach: true, sites: shape.sites.length > 0 ? shape.sites : [one] };
}

function shapeOf({ seed, policies, deferral, detach, raw, resize, resync }: RunOptions): HostShape {
  const shape = randomShape(new Rng(seed, 'shape'));
  if (detach === true) return detachable(shape, new Rng(seed, 'detach'));
  if (resize === true) return { ...shape, resize };
  if (resync === true) return withResync(shape, new Rng(seed, 'resync'));
  if (raw === true) return withRaw(shape, new Rng(seed, 'raw'));
  if (policies === true) return withPolicies(shape, new Rng(seed, 'rules'));
  return deferral === true ? withDeferral(shape, new Rng(seed, 'deferral')) : shape;
}

export async function runSeed(options: RunOptions): Promise<RunResult> {
  const { seed, steps, budgetMs, traceCalls, detach } = options;
  const run = new SimRun(seed, shapeOf(options), options.rough === true);
  run.host.world.traceCalls = traceCalls === true;
  const until = budgetMs === undefined ? Infinity : performance.now() + budgetMs;
  let error: unknown;
  try {
    run.begin();
    while (run.step < steps && performance.now() < until) await run.next();
    run.end();
  } catch (caught) {
    error = caught;
  }
  const { host, coverage } = run;
  const { counts } = host.client;
  coverage.hit('requests parked or dropped for want of room', counts.blocked);
  for (const call of ['APPLY:DIRECT', 'SITE:DIRECT']) coverage.hit(`call ${call}`, host.world.names.get(call) ?? 0);
  coverage.hit('check: read', counts.reads);
  coverage.hit('check: answered when the site had it', host.policies.kept);
  if (detach === true) coverage.hit('check: read while slink 0 is detached', counts.readsElsewhere);
  coverage.hit('requests answered twice', counts.twice);
  coverage.hit('answers lost because the request is being sent again', counts.lostAnswers);
  coverage.hit('requests refused with an error', counts.failed);
  coverage.hit('requests sent again', counts.resent);
  for (const kind of ['write', 'discard', 'zeroes', 'flush', 'tag', 'read', 'dsync'] as const)
    coverage.hit(`request: ${kind}`, counts[kind]);
  return {
    seed,
    ok: error === undefined,
    steps: run.step,
    error,
    trace: host.world.trace.slice(traceCalls === true ? -400 : -60),
    coverage,
    digest: run.fingerprint,
    records: counts.write + counts.discard + counts.zeroes + counts.tag,
    writes: counts.write + counts.discard + counts.zeroes,
    simulatedMs: host.clock.monoMs(),
    bytes: counts.bytes,
    calls: host.world.calls,
  };
}

export function failureText(result: RunResult): string {
  const { error } = result;
  const text =
    error instanceof Error
      ? error instanceof Broken || error instanceof RepError
        ? `${error.name}: ${error.message}`
        : error.stack
      : String(error);
  return [
    `seed ${result.seed}, step ${result.steps}: ${text}`,
    '  what happened last:',
    ...result.trace.map((line) => `    ${line}`),
  ].join('\n');
}
