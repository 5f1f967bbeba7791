/**
 * A dirty log on a device or file of its own, in the format of format.ts.
 *
 *   found on it                             without sync, nosync     with one of them
 *   a log of this leg                       resumed                  resumed
 *   … where the leg begins                  made anew: it is that    made anew
 *                                           of a leg before
 *   a log without a note (the kernel's)     resumed                  resumed; made anew where the leg begins
 *   nothing (its first MiB reads as zero)   made                     made
 *   something else, another leg's log,
 *   another version, cut short, damaged     refused by name          made anew
 *
 * A log that is made says that every region is dirty; none is where the leg begins with `nosync`. Of a device that has grown
 * the added regions count as dirty (`nosync`: as clean), and bits behind its end go.
 */
import { ERRNO, errnoText } from '../base/errors.js';
import { readFull, writeFull } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { O_EXCL, O_RDONLY, O_RDWR } from '../base/sys.js';
import { KIB, MIB, SECTOR } from '../base/units.js';
import { DirtyBits, regionsOf } from './bits.js';
import {
  BITMAP_AT,
  DISK_VERSION,
  decodeClean,
  decodeHead,
  diskBytes,
  encodeClean,
  encodeHead,
  type DiskHead,
} from './format.js';
import { factBits, noneDirty } from './plain.js';
import type { DirtyLog, DirtyLogNeeds } from './types.js';

const PIECE = 64 * KIB;

type DiskLogHead = Extract<DiskHead, { kind: 'log' }>;

/** What stands on the device: bits for the present size and regions, nothing yet, or what must not be overwritten. */
type Found = { kind: 'bits'; bits: DirtyBits; ours: boolean } | { kind: 'blank' } | { kind: 'other'; reason: string };

export class DiskLog implements DirtyLog {
  readonly type = 'disk';
  readonly keeps = 'device';
  state: DirtyLog['state'] = 'A';
  reason = '';
  private readonly needs: DirtyLogNeeds;
  private readonly path: string;
  private fd = -1;
  /** What the device holds, or will once [from, to) was written and synced. */
  private image: Mem | undefined;
  private regions = 0;
  private from = 0;
  private to = 0;

  constructor(needs: DirtyLogNeeds, path: string) {
    this.needs = needs;
    this.path = path;
  }

  load(): Uint8Array | undefined {
    const { needs } = this;
    const { begins, table, region, sectors } = needs;
    const before = begins ? undefined : factBits(needs);
    const found = this.attach(region, sectors);
    // The index holds bits only while the device did not take them: it alone says enough then.
    if (found === undefined) return before;
    if (found.kind === 'bits' && !(begins && (table.start !== undefined || found.ours)))
      return before === undefined ? found.bits.bytes() : found.bits.bytes().map((byte, i) => byte | before[i]!);
    const held = begins && table.start === 'nosync' ? noneDirty(needs) : before;
    const regions = regionsOf(region, sectors);
    this.store(held ?? new Uint8Array(Math.ceil(regions / 8)).fill(255), regions);
    return held;
  }

  store(bits: Uint8Array, regions: number): number {
    const { io, region, leg } = this.needs;
    const fresh = this.fd < 0;
    if (fresh && this.attach(region, regions * region) === undefined) return -ERRNO.ENXIO;
    const bytes = diskBytes(regions);
    if (fresh || regions !== this.regions || this.image === undefined) {
      const tooSmall = this.tooSmall(regions);
      if (tooSmall !== '') return this.fail('D', tooSmall, -ERRNO.ENOSPC);
      this.image?.unmap();
      this.image = Mem.lazy(bytes);
      this.regions = regions;
      encodeHead(this.image.u8, regions, { ...leg, region });
      encodeClean(this.image.u8.subarray(BITMAP_AT), bits, regions);
      [this.from, this.to] = [0, bytes];
    } else {
      this.change(this.image, bits, regions);
    }
    if (this.from >= this.to) return 0;
    const length = this.to - this.from;
    const written = writeFull(io, 'DIRTYLOG:WRITE', this.fd, this.image, this.from, length, this.from);
    if (written < 0) return this.fail('D', `writing it failed: ${errnoText(written)}; see to the device`, written);
    const synced = io.fdatasync('DIRTYLOG:SYNC', this.fd);
    // What was written since the last sync is lost as far as anyone knows: it stays to be written.
    if (synced < 0) return this.fail('F', `flushing it failed: ${errnoText(synced)}; see to the device`, synced);
    [this.from, this.to] = [0, 0];
    this.state = 'A';
    this.reason = '';
    return 0;
  }

