/**
 * Which links a write has to wait for, as the data thread sees it before each append: those that are sync, and
 * those with fall-behind limits that are beyond them. Without policies it is one look at one word.
 *
 * A link is beyond its limits when what it has not confirmed is more than they allow, counted before the new
 * record; at or below them writes are asynchronous again. Only LIMITED links are looked at, so one that is down
 * (and does not stall) counts as within its limits.
 */
import { getU64 } from '../base/codec.js';
import type { Clock } from '../base/clock.js';
import { R_TIME } from '../replog/format.js';
import { SH, SHF, lowestBit, type Shared } from '../replog/shared.js';
import { S_RECORD, type Window } from '../replog/window.js';

export class Gates {
  /** Links that the next write waits for, as of `look`. */
  lo = 0;
  hi = 0;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly clock: Clock;
  /** Links beyond their limits: those whose SWITCHES is odd. */
  private beyondLo = 0;
  private beyondHi = 0;

  constructor(window: Window, shared: Shared, clock: Clock) {
    this.window = window;
    this.shared = shared;
    this.clock = clock;
  }

  /** True while some link is beyond its limits: `look` then has to be called now and then, writes or not. */
  get beyond(): boolean {
    return (this.beyondLo | this.beyondHi) !== 0;
  }

  /** Finds out whom record `seq` at payload position `payloadPos` would wait for; `head`: oldest record held. */
  look(seq: number, payloadPos: number, head: number): void {
    const { words } = this.shared;
    if (words[SH.HOLDING] === 0 && !this.beyond) {
      this.lo = this.hi = 0;
      return;
    }
    const limitedLo = Atomics.load(words, SH.LIMITED);
    const limitedHi = Atomics.load(words, SH.LIMITED + 1);
    if ((limitedLo | limitedHi | this.beyondLo | this.beyondHi) !== 0) {
      const now = this.clock.wallUs();
      this.beyondLo = this.judge(this.beyondLo, limitedLo, 0, seq, payloadPos, head, now);
      this.beyondHi = this.judge(this.beyondHi, limitedHi, 32, seq, payloadPos, head, now);
    }
    this.lo = Atomics.load(words, SH.SYNC) | this.beyondLo;
    this.hi = Atomics.load(words, SH.SYNC + 1) | this.beyondHi;
  }

  /** True where every sync link has confirmed everything below `seq`: a flush need not wait for them. */
  confirmed(seq: number): boolean {
    const { shared } = this;
    if (shared.words[SH.HOLDING] === 0) return true;
    for (let half = 0; half < 2; half++)
      for (let bits = shared.load(SH.SYNC + half); bits !== 0; bits &= bits - 1)
        if (shared.linkSeq(half * 32 + lowestBit(bits), seq) < seq) return false;
    return true;
  }

  private judge(
    before: number,
    limited: number,
    first: number,
    seq: number,
    payloadPos: number,
    head: number,
    now: number,
  ): number {
    let after = 0;
    for (let bits = limited; bits !== 0; bits &= bits - 1)
      if (this.exceeds(first + lowestBit(bits), seq, payloadPos, head, now)) after |= bits & -bits;
    for (let bits = before ^ after; bits !== 0; bits &= bits - 1) {
      const word = SH.SWITCHES + first + lowestBit(bits);
      this.shared.store(word, (this.shared.load(word) + 1) | 0);
    }
    return after;
  }

  private exceeds(place: number, seq: number, payloadPos: number, head: number, now: number): boolean {
    const { floatView } = this.shared;
    const from = this.shared.linkSeq(place, seq);
    if (from >= seq) return false;
    const ios = floatView[SHF.LIMIT_IOS + place]!;
    if (ios > 0 && seq - from > ios) return true;
    const bytes = floatView[SHF.LIMIT_BYTES + place]!;
    if (bytes > 0 && payloadPos - floatView[SHF.BYTES + place]! > bytes) return true;
    const us = floatView[SHF.LIMIT_US + place]!;
    if (us === 0) return false;
    const oldest =
      from >= head
        ? getU64(this.window.dv, this.window.slotAt(from) + S_RECORD + R_TIME)
        : floatView[SHF.OLDEST + place]!;
    return now > oldest + us;
  }
}
