/** What goes wrong, and when: one kill that is armed, an episode of errors, now and then a short count. */
import { ERRNO } from '../../src/base/errors.js';
import type { CallFacts, Faults, IoKind, Verdict } from './sim-io.js';
import type { Rng } from './sim-random.js';

export type Death = 'daemon' | 'keeper' | 'machine';

export function randomDeath(rng: Rng): Death {
  return rng.weighted({ daemon: 45, keeper: 15, machine: 40 });
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

const ERRNO_NAME = new Map<number, string>(Object.entries(ERRNO).map(([name, n]) => [n, name]));

export class Coverage {
  private readonly counts = new Map<string, number>();

  hit(what: string, n = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + n);
  }

  of(what: string): number {
    return this.counts.get(what) ?? 0;
  }

  merge(other: Coverage): void {
    for (const [what, n] of other.counts) this.hit(what, n);
  }

  lines(): string[] {
    return [...this.counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, n]) => `  ${String(n).padStart(9)}  ${what}`);
  }
}

export class SimFaults implements Faults {
  kill: ArmedKill | undefined;
  episode: Episode | undefined;
  shortRate = 0;
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
  }

  decide(facts: CallFacts): Verdict | undefined {
    const { kill, episode, rng } = this;
    const { n, call, kind } = facts;
    if (this.peekRate > 0 && rng.chance(this.peekRate)) this.peek();
    if (kill !== undefined && n >= kill.at) {
      this.coverage.hit(`kill ${kill.when} ${call}`);
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
