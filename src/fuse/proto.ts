/**
 * The kernel's FUSE protocol (linux/fuse.h, version 7.28 and later), little endian, with the kernel's names.
 * Offsets of requests count from the start of the request, those of reply bodies from the start of the body.
 * Nothing here allocates: `get…` read from a long-lived view, `put…` write into one, the caller sends it.
 *
 * Request header (40 bytes), then the body:      Reply header (16 bytes), then the body:
 *
 *    0  4  len, all of it                           0  4  len, all of it
 *    4  4  opcode                                   4  4  error: 0 or a negative errno (then no body)
 *    8  8  unique; bit 63: sent once more           8  8  unique, copied verbatim, bit 63 too
 *   16  8  nodeid
 *   24  4  uid, 28 gid, 32 pid                   A notification is a reply header with unique 0 and its
 *   36  2  total_extlen                          (positive) code in the place of the error.
 */
import { setU64 } from '../base/codec.js';

export const FUSE_ROOT_ID = 1;
export const FUSE_KERNEL_VERSION = 7;
/** What this program was written against; the reply to INIT never offers more. */
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** MAX_PAGES came with it: an older kernel cannot carry a megabyte per write. */
export const FUSE_OLDEST_MINOR_VERSION = 28;

export const FUSE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
} as const;

/** Opcodes that the kernel expects no answer to. */
export function wantsNoReply(opcode: number): boolean {
  return opcode === FUSE.FORGET || opcode === FUSE.BATCH_FORGET || opcode === FUSE.INTERRUPT;
}

/** Flags of INIT, low word. */
export const INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  /** flags2 counts only where both sides set it. */
  INIT_EXT: 1 << 30,
} as const;

/** Flags of INIT, high word (bit 32 and up of the kernel's names). */
export const INIT_FLAG2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  HAS_RESEND: 1 << 7,
} as const;

// Request header.
export const IN_LEN = 0;
export const IN_OPCODE = 4;
export const IN_UNIQUE = 8;
export const IN_NODEID = 16;
export const IN_UID = 24;
export const IN_GID = 28;
export const IN_PID = 32;
export const IN_HEADER = 40;

/** Bit 63 of unique, seen in its high word: the request was sent to an earlier daemon already. */
export const UNIQUE_RESEND_HI = 0x80000000;

export function isResent(uniqueHi: number): boolean {
  return (uniqueHi & UNIQUE_RESEND_HI) !== 0;
}

/** The high word of unique as it was when the request was sent the first time. */
export function firstUniqueHi(uniqueHi: number): number {
  return uniqueHi & 0x7fffffff;
}

// INIT: the request is 16 bytes of body from old kernels, 64 since 7.36.
export const INIT_MAJOR = 40;
export const INIT_MINOR = 44;
export const INIT_MAX_READAHEAD = 48;
export const INIT_FLAGS = 52;
export const INIT_FLAGS2 = 56;

// GETATTR: {getattr_flags u32, dummy u32, fh u64}
export const GETATTR_FLAGS = 40;
export const GETATTR_FH = 48;
export const FUSE_GETATTR_FH = 1;

// SETATTR (88 bytes of body): which fields count stands in valid.
export const SETATTR_VALID = 40;
export const SETATTR_FH = 48;
export const SETATTR_SIZE = 56;
export const SETATTR_LOCK_OWNER = 64;
export const SETATTR_ATIME = 72;
export const SETATTR_MTIME = 80;
export const SETATTR_ATIMENSEC = 96;
export const SETATTR_MTIMENSEC = 100;
export const SETATTR_MODE = 108;
export const SETATTR_UID = 116;
export const SETATTR_GID = 120;

export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  LOCKOWNER: 1 << 9,
  CTIME: 1 << 10,
} as const;

// OPEN and OPENDIR: {flags u32, open_flags u32}
export const OPEN_FLAGS = 40;

// READ and READDIR: {fh u64, offset u64, size u32, read_flags u32, lock_owner u64, flags u32, padding u32}
export const READ_FH = 40;
export const READ_OFFSET = 48;
export const READ_SIZE = 56;
export const READ_OPEN_FLAGS = 72;

