/**
 * A token bucket: how much a link may send, by the clock it is given. What is sent at once may be more than
 * there is, since a batch is not divided; the next one then waits until the debt is paid. So over any time the
 * rate is kept up to one batch and the burst that a pause saves up.
 */
import type { Clock } from '../base/clock.js';

/** What is saved up while nothing is sent: this much time's worth. */
const BURST_MS = 100;
/** A batch should not be worth more time than this, so that confirmations keep coming on a narrow link. */
const BATCH_MS = 250;

export class Bandwidth {
  private readonly clock: Clock;
  private rate = 0;
  /** Bytes that may be sent now; negative: a debt. */
  private tokens = 0;
  private at: number;

  constructor(clock: Clock, bytesPerSecond = 0) {
    this.clock = clock;
    this.at = clock.monoMs();
    this.limit(bytesPerSecond);
  }

  /** From now on so many bytes per second; 0 = as many as go. A debt at the old rate is forgiven. */
  limit(bytesPerSecond: number): void {
    this.refill();
    this.rate = bytesPerSecond;
    this.tokens = Math.max(0, Math.min(this.tokens, this.burst));
  }

  /** Milliseconds until something may be sent; 0 = now. */
  wait(): number {
    if (this.rate === 0) return 0;
    this.refill();
    // Rounded up: a sleep that ends a fraction too early would be followed by a row of tiny ones.
    return this.tokens >= 0 ? 0 : Math.ceil((-this.tokens * 1000) / this.rate);
  }

  spent(bytes: number): void {
    if (this.rate > 0) this.tokens -= bytes;
  }

  /** Bytes that a batch should not exceed, as far as whole batches of the log allow. */
  get batchBytes(): number {
    return this.rate === 0 ? Infinity : (this.rate * BATCH_MS) / 1000;
  }

  private get burst(): number {
    return (this.rate * BURST_MS) / 1000;
  }

  private refill(): void {
    const now = this.clock.monoMs();
    this.tokens = Math.min(this.burst, this.tokens + ((now - this.at) * this.rate) / 1000);
    this.at = now;
  }
}
