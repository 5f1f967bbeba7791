/**
 * Sequential reader of the log, for shippers, replay, recovery, dump and check. A batch is accepted only at
 * the position it names, with the expected seq and chain, with every checksum right; so neither a batch of an
 * earlier lap nor one left behind a torn tail is taken for the present history.
 *
 * A place is behind a batch and never behind padding: what follows it may be padding, the next batch of the
 * segment, or the next segment.
 */
import { crc32, getU64 } from '../base/codec.js';
import { Mem } from '../base/mem.js';
import type { LogPos, Seq } from '../base/units.js';
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
  Chain,
  FORMAT_VERSION,
  MAX_BATCH,
  R_BYTES,
  R_CHAIN,
  R_MAGIC,
  R_SEQ,
  R_SUM,
  R_TIME,
  RECORD_HEADER,
  RECORD_MAGIC,
  advanceChain,
  batchHeaderBytes,
  payloadSpace,
  recordSum,
  type LogPlace,
} from './format.js';
import type { LogFile } from './logfile.js';

export const READ = { BATCH: 0, END: 1, BROKEN: 2 } as const;
export type ReadResult = (typeof READ)[keyof typeof READ];

/** Why a reader stopped where it expected a batch. */
export type BreakReason = 'read' | 'magic' | 'version' | 'shape' | 'crc' | 'position' | 'seq' | 'chain' | 'sum';

export interface Break {
  reason: BreakReason;
  /** Log position of the batch, and byte of the file that is wrong. */
  pos: LogPos;
  byte: number;
  /** First record that cannot be read. */
  seq: Seq;
  /** Positive, where reason is `read`; else 0. */
  errno: number;
}

/** A batch as the reader last returned it; valid until the next call. Reused. */
export interface Batch {
  /** Log position of its first byte and behind its last. */
  pos: LogPos;
  end: LogPos;
  seq: Seq;
  count: number;
  /** Memory that holds it, and where its record headers and its payloads start there. */
  mem: Mem;
  headers: number;
  payloads: number;
  payloadBytes: number;
  /** Log position of the first payload. */
  payloadPos: LogPos;
  /** Log position that was known durable when it was written. */
  durable: LogPos;
}

/** Where a reader has to stop: a durable boundary. */
export interface ReadLimit {
  pos: LogPos;
  seq: Seq;
}

