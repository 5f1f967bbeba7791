/**
 * How much a copier may do: a bound of bytes per second, and as much of the time as leaves applications their latency.
 *
 * Alone, it works without a rest. While requests of applications are answered it works for a share of the time, and after
 * each piece of work rests for the rest. Every look (LOOK_MS) at what these requests took (replog/latency) decides:
 * too long, and the share is halved; within the bound, and it grows by a step. So it comes down fast where somebody is
 * disturbed, and goes up while nobody is.
 *
 * The bound is the operator's, or found out: now and then nothing is copied for a moment (QUIET_MS), and what requests
 * take then is what they take without a copier; the bound is a multiple of that, for each kind of request.
 *
 * Where nobody counts (`statistics off`) the share is a fixed one while the log grows.
 */
import type { Clock } from '../base/clock.js';
import { RecentLatency } from '../replog/latency.js';
import type { Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import { KIB, MIB, roundDown } from '../base/units.js';
import { Bandwidth } from './bandwidth.js';

const LOOK_MS = 100;
/**
 * A quiet moment lasts so long, at most QUIET_MOST_MS where few requests come, and comes so often; its beginning, where
 * queues still empty, does not count.
 */
const QUIET_MS = 120;
const QUIET_MOST_MS = 1000;
const QUIET_SKIP_MS = 50;
const QUIET_EVERY_MS = 4000;
/** Requests from which on a look says something of their slowest ones, and a quiet moment that was as long as may be. */
const ENOUGH = 20;
const FEW = 5;
/** So long after the last request nobody is there to be disturbed. */
const ALONE_MS = 500;

const LEAST = 1 / 64;
const STEP = 1 / 32;
const BLIND = 1 / 4;
/** Longest rest in one piece. */
const REST_MS = 250;

/** A bound that was found out: so many times what requests take undisturbed, but not less than this. */
const TIMES = 1.5;
const FLOOR_MS = 0.5;
const QUANTILE = 0.99;

/** What is copied in one piece: while somebody may wait behind it on the same disk, and alone. */
const PIECE_BUSY = MIB / 4;
const PIECE_ALONE = 4 * MIB;
const PIECE_LEAST = 64 * KIB;

export interface ThrottleOptions {
  /** Bytes per second; 0 = no bound. */
  rate: number;
  /** Milliseconds that requests of applications may take; 0 = found out. */
  latencyMs: number;
}

export class Throttle {
  /** Part of the time that is worked, LEAST … 1. */
  share = 1;
  private readonly clock: Clock;
  private readonly window: Window;
  private readonly latency: RecentLatency;
  private readonly bandwidth: Bandwidth;
  private latencyMs = 0;
  private alone = true;
  /** Requests that were seen since the last `begin`, and when the last one was. */
  private counted = 0;
  private requestAt = -Infinity;
  /** Nothing is to be done before. */
  private restUntil = -Infinity;
  private lookAt = 0;
  private quietAt = 0;
  /** A quiet moment: 0 = none, 1 = begun, 2 = counting. */
  private quiet: 0 | 1 | 2 = 0;
  private quietEnd = 0;
  /** What requests of each kind take without a copier, milliseconds; 0 = not known yet. */
  private readonly calm: Float64Array;
  private tail = 0;

  constructor(clock: Clock, window: Window, shared: Shared, options: ThrottleOptions) {
    this.clock = clock;
    this.window = window;
    this.latency = new RecentLatency(shared.meters);
    this.calm = new Float64Array(this.latency.kinds);
    this.bandwidth = new Bandwidth(clock);
    this.configure(options);
    this.start();
  }

  /** Work begins, after some time without. */
  start(): void {
    const now = this.clock.monoMs();
    this.alone = true;
    this.share = 1;
    this.quiet = 0;
    this.restUntil = this.requestAt = -Infinity;
    this.lookAt = now + LOOK_MS;
    this.quietAt = now;
    this.tail = this.window.load(W.TAIL);
    this.begin();
  }

  configure({ rate, latencyMs }: ThrottleOptions): void {
    this.bandwidth.limit(rate);
    this.latencyMs = latencyMs;
  }

  /** Bytes that the next piece of work should have, where another bound says `most`; a multiple of PIECE_LEAST. */
  piece(most: number): number {
    const bytes = Math.min(this.alone ? PIECE_ALONE : PIECE_BUSY, this.bandwidth.batchBytes, most);
    return Math.max(PIECE_LEAST, roundDown(bytes, PIECE_LEAST));
  }

  /** Milliseconds until the next piece of work; 0 = now. */
  wait(): number {
    const now = this.clock.monoMs();
    if (now >= this.lookAt) this.look(now);
    const rest = Math.max(this.restUntil - now, this.bandwidth.wait());
    // A rest is cut into looks: who was disturbed may be gone.
    return rest <= 0 ? 0 : Math.max(1, Math.min(rest, this.lookAt - now));
  }

  /** A piece of `bytes` was done, in `ms`. */
  worked(ms: number, bytes: number): void {
    this.bandwidth.spent(bytes);
    if (this.alone || this.share >= 1) return;
    this.restUntil = this.clock.monoMs() + Math.min(REST_MS, ms * (1 / this.share - 1));
  }

  private look(now: number): void {
    const requests = this.latency.look();
    if (requests > this.counted) this.requestAt = now;
    this.counted = requests;
    if (this.quiet !== 0) return this.lookQuietly(now, requests);
    this.lookAt = now + LOOK_MS;
    if (this.window.load(W.STATS_OFF) !== 0) return this.lookBlindly();
    const wasAlone = this.alone;
    this.alone = now - this.requestAt > ALONE_MS;
    if (this.alone) {
      this.share = 1;
      this.restUntil = -Infinity;
      return this.begin();
    }
    if (wasAlone) this.share = Math.min(this.share, BLIND);
    if (this.latencyMs === 0 && now >= this.quietAt) {
      this.quiet = 1;
      this.lookAt = now + QUIET_SKIP_MS;
      this.restUntil = this.quietEnd = now + QUIET_MOST_MS + QUIET_SKIP_MS;
      return;
    }
    const verdict = this.judge();
    // Few requests are gathered over several looks.
    if (verdict === undefined) return;
    this.share = verdict ? Math.min(1, this.share + STEP) : Math.max(LEAST, this.share / 2);
    this.begin();
  }

  private begin(): void {
    this.latency.begin();
    this.counted = 0;
  }

  private lookQuietly(now: number, requests: number): void {
    if (this.quiet === 1) {
      this.quiet = 2;
      this.lookAt = now + QUIET_MS;
      return this.begin();
    }
    if (requests < ENOUGH && now < this.quietEnd && now - this.requestAt <= ALONE_MS) {
      this.lookAt = now + QUIET_MS;
      return;
    }
    const { latency, calm } = this;
    for (let k = 0; k < latency.kinds; k++) {
      if (latency.requests(k) < FEW) continue;
      const took = latency.quantile(k, QUANTILE);
      // Down at once and up slowly: one quiet moment may have met a hiccup of the disk.
      calm[k] = calm[k] === 0 || took < calm[k]! ? took : calm[k]! + (took - calm[k]!) / 8;
    }
    this.quiet = 0;
    this.quietAt = now + QUIET_EVERY_MS;
    this.lookAt = now + LOOK_MS;
    this.restUntil = -Infinity;
    this.begin();
  }

  private lookBlindly(): void {
    const tail = this.window.load(W.TAIL);
    this.alone = tail === this.tail;
    this.tail = tail;
    this.share = this.alone ? 1 : BLIND;
    if (this.alone) this.restUntil = -Infinity;
  }

  /** Whether requests took no longer than they may; undefined where too few were seen, or the bound is not known. */
  private judge(): boolean | undefined {
    const { latency, latencyMs } = this;
    let verdict: boolean | undefined;
    for (let k = 0; k < latency.kinds; k++) {
      if (latency.requests(k) < ENOUGH || (latencyMs === 0 && this.calm[k] === 0)) continue;
      const bound = latencyMs > 0 ? latencyMs : Math.max(FLOOR_MS, TIMES * this.calm[k]!);
      if (latency.quantile(k, QUANTILE) > bound) return false;
      verdict = true;
    }
    return verdict;
  }
}
