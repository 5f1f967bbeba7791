/**
 * The committer: window → log file. Owner of DURABLE, RELEASED and the ring of the log's file.
 *
 * Order, and what a crash between two steps leaves:
 *   1. batch written        records behind the durable point, cut by recovery or found by it: both are right
 *   2. fdatasync            the same
 *   3. DURABLE stored       the applier may take them
 *   4. flushes answered     a flush that was answered is never lost
 *   5. RELEASED stored      only now may a record leave the window
 *
 * Answers. A request is answered when everything below its seq is durable here and confirmed by every link of
 * its entry that still gates (GATES). So answers come in any order; RELEASED stops at the first record whose
 * request is still to be answered, since only in the window would a resent request be recognised.
 *
 * After a failed write or sync nobody knows what the disk holds: the kernel may have dropped the dirty pages
 * and the next fdatasync would report success. So the log is suspended; when the operator has it tried again,
 * everything from DURABLE is written again from the window to the same places, and only a successful sync of
 * all of it moves DURABLE.
 */
import type { Clock, Machine } from '../base/clock.js';
import { crc32, getU64, setU64 } from '../base/codec.js';
import { ERRNO, Defect } from '../base/errors.js';
import type { IoCall } from '../base/io.js';
import { IoVec, Mem } from '../base/mem.js';
import { MIB, type LogPos, type Seq } from '../base/units.js';
import {
  ALIGN,
  BATCH_HEADER,
  BATCH_MAGIC,
  BATCH_PAD,
  B_CHAIN,
  B_COUNT,
  B_CRC,
  B_DURABLE,
  B_FLAGS,
  B_HEADER,
  B_MAGIC,
  B_PAYLOAD,
  B_POS,
  B_SEQ,
  B_TOTAL,
  B_VERSION,
  B_ZERO,
  FORMAT_VERSION,
  MAX_BATCH,
  MAX_BATCH_RECORDS,
  REC,
  R_BYTES,
  R_CHAIN,
  R_TIME,
  R_TYPE,
  RECORD_HEADER,
  batchHeaderBytes,
  payloadSpace,
  worstLogBytes,
} from './format.js';
import type { LogFile } from './logfile.js';
import { CommitMeter } from './meters.js';
import { SegmentCollector, type ClosedSegment } from './segments.js';
import { E_ANSWER, FLUSH_ENTRY, SH, type Shared } from './shared.js';
import { Waiting } from './waiting.js';
import { S_LOG_END, S_RECORD, W, type Window } from './window.js';

export interface AnswerSink {
  /** Answers a request: `bytes` 0 is a bare reply, `errno` positive or 0. */
  answer(uniqueLo: number, uniqueHi: number, bytes: number, errno: number): void;
}

export interface CommitterEvents {
  /** The log was suspended; once per failure. `errno` positive. */
  logError(errno: number, call: IoCall): void;
  /** A retry has brought everything to the disk. */
  logHealed(): void;
  /** All records of the segment are durable. */
  segmentClosed(segment: ClosedSegment): void;
}

export interface CommitterOptions {
  /** Unsynced bytes at which a sync is made without anyone waiting. */
  syncBytes?: number;
  /** Milliseconds without news after which what was written is synced. */
  idleMs?: number;
  /** Milliseconds that a written record waits for its sync at most, where news never ends. */
  lagMs?: number;
  /** Payload bytes worth a batch of their own, and how long fewer of them wait for company. */
  gatherBytes?: number;
  gatherMs?: number;
}

export interface CommitterParts {
  log: LogFile;
  window: Window;
  shared: Shared;
  clock: Clock;
  answer: AnswerSink;
  events: CommitterEvents;
}

/** How long the committer can be left alone when nothing is due. */
const FOREVER = 1000;

/** What a step does next. */
const DO = { NOTHING: 0, ANSWER: 1, WRITE: 2, SYNC: 3, RETRY: 4, REFUSE: 5, FAIL: 6 } as const;
type Action = (typeof DO)[keyof typeof DO];

export class Committer implements Machine {
  /** Next record to be written, everything below is in the file. `durable <= written <= tail`. */
  written: Seq;
  /** Everything below is durable. */
  durable: Seq;
  /** Log position behind the last durable batch. */
  durablePos: LogPos;
  private readonly log: LogFile;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly clock: Clock;
  private readonly sink: AnswerSink;
  private readonly events: CommitterEvents;
  private readonly syncBytes: number;
  private readonly idleMs: number;
  private readonly lagMs: number;
  private readonly gatherBytes: number;
  private readonly gatherMs: number;

