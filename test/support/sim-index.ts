/**
 * The index of the simulator: the contract of index/contract over memory, each commit atomic and durable when it
 * returns. The store outlives processes and keeps its last generations, so that it can be set back or lost.
 */
import { RepError } from '../../src/base/errors.js';
import type { DirtyFact, Index, IndexChange, LinkFact, ReignFact, SegmentFact } from '../../src/index/contract.js';
import type { LogPlaceLike } from '../../src/index/place.js';
import type { SimIo } from './sim-io.js';
import type { Rng } from './sim-random.js';

interface Facts {
  generation: number;
  checkpoint: LogPlaceLike | undefined;
  links: Map<number, LinkFact>;
  reigns: ReignFact[];
  segments: SegmentFact[];
  dirty: DirtyFact[];
}

const KEEP = 12;

export class SimIndexStore {
  id: string;
  private kept: Facts[] = [emptyFacts()];

  constructor(id: Rng | string) {
    this.id = typeof id === 'string' ? id : newId(id);
  }

  /** Another store with the same content. */
  copy(): SimIndexStore {
    const store = new SimIndexStore(this.id);
    store.kept = [...this.kept];
    return store;
  }

  get facts(): Facts {
    return this.kept.at(-1)!;
  }

  get generations(): number {
    return this.kept.length;
  }

  put(facts: Facts): void {
    this.kept.push(facts);
    if (this.kept.length > KEEP) this.kept.shift();
  }

  /** A restored backup: the same environment, `by` commits older. False where there are not so many. */
  rollBack(by: number): boolean {
    if (by < 1 || by >= this.kept.length) return false;
    this.kept = this.kept.slice(0, this.kept.length - by);
    return true;
  }

  /** The environment is gone; the next open makes a new one. */
  lose(rng: Rng): void {
    this.id = newId(rng);
    this.kept = [emptyFacts()];
  }

  open(io: SimIo): SimIndex {
    return new SimIndex(this, io);
  }
}

export class SimIndex implements Index {
  readonly id: string;
  private readonly store: SimIndexStore;
  private readonly io: SimIo;

  constructor(store: SimIndexStore, io: SimIo) {
    this.store = store;
    this.io = io;
    this.id = store.id;
  }

  get generation(): number {
    return this.store.facts.generation;
  }

  checkpoint(): LogPlaceLike | undefined {
    return copy(this.store.facts.checkpoint);
  }

  links(): LinkFact[] {
    return [...this.store.facts.links.values()].sort((a, b) => a.nr - b.nr).map(copy);
  }

  reigns(): ReignFact[] {
    return this.store.facts.reigns.map(copy);
  }

  segments(): Omit<SegmentFact, 'extents'>[] {
    return this.store.facts.segments.map(({ extents: _, ...rest }) => copy(rest));
  }

  extents(start: number): Uint8Array | undefined {
    return this.store.facts.segments.find((segment) => segment.start === start)?.extents;
  }

  dirty(link: number): DirtyFact[] {
    return this.store.facts.dirty.filter((fact) => fact.link === link).map(copy);
  }

  commit(change: IndexChange): number {
    const rc = this.io.through('INDEX:COMMIT', 'index', '/index', (share) => {
      if (share < 1) return 0;
      this.store.put(applied(this.store.facts, copy(change)));
      return 0;
    });
    if (rc < 0)
      throw new RepError(rc === -28 ? 'ENOSPC' : 'EIO', 'the index cannot be written (simulated); nothing was changed');
    return this.generation;
  }

  async close(): Promise<void> {}
}

function applied(old: Facts, change: IndexChange): Facts {
  const links = new Map(old.links);
  for (const link of change.links ?? []) links.set(link.nr, link);
  for (const nr of change.dropLinks ?? []) links.delete(nr);
  let segments = old.segments;
  if (change.segments !== undefined) {
    const fresh = new Map(segments.map((segment) => [segment.start, segment]));
    for (const segment of change.segments) fresh.set(segment.start, segment);
    segments = [...fresh.values()].sort((a, b) => a.start - b.start);
  }
  const below = change.dropSegmentsBelow;
  if (below !== undefined) segments = segments.filter((segment) => segment.start >= below);
  const reigns = [...old.reigns];
  for (const reign of change.reigns ?? []) {
    const at = reigns.findIndex((r) => r.reign === reign.reign);
    if (at >= 0) reigns[at] = reign;
    else reigns.push(reign);
  }
  const checkpoint = change.checkpoint ?? old.checkpoint;
  return { generation: old.generation + 1, checkpoint, links, reigns, segments, dirty: dirtyBehind(old.dirty, change) };
}

function dirtyBehind(old: readonly DirtyFact[], change: IndexChange): DirtyFact[] {
  const same = (a: { link: number; device: number }, b: { link: number; device?: number }): boolean =>
    a.link === b.link && (b.device === undefined || a.device === b.device);
  const { dirty = [], dropDirty = [], dropLinks = [] } = change;
  return [
    ...old.filter((fact) => !dropDirty.some((gone) => same(fact, gone)) && !dirty.some((d) => same(fact, d))),
    ...dirty,
  ]
    .filter((fact) => !dropLinks.includes(fact.link))
    .sort((a, b) => a.link - b.link || a.device - b.device);
}

function emptyFacts(): Facts {
  return { generation: 0, checkpoint: undefined, links: new Map(), reigns: [], segments: [], dirty: [] };
}

function newId(rng: Rng): string {
  return [0, 0, 0, 0].map(() => rng.u32().toString(16).padStart(8, '0')).join('');
}

function copy<T>(value: T): T {
  return structuredClone(value);
}
