/**
 * The log's file or block device: geometry, superblocks, aligned I/O. Making one is in logcreate.ts.
 *
 * Superblocks are written in turn and synced; the newest valid one counts. One whose write failed is written
 * to the same place again, never over the other: that is the only good one left.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO, RepError, ioError } from '../base/errors.js';
import { writeFull, type FileInfo, type Io, type IoCall } from '../base/io.js';
import { IoVec, Mem } from '../base/mem.js';
import { O_DIRECT, O_RDONLY, O_RDWR } from '../base/sys.js';
import { MIB, formatSize, type LogPos } from '../base/units.js';
import {
  ALIGN,
  DATA_START,
  RESIZED_VERSION,
  SUPER_SIZE,
  decodeSuperblock,
  encodeSuperblock,
  segmentSizeFor,
  type Superblock,
  type SuperblockRead,
} from './format.js';
import { SH, SHF, type Shared } from './shared.js';

export const MIN_LOG = 4 * MIB;

export interface LogGeometry {
  /** Bytes of the file or device in use. */
  size: number;
  segment: number;
  /** Whole segments from DATA_START on. */
  ring: number;
}

/** Layout of a log of `size` bytes; undefined where that is no size for one. */
export function logGeometry(size: number): LogGeometry | undefined {
  if (!Number.isSafeInteger(size) || size < MIN_LOG || size % 512 !== 0) return undefined;
  const segment = segmentSizeFor(size - DATA_START);
  return { size, segment, ring: Math.floor((size - DATA_START) / segment) * segment };
}

/** Fewest segments of a log; one that is made has seven, one that was resized may have fewer of its larger ones. */
const MIN_SEGMENTS = 4;

/** The same for a log that keeps its segments while its size changes. */
export function resizedGeometry(size: number, segment: number): LogGeometry | undefined {
  if (logGeometry(size) === undefined) return undefined;
  const segments = Math.floor((size - DATA_START) / segment);
  return segments < MIN_SEGMENTS ? undefined : { size, segment, ring: segments * segment };
}

/** Smallest size of a log with such segments, bytes. */
export function minLogSize(segment: number): number {
  return Math.max(MIN_LOG, DATA_START + MIN_SEGMENTS * segment);
}

/** Where log positions stand: at byte DATA_START + (position - base) mod ring. */
export interface LogMapping {
  readonly base: LogPos;
  readonly ring: number;
}

export function byteOf({ base, ring }: LogMapping, pos: LogPos): number {
  const off = (pos - base) % ring;
  return DATA_START + (off < 0 ? off + ring : off);
}

export interface LogOpenOptions {
  readOnly?: boolean;
  /** False keeps to the page cache even where the file system could do without. */
  direct?: boolean;
}

/** What stands where a log's superblocks would be. `alone`: the other one is damaged, or says that positions stand elsewhere. */
export type HeaderRead =
  | { kind: 'log'; value: Superblock; slot: 0 | 1; damaged: boolean; alone: boolean }
  /** Zeroes, or too short to hold anything. */
  | { kind: 'blank' }
  | { kind: 'foreign' }
  | { kind: 'damaged' }
  | { kind: 'version'; version: number };

/** Judges the first 8192 bytes of a file. */
export function readHeader(raw: Buffer): HeaderRead {
  if (raw.length < 2 * SUPER_SIZE || raw.every((byte) => byte === 0)) return { kind: 'blank' };
  const reads = [0, 1].map((i) => decodeSuperblock(raw.subarray(i * SUPER_SIZE, (i + 1) * SUPER_SIZE)));
  // A superblock that a newer program wrote means that its rules hold, even where the older one still reads.
  for (const read of reads)
    if (!read.ok && read.reason === 'version') return { kind: 'version', version: read.version ?? 0 };
  const valid = (read: SuperblockRead): Superblock | undefined => (read.ok ? read.value : undefined);
  const [a, b] = [valid(reads[0]!), valid(reads[1]!)];
  if (a === undefined && b === undefined)
    return { kind: reads.some((read) => !read.ok && read.reason === 'damaged') ? 'damaged' : 'foreign' };
  const slot = b === undefined || (a !== undefined && a.serial > b.serial) ? 0 : 1;
  const damaged = a === undefined || b === undefined;
  const alone = damaged || a.base !== b.base || a.ring !== b.ring;
  return { kind: 'log', value: (slot === 0 ? a : b)!, slot, damaged, alone };
}

