/** Several vectored writes under way at once, through libaio: the kernel keeps the disk busy, this thread waits. */
import { setU64 } from './codec.js';
import { ERRNO } from './errors.js';
import { Mem } from './mem.js';
import * as sys from './sys.js';
import type { WriteList } from './writelist.js';

const IOCB = 64;
const EVENT = 32;
const OP_PWRITEV = 8;
const BLOCK = 4096;

/** A context of the calling thread. */
export class AioWriter {
  readonly depth: number;
  private readonly mem: Mem;
  private readonly ctx: number;
  private readonly pointersAt: number;
  private readonly eventsAt: number;

  private constructor(depth: number, mem: Mem, ctx: number, pointersAt: number) {
    this.depth = depth;
    this.mem = mem;
    this.ctx = ctx;
    this.pointersAt = pointersAt;
    this.eventsAt = pointersAt + depth * 8;
    for (let i = 0; i < depth; i++) setU64(mem.dv, pointersAt + i * 8, mem.addr + i * IOCB);
  }

  /** Undefined where the kernel gives none (fs.aio-max-nr). */
  static make(depth: number): AioWriter | undefined {
    const pointersAt = depth * IOCB;
    const ctxAt = pointersAt + depth * (8 + EVENT);
    const mem = Mem.anon(Math.ceil((ctxAt + 8) / BLOCK) * BLOCK);
    if (sys.ioSetup(depth, mem.addr + ctxAt) < 0) {
      mem.unmap();
      return undefined;
    }
    return new AioWriter(depth, mem, Number(mem.dv.getBigUint64(ctxAt, true)), pointersAt);
  }

  /** Does all writes of the list, `depth` at a time; results stand in it. */
  run(list: WriteList): void {
    for (let from = 0; from < list.count; from += this.depth)
      this.some(list, from, Math.min(list.count, from + this.depth));
  }

  private some(list: WriteList, from: number, to: number): void {
    const { dv, addr } = this.mem;
    for (let i = from; i < to; i++) {
      const at = (i - from) * IOCB;
      const vec = list.vecs[i]!;
      setU64(dv, at, i);
      setU64(dv, at + 8, 0);
      dv.setUint32(at + 16, OP_PWRITEV, true);
      dv.setUint32(at + 20, list.fds[i]!, true);
      setU64(dv, at + 24, vec.table.addr);
      setU64(dv, at + 32, vec.count);
      setU64(dv, at + 40, list.positions[i]!);
      setU64(dv, at + 48, 0);
      setU64(dv, at + 56, 0);
    }
    const n = to - from;
    let flying = 0;
    for (let next = 0; next < n || flying > 0;) {
      if (next < n) {
        const took = sys.ioSubmit(this.ctx, n - next, addr + this.pointersAt + next * 8);
        if (took > 0) {
          next += took;
          flying += took;
          continue;
        }
        if (took === -ERRNO.EINTR) continue;
        // EAGAIN: no room for more just now, which those under way will make. Else the first of them is refused.
        if (took !== -ERRNO.EAGAIN || flying === 0) list.results[from + next++] = took < 0 ? took : -ERRNO.EIO;
        if (flying === 0) continue;
      }
      flying -= this.reap(list, 1, flying);
    }
  }

  private reap(list: WriteList, min: number, max: number): number {
    const { dv, addr } = this.mem;
    const got = sys.ioGetevents(this.ctx, min, max, addr + this.eventsAt);
    for (let k = 0; k < got; k++) {
      const at = this.eventsAt + k * EVENT;
      list.results[dv.getUint32(at, true)] = Number(dv.getBigInt64(at + 16, true));
    }
    return Math.max(0, got);
  }
}
