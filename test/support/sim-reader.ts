/**
 * Reads of the simulated devices, in place of device/reader: the same two ways, one that answers at once and one
 * that answers some turns later and paints with the threshold it was submitted with. The image is read at a
 * moment in between that the dice choose.
 */
import type { Io } from '../../src/base/io.js';
import { readFull } from '../../src/base/io.js';
import { ERRNO } from '../../src/base/errors.js';
import { Mem } from '../../src/base/mem.js';
import { UNSERVED, type OpenDevice } from '../../src/device/reader.js';
import type { Overlay } from '../../src/device/overlay.js';
import type { Reply } from '../../src/device/reply.js';
import type { ReadSource } from '../../src/device/source.js';
import type { ImageSet } from '../../src/slink/images.js';
import type { Rng } from './sim-random.js';

interface InFlight {
  device: OpenDevice;
  offset: number;
  length: number;
  from: number;
  mark: number;
  lo: number;
  hi: number;
  mem: Mem;
  /** The image has been read: 0, or the negative errno. */
  rc: number | undefined;
}

/** Where slink 0 has a device. */
export interface LocalImage {
  nr: number;
  size: number;
  file: string;
}

const MOST = 4;
const O_RDONLY = 0;

export class SimReader {
  readonly scratch = Mem.lazy(1 << 20);
  /** Set by the group. */
  source!: ReadSource;
  keep!: (rc: number) => boolean;
  private readonly io: Io;
  private readonly images: ImageSet;
  private readonly rng: Rng;
  private readonly gone = new Set<number>();
  private readonly devices = new Map<number, OpenDevice>();
  private readonly flying: InFlight[] = [];
  private readonly spare: Mem[] = [];

  /** `devices`: they are opened here, as in a group that may be detached; otherwise the applier's are read. */
  constructor(io: Io, images: ImageSet, rng: Rng, devices: readonly LocalImage[] = []) {
    this.io = io;
    this.images = images;
    this.rng = rng;
    for (const device of SimReader.open(io, devices) ?? devices.map((d) => ({ ...d, fd: -1, direct: -1 })))
      this.devices.set(device.nr, device);
  }

  /** All of them, or nothing. */
  static open(io: Io, devices: readonly LocalImage[]): OpenDevice[] | undefined {
    const open: OpenDevice[] = [];
    for (const { nr, size, file } of devices) {
      const fd = io.open('DEVICE:OPEN', file, O_RDONLY);
      if (fd >= 0) open.push({ nr, size, fd, direct: -1 });
    }
    if (open.length === devices.length) return open;
    for (const { fd } of open) io.close('DEVICE:CLOSE', fd);
    return undefined;
  }

  /** The device has left: its image may be open for some time yet. */
  remove(nr: number): void {
    this.gone.add(nr);
  }

  device(nr: number): OpenDevice | undefined {
    if (this.devices.size > 0) return this.devices.get(nr);
    const image = this.images.get(nr);
    return image === undefined || this.gone.has(nr) ? undefined : { nr, size: image.size, fd: image.fd, direct: -1 };
  }

  fits(table: readonly OpenDevice[]): boolean {
    return [...this.devices.values()].every((device) =>
      table.some(({ nr, size }) => nr === device.nr && size >= device.size),
    );
  }

  exchange(table: readonly OpenDevice[]): void {
    for (const { nr, fd } of table) {
      const device = this.devices.get(nr);
      if (device === undefined) continue;
      if (device.fd >= 0) this.io.close('DEVICE:CLOSE', device.fd);
      device.fd = fd;
    }
  }

  discard(table: readonly OpenDevice[]): void {
    for (const { fd } of table) this.io.close('DEVICE:CLOSE', fd);
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
    const { source } = this;
    if (source.present && this.flying.length < MOST && this.rng.chance(0.5)) {
      const mem = this.spare.pop() ?? Mem.lazy(1 << 19);
      const read: InFlight = { device, offset, length, from: applied, mark: source.mark(), lo, hi, mem, rc: undefined };
      this.flying.push(read);
      if (this.rng.chance(0.5)) this.fill(read);
      return;
    }
    const rc = this.readNow(device, offset, length, applied, tail, overlay, this.scratch, 0);
    if (rc >= 0) reply.data(lo, hi, this.scratch, 0, length);
    else if (!this.keep(rc)) reply.status(lo, hi, rc === UNSERVED ? -ERRNO.EIO : rc);
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
    const { source } = this;
    if (!source.present) return UNSERVED;
    const mark = source.mark();
    const rc = device.fd < 0 ? -ERRNO.EIO : readFull(this.io, 'DEVICE:READ', device.fd, to, toAt, length, offset);
    if (!source.stands(mark)) return UNSERVED;
    if (rc < 0) return rc;
    if (applied < tail) overlay.paint(device.nr, offset, offset + length, applied, to, toAt);
    return 0;
  }

  private fill(read: InFlight): void {
    // The kernel holds the file of a read that was submitted, whoever closes a descriptor; here the number is looked at.
    const { device, mark } = read;
    read.rc =
      mark === this.source.mark() && device.fd >= 0
        ? readFull(this.io, 'DEVICE:READ', device.fd, read.mem, 0, read.length, read.offset)
        : -ERRNO.EIO;
  }

  /** Some of the reads in flight come to their end. */
  finish(overlay: Overlay, tail: number, reply: Reply): void {
    const { source } = this;
    for (const read of [...this.flying]) {
      if (this.rng.chance(0.3)) continue;
      if (read.rc === undefined) this.fill(read);
      this.flying.splice(this.flying.indexOf(read), 1);
      this.spare.push(read.mem);
      const { device, offset, length, from, mark, lo, hi, mem } = read;
      const stands = source.stands(mark);
      if (read.rc! < 0 || !stands) {
        const rc = !stands || mark !== source.mark() ? UNSERVED : read.rc!;
        if (!this.keep(rc)) reply.status(lo, hi, rc === UNSERVED ? -ERRNO.EIO : rc);
        continue;
      }
      if (from < tail) overlay.paint(device.nr, offset, offset + length, from, mem, 0);
      reply.data(lo, hi, mem, 0, length);
    }
  }
}