export class LogFile {
  readonly io: Io;
  readonly path: string;
  readonly fd: number;
  /** True where I/O goes past the page cache. */
  readonly direct: boolean;
  /** What memory, lengths and positions must be multiples of: 1 in the page cache, else 512 or 4096. */
  readonly align: number;
  readonly segment: number;
  /** Newest durable superblock; changed by writeSuper only. */
  super: Superblock;
  /** True where only one of the two superblocks could be read when the log was opened. */
  readonly superDamaged: boolean;
  /** True while only one superblock says where positions stand: it is to be written again before it is relied on. */
  superAlone: boolean;

  private superSlot: 0 | 1;
  private readonly superMem: Mem;
  private readonly restVec = new IoVec(16);
  private base: LogPos;
  private ringBytes: number;
  /** Where main says that positions stand elsewhere, and what it had said when it was last looked at. */
  private shared: Shared | undefined;
  private mapped = 0;

  private constructor(io: Io, path: string, opened: Opened, header: HeaderRead & { kind: 'log' }, superMem: Mem) {
    this.io = io;
    this.path = path;
    this.fd = opened.fd;
    this.direct = opened.direct;
    this.align = opened.align;
    this.super = header.value;
    this.segment = header.value.segment;
    this.base = header.value.base;
    this.ringBytes = header.value.ring;
    this.superDamaged = header.damaged;
    this.superAlone = header.alone;
    this.superSlot = header.slot;
    this.superMem = superMem;
  }

  /** Opens a valid log; throws EINVAL with the reason where it is none. */
  static open(io: Io, path: string, options: LogOpenOptions = {}): LogFile {
    const opened = openLogPath(io, path, options);
    const mem = Mem.anon(2 * SUPER_SIZE);
    try {
      const header = readHeaderOf(io, path, opened, mem);
      if (header.kind !== 'log') throw headerError(path, header);
      // Behind the superblock: a log that is being resized has the size that it is to have before it says so.
      const info = io.info('REPLOG:OPEN', opened.fd);
      checkGeometry(path, header.value, typeof info === 'number' ? opened.info : info);
      return new LogFile(io, path, opened, header, mem);
    } catch (error) {
      io.close('REPLOG:CLOSE', opened.fd);
      mem.unmap();
      throw error;
    }
  }

  /** Bytes of the file or device in use. */
  get size(): number {
    return this.super.size;
  }

  /** Bytes of the ring, whole segments from DATA_START on. */
  get ring(): number {
    this.look();
    return this.ringBytes;
  }

  get mapping(): LogMapping {
    this.look();
    return { base: this.base, ring: this.ringBytes };
  }

  /** For a thread other than main: where positions stand is what main says from now on. */
  follow(shared: Shared): this {
    this.shared = shared;
    this.take(shared);
    return this;
  }

  /** Takes what main says, where that is news. */
  private look(): number {
    const { shared } = this;
    if (shared !== undefined && shared.load(SH.MAPPING) !== this.mapped) this.take(shared);
    return this.mapped;
  }

  private take(shared: Shared): void {
    for (;;) {
      const mapped = shared.load(SH.MAPPING);
      const at = SHF.MAP + 2 * (mapped & 1);
      this.base = shared.floatView[at]!;
      this.ringBytes = shared.floatView[at + 1]!;
      this.mapped = mapped;
      if (shared.load(SH.MAPPING) === mapped) return;
    }
  }

  /** Byte of the file at which log position `pos` stands. */
  fileOffset(pos: LogPos): number {
    this.look();
    const off = (pos - this.base) % this.ringBytes;
    return DATA_START + (off < 0 ? off + this.ringBytes : off);
  }

