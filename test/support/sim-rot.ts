/**
 * Bit rot: one bit of what had long been durable turns by itself. What must not come of it: that damage is taken for
 * data, or that a history is shown which never was. What may: that something is refused, with a sentence that says where.
 *
 *   in the log, before its known durable point   recovery refuses, names the record and its byte, and writes nothing
 *   in the log, behind that                       it may be a torn tail: the log ends right there, or all of it is found
 *   in the log, in use                            who reads it (a shipper, a recovery) refuses until it is put right
 *   in one of two superblocks                     the other one does
 *   in a stage                                    the site is refused, or it is what it was; of the newest batch alone
 *                                                 nothing tells whether it was torn: its link knows, if anybody
 *   in an image of a site                         refused, or that one sector is wrong and nothing else: verify finds it
 */
import { crc32, getU64 } from '../../src/base/codec.js';
import { RepError } from '../../src/base/errors.js';
import { BATCH_HEADER, DATA_START, SUPER_SIZE, type LogPlace } from '../../src/replog/format.js';
import { LogFile } from '../../src/replog/logfile.js';
import { LogReader, READ } from '../../src/replog/reader.js';
import { recover } from '../../src/replog/recovery.js';
import {
  AREA_START,
  SB_CRC,
  SB_HEADER,
  SB_MAGIC,
  SB_SEQ,
  SB_SERIAL,
  SB_TOTAL,
  STAGE_BATCH_MAGIC,
  STAMP_ROOM,
} from '../../src/slink/stage-format.js';
import { Broken } from './sim-broken.js';
import { checkIndexLoss, openSiteCopy, replayedPrefix, type OpenedCopy } from './sim-checks.js';
import type { Coverage } from './sim-coverage.js';
import type { SimDisk, SimFile } from './sim-disk.js';
import { LOG_PATH, type SimHost } from './sim-host.js';
import { SimIo, SimWorld } from './sim-io.js';
import { Rng } from './sim-random.js';
import { stampPath } from './sim-raw.js';
import { folderOf, siteImage } from './sim-site.js';

/** Chance of each step. */
const COPY_RATE = 1 / 40;
const USE_RATE = 1 / 15;

const NAMES_PLACE = /record (\d+) at byte (\d+) is damaged, before the durable point/;

/** A stretch of the log's file that one batch, or the padding before it, takes. */
interface Stretch {
  from: number;
  to: number;
  /** First record, and how many; padding counts to the batch behind it. */
  seq: number;
  count: number;
  /** Log position behind it, and what later batches say was durable. */
  end: number;
  known: number;
}

/** What recovery finds in a copy of the machine's disk. */
interface Found {
  place: LogPlace;
  checkpoint: LogPlace;
}

export class BitRot {
  private readonly host: SimHost;
  private readonly rng: Rng;
  private readonly coverage: Coverage;
  /** In this run bits of the log turn that is used. */
  private readonly inUse: boolean;
  private now: { at: number; bit: number; pos: number; until: number } | undefined;

  constructor(host: SimHost, rng: Rng, coverage: Coverage) {
    this.host = host;
    this.rng = rng;
    this.coverage = coverage;
    // In a log that gets another size a place in the file says little.
    this.inUse = rng.chance(0.5) && host.shape.resize !== true;
  }

  // --- on copies -------------------------------------------------------------------------------------------

  /** Now and then. */
  maybe(step: number): void {
    const { host, rng } = this;
    if (rng.chance(COPY_RATE)) this.logCopy();
    if (rng.chance(COPY_RATE))
      for (const { nr, shape } of host.sites.values())
        for (let n = shape.raw === undefined ? 1 : 3; n > 0; n--) this.siteCopy(nr);
    if (rng.chance(COPY_RATE)) this.indexCopy();
    if (this.inUse && rng.chance(USE_RATE)) this.strike(step);
  }

