/**
 * Makes a site that has left the log whole again: copies its dirty regions from slink 0's images, between two batches of
 * the records that follow behind (ARCHITECTURE 20). A machine of the shipper's thread; main owns the bits and decides
 * what counts.
 *
 *   t1 := APPLIED, and only where the link's cursor <= t1
 *   read a range of slink 0's image                     LocalSource
 *   t2 := DURABLE
 *   write it to the site                                Copier; nothing is shipped between t1 and here
 *
 * For the state of a range when the cursor has passed t2: what any record before the cursor did to it is in the image, as
 * the cursor was at most t1; what one from the cursor on did is written to the site behind the copy, in order, and nothing
 * in the copy is of a record at or behind t2. So whatever the read caught in part is whole again then.
 *
 * While ranges are being copied the shipper sends nothing that slink 0 does not hold (`limits`): otherwise the cursor
 * would be ahead of APPLIED for as long as there is load, and nothing could ever be copied.
 *
 * A copied region is told to main when the site has settled it. It stays in `Walk` as done until the bits say so too, or
 * until a failure takes it back: of the site before it was settled, of a sync of slink 0's images (DOUBTS) until main
 * has cleared it, of everything when a new epoch begins.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO } from '../base/errors.js';
import { MIB } from '../base/units.js';
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { Site, SiteCursor, SiteResync } from './contract.js';
import { COPY, Copier } from './copier.js';
import type { LocalSource } from './local-source.js';
import type { CopiedReport, InSyncReport, ResyncOrder, ResyncProgress } from './resync-order.js';
import { Walk } from './resync-walk.js';
import { Throttle, type ThrottleOptions } from './throttle.js';

export type * from './resync-order.js';

/** Whether links leave the ring and are resynced at all. The parts are driven by tests until it is true. */
export const RESYNC_SERVED = false as boolean;

/** Between two batches of records at most so much is done. */
const STEP_MS = 20;
const STEP_BYTES = 8 * MIB;
/** The site settles after so much was written to it, or so long after the first range that is not settled. */
const SETTLE_BYTES = 64 * MIB;
const SETTLE_MS = 1000;
const PROGRESS_MS = 250;
/** How often it is asked whether APPLIED has caught up with the cursor, and whether what is in the way has gone. */
const BEHIND_MS = 2;
const TROUBLE_MS = 200;
const AGAIN_MS = 1;
/** Devices without an image, here or there, are looked for again after so long. */
const ABSENT_MS = 1000;
/** Nothing is left to do here until a message comes. */
const REST_MS = 1000;

export interface ResyncEvents {
  copied(report: CopiedReport): void;
  inSync(report: InSyncReport): void;
  /** The site may lack what it had confirmed: all regions are to be marked, which begins a new epoch. */
  lost?(epoch: number): void;
  progress?(progress: ResyncProgress): void;
}

export interface ResyncParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  site: Site;
  local: LocalSource;
  events: ResyncEvents;
}

export class Resync {
  /** Why nothing is copied just now, '' where it is. */
  reason = '';

  private readonly parts: ResyncParts;
  private readonly throttle: Throttle;
  private copier: Copier | undefined;
  private now: ResyncOrder | undefined;
  private walk: Walk | undefined;
  /** The site was opened in this epoch: from then on it goes on from its own cursor. */
  private begun = false;
  /** All that is dirty was copied. */
  private walked = false;
  /** SH.DOUBTS as of everything that is done. */
  private doubts = 0;
  /** Seq that the cursor must have reached, once main has said that nothing is dirty; -1 = it has not. */
  private wholeAt = -1;
  private unsettledBytes = 0;
  private settleAt = Infinity;
  private absentAt = 0;
  private progressAt = -Infinity;
  private lookedThen = 0;

  constructor(parts: ResyncParts, options: ThrottleOptions = { rate: 0, latencyMs: 0 }) {
    this.parts = parts;
    this.throttle = new Throttle(parts.clock, parts.window, parts.shared, options);
  }

  configure(options: ThrottleOptions): void {
    this.throttle.configure(options);
  }

  /** True while an order is carried out. */
  get active(): boolean {
    return this.now !== undefined;
  }

  /** Of the order, also when it has been carried out; 0 before the first. */
  epoch = 0;

