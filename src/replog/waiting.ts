/**
 * Those who wait for an answer, by what keeps them. The committer asks at every step who can be answered, while
 * thousands may wait for a site that is dead; so the cost is that of those who move on, not of those who wait.
 *
 *   flush queue ──▶ late: not durable ──▶ link i has not confirmed it ──▶ ready
 *                                           └── the next of its links ──┘
 *
 * Each waits in one list: durability first, then for one of its links after the other. Lists are sorted by seq, so
 * that the first entry tells whether any can leave. A link that gates no longer (GATES) lets its whole list go.
 */
import { FLUSH_ENTRY, FLUSH_SLOTS, E_LINKS, E_SEQ, MAX_LINK_THREADS, SH, lowestBit, type Shared } from './shared.js';
import type { Seq } from '../base/units.js';

const LATE = MAX_LINK_THREADS;
const READY = LATE + 1;
const LISTS = READY + 1;
const NONE = -1;

export class Waiting {
  /** Links that have not confirmed what has become durable and is waited for, since `forgetAwaited`. */
  awaitedLo = 0;
  awaitedHi = 0;
  /** Entries that can be answered. */
  ready = 0;

  private readonly shared: Shared;
  /** Entries before it are in the lists, or were answered. */
  private taken: number;
  /** Entries before it were answered. */
  private head: number;
  /** 1 where the entry was answered out of turn. */
  private readonly answered = new Uint8Array(FLUSH_SLOTS);
  private readonly seqs = new Float64Array(FLUSH_SLOTS);
  private readonly next = new Int16Array(FLUSH_SLOTS);
  private readonly first = new Int16Array(LISTS).fill(NONE);
  private readonly last = new Int16Array(LISTS).fill(NONE);
  /** Where the last entry was put in between others: those that follow it belong behind it. */
  private readonly hint = new Int16Array(LISTS).fill(NONE);
  /** Links whose list is not empty. */
  private linksLo = 0;
  private linksHi = 0;
  /** Lowest seq in the list of those who are ready, which is in no order. */
  private readyLeast = Infinity;

  constructor(shared: Shared) {
    this.shared = shared;
    this.taken = this.head = shared.load(SH.FLUSH_HEAD);
  }

  /** True while requests wait for an answer. */
  get any(): boolean {
    return this.shared.load(SH.FLUSH_TAIL) !== this.head;
  }

  /** The lowest seq that is waited for and not durable; 0 = none. */
  get need(): Seq {
    const k = this.first[LATE]!;
    return k === NONE ? 0 : this.seqs[k]!;
  }

  /** Takes who came, and moves on who can: everything below `durable` is durable. */
  look(durable: Seq): void {
    const { shared } = this;
    const tail = shared.load(SH.FLUSH_TAIL);
    for (; this.taken !== tail; this.taken = (this.taken + 1) | 0) {
      const k = this.taken & (FLUSH_SLOTS - 1);
      const seq = durable + ((shared.flush[k * FLUSH_ENTRY + E_SEQ]! - durable) | 0);
      this.seqs[k] = seq;
      if (seq > durable) this.put(LATE, k);
      else this.place(k);
    }
    for (let k = this.first[LATE]!; k !== NONE && this.seqs[k]! <= durable; k = this.first[LATE]!) {
      this.pop(LATE);
      this.place(k);
    }
    for (let bits = this.linksLo; bits !== 0; bits &= bits - 1) this.lookAtLink(lowestBit(bits));
    for (let bits = this.linksHi; bits !== 0; bits &= bits - 1) this.lookAtLink(32 + lowestBit(bits));
  }

  /** Everything below it was answered, as far as the queue knows, or is durable and nobody asked. */
  floor(durable: Seq): Seq {
    let least = Math.min(durable + 1, this.readyLeast);
    for (let bits = this.linksLo; bits !== 0; bits &= bits - 1)
      least = Math.min(least, this.seqs[this.first[lowestBit(bits)]!]!);
    for (let bits = this.linksHi; bits !== 0; bits &= bits - 1)
      least = Math.min(least, this.seqs[this.first[32 + lowestBit(bits)]!]!);
    return least - 1;
  }

  /** Takes one out of those who are ready: its place in the queue, -1 = there is none. */
  takeReady(): number {
    const k = this.pop(READY);
    if (k === NONE) this.readyLeast = Infinity;
    else this.ready--;
    return k;
  }

  /** Takes one out of those who are not durable; -1 = there is none. */
  takeLate(): number {
    return this.pop(LATE);
  }

  /** Takes one out of those whom only a link keeps waiting; -1 = there is none. */
  takeHeld(): number {
    if (this.linksLo !== 0) return this.pop(lowestBit(this.linksLo));
    return this.linksHi !== 0 ? this.pop(32 + lowestBit(this.linksHi)) : NONE;
  }

