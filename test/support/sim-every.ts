/**
 * Kill at every I/O: one scenario, made of what a group's life consists of, is run once to count its calls, and
 * then once more for each call with the process or the machine dying there. After each death everything must
 * recover, keep its promises, and settle.
 */
import { ERRNO } from '../../src/base/errors.js';
import { SH } from '../../src/replog/shared.js';
import { checkHost, checkSite } from './sim-checks.js';
import type { Coverage, FaultKind } from './sim-coverage.js';
import type { Death } from './sim-faults.js';
import { Broken } from './sim-broken.js';
import type { Wish } from './sim-devices.js';
import { type HostShape, type SimHost } from './sim-host.js';
import { SimKill, type CallFacts, type IoKind, type Verdict } from './sim-io.js';
import { collect } from './sim-memory.js';
import { SimRun } from './sim-run.js';
import { Rng } from './sim-random.js';

const SHAPE: HostShape = {
  logBytes: 4 * 1024 * 1024,
  windowRing: 1024 * 1024,
  syncBytes: 256 * 1024,
  late: [{ nr: 2, sectors: 768 }],
  sites: [{ nr: 1, area: 1024 * 1024, rpoMs: 0 }],
  client: {
    devices: [
      { nr: 0, sectors: 512 },
      { nr: 1, sectors: 1024 },
    ],
    largest: 512,
    durableWrites: false,
    depth: 64,
    weights: { write: 100, discard: 5, zeroes: 5, flush: 10, tag: 2, read: 5 },
    dsync: 0,
  },
};

const SEED = 4711;

export interface EveryPoint {
  call: number;
  when: 'before' | 'during' | 'after';
  death: Death;
}

export class Scenario {
  readonly run: SimRun;
  /** Called while nobody is in a call. */
  between: () => void = () => {};

  constructor(seed = SEED, shape = SHAPE) {
    this.run = new SimRun(seed, shape);
    this.run.host.create();
    this.run.host.world.faults = this.run.faults;
    this.run.orderly = true;
    this.run.faults.peekRate = 0;
  }

  /** Everything that the group lives through, in order. */
  play(): void {
    const { run } = this;
    const { host } = run;
    const { client } = host;
    run.restart();
    this.write(8, 40);
    client.now('flush');
    this.pump(12);
    this.write(4, 128);
    client.now('write', { device: 1, at: 100, count: 8, dsync: true });
    this.pump(12);
    this.change({ op: 'create', nr: 2, sectors: 256 });
    client.now('write', { device: 2, at: 40, count: 64 });
    client.now('write', { device: 0, at: 8, count: 8 });
    this.pump(4);
    host.site(1).paused = true;
    run.daemon.shippers.get(1)!.pause();
    this.write(6, 64);
    client.now('write', { device: 0, at: 256, count: 256 });
    client.now('flush');
    this.pump(10);
    // The site gets this out of the log.
    this.change({ op: 'resize', nr: 2, sectors: 512 });
    client.now('write', { device: 2, at: 200, count: 300 });
    // The images are synced, the checkpoint moves.
    this.rest(1500);
    host.site(1).paused = false;
    run.daemon.shippers.get(1)!.resume();
    this.pump(10);
    this.rest(1500);
    for (let i = 0; i < 6; i++) {
      client.now('write', { device: 1, at: 512, count: 400 });
      this.pump(4);
    }
    this.change({ op: 'resize', nr: 2, sectors: 768 });
    client.now('write', { device: 2, at: 700, count: 8 });
    this.change({ op: 'remove', nr: 2, sectors: 0 });
    run.daemon.shared.bump(SH.SYNC_ASK);
    this.pump(8);
    run.reopen();
    this.write(3, 16);
    client.now('flush');
    this.pump(8);
  }

  write(n: number, largest: number): void {
    const { client, rng } = this.run.host;
    for (let i = 0; i < n; i++) {
      const count = rng.between(1, largest);
      client.now('write', { device: i % 2, at: rng.below((i % 2 === 0 ? 512 : 1024) - count), count });
    }
    for (let i = 0; i < 3; i++) client.step();
  }

  /** An operator changes a device and waits until it is done. */
  change(wish: Wish): void {
    const { host, daemon } = this.run;
    host.wishes.push(wish);
    for (let i = 0; i < 200; i++) {
      this.pump(1);
      if (host.wishes.length === 0 && !daemon.changes!.busy) return;
    }
    throw new Error(`${wish.op} of device ${wish.nr} does not come to its end`);
  }

  pump(rounds: number): void {
    const { daemon, host } = this.run;
    for (let i = 0; i < rounds; i++) {
      this.between();
      for (const name of daemon.names) daemon.step(name === 'client' ? 'drain' : name);
      host.clock.advance(3);
    }
  }

  rest(ms: number): void {
    this.run.host.clock.advance(ms);
    this.pump(6);
  }
}

