/**
 * Opening a group: from the log where the window is fresh, from the window where it outlived a daemon. Nothing
 * on disk is changed before everything was found to be in order: a refusal leaves all as it was.
 *
 *   fresh      recover the end of the log → sync it → images to that point → reign durable → window formatted
 *   adopted    the window's records are checked and go on as they are; what was applied and never synced is
 *              applied again by the applier
 */
import { randomBytes } from 'node:crypto';
import { realClock } from '../base/clock.js';
import { RepError, ioError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { openIndex } from '../index/lmdb.js';
import type { Index, LinkFact } from '../index/contract.js';
import { loadConfig, type GroupConfig } from '../control/config.js';
import { localImages, nextNumber, noticeStrangers, servedDevices } from '../control/device-plan.js';
import { groupFiles } from '../control/state.js';
import type { RecoveryStatus } from '../control/status.js';
import type { Registry } from '../registry/registry.js';
import {
  Chain,
  RECORD_MAGIC,
  R_BYTES,
  R_FLAGS,
  R_TYPE,
  R_CHAIN,
  R_MAGIC,
  R_REIGN,
  R_SUM,
  advanceChain,
  firstPlace,
  recordSum,
  type LogPlace,
} from '../replog/format.js';
import { LogFile } from '../replog/logfile.js';
import { openForAppend, settleTail } from '../replog/settle.js';
import { indexIsLost, recover, trustedLinks, type Recovered } from '../replog/recovery.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import type { SiteCursor } from '../slink/contract.js';
import type { DirtStart } from '../slink/dirt.js';
import { ImageSet, openLocalImages } from '../slink/images.js';
import { checkLocalMarks, writeLocalMarks } from '../slink/local-marks.js';
import { replayLocal } from '../slink/replay.js';
import { readDetached, type DetachedNote } from './detached-note.js';
import { durableEnd } from './ends.js';
import { checkSupported, resyncServed } from './supported.js';

/** A link as its shipper is to begin. */
export interface LinkStart {
  nr: number;
  cursor: SiteCursor;
  /** It never confirmed anything: the site may be made at `cursor`. */
  fresh: boolean;
  paused: boolean;
  /** Why it cannot be continued, or undefined: it then needs a full resync. */
  stale: string | undefined;
  /** It begins out of the ring: what is dirty, and whether its dirty logs begin with it (their `nosync`). */
  resync?: { how: DirtStart; begins: boolean };
}

export interface OpenGroup {
  config: GroupConfig;
  /** What it may be made of, plug-ins included. */
  types: Registry;
  log: LogFile;
  index: Index;
  /** Absent where the window was adopted. */
  recovered: Recovered | undefined;
  recovery: RecoveryStatus;
  /** Records carry it from now on; where `newReign` is given it begins with this daemon. */
  reign: number;
  reignId: string;
  newReign: string | undefined;
  /** The place before the first record of `newReign`. */
  reignStart: LogPlace | undefined;
  /** Slink 0's images hold everything before it, synced. */
  synced: LogPlace;
  links: LinkStart[];
  notes: string[];
  /** Slink 0 was noted as detached by the daemon before. */
  detached: DetachedNote | undefined;
}

type Opened = Omit<OpenGroup, 'types' | 'detached'>;

export interface OpenHooks {
  /** Called often while something takes its time, so that the watchdog sees progress. */
  beat(): void;
  say(text: string): void;
}

export function openGroup(groupDir: string, types: Registry, window: Window, hooks: OpenHooks): OpenGroup {
  const started = performance.now();
  const config = loadConfig(groupDir);
  noticeStrangers(config);
  checkSupported(config, types, groupFiles(groupDir).config);
  const detached = config.onLocalError === 'detach' ? readDetached(groupDir) : undefined;
  // A window that outlived its daemon knows where reads come from.
  if (detached === undefined && !(config.onLocalError === 'detach' && window.ready)) checkImages(config);
  const log = LogFile.open(realIo, config.log.path);
  let index: Index | undefined;
  try {
    checkIdentity(config, log);
    index = openIndex(groupFiles(groupDir).index);
    const adopt = isAdoptable(window);
    const opened = {
      ...(adopt ? adoptWindow(config, log, index, window) : openFresh(config, log, index, window, hooks, detached)),
      types,
      detached,
    };
    opened.recovery.milliseconds = Math.round(performance.now() - started);
    return opened;
  } catch (error) {
    log.close();
    void index?.close();
    throw error;
  }
}

function checkIdentity(config: GroupConfig, log: LogFile): void {
  if (log.super.logId === config.id) return;
  throw new RepError(
    'EINVAL',
    `${log.path}: the replog of another group (${log.super.group}, ${log.super.logId}), not of ${config.name} ` +
      `(${config.id}); put the right file there, or correct group.json`,
  );
}

/** Missing or cut images are found before anything is written. */
function checkImages(config: GroupConfig): void {
  for (const device of servedDevices(config)) {
    const info = realIo.stat('APPLY:STAT', device.local);
    if (typeof info === 'number')
      throw new RepError(
        'ENOENT',
        `${device.local}: the local image of ${device.name} is not there; put it back, or restore it from a site`,
      );
    if (info.size < device.size)
      throw new RepError(
        'EINVAL',
        `${device.local}: the local image of ${device.name} has ${info.size} bytes instead of ${device.size}; ` +
          'restore it from a site',
      );
  }
}

// --- from the log ----------------------------------------------------------------------------------------

function openFresh(
  config: GroupConfig,
  log: LogFile,
  index: Index,
  window: Window,
  hooks: OpenHooks,
  detached: DetachedNote | undefined,
): Opened {
  hooks.beat();
  const recovered = recover(log, index);
  hooks.beat();
  const { place, checkpoint } = recovered;
  const { notes } = recovered;
  // Slink 0 was detached when the group was left: it is tried, and may be still.
  let whole = true;
  const orStaysDetached = (work: () => void): void => {
    try {
      if (whole) work();
    } catch (error) {
      if (!(error instanceof RepError) || detached === undefined) throw error;
      whole = false;
      notes.push(`slink 0 stays detached: ${error.message}`);
    }
  };
  const markedSeq = recovered.clean ? log.super.durable.seq : detached === undefined ? undefined : null;
  orStaysDetached(() => checkLocalMarks(realIo, servedDevices(config), config.id, markedSeq));
  // An image that holds what the log then loses would show a history that never was: so the log first.
  settleTail(log, recovered);
  let replayed = { records: 0, bytes: 0 };
  if (checkpoint.seq < place.seq)
    orStaysDetached(() => {
      const images = new ImageSet(realIo, 'APPLY');
      try {
        openLocalImages(images, localImages(config), nextNumber(config));
        hooks.say(`applies ${place.seq - checkpoint.seq} records of the log to the local images`);
        replayed = replayLocal(log, images, checkpoint, place, () => hooks.beat());
      } finally {
        images.close();
      }
    });
  const { reign, id } = openForAppend(log, recovered, realClock, randomBytes);
  // Only behind an open superblock: a mark without a seq and a log that says "clean" are taken for a swap.
  orStaysDetached(() => writeLocalMarks(realIo, servedDevices(config), config.id, null));
  const newReign = id === undefined ? undefined : Buffer.from(id).toString('hex');
  const synced = whole ? place : checkpoint;
  window.format(place, synced.seq);
  // The reign in the slot before the tail tells the next daemon whether the log still lacks the new one.
  setTailReign(window, place.seq, newReign === undefined ? reign : reign - 1, newReign !== undefined);
  return {
    config,
    log,
    index,
    recovered,
    recovery: {
      how: recovered.clean ? 'clean' : 'replayed',
      at: new Date().toISOString(),
      records: replayed.records,
      bytes: replayed.bytes,
      milliseconds: 0,
    },
    reign,
    reignId: newReign ?? recovered.reignId,
    newReign,
    reignStart: newReign === undefined ? undefined : place,
    synced,
    links: linksFrom(config, log, recovered.links, recovered.indexLost, resyncFrom(window)),
    notes,
  };
}

/** Byte 7 of a record header (flags, always 0 in the log) marks the formatted slot as "filled in by us". */
const TAIL_KNOWN = 1;
const TAIL_NEEDS_REIGN = 2;

function setTailReign(window: Window, seq: number, reign: number, pending: boolean): void {
  const at = window.slotAt(seq - 1) + S_RECORD;
  window.dv.setUint32(at + R_REIGN, reign, true);
  window.dv.setUint8(at + R_FLAGS, TAIL_KNOWN | (pending ? TAIL_NEEDS_REIGN : 0));
}

/**
 * True where a daemon before left a window to go on from. One that was formatted and then died before it had
 * noted the reign left nothing in it: that window is made anew from the log.
 */
function isAdoptable(window: Window): boolean {
  if (!window.ready) return false;
  const tail = window.tailSeq();
  if (tail === undefined)
    throw new RepError('EIO', 'the window in memory contradicts itself; unmount, then mount again');
  const slot = window.slotAt(tail - 1);
  const head = window.seqOf(W.HEAD, tail);
  return (
    head < tail || !isFormatted(window, slot) || (window.dv.getUint8(slot + S_RECORD + R_FLAGS) & TAIL_KNOWN) !== 0
  );
}

/** A slot that no record was written to since the window was formatted: it has neither type nor sum. */
function isFormatted(window: Window, slot: number): boolean {
  return window.dv.getUint32(slot + S_RECORD + R_SUM, true) === 0 && window.dv.getUint8(slot + S_RECORD + R_TYPE) === 0;
}

// --- from the window -------------------------------------------------------------------------------------

function adoptWindow(config: GroupConfig, log: LogFile, index: Index, window: Window): Opened {
  const tail = window.tailSeq()!;
  const durable = window.seqOf(W.DURABLE, tail);
  const bytes = verifyRecords(window, durable, tail);
  const slot = window.slotAt(tail - 1);
  // The daemon before died while it was being resized: only when both superblocks say the same, it is so.
  const written = log.superAlone ? log.writeSuper({}, realClock) : 0;
  if (written < 0) throw ioError(written, 'writing its superblock', log.path);
  const pending = isFormatted(window, slot) && (window.dv.getUint8(slot + S_RECORD + R_FLAGS) & TAIL_NEEDS_REIGN) !== 0;
  const s = log.super;
  const applied = index.checkpoint();
  const synced = applied !== undefined && applied.pos > s.checkpoint.pos ? applied : s.checkpoint;
  return {
    config,
    log,
    index,
    recovered: undefined,
    recovery: { how: 'adopted', at: new Date().toISOString(), records: tail - durable, bytes, milliseconds: 0 },
    reign: s.reign,
    reignId: s.reignId,
    newReign: pending ? s.reignId : undefined,
    reignStart: pending ? window.placeBefore(tail) : undefined,
    synced: { ...synced },
    links: linksFrom(config, log, trustedLinks(s, index), resyncServed() && indexIsLost(s, index), resyncFrom(window)),
    notes: [],
  };
}

/** Every record that only the window holds must be whole and continue the one before it. */
function verifyRecords(window: Window, from: number, tail: number): number {
  const chain = new Chain();
  let bytes = 0;
  const before = window.slotAt(from - 1) + S_RECORD;
  if (window.dv.getUint16(before + R_MAGIC, true) !== RECORD_MAGIC) throw damaged(from - 1);
  chain.load(window.dv, before + R_CHAIN);
  for (let seq = from; seq < tail; seq++) {
    const slot = window.slotAt(seq);
    const at = slot + S_RECORD;
    if (!window.holds(slot, seq)) throw damaged(seq);
    const length = window.dv.getUint32(at + R_BYTES, true);
    const payload = window.payloadAt(window.payloadPos(slot));
    const data = length === 0 ? undefined : window.u8.subarray(payload, payload + length);
    if (recordSum(window.u8, at, data) !== window.dv.getUint32(at + R_SUM, true)) throw damaged(seq);
    advanceChain(chain, window.dv, at, payload);
    if (!chain.equals(window.dv, at + R_CHAIN)) throw damaged(seq);
    bytes += length;
  }
  return bytes;
}

function damaged(seq: number): RepError {
  return new RepError(
    'EIO',
    `the window in memory is damaged at record ${seq}, which the log does not hold yet; what is durable is safe: ` +
      'unmount, then mount again',
  );
}

// --- links -----------------------------------------------------------------------------------------------

export const HISTORY_LOST = 'the log no longer holds the whole history: it needs a full resync';

/** Where the records begin that a site is sent which everything before is copied to; undefined where that is not served. */
function resyncFrom(window: Window): SiteCursor | undefined {
  return resyncServed() ? durableEnd(window) : undefined;
}

/** `end`: the durable end of the log, where resyncs are served. */
export function linksFrom(
  config: GroupConfig,
  log: LogFile,
  facts: readonly LinkFact[],
  indexLost: boolean,
  end: SiteCursor | undefined,
): LinkStart[] {
  const first: SiteCursor = { ...firstPlace(log.super.logId), reign: 0 };
  return config.sites.map(({ nr }) => {
    const fact = facts.find((f) => f.nr === nr);
    if (fact === undefined) {
      // Never open before. It can begin with the history as long as the log still holds all of it.
      // Space that is free is not yet written over (Checkpointer.rewind decides).
      const whole = log.oldest(log.super.durable.pos) === 0 && !indexLost;
      const stale = whole
        ? undefined
        : indexLost
          ? 'the index, which knew how far the site is, was lost: it needs a full resync'
          : HISTORY_LOST;
      const start = { nr, cursor: first, fresh: whole, paused: false, stale };
      // ! With a lost index nobody knows whether the site is new: it is not made where it is not there.
      return stale === undefined || end === undefined ? start : byCopy({ ...start, fresh: !indexLost }, end);
    }
    const { sync, wholeAt, paused } = fact;
    const cursor: SiteCursor = { ...fact.cursor, reign: fact.reign };
    const gone = fact.cursor.pos < log.super.head.pos;
    if (end !== undefined && sync === 'inconsistent' && wholeAt !== undefined && !gone)
      return {
        ...{ nr, cursor, fresh: fact.fresh === true, paused, stale: undefined },
        resync: { how: 'stored', begins: false },
      };
    const stale =
      sync === 'inconsistent'
        ? 'the index was lost or the site holds another history: it needs a full resync'
        : gone
          ? 'what it has not confirmed has left the log: it needs a full resync'
          : undefined;
    const start = { nr, cursor, fresh: fact.cursor.seq === first.seq, paused, stale };
    return stale === undefined || end === undefined ? start : byCopy({ ...start, fresh: fact.fresh === true }, end);
  });
}

/**
 * Everything is copied, and records follow from `end` on. Of a site that was never opened its dirty logs may say otherwise
 * (`nosync`); of any other one nobody knows what it lacks.
 */
export function byCopy(start: LinkStart, end: SiteCursor): LinkStart {
  const resync = start.fresh ? ({ how: 'stored', begins: true } as const) : ({ how: 'all', begins: false } as const);
  return { ...start, cursor: end, stale: undefined, resync };
}