  /** A machine that lost power, and finds one bit of its log turned. */
  logCopy(): void {
    const { host, rng } = this;
    if (this.now !== undefined) return;
    const disk = rng.chance(0.5) ? host.local.crashImage(rng).disk : host.local.settledImage();
    const sound = this.recovered(disk);
    if (sound instanceof RepError) throw new Broken(`a sound log is refused: ${sound.message}`);
    const { stretches, known, fileOffset } = batchesOf(disk, sound);
    const file = disk.find(LOG_PATH)!;
    for (let n = 0; n < 4; n++) {
      const inSuper = rng.chance(0.15);
      if (!inSuper && stretches.length === 0) continue;
      const stretch = inSuper ? undefined : rng.pick(stretches);
      const at = stretch === undefined ? rng.below(2 * SUPER_SIZE) : rng.between(stretch.from, stretch.to - 1);
      const bit = rng.below(8);
      file.rot(at, bit);
      this.coverage.fault(stretch === undefined ? 'bit flip in a superblock' : 'bit flip in the log');
      // A write here would be one before the damage is known: it would be on all copies.
      const copy = disk.settledImage();
      const found = this.recovered(copy);
      if (stretch === undefined) this.sameAs(sound, found, `byte ${at} of the superblocks`);
      else this.judge(copy, sound, found, stretch, known, at);
      file.rot(at, bit);
    }
    if (sound.place.pos > sound.checkpoint.pos && fileOffset < DATA_START) throw new Error('the log has moved');
  }

  /** A machine whose index is gone, or an older one. */
  indexCopy(): void {
    const { host, rng } = this;
    if (this.now !== undefined) return;
    if (host.indexGone) return;
    const store = host.store.copy();
    const lost = rng.chance(0.5) || !store.rollBack(rng.between(1, 4));
    if (lost) store.lose(rng);
    checkIndexLoss(host, store);
    this.coverage.fault(lost ? 'index lost' : 'index set back');
  }

  /** Recovery of a copy, which writes nothing. */
  private recovered(disk: SimDisk): Found | RepError {
    const world = new SimWorld(new Rng(1, 'rot'));
    world.mount('/local', disk);
    const io = new SimIo(world);
    const index = this.host.store.open(io);
    world.faults = {
      decide: ({ call, kind }) => {
        if (kind === 'write' || kind === 'space' || kind === 'index')
          throw new Broken(`recovery writes (${call}) before it knows that the log is sound`);
        return undefined;
      },
    };
    try {
      const log = LogFile.open(io, LOG_PATH);
      const { place, checkpoint, indexLost } = recover(log, index);
      if (indexLost && !this.host.indexGone) throw new Broken('recovery says that the index is lost, and it is not');
      log.close();
      return { place, checkpoint };
    } catch (error) {
      if (error instanceof RepError) return error;
      throw error;
    }
  }

  private sameAs(sound: Found, found: Found | RepError, what: string): void {
    const is = found instanceof RepError ? found.message : `${found.place.seq}`;
    if (found instanceof RepError || found.place.seq !== sound.place.seq)
      throw new Broken(`one bit in ${what} has turned, and recovery, which found ${sound.place.seq}, finds ${is}`);
    this.coverage.hit('rot: the other superblock was used');
  }

  private judge(
    disk: SimDisk,
    sound: Found,
    found: Found | RepError,
    stretch: Stretch,
    known: number,
    at: number,
  ): void {
    const where = `one bit at byte ${at} of the log (record ${stretch.seq}) has turned`;
    if (found instanceof RepError) {
      const named = NAMES_PLACE.exec(found.message);
      if (named === null) throw new Broken(`${where}, and the refusal does not say so: ${found.message}`);
      const [seq, byte] = [Number(named[1]), Number(named[2])];
      if (seq < stretch.seq || seq >= stretch.seq + stretch.count || byte < stretch.from || byte >= stretch.to)
        throw new Broken(`${where}, and the refusal names record ${seq} at byte ${byte}`);
      this.coverage.hit('rot: recovery refused, naming byte and record');
      return;
    }
    const { seq } = found.place;
    if (seq === sound.place.seq) this.coverage.hit('rot: not in anything that counts');
    else if (seq !== stretch.seq || stretch.end <= Math.max(known, stretch.known))
      throw new Broken(`${where}, durable is what lies before ${known}, and recovery takes the log to end at ${seq}`);
    // The known limit of ARCHITECTURE 6: nothing but the images remembers that there was more.
    else return this.coverage.hit('rot: cut as a torn tail');
    replayedPrefix(this.host, disk);
  }

