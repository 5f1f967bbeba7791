/**
 * Requests that the kernel sends once more (after a daemon's death, or because they were dropped): which of
 * them are records already. Built from the window when the first one arrives, since that is rare.
 */
import { R_MAGIC, RECORD_MAGIC } from '../replog/format.js';
import { S_RECORD, S_UNIQUE, type Window } from '../replog/window.js';

/** Bit 63 of a unique, in its high half: this request was sent before. */
const RESENT = 0x80000000;

export function isResent(uniqueHi: number): boolean {
  return (uniqueHi & RESENT) !== 0;
}

export class ResentRequests {
  private readonly window: Window;
  private known: Map<number, number> | undefined;

  constructor(window: Window) {
    this.window = window;
  }

  /** Requests are about to be sent again: what is known of earlier occasions is out of date. */
  forget(): void {
    this.known = undefined;
  }

  /** Seq of the record that a request became, if it still stands in the window from `head` to `tail`. */
  find(uniqueLo: number, uniqueHi: number, head: number, tail: number): number | undefined {
    const { window } = this;
    this.known ??= this.collect(head, tail);
    const seq = this.known.get(key(uniqueLo, uniqueHi));
    return seq !== undefined && seq >= head && window.holds(window.slotAt(seq), seq) ? seq : undefined;
  }

  private collect(head: number, tail: number): Map<number, number> {
    const { window } = this;
    const known = new Map<number, number>();
    for (let seq = head; seq < tail; seq++) {
      const slot = window.slotAt(seq);
      if (window.dv.getUint16(slot + S_RECORD + R_MAGIC, true) !== RECORD_MAGIC) continue;
      const lo = window.dv.getUint32(slot + S_UNIQUE, true);
      const hi = window.dv.getUint32(slot + S_UNIQUE + 4, true);
      if (lo !== 0 || hi !== 0) known.set(key(lo, hi), seq);
    }
    return known;
  }
}

/** A unique without its mark as one number; a mount does not live to see 2^53 requests. */
function key(lo: number, hi: number): number {
  return (hi & 0x1fffff) * 4294967296 + (lo >>> 0);
}