  /** Where the next batch stands. */
  private pos: LogPos;
  private unsynced = 0;
  private readonly waiting: Waiting;
  private released: Seq;
  private failAsked: number;
  private full = false;
  /** Errno that suspended the log, and LOG_RETRY as it was then. */
  private failed = 0;
  private retrySeen: number;
  /** After a failure: record that must be written again before the next sync counts; 0 = no failure. */
  private healUntil: Seq = 0;
  /** Main wants nothing written for a moment, and has not yet taken it back; nor may an operator's retry. */
  private holding = false;
  private barred = false;
  private lastWrite = 0;
  private firstUnsynced = 0;
  /** Since when records wait to be written; -1 = none does. */
  private gatherSince = -1;
  private action: Action = DO.NOTHING;

  private readonly head = Mem.anon(batchHeaderBytes(MAX_BATCH_RECORDS));
  private readonly zero = Mem.anon(ALIGN);
  private readonly bounce: Mem | undefined;
  private readonly vec = new IoVec(8);
  private readonly head32: Int32Array;
  private readonly window32: Int32Array;
  private readonly segments: SegmentCollector;
  private readonly meter: CommitMeter;
  private readonly give: (segment: ClosedSegment) => void;

  /** Adopts the window: goes on behind its DURABLE. */
  constructor(parts: CommitterParts, options: CommitterOptions = {}) {
    const { log, window, shared } = parts;
    this.log = log;
    this.window = window;
    this.shared = shared;
    this.clock = parts.clock;
    this.sink = parts.answer;
    this.events = parts.events;
    this.syncBytes = options.syncBytes ?? 16 * MIB;
    this.idleMs = options.idleMs ?? 3;
    this.lagMs = options.lagMs ?? 50;
    this.gatherBytes = options.gatherBytes ?? 256 * 1024;
    this.gatherMs = options.gatherMs ?? 2;
    const tail = window.tailSeq();
    if (tail === undefined) throw new Defect('the window has no valid tail');
    this.durable = this.written = window.seqOf(W.DURABLE, tail);
    this.durablePos = this.pos = window.logEnd(window.slotAt(this.durable - 1));
    this.waiting = new Waiting(shared);
    this.released = window.seqOf(W.RELEASED, tail);
    this.failAsked = shared.load(SH.FAIL_ASK);
    this.retrySeen = shared.load(SH.LOG_RETRY);
    this.head32 = new Int32Array(this.head.ab);
    this.window32 = new Int32Array(window.mem.ab);
    // Direct I/O to a disk of 4096-byte sectors takes no payload from the middle of a page.
    this.bounce = log.align > 512 ? Mem.lazy(MAX_BATCH) : undefined;
    this.meter = new CommitMeter(shared.meters, window, parts.clock);
    this.segments = new SegmentCollector(log.segment, this.pos);
    this.give = (segment) => parts.events.segmentClosed(segment);
  }

  /** True while requests wait for an answer. */
  get pendingFlush(): boolean {
    return this.waiting.any;
  }

  /** Links that somebody waits for with what the last sync made durable: they are told at once. */
  get awaitedLo(): number {
    return this.waiting.awaitedLo;
  }

  get awaitedHi(): number {
    return this.waiting.awaitedHi;
  }

  /** Errno (positive) that keeps the log suspended, 0 = fine. */
  get error(): number {
    return this.failed;
  }

  /**
   * Main wants to change where log positions stand (resize.ts). From `held` until release() nothing is written, and
   * everything before `pos` is in the file and synced.
   */
  hold(): void {
    this.holding = true;
  }

  /** Log position behind what was written. */
  get position(): LogPos {
    return this.pos;
  }

  get held(): boolean {
    return this.holding && this.failed === 0 && this.healUntil === 0 && this.unsynced === 0;
  }

  /** While it is held: what main had to write could not be written. As a failed write of its own, until release(). */
  suspend(errno: number): void {
    this.barred = true;
    if (this.failed === 0) this.fail(errno, 'REPLOG:SUPER');
  }

  release(): void {
    this.holding = false;
    if (!this.barred) return;
    this.barred = false;
    // Everything was synced when it was held, and nothing was written since.
    this.failed = this.healUntil = 0;
    this.shared.store(SH.LOG_ERROR, 0);
    this.events.logHealed();
  }

