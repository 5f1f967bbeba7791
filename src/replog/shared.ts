/**
 * What the daemon's threads share and what may die with the daemon: wake words, the flush queue, limits.
 * (What must outlive the daemon stands in the window.) One SharedArrayBuffer, handed to every thread.
 *
 * Int32 words; one writer each, except bells, which anyone rings:
 *
 *   word         writer     meaning
 *   BELL_*       anyone     even: counter that sleepers wait on; odd (word + 1): 1 while the owner sleeps
 *   FLUSH_TAIL   data       entries put into the flush queue
 *   FLUSH_HEAD   committer  entries answered
 *   DATA_WAITS   data       1 while requests are parked for want of room: whoever makes room rings its eventfd
 *   LOG_ERROR    committer  errno (positive) that suspended the log, 0 = fine
 *   LOG_RETRY    main       grows when the operator wants the log tried again
 *   LOG_FULL     committer  1 while the next batch finds no free log space (read by status)
 *   LOCAL_ERROR  applier    errno (positive) that stopped slink 0's images, 0 = fine
 *   LOCAL_RETRY  main       grows when the operator wants the images tried again
 *   SYNC_ASK     main       grows when main wants images and sites synced soon (to free log space, to close)
 *   CLOSING      main       1: no more requests will come; drain and end
 *   PARKED       data       requests parked just now (read by status)
 *   FAIL_ASK     main       grows when the operator wants those who wait for links answered with EIO
 *   PLACES       main       every link has a place below it
 *   HOLDING      main       1 while any bit of SYNC or LIMITED is set, so that without policies one look is enough
 *   MAPPING      main       grows with each change of MAP (resize.ts)
 *   GATES        main       two words, bit i = link i may hold writers now; an entry waits for no other links
 *   SYNC         main       two words, links that every write and flush waits for (subset of GATES)
 *   LIMITED      main       two words, links whose fall-behind limits count now (subset of GATES)
 *   DOUBTS       applier    grows with every failed sync of slink 0's images, behind DOUBT of the window, and when they
 *                           are closed to be opened anew (AWAY): whoever found it the same before it read an image and
 *                           behind the next good sync has read what was kept
 *   SYNCED       applier    low 32 bits of the seq below which slink 0's images are synced
 *   LINK_SEQ     shipper i  low 32 bits of the seq below which the site has confirmed everything
 *   HELD         shipper i  low 32 bits of the seq below which everything is in the site's images; a folder confirms what
 *                           it has staged (LINK_SEQ) before that
 *   IMAGES       shipper i  odd while the site's images hold everything below HELD and nothing older is written to them;
 *                           grows when the site has been opened, and before it may be opened again
 *   SWITCHES     data       per link, how often it went beyond its limits and back: odd = beyond, writes wait for it
 *
 * Float64 words (those from BYTES on are per link):
 *
 *   LOG_HEAD     main       log positions below it may be used again (index and superblock are durable)
 *   LOG_RING     main       bytes of log from LOG_HEAD on that may be in use: the ring, or less while it is to shrink
 *   MAP          main       base and ring where MAPPING is even, then the same where it is odd; stored before MAPPING
 *   BYTES        shipper i  payload position behind what the site has confirmed (an estimate from log positions
 *                           while that has left the window)
 *   OLDEST       shipper i  no record that it has not confirmed is older, microseconds of wall clock
 *   SENT         shipper i  records below it may have been sent; beyond LINK_SEQ that is the site's open window. Stored
 *                           before a byte is sent, so whoever reads LINK_SEQ first never sees a window too small
 *   WANTED       data       the highest seq that an entry for this link waits for: ship up to it without gathering
 *   LARGE        shipper i  whether it holds large buffers, or waits for its turn (slink/turns)
 *   LIMIT_*      main       fall-behind: records, payload bytes, microseconds of age; 0 = no limit
 *
 *   LINK_SEQ is stored behind BYTES and OLDEST; whoever waits is told by a ring of BELL_COMMIT, which the shipper
 *   spares where nobody wants what it has just confirmed. WANTED is stored before FLUSH_TAIL, and read behind
 *   LINK_SEQ: so either the shipper sees the wish, or the committer the confirmation.
 *
 * Flush queue: entries of six Int32: unique low, unique high, seq (low 32 bits: answer when everything below
 * it is durable, here and at the entry's links), bytes to answer (0 = bare reply, as for FSYNC), the links it waits
 * for (two words, bit i = place i). Entries may be answered in any order; FLUSH_HEAD passes the answered ones.
 * Beside each entry a float64 ticket (data): kind and beginning of the request, for the histograms.
 *
 * Then the meters (replog/meters draws them).
 */
