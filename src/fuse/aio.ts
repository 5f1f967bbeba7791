/**
 * Reads that would block the data thread: submitted to the kernel (libaio, O_DIRECT) and reaped when the
 * eventfd says so, so that a cold read never stands in the way of a write. They are gathered while requests keep
 * coming: one call for several of them is one kick of the disk.
 *
 * Each slot is a buffer of its own: a page whose last 16 bytes are left for a reply header, then room for the
 * largest read widened to whole 4 KiB blocks at both ends.
 */
import * as fs from 'node:fs';
import { setU64 } from '../base/codec.js';
import { Defect, ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { BLOCK } from '../base/units.js';
import * as sys from '../base/sys.js';

const IOCB = 64;
const EVENT = 32;
const OP_PREAD = 0;
const FLAG_RESFD = 1;

/** struct aio_ring: id, nr, head, tail, magic, two words of features, bytes of the header. */
const RING_HEADER = 32;
const RING_HEAD_AT = 2;
const RING_TAIL_AT = 3;
const RING_MAGIC_AT = 4;
const RING_MAGIC = 0xa10a10a1 | 0;

/** What an eventfd is raised by. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** Reads that are gathered at most. */
const GATHER = 8;

export class AioReader {
  readonly slots: number;
  readonly eventfd: number;
  readonly mem: Mem;
  /** Facts of the read in each slot, for whoever completes it. */
  readonly offset: Float64Array;
  readonly length: Float64Array;
  /** Bytes between the start of what was read and the first byte that was asked for. */
  readonly lead: Float64Array;
  /** Free words for the owner: device, seq threshold, mark of the images, unique low and high, when it began. */
  readonly device: Float64Array;
  readonly from: Float64Array;
  readonly mark: Float64Array;
  readonly uniqueLo: Float64Array;
  readonly uniqueHi: Float64Array;
  readonly begun: Float64Array;
  readonly result: Float64Array;
  /** Reads whose slot is taken, submitted or not. */
  inFlight = 0;
  /** Of them, those that `submit` has still to hand over. */
  private queued = 0;
  /** Slot and result, one behind the other, of reads that the kernel did not take. */
  private readonly refused: number[] = [];
  private readonly stride: number;
  private readonly free: Int32Array;
  private freeCount: number;
  private readonly busy: Uint8Array;
  private readonly control: Mem;
  private readonly ctx: number;
  private readonly pointersAt: number;
  private readonly eventsAt: number;
  /** The kernel's ring of completions, as libaio reads it: entries [head, tail) are finished. */
  private readonly ring: Int32Array | undefined;

  constructor(slots: number, maxRead: number) {
    this.slots = slots;
    this.stride = BLOCK + Math.ceil(maxRead / BLOCK) * BLOCK + 2 * BLOCK;
    this.mem = Mem.lazy(slots * this.stride);
    this.offset = new Float64Array(slots);
    this.length = new Float64Array(slots);
    this.lead = new Float64Array(slots);
    this.device = new Float64Array(slots);
    this.from = new Float64Array(slots);
    this.mark = new Float64Array(slots);
    this.uniqueLo = new Float64Array(slots);
    this.uniqueHi = new Float64Array(slots);
    this.begun = new Float64Array(slots);
    this.result = new Float64Array(slots);
    this.free = Int32Array.from({ length: slots }, (_, i) => i);
    this.freeCount = slots;
    this.busy = new Uint8Array(slots);
    this.pointersAt = slots * IOCB;
    this.eventsAt = this.pointersAt + slots * 8;
    const ctxAt = this.eventsAt + slots * EVENT;
    this.control = Mem.anon(Math.ceil((ctxAt + 8) / BLOCK) * BLOCK);
    this.eventfd = sys.eventfd();
    const rc = sys.ioSetup(slots, this.control.addr + ctxAt);
    if (rc < 0 || this.eventfd < 0) throw new Defect(`io_setup failed: ${rc}`);
    this.ctx = Number(this.control.dv.getBigUint64(ctxAt, true));
    const ring = new Int32Array(Mem.at(this.ctx, BLOCK).ab, 0, RING_HEADER / 4);
    if (ring[RING_MAGIC_AT] === RING_MAGIC) this.ring = ring;
  }

  get full(): boolean {
    return this.freeCount === 0;
  }

  /** Offset in `mem` of the first byte asked for in slot `i`. */
  dataAt(i: number): number {
    return i * this.stride + BLOCK + this.lead[i]!;
  }

  /** Takes a slot for reading [offset, offset + length) of `fd`; begun by `submit`, or with enough others at once. */
  queue(fd: number, offset: number, length: number): number {
    const i = this.free[--this.freeCount]!;
    const start = Math.floor(offset / BLOCK) * BLOCK;
    const bytes = Math.ceil((offset + length) / BLOCK) * BLOCK - start;
    const { dv, addr } = this.control;
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
    setU64(dv, this.pointersAt + this.queued * 8, addr + at);
    this.queued++;
    this.offset[i] = offset;
    this.length[i] = length;
    this.lead[i] = offset - start;
    this.busy[i] = 1;
    this.inFlight++;
    if (this.queued >= GATHER) this.submit();
    return i;
  }

  /** Hands over what is queued. What the kernel does not take is read here and now, and finished by the next `reap`. */
  submit(): void {
    const n = this.queued;
    if (n === 0) return;
    this.queued = 0;
    for (let done = 0; done < n;) {
      const rc = sys.ioSubmit(this.ctx, n - done, this.control.addr + this.pointersAt + done * 8);
      if (rc > 0) done += rc;
      else if (rc !== -ERRNO.EINTR) this.readNow(this.pointersAt + done++ * 8);
    }
  }

  private readNow(pointerAt: number): void {
    const { dv, addr } = this.control;
    const at = Number(dv.getBigUint64(pointerAt, true)) - addr;
    const [fd, to, bytes, start] = [
      dv.getUint32(at + 20, true),
      dv.getBigUint64(at + 24, true),
      dv.getBigUint64(at + 32, true),
      dv.getBigUint64(at + 40, true),
    ];
    let rc: number;
    do rc = sys.pread(fd, Number(to), Number(bytes), Number(start));
    while (rc === -ERRNO.EINTR);
    this.refused.push(at / IOCB, rc);
    // The kernel rings for what it took only, and the owner may be about to sleep.
    fs.writeSync(this.eventfd, ONE);
  }

  /**
   * Calls `done(slot)` for every finished read; `result` holds the bytes from `offset` on, or -errno. The eventfd is
   * emptied by whoever polls it: a completion rings it behind its entry in the ring, so it may stay up for nothing.
   */
  reap(min: number, done: (slot: number) => void): void {
    if (this.inFlight === 0) return;
    while (this.refused.length > 0) {
      const res = this.refused.pop()!;
      this.finish(this.refused.pop()!, res, done);
      min = 0;
    }
    // Behind a read that was refused nothing may be under way at all, and nobody waits for what is only queued.
    if (min > 0) this.submit();
    else if (this.ring !== undefined && this.ring[RING_HEAD_AT] === Atomics.load(this.ring, RING_TAIL_AT)) return;
    const { dv, addr } = this.control;
    const n = sys.ioGetevents(this.ctx, min, this.slots, addr + this.eventsAt);
    for (let k = 0; k < n; k++) {
      const at = this.eventsAt + k * EVENT;
      this.finish(dv.getUint32(at, true), dv.getInt32(at + 16, true), done);
    }
  }

  private finish(i: number, res: number, done: (slot: number) => void): void {
    this.result[i] = res < 0 ? res : Math.min(this.length[i]!, Math.max(0, res - this.lead[i]!));
    done(i);
    this.busy[i] = 0;
    this.free[this.freeCount++] = i;
    this.inFlight--;
  }

  /** The least `from` of the reads in flight, or `otherwise`. */
  leastFrom(otherwise: number): number {
    let least = otherwise;
    if (this.inFlight === 0) return least;
    for (let i = 0; i < this.slots; i++) if (this.busy[i] === 1 && this.from[i]! < least) least = this.from[i]!;
    return least;
  }
}
