/**
 * The folder site (`blockdev:/folder`): one image per device, `<device>.img`, and the stage `reptool.stage`
 * (format and order of writes: stage-format.ts).
 *
 * Every batch is staged durably before the first byte of it reaches an image, so images plus stage are a prefix
 * of history at every moment. A batch is confirmed when it is staged. Opening the site redoes what is staged,
 * whether it is in the images already or not, and then moves the base: so a site that opened has settled
 * whatever a crash, a failed sync or a full disk had left half done.
 *
 * Nothing is written to a folder before it is certain that it is this site's: identity of the log and slink
 * number in the stamp, marks and samples of each image (marks.ts).
 */
import type { Clock } from '../base/clock.js';
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { MIB } from '../base/units.js';
import { BATCH_HEADER } from '../replog/format.js';
import { SHIP_BYTES, type ShipBatch } from './batch.js';
import {
  mayTake,
  type Site,
  type SiteCopy,
  type SiteCursor,
  type SiteOpen,
  type SiteOpened,
  type SiteReader,
  type SiteResync,
} from './contract.js';
import { Copies } from './copies.js';
import { folderCopies } from './folder-copy.js';
import { FolderDevices } from './folder-devices.js';
import { FolderFit } from './folder-fit.js';
import { FolderPlace, Refusal, unreachable, wrongOne } from './folder-open.js';
import { ImageSet, imageFailure } from './images.js';
import { Marks, TouchedRanges } from './marks.js';
import { RecordSink } from './records.js';
import { STAGE_FILE, type Stamp } from './stage-format.js';
import { Stage } from './stage.js';

export interface FolderOptions {
  /** Bytes of the stage's append area, a multiple of 4096; default 128 MiB. */
  area?: number;
  /** New images are holes; default false: allocated in full. */
  sparse?: boolean;
  /** Makes the folder itself (its last component) when the site is made; default false. */
  makeFolder?: boolean;
  /**
   * Long runs go past the page cache of the site's file system; default true. Measured on ext4, 1 MiB writes:
   * twice the throughput and a sixth of the CPU of writing all through the page cache.
   */
  direct?: boolean;
}

const AREA = 128 * MIB;

/** What says of an image that it is another one, or none: the disk and the folder are there. */
const IS_WRONG: ReadonlySet<string> = new Set(['EINVAL', 'EEXIST', 'ENOENT']);

export class FolderSite implements Site {
  readonly type = 'blockdev';
  readonly batchBytes = SHIP_BYTES;
  reason = '';
  refused = false;
  /** As its stamp said when it was read or written last. */
  inconsistent = false;
  readonly copy: SiteCopy;

