/**
 * For an operator who has only a site's folder left: brings its images to the last record that the site has
 * confirmed. What is staged is written into the images; the stage keeps its content, so doing it again, or
 * opening the site again in its group, finds the same and changes nothing.
 */
import type { Clock } from '../base/clock.js';
import { RepError, errnoText, ioError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import type { SiteCursor } from './contract.js';
import { decodeDeviceAdd, decodeDeviceResize } from '../replog/device-records.js';
import { RECORD_HEADER, REC, R_BYTES, R_DEVICE, R_TYPE, payloadSpace } from '../replog/format.js';
import { FolderDevices, imagePath, removedPath } from './folder-devices.js';
import { ImageSet } from './images.js';
import { Marks, TouchedRanges } from './marks.js';
import { RecordSink } from './records.js';
import { STAGE_FILE, type Stamp, type StampDevice } from './stage-format.js';
import { Stage, type StagedBatch } from './stage.js';

export interface FolderImageReport {
  name: string;
  file: string;
  size: number;
  /** `ok`, or what is wrong with it. */
  state: string;
}

export interface FolderReport {
  group: string;
  logId: string;
  nr: number;
  /** Number of the record behind the last one that is here, its reign, and the last one's time (microseconds). */
  seq: number;
  reign: number;
  timeUs: number;
  /** Staged, whether in the images already or not. */
  staged: { batches: number; records: number; bytes: number };
  /** True where a resync was not completed: the images are no state that the group ever was in. */
  inconsistent: boolean;
  /** Of the devices that the group had when the last record that is here was written. */
  images: FolderImageReport[];
  /** Images that are no part of that: their devices had been removed. */
  kept: { name: string; file: string }[];
  /** True where the stage was replayed into the images. */
  written: boolean;
}

/** Marks want to know the time only when they are put on an image. */
const NO_CLOCK: Clock = { wallUs: () => 0, monoMs: () => 0 };

export interface RecoverHow {
  write: boolean;
  /** Also where the site is inconsistent: the images then are what they are. */
  force?: boolean;
}

/**
 * Looks at a folder and, with `write`, replays its stage into its images. Writes to none of them where one is
 * not `ok`: what is left is then not one state of history. Throws RepError where there is no site to be read.
 */
export function recoverFolder(io: Io, folder: string, { write, force = false }: RecoverHow): FolderReport {
  const path = `${folder}/${STAGE_FILE}`;
  const stage = Stage.open(io, path, { readOnly: !write });
  if (typeof stage === 'number') throw ioError(stage, 'opening the stage', path);
  const images = new ImageSet(io, 'SITE', { direct: false });
  let marks: Marks | undefined;
  try {
    const stamp = newestStamp(stage, path);
    const { inconsistent } = stamp;
    if (write && inconsistent && !force)
      throw new RepError(
        'EINVAL',
        `${folder}: is inconsistent: a resync was not completed, so that its images are no state that the group ever was ` +
          'in; mount the group and let the resync end, use another site, or take what is there with --force',
      );
    // Holes suffice: nothing is written to an image here that was not given room before it was staged.
    const devices = new FolderDevices(io, folder, images, stamp.devices, true);
    images.usedBelow = stamp.usedBelow;
    marks = new Marks(NO_CLOCK, stamp.logId, devices.present);
    const look = lookAtStage(stage, io, folder, stamp);
    const found = devices.present.map((device) => lookAtImage(images, marks!, devices, stamp, device, look.touched));
    const sound = found.every((image) => image.state === 'ok');
    // Sites of the first version let go of a device without a record: only what was known here was ever staged.
    for (const nr of look.touched.devices) if (!stamp.devices.some((device) => device.nr === nr)) images.forget(nr);
    if (write && sound) replayStage(stage, images, devices);
    const { seq, reign, time } = look.end;
    const { group, logId, nr } = stamp;
    const { kept, staged } = look;
    const reports = imagesNow(folder, look.devices, found);
    const written = write && sound;
    return { group, logId, nr, seq, reign, timeUs: time, staged, inconsistent, images: reports, kept, written };
  } finally {
    marks?.close();
    images.close();
    stage.close();
  }
}

function newestStamp(stage: Stage, path: string): Stamp {
  const read = stage.readStamps();
  if (typeof read === 'number') throw ioError(read, 'reading the stage', path);
  if (read.kind === 'none')
    throw new RepError(
      'EINVAL',
      `${path}: holds no valid stamp, so nothing says what the images are; compare them by hand`,
    );
  if (read.kind === 'version') throw new RepError('EINVAL', `${path}: was written by a newer reptool; use that one`);
  stage.adopt(read.value, read.slot);
  return read.value;
}

interface Look {
  end: SiteCursor;
  touched: TouchedRanges;
  staged: FolderReport['staged'];
  /** The devices at the end of what is staged. */
  devices: StampDevice[];
  kept: FolderReport['kept'];
}

function scan(stage: Stage, visit: (batch: StagedBatch) => number): SiteCursor {
  const end: SiteCursor = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0, reign: 0 };
  const rc = stage.scan(end, visit);
  if (rc < 0) throw ioError(rc, 'replaying the stage', stage.path);
  return end;
}

