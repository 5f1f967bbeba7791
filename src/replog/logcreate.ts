/**
 * Making a log. Its whole area is allocated and written once, so that later writes meet neither a full disk
 * nor the page cache's first-touch cost, and so that no batch of an earlier log is left in it. The superblock
 * comes last: until then the file is blank, and a creation that was interrupted is simply begun again.
 */
import { dirname } from 'node:path';
import type { Clock, Machine } from '../base/clock.js';
import { ERRNO, RepError, ioError } from '../base/errors.js';
import { writeFull, type Io } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { O_CREAT } from '../base/sys.js';
import { MIB, formatSize } from '../base/units.js';
import { DATA_START, SUPER_SIZE, encodeSuperblock, firstPlace } from './format.js';
import {
  LogFile,
  MIN_LOG,
  headerError,
  logGeometry,
  openLogPath,
  readHeaderOf,
  type HeaderRead,
  type LogGeometry,
  type Opened,
} from './logfile.js';

export type LogMode = 'auto' | 'create' | 'open';

export interface LogSpec {
  /** Bytes; left out for a block device = all of it. */
  size?: number;
  /** 32 hexadecimal digits each. */
  logId: string;
  indexId: string;
  indexGeneration: number;
  group: string;
}

const PIECE = 4 * MIB;

/** Makes a log, one piece per step. */
export class LogCreator implements Machine {
  /** Bytes to be written, and those that are. */
  readonly total: number;
  bytes = 0;
  done = false;

  private readonly io: Io;
  private readonly path: string;
  private readonly spec: LogSpec;
  private readonly clock: Clock;
  private readonly geometry: LogGeometry;
  private readonly opened: Opened;
  /** True where the file is of our making, and goes when it fails. */
  private readonly ours: boolean;
  private readonly mem = Mem.anon(PIECE);
  private allocated = false;

  constructor(io: Io, path: string, spec: LogSpec, clock: Clock) {
    this.io = io;
    this.path = path;
    this.spec = spec;
    this.clock = clock;
    if (spec.size !== undefined) geometryOf(path, spec.size);
    const before = io.stat('REPLOG:STAT', path);
    this.ours = before === -ERRNO.ENOENT;
    this.opened = openLogPath(io, path, { flags: this.ours ? O_CREAT : 0 });
    try {
      const { info } = this.opened;
      if (spec.size === undefined && info.kind !== 'block')
        throw new RepError('EINVAL', `${path}: a replog in a file needs a size, ${formatSize(MIN_LOG)} or more`);
      const size = spec.size ?? info.size - (info.size % 512);
      this.geometry = geometryOf(path, size);
      if (info.kind === 'block' && info.size < size)
        throw new RepError('EINVAL', `${path}: the device has ${info.size} bytes, the replog was to have ${size}`);
    } catch (error) {
      this.abort();
      throw error;
    }
    this.total = DATA_START + this.geometry.ring;
  }

  /** Writes the next piece; throws RepError, and then removes what was made. */
  step(): number {
    if (this.done) return 1000;
    try {
      if (!this.allocated) this.allocate();
      else if (this.bytes < this.total) this.zeroPiece();
      else this.finish();
    } catch (error) {
      this.abort();
      throw error;
    }
    return 0;
  }

  /** Gives up and removes what was made. A file that was there before stays, blank. */
  abort(): void {
    if (this.done) return;
    this.io.close('REPLOG:CLOSE', this.opened.fd);
    this.mem.unmap();
    if (this.ours) this.io.unlink('REPLOG:REMOVE', this.path);
    this.done = true;
  }

  private allocate(): void {
    const { io, path, opened, geometry } = this;
    if (opened.info.kind === 'file') {
      // First, so that an old log in this file is still whole where there is no room for the new one.
      const r = io.fallocate('REPLOG:ALLOCATE', opened.fd, 0, 0, geometry.size);
      if (r === -ERRNO.EOPNOTSUPP) this.check(io.ftruncate('REPLOG:ALLOCATE', opened.fd, geometry.size), 'ftruncate');
      else if (r < 0) throw creationError(path, geometry.size, r);
      else if (opened.info.size > geometry.size)
        this.check(io.ftruncate('REPLOG:ALLOCATE', opened.fd, geometry.size), 'ftruncate');
    }
    // The old superblocks go before what they describe.
    this.write(0, DATA_START);
    this.check(io.fdatasync('REPLOG:ZERO-SYNC', opened.fd), 'fdatasync');
    this.bytes = DATA_START;
    this.allocated = true;
  }

  private zeroPiece(): void {
    const len = Math.min(PIECE, this.total - this.bytes);
    this.write(this.bytes, len);
    this.bytes += len;
  }

