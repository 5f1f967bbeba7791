/**
 * The applier: carries durable records from the window to slink 0's images, and makes them durable there.
 *
 * Two steps, two facts. A record is *applied* when it is in the images: APPLIED moves, reads no longer need the
 * window for it. It is *synced* when the images were synced after that: the checkpoint may move, and the log
 * before it is no longer needed for slink 0. Only what is durable in the log is applied, so after any crash
 * the images hold nothing that the log could take back.
 *
 * - The place that a sync makes good is taken before the sync begins, at a boundary between two batches of the
 *   log: only there a reader can begin.
 * - When an image cannot be written, nothing moves; the same records are tried again, every second and when
 *   the operator says so. They cannot leave the window meanwhile.
 * - When a sync fails, everything since the last good one is written again from the log (redo.ts), before
 *   anything newer: those records may have left the window.
 * - While reads come from a site (SOURCE), slink 0 is *away*: its records may leave the window before they are applied, so
 *   the applier reads the log only. The images are opened anew first, since their file system may have been mounted
 *   anew, and everything since the last good sync is written again; then it catches up, batch by batch of the log. The
 *   data thread turns reads back once APPLIED has reached HEAD; only then the window is read again.
 */
import type { Clock, Machine } from '../base/clock.js';
import { ERRNO } from '../base/errors.js';
import type { LogFile } from '../replog/logfile.js';
import { LogReader, READ } from '../replog/reader.js';
import { R_BYTES, RECORD_HEADER, payloadSpace, type LogPlace } from '../replog/format.js';
import { SH, type Shared } from '../replog/shared.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import { MIB } from '../base/units.js';
import type { ImageSet } from './images.js';
import { PLAN_BYTES, PLAN_RECORDS } from './plan.js';
import { RecordSink } from './records.js';
import { Redo } from './redo.js';

/** What the applier was at when it failed; `open`: the images of a detached slink 0 were opened anew. */
export type ApplyPart = 'write' | 'sync' | 'redo' | 'open';

/** Why images could not be opened. */
export interface OpenFailure {
  /** Positive. */
  errno: number;
  file: string;
}

export interface ApplierEvents {
  /** Everything before `place` is on the images and synced (for Checkpointer.noteApplied). */
  synced(place: LogPlace): void;
  /** The images stopped; once per failure, and where it becomes another one. `errno` positive, `file` the image (or the log, for a redo). */
  localError(errno: number, file: string, during: ApplyPart): void;
  /** They go on. */
  localHealed(): void;
}

export interface ApplierParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  images: ImageSet;
  /** For what must be written again after a failed sync. */
  log: LogFile;
  /** Opens the images anew after a failure while slink 0 is away, if they are still the group's. */
  reopen(): OpenFailure | undefined;
  events: ApplierEvents;
}

export interface ApplierOptions {
  /** Everything before it is on the images, synced: the checkpoint. */
  synced: LogPlace;
  /**
   * True for a daemon that adopts a window (the one before it was killed). If that one died between a failed
   * sync and the end of the redo (DOUBT), everything from `synced` to APPLIED is written again, in its newest
   * version. To redo after every death would be safe too, but lives that are short would spend all of it on
   * that and APPLIED would never move.
   */
  redo?: boolean;
  /** The images could not be opened: they are tried again like those that failed. */
  unopened?: OpenFailure;
  /** Unsynced bytes at which the images are synced. Default 32 MiB. */
  syncBytes?: number;
  /** Milliseconds without work after which they are synced. Default 1000. */
  idleMs?: number;
  /** Milliseconds that less than half a batch waits for company. Default 5. */
  gatherMs?: number;
  /** How often images that failed are tried again. Default 1000. */
  retryMs?: number;
  /** The same while slink 0 is detached. Default 15 000. */
  probeMs?: number;
}

export class Applier implements Machine {
  /** Everything below is on the images. */
  applied: number;
  /** Everything before it is synced there: synced.seq <= applied <= durable. */
  synced: LogPlace;

  private readonly parts: ApplierParts;
  private readonly sink: RecordSink;
  private readonly syncBytes: number;
  private readonly idleMs: number;
  private readonly gatherMs: number;
  private readonly retryMs: number;
  private readonly probeMs: number;