import { MAX_U53 } from '../base/units.js';
import { METER_WORDS } from './meters.js';

export const SH = {
  BELL_COMMIT: 0,
  BELL_APPLY: 2,
  FLUSH_TAIL: 8,
  FLUSH_HEAD: 9,
  DATA_WAITS: 10,
  LOG_ERROR: 11,
  LOG_RETRY: 12,
  LOG_FULL: 13,
  LOCAL_ERROR: 14,
  LOCAL_RETRY: 15,
  SYNC_ASK: 16,
  CLOSING: 17,
  PARKED: 18,
  FAIL_ASK: 19,
  PLACES: 20,
  HOLDING: 21,
  GATES: 22,
  SYNC: 24,
  LIMITED: 26,
  DOUBTS: 28,
  SYNCED: 29,
  MAPPING: 40,
  /** Bell of link thread i stands at BELL_LINKS + 2·i. */
  BELL_LINKS: 64,
  /** Link i has LINK_SEQ + i, SWITCHES + i, IMAGES + i and HELD + i. */
  LINK_SEQ: 192,
  SWITCHES: 256,
  IMAGES: 320,
  HELD: 384,
} as const;

/** Places for links that are served at once; a set of them is two words of bits. */
export const MAX_LINK_THREADS = 64;

/** Float64 words; from BYTES on, those of link i stand at these plus i. */
export const SHF = {
  LOG_RING: 1,
  MAP: 2,
  BYTES: 64,
  OLDEST: 128,
  WANTED: 192,
  LIMIT_IOS: 256,
  LIMIT_BYTES: 320,
  LIMIT_US: 384,
  SENT: 448,
  LARGE: 512,
} as const;

export const FLUSH_SLOTS = 8192;
/** Int32 words of an entry, and where its fields stand. */
export const FLUSH_ENTRY = 6;
export const E_SEQ = 2;
export const E_ANSWER = 3;
export const E_LINKS = 4;

const INTS = 512;
const FLOATS = 576;
const INT_BYTES = INTS * 4;
const FLOAT_BYTES = FLOATS * 8;
const FLUSH_BYTES = FLUSH_SLOTS * FLUSH_ENTRY * 4;
const TICKET_BYTES = FLUSH_SLOTS * 8;
const TICKETS_AT = INT_BYTES + FLOAT_BYTES + FLUSH_BYTES;
const METERS_AT = TICKETS_AT + TICKET_BYTES;