  /** Where the log ends at `end`: the oldest position that has not been written over. */
  oldest(end: LogPos): LogPos {
    return Math.max(this.super.oldest, end - this.ring);
  }

  /** Bytes from `pos` to the end of its segment: a whole segment at its start. */
  rest(pos: LogPos): number {
    return this.segment - (pos % this.segment);
  }

  /** Writes all of `vec` at log position `pos`; 0 or the negative errno. */
  write(call: IoCall, vec: IoVec, pos: LogPos): number {
    const start = this.fileOffset(pos);
    let from = vec;
    let done = 0;
    for (;;) {
      const r = this.io.pwritev(call, this.fd, from, start + done);
      if (r < 0) return r;
      if (r === 0) return -ERRNO.ENOSPC;
      done += r;
      if (done >= vec.total) return 0;
      from = this.remainder(vec, done);
    }
  }

  /** Reads `len` bytes at log position `pos` within one segment; the count, or the negative errno. */
  read(call: IoCall, mem: Mem, off: number, len: number, pos: LogPos): number {
    for (;;) {
      const mapped = this.look();
      const r = this.readAt(call, mem, off, len, this.fileOffset(pos));
      // ! Whoever slept in the call may have read a byte that belongs to another position by now.
      if (this.look() === mapped) return r;
    }
  }

  private readAt(call: IoCall, mem: Mem, off: number, len: number, start: number): number {
    let done = 0;
    while (done < len) {
      const r = this.io.pread(call, this.fd, mem, off + done, len - done, start + done);
      if (r < 0) return r;
      if (r === 0) return -ERRNO.EIO;
      done += r;
    }
    return done;
  }

  sync(call: IoCall): number {
    return this.io.fdatasync(call, this.fd);
  }

  /** Writes the next superblock and syncs it; 0 or the negative errno, and then the old one still counts. */
  writeSuper(change: Partial<Superblock>, clock: Clock): number {
    const next: Superblock = { ...this.super, ...change, serial: this.super.serial + 1, writtenUs: clock.wallUs() };
    const slot = this.superSlot === 0 ? 1 : 0;
    encodeSuperblock(this.superMem.u8, next);
    const r = writeFull(this.io, 'REPLOG:SUPER', this.fd, this.superMem, 0, SUPER_SIZE, slot * SUPER_SIZE);
    if (r < 0) return r;
    const s = this.io.fdatasync('REPLOG:SUPER-SYNC', this.fd);
    if (s < 0) return s;
    this.super = next;
    this.superSlot = slot;
    // The other one was the one that differed, or was damaged.
    this.superAlone = false;
    return 0;
  }

  /**
   * Main: lets positions stand elsewhere from now on; 0 or the negative errno. After a failure nobody knows which of
   * the two the disk will show: it is to be called again until it succeeds, and nothing is to be written meanwhile
   * where the two differ. Both superblocks say so before it is true, since either may be the only one left some day.
   */
  remap(size: number, mapping: LogMapping & { readonly oldest: LogPos }, clock: Clock): number {
    const change = { size, base: mapping.base, ring: mapping.ring, oldest: mapping.oldest };
    for (let i = 0; i < 2; i++) {
      const r = this.writeSuper(change, clock);
      if (r < 0) return r;
    }
    this.base = mapping.base;
    this.ringBytes = mapping.ring;
    return 0;
  }

  close(): void {
    this.io.close('REPLOG:CLOSE', this.fd);
    this.superMem.unmap();
    this.restVec.table.unmap();
  }

  /** What is left of `vec` behind its first `done` bytes (a short write is rare: a signal, a full disk). */
  private remainder(vec: IoVec, done: number): IoVec {
    const rest = this.restVec;
    rest.clear();
    let skip = done;
    for (let i = 0; i < vec.count; i++) {
      const len = vec.lens[i]!;
      if (skip < len) rest.add(vec.mems[i]!, vec.offs[i]! + skip, len - skip);
      skip = Math.max(0, skip - len);
    }
    return rest;
  }
}

