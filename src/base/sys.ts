/**
 * The calls that Node lacks, through koffi, each under its own name. All of them return what libc returns,
 * or the negative errno; none throws. Addresses are numbers (user space ends below 2^47).
 *
 * koffi's calls are synchronous and usable from any worker; a call costs 250–500 ns.
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

const c = {
  read: libc.func('long read(int fd, void *buf, unsigned long n)'),
  write: libc.func('long write(int fd, void *buf, unsigned long n)'),
  readv: libc.func('long readv(int fd, void *iov, int n)'),
  writev: libc.func('long writev(int fd, void *iov, int n)'),
  pread: libc.func('long pread(int fd, void *buf, unsigned long n, long off)'),
  pwrite: libc.func('long pwrite(int fd, void *buf, unsigned long n, long off)'),
  preadv2: libc.func('long preadv2(int fd, void *iov, int n, long off, int flags)'),
  pwritev: libc.func('long pwritev(int fd, void *iov, int n, long off)'),
  fdatasync: libc.func('int fdatasync(int fd)'),
  fsync: libc.func('int fsync(int fd)'),
  ftruncate: libc.func('int ftruncate(int fd, long len)'),
  fallocate: libc.func('int fallocate(int fd, int mode, long off, long len)'),
  lseek: libc.func('long lseek(int fd, long off, int whence)'),
  ioctl: libc.func('int ioctl(int fd, unsigned long req, void *arg)'),
  poll: libc.func('int poll(void *fds, unsigned long n, int timeout)'),
  fcntl: libc.func('int fcntl(int fd, int cmd, long arg)'),
  flock: libc.func('int flock(int fd, int op)'),
  prctl: libc.func('int prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)'),
  mount: libc.func('int mount(str src, str dir, str type, unsigned long flags, str data)'),
  umount2: libc.func('int umount2(str dir, int flags)'),
  memfdCreate: libc.func('int memfd_create(str name, unsigned int flags)'),
  eventfd: libc.func('int eventfd(unsigned int init, int flags)'),
  mmap: libc.func('void *mmap(void *addr, unsigned long len, int prot, int flags, int fd, long off)'),
  munmap: libc.func('int munmap(void *addr, unsigned long len)'),
  madvise: libc.func('int madvise(void *addr, unsigned long len, int advice)'),
  memcpy: libc.func('void *memcpy(void *to, void *from, unsigned long n)'),
  memset: libc.func('void *memset(void *to, int byte, unsigned long n)'),
  syscall: libc.func('long syscall(long n, long a, long b, long c, long d, long e)'),
  fsetxattr: libc.func('int fsetxattr(int fd, str name, void *value, unsigned long size, int flags)'),
  fgetxattr: libc.func('long fgetxattr(int fd, str name, void *value, unsigned long size)'),
  socketpair: libc.func('int socketpair(int domain, int type, int protocol, void *pair)'),
  recvmsg: libc.func('long recvmsg(int fd, void *msg, int flags)'),
};

type Fn = (...args: unknown[]) => number;

function errnoOf(): number {
  return -koffi.errno();
}

/** Calls that return -1 on failure, turned into "result or negative errno". */
function rc(fn: Fn): (...args: unknown[]) => number {
  return (...args) => {
    const r = fn(...args);
    return r < 0 ? errnoOf() : r;
  };
}

export const O_DIRECT = 0x4000;
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_CREAT = 0x40;
export const O_EXCL = 0x80;
export const O_CLOEXEC = 0x80000;
export const O_NONBLOCK = 0x800;
export const O_DIRECTORY = 0x10000;

export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_ZERO_RANGE = 16;

export const RWF_NOWAIT = 8;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export const POLLIN = 1;
export const POLLERR = 8;
export const POLLHUP = 16;

export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MNT_DETACH = 2;

export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/** ioctl numbers of block devices. */
export const BLKGETSIZE64 = 0x80081272;
export const BLKSSZGET = 0x1268;
export const BLKROGET = 0x125e;

const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
const PR_SET_IO_FLUSHER = 57;
const PR_SET_NAME = 15;
const PR_SET_PTRACER = 0x59616d61;
const PR_SET_PTRACER_ANY = -1;

const SYS = {
  io_setup: 206,
  io_destroy: 207,
  io_getevents: 208,
  io_submit: 209,
  gettid: 186,
  pidfd_open: 434,
  pidfd_getfd: 438,
} as const;
// The numbers above are those of x86-64; aarch64 uses the generic table.
if (process.arch === 'arm64') {
  Object.assign(SYS, { io_setup: 0, io_destroy: 1, io_submit: 2, io_getevents: 4, gettid: 178 });
}

const rawMmap = c.mmap as unknown as (...args: unknown[]) => unknown;

