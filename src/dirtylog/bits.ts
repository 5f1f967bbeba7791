/**
 * Which regions of one device may differ at one site: a bit per region, set = dirty. Over shared memory, so that the
 * shipper's thread finds what it has to copy without asking. One thread writes (main); any thread reads.
 *
 *   word (Int32)   meaning                                        writer
 *   0              regions that are dirty                         main
 *   1 …            region i: bit i % 32 of word 1 + i / 32        main
 *
 * Each word is whole for a reader; words and count may differ by what main is doing in this moment, so whether a site
 * is whole is for main to say.
 */
import { assert } from '../base/errors.js';

/** What `bytes` promises of the order of bits is the order of the words' bytes in memory. */
assert(new Uint8Array(Uint32Array.of(1).buffer)[0] === 1, 'bits are read and written as little-endian words');

const HEAD = 1;

export class DirtyBits {
  /** Sectors of a region, a power of two. */
  readonly regionSectors: number;
  readonly deviceSectors: number;
  readonly regions: number;
  readonly buffer: SharedArrayBuffer;
  private readonly words: Int32Array;

  /** All clean, or over what another thread made with the same numbers. */
  constructor(regionSectors: number, deviceSectors: number, buffer?: SharedArrayBuffer) {
    assert(Number.isInteger(Math.log2(regionSectors)), `a region of ${regionSectors} sectors`);
    assert(Number.isSafeInteger(deviceSectors) && deviceSectors > 0, `a device of ${deviceSectors} sectors`);
    this.regionSectors = regionSectors;
    this.deviceSectors = deviceSectors;
    this.regions = regionsOf(regionSectors, deviceSectors);
    const bytes = bufferBytes(this.regions);
    assert(buffer === undefined || buffer.byteLength === bytes, `bits of ${this.regions} regions in another buffer`);
    this.buffer = buffer ?? new SharedArrayBuffer(bytes);
    this.words = new Int32Array(this.buffer);
  }

  /**
   * From what `bytes` returned, for a device that may have grown since: its new area is clean (it reads as zeroes at the
   * site, too), and bits behind its end are left out.
   */
  static from(bytes: Uint8Array, regionSectors: number, deviceSectors: number): DirtyBits {
    const bits = new DirtyBits(regionSectors, deviceSectors);
    const stored = new Uint8Array(bits.buffer, 4 * HEAD);
    stored.set(bytes.subarray(0, bytesOf(bits.regions)));
    const surplus = bits.regions % 8;
    if (surplus !== 0) stored[bytesOf(bits.regions) - 1]! &= (1 << surplus) - 1;
    bits.recount();
    return bits;
  }

  /** Regions that are dirty. */
  get count(): number {
    // As unsigned: 2^32 regions are more than a device can have.
    return Atomics.load(this.words, 0) >>> 0;
  }

  /** Marks what `sectors` sectors from `first` on touch; they lie within the device. */
  mark(first: number, sectors: number): void {
    if (sectors <= 0) return;
    // Marks that were cut off here would be writes that the site never gets.
    assert(first >= 0 && first + sectors <= this.deviceSectors, `sectors ${first}+${sectors} lie behind the device`);
    this.set(Math.floor(first / this.regionSectors), Math.floor((first + sectors - 1) / this.regionSectors));
  }

  /** All regions. */
  fill(): void {
    this.set(0, this.regions - 1);
  }

  has(region: number): boolean {
    return region < this.regions && (Atomics.load(this.words, HEAD + (region >>> 5)) & (1 << (region & 31))) !== 0;
  }

  clear(region: number): void {
    if (!this.has(region)) return;
    const at = HEAD + (region >>> 5);
    Atomics.store(this.words, 0, Atomics.load(this.words, 0) - 1);
    Atomics.store(this.words, at, this.words[at]! & ~(1 << (region & 31)));
  }

  /** The first dirty region at or behind `from`; -1 where there is none. */
  next(from: number): number {
    if (from >= this.regions) return -1;
    const { words } = this;
    let at = HEAD + (from >>> 5);
    // Of the first word what lies before `from` does not count.
    let word = Atomics.load(words, at) & (-1 << (from & 31));
    while (word === 0) {
      if (++at >= words.length) return -1;
      // Bits that appear behind this look are found by the next one.
      word = words[at]!;
    }
    return (at - HEAD) * 32 + (31 - Math.clz32(word & -word));
  }

  /** A copy; region i is bit i % 8 of byte i / 8. */
  bytes(): Uint8Array {
    return new Uint8Array(this.buffer, 4 * HEAD, bytesOf(this.regions)).slice();
  }

  /** Also dirty becomes what is dirty in `other`, which has the same regions, or fewer. */
  or(other: DirtyBits): void {
    assert(other.regionSectors === this.regionSectors && other.regions <= this.regions, 'bits of other regions');
    const { words } = this;
    let added = 0;
    for (let at = HEAD; at < other.words.length; at++) {
      const now = words[at]! | other.words[at]!;
      if (now === words[at]) continue;
      added += ones(now) - ones(words[at]!);
      Atomics.store(words, at, now);
    }
    this.add(added);
  }

  /** For the device at its new size: what was added is clean. */
  resized(deviceSectors: number): DirtyBits {
    assert(deviceSectors >= this.deviceSectors, 'a device does not shrink');
    const bits = new DirtyBits(this.regionSectors, deviceSectors);
    bits.or(this);
    return bits;
  }

  /** With regions of another size; a larger one is dirty where any part of it was. */
  rescaled(regionSectors: number): DirtyBits {
    const bits = new DirtyBits(regionSectors, this.deviceSectors);
    for (let region = this.next(0); region >= 0; region = this.next(region + 1)) {
      const first = region * this.regionSectors;
      bits.mark(first, Math.min(this.regionSectors, this.deviceSectors - first));
    }
    return bits;
  }

  private set(from: number, to: number): void {
    const { words } = this;
    const first = HEAD + (from >>> 5);
    const last = HEAD + (to >>> 5);
    let added = 0;
    for (let at = first; at <= last; at++) {
      let mask = -1;
      if (at === first) mask &= -1 << (from & 31);
      if (at === last) mask &= -1 >>> (31 - (to & 31));
      const old = words[at]!;
      if ((old & mask) === mask) continue;
      added += ones(old | mask) - ones(old);
      Atomics.store(words, at, old | mask);
    }
    this.add(added);
  }

  private add(regions: number): void {
    if (regions !== 0) Atomics.store(this.words, 0, (Atomics.load(this.words, 0) + regions) | 0);
  }

  private recount(): void {
    let count = 0;
    for (let at = HEAD; at < this.words.length; at++) count += ones(this.words[at]!);
    Atomics.store(this.words, 0, count | 0);
  }
}

export function regionsOf(regionSectors: number, deviceSectors: number): number {
  return Math.ceil(deviceSectors / regionSectors);
}

/** Bytes that the bits of so many regions take. */
export function bytesOf(regions: number): number {
  return Math.ceil(regions / 8);
}

function bufferBytes(regions: number): number {
  return 4 * (HEAD + Math.ceil(regions / 32));
}

/** Bits that are set in a word of 32. */
function ones(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return (((n + (n >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
