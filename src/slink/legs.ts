/**
 * What a site without a journal writes to: one leg per device, a local device or file (disk-legs.ts) or an export
 * of an NBD server (nbd-legs.ts). Legs know nothing of order, stamps or cursors; raw-site.ts does.
 *
 * Calls return 0 (or a length) or a negative errno, and leave a sentence in `reason`. `write`, `discard` and
 * `zeroes` may still be on their way when they return; they are done after `settle`, and durable after `sync`.
 */
import type { Mem } from '../base/mem.js';
import type { Connections, SiteDevice, SiteReader } from './contract.js';
import type { RecordTarget } from './records.js';

export type LegsOpened =
  | { ok: true }
  /** `againMs`: when it is worth another try; the usual interval where it is left out. */
  | { ok: false; refused: boolean; reason: string; againMs?: number };

export interface Legs extends RecordTarget {
  readonly reason: string;
  /** Devices with a smaller number that have no leg have left: their records are passed over. Set before `open`. */
  usedBelow: number;
  /** Where the leg of a device is: a path, or HOST:PORT/EXPORT; '' where the site's map lacks it. */
  target(device: string): string;
  /**
   * Opens the legs of all these devices, or none. Refuses what cannot serve; nothing is written. `unsure`: an
   * earlier process may have left requests behind that nobody ever saw answered.
   */
  open(devices: readonly SiteDevice[], unsure: boolean): LegsOpened;
  /** True where records of the device have a place to go, or are known to have none any more. */
  knows(nr: number): boolean;
  /** Records of a device that has left the group are passed over. */
  forget(nr: number): void;
  /** All of `len` bytes at `pos`, or the negative errno; from the disk where it can be had, not from a cache. */
  read(nr: number, mem: Mem, off: number, len: number, pos: number): number;
  /** The first byte at or behind `pos` that may be other than zero (the size where there is none); negative errno. */
  nextData(nr: number, pos: number, size: number): number;
  /** All that was begun is done when it returns 0, and memory that was handed over is free. Left out: it always is. */
  finish?(): number;
  /** All that was written is durable when it returns 0. */
  sync(): number;
  /** Looks whether the legs are still there and still themselves. */
  probe(): number;
  /** When it is worth another try after a failure, milliseconds; undefined = the usual interval. */
  readonly againMs?: number | undefined;
  /** Left out by legs that have none. */
  readonly connections?: Connections;
  /** As in the contract of a site; left out where legs cannot be read by descriptors. */
  readers?(): SiteReader[] | string;
  close(): void;
}
