/**
 * How long a shipper waits before it sends: the RPO of the link, and beyond it while the group is busy.
 *
 * A site on the same disks, or on the same two cores, takes from the writers what it costs. So the shipper of an
 * async site may put its work off while records come fast and the log has room: what is put off stands in the
 * log, and status shows it as lag. It is never put off
 *
 *   - where fewer than a batch of bytes came in the last RPO: the group is not busy, and the RPO holds;
 *   - for longer than `ms`;
 *   - beyond `share` of the log's ring, long before a full log could hold anyone;
 *   - where somebody waits for it (the caller's affair: `stop`).
 *
 * After that the link catches up at full speed, and only when it is level again something may be put off anew.
 */
import { SHIP_BYTES } from './batch.js';

export interface DeferOptions {
  /** Longest time that a durable record waits before the link begins to catch up, milliseconds. */
  ms: number;
  /** Part of the log's ring that may be in use; beyond it nothing is put off. */
  share: number;
  /** Bytes within an RPO from which on the group is busy; by default a batch. */
  batch?: number;
}

/** A lag of this part of the ring at the start is a debt (a pause, a failure), not the beginning of a burst. */
const DEBT = 1 / 4;

export class Deferral {
  private rpoMs = 0;
  private defer: DeferOptions | undefined;
  private batch = SHIP_BYTES;
  private readonly log: { readonly ring: number };
  /** When records were first seen to wait; -1 = none do. */
  private since = -1;
  private catchingUp = false;
  private busy = false;
  /** Where the log ended when it was last looked at for its pace. */
  private markAt = 0;
  private markPos = 0;

  /** `log`: its ring may change. */
  constructor(rpoMs: number, log: { readonly ring: number }, defer: DeferOptions | undefined) {
    this.log = log;
    this.configure(rpoMs, defer);
  }

  /** Settings that may change while it runs. */
  configure(rpoMs: number, defer: DeferOptions | undefined): void {
    this.rpoMs = rpoMs;
    this.defer = defer !== undefined && defer.ms > 0 ? defer : undefined;
    this.batch = defer?.batch ?? SHIP_BYTES;
    if (this.defer === undefined) this.busy = false;
  }

  /** True while records are being put off beyond the RPO: nothing but time, or a hurry, is news. */
  get active(): boolean {
    return this.busy && this.since >= 0;
  }

  /**
   * Milliseconds to wait, 0 = send. `pos` is the durable end of the log, `lag` what the site lacks of it, `used`
   * the part of the ring that is in use, all in bytes.
   */
  wait(now: number, pos: number, lag: number, used: number): number {
    const { defer, rpoMs } = this;
    if (this.since < 0) {
      this.since = now;
      this.mark(now, pos);
      if (lag > this.log.ring * DEBT) this.catchingUp = true;
    }
    const left = this.since + rpoMs - now;
    if (defer === undefined || this.catchingUp) {
      if (lag < this.batch) this.catchingUp = false;
      return left > 0 && lag < this.batch ? left : 0;
    }
    const room = used < this.log.ring * defer.share;
    if (left > 0 && room) return left;
    if (now - this.markAt >= rpoMs) {
      this.busy = pos - this.markPos >= this.batch;
      this.mark(now, pos);
    }
    if (this.busy && room && now - this.since < defer.ms) return Math.max(1, this.markAt + rpoMs - now);
    this.stop();
    return 0;
  }

  /** Somebody waits: all that is there goes at full speed. */
  stop(): void {
    this.catchingUp = true;
    this.busy = false;
  }

  /** A batch was sent, or there is nothing to send. */
  sent(): void {
    this.since = -1;
  }

  private mark(now: number, pos: number): void {
    this.markAt = now;
    this.markPos = pos;
  }
}
