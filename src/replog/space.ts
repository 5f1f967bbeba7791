/**
 * Admission to the log: a record enters the window only when it is certain that everything in the window
 * will find its place in the log's file, however the committer cuts it into batches. Without this the log
 * could fill up with acknowledged writes that can never be made durable.
 *
 * Let D be the durable end of the log, S the segment size, w(r) = worstLogBytes(r) and W the sum of w over all
 * records not yet durable, the new one included.
 *
 * - A batch of any number of records takes at most the sum of their w: its header part is at most 4096 per
 *   record, and rounding one sum up costs no more than rounding each term.
 * - A segment's end is padded only when the next record does not fit alone, so less than its w is lost:
 *   at most G = (largest w) - 4096 at each end.
 * - The first segment has r bytes left. Where W <= r nothing is padded. Otherwise, to pass c ends, the records
 *   must have filled at least (r - G) + (c - 1)(S - G) bytes, hence c <= 1 + floor((W - r + G) / (S - G)).
 *
 * So everything ends at or before D + W + c·G, and that must not exceed LOG_HEAD + LOG_RING.
 */
import { ALIGN, R_BYTES, maxPayloadFor, worstLogBytes } from './format.js';
import type { Shared } from './shared.js';
import { S_RECORD, W, type Window } from './window.js';

/** Kept back for records that end a jam (a reign after a crash with a full log, a tag of the operator). */
export const CONTROL_RESERVE = 64 * 1024;

export class LogSpace {
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly segment: number;
  private readonly mask: number;
  /** Sum of w up to and including record seq, in place seq mod slots. */
  private readonly sums: Float64Array;
  private total = 0;
  private tail: number;
  /** Largest w among records that may still be pending. */
  private largest = ALIGN;

  constructor(window: Window, shared: Shared, segment: number) {
    this.window = window;
    this.shared = shared;
    this.segment = segment;
    this.mask = window.shape.slots - 1;
    this.sums = new Float64Array(window.shape.slots);
    const tail = window.tailSeq() ?? 0;
    this.tail = window.seqOf(W.DURABLE, tail);
    for (let seq = this.tail; seq < tail; seq++)
      this.added(seq, window.dv.getUint32(window.slotAt(seq) + S_RECORD + R_BYTES, true));
  }

  /** Largest payload of one record. */
  get maxPayload(): number {
    return maxPayloadFor(this.segment);
  }

  /** Told by the appender of each record. */
  added(seq: number, payloadBytes: number): void {
    const worst = worstLogBytes(payloadBytes);
    this.total += worst;
    this.sums[(seq | 0) & this.mask] = this.total;
    if (worst > this.largest) this.largest = worst;
    this.tail = seq + 1;
  }

  /** True where one more record of `payloadBytes` is sure to find its place in the log. */
  admits(payloadBytes: number): boolean {
    return this.endWith(payloadBytes) <= this.shared.logHead + this.shared.logRing - CONTROL_RESERVE;
  }

  /** The same for a control record, which may use what is kept back. */
  admitsControl(payloadBytes: number): boolean {
    return this.endWith(payloadBytes) <= this.shared.logHead + this.shared.logRing;
  }

  /** Log position at which everything pending and one more record of `payloadBytes` has ended for certain. */
  endWith(payloadBytes: number): number {
    const { window, segment, tail } = this;
    const durable = window.seqOf(W.DURABLE, tail);
    const start = window.logEnd(window.slotAt(durable - 1));
    const worst = worstLogBytes(payloadBytes);
    let pending = worst;
    if (durable < tail) pending += this.total - this.sums[((durable - 1) | 0) & this.mask]!;
    else this.largest = ALIGN;
    const waste = Math.max(worst, this.largest) - ALIGN;
    const rest = segment - (start % segment);
    const ends = pending <= rest ? 0 : 1 + Math.floor(Math.max(0, pending - rest + waste) / (segment - waste));
    return start + pending + ends * waste;
  }
}