export interface Opened {
  fd: number;
  direct: boolean;
  align: number;
  info: FileInfo;
}

/** Opens the path of a log, past the page cache where that works, and finds out the alignment it wants. */
export function openLogPath(io: Io, path: string, options: LogOpenOptions & { flags?: number } = {}): Opened {
  const flags = (options.readOnly ? O_RDONLY : O_RDWR) | (options.flags ?? 0);
  let direct = options.direct ?? true;
  let fd = io.open('REPLOG:OPEN', path, direct ? flags | O_DIRECT : flags);
  if (fd === -ERRNO.EINVAL && direct) {
    direct = false;
    fd = io.open('REPLOG:OPEN', path, flags);
  }
  if (fd < 0) throw ioError(fd, 'opening the replog', path);
  const info = io.info('REPLOG:OPEN', fd);
  if (typeof info === 'number' || (info.kind !== 'file' && info.kind !== 'block')) {
    io.close('REPLOG:CLOSE', fd);
    if (typeof info === 'number') throw ioError(info, 'reading its size', path);
    throw new RepError('EINVAL', `${path}: a replog is a file or a block device, this is a ${info.kind}`);
  }
  return { fd, direct, align: direct ? probeAlignment(io, fd) : 1, info };
}

/** 512 where direct I/O of one sector to an address that is a multiple of 512 only is taken, else 4096. */
function probeAlignment(io: Io, fd: number): number {
  const mem = Mem.anon(ALIGN);
  const r = io.pread('REPLOG:PROBE', fd, mem, 512, 512, 512);
  mem.unmap();
  return r === -ERRNO.EINVAL ? ALIGN : 512;
}

/** Reads and judges the superblocks. */
export function readHeaderOf(io: Io, path: string, opened: Opened, mem: Mem): HeaderRead {
  let done = 0;
  while (done < 2 * SUPER_SIZE) {
    const r = io.pread('REPLOG:SUPER-READ', opened.fd, mem, done, 2 * SUPER_SIZE - done, done);
    if (r < 0) throw ioError(r, 'reading its superblocks', path);
    if (r === 0) break;
    done += r;
    // A file that ends within a block cannot be read on from there past the page cache.
    if (r % 512 !== 0) break;
  }
  return readHeader(mem.u8.subarray(0, done));
}

/** Why a file is not opened as a log, and what to do. */
export function headerError(path: string, header: Exclude<HeaderRead, { kind: 'log' }>): RepError {
  switch (header.kind) {
    case 'blank':
      return new RepError('EINVAL', `${path}: no replog here yet, or its creation was interrupted; use auto or create`);
    case 'foreign':
      return new RepError('EINVAL', `${path}: not a replog (foreign magic); name another file, or use create`);
    case 'damaged':
      return new RepError(
        'EINVAL',
        `${path}: both superblocks of this replog are damaged; restore them from a site, or use create to begin anew`,
      );
    case 'version':
      return new RepError(
        'EINVAL',
        `${path}: the replog has format version ${header.version}, this program knows up to ${RESIZED_VERSION}; use a newer reptool`,
      );
  }
}

function checkGeometry(path: string, s: Superblock, info: FileInfo): void {
  const whole = s.segment >= ALIGN && s.segment % ALIGN === 0 && s.base % s.segment === 0;
  if (!whole || resizedGeometry(s.size, s.segment)?.ring !== s.ring)
    throw new RepError(
      'EINVAL',
      `${path}: the superblock contradicts itself (size ${s.size}, ring ${s.ring}, segment ${s.segment})`,
    );
  // Bytes cut off the end are records lost: better said now than found by a reader.
  if (info.size < s.size)
    throw new RepError(
      'EINVAL',
      `${path}: truncated: ${info.size} bytes, but its superblock says ${s.size} (${formatSize(s.size)}); restore the file`,
    );
}
