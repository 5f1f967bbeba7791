/**
 * Sectors that were seen to differ between the local images and a site, and of which nobody knows yet whether they
 * really do (verify.ts). They stand in chunks of 1 MiB, a bit per sector, so that what a record touches is found and
 * crossed out by one look into a table, and a site that differs everywhere takes 256 bytes for each MiB.
 */
import { getU64 } from '../base/codec.js';
import type { Mem } from '../base/mem.js';
import { MIB, SECTOR } from '../base/units.js';
import { R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, RECORD_HEADER, REC } from '../replog/format.js';

export const CHUNK = MIB;
const SECTORS = CHUNK / SECTOR;
const WORD_BITS = 32;
/** Keys are device × this + chunk: 4 PiB a device, and far below 2^53 for the largest device number. */
const CHUNKS = 2 ** 32;

/** One chunk of a device. */
export class Suspect {
  readonly device: number;
  /** Byte of the device at which it begins. */
  readonly start: number;
  /** Sectors that are still suspected. */
  left = 0;
  /** A look ended when records below it were durable: those that could explain what it saw. */
  seen = 0;
  /** Number of its second look; 0 = there was none yet. */
  look = 0;
  /** How many syncs of slink 0's images had failed at the second look. */
  doubts = 0;
  private readonly bits = new Uint32Array(SECTORS / WORD_BITS);

  constructor(device: number, start: number) {
    this.device = device;
    this.start = start;
  }

  /** `sector` counts from the start of the chunk, here and below. */
  has(sector: number): boolean {
    return (this.bits[sector >>> 5]! & (1 << (sector & 31))) !== 0;
  }

  mark(sector: number): void {
    if (this.has(sector)) return;
    this.bits[sector >>> 5]! |= 1 << (sector & 31);
    this.left++;
  }

  clear(sector: number): void {
    if (!this.has(sector)) return;
    this.bits[sector >>> 5]! &= ~(1 << (sector & 31));
    this.left--;
  }

  /** The first suspected sector from `from` on; SECTORS where there is none. */
  next(from: number): number {
    for (let sector = from; sector < SECTORS; sector++) {
      if (this.bits[sector >>> 5] === 0) sector |= 31;
      else if (this.has(sector)) return sector;
    }
    return SECTORS;
  }

  /** Behind the last suspected sector; 0 where there is none. */
  get end(): number {
    for (let sector = SECTORS - 1; sector >= 0; sector--) if (this.has(sector)) return sector + 1;
    return 0;
  }

  /** Calls `visit` for each stretch of suspected sectors, in bytes of the device. */
  forEach(visit: (start: number, end: number) => void): void {
    for (let from = this.next(0); from < SECTORS;) {
      let to = from + 1;
      while (to < SECTORS && this.has(to)) to++;
      visit(this.start + from * SECTOR, this.start + to * SECTOR);
      from = this.next(to);
    }
  }
}

export class Suspects {
  private readonly byKey = new Map<number, Suspect>();
  /** Those that were looked at once, and twice; each in the order of `seen`. */
  private readonly once = new Set<Suspect>();
  private readonly twice = new Set<Suspect>();

  /** Chunks. */
  get size(): number {
    return this.byKey.size;
  }

  /** Bytes that are suspected. */
  get bytes(): number {
    let sectors = 0;
    for (const { left } of this.byKey.values()) sectors += left;
    return sectors * SECTOR;
  }

  /** The sector at byte `at` of `device` differs; no record from `seen` on can have been part of that look. */
  mark(device: number, at: number, seen: number): void {
    const chunk = Math.floor(at / CHUNK);
    const key = keyOf(device, chunk);
    let suspect = this.byKey.get(key);
    if (suspect === undefined) this.byKey.set(key, (suspect = new Suspect(device, chunk * CHUNK)));
    suspect.mark((at - suspect.start) / SECTOR);
    if (suspect.seen === seen) return;
    suspect.seen = seen;
    // Behind all others: those are in the order of their looks.
    this.once.delete(suspect);
    this.once.add(suspect);
  }

  /** Of those looked at once, or twice, the one that was looked at first. */
  oldest(looks: 1 | 2): Suspect | undefined {
    const set = looks === 1 ? this.once : this.twice;
    for (const suspect of set) {
      if (suspect.left > 0) return suspect;
      this.drop(suspect);
    }
    return undefined;
  }

  /** It was looked at a second time. */
  looked(suspect: Suspect, look: number, seen: number, doubts: number): void {
    this.once.delete(suspect);
    Object.assign(suspect, { look, seen, doubts });
    this.twice.add(suspect);
  }

  /** That look does not count: from the beginning. */
  again(suspect: Suspect, seen: number): void {
    this.twice.delete(suspect);
    suspect.look = 0;
    suspect.seen = seen;
    this.once.add(suspect);
  }

  drop(suspect: Suspect): void {
    this.byKey.delete(keyOf(suspect.device, suspect.start / CHUNK));
    this.once.delete(suspect);
    this.twice.delete(suspect);
  }

  clear(): void {
    this.byKey.clear();
    this.once.clear();
    this.twice.clear();
  }

  /** Records go to the site: what they write is equal on both sides once both have them. */
  crossOut(mem: Mem, headers: number, count: number): void {
    if (this.byKey.size === 0) return;
    const { dv } = mem;
    for (let i = 0; i < count; i++) {
      const at = headers + i * RECORD_HEADER;
      const type = dv.getUint8(at + R_TYPE);
      if (type !== REC.WRITE && type !== REC.DISCARD && type !== REC.ZEROES) continue;
      const start = getU64(dv, at + R_OFFSET);
      this.crossOutRange(dv.getUint32(at + R_DEVICE, true), start, start + getU64(dv, at + R_LENGTH));
    }
  }

  private crossOutRange(device: number, start: number, end: number): void {
    const first = Math.floor(start / CHUNK);
    const last = Math.ceil(end / CHUNK);
    if (last - first <= this.byKey.size) {
      for (let chunk = first; chunk < last; chunk++) cross(this.byKey.get(keyOf(device, chunk)), start, end);
      return;
    }
    // A discard of a whole device touches more chunks than are suspected.
    for (const suspect of this.byKey.values()) if (suspect.device === device) cross(suspect, start, end);
  }
}

function keyOf(device: number, chunk: number): number {
  return device * CHUNKS + chunk;
}

function cross(suspect: Suspect | undefined, start: number, end: number): void {
  if (suspect === undefined) return;
  const from = Math.max(0, (start - suspect.start) / SECTOR);
  const to = Math.min(SECTORS, (end - suspect.start) / SECTOR);
  for (let sector = suspect.next(from); sector < to; sector = suspect.next(sector + 1)) suspect.clear(sector);
}
