/**
 * The images of one place (slink 0, or a folder site): for each device a file or a block device that holds its
 * content, by device number.
 *
 * Two ways lead to an image. Long runs go past the page cache (O_DIRECT): the first touch of page cache costs
 * more than the disk. Short ones go through it, where the kernel gathers them. Mixing both on one file is
 * coherent on Linux: a direct write first writes dirty pages of its range back and drops the range from the
 * cache, before and after (test: "buffered reads see direct writes"). Where a file system refuses O_DIRECT,
 * all goes through the page cache.
 *
 * Nothing here is durable before `sync`. After a failed `sync` the kernel may have forgotten what it could not
 * write and shows no error the next time: whoever gets one must write everything since the last good sync
 * again (applier: redo; folder site: its stage is applied again when it is opened).
 */
import { ERRNO, RepError, errnoText, ioError } from '../base/errors.js';
import { writeFull, type Io, type IoCall } from '../base/io.js';
import type { IoVec, Mem } from '../base/mem.js';
import {
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  O_DIRECT,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
} from '../base/sys.js';
import { BLOCK, KIB, SECTOR } from '../base/units.js';
import { WriteList } from '../base/writelist.js';
import type { SiteReader } from './contract.js';
import { CALLS, mismatch, writeZeroes, type Calls, type ImageArea, type ImageSpec } from './image-files.js';

export { createImage, growImage, type ImageArea, type ImageCreate, type ImageSpec } from './image-files.js';

/** Runs from this size on go past the page cache (prototype: best of 16, 64 and 256 KiB). */
export const DIRECT_FROM = 64 * KIB;

/** Long runs that are under way at once. */
const QUEUE = 32;

/** One open image. */
export interface Image extends ImageSpec {
  readonly fd: number;
  /** -1 where direct I/O is not to be had, or was refused later. */
  directFd: number;
  /** Alignment of memory that its disk was seen to want. */
  memoryAlign: number;
  /** `dev:inode` at open. */
  readonly id: string;
  readonly block: boolean;
  /** Written to since the last good sync. */
  touched: boolean;
  /** Its device left the group: it is closed with the next good sync. */
  retired: boolean;
}

export class ImageSet {
  /** What the last failed call was about: errno (positive) and the image's path. */
  errno = 0;
  failedFile = '';
  /** Bytes handed to the kernel since the last good sync. */
  unsynced = 0;
  /** Devices with a smaller number have been in the group: where one has no image here, it has left it since. */
  usedBelow = 0;

  readonly io: Io;
  private readonly calls: Calls;
  private readonly wantDirect: boolean;
  private readonly byNr = new Map<number, Image>();
  private readonly gone = new Set<number>();
  private readonly dirty: Image[] = [];
  private last: Image | undefined;
  /** Direct writes that were queued and not begun. */
  private readonly queued = new WriteList(QUEUE);
  private readonly queuedFor: Image[] = [];

  constructor(io: Io, area: ImageArea, options: { direct?: boolean } = {}) {
    this.io = io;
    this.calls = CALLS[area];
    this.wantDirect = options.direct ?? true;
  }

  get images(): Iterable<Image> {
    return this.byNr.values();
  }

  get(nr: number): Image | undefined {
    return this.byNr.get(nr);
  }

  /**
   * Opens an image; throws RepError. It counts as touched: what an earlier process wrote to it and never
   * synced is still only in the page cache.
   */
  open(spec: ImageSpec): Image {
    const { io, calls } = this;
    const fd = io.open(calls.open, spec.file, spec.exclusive === true ? O_RDWR | O_EXCL : O_RDWR);
    if (fd < 0) throw ioError(fd, 'opening the image', spec.file);
    const info = io.info(calls.open, fd);
    const wrong = typeof info === 'number' ? ioError(info, 'reading its size', spec.file) : mismatch(spec, info);
    if (wrong !== undefined || typeof info === 'number') {
      io.close(calls.close, fd);
      throw wrong!;
    }
    const directFd = this.wantDirect ? io.open(calls.open, spec.file, O_RDWR | O_DIRECT) : -1;
    const { id, kind } = info;
    const image: Image = {
      ...spec,
      fd,
      directFd: Math.max(directFd, -1),
      id,
      block: kind === 'block',
      touched: false,
      retired: false,
      memoryAlign: SECTOR,
    };
    this.close(spec.nr);
    this.byNr.set(spec.nr, image);
    this.gone.delete(spec.nr);
    this.touch(image);
    return image;
  }

  /** Records of a device that was removed from the group are passed over from now on. */
  forget(nr: number): void {
    this.close(nr);
    this.gone.add(nr);
  }