export class LogReader {
  readonly batch: Batch;
  /** Behind the last batch returned: where a cursor may stand. */
  readonly place: LogPlace = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0 };
  /** Set while the last `next` returned BROKEN. */
  broken: Break | undefined;
  /** Padding met so far, bytes. */
  padding = 0;

  private readonly log: LogFile;
  private readonly chunk: number;
  private readonly mem: Mem;
  private readonly chain = new Chain();
  /** The buffer holds log bytes [bufPos, bufPos + bufLen), all of one segment. */
  private bufPos = 0;
  private bufLen = 0;
  /** True until the first batch after seekUnproven has said which seq and chain it begins with. */
  private believe = false;
  private readErrno = 0;

  /** `chunk`: bytes read at a time. */
  constructor(log: LogFile, options: { chunk?: number } = {}) {
    this.log = log;
    this.chunk = Math.min(options.chunk ?? MAX_BATCH, log.segment);
    const mem = Mem.large(Math.max(this.chunk, Math.min(MAX_BATCH, log.segment)));
    this.mem = mem;
    this.batch = {
      pos: 0,
      end: 0,
      seq: 0,
      count: 0,
      mem,
      headers: 0,
      payloads: 0,
      payloadBytes: 0,
      payloadPos: 0,
      durable: 0,
    };
  }

  /** Starts at a batch boundary. */
  seek(place: LogPlace): void {
    Object.assign(this.place, place);
    this.believe = false;
    this.bufLen = 0;
    this.broken = undefined;
    this.padding = 0;
  }

  /** Starts at a batch boundary whose seq and chain are not known: the first batch there is believed. */
  seekUnproven(pos: LogPos): void {
    this.seek({ pos, seq: 0, chainLo: 0, chainHi: 0, time: 0 });
    this.believe = true;
  }

  /**
   * Reads the next batch. END at `limit`, beyond which no byte is looked at; without it only a break ends the
   * log. After BROKEN, `place` is still behind the last good batch and `next` may be called again.
   */
  next(limit?: ReadLimit): ReadResult {
    this.broken = undefined;
    const stop = limit?.pos ?? Infinity;
    let pos = this.place.pos;
    for (;;) {
      if (pos >= stop) return READ.END;
      const at = this.load(pos, ALIGN, stop);
      if (at < 0) return this.breakAt('read', pos, 0);
      const fault = this.checkHeader(at, pos, stop);
      if (fault !== undefined) return this.breakAt(fault, pos, 0);
      const { dv } = this.mem;
      const total = dv.getUint32(at + B_TOTAL, true);
      if (dv.getUint16(at + B_FLAGS, true) !== BATCH_PAD) break;
      this.padding += total;
      pos += total;
    }
    const at = this.load(pos, this.mem.dv.getUint32(this.load(pos, ALIGN, stop) + B_TOTAL, true), stop);
    if (at < 0) return this.breakAt('read', pos, 0);
    return this.takeBatch(at, pos);
  }

  close(): void {
    this.mem.unmap();
  }

  /** Judges the batch header at buffer offset `at`; loads the rest of the header part where it is longer. */
  private checkHeader(at: number, pos: LogPos, stop: LogPos): BreakReason | undefined {
    const { dv } = this.mem;
    if (dv.getUint32(at + B_MAGIC, true) !== BATCH_MAGIC) return 'magic';
    if (dv.getUint16(at + B_VERSION, true) !== FORMAT_VERSION) return 'version';
    const flags = dv.getUint16(at + B_FLAGS, true);
    const count = dv.getUint32(at + B_COUNT, true);
    const header = dv.getUint32(at + B_HEADER, true);
    const payload = dv.getUint32(at + B_PAYLOAD, true);
    const total = dv.getUint32(at + B_TOTAL, true);
    const rest = this.log.rest(pos);
    const sound =
      flags === BATCH_PAD
        ? count === 0 && header === ALIGN && payload === 0 && total === rest
        : flags === 0 &&
          count > 0 &&
          header === batchHeaderBytes(count) &&
          payload % 512 === 0 &&
          total === header + Math.ceil(payload / ALIGN) * ALIGN &&
          total <= Math.min(rest, MAX_BATCH);
    if (!sound) return 'shape';
    // A batch that ends behind the durable point was written later than this reader may look.
    if (pos + (flags === BATCH_PAD ? header : total) > stop) return 'position';
    const whole = this.load(pos, header, stop);
    if (whole < 0) return 'read';
    if (crc32(this.mem.u8.subarray(whole + 4, whole + header)) !== this.mem.dv.getUint32(whole + B_CRC, true))
      return 'crc';
    if (getU64(this.mem.dv, whole + B_POS) !== pos) return 'position';
    if (this.believe) {
      this.place.seq = getU64(this.mem.dv, whole + B_SEQ);
      this.place.chainLo = this.mem.dv.getUint32(whole + B_CHAIN, true);
      this.place.chainHi = this.mem.dv.getUint32(whole + B_CHAIN + 4, true);
      this.believe = false;
    }
    if (getU64(this.mem.dv, whole + B_SEQ) !== this.place.seq) return 'seq';
    this.chain.set(this.place.chainLo, this.place.chainHi);
    return this.chain.equals(this.mem.dv, whole + B_CHAIN) ? undefined : 'chain';
  }

  /** Checks every record of the batch at buffer offset `at` and makes it the current one. */
  private takeBatch(at: number, pos: LogPos): ReadResult {
    const { dv, u8 } = this.mem;
    const { batch, place, chain } = this;
    const count = dv.getUint32(at + B_COUNT, true);
    const header = dv.getUint32(at + B_HEADER, true);
    const payloadBytes = dv.getUint32(at + B_PAYLOAD, true);
    let record = at + BATCH_HEADER;
    let payload = at + header;
    const payloadEnd = payload + payloadBytes;
    for (let i = 0; i < count; i++) {
      const bytes = dv.getUint32(record + R_BYTES, true);
      if (dv.getUint16(record + R_MAGIC, true) !== RECORD_MAGIC || payload + payloadSpace(bytes) > payloadEnd)
        return this.breakAt('shape', pos, record - at, i);
      if (getU64(dv, record + R_SEQ) !== place.seq + i) return this.breakAt('seq', pos, record - at, i);
      const data = bytes === 0 ? undefined : u8.subarray(payload, payload + bytes);
      // The header part has a checksum of its own that is right, so it is the payload that is not.
      if (recordSum(u8, record, data) !== dv.getUint32(record + R_SUM, true))
        return this.breakAt('sum', pos, (data === undefined ? record : payload) - at, i);
      advanceChain(chain, dv, record, payload);
      if (!chain.equals(dv, record + R_CHAIN)) return this.breakAt('chain', pos, record - at, i);
      record += RECORD_HEADER;
      payload += payloadSpace(bytes);
    }
    if (payload !== payloadEnd) return this.breakAt('shape', pos, 0);
    batch.pos = pos;
    batch.end = pos + dv.getUint32(at + B_TOTAL, true);
    batch.seq = place.seq;
    batch.count = count;
    batch.headers = at + BATCH_HEADER;
    batch.payloads = at + header;
    batch.payloadBytes = payloadBytes;
    batch.payloadPos = pos + header;
    batch.durable = getU64(dv, at + B_DURABLE);
    place.pos = batch.end;
    place.seq += count;
    place.chainLo = chain.lo;
    place.chainHi = chain.hi;
    place.time = getU64(dv, record - RECORD_HEADER + R_TIME);
    return READ.BATCH;
  }

  private breakAt(reason: BreakReason, pos: LogPos, off: number, index = 0): ReadResult {
    this.broken = {
      reason,
      pos,
      byte: this.log.fileOffset(pos) + off,
      seq: this.place.seq + index,
      errno: reason === 'read' ? this.readErrno : 0,
    };
    return READ.BROKEN;
  }

  /** Offset in the buffer of log bytes [pos, pos + len), of one segment; -1 where they cannot be read. */
  private load(pos: LogPos, len: number, stop: LogPos): number {
    if (pos >= this.bufPos && pos + len <= this.bufPos + this.bufLen) return pos - this.bufPos;
    let keep = 0;
    if (pos >= this.bufPos && pos < this.bufPos + this.bufLen) {
      keep = this.bufPos + this.bufLen - pos;
      this.mem.u8.copyWithin(0, pos - this.bufPos, pos - this.bufPos + keep);
    }
    this.bufPos = pos;
    this.bufLen = keep;
    const most = Math.min(this.chunk, this.log.rest(pos), Math.max(len, stop - pos));
    // Once more with as little as is needed: a bad sector farther on is not this batch's.
    for (const want of [Math.max(len, most), len]) {
      const r = this.log.read('REPLOG:READ', this.mem, keep, want - keep, pos + keep);
      if (r >= 0) {
        this.bufLen = want;
        return 0;
      }
      this.readErrno = -r;
    }
    return -1;
  }
}
