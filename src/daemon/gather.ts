/** Collects what status shows from the places where each fact lives. Cheap enough for every `cat`. */
import { createRequire } from 'node:module';
import type { GroupConfig } from '../control/config.js';
import type { DirtyFacts, GroupFacts, LogFacts, StatisticsFacts, WindowFacts } from '../control/facts.js';
import type { RecoveryStatus } from '../control/status.js';
import type { Transport } from '../fuse/transport.js';
import type { Checkpointer } from '../replog/checkpointer.js';
import { RECORD_HEADER } from '../replog/format.js';
import type { LogFile } from '../replog/logfile.js';
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { LinkPolicies } from '../slink/policy.js';
import { tailOf } from './ends.js';
import { siteFacts, waitingWrites, type Link } from './links.js';
import type { Timeline } from './timeline.js';

const require = createRequire(import.meta.url);

/** The package's version; dist/src/daemon and a build folder of the same depth both find it. */
export const VERSION = ((): string => {
  for (const up of ['../../../package.json', '../../../../package.json']) {
    try {
      return (require(up) as { version: string }).version;
    } catch {
      // One folder further up.
    }
  }
  return '0';
})();

export interface GatherParts {
  config: GroupConfig;
  mountpoint: string;
  window: Window;
  shared: Shared;
  log: LogFile;
  checkpointer: Checkpointer;
  links: readonly Link[];
  /** What a link lacks, by device number. */
  dirty(nr: number): ReadonlyMap<number, DirtyFacts>;
  /** Sectors of a region. */
  region: number;
  policies: LinkPolicies;
  timeline: Timeline;
  recovery: RecoveryStatus;
  bornMs: number;
  resend: boolean;
  transport: Transport;
  transportReason: string;
  notes: string[];
  keeper: number | null;
  reign: number;
  reignId: string;
  /** Writers wait for log space. */
  full: boolean;
  bytesPerSecond: number;
  localFile: string;
  detached: GroupFacts['detached'];
  resize: LogFacts['resize'];
  statistics: StatisticsFacts;
  failures: GroupFacts['failures'];
  types: GroupFacts['types'];
}

/** Log position up to which everything is durable. */
export function durablePos(window: Window): number {
  return window.durablePlace(tailOf(window)).pos;
}

export function windowFacts(window: Window, shared: Shared): WindowFacts {
  for (;;) {
    const tail = tailOf(window);
    const head = window.seqOf(W.HEAD, tail);
    const durable = window.seqOf(W.DURABLE, tail);
    const applied = window.seqOf(W.APPLIED, tail);
    const end = window.payloadEnd(window.slotAt(tail - 1));
    const used = head < tail ? end - window.payloadPos(window.slotAt(head)) : 0;
    // What a detached slink 0 lacks has left the window: then it is at least all that is in there.
    const from = (seq: number): number =>
      seq < head ? used : seq < tail ? end - window.payloadPos(window.slotAt(seq)) : 0;
    const unapplied = from(applied);
    const undurable = from(durable);
    // Slots from head on were read: if the tail has come round to them meanwhile, they were somebody else's.
    if (window.seqOf(W.TAIL, tail) - head >= window.shape.slots) continue;
    return {
      ...{ slots: window.shape.slots, ring: window.shape.ring, tail, head, durable, applied, used, unapplied },
      undurable: undurable + (tail - durable) * RECORD_HEADER,
      parked: shared.load(SH.PARKED),
    };
  }
}

export function gather(p: GatherParts): GroupFacts {
  const { window, shared, log } = p;
  const facts = windowFacts(window, shared);
  const holder = p.checkpointer.holder();
  const { timeline, policies } = p;
  const waiting = waitingWrites(shared);
  const sight = { window, shared, timeline, policies, tail: facts.tail, waiting, dirty: p.dirty };
  const logFacts: LogFacts = {
    ring: log.ring,
    segment: log.segment,
    durablePos: durablePos(window),
    headPos: shared.logHead,
    error: shared.load(SH.LOG_ERROR),
    full: p.full,
    holder: holder.bytes > 0 ? holder.nr : undefined,
    bytesPerSecond: p.bytesPerSecond,
    resize: p.resize,
  };
  return {
    config: p.config,
    region: p.region,
    version: VERSION,
    mountpoint: p.mountpoint,
    keeper: p.keeper,
    daemon: process.pid,
    generation: window.load(W.BORN),
    bornMs: p.bornMs,
    nowMs: Date.now(),
    resend: p.resend,
    ...{ transport: p.transport, transportReason: p.transportReason, notes: p.notes },
    reign: p.reign,
    reignId: p.reignId,
    window: facts,
    log: logFacts,
    localError: shared.load(SH.LOCAL_ERROR),
    localFile: p.localFile,
    detached: p.detached,
    recovery: p.recovery,
    statistics: p.statistics,
    sites: p.links.map((link) => siteFacts(link, sight)),
    failures: p.failures,
    types: p.types,
  };
}