  /** The device has another size from now on; the file has it already. */
  resize(nr: number, size: number): void {
    const image = this.byNr.get(nr);
    if (image !== undefined) image.size = size;
  }

  /** Gives the file behind an image a new name; 0 or the negative errno. Durable once its folder is synced. */
  rename(nr: number, to: string): number {
    const image = this.byNr.get(nr);
    if (image === undefined) return this.absent(nr);
    const rc = this.io.rename(this.calls.create, image.file, to);
    if (rc < 0) return this.fail(rc, image);
    image.file = to;
    return 0;
  }

  /** Cuts the file of an image to the size of its device, where a growth was begun and has not come to pass. */
  cut(nr: number): number {
    const image = this.byNr.get(nr);
    if (image === undefined || image.block) return 0;
    this.touch(image);
    const rc = this.io.ftruncate(this.calls.create, image.fd, image.size);
    return rc < 0 ? this.fail(rc, image) : 0;
  }

  /**
   * The device leaves the group at this place of the history: no record of it follows. Its image is kept open
   * until it is synced, since a failed sync may ask for what is before to be written again.
   */
  retire(nr: number): void {
    const image = this.byNr.get(nr);
    if (image === undefined) return;
    image.retired = true;
    this.touch(image);
  }

  /** True where records of the device have a place to go, or are known to have none any more. */
  knows(nr: number): boolean {
    return this.find(nr) !== undefined || this.isGone(nr);
  }

  /** Writes all of `vec` at `offset`: 0 or the negative errno. */
  write(nr: number, offset: number, vec: IoVec): number {
    const image = this.find(nr);
    if (image === undefined) return this.absent(nr);
    this.touch(image);
    const total = vec.total;
    if (offset + total > image.size) return this.fail(-ERRNO.EFBIG, image);
    this.unsynced += total;
    if (total >= DIRECT_FROM && image.directFd >= 0 && aligned(offset, vec, image.memoryAlign)) {
      const rc = this.writeVec(this.calls.direct, image.directFd, vec, offset);
      if (rc >= 0) return 0;
      if (rc !== -ERRNO.EINVAL && rc !== -ERRNO.EOPNOTSUPP) return this.fail(rc, image);
      this.learn(image, vec, rc);
    }
    const rc = this.writeVec(this.calls.write, image.fd, vec, offset);
    return rc < 0 ? this.fail(rc, image) : 0;
  }

  /**
   * Like `write`, but a long run may be only queued: `settle` says whether all of them are done. Until then the
   * memory behind `vec` stays as it is, and nothing that overlaps may be written.
   */
  queue(nr: number, offset: number, vec: IoVec): number {
    const image = this.find(nr);
    const long = image !== undefined && vec.total >= DIRECT_FROM && offset + vec.total <= image.size;
    if (!long || image.directFd < 0 || !aligned(offset, vec, image.memoryAlign)) return this.write(nr, offset, vec);
    if (!this.queued.takes(vec.count)) {
      const rc = this.settle();
      if (rc < 0 || !this.queued.takes(vec.count)) return rc < 0 ? rc : this.write(nr, offset, vec);
    }
    this.touch(image);
    this.unsynced += vec.total;
    this.queuedFor[this.queued.add(image.directFd, offset, vec)] = image;
    return 0;
  }

  /** Does what was queued: 0, or the negative errno of one that failed. */
  settle(): number {
    const { queued, queuedFor } = this;
    if (queued.count === 0) return 0;
    this.io.pwriteMany(this.calls.direct, queued);
    let failed = 0;
    for (let i = 0; i < queued.count; i++) {
      const vec = queued.vecs[i]!;
      // Refused or cut short: alone, it is written another way, or brings out the reason.
      if (queued.results[i] === vec.total) continue;
      const rc = this.write(queuedFor[i]!.nr, queued.positions[i]!, vec);
      if (rc < 0) failed = rc;
    }
    queued.clear();
    return failed;
  }

  /** Forgets what was queued: the batch has failed and will be applied again. */
  abandon(): void {
    this.queued.clear();
  }

  /** Direct I/O was refused: for memory that is aligned to sectors only, or (some file systems) altogether. */
  private learn(image: Image, vec: IoVec, rc: number): void {
    if (rc === -ERRNO.EINVAL && image.memoryAlign < BLOCK && !aligned(0, vec, BLOCK)) {
      image.memoryAlign = BLOCK;
      return;
    }
    if (image.directFd >= 0) this.io.close(this.calls.close, image.directFd);
    image.directFd = -1;
  }

