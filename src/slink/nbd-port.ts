/**
 * Between a site's thread, which calls and waits, and the thread that has the sockets: the list of requests that
 * one call hands over, in memory that both see, and what is answered.
 *
 * SharedArrayBuffer, filled by the site's thread before `run`, read by the other one until it has answered:
 *
 *   Int32    0 answers given (Atomics.wait)   1 requests   2 ranges   3 grows while the other thread works
 *            4 times connected   5 times a connection was lost   6 times one was closed for garbage
 *            (4…6 are written by the thread of the sockets alone)
 *   Float64  request i: leg, command, offset, length, first range, ranges      (6 numbers)
 *   Float64  range i: address, bytes                                           (2 numbers)
 *
 * Requests begin in their order and may end in any. BARRIER: what follows begins when all before it has ended.
 */
import type { IoVec } from '../base/mem.js';
import type { Connections } from './contract.js';
import type { ExportFacts } from './nbd-wire.js';

export const OP = {
  WRITE: 1,
  READ: 2,
  FLUSH: 3,
  ZEROES: 4,
  BARRIER: 5,
  WRITE_FUA: 6,
  ZEROES_FUA: 7,
  STATUS: 8,
} as const;

export const WORK_OPS = 18_000;
export const WORK_RANGES = 36_000;
const OP_WORDS = 6;
const INTS = 16;

export class NbdWork {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  private readonly ops: Float64Array;
  private readonly ranges: Float64Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(INTS * 4 + (WORK_OPS * OP_WORDS + WORK_RANGES * 2) * 8);
    this.words = new Int32Array(this.buffer, 0, INTS);
    this.ops = new Float64Array(this.buffer, INTS * 4, WORK_OPS * OP_WORDS);
    this.ranges = new Float64Array(this.buffer, INTS * 4 + WORK_OPS * OP_WORDS * 8, WORK_RANGES * 2);
  }

  get connections(): Connections {
    const { words } = this;
    return { made: words[4]!, lost: words[5]!, garbage: words[6]! };
  }

  counted(what: keyof Connections): void {
    this.words[what === 'made' ? 4 : what === 'lost' ? 5 : 6]!++;
  }

  get count(): number {
    return this.words[1]!;
  }

  /** Room for `ops` more requests with `ranges` ranges. */
  room(ops: number, ranges: number): boolean {
    return this.words[1]! + ops <= WORK_OPS && this.words[2]! + ranges <= WORK_RANGES;
  }

  clear(): void {
    this.words[1] = 0;
    this.words[2] = 0;
  }

  add(leg: number, command: number, offset: number, length: number): void {
    const at = this.words[1]!++ * OP_WORDS;
    this.ops[at] = leg;
    this.ops[at + 1] = command;
    this.ops[at + 2] = offset;
    this.ops[at + 3] = length;
    this.ops[at + 4] = this.words[2]!;
    this.ops[at + 5] = 0;
  }

  /** Adds memory to the request added last. */
  addRange(addr: number, bytes: number): void {
    const r = this.words[2]!++;
    this.ranges[2 * r] = addr;
    this.ranges[2 * r + 1] = bytes;
    this.ops[(this.words[1]! - 1) * OP_WORDS + 5]!++;
  }

  /** Adds writes for all of `vec`, none larger than `most` bytes. */
  addVec(leg: number, command: number, offset: number, vec: IoVec, most: number): void {
    let left = 0;
    let at = offset;
    let remaining = vec.total;
    for (let i = 0; i < vec.count; i++) {
      const addr = vec.mems[i]!.addr + vec.offs[i]!;
      for (let done = 0; done < vec.lens[i]!;) {
        if (left === 0) {
          left = Math.min(most, remaining);
          this.add(leg, command, at, left);
        }
        const bytes = Math.min(left, vec.lens[i]! - done);
        this.addRange(addr + done, bytes);
        done += bytes;
        at += bytes;
        left -= bytes;
        remaining -= bytes;
      }
    }
  }

  leg(i: number): number {
    return this.ops[i * OP_WORDS]!;
  }
  command(i: number): number {
    return this.ops[i * OP_WORDS + 1]!;
  }
  offset(i: number): number {
    return this.ops[i * OP_WORDS + 2]!;
  }
  length(i: number): number {
    return this.ops[i * OP_WORDS + 3]!;
  }
  firstRange(i: number): number {
    return this.ops[i * OP_WORDS + 4]!;
  }
  rangesOf(i: number): number {
    return this.ops[i * OP_WORDS + 5]!;
  }
  rangeAddr(r: number): number {
    return this.ranges[2 * r]!;
  }
  rangeBytes(r: number): number {
    return this.ranges[2 * r + 1]!;
  }
}

export type NbdConnected =
  | { ok: true; exports: (ExportFacts & { allocation: boolean })[] }
  /** `refused`: it is there and will not do; otherwise it cannot be reached just now. */
  | { ok: false; refused: boolean; reason: string; againMs?: number };

/** A server as a site sees it: all calls wait, none for longer than the site's time-out and a little. */
export interface NbdPort {
  readonly work: NbdWork;
  /** Why the last call failed. */
  readonly reason: string;
  /**
   * Connects to each export, or to none. `unsure`: requests of an earlier process may still be on their way to the
   * server, so its connections need the wait as well.
   */
  connect(exports: readonly string[], unsure: boolean): NbdConnected;
  /** Carries out the work: 0, or the negative errno of what failed first; then all connections are closed. */
  run(): number;
  /** STATUS: bytes from `offset` on that surely read as zeroes; 0 where that is not known. */
  zeroesAt(leg: number, offset: number, length: number): number;
  close(): void;
}
