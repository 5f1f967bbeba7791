/**
 * The index: facts about the log that are neither in its records nor in its superblock, in one transactional
 * store per group. The product keeps it in LMDB (index/lmdb.ts); the simulator has its own.
 *
 * Order of durability: index committed and flushed → superblock names that generation → log space reused.
 */
import type { LogPlaceLike } from './place.js';

/** A link's durable cursor and state. Below `cursor` the site has confirmed everything. */
export interface LinkFact {
  nr: number;
  cursor: LogPlaceLike;
  reign: number;
  /** `in-order`: the site is a prefix of history at its cursor; `inconsistent`: it has to be made equal by copying. */
  sync: 'in-order' | 'inconsistent';
  paused: boolean;
  /**
   * Of an inconsistent link: it is in order again once its cursor's seq is at least this one and nothing is dirty. Left out
   * where it is not known what the site lacks: all of it.
   */
  wholeAt?: number;
  /** Of an inconsistent link: its site was never open yet, and may be made. */
  fresh?: boolean;
}

/** Which regions of a device may differ at a site. A device without such a fact: unknown, every region may. */
export interface DirtyFact {
  link: number;
  device: number;
  /** Sectors of a region. */
  region: number;
  regions: number;
  /** Region i is bit i % 8 of byte i / 8, set = dirty; `ceil(regions / 8)` bytes, bits behind the last region are 0. */
  bits: Uint8Array;
}

export interface ReignFact {
  reign: number;
  /** 32 hexadecimal digits. */
  id: string;
  /** The place before its first record. */
  start: LogPlaceLike;
  wallUs: number;
}

export interface SegmentFact {
  /** Log position of the segment's first byte. */
  start: number;
  firstSeq: number;
  lastSeq: number;
  firstTimeUs: number;
  lastTimeUs: number;
  /** Names of tags and the seq of each. */
  tags: { name: string; seq: number; timeUs: number }[];
  /** Packed extents, see replog/extents. */
  extents: Uint8Array;
}

export interface IndexChange {
  checkpoint?: LogPlaceLike;
  links?: LinkFact[];
  /** Numbers of links that are no more; what was dirty there goes with them, whatever else the change says. */
  dropLinks?: number[];
  /** Replaces what was dirty of each of these. */
  dirty?: DirtyFact[];
  /** Of a link, or of one device there. Happens before `dirty`. */
  dropDirty?: { link: number; device?: number }[];
  reigns?: ReignFact[];
  segments?: SegmentFact[];
  /** Forget segments whose first byte lies below this position. */
  dropSegmentsBelow?: number;
}

export interface Index {
  /** 32 hexadecimal digits; made with the store, never again the same. */
  readonly id: string;
  /** Grows by one with each commit. */
  readonly generation: number;
  checkpoint(): LogPlaceLike | undefined;
  links(): LinkFact[];
  reigns(): ReignFact[];
  segments(): Omit<SegmentFact, 'extents'>[];
  extents(start: number): Uint8Array | undefined;
  /** Of all devices, in the order of their numbers. */
  dirty(link: number): DirtyFact[];
  /** Atomic; durable when it returns the new generation. Throws RepError (ENOSPC, EIO). */
  commit(change: IndexChange): number;
  close(): Promise<void>;
}
