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
import { MIB, formatSize } from '../base/units.js';
import { BATCH_HEADER } from '../replog/format.js';
import { SHIP_BYTES, type ShipBatch } from './batch.js';
import type { Site, SiteCursor, SiteDevice, SiteOpen, SiteOpened, SiteReader } from './contract.js';
import { FolderDevices, imagePath, newStampDevice } from './folder-devices.js';
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

/** A reason not to open: thrown inside, never out of the site. */
class Refusal extends Error {
  readonly wrong: boolean;
  constructor(wrong: boolean, message: string) {
    super(message);
    this.wrong = wrong;
  }
}

/** It cannot be reached just now. */
function unreachable(message: string): Refusal {
  return new Refusal(false, message);
}

/** It is there and not what it should be. */
function wrongOne(message: string): Refusal {
  return new Refusal(true, message);
}

export class FolderSite implements Site {
  readonly type = 'blockdev';
  readonly batchBytes = SHIP_BYTES;
  reason = '';
  refused = false;

  private readonly io: Io;
  private readonly clock: Clock;
  private readonly folder: string;
  private readonly options: FolderOptions;
  private readonly area: number;
  /** Identity of the folder as it was opened. */
  private folderId = '';
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
    this.images = new ImageSet(io, 'SITE', { direct: options.direct ?? true });
    this.devices = this.devicesOf([]);
    this.sink = new RecordSink(this.images, (type, nr, payload) => this.devices.apply(type, nr, payload));
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
    else if (info.id !== this.folderId)
      this.reason = `${folder}: another folder stands there now (renamed, or mounted over) than the one that this site opened; put that back`;
    else this.reason = `${file}: the path no longer leads to the file that this site opened; put it back`;
    return -ERRNO.ENXIO;
  }

  rest(): void {
    this.sink.release();
  }

  /** A batch is in the images when `write` returns, and `open` puts what is staged into them. */
  readers(): SiteReader[] | string {
    return this.stage === undefined ? `${this.folder}: is not open` : this.images.readers();
  }

  close(): void {
    this.images.close();
    this.stage?.close();
    this.marks?.close();
    this.stage = undefined;
    this.marks = undefined;
  }

  /** The images as they are are history up to the cursor: makes that durable, and the stage empty. */
  private moveBase(): number {
    const { images, cursor, devices } = this;
    const stage = this.stage!;
    const marks = this.marks!;
    // Whatever was exchanged under us must not be certified by the next stamp.
    const rc = this.probe();
    if (rc < 0) return rc;
    const serial = stage.stamp!.serial + 1;
    marks.setXattrs(images, serial, cursor.reign, cursor.seq);
    const written = [...images.touchedImages];
    let r = images.sync();
    if (r >= 0) r = marks.sample(images, written);
    if (r < 0) return this.imageFailed(r);
    r = devices.settleNames();
    if (r < 0) return this.failed(r, 'syncing the folder failed');
    const base = { base: { ...cursor }, devices: devices.list.map((device) => ({ ...device })) };
    const stamp = { ...stage.stamp!, ...base, serial, writtenUs: this.clock.wallUs() };
    r = stage.writeStamp(stamp);
    return r < 0 ? this.failed(r, `${STAGE_FILE}: writing a stamp failed`) : 0;
  }

  private openAll(how: SiteOpen): void {
    this.findFolder(how);
    const stage = this.openStage(how);
    this.checkIdentity(stage.stamp!, how);
    this.openImages(stage);
    this.checkImages(stage);
    this.replay(stage);
    for (const device of this.devices.present) device.making = false;
    this.must(this.devices.settleGrowth(), `${this.folder}: cutting off what was grown failed`);
    this.must(this.moveBase());
    stage.readEnough();
  }

  private devicesOf(stamped: Stamp['devices']): FolderDevices {
    return new FolderDevices(this.io, this.folder, this.images, stamped, this.options.sparse === true);
  }

  private findFolder(how: SiteOpen): void {
    const { io, folder } = this;
    let info = io.stat('SITE:FOLDER', folder);
    if (info === -ERRNO.ENOENT && how.create !== undefined && this.options.makeFolder === true) {
      const parent = folder.slice(0, Math.max(folder.lastIndexOf('/'), 1));
      // Only the last component: a parent that is missing is a file system that is not mounted.
      if (typeof io.stat('SITE:FOLDER', parent) !== 'number' && io.mkdir('SITE:FOLDER', folder) >= 0) {
        io.syncDir('SITE:FOLDER', parent);
        info = io.stat('SITE:FOLDER', folder);
      }
    }
    if (typeof info === 'number')
      throw unreachable(`${folder}: the site's folder cannot be reached: ${errnoText(info)}; mount or make it`);
    if (info.kind !== 'dir') throw wrongOne(`${folder}: is not a folder; name the folder that is to hold the images`);
    this.folderId = info.id;
  }

  /** Opens the stage with its newest stamp adopted; makes it where that is allowed. */
  private openStage(how: SiteOpen): Stage {
    const { folder } = this;
    const path = `${folder}/${STAGE_FILE}`;
    let stage = Stage.open(this.io, path);
    if (stage === -ERRNO.ENOENT) {
      if (how.create === undefined)
        throw unreachable(`${folder}: holds no ${STAGE_FILE}, so it is not (or no longer) this site; is it mounted?`);
      this.checkVacant(how.devices);
      stage = Stage.open(this.io, path, { create: true });
    }
    if (typeof stage === 'number') throw unreachable(`${path}: cannot be opened: ${errnoText(stage)}`);
    this.stage = stage;
    const read = stage.readStamps();
    if (typeof read === 'number') throw unreachable(`${path}: cannot be read: ${errnoText(read)}`);
    switch (read.kind) {
      case 'version':
        throw wrongOne(`${path}: was written by a newer reptool; use that one`);
      case 'none':
        // Either made just now, or its making was cut off before the first stamp was whole: no image yet.
        if (how.create === undefined)
          throw wrongOne(`${path}: holds no valid stamp; use "reptool site recover" to see what is left`);
        this.checkVacant(how.devices);
        this.makeStage(stage, how, how.create);
        return stage;
      case 'stamp': {
        stage.adopt(read.value, read.slot);
        return stage;
      }
    }
  }

  private makeStage(stage: Stage, how: SiteOpen, base: SiteCursor): void {
    let rc = stage.reserve(this.area);
    const stamp: Stamp = {
      serial: 1,
      logId: how.identity.logId,
      group: how.identity.group,
      nr: how.identity.nr,
      base: { ...base },
      area: this.area,
      writtenUs: this.clock.wallUs(),
      devices: how.devices.map(newStampDevice),
    };
    if (rc >= 0) rc = stage.writeStamp(stamp);
    if (rc >= 0) rc = this.io.syncDir('SITE:FOLDER', this.folder);
    if (rc < 0) throw unreachable(`${stage.path}: cannot be made: ${errnoText(rc)}`);
  }

  /** A folder that holds images already belongs to someone. */
  private checkVacant(devices: readonly SiteDevice[]): void {
    for (const device of devices) {
      const file = imagePath(this.folder, device.name);
      const info = this.io.stat('SITE:FOLDER', file);
      if (typeof info !== 'number' && (info.kind !== 'file' || info.size > 0))
        throw wrongOne(
          `${file}: is there already (${formatSize(info.size)}) and no site of this group; remove it or name an empty folder`,
        );
      if (typeof info === 'number' && info !== -ERRNO.ENOENT)
        throw unreachable(`${file}: cannot be looked at: ${errnoText(info)}`);
    }
  }

  private checkIdentity(stamp: Stamp, { identity }: SiteOpen): void {
    const { folder } = this;
    if (stamp.logId !== identity.logId)
      throw wrongOne(
        `${folder}: belongs to another group ("${stamp.group}", log ${stamp.logId}); name another folder for "${identity.group}"`,
      );
    if (stamp.nr !== identity.nr)
      throw wrongOne(`${folder}: is site ${stamp.nr} of this group, not site ${identity.nr}; name another folder`);
  }

  /** Opens the images of the devices at the base, which the stamp knows; the records in the stage tell the rest. */
  private openImages(stage: Stage): void {
    const { devices: stamped, logId } = stage.stamp!;
    this.devices = this.devicesOf(stamped);
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
    this.reason = `${this.folder}: ${what}: ${errnoText(rc)}; it is tried again`;
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
