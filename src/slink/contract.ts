/**
 * The contract of a site: what a slink plug-in does, so that the shipper can drive it without knowing whether
 * it is a folder, a raw device, an NBD server or a hub.
 *
 * Life. A site is made closed. `open` is called until it succeeds, at first and after every failure; it makes
 * the site where that is allowed, repairs what a crash left, and says how far the site has come: its own
 * cursor, from its own memory. Then `write`, `flush` and `probe` in any order, then `close`. After `close`, or
 * after anything returned an error, the next call is `open`. `close` never fails and may be called twice.
 *
 * Thread. One thread calls one site, never two at once. Calls may block: that is why each site that can hang
 * has a thread of its own. The data of a batch stay as they are until the call returns.
 *
 * Order. `write` gets batches of consecutive records, each continuing the one before by seq and chain, and
 * only what is durable in this machine's log. When it returns 0 the batch is *confirmed*: whatever happens to
 * the site's machine, `open` will find it. Between calls and at every moment in them, what the site keeps is a
 * prefix of the group's history, or the site says that it is not.
 *
 * Open window. A site without a journal (raw devices, NBD) flushes before `write` returns, so that 0 means the
 * same. But while it writes, and after a failure in there, it may hold any part of the batch: it is a prefix
 * again only behind the records of `window`, once they were sent again. Such a site gives `window`; for others
 * it is left out.
 *
 * Sizes. Offsets and lengths are whole sectors of 512 bytes. A batch holds at most `SHIP_RECORDS` records and
 * so many bytes as one batch of the log can have.
 *
 * Errors. Calls return 0 or a negative errno and leave a sentence (the thing, the reason, the next step) in
 * `reason`. A site that is not what it should be (another group's, an image exchanged, rolled back) is
 * `refused`: nothing has been written to it, and nothing will be. One that cannot be reached is `failed` and
 * is probed every 15 s (settable) until it opens again; a refused one is looked at in the same rhythm, as an
 * operator may put the right one back.
 *
 * States of a link, as status shows them:
 *
 *   connected      open, and it keeps up
 *   behind         open, but what it needs has left the memory window, and more than a batch of it: the log's
 *                  file is read
 *   paused         by an operator; nothing is sent
 *   failed         not open; `reason` says why; probed
 *   resyncing      dirty regions are being copied; the site is inconsistent meanwhile
 *
 * and of the site's content: `in-sync` (a prefix of history at its cursor, no dirty region) or `inconsistent`.
 */
import type { Mem } from '../base/mem.js';
import type { ShipBatch } from './batch.js';
import type { SiteCursor } from './cursor.js';

export type LinkState = 'connecting' | 'connected' | 'behind' | 'paused' | 'failed' | 'resyncing';
export type SiteSync = 'in-sync' | 'inconsistent';

/** A device as a site sees it. */
export interface SiteDevice {
  nr: number;
  name: string;
  /** Bytes. */
  size: number;
}

/** Whose site it is. A site that carries another identity is refused. */
export interface GroupIdentity {
  /** 32 hexadecimal digits: the log's (replog superblock). */
  logId: string;
  group: string;
  /** Slink number of the site. */
  nr: number;
}

export type { SiteCursor } from './cursor.js';

/**
 * A site that is to be made equal by copying (ARCHITECTURE 20). Everything before `at` is in its images already or will
 * be copied; records follow from `at` on.
 */
export interface SiteResync {
  at: SiteCursor;
  /**
   * The devices of the present. Where the site is set to `at`, what it has beyond them goes as by a DEVICE_REMOVE, and
   * what it lacks is made; one that goes on from a place of its own has those of that place, and records tell the rest.
   */
  devices: readonly SiteDevice[];
  /**
   * The first number that no device had yet: records of smaller ones that are not in `devices` are passed over. What
   * the site has from this number on came by records behind `at`, and stays.
   */
  nextDevice: number;
  /**
   * Begins at `at` even where the site says that it is farther; only where every region is marked dirty. And where the
   * operator says so (`force`), even where the site, or an image of it, is another's: what is there is overwritten.
   * `force` alone takes nothing: what the site had confirmed would be missing where no region says so.
   */
  anew: boolean;
  force: boolean;
}

/** Whether what stands there may be taken, whoever's it is. */
export function mayTake(resync: SiteResync | undefined): boolean {
  return resync !== undefined && resync.anew && resync.force;
}

/**
 * What a resync and a verify need of an open site. Ranges are whole sectors within a device that the site has; calls
 * return 0 (`read`: the bytes) or a negative errno with `reason` set, after which the next call is `open`. ENODEV: it has no
 * such device, which is no failure of the site.
 */
