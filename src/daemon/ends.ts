/** Where the log ends, as main sees it while others write. */
import { R_REIGN } from '../replog/format.js';
import { S_RECORD, type Window } from '../replog/window.js';
import type { SiteCursor } from '../slink/contract.js';

/**
 * The number of the next record. The slot that tells it may be lapped while it is looked at, if this thread
 * does not get to run for as long as the data thread needs for a whole window; then it is looked at again.
 */
export function tailOf(window: Window): number {
  for (;;) {
    const tail = window.tailSeq();
    if (tail !== undefined) return tail;
  }
}

/** The durable end, as a cursor stands there. */
export function durableEnd(window: Window): SiteCursor {
  const place = window.durablePlace(tailOf(window));
  // The slot before DURABLE stays for as long as it takes to read a word of it (Window.durablePlace).
  return { ...place, reign: window.dv.getUint32(window.slotAt(place.seq - 1) + S_RECORD + R_REIGN, true) };
}