  /** Takes those out of the late ones who will have to wait for links, too; each is shown. */
  takeLateHeld(show: (k: number) => void): void {
    let k = this.first[LATE]!;
    this.clear(LATE);
    while (k !== NONE) {
      const next = this.next[k]!;
      if (this.openLink(k) === NONE) this.put(LATE, k);
      else show(k);
      k = next;
    }
  }

  /** Entry `k` was taken out and answered. */
  leave(k: number): void {
    this.answered[k] = 1;
  }

  /** FLUSH_HEAD: passes those who were answered. */
  advance(): number {
    const { answered } = this;
    for (; this.head !== this.taken && answered[this.head & (FLUSH_SLOTS - 1)] !== 0; this.head = (this.head + 1) | 0)
      answered[this.head & (FLUSH_SLOTS - 1)] = 0;
    return this.head;
  }

  forgetAwaited(): void {
    this.awaitedLo = this.awaitedHi = 0;
  }

  /** Puts a durable entry where it belongs. */
  private place(k: number): void {
    const link = this.openLink(k);
    if (link !== NONE) {
      this.put(link, k);
      return;
    }
    this.ready++;
    if (this.seqs[k]! < this.readyLeast) this.readyLeast = this.seqs[k]!;
    this.append(READY, k);
  }

  /** The first link of entry `k` that gates and has not confirmed everything below its seq; notes all such links. */
  private openLink(k: number): number {
    const { shared } = this;
    const at = k * FLUSH_ENTRY + E_LINKS;
    const { flush } = shared;
    if ((flush[at]! | flush[at + 1]!) === 0) return NONE;
    const seq = this.seqs[k]!;
    const lo = this.unconfirmed(flush[at]! & shared.load(SH.GATES), 0, seq);
    const hi = this.unconfirmed(flush[at + 1]! & shared.load(SH.GATES + 1), 32, seq);
    this.awaitedLo |= lo;
    this.awaitedHi |= hi;
    if (lo !== 0) return lowestBit(lo);
    return hi !== 0 ? 32 + lowestBit(hi) : NONE;
  }

  private unconfirmed(links: number, from: number, seq: Seq): number {
    let open = 0;
    for (let bits = links; bits !== 0; bits &= bits - 1)
      if (this.shared.linkSeq(from + lowestBit(bits), seq) < seq) open |= bits & -bits;
    return open;
  }

  private lookAtLink(link: number): void {
    const { shared } = this;
    let k = this.first[link]!;
    if ((shared.load(SH.GATES + (link >> 5)) & (1 << (link & 31))) === 0) {
      // The list first: the link may gate again in the same moment.
      this.clear(link);
      while (k !== NONE) {
        const next = this.next[k]!;
        this.place(k);
        k = next;
      }
      return;
    }
    const confirmed = shared.linkSeq(link, this.seqs[k]!);
    for (; k !== NONE && this.seqs[k]! <= confirmed; k = this.first[link]!) {
      this.pop(link);
      this.place(k);
    }
  }

  // --- lists -----------------------------------------------------------------------------------------------

  private put(list: number, k: number): void {
    const { seqs, next, first } = this;
    const seq = seqs[k]!;
    const tail = this.last[list]!;
    if (tail === NONE || seqs[tail]! <= seq) {
      this.append(list, k);
      return;
    }
    const front = first[list]!;
    if (seq < seqs[front]!) {
      next[k] = front;
      first[list] = k;
      return;
    }
    const hint = this.hint[list]!;
    let before = hint !== NONE && seqs[hint]! <= seq ? hint : front;
    while (seqs[next[before]!]! <= seq) before = next[before]!;
    next[k] = next[before]!;
    next[before] = k;
    this.hint[list] = k;
  }

  private append(list: number, k: number): void {
    const tail = this.last[list]!;
    this.next[k] = NONE;
    if (tail === NONE) {
      this.first[list] = k;
      this.mark(list, true);
    } else this.next[tail] = k;
    this.last[list] = k;
  }

  private pop(list: number): number {
    const k = this.first[list]!;
    if (k === NONE) return NONE;
    const next = this.next[k]!;
    this.first[list] = next;
    if (next === NONE) this.clear(list);
    if (this.hint[list] === k) this.hint[list] = NONE;
    return k;
  }

  private clear(list: number): void {
    this.first[list] = this.last[list] = this.hint[list] = NONE;
    this.mark(list, false);
  }

  private mark(list: number, on: boolean): void {
    const bit = 1 << (list & 31);
    if (list < 32) this.linksLo = on ? this.linksLo | bit : this.linksLo & ~bit;
    else if (list < MAX_LINK_THREADS) this.linksHi = on ? this.linksHi | bit : this.linksHi & ~bit;
  }
}
