/**
 * What the daemon's threads count while they serve, read by main for `.ctl/metrics` and status. Part of the
 * buffer of replog/shared, so it dies with the daemon: counters then begin at zero, as those who read counters
 * expect of a process that was replaced.
 *
 * Float64 words, exact up to 2^53; one writer each, plain stores (a reader may see a sum a moment before its
 * count, nothing worse). Places are word numbers:
 *
 *   block            words    writer      holds
 *   METER.DATA       4 × 24   data        histograms of the requests that it answered, one per kind
 *   METER.ERRORS     4        data        requests per kind that it answered with an error
 *   METER.COMMIT     4 × 24   committer   histograms of the requests that it answered (durable ones, flushes)
 *   METER.REFUSED    4        committer   requests per kind that it answered with an error
 *   METER.SYNC       24       committer   histogram of the syncs of the log
 *   METER.LOG        4        committer   LOG_METER: bytes and batches written, records in them, failed calls
 *   METER.LINKS      64 × 8   shipper i   LINK_METER: bytes, records and batches confirmed, failures, openings,
 *                                         and of its connections: made, lost, closed for garbage
 *   METER.DEVICES    4096 × 8 data        device nr: requests and bytes per kind, taken but not always answered
 *
 * Histogram: 23 buckets of requests, not cumulative, then the sum of microseconds. Bucket i counts what took at
 * most 2^(3+i) microseconds (8 µs … 16.8 s) and more than the bucket before; the last one counts the rest.
 *
 * Costs the data thread one clock read and six additions per request, nothing while W.STATS_OFF is 1.
 */
import type { Clock } from '../base/clock.js';
import { W, type Window } from './window.js';

/** Kinds of requests; a discard is any FALLOCATE that clears, zeroing as well. */
export const KIND = { READ: 0, WRITE: 1, FLUSH: 2, DISCARD: 3 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];
export const KIND_NAMES = ['read', 'write', 'flush', 'discard'] as const;
const KINDS = KIND_NAMES.length;
const NONE = -1;

const FIRST_BITS = 3;
const LAST_BITS = 24;
/** The last bucket has no bound. */
export const BUCKETS = LAST_BITS - FIRST_BITS + 2;
/** Upper bounds of all buckets but the last, microseconds. */
export const BOUNDS_US: readonly number[] = Array.from({ length: BUCKETS - 1 }, (_, i) => 2 ** (FIRST_BITS + i));
const HISTOGRAM = BUCKETS + 1;

const LINK_WORDS = 8;
export const METER_LINKS = 64;
const DEVICE_WORDS = 2 * KINDS;
const DEVICES = 4096;

const DATA = 0;
const ERRORS = DATA + KINDS * HISTOGRAM;
const COMMIT = ERRORS + KINDS;
const REFUSED = COMMIT + KINDS * HISTOGRAM;
const SYNC = REFUSED + KINDS;
const LOG = SYNC + HISTOGRAM;
const LINKS = LOG + 4;
const DEVICE = LINKS + METER_LINKS * LINK_WORDS;
export const METER = { DATA, ERRORS, COMMIT, REFUSED, SYNC, LOG, LINKS, DEVICES: DEVICE } as const;
export const METER_WORDS = DEVICE + DEVICES * DEVICE_WORDS;

export const LOG_METER = { BYTES: 0, BATCHES: 1, RECORDS: 2, FAILURES: 3 } as const;
export const LINK_METER = {
  BYTES: 0,
  RECORDS: 1,
  BATCHES: 2,
  FAILURES: 3,
  OPENS: 4,
  CONNECTS: 5,
  LOSSES: 6,
  GARBAGE: 7,
} as const;

/** The bucket of something that took `us` microseconds. */
export function bucketOf(us: number): number {
  const whole = Math.ceil(us);
  if (whole <= 1 << FIRST_BITS) return 0;
  return whole > 1 << LAST_BITS ? BUCKETS - 1 : 32 - Math.clz32(whole - 1) - FIRST_BITS;
}