/** Raw calls for hot loops: -1 on failure, then `errno()` holds the (positive) reason. */
export const raw = {
  read: c.read as unknown as (fd: number, addr: number, n: number) => number,
  write: c.write as unknown as (fd: number, addr: number, n: number) => number,
  readv: c.readv as unknown as (fd: number, iov: number, n: number) => number,
  writev: c.writev as unknown as (fd: number, iov: number, n: number) => number,
  preadv2: c.preadv2 as unknown as (fd: number, iov: number, n: number, off: number, flags: number) => number,
  poll: c.poll as unknown as (fds: number, n: number, timeoutMs: number) => number,
  syscall: c.syscall as unknown as (n: number, a: number, b: number, c: number, d: number, e: number) => number,
  memcpy: c.memcpy as unknown as (to: number, from: number, n: number) => void,
  memset: c.memset as unknown as (to: number, byte: number, n: number) => void,
  errno: (): number => koffi.errno(),
};

export const read = rc(c.read) as (fd: number, addr: number, n: number) => number;
export const write = rc(c.write) as (fd: number, addr: number, n: number) => number;
export const pread = rc(c.pread) as (fd: number, addr: number, n: number, off: number) => number;
export const pwrite = rc(c.pwrite) as (fd: number, addr: number, n: number, off: number) => number;
export const preadv2 = rc(c.preadv2) as (fd: number, iov: number, n: number, off: number, flags: number) => number;
export const pwritev = rc(c.pwritev) as (fd: number, iov: number, n: number, off: number) => number;
export const fdatasync = rc(c.fdatasync) as (fd: number) => number;
export const fsync = rc(c.fsync) as (fd: number) => number;
export const ftruncate = rc(c.ftruncate) as (fd: number, len: number) => number;
export const fallocate = rc(c.fallocate) as (fd: number, mode: number, off: number, len: number) => number;
export const lseek = rc(c.lseek) as (fd: number, off: number, whence: number) => number;
export const ioctl = rc(c.ioctl) as (fd: number, req: number, arg: number) => number;
export const flock = rc(c.flock) as (fd: number, op: number) => number;
export const mount = rc(c.mount) as (src: string, dir: string, type: string, flags: number, data: string) => number;
export const umount2 = rc(c.umount2) as (dir: string, flags: number) => number;
export const memfdCreate = rc(c.memfdCreate) as (name: string, flags: number) => number;
export const madvise = rc(c.madvise) as (addr: number, len: number, advice: number) => number;
export const munmap = rc(c.munmap) as (addr: number, len: number) => number;
export const fsetxattr = rc(c.fsetxattr) as (
  fd: number,
  name: string,
  value: Uint8Array,
  n: number,
  flags: number,
) => number;
export const fgetxattr = rc(c.fgetxattr) as (fd: number, name: string, value: Uint8Array, n: number) => number;

const syscall = rc(c.syscall) as (n: number, a: number, b: number, c: number, d: number, e: number) => number;

/** A counter that can be waited for with poll; non-blocking. */
export function eventfd(): number {
  return rc(c.eventfd)(0, O_NONBLOCK | O_CLOEXEC);
}

export function setNonblocking(fd: number): number {
  const flags = rc(c.fcntl)(fd, F_GETFL, 0);
  return flags < 0 ? flags : rc(c.fcntl)(fd, F_SETFL, flags | O_NONBLOCK);
}

/** Waits until process `pid` ends; resolves on a thread of the pool, so that the caller's loop goes on. */
export function pollAsync(fds: number, n: number, timeoutMs: number): Promise<number> {
  return new Promise((resolve) => {
    c.poll.async(fds, n, timeoutMs, (_error: unknown, r: number) => resolve(r));
  });
}

export function pidfdOpen(pid: number): number {
  return syscall(SYS.pidfd_open, pid, 0, 0, 0, 0);
}

/** Duplicates descriptor `target` of the process behind `pidfd` into this one. */
export function pidfdGetfd(pidfd: number, target: number): number {
  return syscall(SYS.pidfd_getfd, pidfd, target, 0, 0, 0);
}

export function gettid(): number {
  return syscall(SYS.gettid, 0, 0, 0, 0, 0);
}