  private readonly io: Io;
  private readonly clock: Clock;
  private readonly folder: string;
  private readonly options: FolderOptions;
  private readonly area: number;
  private readonly place: FolderPlace;
  private readonly images: ImageSet;
  private readonly sink: RecordSink;
  private devices: FolderDevices;
  private stage: Stage | undefined;
  private marks: Marks | undefined;
  /** Behind the last confirmed batch. */
  private readonly cursor: SiteCursor = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0, reign: 0 };

  constructor(io: Io, clock: Clock, folder: string, options: FolderOptions = {}) {
    this.io = io;
    this.clock = clock;
    this.folder = folder.length > 1 ? folder.replace(/\/+$/, '') : folder;
    this.options = options;
    this.area = options.area ?? AREA;
    this.place = new FolderPlace(io, clock, this.folder, this.area, options.makeFolder === true);
    this.images = new ImageSet(io, 'SITE', { direct: options.direct ?? true });
    this.devices = this.devicesOf([]);
    this.sink = new RecordSink(this.images, (type, nr, payload) => this.devices.apply(type, nr, payload));
    const isOpen = (): boolean => this.stage !== undefined;
    const isInconsistent = (): boolean => this.inconsistent;
    const host = {
      get isOpen() {
        return isOpen();
      },
      get inconsistent() {
        return isInconsistent();
      },
      cannot: (rc: number, sentence: string): number => this.cannot(rc, `${this.folder}: ${sentence}`),
      imageFailed: (rc: number): number => this.imageFailed(rc),
      change: (nr: number, offset: number): number => (this.marks!.noteCopy(nr, offset), 0),
      settle: (): number => (this.images.unsettled ? this.moveBase() : 0),
      whole: (): number => this.moveBase({ inconsistent: false }),
    };
    this.copy = new Copies(folderCopies(host, this.images));
  }

  get unflushed(): boolean {
    return this.stage !== undefined && this.stage.used > 0;
  }

  open(how: SiteOpen): SiteOpened {
    this.close();
    this.reason = '';
    this.refused = false;
    try {
      this.openAll(how);
      return { ok: true, cursor: { ...this.cursor } };
    } catch (error) {
      this.close();
      if (error instanceof Refusal) this.refused = error.wrong;
      // EINVAL and EEXIST are ours: an image of a wrong size, one in the way. The rest comes from the disk.
      else if (error instanceof RepError) this.refused = error.errno === 'EINVAL' || error.errno === 'EEXIST';
      else throw error;
      this.reason = error.message;
      return { ok: false, refused: this.refused, reason: this.reason };
    }
  }

  write(batch: ShipBatch, confirmed?: () => void): number {
    const { stage } = this;
    if (stage === undefined) return this.failed(-ERRNO.ENOTCONN, 'is not open');
    const ready = this.devices.prepare(batch, () => this.moveBase());
    if (ready < 0) return this.devicesFailed(ready);
    // A batch larger than the whole area goes to its start all the same: the file grows.
    if (stage.used > 0 && stage.used + Stage.bytesOf(batch) > this.area) {
      const rc = this.flush();
      if (rc < 0) return rc;
    }
    const rc = stage.append(batch);
    if (rc < 0) return this.failed(rc, `${STAGE_FILE}: staging a batch failed`);
    // Behind the sync: what is confirmed was durable in the folder that this address led to. 3 µs beside its 60.
    if (stage.strayed()) return this.lost(stage.path);
    // Confirmed. If the images now fail, the next open finds the batch in the stage.
    batch.end(this.cursor);
    confirmed?.();
    return this.apply(batch);
  }

  private apply(batch: ShipBatch): number {
    this.marks!.note(batch.mem, BATCH_HEADER, batch.records);
    this.sink.begin(batch.mem);
    let rc = this.sink.pushAll(BATCH_HEADER, batch.records, batch.payloadAt);
    if (rc >= 0) rc = this.sink.finish();
    return rc < 0 ? this.devicesFailed(rc) : 0;
  }

  flush(): number {
    const { stage } = this;
    if (stage === undefined) return this.failed(-ERRNO.ENOTCONN, 'is not open');
    return stage.used === 0 ? 0 : this.moveBase();
  }

  probe(): number {
    const { stage } = this;
    if (stage === undefined) return this.failed(-ERRNO.ENOTCONN, 'is not open');
    const strayed = stage.strayed() ? stage.path : this.images.strayed()?.file;
    return strayed === undefined ? 0 : this.lost(strayed);
  }

  /** `file` is not what was opened: says what stands at the site's address now. */
  private lost(file: string): number {
    const { folder } = this;
    const info = this.io.stat('SITE:FOLDER', folder);
    this.refused = false;
    if (typeof info === 'number')
      this.reason = `${folder}: the site's folder is gone from there (moved, removed or unmounted): ${errnoText(info)}; put it back`;
    else if (info.id !== this.place.id)
      this.reason = `${folder}: another folder stands there now (renamed, or mounted over) than the one that this site opened; put that back`;
    else this.reason = `${file}: the path no longer leads to the file that this site opened; put it back`;
    return -ERRNO.ENXIO;
  }

  rest(): void {
    this.sink.release();
  }

  /** A batch is in the images when `write` returns, and `open` puts what is staged into them. */
  readers(): SiteReader[] | string {
    if (this.inconsistent) return `${this.folder}: is inconsistent until its resync is done`;
    return this.stage === undefined ? `${this.folder}: is not open` : this.images.readers();
  }

  close(): void {
    this.images.close();
    this.stage?.close();
    this.marks?.close();
    this.stage = undefined;
    this.marks = undefined;
  }

  /**
   * The images as they are are history up to the cursor (of an inconsistent site: what lies before it and is not to be
   * copied any more): makes that durable, and the stage empty.
   */
  private moveBase(changes: Partial<Stamp> = {}): number {
    const { images, cursor, devices } = this;
    const stage = this.stage!;
    const marks = this.marks!;
    // Whatever was exchanged under us must not be certified by the next stamp.
    const rc = this.probe();
    if (rc < 0) return rc;
    const before = stage.stamp!;
    const after = { ...before, ...changes };
    const serial = before.serial + 1;
    marks.setXattrs(images, serial, cursor.reign, cursor.seq);
    // Samples that copies may overwrite would accuse the right image; the first stamp that is whole has them anew.
    const sampled = after.inconsistent ? [] : [...(before.inconsistent ? images.images : images.touchedImages)];
    let r = images.sync();
    if (r >= 0) r = marks.sample(images, sampled);
    if (r < 0) return this.imageFailed(r);
    r = devices.settleNames();
    if (r < 0) return this.failed(r, 'syncing the folder failed');
    r = this.putStamp(after);
    return r < 0 ? this.failed(r, `${STAGE_FILE}: writing a stamp failed`) : 0;
  }

  /** The next stamp: `like`, with the cursor as its base and the devices as they are listed. */
  private putStamp(like: Stamp): number {
    const stage = this.stage!;
    const { inconsistent } = like;
    const devices = this.devices.list.map((device) => ({ ...device, ...(inconsistent ? { samples: [] } : {}) }));
    const serial = stage.stamp!.serial + 1;
    const stamp = { ...like, serial, base: { ...this.cursor }, devices, writtenUs: this.clock.wallUs() };
    const rc = stage.writeStamp(stamp);
    if (rc >= 0) this.inconsistent = inconsistent;
    return rc;
  }

  private openAll(how: SiteOpen): void {
    const { resync } = how;
    this.place.find(how);
    const stage = (this.stage = this.place.openStage(how));
    this.inconsistent = stage.stamp!.inconsistent;
    if (resync !== undefined) this.openResync(stage, how, resync);
    else {
      this.place.checkIdentity(stage.stamp!, how);
      if (this.inconsistent)
        throw wrongOne(`${this.folder}: is inconsistent, as a resync of it was not completed; resync the site`);
      this.identify(stage);
      this.redo(stage);
    }
    stage.readEnough();
  }

  /** Which images these are; nothing is written to them, but those that were never finished are made. */
  private identify(stage: Stage): void {
    this.openImages(stage);
    this.checkImages(stage);
  }

  /** What is staged comes into the images, and all of it becomes the base. */
  private redo(stage: Stage): void {
    this.replay(stage);
    for (const device of this.devices.present) device.making = false;
    this.must(this.devices.settleGrowth(), `${this.folder}: cutting off what was grown failed`);
    this.must(this.moveBase());
  }

  // --- opening with a resync -------------------------------------------------------------------------------

  /**
   * The link is inconsistent. What the site has confirmed is brought into its images first, staged batches included:
   * that is all that stands before the link's cursor and is not marked. Only then may the stamp say inconsistent and the
   * stage begin anew. A site that is beyond `at` goes on where it is: what it was sent since need not be sent again, and
   * were it set back, it would hold the future of its own cursor, and could be called whole too early.
   */
  private openResync(stage: Stage, how: SiteOpen, resync: SiteResync): void {
    const sound = this.isSound(stage, how, resync);
    const goesOn = sound && !resync.anew && this.cursor.seq >= resync.at.seq;
    const fit = goesOn && !stage.stamp!.fitting ? undefined : this.fitOf(stage, how, resync, sound);
    if (fit === undefined && this.inconsistent) return;
    if (!goesOn) Object.assign(this.cursor, resync.at);
    this.becomeInconsistent(stage, how, resync, fit);
  }

  /** It is this site, with its own images: then all that it has is in them. By force it may be anything. */
  private isSound(stage: Stage, how: SiteOpen, resync: SiteResync): boolean {
    try {
      this.place.checkIdentity(stage.stamp!, how);
      this.identify(stage);
    } catch (error) {
      const wrong = error instanceof Refusal ? error.wrong : error instanceof RepError && IS_WRONG.has(error.errno);
      if (!mayTake(resync) || !wrong) throw error;
      return false;
    }
    this.redo(stage);
    return true;
  }

  private fitOf(stage: Stage, how: SiteOpen, resync: SiteResync, sound: boolean): FolderFit {
    if (!sound) {
      this.images.close();
      this.marks?.close();
      const { logId, nr, devices } = stage.stamp!;
      const own = logId === how.identity.logId && nr === how.identity.nr;
      this.devices = this.devicesOf(own ? devices : [], true);
      this.marks = new Marks(this.clock, how.identity.logId, []);
      this.devices.markWith(this.marks);
    }
    const fit = new FolderFit(this.io, this.folder, this.devices, resync, sound);
    fit.check();
    return fit;
  }

  private becomeInconsistent(stage: Stage, how: SiteOpen, resync: SiteResync, fit: FolderFit | undefined): void {
    const { identity } = how;
    const fitting = fit !== undefined;
    const usedBelow = fitting ? resync.nextDevice : stage.stamp!.usedBelow;
    const stamp = { ...stage.stamp!, ...identity, inconsistent: true, fitting, usedBelow };
    fit?.announce();
    this.must(this.putStamp(stamp), `${stage.path}: writing a stamp failed`);
    if (fit === undefined) return;
    this.images.usedBelow = usedBelow;
    if (fit.clearNames()) {
      this.must(this.devices.settleNames(), `${this.folder}: syncing it failed`);
      this.must(this.putStamp(stamp), `${stage.path}: writing a stamp failed`);
    }
    fit.make();
    for (const device of this.devices.present) device.making = false;
    this.must(this.moveBase({ fitting: false }));
  }

  private devicesOf(stamped: Stamp['devices'], taking = false): FolderDevices {
    return new FolderDevices(this.io, this.folder, this.images, stamped, this.options.sparse === true, taking);
  }

  /** Opens the images of the devices at the base, which the stamp knows; the records in the stage tell the rest. */
  private openImages(stage: Stage): void {
    const { devices: stamped, logId, usedBelow, inconsistent } = stage.stamp!;
    this.images.usedBelow = usedBelow;
    this.devices = this.devicesOf(stamped, inconsistent);
    // A process that died while it made the site may have left a stamp that is not on the disk yet.
    if (stamped.some((device) => device.making)) {
      this.must(stage.settle(), `${stage.path}: writing to it failed`);
      this.must(this.io.syncDir('SITE:FOLDER', this.folder), `${this.folder}: syncing it failed`);
    }
    const { present } = this.devices;
    for (const device of present) this.devices.open(device);
    this.marks = new Marks(this.clock, logId, present);
    this.devices.markWith(this.marks);
  }

  /** Before anything is written: are these the images that the stamp describes? */
  private checkImages(stage: Stage): void {
    const touched = new TouchedRanges();
    const rc = stage.scan(this.cursor, (batch) => {
      touched.addRecords(batch.mem, batch.headers, batch.count);
      return 0;
    });
    if (rc < 0) throw unreachable(`${stage.path}: cannot be read: ${errnoText(rc)}`);
    // Sites of the first version let go of a device without a record: only what was known here was ever staged.
    for (const nr of touched.devices) if (!this.devices.list.some((device) => device.nr === nr)) this.images.forget(nr);
    for (const image of this.images.images) {
      const verdict = this.marks!.verify(this.images, image, stage.stamp!.serial, touched);
      if (typeof verdict === 'number') throw unreachable(`${image.file}: cannot be read: ${errnoText(verdict)}`);
      if (verdict !== '')
        throw wrongOne(`${image.file}: is not the image that this site wrote: ${verdict}; put the right one back`);
    }
  }

  /** Redoes what is staged, once it is certain to stay. The images' last sync may have failed or never come. */
  private replay(stage: Stage): void {
    this.must(stage.settle(), `${stage.path}: writing to it failed`);
    const rc = stage.scan(this.cursor, (batch) => {
      this.marks!.note(batch.mem, batch.headers, batch.count);
      this.sink.begin(batch.mem);
      const r = this.sink.pushAll(batch.headers, batch.count, batch.payloads);
      return r < 0 ? r : this.sink.finish();
    });
    if (rc >= 0) return;
    const reason = this.devices.reason !== '' || this.images.errno !== 0;
    this.must(reason ? this.devicesFailed(rc) : rc, `${stage.path}: reading failed`);
  }

  private must(rc: number, what = ''): void {
    if (rc >= 0) return;
    throw unreachable(this.reason !== '' ? this.reason : `${what}: ${errnoText(rc)}`);
  }

  private failed(rc: number, what: string): number {
    return this.cannot(rc, `${this.folder}: ${what}: ${errnoText(rc)}; it is tried again`);
  }

  private cannot(rc: number, reason: string): number {
    this.reason = reason;
    this.refused = false;
    return rc;
  }

  /** A device could not come, grow or be written to. */
  private devicesFailed(rc: number): number {
    const { reason } = this.devices;
    if (reason === '') return this.reason === '' ? this.imageFailed(rc) : rc;
    this.reason = reason;
    this.refused = false;
    return rc;
  }

  private imageFailed(rc: number): number {
    this.reason = `${imageFailure(this.images)}; the site is tried again`;
    this.refused = false;
    return rc;
  }
}
