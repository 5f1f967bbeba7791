/** What a replog type registers: the words behind its name in a `replicator` table line. */
import { CLASS, typeClass } from '../registry/registry.js';
import type { LogMode } from './logcreate.js';

/** A log as a table asks for it. */
export interface ReplogTable {
  /** A file or a block device. */
  path: string;
  /** Sector at which it begins. */
  start: number;
  mode: LogMode;
  /** Bytes; undefined with `open`, where the log itself says it. */
  size: number | undefined;
}

export interface ReplogType {
  /** A line for people. */
  readonly summary: string;
  /** Throws EINVAL naming the word. */
  parse(params: readonly string[]): ReplogTable;
  /** Words that open the log again. */
  print(log: { path: string }): string[];
}

export const REPLOG = typeClass<ReplogType>(CLASS.REPLOG);
