/**
 * Who leaves a full ring (ARCHITECTURE 20). Writers wait for log space, and one link holds the head: it is dropped to its
 * dirty log at once where it is down or paused; where it works, once writers have waited for it for `fullWaitMs`, unless
 * it frees a sixteenth of the ring in every such time: then it only brakes. Some are never dropped; they hold writers, and
 * status says who and why.
 */
import type { LogPos } from '../base/units.js';

/** Part of the ring that a site which only brakes frees while writers wait for `fullWaitMs`. */
export const BRAKES = 16;

export interface Holder {
  /** 0 = slink 0, whose images the log is still needed for. */
  nr: number;
  /** It cannot be reached, or is paused: nothing will come of waiting. */
  away: boolean;
  /** By its configuration it is never dropped. */
  stall: boolean;
  /** Writers wait for it anyway: it is sync and not degraded, or beyond its fall-behind limits. */
  gates: boolean;
  /** Every device has a dirty log there. */
  dirtyLogs: boolean;
  /** Reads of the group come from it, since slink 0 is detached. */
  serves: boolean;
}

/** `wait`: it works, and it is looked at again. The others that are no `drop` hold writers until somebody acts. */
export type Verdict = 'drop' | 'wait' | 'local-disk' | 'stall' | 'sync' | 'nolog' | 'serves-reads';

/** `waited`: writers have waited for it for as long as a site that works is given, and it has freed too little. */
export function judge(holder: Holder, waited: boolean): Verdict {
  if (holder.nr === 0) return 'local-disk';
  if (holder.stall) return 'stall';
  if (holder.gates) return 'sync';
  if (holder.serves) return 'serves-reads';
  if (!holder.dirtyLogs) return 'nolog';
  return holder.away || waited ? 'drop' : 'wait';
}

/**
 * How long writers have waited for one holder. A moment in which they got some room does not count for much: a site that
 * frees a batch now and then would otherwise never have held them for long.
 */
export class FullWatch {
  private readonly log: { readonly ring: number };
  private nr = -1;
  private since = 0;
  private from: LogPos = 0;
  private fullAt = -Infinity;

  /** `log`: its ring may change. */
  constructor(log: { readonly ring: number }) {
    this.log = log;
  }

  /**
   * Writers wait for log space at `now`, and `nr` holds the head at `pos`. Milliseconds until it has held them for
   * `waitMs` with too little freed; at most 0 = it has.
   */
  held(now: number, nr: number, pos: LogPos, waitMs: number): number {
    if (nr !== this.nr || now - this.fullAt > waitMs) this.begin(now, nr, pos);
    this.fullAt = now;
    const left = this.since + waitMs - now;
    if (left > 0) return left;
    if (pos - this.from < this.log.ring / BRAKES) return left;
    this.begin(now, nr, pos);
    return waitMs;
  }

  private begin(now: number, nr: number, pos: LogPos): void {
    this.nr = nr;
    this.since = now;
    this.from = pos;
  }
}
