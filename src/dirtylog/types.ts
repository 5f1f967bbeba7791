/** What a dirty-log type registers: the words behind its name in a leg of a `replicator-dev` table line. */
import { CLASS, typeClass } from '../registry/registry.js';

/** A dirty log as a table asks for it. */
export interface DirtyLogTable {
  /** Sectors of a region; undefined where there are no regions. */
  region: number | undefined;
  /** The device of a log that is kept on one. */
  device: string | undefined;
  /** Whether all regions are taken for equal at first (`nosync`) or none (`sync`); undefined: as stored. */
  start: 'sync' | 'nosync' | undefined;
}

export interface DirtyLogType {
  /** A line for people. */
  readonly summary: string;
  /** Throws EINVAL naming the word. */
  parse(params: readonly string[]): DirtyLogTable;
}

export const DIRTY_LOG = typeClass<DirtyLogType>(CLASS.LOG);

/** Sectors of a region, where nothing else is said, and the smallest that can be had. */
export const DEFAULT_REGION = 8192;
export const MIN_REGION = 128;

/**
 * A dirty log of one device at one site: keeps bits, set = the region may differ. One thread calls it (main). What it
 * holds is never less than what is true: `store` is durable before the log's head passes the records that were marked,
 * and regions are cleared only in a `store` behind the copy.
 */
export interface DirtyLog {
  readonly type: string;
  /** `A` alive, `D` its device is dead, `F` a flush failed (spec C-28). */
  readonly state: 'A' | 'D' | 'F';
  /** Why it is not alive: a sentence; '' where it is. */
  readonly reason: string;
  /** What it holds; undefined where it knows nothing, so that every region counts as dirty. */
  load(): Uint8Array | undefined;
  /** Bits of `regions` regions (bit i % 8 of byte i / 8), durable when it returns 0; a negative errno, state `F`, otherwise. */
  store(bits: Uint8Array, regions: number): number;
  close(): void;
}