export interface SiteCopy {
  /** Reads what the site holds into `mem` at `at`, which is aligned to 4096. Past any cache where it can. */
  read(nr: number, offset: number, length: number, mem: Mem, at: number): number;
  /**
   * The first byte at or behind `offset` that may hold anything but zeroes, at most `end`; `end` where all are zero. Left out
   * where the site cannot tell.
   */
  nextData?(nr: number, offset: number, end: number): number;
  /** Writes; only while the site is `inconsistent`. It survives a crash of the site behind the next `settle`. */
  write(nr: number, offset: number, length: number, mem: Mem, at: number): number;
  /** The range reads as zeroes; holes where they can be had. */
  zero(nr: number, offset: number, length: number): number;
  /** What was written and zeroed so far survives a crash of the site. */
  settle(): number;
  /** The site is a prefix of history at its cursor again: settles everything, and its stamp says so durably. */
  whole(): number;
}

/** What `open` may do where nothing of the site is there yet. */
export interface SiteOpen {
  /**
   * What a site that is made starts with: the devices at `create`. One that exists knows its own, from its own
   * memory and from the device records that it was sent; it may be far behind what the group has at present.
   */
  devices: readonly SiteDevice[];
  identity: GroupIdentity;
  /**
   * Where history starts for a site that has never confirmed anything: it may be made, empty, at this place.
   * Left out for a site that exists: then one that is not there has failed and is never made anew.
   */
  create?: SiteCursor;
  /**
   * The link is inconsistent. A site that has come to `at` or farther goes on from its own place, in order or not (unless
   * `anew`): set back, it would hold the future of its cursor. Any other one is set to `at`, and the devices are made to
   * fit. All that it has confirmed is brought into its images before that; then its stamp says *inconsistent*, durably,
   * before anything else is changed. A site that is not there is made at `at` where `create` is given, or by force.
   * Without `resync`, a site whose stamp says inconsistent is refused.
   */
  resync?: SiteResync;
  /**
   * Shows the headers of all records that may have been sent behind `from` and never confirmed. False where the
   * log has no batch that begins at `from`, or cannot be read there.
   */
  sentBehind?(from: SiteCursor, visit: (mem: Mem, headers: number, count: number) => void): boolean;
}

/** An image of a site, open for reading: as device/reader takes it. */
export interface SiteReader {
  nr: number;
  /** Bytes of the device, as the site knows it. */
  size: number;
  fd: number;
  /** With O_DIRECT; -1 where the file system has none. */
  direct: number;
}

/** Records [from, to) were sent, or are being sent, and are not confirmed; `bytes` of payload, 0 = not known. */
export interface OpenWindow {
  from: number;
  to: number;
  bytes: number;
}

/** What became of a site's connections since its thread began. */
export interface Connections {
  /** How often it was connected; every time but the first is a reconnection. */
  made: number;
  /** How often a connection in use was lost, or given up after an error. */
  lost: number;
  /** How often one was closed because the other side sent what cannot be. */
  garbage: number;
}

export type SiteOpened =
  /**
   * `lost`: what it had confirmed before may not be there any more (something was taken by force): whoever ordered the
   * resync must count every region as dirty.
   */
  | { ok: true; cursor: SiteCursor; lost?: boolean }
  /** `refused`: it is there and wrong; otherwise it cannot be reached just now. */
  | { ok: false; refused: boolean; reason: string };

export interface Site {
  /** `blockdev`, as in an address. */
  readonly type: string;
  /** What it prefers to get at once, bytes. */
  readonly batchBytes: number;
  /** Why the last call failed: a sentence for the operator, '' where none did. */
  readonly reason: string;
  /** True where the last failure was the site being the wrong one. */
  readonly refused: boolean;
  /** True while a `flush` would do something. */
  readonly unflushed: boolean;
  /** The open window, null while there is none; left out by sites that never have one. */
  readonly window?: OpenWindow | null;
  /** True where `open` failed only because it has not come to its end: no failure, call it again. */
  readonly preparing?: boolean;
  /** After a failure or `preparing`: when to try again, milliseconds; undefined = at the usual interval. */
  readonly againMs?: number | undefined;
  /** Its stamp says that it is no prefix of history: from an `open` with `resync` until `copy.whole` has returned 0. */
  readonly inconsistent?: boolean;
  /** Left out by types that can be neither resynced nor verified. */
  readonly copy?: SiteCopy;
  /** Left out by sites that have no connections. */
  readonly connections?: Connections | undefined;
  open(how: SiteOpen): SiteOpened;
  /**
   * Confirms a batch: 0, or the negative errno. A site that goes on working behind the moment from which `open` will
   * find the batch calls `confirmed` in that moment, so that nobody waits for the rest; it may still fail.
   */
  write(batch: ShipBatch, confirmed?: () => void): number;
  /** Settles what was written (folder: images synced, stage emptied): 0, or the negative errno. */
  flush(): number;
  /** Looks whether the open site is still there and still itself: 0, or the negative errno. */
  probe(): number;
  /** Nothing has come for a while: memory that the next call can have again is given back. */
  rest?(): void;
  /**
   * New descriptors of its images for those who read them, or why there are none. Left out by types whose images this
   * machine cannot read by descriptors, or whose images may lack something that they have confirmed.
   */
  readers?(): SiteReader[] | string;
  close(): void;
}
