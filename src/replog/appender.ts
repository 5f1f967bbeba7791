/**
 * The appender: turns a request that was read into the window into a record of the log. Owned by the data
 * thread, the only writer of slots, payloads and TAIL.
 *
 * Order for one record: the caller reads header and payload to `slot()` and `payload()`, decodes what it needs
 * (bytes 40…79 of the slot are used again), queues a flush where the answer must wait, and calls `seal`. TAIL
 * is published last: a daemon killed at any instruction before leaves no record, after it a whole one. A flush
 * of a record's own seq goes into the queue *before* `seal`, else the committer could release the record in
 * between and it would leave the window unanswered.
 */
import type { Clock } from '../base/clock.js';
import { setU64 } from '../base/codec.js';
import { Defect } from '../base/errors.js';
import type { Seq } from '../base/units.js';
import {
  Chain,
  R_BYTES,
  R_CHAIN,
  R_DEVICE,
  R_FLAGS,
  R_LENGTH,
  R_MAGIC,
  R_OFFSET,
  R_REIGN,
  R_SEQ,
  R_SUM,
  R_TIME,
  R_TYPE,
  R_ZERO,
  REC,
  RECORD_MAGIC,
  advanceChain,
  payloadSpace,
  recordSum,
  type RecordType,
} from './format.js';
import type { LogSpace } from './space.js';
import { S_ANSWER, S_PAYLOAD, S_RECORD, S_UNIQUE, SLOT, W, type Window } from './window.js';

export class Appender {
  /** Number of the next record. */
  seq: Seq;
  /** Payload position of the next record; only grows. */
  payloadPos: number;
  /** Written into every record from now on. */
  reign: number;

  private readonly window: Window;
  private readonly clock: Clock;
  private readonly space: LogSpace | undefined;
  private readonly chain = new Chain();
  private time: number;

  /** Adopts the window's tail. `space`, where given, is told of every record. */
  constructor(window: Window, clock: Clock, space?: LogSpace) {
    const seq = window.tailSeq();
    if (seq === undefined) throw new Defect('the window has no valid tail');
    const last = window.slotAt(seq - 1);
    const place = window.placeBefore(seq);
    this.window = window;
    this.clock = clock;
    this.space = space;
    this.seq = seq;
    this.payloadPos = window.payloadEnd(last);
    this.reign = window.dv.getUint32(last + S_RECORD + R_REIGN, true);
    this.chain.set(place.chainLo, place.chainHi);
    this.time = place.time;
  }

  /** Byte offset in `window.mem` where the next request's header is to be read (80 bytes). */
  slot(): number {
    return this.window.slotAt(this.seq);
  }

  /** Byte offset in `window.mem` where the next request's payload is to be read. */
  payload(): number {
    return this.window.payloadAt(this.payloadPos);
  }

  /**
   * True where the window takes `records` more records of `payloadBytes` in all (each padded to 512), everything
   * from `head` still being held. A request that becomes several records asks for all of them at once.
   */
  hasRoom(payloadBytes: number, head: Seq, records = 1): boolean {
    const { shape } = this.window;
    if (this.seq - head + records > shape.slots - 2) return false;
    const oldest = head < this.seq ? this.window.payloadPos(this.window.slotAt(head)) : this.payloadPos;
    return this.payloadPos - oldest + payloadSpace(payloadBytes) <= shape.ring;
  }

  /**
   * Makes the request in `slot()` record `seq` with the first `bytes` bytes at `payload()`, and publishes it.
   * `answer` is what a resent request is answered with (a WRITE's size). Returns the record's seq.
   */
  seal(type: RecordType, device: number, offset: number, length: number, bytes: number, answer: number): Seq {
    const { window, seq } = this;
    const { dv, u8 } = window;
    const slot = window.slotAt(seq);
    const at = slot + S_RECORD;
    const payloadAt = window.payloadAt(this.payloadPos);
    const space = payloadSpace(bytes);
    // What an earlier lap left behind the last byte must not reach the log.
    if (space !== bytes) u8.fill(0, payloadAt + bytes, payloadAt + space);

    // Wall clocks step back; the order of records in time must not.
    const now = this.clock.wallUs();
    if (now > this.time) this.time = now;

    dv.setFloat64(slot + S_PAYLOAD, this.payloadPos, true);
    dv.setUint32(slot + S_ANSWER, answer, true);
    dv.setUint32(slot + S_ANSWER + 4, 0, true);
    dv.setUint16(at + R_MAGIC, RECORD_MAGIC, true);
    dv.setUint8(at + R_TYPE, type);
    dv.setUint8(at + R_FLAGS, 0);
    setU64(dv, at + R_SEQ, seq);
    setU64(dv, at + R_TIME, this.time);
    setU64(dv, at + R_OFFSET, offset);
    setU64(dv, at + R_LENGTH, length);
    dv.setUint32(at + R_DEVICE, device, true);
    dv.setUint32(at + R_REIGN, this.reign, true);
    dv.setUint32(at + R_BYTES, bytes, true);
    dv.setUint32(at + R_ZERO, 0, true);
    const payload = bytes === 0 ? undefined : u8.subarray(payloadAt, payloadAt + bytes);
    dv.setUint32(at + R_SUM, recordSum(u8, at, payload), true);
    advanceChain(this.chain, dv, at, payloadAt);
    this.chain.store(dv, at + R_CHAIN);

    this.payloadPos += space;
    this.seq = seq + 1;
    this.space?.added(seq, bytes);
    window.storeSeq(W.TAIL, seq + 1);
    return seq;
  }

  /** Appends a record that no request stands behind. Room must have been asked for. */
  appendControl(type: RecordType, device: number, payload: Uint8Array, offset = 0, length = 0): Seq {
    const slot = this.slot();
    this.window.u8.fill(0, slot, slot + SLOT);
    this.window.u8.set(payload, this.payload());
    return this.seal(type, device, offset, length, payload.length, 0);
  }

  /** Takes the request out of `slot()`, so that no resent request is ever matched with the record made of it. */
  forgetRequest(): void {
    const slot = this.slot();
    this.window.dv.setUint32(slot + S_UNIQUE, 0, true);
    this.window.dv.setUint32(slot + S_UNIQUE + 4, 0, true);
  }

  /** First record of a reign; `id` is its 16 random bytes. */
  beginReign(reign: number, id: Uint8Array): Seq {
    if (id.length !== 16) throw new Defect('the identity of a reign has 16 bytes');
    this.reign = reign;
    return this.appendControl(REC.REIGN, 0, id);
  }
}
