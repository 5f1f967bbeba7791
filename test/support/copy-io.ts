/**
 * An Io that repairs a copy of a site in memory: files are read as they are, and what is written to an image goes to
 * a copy of it that nobody else sees. The folder stays as it was found, and nothing waits for a disk.
 */
import * as fs from 'node:fs';
import { ERRNO } from '../../src/base/errors.js';
import { realIo, writeEach, type Io, type IoCall } from '../../src/base/io.js';
import type { IoVec, Mem } from '../../src/base/mem.js';
import { O_CREAT, O_DIRECT, O_RDWR } from '../../src/base/sys.js';
import type { WriteList } from '../../src/base/writelist.js';

const IMAGE = /\.img$/;

export class CopyIo implements Io {
  /** Content of the images that were opened, by path. */
  readonly images = new Map<string, Buffer>();
  private readonly byFd = new Map<number, Buffer>();

  open(call: IoCall, file: string, flags: number, mode?: number): number {
    if ((flags & O_CREAT) !== 0) return -ERRNO.EROFS;
    const fd = realIo.open(call, file, flags & ~(O_RDWR | O_DIRECT), mode);
    if (fd < 0 || !IMAGE.test(file)) return fd;
    let image = this.images.get(file);
    if (image === undefined) this.images.set(file, (image = fs.readFileSync(file)));
    this.byFd.set(fd, image);
    return fd;
  }

  close(call: IoCall, fd: number): number {
    this.byFd.delete(fd);
    return realIo.close(call, fd);
  }

  pread(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
    const image = this.byFd.get(fd);
    return image === undefined
      ? realIo.pread(call, fd, mem, off, len, pos)
      : image.copy(mem.u8, off, pos, Math.min(pos + len, image.length));
  }

  pwrite(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
    const image = this.byFd.get(fd);
    if (image === undefined) return this.same(call, fd, mem, off, len, pos);
    if (pos + len > image.length) return -ERRNO.EFBIG;
    return mem.u8.copy(image, pos, off, off + len);
  }

  /** A stage is only ever written over with what stands there. */
  private same(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
    const there = Buffer.alloc(len);
    const n = fs.readSync(fd, there, 0, len, pos);
    if (n < len || there.compare(mem.u8, off, off + len) !== 0) throw new Error(`${call}: the stage would be changed`);
    return len;
  }

  pwritev(call: IoCall, fd: number, vec: IoVec, pos: number): number {
    let done = 0;
    for (let i = 0; i < vec.count; i++) {
      const rc = this.pwrite(call, fd, vec.mems[i]!, vec.offs[i]!, vec.lens[i]!, pos + done);
      if (rc < 0) return rc;
      done += rc;
    }
    return done;
  }

  pwriteMany(call: IoCall, list: WriteList): void {
    writeEach(this, call, list);
  }

  fallocate(_call: IoCall, fd: number, mode: number, pos: number, len: number): number {
    if (mode !== 0) this.byFd.get(fd)?.fill(0, pos, pos + len);
    return 0;
  }

  readonly fdatasync = (): number => 0;
  readonly syncDir = (): number => 0;
  readonly info = realIo.info.bind(realIo);
  readonly stat = realIo.stat.bind(realIo);
  readonly readFile = realIo.readFile.bind(realIo);
  readonly getXattr = realIo.getXattr.bind(realIo);
  // Devices of an order test neither come nor go nor grow, and marks are only read.
  readonly ftruncate = refused;
  readonly replaceFile = refused;
  readonly unlink = refused;
  readonly rename = refused;
  readonly mkdir = refused;
  readonly setXattr = refused;
}

function refused(call: IoCall): never {
  throw new Error(`${call}: nothing of a site is to be changed by a look at it`);
}