/** Runs the scenario without faults; the number of its calls. */
export function countCalls(): number {
  const scenario = new Scenario();
  const before = scenario.run.host.world.calls;
  scenario.play();
  const calls = scenario.run.host.world.calls - before;
  scenario.run.settle();
  scenario.run.host.end();
  return calls;
}

/** Runs the scenario with a death at one call; throws what is wrong, with the point in the message. */
export function killAt(point: EveryPoint): void {
  const scenario = new Scenario();
  const { run } = scenario;
  run.faults.kill = { at: run.host.world.calls + point.call, when: point.when, death: point.death };
  try {
    try {
      scenario.play();
    } catch (error) {
      if (!(error instanceof SimKill)) throw error;
      run.died(error);
    }
    // A machine may have caught the kill.
    if (run.host.daemon?.io.dead === true) run.died(new SimKill('noticed later'));
    run.settle();
  } catch (error) {
    const trace = run.host.world.trace.slice(-25).map((line) => `    ${line}`);
    throw new Broken(
      [`death of the ${point.death} ${point.when} call ${point.call}: ${String(error)}`, ...trace].join('\n'),
    );
  } finally {
    run.host.end();
  }
}

const OF_CALLS = {
  read: { kinds: ['read'], verdict: { errno: ERRNO.EIO } },
  open: { kinds: ['open'], verdict: { errno: ERRNO.EIO } },
  write: { kinds: ['write'], verdict: { errno: ERRNO.EIO } },
  sync: { kinds: ['sync'], verdict: { errno: ERRNO.EIO } },
  name: { kinds: ['name', 'attr', 'space', 'facts'], verdict: { errno: ERRNO.EIO } },
  index: { kinds: ['index'], verdict: { errno: ERRNO.EIO } },
  full: { kinds: ['write', 'space', 'index'], verdict: { errno: ERRNO.ENOSPC } },
  'short read': { kinds: ['read'], verdict: { short: 0.4 } },
  'short write': { kinds: ['write'], verdict: { short: 0.4 } },
} as const satisfies Record<string, { kinds: readonly IoKind[]; verdict: Verdict }>;

/** What may befall a site, or single calls. */
export type Befall = 'cut' | 'died' | 'exchanged' | 'paused' | 'clock' | keyof typeof OF_CALLS;
export const BEFALLS: readonly Befall[] = [
  ...(['cut', 'died', 'exchanged', 'paused', 'clock'] as const),
  ...(Object.keys(OF_CALLS) as (keyof typeof OF_CALLS)[]),
];

/** Calls after which what was wrong with a site passes by itself. */
const PASSES = 12;

/** Calls of the scenario in which something may still go wrong: then it must come to its end. */
const WRONG_CALLS = 700;

/**
 * Runs the scenario with something that befalls site 1, or single calls, again and again: at call `offset` and each
 * `period` calls from there on. It settles all the same, and no promise is broken on the way. How often it befell.
 */
export function befallEach(what: Befall, period: number, offset: number, seed = SEED, coverage?: Coverage): number {
  // The second site is there so that disks can be exchanged.
  const sites = [...SHAPE.sites, { nr: 2, area: 1024 * 1024, rpoMs: 0 }];
  const scenario = new Scenario(seed, what === 'exchanged' ? { ...SHAPE, sites } : SHAPE);
  const { run } = scenario;
  try {
    const befall = new Befalling(scenario, what, period, offset);
    scenario.play();
    befall.over();
    run.settle();
    const kind = BEFELL[what];
    if (kind !== undefined) run.coverage.fault(kind, befall.times);
    coverage?.merge(run.coverage);
    return befall.times;
  } catch (error) {
    const trace = run.host.world.trace.slice(-25).map((line) => `    ${line}`);
    throw new Broken([`${what} at call ${offset} and each ${period}: ${String(error)}`, ...trace].join('\n'));
  } finally {
    run.host.end();
  }
}

class Befalling {
  times = 0;
  private readonly host: SimHost;
  private readonly what: Befall;
  private readonly period: number;
  private next: number;
  private readonly last: number;
  /** Call at which what is wrong with the site passes; 0 = nothing is wrong. */
  private until = 0;
  private calls = 0;

  constructor(scenario: Scenario, what: Befall, period: number, offset: number) {
    const { host, faults } = scenario.run;
    this.host = host;
    this.what = what;
    this.period = period;
    this.next = host.world.calls + offset;
    this.last = host.world.calls + WRONG_CALLS;
    const decide = faults.decide.bind(faults);
    // Whoever exchanges disks takes longer than a call; and an operator looks after the log.
    scenario.between = () => {
      const { shared } = scenario.run.daemon;
      if (shared.load(SH.LOG_ERROR) !== 0) shared.bump(SH.LOG_RETRY);
      if (shared.load(SH.LOCAL_ERROR) !== 0) shared.bump(SH.LOCAL_RETRY);
      if (what === 'exchanged') this.look(host.world.calls);
    };
    host.world.faults = {
      decide: (facts) => {
        if (isCall(what)) return this.fails(facts) ? OF_CALLS[what].verdict : decide(facts);
        if (what !== 'exchanged') this.look(facts.n);
        // In a settling in between nobody else puts it right.
        else if (facts.n >= this.until + 10 * PASSES) this.pass();
        return decide(facts);
      },
    };
  }

