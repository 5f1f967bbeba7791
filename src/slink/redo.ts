/**
 * Redo: after a failed sync nobody knows which of the writes since the last good one are on the disk, and the
 * kernel will not say it twice. So all of them are written again, out of the log, where they still stand: the
 * checkpoint has not moved.
 *
 * The device is being read meanwhile, and what is applied is read from the image. Writing records again in
 * their order would bring back old versions for a moment; so a first pass finds out which record is the newest
 * for each range, and the second writes of each record only the ranges where it is.
 */
import { getU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import { ExtentMap } from '../base/extentmap.js';
import { IoVec } from '../base/mem.js';
import {
  R_BYTES,
  R_DEVICE,
  R_LENGTH,
  R_OFFSET,
  R_TYPE,
  RECORD_HEADER,
  REC,
  payloadSpace,
  type LogPlace,
} from '../replog/format.js';
import type { LogFile } from '../replog/logfile.js';
import { LogReader, READ, type ReadLimit } from '../replog/reader.js';
import type { ImageSet } from './images.js';

export class Redo {
  private readonly images: ImageSet;
  private readonly reader: LogReader;
  private readonly from: LogPlace;
  private readonly to: number;
  private readonly limit: ReadLimit;
  private readonly newest = new Map<number, ExtentMap>();
  private readonly vec = new IoVec(1);
  private pass: 1 | 2 = 1;

  /** Records from `from` up to seq `to`; the log is read up to `limit`, a durable boundary at or behind it. */
  constructor(log: LogFile, images: ImageSet, from: LogPlace, to: number, limit: ReadLimit) {
    this.images = images;
    this.reader = new LogReader(log);
    this.from = from;
    this.to = to;
    this.limit = limit;
    this.reader.seek(from);
  }

  /** Works on one batch of the log: 1 = go on, 0 = all is written (not synced), negative errno = failed. */
  step(): number {
    const { reader } = this;
    if (reader.place.seq >= this.to) {
      if (this.pass === 2) return 0;
      this.pass = 2;
      reader.seek(this.from);
      return 1;
    }
    const result = reader.next(this.limit);
    if (result !== READ.BATCH) {
      // The log is damaged or cannot be read: what is in doubt stays so.
      const errno = result === READ.BROKEN ? reader.broken!.errno : 0;
      return this.logFailed(errno === 0 ? ERRNO.EIO : errno);
    }
    return this.takeBatch();
  }

  close(): void {
    this.reader.close();
    this.vec.table.unmap();
  }

  /** True where the last failure was the log's, not an image's. */
  logError = false;

  private logFailed(errno: number): number {
    this.logError = true;
    return -errno;
  }

  private takeBatch(): number {
    const { mem, headers, payloads, seq, count } = this.reader.batch;
    const { dv } = mem;
    let payload = payloads;
    for (let i = 0; i < count && seq + i < this.to; i++) {
      const at = headers + i * RECORD_HEADER;
      const type = dv.getUint8(at + R_TYPE);
      if (type === REC.WRITE || type === REC.DISCARD || type === REC.ZEROES) {
        const rc = this.pass === 1 ? this.claim(dv, at, seq + i) : this.write(dv, at, payload, seq + i, type);
        if (rc < 0) return rc;
      }
      payload += payloadSpace(dv.getUint32(at + R_BYTES, true));
    }
    return 1;
  }

  private claim(dv: DataView, at: number, seq: number): number {
    const nr = dv.getUint32(at + R_DEVICE, true);
    let map = this.newest.get(nr);
    if (map === undefined) this.newest.set(nr, (map = new ExtentMap()));
    const offset = getU64(dv, at + R_OFFSET);
    map.insert(offset, offset + getU64(dv, at + R_LENGTH), seq);
    return 0;
  }

  private write(dv: DataView, at: number, payload: number, seq: number, type: number): number {
    const { images, vec } = this;
    const { mem } = this.reader.batch;
    const nr = dv.getUint32(at + R_DEVICE, true);
    const offset = getU64(dv, at + R_OFFSET);
    const map = this.newest.get(nr)!;
    for (let on = map.seek(offset), end = offset + getU64(dv, at + R_LENGTH); on && map.start < end; on = map.next()) {
      // Ranges of one record never reach beyond it: they are what newer ones left of it.
      if (map.value !== seq) continue;
      const length = map.end - map.start;
      let rc: number;
      if (type === REC.DISCARD) rc = images.discard(nr, map.start, length);
      else if (type === REC.ZEROES) rc = images.zeroes(nr, map.start, length);
      else {
        vec.clear();
        vec.add(mem, payload + (map.start - offset), length);
        rc = images.write(nr, map.start, vec);
      }
      if (rc < 0) return rc;
    }
    return 0;
  }
}