  /** True where a step would find nothing to do: what a thread asks before it sleeps. */
  get idle(): boolean {
    return this.plan() > 0;
  }

  /** At most one batch or one sync. */
  step(): number {
    const wait = this.plan();
    switch (this.action) {
      case DO.ANSWER:
        this.answerAll(false, false);
        return 0;
      case DO.REFUSE:
        this.answerAll(false, true);
        return 0;
      case DO.FAIL:
        this.failAsked = this.shared.load(SH.FAIL_ASK);
        this.answerAll(true, false);
        return 0;
      case DO.RETRY:
        this.rewind();
        return 0;
      case DO.WRITE:
        return this.writeBatch();
      case DO.SYNC:
        this.sync();
        return 0;
      case DO.NOTHING:
        return wait;
    }
  }

  close(): void {
    this.head.unmap();
    this.zero.unmap();
    this.bounce?.unmap();
    this.vec.table.unmap();
  }

  /** Decides on `action`; 0 where it is due now, else the milliseconds until something may be. */
  private plan(): number {
    const { shared, window } = this;
    this.waiting.look(this.durable);
    const { need, ready } = this.waiting;
    const waiting = need > 0;
    if (shared.load(SH.FAIL_ASK) !== this.failAsked) return this.now(DO.FAIL);
    if (this.failed !== 0) {
      if (!this.barred && shared.load(SH.LOG_RETRY) !== this.retrySeen) return this.now(DO.RETRY);
      return waiting || ready > 0 ? this.now(DO.REFUSE) : this.later(FOREVER);
    }
    if (ready > 0) return this.now(DO.ANSWER);
    if (this.holding && this.healUntil === 0) return this.unsynced > 0 ? this.now(DO.SYNC) : this.later(FOREVER);
    const healed = this.written >= this.healUntil;
    const tail = window.seqOf(W.TAIL, this.written);
    const backlog = tail !== this.written;
    if (this.unsynced > 0 && healed && ((waiting && need <= this.written) || this.unsynced >= this.syncBytes))
      return this.now(DO.SYNC);

    // Someone waits for what a sync gives: an answer, room in the window, room in the log, the end.
    const urgent = waiting || this.healUntil > 0 || shared.load(SH.DATA_WAITS) !== 0 || shared.load(SH.CLOSING) !== 0;
    if (backlog && this.blocked()) {
      // A sync lets the applier go on, which lets the head move.
      if (this.unsynced > 0 && healed) return this.now(DO.SYNC);
      return this.later(20);
    }
    if (backlog && urgent) return this.now(DO.WRITE);
    if (this.unsynced > 0 && !backlog && urgent) return this.now(DO.SYNC);
    if (!backlog && this.unsynced === 0) {
      this.gatherSince = -1;
      return this.later(FOREVER);
    }

    const now = this.clock.monoMs();
    if (this.unsynced > 0 && now - this.firstUnsynced >= this.lagMs) return this.now(DO.SYNC);
    if (backlog) {
      if (this.gatherSince < 0) this.gatherSince = now;
      const bytes = window.payloadEnd(window.slotAt(tail - 1)) - window.payloadPos(window.slotAt(this.written));
      const left = this.gatherMs - (now - this.gatherSince);
      if (left <= 0 || bytes >= this.gatherBytes || tail - this.written >= MAX_BATCH_RECORDS) return this.now(DO.WRITE);
      return this.later(left);
    }
    const left = Math.min(this.idleMs - (now - this.lastWrite), this.lagMs - (now - this.firstUnsynced));
    return left <= 0 ? this.now(DO.SYNC) : this.later(left);
  }

  private now(action: Action): number {
    this.action = action;
    return 0;
  }

  private later(ms: number): number {
    this.action = DO.NOTHING;
    return ms;
  }

  /** Bytes from `pos` that may be overwritten. */
  private free(): number {
    return this.shared.logHead + this.log.ring - this.pos;
  }

  /** True where the next record finds no free log space. Admission makes this impossible while all goes well. */
  private blocked(): boolean {
    const { window, log } = this;
    const bytes = window.dv.getUint32(window.slotAt(this.written) + S_RECORD + R_BYTES, true);
    const worst = worstLogBytes(bytes);
    const rest = log.rest(this.pos);
    const full = this.free() < (worst > rest ? rest + worst : worst);
    if (full !== this.full) {
      this.full = full;
      this.shared.store(SH.LOG_FULL, full ? 1 : 0);
    }
    return full;
  }

