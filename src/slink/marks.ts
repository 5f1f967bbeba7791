/**
 * How a folder site recognises its own images, so that one that was exchanged or rolled back is noticed:
 *
 * - An extended attribute on each image names log, device and the serial of the stamp it was written for. Only
 *   images that were written to since the last stamp are marked, before they are synced. A base move that was
 *   interrupted leaves a serial one ahead of the stamp. How far behind it may be is the kernel's doing: there
 *   is no call here that forces an attribute to disk (fdatasync need not), so a serial counts as surely there
 *   once it is a minute old (`xattrLow`); kernels write inodes back within 35 s.
 * - Digests of up to eight blocks written lately stand in the stamp. They describe the image *at* the base: a
 *   block that a staged batch touches may differ by right, and is not checked. This also covers the minute
 *   that the attribute leaves open, and file systems without attributes.
 */
import { createHash } from 'node:crypto';
import { getU64 } from '../base/codec.js';
import type { Clock } from '../base/clock.js';
import { ERRNO } from '../base/errors.js';
import { ExtentMap } from '../base/extentmap.js';
import { Mem } from '../base/mem.js';
import { BLOCK } from '../base/units.js';
import { R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, RECORD_HEADER, REC } from '../replog/format.js';
import type { Image, ImageSet } from './images.js';
import type { StampDevice } from './stage-format.js';
import { DIGEST, SAMPLES, type Sample } from './stamp-format.js';

/** With the `user.` that Io puts before it. */
export const XATTR = 'reptool.stamp';
const XATTR_SETTLED_MS = 60_000;

/** What is known of one image while the site is open. */
interface Mark {
  device: StampDevice;
  /** Blocks written since the last stamp, newest last; some of them. */
  recent: number[];
  /** A serial that is on its way to the disk, and since when. */
  pending: number;
  pendingSince: number;
}

/** The ranges that staged records touch, per device. */
export class TouchedRanges {
  private readonly byDevice = new Map<number, ExtentMap>();

  addRecords(mem: Mem, headers: number, count: number): void {
    const { dv } = mem;
    for (let i = 0; i < count; i++) {
      const at = headers + i * RECORD_HEADER;
      const type = dv.getUint8(at + R_TYPE);
      if (type !== REC.WRITE && type !== REC.DISCARD && type !== REC.ZEROES) continue;
      const nr = dv.getUint32(at + R_DEVICE, true);
      let map = this.byDevice.get(nr);
      if (map === undefined) this.byDevice.set(nr, (map = new ExtentMap()));
      const offset = getU64(dv, at + R_OFFSET);
      map.insert(offset, offset + getU64(dv, at + R_LENGTH));
    }
  }

  get devices(): Iterable<number> {
    return this.byDevice.keys();
  }

  touches(nr: number, block: number): boolean {
    const map = this.byDevice.get(nr);
    return map !== undefined && map.covered(block * BLOCK, (block + 1) * BLOCK) > 0;
  }
}

export class Marks {
  private readonly clock: Clock;
  private readonly logId: string;
  private readonly byNr = new Map<number, Mark>();
  private readonly block = Mem.anon(BLOCK);

  constructor(clock: Clock, logId: string, devices: readonly StampDevice[]) {
    this.clock = clock;
    this.logId = logId;
    for (const device of devices) this.add(device);
  }

  add(device: StampDevice): void {
    const pendingSince = this.clock.monoMs();
    this.byNr.set(device.nr, { device, recent: [], pending: device.xattrHigh, pendingSince });
  }

  /** The device left the site: its image is no part of it any more. */
  remove(nr: number): void {
    this.byNr.delete(nr);
  }

  close(): void {
    this.block.unmap();
  }

  /** Remembers some of the blocks that a batch writes; a handful of records is sample enough. */
  note(mem: Mem, headers: number, count: number): void {
    const { dv } = mem;
    const step = Math.max(1, Math.floor(count / SAMPLES));
    for (let i = (count - 1) % step; i < count; i += step) {
      const at = headers + i * RECORD_HEADER;
      if (dv.getUint8(at + R_TYPE) !== REC.WRITE) continue;
      const mark = this.byNr.get(dv.getUint32(at + R_DEVICE, true));
      if (mark === undefined) continue;
      remember(mark.recent, getU64(dv, at + R_OFFSET));
    }
  }