export class Shared {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  private readonly floats: BigInt64Array;
  readonly floatView: Float64Array;
  readonly flush: Int32Array;
  readonly tickets: Float64Array;
  readonly meters: Float64Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(METERS_AT + METER_WORDS * 8);
    this.words = new Int32Array(this.buffer, 0, INTS);
    this.floats = new BigInt64Array(this.buffer, INT_BYTES, FLOATS);
    this.floatView = new Float64Array(this.buffer, INT_BYTES, FLOATS);
    this.flush = new Int32Array(this.buffer, INT_BYTES + FLOAT_BYTES, FLUSH_SLOTS * FLUSH_ENTRY);
    this.tickets = new Float64Array(this.buffer, TICKETS_AT, FLUSH_SLOTS);
    this.meters = new Float64Array(this.buffer, METERS_AT, METER_WORDS);
  }

  load(word: number): number {
    return Atomics.load(this.words, word);
  }

  store(word: number, value: number): void {
    Atomics.store(this.words, word, value);
  }

  bump(word: number): void {
    Atomics.add(this.words, word, 1);
  }

  /** Log positions below this may be overwritten. An aligned 8-byte load is one access on x86-64 and arm64. */
  get logHead(): number {
    return this.floatView[0]!;
  }

  set logHead(pos: number) {
    // Through Atomics, so that it cannot be seen before what was written ahead of it.
    scratch.setFloat64(0, Math.min(pos, MAX_U53), true);
    Atomics.store(this.floats, 0, scratch.getBigInt64(0, true));
  }

  /** Bytes of log from LOG_HEAD on that may be in use. */
  get logRing(): number {
    return this.floatView[SHF.LOG_RING]!;
  }

  set logRing(bytes: number) {
    this.floatView[SHF.LOG_RING] = bytes;
  }

  /** Main: where log positions stand from now on. Whoever has read by the old mapping looks again (LogFile.read). */
  map(base: number, ring: number): void {
    const { words, floatView } = this;
    const next = (Atomics.load(words, SH.MAPPING) + 1) | 0;
    const at = SHF.MAP + 2 * (next & 1);
    floatView[at] = base;
    floatView[at + 1] = ring;
    Atomics.store(words, SH.MAPPING, next);
  }

  bell(word: number): Bell {
    return new Bell(this.words, word);
  }

  /** Everything below is confirmed by the link at `place`, seen from a full seq nearby. */
  linkSeq(place: number, near: number): number {
    return near + ((Atomics.load(this.words, SH.LINK_SEQ + place) - near) | 0);
  }

  /** Everything below is in the images of the site whose link is at `place`. */
  heldSeq(place: number, near: number): number {
    return near + ((Atomics.load(this.words, SH.HELD + place) - near) | 0);
  }

  /**
   * Data side: queues a request to be answered once everything below `seq` is durable and confirmed by the
   * links. False when full.
   */
  pushFlush(
    uniqueLo: number,
    uniqueHi: number,
    seq: number,
    answer: number,
    ticket = 0,
    linksLo = 0,
    linksHi = 0,
  ): boolean {
    const { words, flush } = this;
    if (this.flushRoom <= 0) return false;
    const tail = words[SH.FLUSH_TAIL]!;
    const at = (tail & (FLUSH_SLOTS - 1)) * FLUSH_ENTRY;
    flush[at] = uniqueLo;
    flush[at + 1] = uniqueHi;
    flush[at + E_SEQ] = seq | 0;
    flush[at + E_ANSWER] = answer;
    flush[at + E_LINKS] = linksLo;
    flush[at + E_LINKS + 1] = linksHi;
    this.tickets[tail & (FLUSH_SLOTS - 1)] = ticket;
    if ((linksLo | linksHi) !== 0) this.want(seq, linksLo, linksHi);
    Atomics.store(words, SH.FLUSH_TAIL, (tail + 1) | 0);
    return true;
  }

  /** Data side: places left in the flush queue. */
  get flushRoom(): number {
    return FLUSH_SLOTS - ((this.words[SH.FLUSH_TAIL]! - Atomics.load(this.words, SH.FLUSH_HEAD)) | 0);
  }

  private want(seq: number, linksLo: number, linksHi: number): void {
    for (let bits = linksLo; bits !== 0; bits &= bits - 1) this.wantOf(lowestBit(bits), seq);
    for (let bits = linksHi; bits !== 0; bits &= bits - 1) this.wantOf(32 + lowestBit(bits), seq);
  }

  /** ! Requests that are sent again come in any order: an older one must not take back what a newer one wants. */
  private wantOf(place: number, seq: number): void {
    const { floatView } = this;
    if (floatView[SHF.WANTED + place]! < seq) floatView[SHF.WANTED + place] = seq;
  }

  /** Main: sets or clears the bit of `place` in a pair of words. */
  setBit(pair: number, place: number, on: boolean): void {
    const word = pair + (place >> 5);
    const bit = 1 << (place & 31);
    const before = Atomics.load(this.words, word);
    Atomics.store(this.words, word, on ? before | bit : before & ~bit);
  }
}

/** Number of the lowest bit that is set; there must be one. */
export function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

const scratch = new DataView(new ArrayBuffer(8));

/** A wake word with its "owner sleeps" flag: ringing costs nothing while the owner is awake. */
export class Bell {
  private readonly words: Int32Array;
  private readonly at: number;

  constructor(words: Int32Array, at: number) {
    this.words = words;
    this.at = at;
  }

  ring(): void {
    if (Atomics.load(this.words, this.at + 1) === 0) return;
    Atomics.add(this.words, this.at, 1);
    Atomics.notify(this.words, this.at);
  }

  /** Owner: sleeps until rung, at most `ms`; `idle` is asked once more after the flag is up, against lost wake-ups. */
  sleep(idle: () => boolean, ms: number): void {
    Atomics.store(this.words, this.at + 1, 1);
    const seen = Atomics.load(this.words, this.at);
    if (idle()) Atomics.wait(this.words, this.at, seen, ms);
    Atomics.store(this.words, this.at + 1, 0);
  }

  /** Owner: sleeps for `ms` and is not to be woken. */
  doze(ms: number): void {
    Atomics.wait(this.words, this.at, Atomics.load(this.words, this.at), ms);
  }
}
