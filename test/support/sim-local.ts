/** What goes wrong with slink 0's images, for a while and over every death: a disk of its own that fails or is full. */
import { ERRNO } from '../../src/base/errors.js';
import type { Coverage } from './sim-coverage.js';
import type { CallFacts, IoKind, Verdict } from './sim-io.js';
import type { Rng } from './sim-random.js';

const IMAGE = /^\/local\/disk\d+\.img$/;

/** Calls that fail, and how. */
const KINDS: Record<string, { kinds: readonly IoKind[]; errno: number }> = {
  full: { kinds: ['write', 'space'], errno: ERRNO.ENOSPC },
  'not writable': { kinds: ['write', 'space', 'sync'], errno: ERRNO.EIO },
  'not syncing': { kinds: ['sync'], errno: ERRNO.EIO },
  'not readable': { kinds: ['read'], errno: ERRNO.EIO },
  dead: { kinds: ['write', 'space', 'sync', 'read', 'open', 'facts', 'attr'], errno: ERRNO.EIO },
};

const LONGEST = 600;

export class LocalTrouble {
  private readonly rng: Rng;
  private readonly coverage: Coverage;
  private now: { kind: string; until: number; rate: number } | undefined;

  constructor(rng: Rng, coverage: Coverage) {
    this.rng = rng;
    this.coverage = coverage;
  }

  /** Now and then something begins, or passes. */
  tick(step: number): void {
    const { rng } = this;
    if (this.now !== undefined && this.now.until <= step) this.heal();
    if (this.now !== undefined || !rng.chance(1 / 150)) return;
    const kind = rng.pick(Object.keys(KINDS));
    this.now = { kind, until: step + rng.between(20, LONGEST), rate: rng.pick([0.3, 1, 1]) };
    this.coverage.hit(`local images ${kind}`);
  }

  heal(): void {
    this.now = undefined;
  }

  decide({ kind, path }: CallFacts): Verdict | undefined {
    const { now } = this;
    if (now === undefined || !IMAGE.test(path)) return undefined;
    const { kinds, errno } = KINDS[now.kind]!;
    return kinds.includes(kind) && this.rng.chance(now.rate) ? { errno } : undefined;
  }
}