// WRITE: the same shape; the data follows at 80.
export const WRITE_FH = 40;
export const WRITE_OFFSET = 48;
export const WRITE_SIZE = 56;
export const WRITE_FLAGS = 60;
export const WRITE_LOCK_OWNER = 64;
/** The open(2) flags: with DIRECT_IO, O_DSYNC here is the only sign of a synchronous write. */
export const WRITE_OPEN_FLAGS = 72;
export const WRITE_DATA = 80;
/** Set where the page cache writes back: fh is a guess then. */
export const FUSE_WRITE_CACHE = 1;

/** O_SYNC is __O_SYNC | O_DSYNC, so that one bit finds both. */
export const O_DSYNC = 0x1000;

// RELEASE and RELEASEDIR: {fh u64, flags u32, release_flags u32, lock_owner u64}
export const RELEASE_FH = 40;

// FSYNC and FSYNCDIR: {fh u64, fsync_flags u32, padding u32}
export const FSYNC_FH = 40;
export const FSYNC_FLAGS = 48;
export const FUSE_FSYNC_FDATASYNC = 1;

// FLUSH: {fh u64, unused u32, padding u32, lock_owner u64}
export const FLUSH_FH = 40;

// FALLOCATE: {fh u64, offset u64, length u64, mode u32, padding u32}
export const FALLOCATE_FH = 40;
export const FALLOCATE_OFFSET = 48;
export const FALLOCATE_LENGTH = 56;
export const FALLOCATE_MODE = 64;

// LSEEK: {fh u64, offset u64, whence u32, padding u32}; reply: {offset u64}
export const LSEEK_FH = 40;
export const LSEEK_OFFSET = 48;
export const LSEEK_WHENCE = 56;

// FORGET: {nlookup u64}; BATCH_FORGET: {count u32, dummy u32}, then count × {nodeid u64, nlookup u64}
export const FORGET_NLOOKUP = 40;
export const BATCH_FORGET_COUNT = 40;
export const BATCH_FORGET_LIST = 48;

// INTERRUPT: {unique u64} of the request that nobody waits for any more.
export const INTERRUPT_UNIQUE = 40;

// POLL: {fh u64, kh u64, flags u32, events u32}; reply: {revents u32, padding u32}
export const POLL_FH = 40;
export const POLL_KH = 48;
export const POLL_FLAGS = 56;
export const POLL_EVENTS = 60;

/** Names (LOOKUP, UNLINK, …) are the body, ended by a zero; `len` is the request's length. */
export function requestName(bytes: Buffer, at: number, len: number): string {
  let end = at + IN_HEADER;
  while (end < at + len && bytes[end] !== 0) end++;
  return bytes.toString('utf8', at + IN_HEADER, end);
}

export const OUT_HEADER = 16;

/** Writes a reply header; returns `len`, so that a caller can hand it straight to write. */
export function putHeader(
  view: DataView,
  at: number,
  len: number,
  error: number,
  uniqueLo: number,
  uniqueHi: number,
): number {
  view.setUint32(at, len, true);
  view.setInt32(at + 4, error, true);
  view.setUint32(at + 8, uniqueLo, true);
  view.setUint32(at + 12, uniqueHi, true);
  return len;
}

/** What stat(2) tells of a node; a long-lived object, so that replying to GETATTR makes nothing new. */
export interface Attr {
  ino: number;
  size: number;
  /** 512-byte blocks that it takes up. */
  blocks: number;
  /** Type and permissions, as in st_mode. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  blksize: number;
  /** Milliseconds since 1970, with a fraction. */
  atimeMs: number;
  mtimeMs: number;
  ctimeMs: number;
}

/**
 * attr (88 bytes):
 *
 *    0  8  ino       24  8  atime s    48  4  atimensec    60  4  mode     72  4  gid       84  4  flags
 *    8  8  size      32  8  mtime s    52  4  mtimensec    64  4  nlink    76  4  rdev
 *   16  8  blocks    40  8  ctime s    56  4  ctimensec    68  4  uid      80  4  blksize
 */
export const ATTR_BYTES = 88;

