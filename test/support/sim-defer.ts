/**
 * What a shipper that may put its work off still owes, as an operator reads it in the manual. Looked at with each
 * step of the shipper: one that leaves alone what it could send must have a reason to.
 *
 *   - nobody waits for it (a flush of the sites, a wait, a group that is being closed)
 *   - no record waits longer than `ms`, or than the RPO where the group is not busy
 *   - what the site lacks is less than `share` of the log's ring
 */
import type { Clock } from '../../src/base/clock.js';
import { SH } from '../../src/replog/shared.js';
import { W } from '../../src/replog/window.js';
import type { DeferOptions } from '../../src/slink/deferral.js';
import type { Shipper } from '../../src/slink/shipper.js';
import { Broken } from './sim-broken.js';
import type { SimDaemon } from './sim-daemon.js';

export class DeferModel {
  private readonly rpoMs: number;
  private readonly defer: Required<DeferOptions>;
  private readonly clock: Clock;
  private readonly seen: (what: string) => void;
  private shipper: Shipper | undefined;
  /** When the shipper could first have sent what it has not; -1 = there is nothing. */
  private since = -1;
  /** Its steps since then: when, and where the durable log ended. */
  private readonly steps: { at: number; pos: number }[] = [];
  private asked = 0;
  /** Somebody waits for everything below. */
  private hurry = 0;

  constructor(rpoMs: number, defer: Required<DeferOptions>, clock: Clock, seen: (what: string) => void) {
    this.rpoMs = rpoMs;
    this.defer = defer;
    this.clock = clock;
    this.seen = seen;
  }

  /** A step of `shipper`; the milliseconds that it wants to be left alone. */
  step(daemon: SimDaemon, shipper: Shipper): number {
    const { window, shared } = daemon;
    if (this.shipper !== shipper) {
      this.shipper = shipper;
      this.since = -1;
      this.asked = this.hurry = 0;
    }
    const now = this.clock.monoMs();
    const { tail } = daemon;
    const ask = shared.load(SH.SYNC_ASK);
    if (ask !== this.asked) this.hurry = tail;
    this.asked = ask;
    const durable = window.seqOf(W.DURABLE, tail);
    const cursor = shipper.cursor.seq;
    if (!serves(shipper) || durable <= cursor) {
      this.since = -1;
      return shipper.step();
    }
    if (this.since < 0) {
      this.since = now;
      this.steps.length = 0;
    }
    const pos = window.logEnd(window.slotAt(durable - 1));
    this.steps.push({ at: now, pos });
    const lag = pos - shipper.cursor.pos;
    const hurried = this.hurry > cursor || shared.load(SH.CLOSING) !== 0;
    const wait = shipper.step();
    const waited = now - this.since;
    if (shipper.cursor.seq > cursor || !serves(shipper)) {
      if (waited > this.rpoMs) this.seen(`deferral ended: ${this.why(waited, lag, daemon, hurried)}`);
      this.since = -1;
    } else this.mayWait(waited, lag, daemon, hurried);
    return wait;
  }

  /** It has sent nothing. */
  private mayWait(waited: number, lag: number, daemon: SimDaemon, hurried: boolean): void {
    const { rpoMs, defer } = this;
    const whose = `records up to ${daemon.tail} wait for their shipper for ${waited} ms`;
    if (hurried) throw new Broken(`${whose}, although somebody waits for them`);
    if (waited >= Math.max(rpoMs, defer.ms)) throw new Broken(`${whose}, longer than ${defer.ms} ms`);
    if (lag >= daemon.log.ring * defer.share) throw new Broken(`${whose}, and are ${lag} bytes of the log`);
    if (waited < rpoMs) return;
    if (this.quiet) throw new Broken(`${whose}, and the group is not busy`);
    this.seen('deferral: put off beyond the RPO');
  }

  private why(waited: number, lag: number, daemon: SimDaemon, hurried: boolean): string {
    if (hurried) return 'somebody waits';
    if (waited >= this.defer.ms) return 'its time';
    return lag >= daemon.log.ring * this.defer.share ? 'its share of the log' : 'not busy';
  }

  /** Less than a batch came in the last RPO and the one before, as far as a shipper can know that steps when it does. */
  private get quiet(): boolean {
    const { steps, rpoMs } = this;
    const last = steps.at(-1)!;
    const before = steps.findLast(({ at }) => at <= last.at - rpoMs);
    const from = before && steps.findLast(({ at }) => at <= before.at - rpoMs);
    return from !== undefined && last.pos - from.pos < this.defer.batch;
  }
}

function serves(shipper: Shipper): boolean {
  return shipper.state === 'connected' || shipper.state === 'behind';
}