function lookAtStage(stage: Stage, io: Io, folder: string, stamp: Stamp): Look {
  const touched = new TouchedRanges();
  const devices = new Map(stamp.devices.map((device) => [device.nr, { ...device }]));
  const removed: StampDevice[] = [];
  const staged = { batches: 0, records: 0, bytes: 0 };
  const end = scan(stage, (batch) => {
    touched.addRecords(batch.mem, batch.headers, batch.count);
    followDevices(batch, devices, removed);
    staged.batches++;
    staged.records += batch.count;
    staged.bytes += batch.payloadBytes;
    return 0;
  });
  const kept = removed.map(({ name, nr }) => ({ name, file: removedPath(folder, name, nr) }));
  const present = [...devices.values()].filter((device) => !device.coming);
  return { end, touched, staged, devices: present, kept };
}

/** What the records of a batch make of the devices, without touching a file. */
function followDevices(batch: StagedBatch, devices: Map<number, StampDevice>, removed: StampDevice[]): void {
  const { dv, u8 } = batch.mem;
  let payload = batch.payloads;
  for (let i = 0; i < batch.count; i++) {
    const at = batch.headers + i * RECORD_HEADER;
    const bytes = dv.getUint32(at + R_BYTES, true);
    const device = devices.get(dv.getUint32(at + R_DEVICE, true));
    const data = u8.subarray(payload, payload + bytes);
    payload += payloadSpace(bytes);
    if (device === undefined) continue;
    switch (dv.getUint8(at + R_TYPE)) {
      case REC.DEVICE_ADD:
        if (decodeDeviceAdd(data) === undefined) break;
        device.coming = false;
        device.size = Math.max(device.size, decodeDeviceResize(data) ?? 0);
        break;
      case REC.DEVICE_RESIZE:
        device.size = Math.max(device.size, decodeDeviceResize(data) ?? 0);
        break;
      case REC.DEVICE_REMOVE:
        devices.delete(device.nr);
        removed.push(device);
    }
  }
}

/** The report on each device there is at the end: those that came since the base were made by this very site. */
function imagesNow(folder: string, devices: readonly StampDevice[], found: FolderImageReport[]): FolderImageReport[] {
  const wrong = found.filter((image) => image.state !== 'ok');
  const now = devices.map(({ name, size }) => {
    const known = found.find((image) => image.name === name);
    return known === undefined ? { name, file: imagePath(folder, name), size, state: 'ok' } : { ...known, size };
  });
  return [...now, ...wrong.filter((image) => !now.some(({ name }) => name === image.name))];
}

function lookAtImage(
  images: ImageSet,
  marks: Marks,
  devices: FolderDevices,
  stamp: Stamp,
  device: StampDevice,
  touched: TouchedRanges,
): FolderImageReport {
  const { nr, name, size } = device;
  const report = { name, file: devices.fileOf(device), size };
  if (device.making) return { ...report, state: 'never finished: nothing was sent to it' };
  try {
    devices.open(device);
    const image = images.get(nr)!;
    const verdict = marks.verify(images, image, stamp.serial, touched);
    const state = typeof verdict === 'number' ? `cannot be read: ${errnoText(verdict)}` : verdict;
    return { ...report, state: state === '' ? 'ok' : state };
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    return { ...report, state: error.message };
  }
}

function replayStage(stage: Stage, images: ImageSet, devices: FolderDevices): void {
  // Only what is certain to stay may reach an image.
  const settled = stage.settle();
  if (settled < 0) throw ioError(settled, 'writing to the stage', stage.path);
  const sink = new RecordSink(images, devices.apply);
  scan(stage, (batch) => {
    sink.begin(batch.mem);
    let rc = sink.pushAll(batch.headers, batch.count, batch.payloads);
    if (rc >= 0) rc = sink.finish();
    if (rc < 0 && devices.reason !== '') throw new RepError('EIO', devices.reason);
    if (rc < 0 && images.errno !== 0) throw ioError(rc, 'writing', images.failedFile);
    return rc;
  });
  let rc = devices.settleGrowth();
  if (rc >= 0) rc = devices.settleNames();
  if (rc >= 0) rc = images.sync();
  if (rc < 0) throw ioError(rc, 'syncing', images.failedFile);
}