export function putAttr(view: DataView, at: number, attr: Attr): void {
  setU64(view, at, attr.ino);
  setU64(view, at + 8, attr.size);
  setU64(view, at + 16, attr.blocks);
  putTime(view, at + 24, at + 48, attr.atimeMs);
  putTime(view, at + 32, at + 52, attr.mtimeMs);
  putTime(view, at + 40, at + 56, attr.ctimeMs);
  view.setUint32(at + 60, attr.mode, true);
  view.setUint32(at + 64, attr.nlink, true);
  view.setUint32(at + 68, attr.uid, true);
  view.setUint32(at + 72, attr.gid, true);
  view.setUint32(at + 76, 0, true);
  view.setUint32(at + 80, attr.blksize, true);
  view.setUint32(at + 84, 0, true);
}

function putTime(view: DataView, secAt: number, nsecAt: number, ms: number): void {
  const seconds = Math.floor(ms / 1000);
  setU64(view, secAt, seconds);
  view.setUint32(nsecAt, Math.floor((ms - seconds * 1000) * 1e6), true);
}

/**
 * entry_out (128 bytes), the reply to LOOKUP and the like:
 *
 *    0  8  nodeid; 0 with a time: "there is none", remembered that long
 *    8  8  generation
 *   16  8  entry_valid s   32  4  entry_valid_nsec
 *   24  8  attr_valid s    36  4  attr_valid_nsec
 *   40 88  attr
 */
export const ENTRY_BYTES = 128;

/** `validMs` = how long the kernel may believe name and attributes without asking. Returns the body's length. */
export function putEntry(view: DataView, at: number, nodeid: number, validMs: number, attr: Attr): number {
  putEntryHead(view, at, nodeid, validMs);
  putAttr(view, at + 40, attr);
  return ENTRY_BYTES;
}

/** "No such name", which the kernel may remember for `validMs` (a plain ENOENT is never remembered). */
export function putNoEntry(view: DataView, at: number, validMs: number): number {
  putEntryHead(view, at, 0, validMs);
  for (let i = 40; i < ENTRY_BYTES; i += 4) view.setUint32(at + i, 0, true);
  return ENTRY_BYTES;
}

function putEntryHead(view: DataView, at: number, nodeid: number, validMs: number): void {
  setU64(view, at, nodeid);
  setU64(view, at + 8, 0);
  putTime(view, at + 16, at + 32, validMs);
  putTime(view, at + 24, at + 36, validMs);
}

/** attr_out: {attr_valid u64, attr_valid_nsec u32, dummy u32, attr 88}: the reply to GETATTR and SETATTR. */
export const ATTR_OUT_BYTES = 104;

export function putAttrOut(view: DataView, at: number, validMs: number, attr: Attr): number {
  putTime(view, at, at + 8, validMs);
  view.setUint32(at + 12, 0, true);
  putAttr(view, at + 16, attr);
  return ATTR_OUT_BYTES;
}

/** Flags of the reply to OPEN. */
export const FOPEN = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  NONSEEKABLE: 1 << 2,
  CACHE_DIR: 1 << 3,
  STREAM: 1 << 4,
  NOFLUSH: 1 << 5,
  PARALLEL_DIRECT_WRITES: 1 << 6,
} as const;

/** open_out: {fh u64, open_flags u32, backing_id i32} */
export const OPEN_BYTES = 16;

export function putOpen(view: DataView, at: number, fh: number, openFlags: number): number {
  setU64(view, at, fh);
  view.setUint32(at + 8, openFlags, true);
  view.setUint32(at + 12, 0, true);
  return OPEN_BYTES;
}

/** write_out: {size u32, padding u32} */
export const WRITE_OUT_BYTES = 8;

export function putWriteOut(view: DataView, at: number, size: number): number {
  view.setUint32(at, size, true);
  view.setUint32(at + 4, 0, true);
  return WRITE_OUT_BYTES;
}

/** lseek_out: {offset u64} */
export const LSEEK_OUT_BYTES = 8;

export function putLseekOut(view: DataView, at: number, offset: number): number {
  setU64(view, at, offset);
  return LSEEK_OUT_BYTES;
}

