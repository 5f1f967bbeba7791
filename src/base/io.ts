/**
 * Every call that can fail, block or be torn goes through here under a name, such as `REPLOG:SYNC`: the seam
 * at which tests inject one fault in exactly one place, and at which the simulator puts its disks.
 *
 * All calls are synchronous and return a count or the negative errno. A short count is returned as it is;
 * `readFull` and `writeFull` turn it into "all or an error".
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as sys from './sys.js';
import { ERRNO } from './errors.js';
import { AioWriter } from './aiowrite.js';
import type { IoVec, Mem } from './mem.js';
import type { WriteList } from './writelist.js';

/** `AREA:WHAT`, upper case, for example `REPLOG:WRITE`, `APPLY:LOCAL`, `SITE:STAGE-SYNC`. */
export type IoCall = `${string}:${string}`;

export interface FileInfo {
  /** Bytes; for a block device its capacity. */
  readonly size: number;
  readonly kind: 'file' | 'block' | 'dir' | 'other';
  /** Identity of the file behind the descriptor: `dev:inode`, or `blk:rdev`. */
  readonly id: string;
  /** Bytes that the file system has allocated for it. */
  readonly allocated: number;
  /** A block device that was set to refuse writes; it opens for writing all the same. */
  readonly readOnly?: boolean;
}