  /** AWAY: only the log is read. */
  private away = false;
  /** The images must be opened anew before anything else. */
  private stale = false;
  /** Of the log, while away; it stands behind the batch that was applied last. */
  private reader: LogReader | undefined;
  /** Everything from `synced` to `applied` must be written again before anything else. */
  private doubt: boolean;
  private redo: Redo | undefined;
  private failing = false;
  /** Why, as it was told last. */
  private failedFile = '';
  private retryAt = 0;
  private retried: number;
  private asked: number;
  /** DURABLE as the last step found it. */
  private seen: number;
  /** Apply and sync up to here without waiting. */
  private hurryTo = 0;
  /** When records were first seen behind `applied`; -1 = there are none. */
  private pendingAt = -1;
  private lastApplyAt: number;

  constructor(parts: ApplierParts, options: ApplierOptions) {
    this.parts = parts;
    this.sink = new RecordSink(parts.images);
    this.synced = { ...options.synced };
    this.applied = parts.window.seqOf(W.APPLIED, options.synced.seq);
    this.seen = this.applied;
    this.doubt = options.redo === true && parts.window.load(W.DOUBT) !== 0 && this.synced.seq < this.applied;
    this.syncBytes = options.syncBytes ?? 32 * MIB;
    this.idleMs = options.idleMs ?? 1000;
    this.gatherMs = options.gatherMs ?? 5;
    this.retryMs = options.retryMs ?? 1000;
    this.probeMs = options.probeMs ?? 15_000;
    parts.shared.store(SH.SYNCED, this.synced.seq | 0);
    this.retried = parts.shared.load(SH.LOCAL_RETRY);
    this.asked = parts.shared.load(SH.SYNC_ASK);
    this.lastApplyAt = parts.clock.monoMs();
    if (options.unopened !== undefined) {
      this.stale = this.failing = true;
      this.retryAt = this.lastApplyAt + this.retryMs;
      parts.images.close();
      parts.shared.store(SH.LOCAL_ERROR, options.unopened.errno);
    }
    // Turned back, and the daemon died before its applier saw it.
    if (parts.window.load(W.SOURCE) === 0) parts.window.store(W.AWAY, 0);
  }

  /** True where nothing has happened since the last step but time: what a thread asks before it sleeps. */
  get idle(): boolean {
    const { shared, window } = this.parts;
    if ((window.load(W.SOURCE) !== 0) !== this.away) return false;
    if (this.failing) return shared.load(SH.LOCAL_RETRY) === this.retried;
    return !this.doubt && shared.load(SH.SYNC_ASK) === this.asked && this.durable() === this.seen;
  }

  step(): number {
    const { clock, shared } = this.parts;
    const now = clock.monoMs();
    this.lookAtSource(now);
    const durable = this.durable();
    this.seen = durable;
    const ask = shared.load(SH.SYNC_ASK);
    if (ask !== this.asked) {
      this.asked = ask;
      this.hurryTo = durable;
    }
    if (this.failing) {
      const retry = shared.load(SH.LOCAL_RETRY);
      if (retry === this.retried && now < this.retryAt) return this.retryAt - now;
      this.retried = retry;
      // What is tried now may take several steps.
      this.retryAt = now;
      if (this.stale) return this.reopen(durable);
    }
    if (this.doubt) return this.writeAgain(durable);
    if (this.syncDue(now, durable)) return this.sync(durable);
    if (this.applied < durable) return this.apply(now, durable);
    this.pendingAt = -1;
    return this.synced.seq === this.applied ? this.idleMs : Math.max(1, this.lastApplyAt + this.idleMs - now);
  }

  /** Frees what a redo holds; the images are the caller's. */
  close(): void {
    this.redo?.close();
    this.redo = undefined;
    this.reader?.close();
    this.reader = undefined;
  }

  private durable(): number {
    return this.parts.window.seqOf(W.DURABLE, this.applied);
  }

  // --- away and back ---------------------------------------------------------------------------------------