  /** Everything before is forgotten. False where the order is older than the last one. */
  begin(order: ResyncOrder): boolean {
    if (order.epoch <= this.epoch) return false;
    this.now = order;
    this.epoch = order.epoch;
    this.walk = new Walk(order.bits);
    this.begun = this.walked = false;
    this.reason = '';
    this.doubts = this.parts.shared.load(SH.DOUBTS);
    this.wholeAt = -1;
    this.absentAt = 0;
    this.settled();
    this.parts.local.use(order.locals);
    this.throttle.start();
    this.copier?.close();
    this.copier = undefined;
    this.lookedThen = 0;
    return true;
  }

  /** The index holds no dirty region of this epoch any more. */
  whole(epoch: number, wholeAt: number): void {
    if (this.now?.epoch === epoch) this.wholeAt = Math.max(wholeAt, this.now.wholeAt);
  }

  /** How the site is to be opened; `over`: whatever it says of itself (`mayStartOver`). */
  how(over = false): SiteResync {
    const { at, devices, nextDevice, anew, force } = this.now!;
    return { at, devices, nextDevice, anew: over || (anew && !this.begun), force };
  }

  /**
   * Whether the site may be set to the cursor although it cannot go on from its own place: where that is of another
   * history nobody knows what it wrote, so only where all regions are dirty, and the devices are those of the order.
   */
  mayStartOver(cursor: SiteCursor): boolean {
    return !this.begun && cursor.seq === this.now!.at.seq && this.walk!.allDirty;
  }

  /**
   * The site is open; `lost`: what it had confirmed may be gone. Why it cannot be resynced all the same, or ''.
   */
  opened(lost: boolean): string {
    const { site, events } = this.parts;
    if (site.copy === undefined) return `sites of type ${site.type} cannot be resynced`;
    if (lost && !this.walk!.allDirty) {
      events.lost?.(this.epoch);
      return 'was taken over with other contents than it had: all of it is to be compared';
    }
    this.begun = true;
    this.copier?.forget();
    return '';
  }

  /** The site failed, or is closed: what it has not settled is copied again. */
  failed(): void {
    if (this.walk === undefined) return;
    this.walk.unsettle();
    this.walked = false;
    this.settled();
    this.release();
  }

  /** Nothing is done for a while: memory and descriptors are given back. */
  release(): void {
    this.copier?.close();
    this.parts.local.close();
  }

  /** Up to where records may be shipped; `durable` where it does not matter. */
  limit(durable: number): number {
    if (this.walked || !this.parts.local.usable) return durable;
    return Math.min(durable, this.parts.window.seqOf(W.APPLIED, durable));
  }

  /** The link's cursor has to come so far, and nobody waits for company on the way; 0 = no hurry. */
  get hurryTo(): number {
    return this.walked ? Math.max(this.wholeAt, this.now?.wholeAt ?? 0) : 0;
  }

  /** Bytes of data written to the site so far. */
  get sent(): number {
    return this.copier === undefined ? 0 : this.copier.written - this.copier.zeroed;
  }

  /**
   * Copies for a moment, between two batches, in pieces of at most `most` bytes: 0 = there is more to do, milliseconds that it can be left alone, or the
   * negative errno of the site.
   */
  step(cursor: SiteCursor, most = Infinity): number {
    const now = this.parts.clock.monoMs();
    const { shared } = this.parts;
    if (shared.load(SH.DOUBTS) !== this.doubts) this.distrust(shared.load(SH.DOUBTS));
    const wait = this.copySome(cursor, now, most);
    if (wait < 0) return wait;
    const later = this.settleSome(now);
    if (later < 0) return later;
    this.tell(now);
    if (this.walked && this.walk!.pending.length === 0) {
      const rc = this.finish(cursor);
      if (rc < 0) return rc;
    }
    return Math.min(wait, later);
  }

  /** Ends, however far it has come; what was settled was told. */
  close(): void {
    this.release();
    this.now = undefined;
    this.walk = undefined;
  }

  // --- copying ---------------------------------------------------------------------------------------------