  /** Writes the next batch, or the padding before it. */
  private writeBatch(): number {
    const { window, log, head } = this;
    const tail = window.seqOf(W.TAIL, this.written);
    const rest = log.rest(this.pos);
    const room = Math.min(rest, this.free(), MAX_BATCH);
    let count = 0;
    let payload = 0;
    while (this.written + count < tail && count < MAX_BATCH_RECORDS) {
      const slot = window.slotAt(this.written + count);
      const next = payload + payloadSpace(window.dv.getUint32(slot + S_RECORD + R_BYTES, true));
      if (batchHeaderBytes(count + 1) + pages(next) > room) break;
      payload = next;
      count++;
    }
    if (count === 0) return this.writePadding(rest);

    const header = batchHeaderBytes(count);
    const total = header + pages(payload);
    this.fillBatch(count, header, payload, total, 0);
    const { vec } = this;
    vec.clear();
    vec.add(head, 0, header);
    if (payload > 0) {
      vec.add(window.mem, window.payloadAt(window.payloadPos(window.slotAt(this.written))), payload);
      if (total > header + payload) vec.add(this.zero, 0, total - header - payload);
    }
    const r = log.write('REPLOG:WRITE', this.bounce === undefined ? vec : this.bounced(), this.pos);
    if (r < 0) return this.fail(-r, 'REPLOG:WRITE');
    this.settleBatch(count, header, total);
    return 0;
  }

  /** Builds the batch header and copies the record headers behind it. */
  private fillBatch(count: number, header: number, payload: number, total: number, flags: number): void {
    const { head, window } = this;
    const { dv } = head;
    dv.setUint32(B_MAGIC, BATCH_MAGIC, true);
    dv.setUint16(B_VERSION, FORMAT_VERSION, true);
    dv.setUint16(B_FLAGS, flags, true);
    dv.setUint32(B_COUNT, count, true);
    dv.setUint32(B_HEADER, header, true);
    dv.setUint32(B_PAYLOAD, payload, true);
    dv.setUint32(B_TOTAL, total, true);
    dv.setUint32(B_ZERO, 0, true);
    setU64(dv, B_POS, this.pos);
    setU64(dv, B_SEQ, this.written);
    const before = window.slotAt(this.written - 1) + S_RECORD + R_CHAIN;
    dv.setUint32(B_CHAIN, window.dv.getUint32(before, true), true);
    dv.setUint32(B_CHAIN + 4, window.dv.getUint32(before + 4, true), true);
    setU64(dv, B_DURABLE, this.durablePos);
    const { head32, window32 } = this;
    let to = BATCH_HEADER / 4;
    for (let i = 0; i < count; i++) {
      const from = (window.slotAt(this.written + i) + S_RECORD) / 4;
      for (let k = 0; k < RECORD_HEADER / 4; k++) head32[to + k] = window32[from + k]!;
      to += RECORD_HEADER / 4;
    }
    head.u8.fill(0, BATCH_HEADER + count * RECORD_HEADER, header);
    dv.setUint32(B_CRC, crc32(head.u8.subarray(4, header)), true);
  }

  /** The batch is in the file: moves on, and leaves its end in every slot. */
  private settleBatch(count: number, header: number, total: number): void {
    const { window, head } = this;
    const end = this.pos + total;
    const filling = this.segments.at(this.pos);
    filling.add(this.written, count, head.u8, BATCH_HEADER);
    let payloadPos = this.pos + header;
    for (let i = 0; i < count; i++) {
      const seq = this.written + i;
      window.dv.setFloat64(window.slotAt(seq) + S_LOG_END, end, true);
      filling.setPayload(seq, payloadPos);
      const at = BATCH_HEADER + i * RECORD_HEADER;
      const bytes = head.dv.getUint32(at + R_BYTES, true);
      if (head.dv.getUint8(at + R_TYPE) === REC.TAG) {
        const from = window.payloadAt(window.payloadPos(window.slotAt(seq)));
        const name = window.u8.toString('utf8', from, from + bytes);
        filling.tag({ name, seq, timeUs: getU64(head.dv, at + R_TIME) });
      }
      payloadPos += payloadSpace(bytes);
    }
    this.meter.wrote(total, count);
    const now = this.clock.monoMs();
    if (this.unsynced === 0) this.firstUnsynced = now;
    this.lastWrite = now;
    this.gatherSince = -1;
    this.unsynced += total;
    this.written += count;
    this.pos = end;
    if (end % this.log.segment === 0) this.segments.end();
  }