  /** The same for what was copied to `offset`. */
  noteCopy(nr: number, offset: number): void {
    const mark = this.byNr.get(nr);
    if (mark !== undefined) remember(mark.recent, offset);
  }

  /** Why `image` is not the one that `stamp` describes, or ''. Negative errno where it cannot be read. */
  verify(images: ImageSet, image: Image, stampSerial: number, touched: TouchedRanges): string | number {
    const { device } = this.byNr.get(image.nr)!;
    if (device.xattr && !image.block) {
      const value = images.getXattr(image, XATTR);
      if (typeof value === 'number') {
        if (value !== -ERRNO.EOPNOTSUPP && value !== -ERRNO.ENODATA) return value;
        // The first mark of all may have been lost with the power, too.
        if (value === -ERRNO.ENODATA && device.xattrLow > 0) return 'it lacks the mark that this site put on it';
      } else {
        const mark = parseMark(Buffer.from(value).toString('utf8'));
        if (mark === undefined || mark.logId !== this.logId || mark.nr !== image.nr)
          return 'it carries the mark of another image';
        if (mark.serial > device.xattrHigh && mark.serial !== stampSerial + 1)
          return `it is newer than the stage (mark ${mark.serial}, stage ${stampSerial})`;
        if (mark.serial < device.xattrLow)
          return `it was rolled back (mark ${mark.serial}, at least ${device.xattrLow} was on disk)`;
      }
    }
    for (const sample of device.samples) {
      if (touched.touches(image.nr, sample.block)) continue;
      const digest = this.digest(images, image, sample.block);
      if (typeof digest === 'number') return digest;
      if (digest !== sample.digest) return `block ${sample.block} (4 KiB) is not what this site wrote last`;
    }
    return '';
  }

  /**
   * Puts the mark of stamp `serial` on the images written to, before they are synced. Where a file system takes
   * none, for whatever reason, the samples have to do.
   */
  setXattrs(images: ImageSet, serial: number, reign: number, seq: number): void {
    const now = this.clock.monoMs();
    for (const image of images.touchedImages) {
      const mark = this.byNr.get(image.nr);
      if (mark === undefined || image.block) continue;
      const text = `log=${this.logId} device=${image.nr} serial=${serial} reign=${reign} seq=${seq}`;
      const rc = images.setXattr(image, XATTR, Buffer.from(text));
      const { device } = mark;
      device.xattr = rc >= 0;
      if (rc < 0) continue;
      if (now - mark.pendingSince >= XATTR_SETTLED_MS) {
        device.xattrLow = mark.pending;
        mark.pending = serial;
        mark.pendingSince = now;
      }
      device.xattrHigh = serial;
    }
  }

  /** Takes new samples of the images `written`, which are synced; negative errno where one cannot be read. */
  sample(images: ImageSet, written: readonly Image[]): number {
    for (const image of written) {
      const mark = this.byNr.get(image.nr);
      if (mark === undefined) continue;
      const blocks = [...mark.recent];
      // Older ones fill up; of the last stamp's, those that were overwritten need a new digest as well.
      for (const { block } of mark.device.samples)
        if (blocks.length < SAMPLES && !blocks.includes(block)) blocks.unshift(block);
      const samples: Sample[] = [];
      for (const block of blocks) {
        const digest = this.digest(images, image, block);
        if (typeof digest === 'number') return digest;
        samples.push({ block, digest });
      }
      mark.device.samples = samples;
      mark.recent = [];
    }
    return 0;
  }

  private digest(images: ImageSet, image: Image, block: number): string | number {
    const pos = block * BLOCK;
    const len = Math.min(BLOCK, image.size - pos);
    if (len <= 0) return '';
    const rc = images.read(image.nr, this.block, 0, len, pos);
    if (rc < 0) return rc;
    return createHash('sha256')
      .update(this.block.u8.subarray(0, len))
      .digest('hex')
      .slice(0, 2 * DIGEST);
  }
}

function remember(recent: number[], offset: number): void {
  const block = Math.floor(offset / BLOCK);
  const known = recent.indexOf(block);
  if (known >= 0) recent.splice(known, 1);
  recent.push(block);
  if (recent.length > SAMPLES) recent.shift();
}

function parseMark(text: string): { logId: string; nr: number; serial: number } | undefined {
  const m = /^log=([0-9a-f]{32}) device=(\d+) serial=(\d+) /.exec(text);
  return m === null ? undefined : { logId: m[1]!, nr: Number(m[2]), serial: Number(m[3]) };
}