/** poll_out: {revents u32, padding u32} */
export const POLL_OUT_BYTES = 8;

export function putPollOut(view: DataView, at: number, revents: number): number {
  view.setUint32(at, revents, true);
  view.setUint32(at + 4, 0, true);
  return POLL_OUT_BYTES;
}

/**
 * statfs_out (80 bytes): {blocks u64, bfree u64, bavail u64, files u64, ffree u64, bsize u32, namelen u32,
 * frsize u32, padding u32, spare 6 × u32}
 */
export const STATFS_BYTES = 80;

export function putStatfs(
  view: DataView,
  at: number,
  blockSize: number,
  blocks: number,
  free: number,
  files: number,
): number {
  setU64(view, at, blocks);
  setU64(view, at + 8, free);
  setU64(view, at + 16, free);
  setU64(view, at + 24, files);
  setU64(view, at + 32, 0);
  view.setUint32(at + 40, blockSize, true);
  view.setUint32(at + 44, 255, true);
  view.setUint32(at + 48, blockSize, true);
  for (let i = 52; i < STATFS_BYTES; i += 4) view.setUint32(at + i, 0, true);
  return STATFS_BYTES;
}

export const DT_DIR = 4;
export const DT_REG = 8;

/**
 * dirent: {ino u64, off u64, namelen u32, type u32, name}, padded with zeroes to 8. `off` is what READDIR
 * brings back to go on behind this entry. The name comes as bytes, encoded once when the node is made.
 */
const DIRENT_HEAD = 24;

/** Adds an entry at `at` where it ends by `end`; returns the place behind it, or `at` where it does not fit. */
export function putDirent(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  end: number,
  ino: number,
  off: number,
  type: number,
  name: Uint8Array,
): number {
  const next = at + ((DIRENT_HEAD + name.length + 7) & ~7);
  if (next > end) return at;
  setU64(view, at, ino);
  setU64(view, at + 8, off);
  view.setUint32(at + 16, name.length, true);
  view.setUint32(at + 20, type, true);
  bytes.set(name, at + DIRENT_HEAD);
  bytes.fill(0, at + DIRENT_HEAD + name.length, next);
  return next;
}

/** Codes of notifications. */
export const NOTIFY = { POLL: 1, INVAL_INODE: 2, INVAL_ENTRY: 3, RESEND: 7 } as const;

/** "Send every request once more that was read and not answered": what a new daemon lives on. */
export function putResend(view: DataView, at: number): number {
  return putHeader(view, at, OUT_HEADER, NOTIFY.RESEND, 0, 0);
}

/** "Ask again for the attributes of this node" (off -1) and drop its cached pages from 0 (off 0). */
export function putInvalInode(view: DataView, at: number, nodeid: number, pages: boolean): number {
  putHeader(view, at, OUT_HEADER + 24, NOTIFY.INVAL_INODE, 0, 0);
  setU64(view, at + 16, nodeid);
  view.setInt32(at + 24, pages ? 0 : -1, true);
  view.setInt32(at + 28, pages ? 0 : -1, true);
  setU64(view, at + 32, 0);
  return OUT_HEADER + 24;
}

/** "Forget that name of folder `parent`": {parent u64, namelen u32, flags u32, name, 0}. */
export function putInvalEntry(view: DataView, bytes: Uint8Array, at: number, parent: number, name: Uint8Array): number {
  const len = OUT_HEADER + 16 + name.length + 1;
  putHeader(view, at, len, NOTIFY.INVAL_ENTRY, 0, 0);
  setU64(view, at + 16, parent);
  view.setUint32(at + 24, name.length, true);
  view.setUint32(at + 28, 0, true);
  bytes.set(name, at + 32);
  bytes[at + 32 + name.length] = 0;
  return len;
}

/** "Poll the file behind kernel handle `kh` again": {kh u64}. */
export function putPollWakeup(view: DataView, at: number, kh: number): number {
  putHeader(view, at, OUT_HEADER + 8, NOTIFY.POLL, 0, 0);
  setU64(view, at + 16, kh);
  return OUT_HEADER + 8;
}
