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
 *
 * Float64 words:
 *
 *   LOG_HEAD     main       log positions below it may be used again (index and superblock are durable)
 *
 * Flush queue: entries of four Int32: unique low, unique high, seq (low 32 bits: answer when everything below
 * it is durable), bytes to answer (0 = bare reply, as for FSYNC). Beside each entry a float64 ticket (data):
 * kind and beginning of the request, for the histograms.
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
  /** Bell of link thread i stands at BELL_LINKS + 2·i. */
  BELL_LINKS: 64,
} as const;

export const MAX_LINK_THREADS = 64;
export const FLUSH_SLOTS = 8192;
const INTS = 256;
const FLOATS = 16;
const INT_BYTES = INTS * 4;
const FLOAT_BYTES = FLOATS * 8;
const FLUSH_BYTES = FLUSH_SLOTS * 16;
const TICKET_BYTES = FLUSH_SLOTS * 8;
const TICKETS_AT = INT_BYTES + FLOAT_BYTES + FLUSH_BYTES;
const METERS_AT = TICKETS_AT + TICKET_BYTES;

export class Shared {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  private readonly floats: BigInt64Array;
  private readonly floatView: Float64Array;
  readonly flush: Int32Array;
  readonly tickets: Float64Array;
  readonly meters: Float64Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(METERS_AT + METER_WORDS * 8);
    this.words = new Int32Array(this.buffer, 0, INTS);
    this.floats = new BigInt64Array(this.buffer, INT_BYTES, FLOATS);
    this.floatView = new Float64Array(this.buffer, INT_BYTES, FLOATS);
    this.flush = new Int32Array(this.buffer, INT_BYTES + FLOAT_BYTES, FLUSH_SLOTS * 4);
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

  bell(word: number): Bell {
    return new Bell(this.words, word);
  }

  /** Data side: queues a request to be answered once everything below `seq` is durable. False when full. */
  pushFlush(uniqueLo: number, uniqueHi: number, seq: number, answer: number, ticket = 0): boolean {
    const tail = this.words[SH.FLUSH_TAIL]!;
    if (((tail - Atomics.load(this.words, SH.FLUSH_HEAD)) | 0) >= FLUSH_SLOTS) return false;
    const at = (tail & (FLUSH_SLOTS - 1)) * 4;
    this.flush[at] = uniqueLo;
    this.flush[at + 1] = uniqueHi;
    this.flush[at + 2] = seq | 0;
    this.flush[at + 3] = answer;
    this.tickets[tail & (FLUSH_SLOTS - 1)] = ticket;
    Atomics.store(this.words, SH.FLUSH_TAIL, (tail + 1) | 0);
    return true;
  }
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
}