  over(): void {
    this.next = Infinity;
    this.pass();
  }

  /** Each `period`-th call of its kind, but for those without which no daemon starts. */
  private fails({ n, call, kind }: CallFacts): boolean {
    const kinds: readonly IoKind[] = isCall(this.what) ? OF_CALLS[this.what].kinds : [];
    const wanted = kinds.includes(kind);
    if (!wanted || this.host.daemon === undefined || n < this.next || n > this.last) return false;
    if (!(call.startsWith('SITE:') || OURS.test(call))) return false;
    if (this.calls++ % this.period !== 0) return false;
    this.times++;
    return true;
  }

  private look(n: number): void {
    if (this.until > 0 && n >= this.until) this.pass();
    // A disk on which there is no site yet would be taken by the other one.
    const ready = this.what !== 'exchanged' || (this.host.site(1).made && this.host.site(2).made);
    if (this.until > 0 || !ready || n < this.next || n > this.last) return;
    this.next = n + this.period;
    this.until = n + PASSES;
    this.times++;
    this.begin();
  }

  private begin(): void {
    const { host } = this;
    const site = host.site(1);
    host.note(`site 1: ${this.what}`);
    if (this.what === 'cut') site.disk.unreachable = true;
    else if (this.what === 'died') host.killSite(1);
    else if (this.what === 'exchanged') site.exchange(host.site(2));
    else if (this.what === 'clock') site.clock.skewUs = -100_000_000 * (this.times % 2);
    else {
      site.paused = true;
      host.daemon?.shippers.get(1)?.pause();
    }
  }

  private pass(): void {
    if (this.until === 0) return;
    this.until = 0;
    const { host } = this;
    const site = host.site(1);
    site.disk.unreachable = false;
    if (this.what === 'exchanged') site.exchange(host.site(2));
    if (this.what !== 'paused') return;
    site.paused = false;
    host.daemon?.shippers.get(1)?.resume();
  }
}

const OURS = /^(REPLOG:(WRITE|SYNC|SUPER)|APPLY:(WRITE|DIRECT|SYNC)|INDEX:)/;

function isCall(what: Befall): what is keyof typeof OF_CALLS {
  return what in OF_CALLS;
}

/** What each counts as where it is no call, which counts by itself. */
export const BEFELL: Partial<Record<Befall, FaultKind>> = {
  ...{ cut: 'link cut', died: 'disk of a site died', exchanged: 'disk of a site exchanged' },
  ...{ paused: 'site paused', clock: 'clock of a site set wrong' },
};

/** One death after the other, each at some call of what little a daemon does in its short life; how many. */
export async function deathRow(seed: number, deaths: number, coverage: Coverage): Promise<number> {
  const { run } = new Scenario(seed);
  const { host, faults } = run;
  const rng = new Rng(seed, 'deaths');
  try {
    run.restart();
    for (let n = 0; n < deaths;) {
      faults.kill = {
        at: host.world.calls + rng.between(1, 50),
        when: rng.pick(WHEN),
        death: rng.pick(DEATHS),
      };
      try {
        for (let i = 0; i < 30; i++) {
          if (rng.chance(0.3)) host.client.now('write', { device: 0, at: rng.below(400), count: rng.between(1, 64) });
          if (rng.chance(0.1)) host.client.now('flush');
          for (const name of run.daemon.names) run.daemon.step(name === 'client' ? 'drain' : name);
          host.clock.advance(rng.pick([1, 5, 100]));
        }
      } catch (error) {
        if (!(error instanceof SimKill)) throw error;
        run.died(error);
        n++;
      }
      if (host.daemon?.io.dead === true) run.died(new SimKill('noticed later'));
      if (n % 50 === 49) await collect();
    }
    run.settle();
  } finally {
    coverage.merge(run.coverage);
    host.end();
  }
  return deaths;
}

/**
 * One run of the scenario in which, before every `stride`-th call and before each sync, the machine and the site are
 * looked at as if they died there: what is on its way to the disk just then may be torn in any way.
 */
