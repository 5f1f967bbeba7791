/**
 * The overlay: which bytes of the devices are newer in the window than on slink 0's images.
 *
 * Writes are kept per 4 KiB block in a ring of nodes, one for each block that a record touches:
 *
 *   node = (device and block, mask of its sectors, payload position of sector 0, record seq, next older node)
 *
 * A hash bucket holds the id of its newest node and each node the id of the bucket's node before it, so a
 * chain runs from new to old. Nodes are made in seq order and die in seq order when the window's head passes
 * them; ids only grow, so a chain ends at the first id that is no longer alive and nothing is ever unlinked.
 *
 * Discards and zeroes cover whole ranges and are rare: a short list in seq order beside it.
 *
 * Readers name the seq from which on records count (`from`, normally what is applied): older nodes are
 * ignored, not deleted, because the applier moves on while this thread reads.
 *
 *   invariant: every record with head <= seq < tail has its nodes alive
 */
import { assert } from '../base/errors.js';
import { BLOCK } from '../base/units.js';
import type { Mem } from '../base/mem.js';
import { getU64 } from '../base/codec.js';
import { R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, REC } from '../replog/format.js';
import { S_RECORD, type Window } from '../replog/window.js';

/** Result of `probe`. */
export const PENDING = { NONE: 0, SOME: 1, ALL: 2, ONE_PIECE: 3 } as const;

/** Devices × blocks fit a number: 2^15 devices of 2^38 blocks (1 PiB). */
const DEVICE_STRIDE = 2 ** 38;
const FULL = 0xff;

interface ZeroRange {
  device: number;
  start: number;
  end: number;
  seq: number;
}

export class Overlay {
  readonly window: Window;
  private readonly mask: number;
  private readonly key: Float64Array;
  private readonly pos: Float64Array;
  private readonly seq: Int32Array;
  private readonly next: Int32Array;
  private readonly sectors: Uint8Array;
  private readonly buckets: Int32Array;
  private readonly shift: number;
  /** Oldest node alive and next node to be made; ids are compared by their signed difference. */
  private first = 1;
  private last = 1;
  private readonly zeroes: ZeroRange[] = [];
  /** Offset in the window's memory of the data, after `probe` returned ONE_PIECE. */
  pieceAt = 0;

  constructor(window: Window) {
    this.window = window;
    // A record of n bytes touches at most n/4096 + 2 blocks.
    let capacity = 1024;
    const most = window.shape.ring / BLOCK + 2 * window.shape.slots;
    while (capacity < most) capacity *= 2;
    this.mask = capacity - 1;
    this.shift = 32 - Math.log2(capacity);
    this.key = new Float64Array(capacity);
    this.pos = new Float64Array(capacity);
    this.seq = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
    this.sectors = new Uint8Array(capacity);
    this.buckets = new Int32Array(capacity);
  }

  /** Takes in the record that an earlier daemon left in `slot`. */
  adopt(slot: number, seq: number): void {
    const { dv } = this.window;
    const at = slot + S_RECORD;
    const type = dv.getUint8(at + R_TYPE);
    const device = dv.getUint32(at + R_DEVICE, true);
    const offset = getU64(dv, at + R_OFFSET);
    const length = getU64(dv, at + R_LENGTH);
    if (type === REC.WRITE) this.add(device, offset, length, this.window.payloadPos(slot), seq);
    else if (type === REC.DISCARD || type === REC.ZEROES) this.addZeroes(device, offset, length, seq);
  }

  /** A write of whole sectors whose payload begins at payload position `payload`. */
  add(device: number, offset: number, length: number, payload: number, seq: number): void {
    const end = offset + length;
    let block = Math.floor(offset / BLOCK);
    for (let start = block * BLOCK; start < end; start += BLOCK, block++) {
      const from = offset > start ? (offset - start) >>> 9 : 0;
      const to = end < start + BLOCK ? (end - start) >>> 9 : 8;
      const id = this.last;
      this.last = (id + 1) | 0;
      const at = id & this.mask;
      const bucket = this.bucketOf(device, block);
      this.key[at] = device * DEVICE_STRIDE + block;
      this.pos[at] = payload + (start - offset);
      this.seq[at] = seq | 0;
      this.sectors[at] = ((1 << to) - 1) & ~((1 << from) - 1);
      this.next[at] = this.buckets[bucket]!;
      this.buckets[bucket] = id;
    }
    assert(((this.last - this.first) | 0) <= this.mask + 1, 'the overlay holds more nodes than the window allows');
  }

  /** A discard or zeroing of whole sectors. */
  addZeroes(device: number, offset: number, length: number, seq: number): void {
    this.zeroes.push({ device, start: offset, end: offset + length, seq });
  }

  /** Lets go of everything that belongs to records below `head`. */
  release(head: number): void {
    const low = head | 0;
    while (this.first !== this.last && ((this.seq[this.first & this.mask]! - low) | 0) < 0)
      this.first = (this.first + 1) | 0;
    while (this.zeroes.length > 0 && this.zeroes[0]!.seq < head) this.zeroes.shift();
  }

  get zeroRanges(): number {
    return this.zeroes.length;
  }

