/**
 * Reads of the devices: from the window where it holds the newest bytes, else from slink 0's image; what would
 * block there goes to the kernel as an asynchronous read (AioReader) so that writes never wait for it.
 *
 * A read that finishes later paints with the threshold it was submitted with: the image may have been read
 * before the applier put a record there, and that record must not be taken for applied then. The window's
 * head stops at the least such threshold (`leastFrom`).
 *
 * The image is read through the page cache here and by O_DIRECT in the asynchronous path, and written both
 * ways by the applier; the kernel keeps the two coherent for calls that do not overlap in time, and what does
 * overlap is still in the window. The same holds for a site's images and its shipper, while slink 0 is detached
 * (source.ts).
 */
import * as fs from 'node:fs';
import { setU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import type { AioReader } from '../fuse/aio.js';
import { KIND, type RequestMeter } from '../replog/meters.js';
import { PENDING, type Overlay } from './overlay.js';
import type { Reply } from './reply.js';
import type { ReadSource } from './source.js';

/** What the reader answers its owner, and nobody else: the images cannot be read just now. */
export const UNSERVED = -ERRNO.EAGAIN;

export interface OpenDevice {
  nr: number;
  /** Bytes. */
  size: number;
  /** The image through the page cache. */
  fd: number;
  /** The same with O_DIRECT, or -1 where the file system has none: then cold reads block. */
  direct: number;
}

const SCRATCH = 2 * 1024 * 1024;

function closeBoth(fd: number, direct: number): void {
  if (fd >= 0) fs.closeSync(fd);
  if (direct >= 0) fs.closeSync(direct);
}

export class DeviceReader {
  readonly scratch = Mem.anon(SCRATCH);
  private readonly aio: AioReader;
  private readonly devices: (OpenDevice | undefined)[] = [];
  private leaving: OpenDevice[] = [];
  private readonly iov = Mem.anon(4096);
  private overlay: Overlay | undefined;
  private reply: Reply | undefined;
  private tail = 0;
  /** Counts what is read; set by the owner before the first read. */
  meter: RequestMeter | undefined;
  /** Set by the owner before the first read. */
  source!: ReadSource;
  /** The images gave this errno (negative), or UNSERVED: true where the request is sent again when others are there. */
  keep!: (rc: number) => boolean;

  constructor(aio: AioReader, devices: OpenDevice[]) {
    this.aio = aio;
    for (const device of devices) this.devices[device.nr] = device;
  }

  device(nr: number): OpenDevice | undefined {
    return this.devices[nr];
  }

  /** A device came. */
  add(device: OpenDevice): void {
    this.devices[device.nr] = device;
  }

  resize(nr: number, size: number): void {
    const device = this.devices[nr];
    if (device !== undefined) device.size = size;
  }

  /** A device leaves: no request finds it any more; its descriptors are open until `close`. */
  remove(nr: number): void {
    const device = this.devices[nr];
    this.devices[nr] = undefined;
    if (device !== undefined) this.leaving.push(device);
  }

  /** Closes what a device that left had open; reads under way end by themselves. */
  close(nr: number): void {
    for (const { fd, direct } of this.leaving.filter((device) => device.nr === nr)) closeBoth(fd, direct);
    this.leaving = this.leaving.filter((device) => device.nr !== nr);
  }

  /** True where these are images of all devices, as large as they have to be. */
  fits(table: readonly OpenDevice[]): boolean {
    return this.devices.every(
      (device) => device === undefined || table.some(({ nr, size }) => nr === device.nr && size >= device.size),
    );
  }

  /** Takes other descriptors for all devices, closes those it had. Reads in flight hold their files by themselves. */
  exchange(table: readonly OpenDevice[]): void {
    for (const { nr, fd, direct } of table) {
      const device = this.devices[nr];
      closeBoth(device?.fd ?? fd, device?.direct ?? direct);
      if (device !== undefined) Object.assign(device, { fd, direct });
    }
  }

  /** Closes descriptors that are not taken. */
  discard(table: readonly OpenDevice[]): void {
    for (const { fd, direct } of table) closeBoth(fd, direct);
  }

  get inFlight(): number {
    return this.aio.inFlight;
  }

  leastFrom(otherwise: number): number {
    return this.aio.leastFrom(otherwise);
  }

  /** Answers [offset, offset + size), clipped at the device's end. `applied`, `tail`: seqs as of now. */
  read(
    device: OpenDevice,
    offset: number,
    size: number,
    applied: number,
    tail: number,
    overlay: Overlay,
    reply: Reply,
    lo: number,
    hi: number,
  ): void {
    const end = Math.min(offset + size, device.size);
    const length = end - offset;
    const { scratch, meter } = this;
    if (length <= 0) return reply.data(lo, hi, scratch, 0, 0);
    meter?.taken(KIND.READ, device.nr, length);
    meter?.answered(KIND.READ);
    const pending = applied < tail ? overlay.probe(device.nr, offset, end, applied) : PENDING.NONE;
    if (pending === PENDING.ONE_PIECE) {
      reply.data(lo, hi, overlay.window.mem, overlay.pieceAt, length);
      return;
    }
    if (pending === PENDING.ALL) {
      overlay.paint(device.nr, offset, end, applied, scratch, 0);
      reply.data(lo, hi, scratch, 0, length);
      return;
    }
    const { source } = this;
    const mark = source.mark();
    if (!source.present) return this.failed(UNSERVED, reply, lo, hi);
    if (this.cached(device.fd, offset, length) === length && source.stands(mark)) {
      if (pending !== PENDING.NONE) overlay.paint(device.nr, offset, end, applied, scratch, 0);
      reply.data(lo, hi, scratch, 0, length);
      return;
    }
    if (device.direct >= 0) {
      this.tail = tail;
      if (this.aio.full) this.finishSome(1, overlay, reply);
      const slot = this.aio.queue(device.direct, offset, length);
      this.aio.device[slot] = device.nr;
      this.aio.from[slot] = applied;
      this.aio.mark[slot] = mark;
      this.aio.uniqueLo[slot] = lo;
      this.aio.uniqueHi[slot] = hi;
      this.aio.begun[slot] = meter?.mark ?? 0;
      meter?.later();
      return;
    }
    const rc = this.readNow(device, offset, length, applied, tail, overlay, scratch, 0);
    if (rc < 0) this.failed(rc, reply, lo, hi);
    else reply.data(lo, hi, scratch, 0, length);
  }

  private failed(rc: number, reply: Reply, lo: number, hi: number): void {
    if (this.keep(rc)) return this.meter?.later();
    reply.status(lo, hi, rc === UNSERVED ? -ERRNO.EIO : rc);
    this.meter?.refused(KIND.READ);
  }

  /** Reads into `to`, waiting for the disk; for the few bytes around a ragged write. 0, a negative errno, or UNSERVED. */
  readNow(
    device: OpenDevice,
    offset: number,
    length: number,
    applied: number,
    tail: number,
    overlay: Overlay,
    to: Mem,
    toAt: number,
  ): number {
    const { source } = this;
    if (!source.present) return UNSERVED;
    const mark = source.mark();
    let done = 0;
    while (done < length) {
      const n = sys.pread(device.fd, to.addr + toAt + done, length - done, offset + done);
      if (n === -ERRNO.EINTR) continue;
      if (n < 0) return device.fd < 0 ? -ERRNO.EIO : n;
      if (n === 0) return -ERRNO.EIO;
      done += n;
    }
    if (!source.stands(mark)) return UNSERVED;
    if (applied < tail) overlay.paint(device.nr, offset, offset + length, applied, to, toAt);
    return 0;
  }

  /** Begins the asynchronous reads that were gathered. */
  submit(): void {
    this.aio.submit();
  }

  /** Answers the asynchronous reads that have finished. */
  finish(overlay: Overlay, tail: number, reply: Reply): void {
    this.tail = tail;
    this.finishSome(0, overlay, reply);
  }

  private finishSome(min: number, overlay: Overlay, reply: Reply): void {
    this.overlay = overlay;
    this.reply = reply;
    this.aio.reap(min, this.done);
  }

  private readonly done = (slot: number): void => {
    const { aio } = this;
    const overlay = this.overlay!;
    const reply = this.reply!;
    const lo = aio.uniqueLo[slot]!;
    const hi = aio.uniqueHi[slot]!;
    const length = aio.length[slot]!;
    const result = aio.result[slot]!;
    const { source } = this;
    const mark = aio.mark[slot]!;
    if (result !== length || !source.stands(mark)) {
      // Images that are no longer the source gave an error, or could not be read to the end: the new ones are asked.
      const rc = mark !== source.mark() || result === length ? UNSERVED : result < 0 ? result : -ERRNO.EIO;
      if (this.keep(rc)) return;
      reply.status(lo, hi, rc === UNSERVED ? -ERRNO.EIO : rc);
      this.meter?.failed(KIND.READ);
      return;
    }
    const at = aio.dataAt(slot);
    const from = aio.from[slot]!;
    const offset = aio.offset[slot]!;
    if (from < this.tail) overlay.paint(aio.device[slot]!, offset, offset + length, from, aio.mem, at);
    reply.data(lo, hi, aio.mem, at, length);
    this.meter?.finished(KIND.READ, aio.begun[slot]!);
  };

  /** Bytes of the page cache, or what there is of them without waiting. */
  private cached(fd: number, offset: number, length: number): number {
    setU64(this.iov.dv, 0, this.scratch.addr);
    setU64(this.iov.dv, 8, length);
    return sys.raw.preadv2(fd, this.iov.addr, 1, offset, sys.RWF_NOWAIT);
  }

  /** SEEK_DATA and SEEK_HOLE: of the image where nothing is pending, else "all is data". */
  seek(device: OpenDevice, offset: number, whence: number, idle: boolean): number {
    if (offset >= device.size || (whence !== sys.SEEK_DATA && whence !== sys.SEEK_HOLE)) return -ERRNO.ENXIO;
    if (!idle) return whence === sys.SEEK_DATA ? offset : device.size;
    return sys.lseek(device.fd, offset, whence);
  }
}
