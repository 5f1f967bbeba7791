/**
 * What should be there: the group's history as the client wrote it, and for every sector of every device which
 * write put its content there. A sector's 512 bytes name their write, so an image can be read back into the same
 * shape, and whether it is a prefix of history is a comparison of two numbers.
 *
 * Writes carry a number of their own that is never used twice (a seq is, when an unflushed tail was lost).
 */
import { PAGE, SECTOR, type SimFile } from './sim-disk.js';

/** What one record does to the sectors of one device. Zero is the content of discarded and zeroed sectors. */
export interface Effect {
  device: number;
  /** In sectors. */
  at: number;
  count: number;
  /** Number of the write, or 0. */
  write: number;
}

export interface Entry {
  seq: number;
  what: string;
  effect: Effect | undefined;
}

/** State of all devices in two 32-bit lanes: the exclusive or over all sectors, so that it can be kept up to date. */
export interface StateHash {
  a: number;
  b: number;
}

export type DeviceSectors = Map<number, Uint32Array>;

const MAGIC = 0x53696d21;
/** A sector that holds what no write ever wrote. */
export const GARBLED = 0xffffffff;

/** Fills sectors [at, at + count) as write `write` does. */
export function fillPattern(
  u8: Uint8Array,
  off: number,
  device: number,
  at: number,
  count: number,
  write: number,
): void {
  const dv = new DataView(u8.buffer, u8.byteOffset + off, count * SECTOR);
  for (let i = 0; i < count; i++) {
    const base = i * SECTOR;
    stamp(dv, base, device, at + i, write);
    u8.copyWithin(off + base + 16, off + base, off + base + 16);
    for (let size = 32; size < SECTOR; size *= 2) u8.copyWithin(off + base + size, off + base, off + base + size);
  }
}

function stamp(dv: DataView, at: number, device: number, sector: number, write: number): void {
  dv.setUint32(at, MAGIC, true);
  dv.setUint32(at + 4, write, true);
  dv.setUint32(at + 8, placeOf(device, sector), true);
  dv.setUint32(at + 12, markOf(sector, write), true);
}

function placeOf(device: number, sector: number): number {
  return ((device << 24) | sector) >>> 0;
}

function markOf(sector: number, write: number): number {
  return Math.imul(write ^ Math.imul(sector + 1, 0x9e3779b1), 0x85ebca6b) >>> 0;
}

const ZEROES = Buffer.alloc(SECTOR);

/** Which write the sector at `off` comes from: 0 for zeroes, GARBLED for anything else. */
export function readPattern(u8: Buffer, off: number, device: number, sector: number): number {
  if (u8.readUInt32LE(off) !== MAGIC) return u8.compare(ZEROES, 0, SECTOR, off, off + SECTOR) === 0 ? 0 : GARBLED;
  const write = u8.readUInt32LE(off + 4);
  if (u8.readUInt32LE(off + 8) !== placeOf(device, sector) || u8.readUInt32LE(off + 12) !== markOf(sector, write))
    return GARBLED;
  return u8.compare(u8, off, off + SECTOR - 16, off + 16, off + SECTOR) === 0 ? write : GARBLED;
}

/** An image read back into write numbers; sectors behind the end of the file count as zeroes. */
export function readImage(file: SimFile, device: number, sectors: number): Uint32Array {
  const out = new Uint32Array(sectors);
  const whole = Math.min(sectors, Math.floor(file.size / SECTOR));
  for (let s = 0; s < whole;) {
    const page = file.page((s * SECTOR) / PAGE);
    const end = Math.min(whole, s + PAGE / SECTOR);
    if (page !== undefined) for (let i = s; i < end; i++) out[i] = readPattern(page, (i - s) * SECTOR, device, i);
    s = end;
  }
  return out;
}