  /** Does any record from seq `from` on touch bytes [offset, end) of `device`, and do such records cover all? */
  probe(device: number, offset: number, end: number, from: number): number {
    if (this.zeroes.length > 0 && this.overlapsZeroes(device, offset, end, from)) return PENDING.SOME;
    const low = from | 0;
    let some = false;
    let all = true;
    let one = true;
    let expect = -1;
    let block = Math.floor(offset / BLOCK);
    for (let start = block * BLOCK; start < end; start += BLOCK, block++) {
      const want = wanted(start, offset, end);
      let missing = want;
      let id = this.buckets[this.bucketOf(device, block)]!;
      const key = device * DEVICE_STRIDE + block;
      while (missing !== 0 && this.alive(id)) {
        const at = id & this.mask;
        id = this.next[at]!;
        if (this.key[at] !== key || ((this.seq[at]! - low) | 0) < 0) continue;
        const hit = this.sectors[at]! & missing;
        if (hit === 0) continue;
        some = true;
        if (hit !== want || (expect !== -1 && this.pos[at] !== expect)) one = false;
        if (expect === -1) this.pieceAt = this.pos[at]! + (offset > start ? offset - start : 0);
        expect = this.pos[at]! + BLOCK;
        missing &= ~hit;
      }
      if (missing !== 0) {
        all = false;
        if (some) return PENDING.SOME;
      }
    }
    if (!some) return PENDING.NONE;
    if (!all) return PENDING.SOME;
    if (!one) return PENDING.ALL;
    this.pieceAt = this.window.payloadAt(this.pieceAt);
    return PENDING.ONE_PIECE;
  }

  /** Copies what records from seq `from` on say about [offset, end) over `to` at `toAt`. */
  paint(device: number, offset: number, end: number, from: number, to: Mem, toAt: number): void {
    if (this.zeroes.length > 0 && this.overlapsZeroes(device, offset, end, from)) {
      this.paintWithZeroes(device, offset, end, from, to, toAt);
      return;
    }
    const low = from | 0;
    let block = Math.floor(offset / BLOCK);
    for (let start = block * BLOCK; start < end; start += BLOCK, block++) {
      let missing = wanted(start, offset, end);
      let id = this.buckets[this.bucketOf(device, block)]!;
      const key = device * DEVICE_STRIDE + block;
      while (missing !== 0 && this.alive(id)) {
        const at = id & this.mask;
        id = this.next[at]!;
        if (this.key[at] !== key || ((this.seq[at]! - low) | 0) < 0) continue;
        const hit = this.sectors[at]! & missing;
        if (hit === 0) continue;
        missing &= ~hit;
        this.copy(hit, this.pos[at]!, start, offset, end, to, toAt);
      }
    }
  }

  private alive(id: number): boolean {
    return ((id - this.first) | 0) >= 0 && ((this.last - id) | 0) > 0;
  }

  private bucketOf(device: number, block: number): number {
    const high = Math.floor(block / 4294967296) + device * 64;
    return Math.imul((block | 0) ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> this.shift;
  }

  /** Copies the sectors in `sectors` of the block at `start` to their place in [offset, end). */
  private copy(sectors: number, pos: number, start: number, offset: number, end: number, to: Mem, toAt: number): void {
    let s = 0;
    while (s < 8) {
      if ((sectors & (1 << s)) === 0) {
        s++;
        continue;
      }
      let e = s + 1;
      while (e < 8 && (sectors & (1 << e)) !== 0) e++;
      const a = Math.max(start + s * 512, offset);
      const b = Math.min(start + e * 512, end);
      const source = this.window.payloadAt(pos + (a - start));
      this.window.u8.copy(to.u8, toAt + (a - offset), source, source + (b - a));
      s = e;
    }
  }

  private overlapsZeroes(device: number, offset: number, end: number, from: number): boolean {
    for (const z of this.zeroes)
      if (z.device === device && z.seq >= from && z.start < end && z.end > offset) return true;
    return false;
  }

  /** The rare case: zero ranges and writes are painted oldest first, in the order of their numbers. */
  private paintWithZeroes(device: number, offset: number, end: number, from: number, to: Mem, toAt: number): void {
    const low = from | 0;
    const found: { seq: number; id: number; start: number }[] = [];
    let block = Math.floor(offset / BLOCK);
    for (let start = block * BLOCK; start < end; start += BLOCK, block++) {
      const key = device * DEVICE_STRIDE + block;
      for (let id = this.buckets[this.bucketOf(device, block)]!; this.alive(id); id = this.next[id & this.mask]!) {
        const at = id & this.mask;
        if (this.key[at] === key && ((this.seq[at]! - low) | 0) >= 0)
          found.push({ seq: (this.seq[at]! - low) | 0, id, start });
      }
    }
    found.sort((a, b) => a.seq - b.seq);
    let i = 0;
    const paintUpTo = (seq: number): void => {
      for (; i < found.length && found[i]!.seq < seq; i++) {
        const { id, start } = found[i]!;
        const at = id & this.mask;
        this.copy(this.sectors[at]! & wanted(start, offset, end), this.pos[at]!, start, offset, end, to, toAt);
      }
    };
    for (const z of this.zeroes) {
      if (z.device !== device || z.seq < from || z.start >= end || z.end <= offset) continue;
      paintUpTo(z.seq - from);
      to.u8.fill(0, toAt + Math.max(z.start, offset) - offset, toAt + Math.min(z.end, end) - offset);
    }
    paintUpTo(Infinity);
  }
}

/** Mask of the sectors of the block at `start` that [offset, end) touches. */
function wanted(start: number, offset: number, end: number): number {
  if (offset <= start && end >= start + BLOCK) return FULL;
  const from = offset > start ? (offset - start) >>> 9 : 0;
  const to = end < start + BLOCK ? (end - start + 511) >>> 9 : 8;
  return ((1 << to) - 1) & ~((1 << from) - 1);
}