  /** See window.ts for why each of the two words is looked at behind the other. */
  private lookAtSource(now: number): void {
    const { window } = this.parts;
    const elsewhere = window.load(W.SOURCE) !== 0;
    if (elsewhere && !this.away) return this.leave(now);
    if (elsewhere || !this.away) return;
    window.store(W.AWAY, 0);
    if (window.load(W.SOURCE) !== 0) return window.store(W.AWAY, 1);
    this.away = false;
    this.reader?.close();
    this.reader = undefined;
  }

  /** Reads come from a site: what is in doubt here is settled in peace, from the last good sync on. */
  private leave(now: number): void {
    const { shared, window, log, images } = this.parts;
    this.away = true;
    window.store(W.AWAY, 1);
    // What was read of them may be a page that the kernel gave up, and nobody will be told: they are closed without a sync.
    shared.bump(SH.DOUBTS);
    // So that its file system can be unmounted and repaired.
    images.close();
    this.reader = new LogReader(log);
    this.reader.seek(this.synced);
    this.redo?.close();
    this.redo = undefined;
    this.stale = this.failing = true;
    this.retryAt = now + this.probeMs;
    this.retried = shared.load(SH.LOCAL_RETRY);
    if (shared.load(SH.LOCAL_ERROR) === 0) shared.store(SH.LOCAL_ERROR, ERRNO.EIO);
  }

  private reopen(durable: number): number {
    const failure = this.parts.reopen();
    if (failure !== undefined) return this.fail(failure.errno, failure.file, 'open');
    this.stale = false;
    this.doubt = this.synced.seq < this.applied;
    // Without anything to write again, a sync tells whether they work.
    return this.doubt ? 0 : this.sync(durable);
  }

  /** Applies the rest of the next batch of the log: 0, or when to come again. */
  private applyFromLog(): number {
    const { log, images, window, clock } = this.parts;
    const reader = this.reader!;
    const { pos, seq } = window.durablePlace(this.applied);
    const before = { ...reader.place };
    const result = reader.next({ pos, seq });
    if (result === READ.END) return this.retryMs;
    if (result === READ.BROKEN) {
      const { errno } = reader.broken!;
      return this.fail(errno === 0 ? ERRNO.EIO : errno, log.path, 'redo');
    }
    const end = reader.place.seq;
    if (end > this.applied) {
      const rc = this.pushBatch(reader);
      if (rc < 0) {
        reader.seek(before);
        return this.fail(-rc, images.failedFile, 'write');
      }
      this.applied = end;
      window.storeSeq(W.APPLIED, end);
      if (this.failing) this.healed();
    }
    this.lastApplyAt = clock.monoMs();
    return 0;
  }

  private pushBatch({ batch }: LogReader): number {
    const { sink } = this;
    const { dv } = batch.mem;
    sink.begin(batch.mem);
    let payload = batch.payloads;
    for (let i = 0; i < batch.count; i++) {
      const header = batch.headers + i * RECORD_HEADER;
      if (batch.seq + i >= this.applied) {
        const rc = sink.push(header, payload);
        if (rc < 0) return rc;
      }
      payload += payloadSpace(dv.getUint32(header + R_BYTES, true));
    }
    return sink.finish();
  }

  /** The place before `applied` where a reader can begin there, else undefined. */
  private boundary(durable: number): LogPlace | undefined {
    const { window } = this.parts;
    const { applied, reader } = this;
    if (this.away) return reader!.place.seq === applied ? { ...reader!.place } : undefined;
    return window.isBoundary(applied, durable) ? window.placeBefore(applied) : undefined;
  }

  // --- writing ---------------------------------------------------------------------------------------------

  private apply(now: number, durable: number): number {
    const { window, clock } = this.parts;
    if (this.away) return this.applyFromLog();
    if (this.pendingAt < 0) this.pendingAt = now;
    const wait = this.pendingAt + this.gatherMs - now;
    if (wait > 0 && this.mayWait(durable)) return wait;
    const end = this.applyBatch(durable);
    if (end < 0) return this.fail(-end, this.parts.images.failedFile, 'write');
    this.applied = end;
    window.storeSeq(W.APPLIED, end);
    this.lastApplyAt = clock.monoMs();
    this.pendingAt = -1;
    if (this.failing) this.healed();
    return 0;
  }