  /** A site whose machine died, and finds one bit of what it holds turned. */
  siteCopy(nr: number): void {
    const { host, rng } = this;
    const site = host.site(nr);
    if (!site.made || site.exchanged !== undefined || site.spoilt) return;
    const disk = site.disk.settledImage();
    const local = host.local.settledImage();
    const raw = site.shape.raw !== undefined;
    const image = rng.chance(0.5);
    const device = rng.pick(host.shape.client.devices).nr;
    const path = image ? siteImage(nr, device) : raw ? stampPath(nr) : `${folderOf(nr)}/reptool.stage`;
    const file = (raw && !image ? local : disk).find(path);
    if (file === undefined || file.size === 0) return;
    const at = image || raw ? rng.below(file.size) : placeInStage(file, rng);
    const newest = image || raw ? undefined : newestStaged(file);
    file.rot(at, rng.below(8));
    this.coverage.fault(
      raw
        ? 'bit flip in a stamp or leg of a raw site'
        : image
          ? 'bit flip in an image of a site'
          : 'bit flip in a stage',
    );
    const what = `one bit at byte ${at} of ${path} has turned`;
    const opened = openSiteCopy(host, nr, rng, disk, local);
    if (typeof opened === 'string') return this.coverage.hit('rot: a site was refused');
    if (newest !== undefined && at >= newest.from && opened.seq === newest.seq)
      return this.coverage.hit('rot: the newest batch of a stage counts as torn');
    // Two faults at once: nothing is left that tells of the newer stamp.
    if (!image && !raw && at < AREA_START && !startsWhole(file))
      return this.coverage.hit('rot: a stamp, and the first batch behind it was torn');
    this.judgeSite(opened, what, image ? { device, sector: Math.floor(at / 512) } : undefined, nr);
  }

  private judgeSite(
    { seq, image }: OpenedCopy,
    what: string,
    hurt: { device: number; sector: number } | undefined,
    nr: number,
  ): void {
    const { host } = this;
    // A raw site that has forgotten what it confirmed is refused by who knows its cursor.
    if (host.site(nr).shape.raw !== undefined && seq < host.site(nr).confirmed)
      return this.coverage.hit('rot: a raw site was set back, which its link notices');
    const sector = hurt === undefined ? undefined : image.get(hurt.device)![hurt.sector];
    if (hurt !== undefined)
      image.get(hurt.device)![hurt.sector] = host.history.stateAt(seq).get(hurt.device)![hurt.sector]!;
    if (host.history.prefixesOf(image, seq, seq) === undefined && !this.open(nr))
      throw new Broken(
        [`${what}, and the site, opened at ${seq}, is no prefix`, ...host.history.explain(image, seq)].join('\n  '),
      );
    this.coverage.hit(`rot: ${sector === undefined ? 'a site is what it was' : 'one sector of a site is wrong'}`);
  }

  /** A site without a journal whose window is open is no prefix in any case. */
  private open(nr: number): boolean {
    return this.host.site(nr).shape.raw !== undefined && this.host.site(nr).sent > this.host.site(nr).confirmed;
  }

  // --- in use ----------------------------------------------------------------------------------------------

  /** A bit of the log turns while it is used, in what the superblock knows to be durable; it is put right later. */
  strike(step: number): void {
    const { host, rng } = this;
    const { daemon } = host;
    if (this.now !== undefined || daemon === undefined) return;
    const { log, shared } = daemon;
    const from = shared.logHead;
    const to = log.super.durable.pos;
    if (to - from < 4096) return;
    const pos = from + rng.below(to - from);
    this.now = { at: log.fileOffset(pos), bit: rng.below(8), pos, until: step + rng.between(5, 40) };
    host.local.find(LOG_PATH)!.rot(this.now.at, this.now.bit);
    host.note(`one bit of the log at position ${pos} turns`);
    this.coverage.fault('bit flip in the log in use');
  }

  tick(step: number): void {
    if (this.now !== undefined && this.now.until <= step) this.heal();
  }

  /** Put right, unless it was given up and maybe written over. */
  heal(): void {
    const { now, host } = this;
    if (now === undefined) return;
    this.now = undefined;
    // What a superblock says that is not durable yet may be taken back.
    const head = host.daemon?.log.super.head.pos ?? this.headOnDisk();
    host.note('the bit of the log is put right');
    if (now.pos >= head) host.local.find(LOG_PATH)!.rot(now.at, now.bit);
  }