  /** The next record does not fit behind `pos`: a header says so, and the next segment is begun. */
  private writePadding(rest: number): number {
    this.fillBatch(0, ALIGN, 0, rest, BATCH_PAD);
    this.vec.clear();
    this.vec.add(this.head, 0, ALIGN);
    const r = this.log.write('REPLOG:PAD', this.vec, this.pos);
    if (r < 0) return this.fail(-r, 'REPLOG:PAD');
    this.meter.wrote(rest, 0);
    this.pos += rest;
    this.segments.end();
    return 0;
  }

  /** The ranges of `vec` as one range of aligned memory. */
  private bounced(): IoVec {
    const { vec } = this;
    const bounce = this.bounce!;
    let at = 0;
    for (let i = 0; i < vec.count; i++) {
      const off = vec.offs[i]!;
      vec.mems[i]!.u8.copy(bounce.u8, at, off, off + vec.lens[i]!);
      at += vec.lens[i]!;
    }
    vec.clear();
    vec.add(bounce, 0, at);
    return vec;
  }

  private sync(): void {
    const since = this.meter.beginSync();
    const r = this.log.sync('REPLOG:SYNC');
    if (r < 0) {
      this.fail(-r, 'REPLOG:SYNC');
      return;
    }
    this.meter.synced(since);
    this.unsynced = 0;
    this.durable = this.written;
    this.waiting.forgetAwaited();
    this.durablePos = this.window.logEnd(this.window.slotAt(this.durable - 1));
    if (this.healUntil > 0) {
      this.healUntil = 0;
      this.shared.store(SH.LOG_ERROR, 0);
      this.events.logHealed();
    }
    this.window.storeSeq(W.DURABLE, this.durable);
    this.answerAll(false, false);
    this.segments.settle(this.durable, this.give);
  }

  /**
   * Answers those who have what they wait for, then lets the records go. With EIO: `held`, those whom only a link
   * keeps waiting, or will (their records stay in the log); `undurable`, those whose records the log does not take.
   */
  private answerAll(held: boolean, undurable: boolean): void {
    const { waiting } = this;
    waiting.look(this.durable);
    if (held) {
      for (let k = waiting.takeHeld(); k >= 0; k = waiting.takeHeld()) this.answer(k, ERRNO.EIO);
      waiting.takeLateHeld(this.refuse);
    }
    if (undurable) for (let k = waiting.takeLate(); k >= 0; k = waiting.takeLate()) this.answer(k, ERRNO.EIO);
    for (let k = waiting.takeReady(); k >= 0; k = waiting.takeReady()) this.answer(k, 0);
    const head = waiting.advance();
    // Whoever came meanwhile waits for what is not durable yet, or had its record held back by the data thread.
    waiting.look(this.durable);
    const floor = waiting.floor(this.durable);
    if (floor > this.released) this.released = floor;
    // RELEASED first: once FLUSH_HEAD has passed an entry, the data thread relies on RELEASED alone.
    this.window.storeSeq(W.RELEASED, this.released);
    this.shared.store(SH.FLUSH_HEAD, head);
  }

  private readonly refuse = (k: number): void => this.answer(k, ERRNO.EIO);

  private answer(k: number, errno: number): void {
    const { flush, tickets } = this.shared;
    const at = k * FLUSH_ENTRY;
    this.sink.answer(flush[at]! >>> 0, flush[at + 1]! >>> 0, flush[at + E_ANSWER]!, errno);
    this.meter.answered(tickets[k]!, errno);
    this.waiting.leave(k);
  }

  /** Suspends the log. */
  private fail(errno: number, call: IoCall): number {
    this.failed = errno;
    this.meter.failed();
    this.retrySeen = this.shared.load(SH.LOG_RETRY);
    this.healUntil = Math.max(this.healUntil, this.written, this.durable + 1);
    this.shared.store(SH.LOG_ERROR, errno);
    this.events.logError(errno, call);
    this.answerAll(false, true);
    return 0;
  }

  /** Begins again at DURABLE; LOG_ERROR stands until all of it is synced. */
  private rewind(): void {
    this.failed = 0;
    this.retrySeen = this.shared.load(SH.LOG_RETRY);
    this.written = this.durable;
    this.pos = this.durablePos;
    this.unsynced = 0;
    this.gatherSince = -1;
    this.segments.rewind(this.durable, this.durablePos);
  }
}

function pages(bytes: number): number {
  return (bytes + ALIGN - 1) & ~(ALIGN - 1);
}
