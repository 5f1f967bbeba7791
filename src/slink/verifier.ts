/** The verify of a shipper's thread: begins when main says so, takes turns with shipping, and ends with the site's failure. */
import type { Clock } from '../base/clock.js';
import type { Mem } from '../base/mem.js';
import type { Shared } from '../replog/shared.js';
import type { Window } from '../replog/window.js';
import type { Site } from './contract.js';
import type { LocalSource } from './local-source.js';
import type { LocalCopySource } from './resync-order.js';
import { Throttle, type ThrottleOptions } from './throttle.js';
import { Verify, type VerifyReport } from './verify.js';

export interface VerifyOrder {
  /** Marks the reports. */
  id: number;
  locals: readonly LocalCopySource[];
}

export interface VerifierParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  site: Site;
  /** Makes what reads slink 0's images; left out where nobody verifies. */
  locals?: (() => LocalSource) | undefined;
  events: { verify?(id: number, report: VerifyReport): void };
}

const NOTHING: VerifyReport = {
  ...{ state: 'failed', reason: '', total: 0, compared: 0, rate: 0, suspected: 0 },
  ...{ different: 0, grain: 0, ranges: [] },
};

export class Verifier {
  private readonly p: VerifierParts;
  private options: ThrottleOptions = { rate: 0, latencyMs: 0 };
  private throttle: Throttle | undefined;
  private verify: Verify | undefined;
  private local: LocalSource | undefined;
  private readonly closed: () => string;

  /** `closed`: why the site cannot be read, ''. */
  constructor(parts: VerifierParts, closed: () => string) {
    this.p = parts;
    this.closed = closed;
  }

  /** How fast it may go. */
  configure(options: ThrottleOptions): void {
    this.options = options;
    this.throttle?.configure(options);
  }

  /** A second order while one is carried out is refused. */
  begin({ id, locals }: VerifyOrder): void {
    const { p } = this;
    const { copy } = p.site;
    const closed = this.closed();
    const why =
      closed !== ''
        ? closed
        : this.verify !== undefined
          ? 'a verify is running already'
          : copy === undefined || p.locals === undefined
            ? `sites of type ${p.site.type} cannot be read for a comparison`
            : '';
    if (why !== '') return p.events.verify?.(id, { ...NOTHING, reason: why });
    const { site, window, shared, clock } = p;
    const local = p.locals!();
    local.use(locals);
    const throttle = new Throttle(clock, window, shared, this.options);
    Object.assign(this, { local, throttle });
    this.verify = new Verify(
      {
        ...{ window, shared, clock, local, throttle },
        site: {
          copy: copy!,
          get unflushed() {
            return site.unflushed;
          },
          flush: () => site.flush(),
        },
        told: (report) => p.events.verify?.(id, report),
      },
      { devices: locals },
    );
  }

  get active(): boolean {
    return this.verify !== undefined;
  }

  /** Records below it should get to the site soon. */
  get wants(): number {
    return this.verify?.wants ?? 0;
  }

  sent(mem: Mem, headers: number, count: number): void {
    this.verify?.sent(mem, headers, count);
  }

  /** As Verify.step; Infinity where there is nothing to do. */
  step(cursor: number): number {
    if (this.verify === undefined) return Infinity;
    const rc = this.verify.step(cursor);
    if (this.verify.over) this.release();
    return rc;
  }

  /** Ends it early. */
  end(state: 'stopped' | 'failed', reason: string): void {
    this.verify?.end(state, reason);
    this.release();
  }

  private release(): void {
    this.verify?.close();
    this.local?.close();
    this.verify = undefined;
    this.local = undefined;
    this.throttle = undefined;
  }
}
