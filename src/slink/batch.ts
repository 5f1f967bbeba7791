/**
 * A batch on its way to a site, in memory of the shipper's own, laid out so that a site can put a header of 64
 * bytes before the records and write all of it with one vectored call:
 *
 *   0        64                              payloadAt (multiple of 4096)
 *   | room   | record 1 | record 2 | … zeroes | payload 1 | payload 2 | … each padded to 512 |
 *
 * The memory becomes real where it is touched: small pages for what trickles in, so that a link that has next to
 * nothing to send holds next to nothing, large ones (Mem.large) where much is to come.
 */
import { getU64 } from '../base/codec.js';
import { assert } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { MIB } from '../base/units.js';
import {
  BATCH_HEADER,
  MAX_BATCH,
  MAX_BATCH_RECORDS,
  RECORD_HEADER,
  R_CHAIN,
  R_REIGN,
  R_TIME,
  batchHeaderBytes,
} from '../replog/format.js';
import type { SiteCursor } from './cursor.js';

/** What a shipper gathers at most: a row of whole batches of the log. */
export const SHIP_BYTES = 4 * MIB;
export const SHIP_RECORDS = 8192;
/** From so much on that waits to be sent, large pages are worth their size. */
export const SHIP_LARGE = MIB;
assert(SHIP_BYTES >= MAX_BATCH && SHIP_RECORDS >= MAX_BATCH_RECORDS, 'any batch of the log fits');

export class ShipBatch {
  readonly mem: Mem;
  readonly payloadAt: number;

  records = 0;
  /** Bytes of payload, padded. */
  bytes = 0;
  /** The place before the first record. */
  readonly before: SiteCursor = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0, reign: 0 };
  /** Log position behind the log batch that holds the last record. */
  endPos = 0;
  /** It is, or is going to be, made of large pages. */
  large = true;

  constructor() {
    this.payloadAt = batchHeaderBytes(SHIP_RECORDS);
    this.mem = Mem.large(this.payloadAt + SHIP_BYTES);
    this.release();
  }

  /** The system gets the memory back until the next `begin`. */
  release(): void {
    this.mem.release();
    if (!this.large) return;
    this.mem.wantLarge(false);
    this.large = false;
  }

  close(): void {
    this.mem.unmap();
  }

  /** Where record `i` stands. */
  recordAt(i: number): number {
    return BATCH_HEADER + i * RECORD_HEADER;
  }

  /** `waiting`: bytes that are still to be sent, this batch included, as far as known. */
  begin(before: SiteCursor, waiting = 0): void {
    if (waiting >= SHIP_LARGE && !this.large) {
      // Small pages that are there already would stay small.
      this.mem.release();
      this.mem.wantLarge(true);
      this.large = true;
    }
    this.records = 0;
    this.bytes = 0;
    this.endPos = before.pos;
    Object.assign(this.before, before);
  }

  /** True where so much more fits; a batch of the log always fits into an empty one. */
  fits(records: number, bytes: number): boolean {
    return this.records + records <= SHIP_RECORDS && this.bytes + bytes <= SHIP_BYTES;
  }

  /** Copies a record header to place `i`; it counts once `records` is set beyond it. */
  putHeader(from: Mem, at: number, i: number): void {
    from.u8.copy(this.mem.u8, this.recordAt(i), at, at + RECORD_HEADER);
  }

  /** Takes `bytes` bytes of payloads that are dense and padded where they stand. */
  addPayload(from: Mem, at: number, bytes: number): void {
    from.u8.copy(this.mem.u8, this.payloadAt + this.bytes, at, at + bytes);
    this.bytes += bytes;
  }

  /** Takes all records of a batch of the log. */
  addAll(from: Mem, headers: number, count: number, payloads: number, bytes: number, endPos: number): void {
    const at = this.recordAt(this.records);
    from.u8.copy(this.mem.u8, at, headers, headers + count * RECORD_HEADER);
    this.records += count;
    this.addPayload(from, payloads, bytes);
    this.endPos = endPos;
  }

  /** Writes the place behind the last record into `place`. */
  end(place: SiteCursor): void {
    const { dv } = this.mem;
    const at = this.recordAt(this.records - 1);
    place.pos = this.endPos;
    place.seq = this.before.seq + this.records;
    place.chainLo = dv.getUint32(at + R_CHAIN, true);
    place.chainHi = dv.getUint32(at + R_CHAIN + 4, true);
    place.time = getU64(dv, at + R_TIME);
    place.reign = dv.getUint32(at + R_REIGN, true);
  }
}
