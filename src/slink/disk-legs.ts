/**
 * Legs that are block devices or files of this machine, one path per device (`blockdev` with a map).
 *
 * Nothing is made here: a path that leads nowhere is one whose disk is not plugged in. Block devices are held
 * open exclusively, so that nobody mounts them meanwhile; one that is mounted cannot be had that way. A file has
 * exactly the size of its device, a block device may be larger (partitions come in whole cylinders or MiB).
 */
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import type { IoVec, Mem } from '../base/mem.js';
import type { SiteDevice, SiteReader } from './contract.js';
import { ImageSet, imageFailure } from './images.js';
import type { Legs, LegsOpened } from './legs.js';
import { takenBy, type Taken } from './same-disk.js';

class Refused extends Error {
  readonly wrong: boolean;
  constructor(wrong: boolean, message: string) {
    super(message);
    this.wrong = wrong;
  }
}

export class DiskLegs implements Legs {
  reason = '';
  private readonly io: Io;
  private readonly map: Readonly<Record<string, string>>;
  private readonly taken: () => readonly Taken[];
  private readonly images: ImageSet;

  /** `taken`: what the group occupies on this machine already, other legs of this site left out. */
  constructor(io: Io, map: Readonly<Record<string, string>>, taken: () => readonly Taken[] = () => []) {
    this.io = io;
    this.map = map;
    this.taken = taken;
    this.images = new ImageSet(io, 'SITE');
  }

  target(device: string): string {
    return Object.hasOwn(this.map, device) ? this.map[device]! : '';
  }

  open(devices: readonly SiteDevice[]): LegsOpened {
    this.close();
    try {
      const mine: Taken[] = [];
      for (const device of devices) {
        const path = this.target(device.name);
        this.openLeg(device, path, mine);
        mine.push({ path, what: `the leg of ${device.name}` });
      }
      return { ok: true };
    } catch (error) {
      this.close();
      if (error instanceof Refused) return { ok: false, refused: error.wrong, reason: error.message };
      throw error;
    }
  }

  private openLeg(device: SiteDevice, path: string, mine: readonly Taken[]): void {
    const { io } = this;
    if (path === '')
      throw new Refused(true, `device ${device.name}: the site's map has no path for it; add ${device.name}=PATH`);
    const info = io.stat('SITE:OPEN', path);
    if (typeof info === 'number')
      throw new Refused(false, `${path}: the leg of ${device.name} cannot be reached: ${errnoText(info)}; plug it in`);
    if (info.kind !== 'file' && info.kind !== 'block')
      throw new Refused(true, `${path}: is neither a block device nor a file; name one for ${device.name}`);
    if (info.readOnly === true)
      throw new Refused(true, `${path}: cannot be written to: it is set read-only; make it writable, or name another`);
    const other = takenBy(io, path, [...this.taken(), ...mine]);
    if (other !== '')
      throw new Refused(true, `${path}: is ${other}, or stands on the same storage; name another for ${device.name}`);
    try {
      const exclusive = info.kind === 'block';
      const image = this.images.open({ nr: device.nr, file: path, size: device.size, exclusive });
      if (image.id !== info.id)
        throw new Refused(false, `${path}: was exchanged while it was opened; it is tried again`);
    } catch (error) {
      throw error instanceof RepError ? denied(path, error) : error;
    }
  }

  get usedBelow(): number {
    return this.images.usedBelow;
  }

  set usedBelow(nr: number) {
    this.images.usedBelow = nr;
  }

  knows(nr: number): boolean {
    return this.images.knows(nr);
  }

  forget(nr: number): void {
    this.images.forget(nr);
  }

  write(nr: number, offset: number, vec: IoVec): number {
    return this.done(this.images.write(nr, offset, vec));
  }

  discard(nr: number, offset: number, length: number): number {
    return this.done(this.images.discard(nr, offset, length));
  }

  zeroes(nr: number, offset: number, length: number): number {
    return this.done(this.images.zeroes(nr, offset, length));
  }

  read(nr: number, mem: Mem, off: number, len: number, pos: number): number {
    return this.done(this.images.readDisk(nr, mem, off, len, pos));
  }

  sync(): number {
    return this.done(this.images.sync());
  }

  nextData(nr: number, pos: number, size: number): number {
    return this.images.nextData(nr, pos, size);
  }

  probe(): number {
    const strayed = this.images.strayed();
    if (strayed === undefined) return 0;
    this.reason = `${strayed.file}: the path no longer leads to what this site opened; put it back`;
    return -ERRNO.ENXIO;
  }

  readers(): SiteReader[] | string {
    return this.images.readers();
  }

  close(): void {
    this.images.close();
  }

  private done(rc: number): number {
    if (rc < 0) this.reason = `${imageFailure(this.images)}; the site is tried again`;
    return rc;
  }
}

function denied(path: string, error: RepError): Refused {
  switch (error.errno) {
    case 'EBUSY':
      return new Refused(true, `${path}: is mounted or otherwise in use; unmount it, or name another device`);
    case 'EROFS':
    case 'EACCES':
    case 'EPERM': {
      const why = errnoText(error.code);
      return new Refused(true, `${path}: cannot be written to: ${why}; make it writable, or name another`);
    }
    case 'EINVAL':
      return new Refused(true, error.message);
    default:
      return new Refused(false, error.message);
  }
}
