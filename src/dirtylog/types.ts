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