/** Adds one observation to the histogram at word `at`. */
function observe(words: Float64Array, at: number, ms: number): void {
  const us = ms > 0 ? ms * 1000 : 0;
  words[at + bucketOf(us)]! += 1;
  words[at + BUCKETS]! += us;
}

/**
 * The data thread's hand on its words. `lap` stands between two requests: its one clock read ends the request
 * before, if that was answered, and begins the next one, so its latency counts from when this thread turned to it.
 */
export class RequestMeter {
  /** When the present request began, Clock.monoMs. */
  private begun: number;
  private on = false;
  private kind: Kind | typeof NONE = NONE;
  private readonly words: Float64Array;
  private readonly window: Int32Array;
  private readonly clock: Clock;

  constructor(words: Float64Array, window: Window, clock: Clock) {
    this.words = words;
    this.window = window.words;
    this.clock = clock;
    this.begun = clock.monoMs();
  }

  lap(): void {
    if (this.window[W.STATS_OFF] !== 0) {
      this.on = false;
      this.kind = NONE;
      return;
    }
    const now = this.clock.monoMs();
    if (this.kind !== NONE) {
      observe(this.words, DATA + this.kind * HISTOGRAM, now - this.begun);
      this.kind = NONE;
    }
    this.begun = now;
    this.on = true;
  }

  /** A request of device `nr` is served. */
  taken(kind: Kind, nr: number, bytes: number): void {
    if (!this.on) return;
    const at = DEVICE + nr * DEVICE_WORDS + 2 * kind;
    this.words[at]! += 1;
    this.words[at + 1]! += bytes;
  }

  /** The present request was answered; the next lap says how long it took. */
  answered(kind: Kind): void {
    if (this.on) this.kind = kind;
  }

  /** The request that began at `mark` goes on (it was parked). */
  resume(mark: number): void {
    if (mark === 0) this.on = false;
    else this.begun = mark;
  }

  /** It will be answered later: by this thread (`mark`, `finished`) or by the committer (`ticket`). */
  later(): void {
    this.kind = NONE;
  }

  /** A request, the present one or an earlier one, was answered with an error. */
  failed(kind: Kind): void {
    if (this.on) this.words[ERRORS + kind]! += 1;
  }

  /** The present one failed: it was not answered as it was to be. */
  refused(kind: Kind): void {
    this.kind = NONE;
    this.failed(kind);
  }

  /** The beginning of a request that is answered later, by this thread (`finished`); 0 = not measured. */
  get mark(): number {
    return this.on ? this.begun : 0;
  }

  /** A request that began at `mark` was answered just now. */
  finished(kind: Kind, mark: number): void {
    if (mark > 0) observe(this.words, DATA + kind * HISTOGRAM, this.clock.monoMs() - mark);
  }

  /** The present request as the committer gets to know it: kind and beginning; 0 = not measured. */
  ticket(kind: Kind): number {
    return this.on ? Math.floor(this.begun * 1000) * KINDS + kind : 0;
  }
}

/** The committer's hand on its words. */
export class CommitMeter {
  private readonly words: Float64Array;
  private readonly window: Int32Array;
  private readonly clock: Clock;

  constructor(words: Float64Array, window: Window, clock: Clock) {
    this.words = words;
    this.window = window.words;
    this.clock = clock;
  }

  private get on(): boolean {
    return this.window[W.STATS_OFF] === 0;
  }

  /** A request of the flush queue was answered with `errno` (0 = well). */
  answered(ticket: number, errno: number): void {
    if (ticket === 0) return;
    const kind = ticket % KINDS;
    if (errno !== 0) this.words[REFUSED + kind]! += 1;
    else observe(this.words, COMMIT + kind * HISTOGRAM, this.clock.monoMs() - (ticket - kind) / KINDS / 1000);
  }

