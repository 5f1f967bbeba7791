/**
 * The request loop of the kernel transport: one thread, one non-blocking read per turn straight to where the
 * device code wants the request, one write per answer. It decodes; what a request means is the sink's affair.
 *
 * The loop waits on {requests, bell of other threads, finished reads} together, so that an idle group still
 * takes tags and role changes at once, and turns at least every second for the watchdog.
 */
import { getU64, setU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import {
  FALLOCATE_LENGTH,
  FALLOCATE_MODE,
  FALLOCATE_OFFSET,
  FUSE,
  IN_NODEID,
  IN_OPCODE,
  IN_UNIQUE,
  LSEEK_OFFSET,
  LSEEK_WHENCE,
  OUT_HEADER,
  READ_OFFSET,
  READ_SIZE,
  WRITE_DATA,
  WRITE_OFFSET,
  WRITE_OPEN_FLAGS,
  WRITE_SIZE,
  isResent,
  putHeader,
} from './proto.js';

/** Header and fixed body of a WRITE; what is longer continues in the payload. */
export const REQUEST_HEAD = WRITE_DATA;

export interface LoopSink {
  /** Memory, set before `prepare` returns true: 80 bytes at `headAt`, `bodyMax` bytes at `bodyAt`. */
  readonly headMem: Mem;
  readonly bodyMem: Mem;
  readonly headAt: number;
  readonly bodyAt: number;
  readonly bodyMax: number;
  /** Nodes from here on are devices. */
  readonly firstDeviceNode: number;
  /** Once per turn, before reading: bookkeeping, and where the next request goes. False = read none now. */
  prepare(): boolean;
  write(node: number, offset: number, size: number, flags: number, uniqueLo: number, uniqueHi: number): void;
  read(node: number, offset: number, size: number, uniqueLo: number, uniqueHi: number): void;
  fsync(node: number, uniqueLo: number, uniqueHi: number): void;
  fallocate(node: number, offset: number, length: number, mode: number, uniqueLo: number, uniqueHi: number): void;
  lseek(node: number, offset: number, whence: number, uniqueLo: number, uniqueHi: number): void;
  /** Every request that is not a device's; `length` bytes were read. */
  other(length: number): void;
  /** While true, the sink wants to know when the requests that are sent again have all been read. */
  readonly awaitsResent: boolean;
  resentSeen(): void;
  /** Another thread rang. */
  rang(): void;
  /** No request is waiting just now: what was gathered is begun. */
  resting(): void;
  /** Reads may have finished. */
  readsDone(): void;
  readonly readsInFlight: number;
}

/** Requests served in a row before the other descriptors are looked at. */
const LOOK_EVERY = 64;
/** The loop turns at least this often, for the watchdog. */
const LONGEST_SLEEP_MS = 1000;

export class KernelLoop {
  private readonly fd: number;
  private readonly sink: LoopSink;
  private readonly iov = Mem.anon(4096);
  private readonly fds = Mem.anon(4096);
  private readonly counter = Mem.anon(4096);
  private readonly bell: number;
  private readonly reads: number;

  constructor(fd: number, bell: number, readsDone: number, sink: LoopSink) {
    this.fd = fd;
    this.bell = bell;
    this.reads = readsDone;
    this.sink = sink;
    const { dv } = this.fds;
    [fd, bell, readsDone].forEach((descriptor, i) => {
      dv.setInt32(i * 8, descriptor, true);
      dv.setUint16(i * 8 + 4, sys.POLLIN, true);
    });
    setU64(this.iov.dv, 8, REQUEST_HEAD);
  }

  /** Serves until the file system is unmounted (returns ENODEV) or the connection is aborted. */
  run(): number {
    const { sink, iov } = this;
    let row = 0;
    for (;;) {
      if (!sink.prepare()) {
        if (this.wait(false, LONGEST_SLEEP_MS)) return ERRNO.ENODEV;
        continue;
      }
      if (++row >= LOOK_EVERY) {
        row = 0;
        this.wait(false, 0);
        // What was rung for may have taken the slot that the next request was to go to.
        continue;
      }
      if (sink.readsInFlight > 0 && (row & 3) === 0) sink.readsDone();
      setU64(iov.dv, 0, sink.headMem.addr + sink.headAt);
      setU64(iov.dv, 16, sink.bodyMem.addr + sink.bodyAt);
      setU64(iov.dv, 24, sink.bodyMax);
      const n = sys.raw.readv(this.fd, iov.addr, 2);
      if (n > 0) {
        this.dispatch(n);
        continue;
      }
      const errno = sys.raw.errno();
      if (errno === ERRNO.EAGAIN) {
        row = 0;
        if (sink.awaitsResent) sink.resentSeen();
        this.wait(true, LONGEST_SLEEP_MS);
      } else if (errno === ERRNO.ENODEV || errno === ERRNO.ECONNABORTED) return errno;
      // ENOENT: the request was interrupted while it was read. EINTR: a signal. Both: the next one.
      else if (errno !== ERRNO.ENOENT && errno !== ERRNO.EINTR) return errno;
    }
  }

  /** True when the connection is gone. */
  private wait(requests: boolean, timeoutMs: number): boolean {
    const { dv, addr } = this.fds;
    this.sink.resting();
    dv.setUint16(4, requests ? sys.POLLIN : 0, true);
    dv.setUint16(6, 0, true);
    dv.setUint16(14, 0, true);
    dv.setUint16(22, 0, true);
    if (sys.raw.poll(addr, 3, timeoutMs) <= 0) return false;
    if (dv.getUint16(14, true) !== 0) {
      sys.raw.read(this.bell, this.counter.addr, 8);
      this.sink.rang();
    }
    if (dv.getUint16(22, true) !== 0) {
      sys.raw.read(this.reads, this.counter.addr, 8);
      this.sink.readsDone();
    }
    return (dv.getUint16(6, true) & sys.POLLERR) !== 0;
  }

  private dispatch(n: number): void {
    const { sink } = this;
    const { dv } = sink.headMem;
    const at = sink.headAt;
    if (sink.awaitsResent && !isResent(dv.getUint32(at + IN_UNIQUE + 4, true))) sink.resentSeen();
    const node = getU64(dv, at + IN_NODEID);
    if (node < sink.firstDeviceNode) {
      sink.other(n);
      return;
    }
    const lo = dv.getUint32(at + IN_UNIQUE, true);
    const hi = dv.getUint32(at + IN_UNIQUE + 4, true);
    switch (dv.getUint32(at + IN_OPCODE, true)) {
      case FUSE.WRITE:
        sink.write(
          node,
          getU64(dv, at + WRITE_OFFSET),
          dv.getUint32(at + WRITE_SIZE, true),
          dv.getUint32(at + WRITE_OPEN_FLAGS, true),
          lo,
          hi,
        );
        return;
      case FUSE.READ:
        sink.read(node, getU64(dv, at + READ_OFFSET), dv.getUint32(at + READ_SIZE, true), lo, hi);
        return;
      case FUSE.FSYNC:
        sink.fsync(node, lo, hi);
        return;
      case FUSE.FALLOCATE:
        sink.fallocate(
          node,
          getU64(dv, at + FALLOCATE_OFFSET),
          getU64(dv, at + FALLOCATE_LENGTH),
          dv.getUint32(at + FALLOCATE_MODE, true),
          lo,
          hi,
        );
        return;
      case FUSE.LSEEK:
        sink.lseek(node, getU64(dv, at + LSEEK_OFFSET), dv.getUint32(at + LSEEK_WHENCE, true), lo, hi);
        return;
      case FUSE.FORGET:
      case FUSE.BATCH_FORGET:
        return;
      default:
        sink.other(n);
    }
  }
}

/**
 * Answers through the descriptor. An answer that the kernel does not want any more (ENOENT: the request was
 * interrupted, or sent again meanwhile) is nobody's loss.
 */
export class KernelReply {
  private readonly fd: number;
  private readonly mem = Mem.anon(4096);
  private readonly iovAt = 64;

  constructor(fd: number) {
    this.fd = fd;
    setU64(this.mem.dv, this.iovAt, this.mem.addr);
    setU64(this.mem.dv, this.iovAt + 8, OUT_HEADER);
  }

  wrote(uniqueLo: number, uniqueHi: number, bytes: number): void {
    const { dv, addr } = this.mem;
    putHeader(dv, 0, OUT_HEADER + 8, 0, uniqueLo, uniqueHi);
    dv.setUint32(OUT_HEADER, bytes, true);
    dv.setUint32(OUT_HEADER + 4, 0, true);
    sys.raw.write(this.fd, addr, OUT_HEADER + 8);
  }

  status(uniqueLo: number, uniqueHi: number, rc: number): void {
    putHeader(this.mem.dv, 0, OUT_HEADER, rc, uniqueLo, uniqueHi);
    sys.raw.write(this.fd, this.mem.addr, OUT_HEADER);
  }

  position(uniqueLo: number, uniqueHi: number, offset: number): void {
    putHeader(this.mem.dv, 0, OUT_HEADER + 8, 0, uniqueLo, uniqueHi);
    setU64(this.mem.dv, OUT_HEADER, offset);
    sys.raw.write(this.fd, this.mem.addr, OUT_HEADER + 8);
  }

  data(uniqueLo: number, uniqueHi: number, mem: Mem, off: number, len: number): void {
    const { dv, addr } = this.mem;
    putHeader(dv, 0, OUT_HEADER + len, 0, uniqueLo, uniqueHi);
    setU64(dv, this.iovAt + 16, mem.addr + off);
    setU64(dv, this.iovAt + 24, len);
    sys.raw.writev(this.fd, addr + this.iovAt, len === 0 ? 1 : 2);
  }

  /** Asks the kernel to send every unanswered request again. */
  resend(): void {
    putHeader(this.mem.dv, 0, OUT_HEADER, 7, 0, 0);
    sys.raw.write(this.fd, this.mem.addr, OUT_HEADER);
  }
}