  private headOnDisk(): number {
    const world = new SimWorld(new Rng(1, 'rot'));
    world.mount('/local', this.host.local.crashImage(new Rng(1, 'rot'), { style: 'none' }).disk);
    const log = LogFile.open(new SimIo(world), LOG_PATH);
    log.close();
    return log.super.head.pos;
  }

  /**
   * True where `error` is the refusal of a log in which a bit has turned: then it says where, and nothing else went
   * wrong.
   */
  explains(error: unknown): boolean {
    if (this.now === undefined || !(error instanceof RepError)) return false;
    if (!NAMES_PLACE.test(error.message)) return false;
    this.coverage.hit('rot: a log in use was refused, naming byte and record');
    return true;
  }
}

/** A place in a stage where something stands: a stamp, or what is staged. */
function placeInStage(file: SimFile, rng: Rng): number {
  const stamp = rng.chance(0.3);
  const from = stamp ? rng.below(2) * STAMP_ROOM : AREA_START;
  const to = Math.min(file.size, stamp ? from + 4096 : from + rng.pick([4096, 65536, 1 << 19]));
  return from + rng.below(to - from);
}

/** Whether a batch whose header part is whole, of whatever time, stands first in a stage. */
function startsWhole(file: SimFile): boolean {
  return isWhole(file, AREA_START);
}

function isWhole(file: SimFile, at: number): boolean {
  const head = Buffer.alloc(BATCH_HEADER);
  if (file.size < at + head.length) return false;
  file.read(at, head, 0, head.length);
  const header = head.readUInt32LE(SB_HEADER);
  if (head.readUInt32LE(SB_MAGIC) !== STAGE_BATCH_MAGIC || at + header > file.size) return false;
  const whole = Buffer.alloc(header);
  file.read(at, whole, 0, header);
  return crc32(whole.subarray(SB_MAGIC)) === whole.readUInt32LE(SB_CRC);
}

/**
 * The last batch of a stage that follows the newest stamp, and whose header part is whole (one whose sync failed need not
 * be): its place in the file, and its first record.
 */
function newestStaged(file: SimFile): { from: number; seq: number } | undefined {
  const head = Buffer.alloc(BATCH_HEADER);
  let found: { from: number; seq: number } | undefined;
  let serial: number | undefined;
  for (let at = AREA_START; at + head.length <= file.size;) {
    file.read(at, head, 0, head.length);
    const dv = new DataView(head.buffer, head.byteOffset, head.length);
    if (
      dv.getUint32(SB_MAGIC, true) !== STAGE_BATCH_MAGIC ||
      getU64(dv, SB_SERIAL) !== (serial ??= getU64(dv, SB_SERIAL))
    )
      return found;
    const seq = getU64(dv, SB_SEQ);
    if ((found !== undefined && seq <= found.seq) || !isWhole(file, at)) return found;
    found = { from: at, seq };
    at += dv.getUint32(SB_TOTAL, true);
  }
  return found;
}

/** The batches that recovery reads, and what is known durable, as the file's superblock says. */
function batchesOf(
  disk: SimDisk,
  { checkpoint, place }: Found,
): { stretches: Stretch[]; known: number; fileOffset: number } {
  const world = new SimWorld(new Rng(1, 'rot'));
  world.mount('/local', disk);
  const log = LogFile.open(new SimIo(world), LOG_PATH);
  const reader = new LogReader(log);
  const stretches: Stretch[] = [];
  reader.seek(checkpoint);
  for (let behind = checkpoint.pos; behind < place.pos;) {
    if (reader.next({ pos: place.pos, seq: place.seq }) !== READ.BATCH) break;
    const { batch } = reader;
    // Padding at the end of a segment is not looked into beyond its header.
    const pad = batch.pos - behind;
    const { seq, count, end } = batch;
    const which = { seq, count, end, known: 0 };
    // What it says is known from all behind it as well, if it is not the damaged one.
    for (const one of stretches) one.known = Math.max(one.known, batch.durable);
    if (pad > 0) stretches.push({ from: log.fileOffset(behind), to: log.fileOffset(behind) + 4096, ...which });
    const from = log.fileOffset(batch.pos);
    stretches.push({ from, to: from + (batch.end - batch.pos), ...which });
    behind = end;
  }
  reader.close();
  const known = log.super.durable.pos;
  const fileOffset = log.fileOffset(place.pos);
  log.close();
  return { stretches, known, fileOffset };
}