export interface Io {
  /** `flags` as of open(2) (see sys.O_*). Returns a descriptor or the negative errno. */
  open(call: IoCall, file: string, flags: number, mode?: number): number;
  close(call: IoCall, fd: number): number;
  /** Facts about an open descriptor, or the negative errno. */
  info(call: IoCall, fd: number): FileInfo | number;
  /** Facts about a path without opening it, or the negative errno. */
  stat(call: IoCall, file: string): FileInfo | number;
  pread(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number;
  pwrite(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number;
  pwritev(call: IoCall, fd: number, vec: IoVec, pos: number): number;
  /**
   * Does all writes of the list, any of them at the same time and in any order; their results stand in the list.
   * Other writes go on where one fails.
   */
  pwriteMany(call: IoCall, list: WriteList): void;
  fdatasync(call: IoCall, fd: number): number;
  /** `mode` 0 allocates (and may grow), 3 discards, 17 zeroes, as of fallocate(2). */
  fallocate(call: IoCall, fd: number, mode: number, pos: number, len: number): number;
  /** The first byte at or behind `pos` that is no hole (SEEK_DATA), ENXIO where there is none. Not everywhere. */
  nextData?(call: IoCall, fd: number, pos: number): number;
  ftruncate(call: IoCall, fd: number, size: number): number;
  /** Replaces `file` with `text` durably: temporary file, sync, rename, sync of the folder. */
  replaceFile(call: IoCall, file: string, text: string): number;
  /** The text of a small file, or the negative errno. */
  readFile(call: IoCall, file: string): string | number;
  unlink(call: IoCall, file: string): number;
  /** Durable once the folder is synced. */
  rename(call: IoCall, from: string, to: string): number;
  /** Makes a folder and its parents; 0 also where it exists. */
  mkdir(call: IoCall, dir: string, mode?: number): number;
  /** Makes the entries of a folder durable. */
  syncDir(call: IoCall, dir: string): number;
  /** Extended attribute `user.<name>` of an open file; EOPNOTSUPP where the file system has none. */
  setXattr(call: IoCall, fd: number, name: string, value: Uint8Array): number;
  /** Its value, or the negative errno (ENODATA where it is not set). */
  getXattr(call: IoCall, fd: number, name: string): Uint8Array | number;
}

function errnoOfError(error: unknown): number {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return -(ERRNO[code as keyof typeof ERRNO] ?? ERRNO.EIO);
}

function attempt(work: () => number | void): number {
  try {
    return work() ?? 0;
  } catch (error) {
    return errnoOfError(error);
  }
}

const size64 = Buffer.alloc(8);

function infoOf(st: fs.Stats, fd: number): FileInfo {
  if (st.isBlockDevice()) {
    let size = 0;
    if (fd >= 0 && sys.ioctl(fd, sys.BLKGETSIZE64, sys.addressOf(size64)) >= 0)
      size = Number(size64.readBigUInt64LE(0));
    const locked = fd >= 0 && sys.ioctl(fd, sys.BLKROGET, sys.addressOf(size64)) >= 0 && size64.readInt32LE(0) !== 0;
    return { size, kind: 'block', id: `blk:${st.rdev}`, allocated: size, readOnly: locked };
  }
  const kind = st.isFile() ? 'file' : st.isDirectory() ? 'dir' : 'other';
  return { size: st.size, kind, id: `${st.dev}:${st.ino}`, allocated: st.blocks * 512 };
}

/** Writes that one thread has under way at most. */
const DEPTH = 32;
/** The thread's own; null where the kernel gave none. */
let writer: AioWriter | null | undefined;

/** One after the other, each under its name: what an Io does that cannot do several at once. */
export function writeEach(io: Pick<Io, 'pwritev'>, call: IoCall, list: WriteList): void {
  for (let i = 0; i < list.count; i++)
    list.results[i] = io.pwritev(call, list.fds[i]!, list.vecs[i]!, list.positions[i]!);
}

/** The real thing. Interrupted calls are repeated; everything else is reported as it is. */
/** Far more than any text file of a group holds. */
const MOST_TEXT = 16 * 1024 * 1024;

/**
 * The text of a small file. A FIFO, a device or something very large in its place is refused at once (EINVAL, EFBIG):
 * waiting for a writer that never comes would hang whoever looks.
 */
export function readText(file: string): string {
  const fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const info = fs.fstatSync(fd);
    const code = info.isDirectory()
      ? 'EISDIR'
      : !info.isFile()
        ? 'EINVAL'
        : info.size > MOST_TEXT
          ? 'EFBIG'
          : undefined;
    if (code !== undefined) throw Object.assign(new Error(`${file}: ${code}`), { code, errno: -ERRNO[code] });
    return fs.readFileSync(fd, 'utf8');
  } finally {
    fs.closeSync(fd);
  }
}

export const realIo: Io = {
  open(_call, file, flags, mode = 0o600) {
    try {
      // Without O_NONBLOCK a FIFO in the place of a file would hang whoever opens it; files do not mind.
      return fs.openSync(file, flags | sys.O_CLOEXEC | sys.O_NONBLOCK, mode);
    } catch (error) {
      return errnoOfError(error);
    }
  },
  close: (_call, fd) => attempt(() => fs.closeSync(fd)),
  info(_call, fd) {
    try {
      return infoOf(fs.fstatSync(fd), fd);
    } catch (error) {
      return errnoOfError(error);
    }
  },
  stat(_call, file) {
    try {
      const st = fs.statSync(file);
      if (!st.isBlockDevice()) return infoOf(st, -1);
      const fd = fs.openSync(file, sys.O_RDONLY);
      try {
        return infoOf(st, fd);
      } finally {
        fs.closeSync(fd);
      }
    } catch (error) {
      return errnoOfError(error);
    }
  },
  pread(_call, fd, mem, off, len, pos) {
    for (;;) {
      const r = sys.pread(fd, mem.addr + off, len, pos);
      if (r !== -ERRNO.EINTR) return r;
    }
  },
  pwrite(_call, fd, mem, off, len, pos) {
    for (;;) {
      const r = sys.pwrite(fd, mem.addr + off, len, pos);
      if (r !== -ERRNO.EINTR) return r;
    }
  },
  pwritev(_call, fd, vec, pos) {
    for (;;) {
      const r = sys.pwritev(fd, vec.table.addr, vec.count, pos);
      if (r !== -ERRNO.EINTR) return r;
    }
  },
  pwriteMany(call, list) {
    if (list.count > 1 && writer === undefined) writer = AioWriter.make(DEPTH) ?? null;
    if (list.count > 1 && writer) writer.run(list);
    else writeEach(this, call, list);
  },
  fdatasync: (_call, fd) => sys.fdatasync(fd),
  fallocate: (_call, fd, mode, pos, len) => sys.fallocate(fd, mode, pos, len),
  nextData: (_call, fd, pos) => sys.lseek(fd, pos, sys.SEEK_DATA),
  ftruncate: (_call, fd, size) => sys.ftruncate(fd, size),
  replaceFile(call, file, text) {
    const temporary = `${file}.new`;
    const rc = attempt(() => {
      const fd = fs.openSync(temporary, 'w', 0o600);
      try {
        fs.writeFileSync(fd, text);
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
      fs.renameSync(temporary, file);
    });
    return rc < 0 ? rc : this.syncDir(call, path.dirname(file));
  },
  readFile(_call, file) {
    try {
      return readText(file);
    } catch (error) {
      return errnoOfError(error);
    }
  },
  unlink: (_call, file) => attempt(() => fs.unlinkSync(file)),
  rename: (_call, from, to) => attempt(() => fs.renameSync(from, to)),
  mkdir: (_call, dir, mode = 0o700) => attempt(() => void fs.mkdirSync(dir, { recursive: true, mode })),
  syncDir(_call, dir) {
    return attempt(() => {
      const fd = fs.openSync(dir, sys.O_RDONLY | sys.O_DIRECTORY);
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    });
  },
  setXattr: (_call, fd, name, value) => sys.fsetxattr(fd, `user.${name}`, value, value.length, 0),
  getXattr(_call, fd, name) {
    const value = new Uint8Array(1024);
    const r = sys.fgetxattr(fd, `user.${name}`, value, value.length);
    return r < 0 ? r : value.slice(0, r);
  },
};

/** Reads all of `len` bytes or returns the negative errno; EIO where the file ends early. */
export function readFull(io: Io, call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
  let done = 0;
  while (done < len) {
    const r = io.pread(call, fd, mem, off + done, len - done, pos + done);
    if (r < 0) return r;
    if (r === 0) return -ERRNO.EIO;
    done += r;
  }
  return len;
}

/** Writes all of `len` bytes or returns the negative errno. */
export function writeFull(io: Io, call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
  let done = 0;
  while (done < len) {
    const r = io.pwrite(call, fd, mem, off + done, len - done, pos + done);
    if (r < 0) return r;
    if (r === 0) return -ERRNO.ENOSPC;
    done += r;
  }
  return len;
}