  close(): void {
    this.detach();
    this.image?.unmap();
    this.image = undefined;
  }

  /** Why the table cannot have this device, '' where it can. Writes nothing, and needs no `load`. */
  look(): string {
    const { region, sectors } = this.needs;
    const found = this.attach(region, sectors, true);
    this.close();
    return found === undefined ? this.reason : '';
  }

  /** Takes the new bits into the image, and into [from, to) the sectors that differ. */
  private change(image: Mem, bits: Uint8Array, regions: number): void {
    const bytes = diskBytes(regions);
    const next = new Uint8Array(bytes - BITMAP_AT);
    encodeClean(next, bits, regions);
    const differs = (at: number): boolean =>
      image.u8.compare(next, at - BITMAP_AT, at - BITMAP_AT + SECTOR, at, at + SECTOR) !== 0;
    let first = BITMAP_AT;
    let end = bytes;
    while (first < end && !differs(first)) first += SECTOR;
    while (end > first && !differs(end - SECTOR)) end -= SECTOR;
    if (first >= end) return;
    image.u8.set(next.subarray(first - BITMAP_AT, end - BITMAP_AT), first);
    [this.from, this.to] = this.from < this.to ? [Math.min(this.from, first), Math.max(this.to, end)] : [first, end];
  }

  /** Opens the device and looks what is on it; undefined, with state and reason, where it must not be used. */
  private attach(region: number, sectors: number, readOnly = false): Exclude<Found, { kind: 'other' }> | undefined {
    const { io, table, taken } = this.needs;
    const dead = (reason: string): undefined => void this.fail('D', reason, -ERRNO.ENXIO);
    const other = taken(this.path);
    if (other !== '') return dead(`it is ${other} already; name another device`);
    const seen = io.stat('DIRTYLOG:STAT', this.path);
    if (typeof seen === 'number') return dead(`it cannot be had: ${errnoText(seen)}; make it, or correct the name`);
    if (seen.kind !== 'file' && seen.kind !== 'block')
      return dead(`it is a ${seen.kind === 'dir' ? 'folder' : 'special file'}; name a file or a block device`);
    // The kernel gives a block device to one at a time: not while it is mounted, or part of another.
    const flags = (readOnly ? O_RDONLY : O_RDWR) | (seen.kind === 'block' ? O_EXCL : 0);
    const fd = io.open('DIRTYLOG:OPEN', this.path, flags);
    if (fd < 0) return dead(`opening it failed: ${errnoText(fd)}; free it, or name another device`);
    this.fd = fd;
    const info = io.info('DIRTYLOG:INFO', fd);
    if (typeof info === 'number') return dead(`looking at it failed: ${errnoText(info)}; see to the device`);
    if (info.readOnly === true) return dead('it is set to be read-only; make it writable, or name another device');
    const tooSmall = this.tooSmall(regionsOf(region, sectors));
    if (tooSmall !== '') return dead(tooSmall);
    const found = this.inspect(info.size, region, sectors);
    if (typeof found === 'number') return dead(`reading it failed: ${errnoText(found)}; see to the device`);
    if (found.kind !== 'other') return found;
    if (table.start === undefined)
      return dead(`${found.reason}; name another device, or write sync or nosync to have it overwritten`);
    return { kind: 'blank' };
  }