function mixA(device: number, sector: number, write: number): number {
  if (write === 0) return 0;
  let h = Math.imul(write, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca6b) ^ Math.imul(device + 1, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return h ^ (h >>> 15);
}

function mixB(device: number, sector: number, write: number): number {
  if (write === 0) return 0;
  let h = Math.imul(write, 0x27d4eb2f) + Math.imul(sector + 1, 0x165667b1) + Math.imul(device + 1, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return h ^ (h >>> 16);
}

export function hashOf(devices: DeviceSectors): StateHash {
  let a = 0;
  let b = 0;
  for (const [device, sectors] of devices)
    for (let s = 0; s < sectors.length; s++) {
      a ^= mixA(device, s, sectors[s]!);
      b ^= mixB(device, s, sectors[s]!);
    }
  return { a, b };
}

const SNAPSHOT_EVERY = 256;

export class History {
  /** Sectors of each device number. */
  readonly sizes: ReadonlyMap<number, number>;
  readonly firstSeq: number;
  /** The newest state. */
  readonly now: DeviceSectors;
  private readonly entries: Entry[] = [];
  private readonly hashA: number[] = [0];
  private readonly hashB: number[] = [0];
  private readonly snapshots: DeviceSectors[] = [];
  private nextWrite = 1;

  constructor(sizes: ReadonlyMap<number, number>, firstSeq = 1) {
    this.sizes = sizes;
    this.firstSeq = firstSeq;
    this.now = new Map([...sizes].map(([device, sectors]) => [device, new Uint32Array(sectors)]));
    this.snapshots.push(copyOf(this.now));
  }

  /** Number of the next record. */
  get tail(): number {
    return this.firstSeq + this.entries.length;
  }

  newWrite(): number {
    return this.nextWrite++;
  }

  entry(seq: number): Entry | undefined {
    return this.entries[seq - this.firstSeq];
  }

  add(seq: number, what: string, effect?: Effect): void {
    if (seq !== this.tail) throw new Error(`record ${seq} follows ${this.tail - 1}: numbers have a gap`);
    this.entries.push({ seq, what, effect });
    let a = this.hashA.at(-1)!;
    let b = this.hashB.at(-1)!;
    if (effect !== undefined) {
      const sectors = this.now.get(effect.device)!;
      for (let s = effect.at; s < effect.at + effect.count; s++) {
        a ^= mixA(effect.device, s, sectors[s]!) ^ mixA(effect.device, s, effect.write);
        b ^= mixB(effect.device, s, sectors[s]!) ^ mixB(effect.device, s, effect.write);
        sectors[s] = effect.write;
      }
    }
    this.hashA.push(a);
    this.hashB.push(b);
    if (this.entries.length % SNAPSHOT_EVERY === 0) this.snapshots.push(copyOf(this.now));
  }

  /** Bytes of a device at `seq` as the records tell; undefined where they do not, or it was removed. */
  sizeAt(nr: number, seq: number): number | undefined {
    let size: number | undefined;
    for (const { what } of this.entries.slice(0, seq - this.firstSeq)) {
      const [name, of, bytes] = what.split(' ');
      if (Number(of) !== nr) continue;
      if (name === 'device-add' || name === 'device-resize') size = Math.max(size ?? 0, Number(bytes));
      else if (name === 'device-remove') size = undefined;
    }
    return size;
  }

  /** The state of all records below `seq`. */
  stateAt(seq: number): DeviceSectors {
    const count = seq - this.firstSeq;
    const snapshot = Math.min(Math.floor(count / SNAPSHOT_EVERY), this.snapshots.length - 1);
    const state = copyOf(this.snapshots[snapshot]!);
    for (let i = snapshot * SNAPSHOT_EVERY; i < count; i++) {
      const effect = this.entries[i]!.effect;
      if (effect !== undefined) state.get(effect.device)!.fill(effect.write, effect.at, effect.at + effect.count);
    }
    return state;
  }

  /** Everything from record `seq` on never happened. */
  truncate(seq: number): void {
    const count = seq - this.firstSeq;
    if (count >= this.entries.length) return;
    const state = this.stateAt(seq);
    this.entries.length = count;
    this.hashA.length = count + 1;
    this.hashB.length = count + 1;
    this.snapshots.length = Math.floor(count / SNAPSHOT_EVERY) + 1;
    for (const [device, sectors] of state) this.now.get(device)!.set(sectors);
  }

  /**
   * The prefixes that `image` is equal to, as the smallest and largest seq behind them within [low, high]
   * (records without effect make several equal), or undefined where it is none.
   */
  prefixesOf(image: DeviceSectors, low = this.firstSeq, high = this.tail): { low: number; high: number } | undefined {
    const hash = hashOf(image);
    let found: { low: number; high: number } | undefined;
    for (let seq = Math.min(high, this.tail); seq >= Math.max(low, this.firstSeq); seq--) {
      const i = seq - this.firstSeq;
      if (this.hashA[i] !== hash.a || this.hashB[i] !== hash.b) continue;
      found = { low: seq, high: found?.high ?? seq };
    }
    return found;
  }

  /** The first few sectors in which `image` differs from the prefix below `seq`, in words. */
  explain(image: DeviceSectors, seq: number): string[] {
    const state = this.stateAt(seq);
    const out: string[] = [];
    for (const [device, sectors] of image)
      for (let s = 0; s < sectors.length && out.length < 12; s++) {
        const want = state.get(device)![s]!;
        if (sectors[s] !== want)
          out.push(
            `device ${device} sector ${s}: holds ${this.whose(sectors[s]!)}, below ${seq} it is ${this.whose(want)}`,
          );
      }
    return out;
  }

  /**
   * The first few sectors of `image` that hold neither what they hold below `seq` nor what a record of [seq, to)
   * wrote there, in words; of those that `counts` says count.
   */
  beyond(
    image: DeviceSectors,
    seq: number,
    to: number,
    counts: (device: number, sector: number) => boolean = () => true,
  ): string[] {
    const state = this.stateAt(seq);
    const out: string[] = [];
    for (const [device, sectors] of image)
      for (let s = 0; s < sectors.length && out.length < 12; s++) {
        const has = sectors[s]!;
        const want = state.get(device)![s]!;
        if (has !== want && counts(device, s) && !this.wrote(device, s, has, seq, to))
          out.push(`device ${device} sector ${s}: holds ${this.whose(has)}, below ${seq} it is ${this.whose(want)}`);
      }
    return out;
  }

  private wrote(device: number, sector: number, write: number, from: number, to: number): boolean {
    for (let seq = from; seq < Math.min(to, this.tail); seq++) {
      const effect = this.entry(seq)?.effect;
      // A sector that was damaged on its way is written again with all others.
      if (effect?.device !== device || (effect.write !== write && write !== GARBLED)) continue;
      if (sector >= effect.at && sector < effect.at + effect.count) return true;
    }
    return false;
  }

  /** Whether a record from `seq` on touches any of these sectors. */
  touchedFrom(seq: number, device: number, at: number, count: number): boolean {
    return this.entries
      .slice(seq - this.firstSeq)
      .some(({ effect: e }) => e?.device === device && e.at < at + count && e.at + e.count > at);
  }

  private whose(write: number): string {
    if (write === 0) return 'zeroes';
    if (write === GARBLED) return 'garbage';
    const entry = this.entries.find((e) => e.effect?.write === write);
    return entry === undefined ? `lost write ${write}` : `record ${entry.seq}`;
  }
}

function copyOf(state: DeviceSectors): DeviceSectors {
  return new Map([...state].map(([device, sectors]) => [device, sectors.slice()]));
}
