/**
 * The links of a group as main keeps them: state and cursor as their threads report them, pause as operators
 * want it. What is to outlive the daemon goes to the checkpointer, which keeps it in the index.
 */
import { isRaw, type SiteConfig } from '../control/config.js';
import type { DirtyFacts, SiteFacts, VerifyFacts } from '../control/facts.js';
import type { LinkFact } from '../index/contract.js';
import { R_TIME, type LogPlace } from '../replog/format.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import { getU64 } from '../base/codec.js';
import {
  E_LINKS,
  E_SEQ,
  FLUSH_ENTRY,
  FLUSH_SLOTS,
  MAX_LINK_THREADS,
  SH,
  SHF,
  lowestBit,
  type Shared,
} from '../replog/shared.js';
import type { LinkState, OpenWindow, SiteCursor } from '../slink/contract.js';
import type { LinkPolicies, LinkRules } from '../slink/policy.js';
import type { ResyncProgress } from '../slink/resync.js';
import type { LinkStart } from './open.js';
import type { Timeline } from './timeline.js';
import type { FromShip, ShipStart, ToShell } from './shell.js';
import type { Thread } from './workers.js';

export type ShipThread = Thread<ShipStart | ToShell, FromShip>;

export interface Link {
  config: SiteConfig;
  /** Its place among the links that are served (replog/shared). */
  readonly place: number;
  readonly thread: ShipThread;
  /** Its thread has been told to begin, and ends when it is told to. */
  started: boolean;
  cursor: SiteCursor;
  /** Not yet opened since it was configured. */
  fresh: boolean;
  state: LinkState;
  reason: string;
  paused: boolean;
  /** Why it needs a full resync that is not served, '' where it does not. */
  stale: string;
  /** Out of the ring: its site is made equal by copying what is marked (daemon/dirt.ts). */
  inconsistent: boolean;
  /** Of an inconsistent link; 0 while nobody knows. */
  wholeAt: number;
  /** How it is to begin, where it begins out of the ring. */
  readonly resync: LinkStart['resync'];
  /** As its thread told last, while it copies. */
  progress: Omit<ResyncProgress, 'epoch'> | undefined;
  /** As its thread told now and then; undefined for a site that never has one, or was not open yet. */
  window: OpenWindow | null | undefined;
  /** The verify that goes on, or the last one. */
  verify: VerifyFacts | undefined;
}

export function makeLink(config: SiteConfig, place: number, start: LinkStart, thread: ShipThread): Link {
  const stale = start.stale ?? '';
  return {
    config,
    place,
    thread,
    started: false,
    cursor: { ...start.cursor },
    fresh: start.fresh,
    state: stale !== '' ? 'failed' : start.paused ? 'paused' : 'connecting',
    reason: stale,
    paused: start.paused,
    stale,
    inconsistent: start.resync !== undefined,
    wholeAt: 0,
    resync: start.resync,
    progress: undefined,
    window: undefined,
    verify: undefined,
  };
}

export function linkFact(link: Link): LinkFact {
  const { pos, seq, chainLo, chainHi, time, reign } = link.cursor;
  const { paused, inconsistent, wholeAt, fresh } = link;
  return {
    nr: link.config.nr,
    cursor: { pos, seq, chainLo, chainHi, time },
    reign,
    sync: link.stale === '' && !inconsistent ? 'in-order' : 'inconsistent',
    paused,
    ...(inconsistent && { wholeAt, ...(fresh && { fresh }) }),
  };
}

/** A link that cannot be continued needs nothing of the log any more; every other one holds its head. */
export function holdsLog(link: Link): boolean {
  return link.stale === '';
}

/** The policy of a site as the machine that carries it out takes it. */
export function linkRules({ policy, stall, fallBehind, syncTimeoutMs }: SiteConfig): LinkRules {
  const { ios, size, timeoutMs } = fallBehind;
  return { sync: policy === 'sync', stall, ios, bytes: size, timeoutMs, holdMs: syncTimeoutMs };
}

/** Requests that wait for each link just now, by place. A glance at a queue that moves: good enough to be shown. */
export function waitingWrites(shared: Shared): number[] {
  const counts = new Array<number>(MAX_LINK_THREADS).fill(0);
  const { flush } = shared;
  const tail = shared.load(SH.FLUSH_TAIL);
  for (let n = shared.load(SH.FLUSH_HEAD); n !== tail; n = (n + 1) | 0) {
    const at = (n & (FLUSH_SLOTS - 1)) * FLUSH_ENTRY;
    for (let half = 0; half < 2; half++)
      for (let bits = flush[at + E_LINKS + half]! & shared.load(SH.GATES + half); bits !== 0; bits &= bits - 1) {
        const place = half * 32 + lowestBit(bits);
        if (((flush[at + E_SEQ]! - shared.load(SH.LINK_SEQ + place)) | 0) > 0) counts[place]!++;
      }
  }
  return counts;
}

export interface LinkSight {
  window: Window;
  shared: Shared;
  timeline: Timeline;
  tail: number;
  policies: LinkPolicies;
  waiting: readonly number[];
  /** What a link lacks, by device number. */
  dirty(nr: number): ReadonlyMap<number, DirtyFacts>;
}

export function siteFacts(link: Link, sight: LinkSight): SiteFacts {
  const { window, shared, timeline, tail, policies, waiting } = sight;
  // Its own word is ahead of what it has told main. Read before SENT (openWindow).
  const confirmed = shared.linkSeq(link.place, tail);
  return {
    config: link.config,
    state: link.state,
    reason: link.reason,
    paused: link.paused,
    needsFullResync: link.stale !== '',
    inconsistent: link.inconsistent,
    dirty: sight.dirty(link.config.nr),
    resync: link.progress,
    cursor: link.cursor,
    confirmed,
    degraded: policies.isDegraded(link.place),
    sync: policies.isSync(link.place),
    waiting: waiting[link.place]!,
    window: openWindow(link, shared, confirmed),
    unlooked: isRaw(link.config) && link.window === undefined,
    oldestUs: oldestUnconfirmed(link.cursor, window, timeline, tail),
    verify: link.verify,
  };
}

/** What the site may hold beyond `confirmed`, or null: never less than it is, at most something confirmed meanwhile. */
function openWindow({ place, window: told }: Link, shared: Shared, confirmed: number): OpenWindow | null {
  const to = shared.floatView[SHF.SENT + place]!;
  if (told === undefined || to <= confirmed) return null;
  return { from: confirmed, to, bytes: told?.from === confirmed ? told.bytes : 0 };
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