  wrote(bytes: number, records: number): void {
    if (!this.on) return;
    const { words } = this;
    words[LOG + LOG_METER.BYTES]! += bytes;
    words[LOG + LOG_METER.BATCHES]! += 1;
    words[LOG + LOG_METER.RECORDS]! += records;
  }

  failed(): void {
    if (this.on) this.words[LOG + LOG_METER.FAILURES]! += 1;
  }

  /** Before a sync; `synced` takes what it returns. */
  beginSync(): number {
    return this.on ? this.clock.monoMs() : 0;
  }

  synced(since: number): void {
    if (since > 0) observe(this.words, SYNC, this.clock.monoMs() - since);
  }
}

/** A shipper's hand on the words of its link. */
export class LinkMeter {
  private readonly words: Float64Array;
  private readonly window: Int32Array;
  private readonly at: number;

  /** `place`: number of the link's thread. What a link that had it before counted is gone. */
  constructor(words: Float64Array, window: Window, place: number) {
    this.words = words;
    this.window = window.words;
    this.at = LINKS + place * LINK_WORDS;
    words.fill(0, this.at, this.at + LINK_WORDS);
  }

  /** The site has confirmed a batch. */
  sent(bytes: number, records: number): void {
    if (this.window[W.STATS_OFF] !== 0) return;
    const { words, at } = this;
    words[at + LINK_METER.BYTES]! += bytes;
    words[at + LINK_METER.RECORDS]! += records;
    words[at + LINK_METER.BATCHES]! += 1;
  }

  opened(): void {
    this.words[this.at + LINK_METER.OPENS]! += 1;
  }

  failed(): void {
    this.words[this.at + LINK_METER.FAILURES]! += 1;
  }

  /** What the site has counted of its connections by now. */
  connections(made: number, lost: number, garbage: number): void {
    const { words, at } = this;
    words[at + LINK_METER.CONNECTS] = made;
    words[at + LINK_METER.LOSSES] = lost;
    words[at + LINK_METER.GARBAGE] = garbage;
  }
}

export interface Histogram {
  /** Observations per bucket, not cumulative; see BOUNDS_US. */
  buckets: number[];
  count: number;
  seconds: number;
}

export interface RequestCount {
  requests: number;
  bytes: number;
}

/** Main's view of all words: what was counted since the daemon started, or since the last reset. */
export class MeterReader {
  private readonly words: Float64Array;
  /** The words at the last reset: nobody but its writer sets a word back. */
  private base: Float64Array | undefined;

  constructor(words: Float64Array) {
    this.words = words;
  }

  reset(): void {
    this.base = this.words.slice();
  }

  private value(at: number): number {
    return Math.max(0, this.words[at]! - (this.base?.[at] ?? 0));
  }

  device(nr: number, kind: Kind): RequestCount {
    const at = DEVICE + nr * DEVICE_WORDS + 2 * kind;
    return { requests: this.value(at), bytes: this.value(at + 1) };
  }

  /** Latencies of one kind of request, whoever answered. */
  latency(kind: Kind): Histogram {
    return this.histogram([DATA + kind * HISTOGRAM, COMMIT + kind * HISTOGRAM]);
  }

  /** Requests of one kind that were answered with an error. */
  errors(kind: Kind): number {
    return this.value(ERRORS + kind) + this.value(REFUSED + kind);
  }

  get syncs(): Histogram {
    return this.histogram([SYNC]);
  }

  log(word: (typeof LOG_METER)[keyof typeof LOG_METER]): number {
    return this.value(LOG + word);
  }

  link(place: number, word: (typeof LINK_METER)[keyof typeof LINK_METER]): number {
    return this.value(LINKS + place * LINK_WORDS + word);
  }

  private histogram(at: readonly number[]): Histogram {
    const sum = (word: number): number => at.reduce((total, start) => total + this.value(start + word), 0);
    const buckets = Array.from({ length: BUCKETS }, (_, i) => sum(i));
    return { buckets, count: buckets.reduce((a, b) => a + b, 0), seconds: sum(BUCKETS) / 1e6 };
  }
}
