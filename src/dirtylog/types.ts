/** What a dirty-log type registers: the words behind its name in a leg of a `replicator-dev` table line, and the log. */
import type { Io } from '../base/io.js';
import type { DirtyFact } from '../index/contract.js';
import { CLASS, typeClass } from '../registry/registry.js';

/** A dirty log as a table asks for it. */
export interface DirtyLogTable {
  /** Sectors of a region; undefined where there are no regions. */
  region: number | undefined;
  /** The device of a log that is kept on one. */
  device: string | undefined;
  /** Whether no region is taken for equal at first (`sync`) or all are (`nosync`); undefined: as stored. */
  start: 'sync' | 'nosync' | undefined;
}

/** Whose dirty log it is: one device at one site. */
export interface DirtyLeg {
  /** Identity of the group's log, 32 hexadecimal digits. */
  logId: string;
  link: number;
  device: number;
  /** For sentences: `disk0 at site 1`. */
  name: string;
}

/** What a dirty log is made of. */
export interface DirtyLogNeeds {
  io: Io;
  leg: DirtyLeg;
  table: DirtyLogTable;
  /** Sectors of a region, the same in the whole group. */
  region: number;
  /** Sectors of the device. */
  sectors: number;
  /**
   * The leg begins: `sync` and `nosync` mean now. For one that had begun they mean nothing any more: a site that was left
   * in the middle of a resync would be called equal by a `nosync` of long ago.
   */
  begins: boolean;
  /** What the index holds of it. */
  fact: DirtyFact | undefined;
  /** What `path` is in the group already (`the log`), '' where it is nothing. */
  taken(path: string): string;
}

export interface DirtyLogType {
  /** A line for people. */
  readonly summary: string;
  /** Throws EINVAL naming the word. */
  parse(params: readonly string[]): DirtyLogTable;
  /** Why the device of such a log cannot be used, a sentence; '' where it can, or there is none. Changes nothing. */
  look(needs: DirtyLogNeeds): string;
  /** A log that nothing was done with yet: what is wrong with its device shows in `state` behind `load`. */
  make(needs: DirtyLogNeeds): DirtyLog;
}

export const DIRTY_LOG = typeClass<DirtyLogType>(CLASS.LOG);

/** Sectors of a region, where nothing else is said, and the smallest and the largest that can be had. */
export const DEFAULT_REGION = 8192;
export const MIN_REGION = 128;
export const MAX_REGION = 2 ** 31;

/**
 * A dirty log of one device at one site: keeps bits, set = the region may differ. One thread calls it (main). What it
 * holds is never less than what is true: `store` is durable before the log's head passes the records that were marked,
 * and regions are cleared only in a `store` behind the copy. DirtyKeep (keep.ts) has that order.
 */
export interface DirtyLog {
  readonly type: string;
  /**
   * Where bits last: `index`: in the commit that moves the cursor, by whoever commits; `device`: where `store` puts
   * them; `memory` and `nothing`: nowhere, and with `nothing` the site is not to be dropped from the ring either.
   */
  readonly keeps: 'nothing' | 'memory' | 'index' | 'device';
  /** `A` alive, `D` its device is dead, `F` a flush failed (spec C-28). */
  readonly state: 'A' | 'D' | 'F';
  /** Why it is not alive: a sentence; '' where it is. */
  readonly reason: string;
  /** What it holds; undefined where it knows nothing, so that every region counts as dirty. Called once, first. */
  load(): Uint8Array | undefined;
  /**
   * Bits of `regions` regions (bit i % 8 of byte i / 8), durable when it returns 0; a negative errno, state `D` or `F`,
   * otherwise: the next call tries all of it again.
   */
  store(bits: Uint8Array, regions: number): number;
  close(): void;
}
