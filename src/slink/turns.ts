/**
 * Large buffers, which the links of a group hold in turns: a batch of large pages and a reader of the log are up
 * to 12 MiB, and a burst makes every link want them at once. One that has them keeps them until somebody waits;
 * then it gives them up behind the batch that it has just sent.
 *
 * The word of a link (LARGE, milliseconds of the monotonic clock): 0 = has none, -1 = waits for a turn, else when it
 * last began to use them. A link that has hung in a call to its site for STUCK_MS counts no longer, so that dead
 * sites cannot keep the others waiting; its buffers are then on top of the others'. Two that look in the same moment
 * may both take the last turn: the bound is one of memory, not of correctness.
 */
import { MAX_LINK_THREADS, SHF, type Shared } from '../replog/shared.js';

/** Turns at once: with so many links or fewer, nobody ever waits. */
export const TURNS = 8;

const STUCK_MS = 2000;
const WAITS = -1;

export class Turns {
  private readonly words: Float64Array;
  private readonly own: number;

  constructor(shared: Shared, place: number) {
    this.words = shared.floatView;
    this.own = SHF.LARGE + place;
    this.leave();
  }

  get has(): boolean {
    return this.words[this.own]! > 0;
  }

  /** True where it is this link's turn, which then begins or goes on at `now`; `must`: whoever else has one. */
  take(now: number, must = false): boolean {
    const { words, own } = this;
    if (!must && !this.has && this.others(now) >= TURNS) {
      words[own] = WAITS;
      return false;
    }
    words[own] = now;
    return true;
  }

  /** True while another link waits for a turn. */
  get wanted(): boolean {
    for (let at = SHF.LARGE; at < SHF.LARGE + MAX_LINK_THREADS; at++) if (this.words[at] === WAITS) return true;
    return false;
  }

  leave(): void {
    this.words[this.own] = 0;
  }

  private others(now: number): number {
    const { words, own } = this;
    let count = 0;
    for (let at = SHF.LARGE; at < SHF.LARGE + MAX_LINK_THREADS; at++)
      if (at !== own && words[at]! > 0 && now - words[at]! < STUCK_MS) count++;
    return count;
  }
}