  /** Small batches cost a call per write: a few milliseconds bring company. Not while anyone needs room. */
  private mayWait(durable: number): boolean {
    const { window, shared } = this.parts;
    const { slots, ring } = window.shape;
    const bytes = window.payloadEnd(window.slotAt(durable - 1)) - window.payloadPos(window.slotAt(this.applied));
    return (
      bytes < Math.min(PLAN_BYTES / 2, ring / 4) &&
      durable - this.applied < Math.min(PLAN_RECORDS / 2, slots / 4) &&
      this.hurryTo <= this.applied &&
      !this.failing &&
      shared.load(SH.DATA_WAITS) === 0 &&
      shared.load(SH.CLOSING) === 0
    );
  }

  /** Applies one batch: the seq behind it, or the negative errno, and then nothing of it counts. */
  private applyBatch(durable: number): number {
    const { sink } = this;
    const { window } = this.parts;
    const { dv } = window;
    sink.begin(window.mem);
    let bytes = 0;
    let seq = this.applied;
    while (seq < durable && seq - this.applied < PLAN_RECORDS) {
      const slot = window.slotAt(seq);
      const space = payloadSpace(dv.getUint32(slot + S_RECORD + R_BYTES, true));
      if (bytes > 0 && bytes + space > PLAN_BYTES) break;
      const rc = sink.push(slot + S_RECORD, window.payloadAt(window.payloadPos(slot)));
      if (rc < 0) return rc;
      bytes += space;
      seq++;
    }
    const rc = sink.finish();
    return rc < 0 ? rc : seq;
  }

  // --- syncing ---------------------------------------------------------------------------------------------

  private syncDue(now: number, durable: number): boolean {
    const { images, shared } = this.parts;
    if (this.synced.seq === this.applied || this.boundary(durable) === undefined) return false;
    if (images.unsynced >= this.syncBytes) return true;
    if (this.hurryTo > this.synced.seq && this.applied >= this.hurryTo) return true;
    if (this.applied < durable) return false;
    return now - this.lastApplyAt >= this.idleMs || shared.load(SH.CLOSING) !== 0;
  }

  private sync(durable: number): number {
    const { window, shared, images, events } = this.parts;
    const place = this.boundary(durable);
    const rc = images.sync();
    if (rc < 0) {
      Atomics.store(window.words, W.DOUBT, 1);
      this.parts.shared.bump(SH.DOUBTS);
      this.doubt = true;
      return this.fail(-rc, images.failedFile, 'sync');
    }
    this.doubt = false;
    Atomics.store(window.words, W.DOUBT, 0);
    if (this.failing) this.healed();
    if (place !== undefined) {
      this.synced = place;
      shared.store(SH.SYNCED, place.seq | 0);
      events.synced({ ...place });
    }
    return 0;
  }

  /** After a failed sync: one batch of the log again, in the end the sync. */
  private writeAgain(durable: number): number {
    const { log, images, window } = this.parts;
    if (this.redo === undefined) {
      const { pos, seq } = window.durablePlace(durable);
      this.redo = new Redo(log, images, this.synced, this.applied, { pos, seq });
    }
    const rc = this.redo.step();
    if (rc > 0) return 0;
    const { logError } = this.redo;
    this.redo.close();
    this.redo = undefined;
    if (rc < 0) return this.fail(-rc, logError ? log.path : images.failedFile, 'redo');
    return this.sync(durable);
  }

  private fail(errno: number, file: string, during: ApplyPart): number {
    const { shared, events, clock } = this.parts;
    const wait = this.away ? this.probeMs : this.retryMs;
    // A file system may have been mounted anew meanwhile; only while nobody reads here that may be waited for.
    this.stale ||= this.away;
    this.retryAt = clock.monoMs() + wait;
    this.retried = shared.load(SH.LOCAL_RETRY);
    shared.store(SH.LOCAL_ERROR, errno);
    if (!this.failing || file !== this.failedFile) events.localError(errno, file, during);
    this.failedFile = file;
    this.failing = true;
    return wait;
  }

  private healed(): void {
    this.failing = false;
    this.parts.shared.store(SH.LOCAL_ERROR, 0);
    this.parts.events.localHealed();
  }
}
