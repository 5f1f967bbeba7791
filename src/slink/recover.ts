/**
 * For an operator who has only a site's folder left: brings its images to the last record that the site has
 * confirmed. What is staged is written into the images; the stage keeps its content, so doing it again, or
 * opening the site again in its group, finds the same and changes nothing.
 */
import type { Clock } from '../base/clock.js';
import { RepError, errnoText, ioError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import type { SiteCursor } from './contract.js';
import { imagePath } from './folder.js';
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
  images: FolderImageReport[];
  /** True where the stage was replayed into the images. */
  written: boolean;
}

/** Marks want to know the time only when they are put on an image. */
const NO_CLOCK: Clock = { wallUs: () => 0, monoMs: () => 0 };

/**
 * Looks at a folder and, with `write`, replays its stage into its images. Writes to none of them where one is
 * not `ok`: what is left is then not one state of history. Throws RepError where there is no site to be read.
 */
export function recoverFolder(io: Io, folder: string, { write }: { write: boolean }): FolderReport {
  const path = `${folder}/${STAGE_FILE}`;
  const stage = Stage.open(io, path, { readOnly: !write });
  if (typeof stage === 'number') throw ioError(stage, 'opening the stage', path);
  const images = new ImageSet(io, 'SITE', { direct: false });
  let marks: Marks | undefined;
  try {
    const stamp = newestStamp(stage, path);
    marks = new Marks(NO_CLOCK, stamp.logId, stamp.devices);
    const look = lookAtStage(stage);
    const found = stamp.devices.map((device) => lookAtImage(images, marks!, folder, stamp, device, look.touched));
    const sound = found.every((image) => image.state === 'ok');
    // Only what was known here was ever staged: a device without an image had left the group.
    for (const nr of look.touched.devices) if (!images.knows(nr)) images.forget(nr);
    if (write && sound) replayStage(stage, images);
    const { seq, reign, time } = look.end;
    const { group, logId, nr } = stamp;
    return { group, logId, nr, seq, reign, timeUs: time, staged: look.staged, images: found, written: write && sound };
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
}

function scan(stage: Stage, visit: (batch: StagedBatch) => number): SiteCursor {
  const end: SiteCursor = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0, reign: 0 };
  const rc = stage.scan(end, visit);
  if (rc < 0) throw ioError(rc, 'replaying the stage', stage.path);
  return end;
}

function lookAtStage(stage: Stage): Look {
  const touched = new TouchedRanges();
  const staged = { batches: 0, records: 0, bytes: 0 };
  const end = scan(stage, (batch) => {
    touched.addRecords(batch.mem, batch.headers, batch.count);
    staged.batches++;
    staged.records += batch.count;
    staged.bytes += batch.payloadBytes;
    return 0;
  });
  return { end, touched, staged };
}

function lookAtImage(
  images: ImageSet,
  marks: Marks,
  folder: string,
  stamp: Stamp,
  device: StampDevice,
  touched: TouchedRanges,
): FolderImageReport {
  const { nr, name, size } = device;
  const file = imagePath(folder, name);
  const report = { name, file, size };
  if (device.making) return { ...report, state: 'never finished: nothing was sent to it' };
  try {
    const image = images.open({ nr, file, size });
    const verdict = marks.verify(images, image, stamp.serial, touched);
    const state = typeof verdict === 'number' ? `cannot be read: ${errnoText(verdict)}` : verdict;
    return { ...report, state: state === '' ? 'ok' : state };
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    return { ...report, state: error.message };
  }
}

function replayStage(stage: Stage, images: ImageSet): void {
  // Only what is certain to stay may reach an image.
  const settled = stage.settle();
  if (settled < 0) throw ioError(settled, 'writing to the stage', stage.path);
  const sink = new RecordSink(images);
  scan(stage, (batch) => {
    sink.begin(batch.mem);
    let rc = sink.pushAll(batch.headers, batch.count, batch.payloads);
    if (rc >= 0) rc = sink.finish();
    if (rc < 0 && images.errno !== 0) throw ioError(rc, 'writing', images.failedFile);
    return rc;
  });
  const rc = images.sync();
  if (rc < 0) throw ioError(rc, 'syncing', images.failedFile);
}
