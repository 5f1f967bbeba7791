/**
 * What a log's file needs before or after it changes its size, one piece per step: it may take minutes, or hang
 * in a call, so it runs where nobody waits (a helper thread). None of it touches a byte that the log uses by then.
 *
 *   grow   allocates and writes zeroes behind the present end, and syncs: later writes meet neither a full disk nor
 *          batches of an earlier log. Where it fails, the file has its old size again
 *   copy   from one place of the file to another, and syncs
 *   cut    gives the end of a file back; a block device keeps its size
 */
import type { Machine } from '../base/clock.js';
import { ERRNO, RepError, ioError } from '../base/errors.js';
import { readFull, writeFull, type Io } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { MIB, formatSize } from '../base/units.js';
import { openLogPath, type Opened } from './logfile.js';

export type LogJob =
  /** `from`, `to`: sizes; `start`, `end`: what is to be zeroes. Bytes of the file, all of them. */
  | { do: 'grow'; path: string; from: number; to: number; start: number; end: number }
  | { do: 'copy'; path: string; from: number; to: number; bytes: number }
  | { do: 'cut'; path: string; to: number };

const PIECE = 4 * MIB;

export class LogWork implements Machine {
  done = false;
  /** Bytes written, of those that are to be. */
  bytes = 0;
  readonly total: number;
  private readonly io: Io;
  private readonly job: LogJob;
  private opened: Opened | undefined;
  private mem: Mem | undefined;

  constructor(io: Io, job: LogJob) {
    this.io = io;
    this.job = job;
    this.total = job.do === 'grow' ? job.end - job.start : job.do === 'copy' ? job.bytes : 0;
  }

  /** The next piece; throws RepError, and then nothing is left of a growth. */
  step(): number {
    if (this.done) return 1000;
    try {
      if (this.opened === undefined) this.begin();
      else if (this.bytes < this.total) this.piece(this.opened);
      else this.finish(this.opened);
    } catch (error) {
      this.abort();
      throw error;
    }
    return 0;
  }

  /** Gives up. What is not known to be wanted any more is cut off again. */
  abort(): void {
    const { opened, job } = this;
    if (this.done) return;
    if (opened?.info.kind === 'file' && job.do === 'grow') this.io.ftruncate('REPLOG:CUT', opened.fd, job.from);
    this.close();
  }

  private begin(): void {
    const { io, job } = this;
    const opened = (this.opened = openLogPath(io, job.path));
    this.mem = Mem.lazy(PIECE);
    if (job.do !== 'grow') return;
    const { kind, size } = opened.info;
    if (kind === 'block') {
      if (size >= job.to) return;
      throw new RepError(
        'EINVAL',
        `${job.path}: the device has ${size} bytes (${formatSize(size)}), the log was to have ${job.to}; give at most that`,
      );
    }
    const r = io.fallocate('REPLOG:ALLOCATE', opened.fd, 0, 0, job.to);
    if (r === -ERRNO.EOPNOTSUPP) this.check(io.ftruncate('REPLOG:ALLOCATE', opened.fd, job.to), 'growing it');
    else this.check(r, 'growing it');
  }

  private piece({ fd }: Opened): void {
    const { io, job } = this;
    const mem = this.mem!;
    const len = Math.min(PIECE, this.total - this.bytes);
    if (job.do === 'copy') {
      this.check(readFull(io, 'REPLOG:COPY-READ', fd, mem, 0, len, job.from + this.bytes), 'copying within it');
      this.check(writeFull(io, 'REPLOG:COPY', fd, mem, 0, len, job.to + this.bytes), 'copying within it');
    } else if (job.do === 'grow') {
      this.check(writeFull(io, 'REPLOG:ZERO', fd, mem, 0, len, job.start + this.bytes), 'growing it');
    }
    this.bytes += len;
  }

  private finish({ fd, info }: Opened): void {
    const { io, job } = this;
    if (job.do === 'cut') {
      if (info.kind === 'file' && info.size > job.to) this.check(io.ftruncate('REPLOG:CUT', fd, job.to), 'cutting it');
    } else this.check(io.fdatasync('REPLOG:WORK-SYNC', fd), 'syncing it');
    this.close();
  }

  private close(): void {
    this.done = true;
    if (this.opened !== undefined) this.io.close('REPLOG:CLOSE', this.opened.fd);
    this.mem?.unmap();
  }

  private check(rc: number, what: string): void {
    if (rc >= 0) return;
    const { job } = this;
    if (rc === -ERRNO.ENOSPC && job.do === 'grow')
      throw new RepError(
        'ENOSPC',
        `${job.path}: no room for a log of ${formatSize(job.to)}, it keeps its ${formatSize(job.from)}; ` +
          'free some, or grow it by less',
      );
    if (rc === -ERRNO.EFBIG && job.do === 'grow')
      throw new RepError(
        'EINVAL',
        `${job.path}: its file system takes no file of ${formatSize(job.to)}; grow it by less`,
      );
    throw ioError(rc, what, job.path);
  }
}