  private copySome(cursor: SiteCursor, began: number, most: number): number {
    const walk = this.walk!;
    const { clock } = this.parts;
    // Nothing becomes dirty within an epoch.
    if (this.walked) return REST_MS;
    const copier = (this.copier ??= new Copier(this.parts.local, this.parts.site));
    const enough = copier.read + copier.moved + STEP_BYTES;
    for (;;) {
      if (!walk.find()) return this.atEnd(began);
      const rest = this.throttle.wait();
      if (rest > 0) return rest;
      const since = clock.monoMs();
      const { moved, written } = copier;
      const wait = this.copyPiece(copier, cursor, most);
      const now = clock.monoMs();
      this.throttle.worked(now - since, copier.moved - moved);
      this.unsettledBytes += copier.written - written;
      if (wait !== 0) return wait;
      if (this.settleAt === Infinity) this.settleAt = now + SETTLE_MS;
      const full = copier.read + copier.moved >= enough || this.unsettledBytes >= SETTLE_BYTES;
      if (full || now - began >= STEP_MS) return 0;
    }
  }

  private copyPiece(copier: Copier, cursor: SiteCursor, most: number): number {
    const { local } = this.parts;
    const walk = this.walk!;
    if (!local.begin(cursor.seq)) return this.inTheWay();
    if (local.doubts !== this.doubts) return AGAIN_MS;
    if (cursor.seq > local.t1) return BEHIND_MS;
    const result = copier.some(walk.nr, walk.offset, walk.end, this.throttle.piece(most));
    if (result === COPY.DONE) {
      this.reason = '';
      walk.reached(copier.reached, local.t2);
      return 0;
    }
    if (result === COPY.UNCOUNTED) return local.troubled() ? this.inTheWay() : AGAIN_MS;
    if (copier.errno === -ERRNO.ENODEV) {
      this.reason = result === COPY.SITE ? `device ${walk.nr} is not at the site` : local.reason;
      walk.passOver();
      return 0;
    }
    if (result === COPY.SITE) return copier.errno;
    return this.inTheWay();
  }

  private inTheWay(): number {
    this.reason = this.parts.local.reason;
    return TROUBLE_MS;
  }

  /** Nothing more is found: done, but for devices that come or go. */
  private atEnd(now: number): number {
    const walk = this.walk!;
    if (!walk.passedOver) {
      this.walked = true;
      this.reason = '';
      return REST_MS;
    }
    if (this.absentAt === 0) this.absentAt = now + ABSENT_MS;
    if (now < this.absentAt) return this.absentAt - now;
    this.absentAt = 0;
    walk.lookAgain();
    return AGAIN_MS;
  }

  /** A sync of slink 0's images failed: main believes nothing that it has not cleared yet. */
  private distrust(doubts: number): void {
    this.doubts = doubts;
    this.walk!.restart();
    this.walked = false;
    this.settled();
  }

  // --- telling ---------------------------------------------------------------------------------------------

  private settleSome(now: number): number {
    const walk = this.walk!;
    if (walk.pending.length === 0) return REST_MS;
    const due = this.settleAt - now;
    if (due > 0 && this.unsettledBytes < SETTLE_BYTES && !this.walked) return due;
    const { site, events } = this.parts;
    const rc = site.copy!.settle();
    if (rc < 0) return rc;
    for (const copied of walk.pending) events.copied({ epoch: this.epoch, ...copied, doubts: this.doubts });
    walk.settled();
    this.settled();
    return REST_MS;
  }

  private settled(): void {
    this.unsettledBytes = 0;
    this.settleAt = Infinity;
  }

  private finish(cursor: SiteCursor): number {
    if (this.wholeAt < 0 || cursor.seq < this.hurryTo) return 0;
    const rc = this.parts.site.copy!.whole();
    if (rc < 0) return rc;
    this.tell(Infinity);
    this.parts.events.inSync({ epoch: this.epoch, place: { ...cursor } });
    this.close();
    return 0;
  }

  private tell(now: number): void {
    if (now < this.progressAt) return;
    const { events, clock } = this.parts;
    const at = clock.monoMs();
    const walk = this.walk!;
    const since = at - (this.progressAt - PROGRESS_MS);
    const rate = since > 0 && since < Infinity ? ((walk.looked - this.lookedThen) * 1000) / since : 0;
    this.lookedThen = walk.looked;
    this.progressAt = at + PROGRESS_MS;
    const { written = 0, zeroed = 0 } = this.copier ?? {};
    events.progress?.({ epoch: this.epoch, looked: walk.looked, copied: written, zeroed, left: walk.left, rate });
  }
}
