/**
 * Where requests stay that need room in the window when there is none: they are read here instead, in order,
 * so that reads and control files go on. What finds no place here either is dropped, and the kernel is asked
 * to send it again once there is room.
 *
 * The arena is used as a ring of entries {head 128 bytes, body}; the last stretch of it is the place where
 * requests are read that will be dropped or need no parking.
 */
import { Mem } from '../base/mem.js';

export const PARKED_HEAD = 128;

export type ParkedKind = 'write' | 'fallocate';

/** One parked request: its arguments as the device code got them, and where its payload stands. */
export interface Parked {
  at: number;
  kind: ParkedKind;
  node: number;
  offset: number;
  length: number;
  flags: number;
  /** Offset and bytes of the payload in the arena. */
  bodyAt: number;
  body: number;
  /** When it came, for its latency (RequestMeter.mark). */
  mark: number;
  lo: number;
  hi: number;
}

export class Parking {
  readonly mem: Mem;
  private readonly size: number;
  private readonly entry: number;
  private readonly list: Parked[] = [];
  private tail = 0;

  /** `entry` is the largest request body. Every page is present from the start (see Mem.anon). */
  constructor(bytes: number, entry: number) {
    this.entry = PARKED_HEAD + Math.ceil(entry / 64) * 64;
    this.size = Math.max(bytes, 2 * this.entry);
    this.mem = Mem.anon(this.size + this.entry);
  }

  get count(): number {
    return this.list.length;
  }

  /** Offset of the place for one more request, or -1. */
  next(): number {
    if (this.list.length === 0) this.tail = 0;
    const head = this.list[0]?.at ?? 0;
    if (this.list.length === 0 || this.tail > head) {
      if (this.size - this.tail >= this.entry) return this.tail;
      if (head <= this.entry) return -1;
      this.tail = 0;
      return 0;
    }
    return head - this.tail > this.entry ? this.tail : -1;
  }

  /** Place for a request that will not stay. */
  get passing(): number {
    return this.size;
  }

  /** The request that was read at `next()` stays. Parked requests are few: an object each is fine here. */
  keep(
    at: number,
    kind: ParkedKind,
    node: number,
    offset: number,
    length: number,
    flags: number,
    body: number,
    mark: number,
    lo: number,
    hi: number,
  ): void {
    this.list.push({ at, kind, node, offset, length, flags, bodyAt: at + PARKED_HEAD, body, mark, lo, hi });
    this.tail = at + PARKED_HEAD + Math.ceil(body / 64) * 64;
  }

  /** The oldest parked request; there must be one. */
  first(): Parked {
    return this.list[0]!;
  }

  /** The oldest one has found its room. */
  leave(): void {
    this.list.shift();
  }
}
