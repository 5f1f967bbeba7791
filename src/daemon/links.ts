/**
 * The links of a group as main keeps them: state and cursor as their threads report them, pause as operators
 * want it. What is to outlive the daemon goes to the checkpointer, which keeps it in the index.
 */
import type { SiteConfig } from '../control/config.js';
import type { SiteFacts } from '../control/facts.js';
import type { LinkFact } from '../index/contract.js';
import { R_TIME, type LogPlace } from '../replog/format.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import { getU64 } from '../base/codec.js';
import type { LinkState, SiteCursor } from '../slink/contract.js';
import type { LinkStart } from './open.js';
import type { Timeline } from './timeline.js';
import type { FromShip, ShipStart, ToShell } from './shell.js';
import type { Thread } from './workers.js';

export type ShipThread = Thread<ShipStart | ToShell, FromShip>;

export interface Link {
  readonly config: SiteConfig;
  readonly thread: ShipThread;
  cursor: SiteCursor;
  /** Not yet opened since it was configured. */
  fresh: boolean;
  state: LinkState;
  reason: string;
  paused: boolean;
  /** Why it needs a full resync, '' where it does not. */
  stale: string;
}

export function makeLink(config: SiteConfig, start: LinkStart, thread: ShipThread): Link {
  const stale = start.stale ?? '';
  return {
    config,
    thread,
    cursor: { ...start.cursor },
    fresh: start.fresh,
    state: stale !== '' ? 'failed' : start.paused ? 'paused' : 'connecting',
    reason: stale,
    paused: start.paused,
    stale,
  };
}

export function linkFact(link: Link): LinkFact {
  const { pos, seq, chainLo, chainHi, time, reign } = link.cursor;
  return {
    nr: link.config.nr,
    cursor: { pos, seq, chainLo, chainHi, time },
    reign,
    sync: link.stale === '' ? 'in-order' : 'inconsistent',
    paused: link.paused,
  };
}

/** A link that cannot be continued needs nothing of the log any more; every other one holds its head. */
export function holdsLog(link: Link): boolean {
  return link.stale === '';
}

export function siteFacts(link: Link, window: Window, timeline: Timeline, tail: number): SiteFacts {
  return {
    config: link.config,
    state: link.state,
    reason: link.reason,
    paused: link.paused,
    needsFullResync: link.stale !== '',
    cursor: link.cursor,
    oldestUs: oldestUnconfirmed(link.cursor, window, timeline, tail),
  };
}

/**
 * Time of the first record that is not confirmed: exact while the window holds it, otherwise a time that is no
 * later, so that a lag is never told too small. 0 where all is confirmed.
 */
function oldestUnconfirmed(cursor: LogPlace, window: Window, timeline: Timeline, tail: number): number {
  if (cursor.seq >= tail) return 0;
  const head = window.seqOf(W.HEAD, tail);
  const slot = window.slotAt(cursor.seq);
  if (cursor.seq >= head && window.holds(slot, cursor.seq)) return getU64(window.dv, slot + S_RECORD + R_TIME);
  return Math.max(cursor.time, timeline.notBefore(cursor.seq));
}
