/**
 * Reads that would block the data thread: submitted to the kernel (libaio, O_DIRECT) and reaped when the
 * eventfd says so, so that a cold read never stands in the way of a write.
 *
 * Each slot is a buffer of its own: a page whose last 16 bytes are left for a reply header, then room for the
 * largest read widened to whole 4 KiB blocks at both ends.
 */
import { setU64 } from '../base/codec.js';
import { Defect, ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { BLOCK } from '../base/units.js';
import * as sys from '../base/sys.js';

const IOCB = 64;
const EVENT = 32;
const OP_PREAD = 0;
const FLAG_RESFD = 1;

export class AioReader {
  readonly slots: number;
  readonly eventfd: number;
  readonly mem: Mem;
  /** Facts of the read in each slot, for whoever completes it. */
  readonly offset: Float64Array;
  readonly length: Float64Array;
  /** Bytes between the start of what was read and the first byte that was asked for. */
  readonly lead: Float64Array;
  /** Free words for the owner: device, seq threshold, unique low and high, when it began. */
  readonly device: Float64Array;
  readonly from: Float64Array;
  readonly uniqueLo: Float64Array;
  readonly uniqueHi: Float64Array;
  readonly begun: Float64Array;
  readonly result: Float64Array;
  inFlight = 0;
  private readonly stride: number;
  private readonly free: Int32Array;
  private freeCount: number;
  private readonly busy: Uint8Array;
  private readonly control: Mem;
  private readonly ctx: number;
  private readonly pointersAt: number;
  private readonly eventsAt: number;
  private readonly counterAt: number;

  constructor(slots: number, maxRead: number) {
    this.slots = slots;
    this.stride = BLOCK + Math.ceil(maxRead / BLOCK) * BLOCK + 2 * BLOCK;
    this.mem = Mem.lazy(slots * this.stride);
    this.offset = new Float64Array(slots);
    this.length = new Float64Array(slots);
    this.lead = new Float64Array(slots);
    this.device = new Float64Array(slots);
    this.from = new Float64Array(slots);
    this.uniqueLo = new Float64Array(slots);
    this.uniqueHi = new Float64Array(slots);
    this.begun = new Float64Array(slots);
    this.result = new Float64Array(slots);
    this.free = Int32Array.from({ length: slots }, (_, i) => i);
    this.freeCount = slots;
    this.busy = new Uint8Array(slots);
    this.pointersAt = slots * IOCB;
    this.eventsAt = this.pointersAt + slots * 8;
    this.counterAt = this.eventsAt + slots * EVENT;
    this.control = Mem.anon(Math.ceil((this.counterAt + 16) / BLOCK) * BLOCK);
    this.eventfd = sys.eventfd();
    const rc = sys.ioSetup(slots, this.control.addr + this.counterAt + 8);
    if (rc < 0 || this.eventfd < 0) throw new Defect(`io_setup failed: ${rc}`);
    this.ctx = Number(this.control.dv.getBigUint64(this.counterAt + 8, true));
    for (let i = 0; i < slots; i++) setU64(this.control.dv, this.pointersAt + i * 8, this.control.addr + i * IOCB);
  }

  get full(): boolean {
    return this.freeCount === 0;
  }

  /** Offset in `mem` of the first byte asked for in slot `i`. */
  dataAt(i: number): number {
    return i * this.stride + BLOCK + this.lead[i]!;
  }

  /** Starts reading [offset, offset + length) of `fd`. Returns the slot, or the negative errno. */
  submit(fd: number, offset: number, length: number): number {
    const i = this.free[this.freeCount - 1]!;
    const start = Math.floor(offset / BLOCK) * BLOCK;
    const bytes = Math.ceil((offset + length) / BLOCK) * BLOCK - start;
    const { dv } = this.control;
    const at = i * IOCB;
    setU64(dv, at, i);
    setU64(dv, at + 8, 0);
    dv.setUint32(at + 16, OP_PREAD, true);
    dv.setUint32(at + 20, fd, true);
    setU64(dv, at + 24, this.mem.addr + i * this.stride + BLOCK);
    setU64(dv, at + 32, bytes);
    setU64(dv, at + 40, start);
    setU64(dv, at + 48, 0);
    dv.setUint32(at + 56, FLAG_RESFD, true);
    dv.setUint32(at + 60, this.eventfd, true);
    let rc: number;
    do {
      rc = sys.ioSubmit(this.ctx, 1, this.control.addr + this.pointersAt + i * 8);
    } while (rc === -ERRNO.EINTR);
    if (rc < 0) return rc;
    this.offset[i] = offset;
    this.length[i] = length;
    this.lead[i] = offset - start;
    this.freeCount--;
    this.busy[i] = 1;
    this.inFlight++;
    return i;
  }

  /** Calls `done(slot)` for every finished read; `result` holds the bytes from `offset` on, or -errno. */
  reap(min: number, done: (slot: number) => void): void {
    if (this.inFlight === 0) return;
    const { dv, addr } = this.control;
    sys.read(this.eventfd, addr + this.counterAt, 8);
    const n = sys.ioGetevents(this.ctx, min, this.slots, addr + this.eventsAt);
    for (let k = 0; k < n; k++) {
      const at = this.eventsAt + k * EVENT;
      const i = dv.getUint32(at, true);
      const res = dv.getInt32(at + 16, true);
      this.result[i] = res < 0 ? res : Math.min(this.length[i]!, Math.max(0, res - this.lead[i]!));
      done(i);
      this.busy[i] = 0;
      this.free[this.freeCount++] = i;
      this.inFlight--;
    }
  }

  /** The least `from` of the reads in flight, or `otherwise`. */
  leastFrom(otherwise: number): number {
    let least = otherwise;
    if (this.inFlight === 0) return least;
    for (let i = 0; i < this.slots; i++) if (this.busy[i] === 1 && this.from[i]! < least) least = this.from[i]!;
    return least;
  }
}