/** Marks this process (inherited by children) as part of the write-out path; needs CAP_SYS_RESOURCE. */
export function setIoFlusher(): number {
  return rc(c.prctl)(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

/** Names the calling thread for ps and top, at most 15 bytes. */
export function setThreadName(name: string): void {
  const raw = Buffer.from(`${name.slice(0, 15)}\0`);
  rc(c.prctl)(PR_SET_NAME, Number(koffi.address(raw)), 0, 0, 0);
}

/** libaio by system call; `ctxAt` is the address of an 8-byte zeroed aio_context_t. */
export function ioSetup(events: number, ctxAt: number): number {
  return syscall(SYS.io_setup, events, ctxAt, 0, 0, 0);
}
export function ioDestroy(ctx: number): number {
  return syscall(SYS.io_destroy, ctx, 0, 0, 0, 0);
}
/** Returns the number of control blocks taken, or the negative errno. */
export function ioSubmit(ctx: number, n: number, pointersAt: number): number {
  return syscall(SYS.io_submit, ctx, n, pointersAt, 0, 0);
}
export function ioGetevents(ctx: number, min: number, max: number, eventsAt: number): number {
  return syscall(SYS.io_getevents, ctx, min, max, eventsAt, 0);
}

export const PROT_READ_WRITE = 3;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_POPULATE = 0x8000;
export const MADV_DONTNEED = 4;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_COLLAPSE = 25;

/** Returns the address, or 0 on failure. */
export function mmap(addr: number, len: number, prot: number, flags: number, fd: number, off: number): number {
  const p = rawMmap(addr === 0 ? null : addr, len, prot, flags, fd, off);
  const at = p === null ? 0 : Number(koffi.address(p));
  return at === 0 || at > 0x7fffffffffff ? 0 : at;
}

/** A view of `len` bytes of this process's memory at `addr`; valid as long as it stays mapped. */
export function memoryView(addr: number, len: number): ArrayBuffer {
  return koffi.view(addr, len);
}

export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

/** umount2 flags. FORCE on FUSE ends the connection even where the mount is busy: pending requests fail. */
export const MNT_FORCE = 1;
export const UMOUNT_NOFOLLOW = 8;

/** umount2 on a thread of the pool: whoever serves the mount, or watches who serves it, must not wait for it. */
export function umountAsync(dir: string, flags: number): Promise<number> {
  return new Promise((resolve) => {
    c.umount2.async(dir, flags, (_error: unknown, r: number) => resolve(r < 0 ? errnoOf() : r));
  });
}

const pollSet = Buffer.alloc(8);

/** What poll(2) says of one descriptor within `timeoutMs` (-1 = for ever): revents, 0 when nothing came. */
export function pollOne(fd: number, events: number, timeoutMs: number): number {
  pollSet.writeInt32LE(fd, 0);
  pollSet.writeInt16LE(events, 4);
  pollSet.writeInt16LE(0, 6);
  return rc(c.poll)(addressOf(pollSet), 1, timeoutMs) <= 0 ? 0 : pollSet.readInt16LE(6);
}

/** True once `fd` can be read without waiting, or has failed (then read says why). */
export function readable(fd: number, timeoutMs: number): boolean {
  return pollOne(fd, POLLIN, timeoutMs) !== 0;
}

/** Waits on the pool, at most `timeoutMs`, until the process behind `pidfd` has ended; true when it has. */
export function waitPidfd(pidfd: number, timeoutMs: number): Promise<boolean> {
  const set = Buffer.alloc(8);
  set.writeInt32LE(pidfd, 0);
  set.writeInt16LE(POLLIN, 4);
  return new Promise((resolve) => {
    c.poll.async(addressOf(set), 1, timeoutMs, (_error: unknown, r: number) => resolve(r > 0 && set.length > 0));
  });
}

/** Sends a signal to exactly the process behind `pidfd`, even after its number was given to another. */
export function pidfdSendSignal(pidfd: number, signal: number): number {
  return syscall(424, pidfd, signal, 0, 0, 0);
}

/** A second descriptor of the same open file, not inherited by children. */
export function dup(fd: number): number {
  return rc(c.fcntl)(fd, F_DUPFD_CLOEXEC, 0);
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;

/** Two connected sockets, both inherited by children that are handed them; or the negative errno. */
export function socketPair(): [number, number] | number {
  const pair = Buffer.alloc(8);
  const r = rc(c.socketpair)(AF_UNIX, SOCK_STREAM, 0, addressOf(pair));
  return r < 0 ? r : [pair.readInt32LE(0), pair.readInt32LE(4)];
}

const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/**
 * The descriptor that a message waiting on `socket` carries (SCM_RIGHTS), or a negative errno; -EAGAIN where
 * no message waits, -ENODATA where it carries none.
 *
 *   msghdr   0 name *   8 namelen u32   16 iov *   24 iovlen u64   32 control *   40 controllen u64   48 flags u32
 *   cmsghdr  0 len u64  8 level i32     12 type i32                16 descriptor i32
 */
export function receiveFd(socket: number): number {
  const memory = Buffer.alloc(256);
  const at = addressOf(memory);
  const [iov, control, byte] = [64, 96, 160];
  memory.writeBigUInt64LE(BigInt(at + iov), 16);
  memory.writeBigUInt64LE(1n, 24);
  memory.writeBigUInt64LE(BigInt(at + control), 32);
  memory.writeBigUInt64LE(24n, 40);
  memory.writeBigUInt64LE(BigInt(at + byte), iov);
  memory.writeBigUInt64LE(1n, iov + 8);
  const n = rc(c.recvmsg)(socket, at, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  const carries =
    memory.readBigUInt64LE(40) >= 20n &&
    memory.readInt32LE(control + 8) === SOL_SOCKET &&
    memory.readInt32LE(control + 12) === SCM_RIGHTS;
  return carries ? memory.readInt32LE(control + 16) : -ENODATA;
}

const ENODATA = 61;

/**
 * Lets processes of the same user take descriptors from this one where the kernel's Yama would keep that to
 * its parents: a new keeper is no parent of the daemon that it adopts. Fails where there is no Yama.
 */
export function allowTracers(): number {
  return rc(c.prctl)(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

/** Loads a shared library so that those loaded later find its symbols; false where it does not load. */
export function loadGlobally(file: string): boolean {
  try {
    koffi.load(file, { global: true });
    return true;
  } catch {
    return false;
  }
}
