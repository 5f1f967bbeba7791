/**
 * An Io that fails in exactly one place: the nth call of a given name returns an errno, is cut short, or is the
 * last one this process makes. Everything else goes to the Io below.
 */
import { writeEach, type FileInfo, type Io, type IoCall } from '../../src/base/io.js';
import type { IoVec, Mem } from '../../src/base/mem.js';
import type { WriteList } from '../../src/base/writelist.js';

/** The process is gone. Machines must not catch it. */
export class Crash extends Error {
  constructor(call: string) {
    super(`crash at ${call}`);
    this.name = 'Crash';
  }
}

export interface Fault {
  /** Name of the call, `REPLOG:SYNC`; `*` is any. */
  call: string;
  /** Which call of that name from now on, from 1; 0 = every. */
  nth: number;
  /** Positive. */
  errno?: number;
  /** Bytes after which a read or write is cut off. */
  short?: number;
  crash?: 'before' | 'after';
}

interface Armed extends Fault {
  left: number;
}

export class FaultIo implements Io {
  /** Names of all calls so far, in order. */
  readonly calls: string[] = [];
  private readonly below: Io;
  private armed: Armed[] = [];

  constructor(below: Io) {
    this.below = below;
  }

  arm(fault: Fault): this {
    this.armed.push({ ...fault, left: fault.nth });
    return this;
  }

  disarm(): void {
    this.armed = [];
  }

  count(call: string): number {
    return this.calls.filter((name) => name === call).length;
  }

  open = (call: IoCall, file: string, flags: number, mode?: number): number =>
    this.run(call, () => this.below.open(call, file, flags, mode));
  close = (call: IoCall, fd: number): number => this.below.close(call, fd);
  info = (call: IoCall, fd: number): FileInfo | number => this.run(call, () => this.below.info(call, fd));
  stat = (call: IoCall, file: string): FileInfo | number => this.run(call, () => this.below.stat(call, file));
  pread = (call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number =>
    this.run(call, (most) => this.below.pread(call, fd, mem, off, Math.min(len, most), pos));
  pwrite = (call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number =>
    this.run(call, (most) => this.below.pwrite(call, fd, mem, off, Math.min(len, most), pos));
  pwritev = (call: IoCall, fd: number, vec: IoVec, pos: number): number =>
    this.run(call, (most) =>
      most < vec.total ? this.writeSome(call, fd, vec, pos, most) : this.below.pwritev(call, fd, vec, pos),
    );
  pwriteMany = (call: IoCall, list: WriteList): void => writeEach(this, call, list);
  fdatasync = (call: IoCall, fd: number): number => this.run(call, () => this.below.fdatasync(call, fd));
  fallocate = (call: IoCall, fd: number, mode: number, pos: number, len: number): number =>
    this.run(call, () => this.below.fallocate(call, fd, mode, pos, len));
  ftruncate = (call: IoCall, fd: number, size: number): number =>
    this.run(call, () => this.below.ftruncate(call, fd, size));
  replaceFile = (call: IoCall, file: string, text: string): number =>
    this.run(call, () => this.below.replaceFile(call, file, text));
  readFile = (call: IoCall, file: string): string | number => this.run(call, () => this.below.readFile(call, file));
  unlink = (call: IoCall, file: string): number => this.run(call, () => this.below.unlink(call, file));
  rename = (call: IoCall, from: string, to: string): number => this.run(call, () => this.below.rename(call, from, to));
  mkdir = (call: IoCall, dir: string, mode?: number): number => this.run(call, () => this.below.mkdir(call, dir, mode));
  syncDir = (call: IoCall, dir: string): number => this.run(call, () => this.below.syncDir(call, dir));
  setXattr = (call: IoCall, fd: number, name: string, value: Uint8Array): number =>
    this.run(call, () => this.below.setXattr(call, fd, name, value));
  getXattr = (call: IoCall, fd: number, name: string): Uint8Array | number =>
    this.run(call, () => this.below.getXattr(call, fd, name));

  private run<T>(call: IoCall, work: (most: number) => T | number): T | number;
  private run(call: IoCall, work: (most: number) => number): number;
  private run<T>(call: IoCall, work: (most: number) => T | number): T | number {
    this.calls.push(call);
    const fault = this.due(call);
    if (fault === undefined) return work(Infinity);
    if (fault.crash === 'before') throw new Crash(call);
    if (fault.errno !== undefined) return -fault.errno;
    const result = work(fault.short ?? Infinity);
    if (fault.crash === 'after') throw new Crash(call);
    return result;
  }

  private due(call: IoCall): Fault | undefined {
    let due: Fault | undefined;
    for (const fault of this.armed) {
      if (fault.call !== '*' && fault.call !== call) continue;
      // Each counts for itself, also the calls that another one spoils.
      if (fault.nth === 0 || (fault.left > 0 && --fault.left === 0)) due ??= fault;
    }
    return due;
  }

  /** The first `most` bytes of a vectored write, range by range. */
  private writeSome(call: IoCall, fd: number, vec: IoVec, pos: number, most: number): number {
    let done = 0;
    for (let i = 0; i < vec.count && done < most; i++) {
      const len = Math.min(vec.lens[i]!, most - done);
      const r = this.below.pwrite(call, fd, vec.mems[i]!, vec.offs[i]!, len, pos + done);
      if (r < 0) return r;
      done += r;
    }
    return done;
  }
}