export function crashImagesAtEveryCall(stride: number, variants: number, seed = SEED, coverage?: Coverage): number {
  const scenario = new Scenario(seed);
  const { host, faults } = scenario.run;
  const checks = new Rng(seed, 'every');
  let looked = 0;
  const started = host.world.calls;
  const decide = faults.decide.bind(faults);
  const look = (n: number): void => {
    for (let i = 0; i < n; i++) {
      checkHost(host, checks);
      for (const { nr } of host.shape.sites) checkSite(host, nr, checks, 'crash');
      looked++;
    }
  };
  host.world.faults = {
    decide(facts) {
      if (host.daemon !== undefined) {
        if (facts.kind === 'sync') look(4 * variants);
        else if ((facts.n - started) % stride === 0) look(variants);
      }
      return decide(facts);
    },
  };
  scenario.play();
  scenario.run.settle();
  coverage?.merge(scenario.run.coverage);
  host.end();
  return looked;
}

/**
 * A batch of a lost tail stands whole behind a reign's first record, at the right place and with the right number:
 * only the chain tells that it is of another history.
 */
function staleTail(): void {
  const { run } = new Scenario();
  const { host } = run;
  const { client } = host;
  const commit = (ms: number): void => {
    for (let i = 0; i < 4; i++) {
      run.daemon.step('committer');
      host.clock.advance(ms);
    }
  };
  run.restart();
  client.now('flush');
  commit(5);
  const { tail } = host.history;
  for (let i = 0; i < 2; i++) {
    client.now('write', { at: 8 * i, count: 8 });
    // Written, and not synced: nobody waits, and hardly any time goes by.
    commit(0.7);
  }
  if (run.daemon.committer.written !== tail + 2 || run.daemon.committer.durable !== tail)
    throw new Error('the scenario does not fit the committer any more');
  host.killMachine({ style: 'last' });
  run.restart();
  if (host.history.tail !== tail + 1)
    throw new Error(`the tail was to be lost, and history goes on at ${host.history.tail}`);
  client.now('flush');
  commit(5);
  host.killMachine({ style: 'none' });
  run.restart();
  run.settle();
  host.end();
}

/** A sync fails and takes some of its pages with it; after the operator's retry a flush means what it says. */
function failedSync(): void {
  for (let seed = 1; seed <= 8; seed++) {
    const { run } = new Scenario(seed);
    const { host, faults } = run;
    run.restart();
    host.client.now('flush');
    pumpOnly(run, ['committer'], 8);
    for (let i = 0; i < 3; i++) host.client.now('write', { at: 40 * i, count: 40 });
    host.client.now('flush');
    faults.episode = { area: 'REPLOG:SYNC', kinds: ['sync'], errno: ERRNO.EIO, left: 1, rate: 1 };
    pumpOnly(run, ['committer'], 8);
    if (run.daemon.shared.load(SH.LOG_ERROR) === 0) throw new Error('the scenario does not fit the committer any more');
    run.daemon.shared.bump(SH.LOG_RETRY);
    pumpOnly(run, ['committer'], 12);
    host.client.now('flush');
    pumpOnly(run, ['committer'], 8);
    if (host.client.flushed !== host.history.tail) throw new Broken('after a retry the log does not go on');
    host.killMachine({ style: 'none' });
    run.restart();
    run.settle();
    host.end();
  }
}

/** Before a request is sent again its record has become durable, applied and released: it is recognised all the same. */
function lateResend(): void {
  const { run } = new Scenario();
  const { host } = run;
  run.restart();
  host.client.now('write', { at: 8, count: 8, dsync: true });
  host.killDaemon();
  run.restart();
  pumpOnly(run, ['committer', 'applier'], 12);
  if (run.daemon.applied !== host.history.tail) throw new Error('the scenario does not fit the machines any more');
  run.settle();
  host.end();
}

function pumpOnly(run: SimRun, names: readonly string[], rounds: number): void {
  for (let i = 0; i < rounds; i++) {
    for (const name of names) run.daemon.step(name);
    run.host.clock.advance(4);
  }
}

/** Each a story of its own. */
export const STORIES = { staleTail, failedSync, lateResend } as const;

const WHEN = ['before', 'during', 'after'] as const;
const DEATHS: readonly Death[] = ['daemon', 'machine', 'keeper'];

/** All points, or for each call as many of its nine as `perCall` says, in turn. */
export function everyPoint(calls: number, perCall = 9): EveryPoint[] {
  const points: EveryPoint[] = [];
  for (let call = 1; call <= calls; call++)
    for (let k = 0; k < perCall; k++) {
      const i = perCall === 9 ? k : (call * 4 + k * 5) % 9;
      points.push({ call, when: WHEN[Math.floor(i / 3)]!, death: DEATHS[i % 3]! });
    }
  return points;
}

/** Runs all points; returns their number. */
export async function killAtEvery(points: readonly EveryPoint[]): Promise<number> {
  let n = 0;
  for (const point of points) {
    killAt(point);
    if (++n % 50 === 0) await collect();
  }
  return n;
}