  /** A file grows as it is written; '' where the device holds so many regions. */
  private tooSmall(regions: number): string {
    const info = this.needs.io.info('DIRTYLOG:INFO', this.fd);
    const needed = diskBytes(regions);
    if (typeof info === 'number' || info.kind === 'file' || info.size >= needed) return '';
    return (
      `it has ${info.size / SECTOR} sectors, and ${regions} regions need ${needed / SECTOR}; ` +
      'name a larger device, or larger regions'
    );
  }

  private inspect(size: number, region: number, sectors: number): Found | number {
    const mem = Mem.lazy(PIECE);
    try {
      const rc = this.read(mem, 0, Math.min(size, BITMAP_AT));
      if (rc < 0) return rc;
      const head: DiskHead = size < BITMAP_AT ? { kind: 'foreign', magic: 0 } : decodeHead(mem.u8);
      if (head.kind === 'log') return this.inspectLog(head, size, region, sectors);
      if (head.kind === 'version') return other(`a dirty log of version ${head.version}, ${DISK_VERSION} is known`);
      if (head.kind === 'damaged') return other('a dirty log whose head is damaged');
      if (head.magic !== 0) return other(`something that is no dirty log (magic 0x${head.magic.toString(16)})`);
      // File systems leave their first sectors free, so that the magic alone says nothing.
      const blank = this.isBlank(mem, Math.min(size, Math.max(MIB, diskBytes(regionsOf(region, sectors)))));
      if (typeof blank === 'number') return blank;
      return blank ? { kind: 'blank' } : other('something that is no dirty log');
    } finally {
      mem.unmap();
    }
  }

  private inspectLog({ regions, note }: DiskLogHead, size: number, region: number, sectors: number): Found | number {
    const { leg, table } = this.needs;
    if (note !== undefined && note.logId !== leg.logId) return other(`the dirty log of another group (${note.logId})`);
    if (note !== undefined && (note.link !== leg.link || note.device !== leg.device))
      return other(`the dirty log of device ${note.device} at site ${note.link}`);
    if (diskBytes(regions) > size) return other(`a dirty log cut short: ${regions} regions in ${size} bytes`);
    const unit = note?.region ?? region;
    const stored = Math.min(regions, regionsOf(unit, sectors));
    const bytes = 4 * Math.ceil(stored / 32);
    const mem = Mem.lazy(Math.max(bytes, 1));
    try {
      const rc = this.read(mem, BITMAP_AT, bytes);
      if (rc < 0) return rc;
      const bits = DirtyBits.from(decodeClean(mem.u8, stored), unit, sectors);
      if (stored < bits.regions && table.start !== 'nosync') bits.mark(stored * unit, sectors - stored * unit);
      return { kind: 'bits', bits: unit === region ? bits : bits.rescaled(region), ours: note !== undefined };
    } finally {
      mem.unmap();
    }
  }

  private isBlank(mem: Mem, bytes: number): boolean | number {
    for (let pos = 0; pos < bytes; pos += PIECE) {
      const length = Math.min(PIECE, bytes - pos);
      const rc = this.read(mem, pos, length);
      if (rc < 0) return rc;
      for (let i = 0; i < length; i++) if (mem.u8[i] !== 0) return false;
    }
    return true;
  }

  /** To the start of `mem`. */
  private read(mem: Mem, pos: number, length: number): number {
    return length === 0 ? 0 : readFull(this.needs.io, 'DIRTYLOG:READ', this.fd, mem, 0, length, pos);
  }

  /** A dead device is opened anew by the next `store`, which then writes all of it. */
  private fail(state: 'D' | 'F', reason: string, rc: number): number {
    this.state = state;
    this.reason = `${this.path}, the dirty log of ${this.needs.leg.name}: ${reason}`;
    if (state === 'D') this.detach();
    return rc;
  }

  private detach(): void {
    if (this.fd >= 0) this.needs.io.close('DIRTYLOG:CLOSE', this.fd);
    this.fd = -1;
  }
}

function other(what: string): Found {
  return { kind: 'other', reason: `it holds ${what}` };
}