  /**
   * The range reads as zeroes: 0 or the negative errno. Where holes cannot be made it is zeroed: the images of
   * all sites must say the same of it.
   */
  discard(nr: number, offset: number, length: number): number {
    const image = this.find(nr);
    if (image === undefined) return this.absent(nr);
    this.touch(image);
    const mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
    const rc = this.io.fallocate(this.calls.discard, image.fd, mode, offset, length);
    // EINVAL: a block device whose sectors are larger than ours.
    if (rc === -ERRNO.EOPNOTSUPP || (rc === -ERRNO.EINVAL && image.block)) return this.zeroes(nr, offset, length);
    return rc < 0 ? this.fail(rc, image) : 0;
  }

  /** The range reads as zeroes: 0 or the negative errno. */
  zeroes(nr: number, offset: number, length: number): number {
    const image = this.find(nr);
    if (image === undefined) return this.absent(nr);
    this.touch(image);
    const mode = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE;
    let rc = this.io.fallocate(this.calls.zeroes, image.fd, mode, offset, length);
    if (rc === -ERRNO.EOPNOTSUPP || (rc === -ERRNO.EINVAL && image.block))
      rc = writeZeroes(this.io, this.calls.zeroes, image.fd, offset, length);
    return rc < 0 ? this.fail(rc, image) : 0;
  }

  /** Reads through the page cache: all of `len` bytes, or the negative errno. */
  read(nr: number, mem: Mem, off: number, len: number, pos: number): number {
    const image = this.find(nr);
    if (image === undefined) return this.absent(nr);
    for (let done = 0; done < len;) {
      const r = this.io.pread(this.calls.read, image.fd, mem, off + done, len - done, pos + done);
      if (r <= 0) return this.fail(r === 0 ? -ERRNO.EIO : r, image);
      done += r;
    }
    return len;
  }

  /**
   * Reads from the disk where that can be had, not from the page cache: all of `len` bytes, or the negative errno. What
   * was written through the cache and has not left it is written back first, by the kernel, so it is seen as well.
   */
  readDisk(nr: number, mem: Mem, off: number, len: number, pos: number): number {
    const image = this.find(nr);
    if (image === undefined || image.directFd < 0 || pos % BLOCK !== 0 || (mem.addr + off) % BLOCK !== 0)
      return this.read(nr, mem, off, len, pos);
    // The last sectors of a device that does not end with a block can only be read through the cache.
    const whole = len - (len % BLOCK);
    let done = 0;
    while (done < whole) {
      const r = this.io.pread(this.calls.read, image.directFd, mem, off + done, whole - done, pos + done);
      // Refused after all, or cut short in the middle of a block: the other way brings out the reason.
      if (r < BLOCK) {
        if (r < 0 && r !== -ERRNO.EINVAL) return this.fail(r, image);
        break;
      }
      done += r - (r % BLOCK);
    }
    const rest = done < len ? this.read(nr, mem, off + done, len - done, pos + done) : 0;
    return rest < 0 ? rest : len;
  }

  /** The first byte at or behind `pos` that may be other than zero, at most `end`. */
  nextData(nr: number, pos: number, end: number): number {
    const image = this.find(nr);
    if (image === undefined || image.block || this.io.nextData === undefined) return pos;
    const at = this.io.nextData(this.calls.holes, image.fd, pos);
    // ENXIO: nothing but a hole from here on. Anything else: it cannot tell, so it has to be read.
    if (at < 0) return at === -ERRNO.ENXIO ? end : pos;
    return Math.max(pos, Math.min(at, end));
  }

  /** Makes all that was written durable: 0 or the negative errno, and then all of it is in doubt. */
  sync(): number {
    for (const image of this.dirty) {
      const rc = this.io.fdatasync(this.calls.sync, image.fd);
      if (rc < 0) return this.fail(rc, image);
    }
    for (const image of this.dirty) image.touched = false;
    const retired = this.dirty.filter((image) => image.retired);
    this.dirty.length = 0;
    this.unsynced = 0;
    for (const { nr } of retired) this.forget(nr);
    return 0;
  }

  /** True while an image has been written to (or opened) since the last good sync. */
  get unsettled(): boolean {
    return this.dirty.length > 0;
  }

  /** The images written to since the last good sync. */
  get touchedImages(): readonly Image[] {
    return this.dirty;
  }

  setXattr(image: Image, name: string, value: Uint8Array): number {
    return this.io.setXattr(this.calls.xattr, image.fd, name, value);
  }

  getXattr(image: Image, name: string): Uint8Array | number {
    return this.io.getXattr(this.calls.xattr, image.fd, name);
  }

