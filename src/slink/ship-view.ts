/**
 * The durable part of the log as a shipper sees it: where it ends, and what of it stands in the window.
 *
 * The window belongs to the data thread, which never waits for a site; so whoever copies from it copies first and
 * asks afterwards whether HEAD has passed the first record that was copied. If so, the copy may be of newer records, and
 * the log's file is read instead.
 */
import { getU64 } from '../base/codec.js';
import { R_BYTES, R_CHAIN, R_TIME, payloadSpace } from '../replog/format.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import { SHIP_BYTES, SHIP_RECORDS, type ShipBatch } from './batch.js';
import type { SiteCursor } from './contract.js';

export class LogView {
  readonly window: Window;
  /** DURABLE as it was last looked at, and its log position. */
  durable: number;
  durablePos: number;
  /** An acquire-release operation on a word of our own keeps the copy before the check behind it. */
  private readonly word = new Int32Array(new SharedArrayBuffer(4));

  /** `from`: a place that is durable. */
  constructor(window: Window, from: SiteCursor) {
    this.window = window;
    this.durable = window.tailSeq() ?? from.seq;
    this.durablePos = from.pos;
  }

  head(): number {
    return this.window.seqOf(W.HEAD, this.durable);
  }

  /** Takes over DURABLE with its log position. */
  look(): void {
    const { window } = this;
    for (;;) {
      const seq = window.seqOf(W.DURABLE, this.durable);
      const pos = window.logEnd(window.slotAt(seq - 1));
      this.fence();
      // The slot before HEAD is intact: only if HEAD went beyond may another record have taken its place.
      if (window.seqOf(W.HEAD, seq) > seq) continue;
      this.durable = seq;
      this.durablePos = pos;
      return;
    }
  }

  /** Time of record `seq`, microseconds; 0 where it is not durable or has left the window. */
  timeOf(seq: number): number {
    if (this.durable <= seq || this.head() > seq) return 0;
    const us = getU64(this.window.dv, this.window.slotAt(seq) + S_RECORD + R_TIME);
    this.fence();
    return this.head() > seq ? 0 : us;
  }

  /** Payload position behind record `seq - 1`; -1 where that has left the window. */
  payloadBehind(seq: number): number {
    const { window } = this;
    if (this.head() > seq) return -1;
    const end = window.payloadEnd(window.slotAt(seq - 1));
    this.fence();
    return this.head() <= seq ? end : -1;
  }

  /** Whether the record before `at` is the one in the window; undefined where it has left that. */
  hasBefore(at: SiteCursor): boolean | undefined {
    const { window } = this;
    // The slot before HEAD is intact, so this decides for the durable end in any case.
    if (this.head() > at.seq) return undefined;
    const slot = window.slotAt(at.seq - 1);
    const pos = window.logEnd(slot);
    const lo = window.dv.getUint32(slot + S_RECORD + R_CHAIN, true);
    const hi = window.dv.getUint32(slot + S_RECORD + R_CHAIN + 4, true);
    this.fence();
    return this.head() > at.seq ? undefined : pos === at.pos && lo === at.chainLo && hi === at.chainHi;
  }

  /**
   * Copies records from `cursor` on, whole batches of the log of records below `limit`, and no more than `most` bytes
   * where that leaves something; `limit` is at most `durable`. False where the first record has left the window, before
   * or meanwhile, or where no whole batch is below `limit`.
   */
  copy(batch: ShipBatch, cursor: SiteCursor, limit: number, most: number): boolean {
    const { window, durable } = this;
    const first = cursor.seq;
    if (this.head() > first) return false;
    batch.begin(cursor, this.durablePos - cursor.pos);
    const { dv, mem } = window;
    let taken = 0;
    let bytes = 0;
    /** Payloads from here on are still to be copied; they are dense but for a restart of the daemon. */
    let run = window.payloadPos(window.slotAt(first));
    let runBytes = 0;
    let slot = window.slotAt(first);
    let end = window.logEnd(slot);
    for (let seq = first; seq < limit; seq++) {
      const space = payloadSpace(dv.getUint32(slot + S_RECORD + R_BYTES, true));
      const payload = window.payloadPos(slot);
      // Full: there is a boundary behind us then, unless what we read was overtaken.
      if (taken >= SHIP_RECORDS || bytes + space > SHIP_BYTES) break;
      if (batch.records > 0 && bytes >= most) break;
      if (payload !== run + runBytes) {
        if (runBytes > 0) batch.addPayload(mem, window.payloadAt(run), runBytes);
        run = payload;
        runBytes = 0;
      }
      batch.putHeader(mem, slot + S_RECORD, taken++);
      runBytes += space;
      bytes += space;
      const next = window.slotAt(seq + 1);
      const nextEnd = seq + 1 === durable ? -1 : window.logEnd(next);
      if (nextEnd !== end) {
        // Behind a batch of the log.
        if (runBytes > 0) batch.addPayload(mem, window.payloadAt(run), runBytes);
        run += runBytes;
        runBytes = 0;
        batch.records = taken;
        batch.endPos = end;
      }
      slot = next;
      end = nextEnd;
    }
    this.fence();
    return batch.records > 0 && this.head() <= first;
  }

  private fence(): void {
    Atomics.add(this.word, 0, 1);
  }
}
