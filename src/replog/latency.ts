/**
 * What requests of applications took lately: differences between two looks at the histograms of replog/meters. For
 * those who work beside them and rest where that disturbs.
 */
import { BOUNDS_US, BUCKETS, KIND, METER, type Kind } from './meters.js';

/** Kinds of requests that somebody waits for; discards are as slow as the file system that frees the blocks. */
const KINDS: readonly Kind[] = [KIND.READ, KIND.WRITE, KIND.FLUSH];
const HISTOGRAM = BUCKETS + 1;

export class RecentLatency {
  readonly kinds = KINDS.length;
  private readonly words: Float64Array;
  /** The histograms as they were at `begin`, and what has come since by the last `look`. */
  private readonly base = new Float64Array(KINDS.length * BUCKETS);
  private readonly seen = new Float64Array(KINDS.length * BUCKETS);

  /** `words`: of Shared.meters. */
  constructor(words: Float64Array) {
    this.words = words;
    this.begin();
  }

  /** What comes from now on counts. */
  begin(): void {
    for (let k = 0; k < KINDS.length; k++)
      for (let i = 0; i < BUCKETS; i++) this.base[k * BUCKETS + i] = this.count(k, i);
    this.seen.fill(0);
  }

  /** Requests answered since `begin`, of all kinds. */
  look(): number {
    let all = 0;
    for (let k = 0; k < KINDS.length; k++)
      for (let i = 0; i < BUCKETS; i++) {
        const n = this.count(k, i) - this.base[k * BUCKETS + i]!;
        this.seen[k * BUCKETS + i] = n;
        all += n;
      }
    return all;
  }

  /** Of the last `look`: how many of kind `k` (0 … kinds - 1) there were. */
  requests(k: number): number {
    let n = 0;
    for (let i = 0; i < BUCKETS; i++) n += this.seen[k * BUCKETS + i]!;
    return n;
  }

  /** Of the last `look`: what a share `q` of the requests of kind `k` took at most, milliseconds; 0 where there were none. */
  quantile(k: number, q: number): number {
    let left = this.requests(k) * q;
    if (left <= 0) return 0;
    for (let i = 0; i < BUCKETS; i++) {
      const n = this.seen[k * BUCKETS + i]!;
      if (n < left) {
        left -= n;
        continue;
      }
      const from = i === 0 ? 0 : BOUNDS_US[i - 1]!;
      const to = BOUNDS_US[i] ?? 2 * from;
      return (from + ((to - from) * left) / n) / 1000;
    }
    return (2 * BOUNDS_US[BUCKETS - 2]!) / 1000;
  }

  /** Whoever answered. */
  private count(k: number, bucket: number): number {
    const at = KINDS[k]! * HISTOGRAM + bucket;
    return this.words[METER.DATA + at]! + this.words[METER.COMMIT + at]!;
  }
}