  /** Opens all images once more, for reading: descriptors that are the caller's, or why not. */
  readers(): SiteReader[] | string {
    const { io, calls } = this;
    const list: SiteReader[] = [];
    const giveBack = (why: string): string => {
      for (const { fd, direct } of list) for (const n of [fd, direct]) if (n >= 0) io.close(calls.close, n);
      return why;
    };
    for (const image of this.byNr.values()) {
      if (image.retired) continue;
      const fd = io.open(calls.open, image.file, O_RDONLY);
      if (fd < 0) return giveBack(`${image.file}: cannot be opened for reading: ${errnoText(fd)}`);
      const direct = image.directFd < 0 ? -1 : io.open(calls.open, image.file, O_RDONLY | O_DIRECT);
      list.push({ nr: image.nr, size: image.size, fd, direct: Math.max(direct, -1) });
      const info = io.info(calls.open, fd);
      if (typeof info === 'number' || info.id !== image.id)
        return giveBack(`${image.file}: the path no longer leads to the image that is written`);
    }
    return list;
  }

  /** The image whose path no longer leads to the file that is open, or undefined. */
  strayed(): Image | undefined {
    for (const image of this.byNr.values()) {
      const info = this.io.stat(this.calls.open, image.file);
      if (typeof info === 'number' || info.id !== image.id) return image;
    }
    return undefined;
  }

  /** Closes one image or all; nothing is synced. */
  close(nr?: number): void {
    this.queued.clear();
    for (const image of nr === undefined ? [...this.byNr.values()] : [this.byNr.get(nr)]) {
      if (image === undefined) continue;
      this.io.close(this.calls.close, image.fd);
      if (image.directFd >= 0) this.io.close(this.calls.close, image.directFd);
      this.byNr.delete(image.nr);
      const at = this.dirty.indexOf(image);
      if (at >= 0) this.dirty.splice(at, 1);
    }
    this.last = undefined;
  }

  private find(nr: number): Image | undefined {
    if (this.last?.nr === nr) return this.last;
    return (this.last = this.byNr.get(nr));
  }

  private absent(nr: number): number {
    if (this.isGone(nr)) return 0;
    this.errno = ERRNO.ENODEV;
    this.failedFile = `device ${nr}`;
    return -ERRNO.ENODEV;
  }

  private isGone(nr: number): boolean {
    return nr < this.usedBelow || this.gone.has(nr);
  }

  private touch(image: Image): void {
    if (image.touched) return;
    image.touched = true;
    this.dirty.push(image);
  }

  private fail(rc: number, image: Image): number {
    this.errno = -rc;
    this.failedFile = image.file;
    return rc;
  }

  private writeVec(call: IoCall, fd: number, vec: IoVec, offset: number): number {
    let done = this.io.pwritev(call, fd, vec, offset);
    if (done === vec.total || done < 0) return done;
    // Cut short, by a signal or a full disk: the rest range by range, which brings out the reason.
    for (let i = 0, at = 0; i < vec.count; at += vec.lens[i++]!) {
      const skip = Math.max(0, done - at);
      const len = vec.lens[i]! - skip;
      if (len <= 0) continue;
      const rc = writeFull(this.io, call, fd, vec.mems[i]!, vec.offs[i]! + skip, len, offset + at + skip);
      if (rc < 0) return rc;
      done = at + vec.lens[i]!;
    }
    return vec.total;
  }
}

/**
 * O_DIRECT wants position and length in blocks of the file system, and memory as its disk does: sectors of 512
 * for most. Payloads in the window stand on sectors, so to ask for more would send most of them the slow way.
 */
function aligned(offset: number, vec: IoVec, memory: number): boolean {
  if (offset % BLOCK !== 0 || vec.total % BLOCK !== 0) return false;
  for (let i = 0; i < vec.count; i++)
    if ((vec.mems[i]!.addr + vec.offs[i]!) % memory !== 0 || vec.lens[i]! % memory !== 0) return false;
  return true;
}

/** An image of slink 0; `name` of its device. */
export interface LocalSpec extends ImageSpec {
  name: string;
  /** Of a device that is leaving. */
  optional: boolean;
}

/**
 * Opens slink 0's images; throws RepError. Numbers below `usedBelow` that have none are of devices that have left.
 * An `optional` image is of one that is leaving: without it, what is left for it is passed over.
 */
export function openLocalImages(images: ImageSet, specs: readonly LocalSpec[], usedBelow: number): void {
  images.usedBelow = usedBelow;
  for (const { optional, name: _name, ...spec } of specs) {
    try {
      images.open(spec);
    } catch (error) {
      if (!optional || !(error instanceof RepError)) throw error;
    }
  }
}

/** `/images/disk0.img: no space left on the device (ENOSPC)`, for messages. */
export function imageFailure(images: ImageSet): string {
  return `${images.failedFile}: ${errnoText(images.errno)}`;
}
