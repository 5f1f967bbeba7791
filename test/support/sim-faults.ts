/** What goes wrong, and when: one kill that is armed, an episode of errors, now and then a short count. */
import { ERRNO } from '../../src/base/errors.js';
import type { Coverage } from './sim-coverage.js';
import type { CallFacts, Faults, IoKind, Verdict } from './sim-io.js';
import type { Rng } from './sim-random.js';

export type Death = 'daemon' | 'keeper' | 'machine';

export function randomDeath(rng: Rng, rough = false): Death {
  return rng.weighted(rough ? { daemon: 1, keeper: 1, machine: 1 } : { daemon: 45, keeper: 15, machine: 40 });
}

export interface ArmedKill {
  /** Number of the call. */
  at: number;
  when: 'before' | 'during' | 'after';
  death: Death;
}

export interface Episode {
  /** Calls whose name starts so. */
  area: string;
  kinds: readonly IoKind[];
  errno: number;
  /** How many calls still fail. */
  left: number;
  /** Chance of each call to fail. */
  rate: number;
}

/** What a death at a call counts as. */
const DEATHS = {
  daemon: 'daemon killed at a call',
  keeper: 'keeper and daemon killed at a call',
  machine: 'machine died at a call',
} as const;

/** How likely calls are to fail where it is rough, by kind; those that are few more than others. */
const ROUGH: Record<IoKind, number> = {
  ...{ read: 0.04, write: 0.02, sync: 0.04, open: 0.05, space: 0.02, name: 0.02, attr: 0.02, facts: 0.01, index: 0.15 },
};

/** Beside those of sites. A daemon that starts is to find its own log and images. */
const ROUGH_CALLS = /^(REPLOG:(WRITE|SYNC|SUPER)|APPLY:(WRITE|DIRECT|SYNC)|INDEX:)/;

const ERRNO_NAME = new Map<number, string>(Object.entries(ERRNO).map(([name, n]) => [n, name]));

export class SimFaults implements Faults {
  kill: ArmedKill | undefined;
  episode: Episode | undefined;
  shortRate = 0;
  /** Single calls fail all the time. */
  rough = false;
  /** Looks at everything as if all machines died at this very call; now and then. */
  peek: () => void = () => {};
  peekRate = 0;
  /** What is wrong with single sites. */
  ofSites: Faults = { decide: () => undefined };
  private readonly rng: Rng;
  private readonly coverage: Coverage;

  constructor(rng: Rng, coverage: Coverage) {
    this.rng = rng;
    this.coverage = coverage;
  }

  clear(): void {
    this.kill = undefined;
    this.episode = undefined;
    this.shortRate = 0;
    this.rough = false;
  }

  decide(facts: CallFacts): Verdict | undefined {
    const { kill, episode, rng } = this;
    const { n, call, kind } = facts;
    if (this.peekRate > 0 && rng.chance(this.peekRate)) this.peek();
    if (kill !== undefined && n >= kill.at) {
      this.coverage.hit(`kill ${kill.when} ${call}`);
      this.coverage.fault(DEATHS[kill.death]);
      return { kill: kill.when };
    }
    if (episode !== undefined && episode.left > 0 && call.startsWith(episode.area) && episode.kinds.includes(kind)) {
      if (rng.chance(episode.rate)) {
        episode.left--;
        this.coverage.hit(`error ${ERRNO_NAME.get(episode.errno)} at ${call}`);
        return { errno: episode.errno };
      }
    }
    if (this.shortRate > 0 && (kind === 'write' || kind === 'read') && rng.chance(this.shortRate)) {
      this.coverage.hit(`short ${kind}`);
      return { short: 0.05 + 0.9 * rng.real() };
    }
    if (this.rough && rng.chance(ROUGH[kind]) && (call.startsWith('SITE:') || ROUGH_CALLS.test(call)))
      return { errno: rng.chance(0.4) ? ERRNO.ENOSPC : ERRNO.EIO };
    return this.ofSites.decide(facts);
  }

  /** `more`: areas beside those of every group. */
  static randomEpisode(rng: Rng, more: readonly string[] = []): Episode {
    const areas = ['REPLOG:WRITE', 'REPLOG:SYNC', 'REPLOG:SUPER', 'APPLY:', 'SITE:', 'SITE:', 'INDEX:', ...more];
    const area = rng.pick(areas);
    const site = area === 'SITE:' || area === 'STAMP:';
    return {
      area,
      kinds: rng.pick<readonly IoKind[]>([
        ['write', 'index'],
        ['sync', 'index'],
        ['write', 'sync', 'space', 'index'],
        site ? ['read', 'open', 'name', 'attr', 'facts'] : ['sync', 'index'],
      ]),
      errno: rng.chance(0.3) ? ERRNO.ENOSPC : ERRNO.EIO,
      left: rng.pick([1, 1, 2, 5, 40]),
      rate: rng.pick([0.1, 0.5, 1]),
    };
  }
}