  private finish(): void {
    const { io, path, spec, opened, geometry, mem } = this;
    this.check(io.fdatasync('REPLOG:ZERO-SYNC', opened.fd), 'fdatasync');
    const start = firstPlace(spec.logId);
    encodeSuperblock(mem.u8, {
      serial: 1,
      logId: spec.logId,
      indexId: spec.indexId,
      indexGeneration: spec.indexGeneration,
      size: geometry.size,
      ring: geometry.ring,
      base: 0,
      oldest: 0,
      segment: geometry.segment,
      clean: true,
      writtenUs: this.clock.wallUs(),
      reign: 0,
      reignId: '0'.repeat(32),
      group: spec.group,
      checkpoint: start,
      head: start,
      durable: start,
    });
    const r = writeFull(io, 'REPLOG:SUPER', opened.fd, mem, 0, SUPER_SIZE, 0);
    if (r < 0) throw creationError(path, geometry.size, r);
    this.check(io.fdatasync('REPLOG:SUPER-SYNC', opened.fd), 'fdatasync');
    if (this.ours) this.check(io.syncDir('REPLOG:SYNC-DIR', dirname(path)), 'syncing its folder');
    io.close('REPLOG:CLOSE', opened.fd);
    mem.unmap();
    this.done = true;
  }

  private write(pos: number, len: number): void {
    const r = writeFull(this.io, 'REPLOG:ZERO', this.opened.fd, this.mem, 0, len, pos);
    if (r < 0) throw creationError(this.path, this.geometry.size, r);
  }

  private check(rc: number, call: string): void {
    if (rc < 0) throw ioError(rc, call, this.path);
  }
}

function geometryOf(path: string, size: number): LogGeometry {
  const geometry = logGeometry(size);
  if (geometry === undefined)
    throw new RepError(
      'EINVAL',
      `${path}: a replog cannot have ${size} bytes; give a multiple of 512 from ${MIN_LOG} (${formatSize(MIN_LOG)}) up`,
    );
  return geometry;
}

function creationError(path: string, size: number, rc: number): RepError {
  if (rc === -ERRNO.ENOSPC)
    return new RepError(
      'ENOSPC',
      `${path}: no room for a replog of ${formatSize(size)}; free some, or make it smaller`,
    );
  return ioError(rc, 'creating the replog', path);
}

/** What stands at `path`; undefined where nothing does. */
export function inspectLog(io: Io, path: string): HeaderRead | undefined {
  const info = io.stat('REPLOG:STAT', path);
  if (info === -ERRNO.ENOENT) return undefined;
  const opened = openLogPath(io, path, { readOnly: true });
  const mem = Mem.anon(2 * SUPER_SIZE);
  try {
    return readHeaderOf(io, path, opened, mem);
  } finally {
    io.close('REPLOG:CLOSE', opened.fd);
    mem.unmap();
  }
}

/**
 * What `mode` means for what stands at `path`: an open log, or a creator to be stepped until it is done.
 *
 *            nothing   blank    foreign  clean log  open log  damaged  newer version
 *   open     ENOENT    EINVAL   EINVAL   open       open      EINVAL   EINVAL
 *   auto     create    create   create   open       open      EINVAL   EINVAL
 *   create   create    create   create   create     EPERM     create   EINVAL
 *
 * `auto` never makes a new log over one that may hold records: that would throw them away without a name.
 */
export function planLog(io: Io, path: string, mode: LogMode, spec: LogSpec, clock: Clock): LogFile | LogCreator {
  const found = inspectLog(io, path);
  if (found === undefined && mode === 'open')
    throw new RepError('ENOENT', `${path}: there is no replog; use auto or create to make one`);
  if (found?.kind === 'version') throw headerError(path, found);
  if (found?.kind === 'log' && mode === 'create' && !found.value.clean)
    throw new RepError(
      'EPERM',
      `${path}: this replog is active or was not closed cleanly; open it, or remove it if its records are not wanted`,
    );
  if (found?.kind === 'log' && mode !== 'create') return LogFile.open(io, path);
  if (found !== undefined && found.kind !== 'log' && (mode === 'open' || (mode === 'auto' && found.kind === 'damaged')))
    throw headerError(path, found);
  return new LogCreator(io, path, spec, clock);
}

/** Makes what was a log blank again: a creation that was taken back must not be met as a log later. */
export function blankLog(io: Io, path: string): void {
  const opened = openLogPath(io, path, {});
  const mem = Mem.anon(2 * SUPER_SIZE);
  try {
    const rc = writeFull(io, 'REPLOG:BLANK', opened.fd, mem, 0, 2 * SUPER_SIZE, 0);
    if (rc < 0) throw ioError(rc, 'blanking the replog', path);
    const synced = io.fdatasync('REPLOG:BLANK', opened.fd);
    if (synced < 0) throw ioError(synced, 'blanking the replog', path);
  } finally {
    io.close('REPLOG:CLOSE', opened.fd);
    mem.unmap();
  }
}

/** `planLog` and all its steps. */
export function obtainLog(
  io: Io,
  path: string,
  mode: LogMode,
  spec: LogSpec,
  clock: Clock,
  progress?: (bytes: number, total: number) => void,
): { log: LogFile; created: boolean } {
  const plan = planLog(io, path, mode, spec, clock);
  if (plan instanceof LogFile) return { log: plan, created: false };
  while (!plan.done) {
    plan.step();
    progress?.(plan.bytes, plan.total);
  }
  return { log: LogFile.open(io, path), created: true };
}
