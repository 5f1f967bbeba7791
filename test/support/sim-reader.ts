/**
 * Reads of the simulated devices, in place of device/reader: the same two ways, one that answers at once and one
 * that answers some turns later and paints with the threshold it was submitted with. The image is read at a
 * moment in between that the dice choose.
 */
import type { Io } from '../../src/base/io.js';
import { readFull } from '../../src/base/io.js';
import { Mem } from '../../src/base/mem.js';
import type { OpenDevice } from '../../src/device/reader.js';
import type { Overlay } from '../../src/device/overlay.js';
import type { Reply } from '../../src/device/reply.js';
import type { ImageSet } from '../../src/slink/images.js';
import type { Rng } from './sim-random.js';

interface InFlight {
  device: OpenDevice;
  offset: number;
  length: number;
  from: number;
  lo: number;
  hi: number;
  mem: Mem;
  /** The image has been read: 0, or the negative errno. */
  rc: number | undefined;
}

const MOST = 4;

export class SimReader {
  readonly scratch = Mem.lazy(1 << 20);
  private readonly io: Io;
  private readonly images: ImageSet;
  private readonly rng: Rng;
  private readonly gone = new Set<number>();
  private readonly flying: InFlight[] = [];
  private readonly spare: Mem[] = [];

  constructor(io: Io, images: ImageSet, rng: Rng) {
    this.io = io;
    this.images = images;
    this.rng = rng;
  }

  /** The device has left: its image may be open for some time yet. */
  remove(nr: number): void {
    this.gone.add(nr);
  }

  device(nr: number): OpenDevice | undefined {
    const image = this.images.get(nr);
    return image === undefined || this.gone.has(nr) ? undefined : { nr, size: image.size, fd: image.fd, direct: -1 };
  }

  get inFlight(): number {
    return this.flying.length;
  }

  leastFrom(otherwise: number): number {
    return this.flying.reduce((least, read) => Math.min(least, read.from), otherwise);
  }

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
    const length = Math.min(offset + size, device.size) - offset;
    if (this.flying.length < MOST && this.rng.chance(0.5)) {
      const mem = this.spare.pop() ?? Mem.lazy(1 << 19);
      const read: InFlight = { device, offset, length, from: applied, lo, hi, mem, rc: undefined };
      this.flying.push(read);
      if (this.rng.chance(0.5)) this.fill(read);
      return;
    }
    const rc = this.readNow(device, offset, length, applied, tail, overlay, this.scratch, 0);
    if (rc < 0) reply.status(lo, hi, rc);
    else reply.data(lo, hi, this.scratch, 0, length);
  }

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
    const rc = readFull(this.io, 'DEVICE:READ', device.fd, to, toAt, length, offset);
    if (rc < 0) return rc;
    if (applied < tail) overlay.paint(device.nr, offset, offset + length, applied, to, toAt);
    return 0;
  }

  private fill(read: InFlight): void {
    read.rc = readFull(this.io, 'DEVICE:READ', read.device.fd, read.mem, 0, read.length, read.offset);
  }

  /** Some of the reads in flight come to their end. */
  finish(overlay: Overlay, tail: number, reply: Reply): void {
    for (const read of [...this.flying]) {
      if (this.rng.chance(0.3)) continue;
      if (read.rc === undefined) this.fill(read);
      this.flying.splice(this.flying.indexOf(read), 1);
      const { device, offset, length, from, lo, hi, mem } = read;
      if (read.rc! < 0) reply.status(lo, hi, read.rc!);
      else {
        if (from < tail) overlay.paint(device.nr, offset, offset + length, from, mem, 0);
        reply.data(lo, hi, mem, 0, length);
      }
      this.spare.push(mem);
    }
  }
}
