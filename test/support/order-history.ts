/**
 * What the order test writes, and whether what stands somewhere is a prefix of it.
 *
 * Every write is one block of 4 KiB that names itself: its stream and its number n in it, 1, 2, 3, … A stream is
 * strictly in order: write n + 1 is issued when n was acknowledged. It goes over all devices in turn, to blocks that
 * belong to it alone, and where write n goes follows from n. So a state of all devices is one prefix of each stream
 * or no prefix at all; and of two streams it is a prefix of the group's order exactly where no write stands in it
 * that was issued after one that is missing had been acknowledged.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';

export const BLOCK = 4096;
const SECTOR = 512;
const MAGIC = 0x6f726472;
/** Bytes of a sector's header; the rest of the sector repeats it. */
const HEADER = 32;

export interface OrderShape {
  devices: number;
  /** Blocks of each device. */
  blocks: number;
  streams: number;
}

export interface Place {
  device: number;
  block: number;
}

function hash(a: number, b: number): number {
  let h = Math.imul(a + 1, 0x9e3779b1) ^ Math.imul(b + 1, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

/** Where write `n` of a stream goes: to each device in turn, half of them to few blocks. */
export function placeOf({ devices, blocks, streams }: OrderShape, stream: number, n: number): Place {
  const own = Math.floor(blocks / streams);
  const h = hash(stream, n);
  const nth = (h & 1) === 0 ? (h >>> 1) % own : (h >>> 1) % Math.min(own, 8);
  return { device: (n + stream) % devices, block: nth * streams + stream };
}

/** Block `place`, put at `from`, as write `n` of a stream leaves it. `life` tells apart writes that were made again. */
export function fillBlock(
  to: Buffer,
  from: number,
  stream: number,
  n: number,
  life: number,
  { device, block }: Place,
): void {
  for (let sector = 0; sector < BLOCK / SECTOR; sector++) {
    const at = from + sector * SECTOR;
    [MAGIC, stream, n, life, device, block, sector, hash(hash(stream, n), block * 8 + sector)].forEach((word, i) =>
      to.writeUInt32LE(word, at + 4 * i),
    );
    to.copyWithin(at + HEADER, at, at + HEADER);
    for (let size = 2 * HEADER; size < SECTOR; size *= 2) to.copyWithin(at + size, at, at + size);
  }
}

/** Milliseconds of the monotonic clock, the same in every process of the machine. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * When each write of a stream was issued and acknowledged: two numbers per write, 0 while it has not been. Written by
 * the stream's process, read by the test. Slot 0 holds the last write that a flush has covered.
 */
export class Times {
  private readonly fd: number;
  private readonly number = new Float64Array(1);
  private readonly bytes = Buffer.from(this.number.buffer);

  constructor(folder: string, stream: number) {
    this.fd = fs.openSync(join(folder, `times${stream}`), fs.constants.O_RDWR | fs.constants.O_CREAT);
  }

  private put(at: number, value: number): void {
    this.number[0] = value;
    fs.writeSync(this.fd, this.bytes, 0, 8, at);
  }

  private get(at: number): number {
    this.number[0] = 0;
    fs.readSync(this.fd, this.bytes, 0, 8, at);
    return this.number[0];
  }

  issue(n: number): void {
    this.put(n * 16, nowMs());
  }

  acknowledge(n: number): void {
    this.put(n * 16 + 8, nowMs());
  }

  flushed(n: number): void {
    this.put(0, n);
  }

  issuedAt(n: number): number {
    return n === 0 ? 0 : this.get(n * 16);
  }

  acknowledgedAt(n: number): number {
    return n === 0 ? 0 : this.get(n * 16 + 8);
  }

  get flushedTo(): number {
    return this.get(0);
  }

  /** Writes from `n` on have never been made. */
  forget(n: number): void {
    fs.ftruncateSync(this.fd, n * 16);
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}

/** How many writes of each stream a state holds. */
export type Prefix = readonly number[];

/** The life of the group in which each write of a stream was made (for the last time). */
class Lives {
  private readonly begins: { n: number; life: number }[] = [];

  of(n: number): number {
    return this.begins.findLast((begin) => begin.n <= n)?.life ?? 0;
  }

  begin(n: number, life: number): void {
    while (this.begins.length > 0 && this.begins.at(-1)!.n >= n) this.begins.pop();
    this.begins.push({ n, life });
  }
}

export class OrderHistory {
  readonly shape: OrderShape;
  readonly times: readonly Times[];
  private readonly lives: Lives[];

  constructor(shape: OrderShape, folder: string) {
    this.shape = shape;
    this.times = Array.from({ length: shape.streams }, (_, stream) => new Times(folder, stream));
    this.lives = this.times.map(() => new Lives());
  }

  /** A life begins in which stream i goes on behind write `from[i]`; what was made behind it is lost. */
  beginLife(life: number, from: Prefix): void {
    from.forEach((n, stream) => {
      this.times[stream]!.forget(n + 1);
      this.lives[stream]!.begin(n + 1, life);
    });
  }

  lifeOf(stream: number, n: number): number {
    return this.lives[stream]!.of(n);
  }

  close(): void {
    for (const times of this.times) times.close();
  }
}

/**
 * One place that is looked at again and again (a site, the local disk): it only ever goes on. What it should hold is
 * kept, and brought forward by what is new, so that a look costs little more than comparing memory.
 */
export class Follower {
  private readonly history: OrderHistory;
  private readonly what: string;
  private prefix: number[];
  /** The write that each block should hold at `prefix`, by device, and what the devices look like then. */
  private readonly held: Uint32Array[];
  private readonly expected: Buffer[];

  constructor(history: OrderHistory, what: string) {
    this.history = history;
    this.what = what;
    const { devices, blocks, streams } = history.shape;
    this.prefix = new Array<number>(streams).fill(0);
    this.held = Array.from({ length: devices }, () => new Uint32Array(blocks));
    this.expected = Array.from({ length: devices }, () => Buffer.alloc(blocks * BLOCK));
  }

  /** Fails unless the images are one prefix of the group's order, no shorter than what was seen here before. */
  look(images: readonly Buffer[]): Prefix {
    const found = newestIn(this.history.shape, images);
    this.forward(found);
    for (const [device, image] of images.entries()) this.compare(image, device);
    this.assertOrder(found);
    return found;
  }

  private forward(to: readonly number[]): void {
    const { history } = this;
    const { streams } = history.shape;
    for (let stream = 0; stream < streams; stream++) {
      const [had, has] = [this.prefix[stream]!, to[stream]!];
      if (has < had) this.fail(`stream ${stream} ends at write ${has}, and was at ${had} before`);
      for (let n = had + 1; n <= has; n++) {
        const place = placeOf(history.shape, stream, n);
        const { device, block } = place;
        this.held[device]![block] = n;
        fillBlock(this.expected[device]!, block * BLOCK, stream, n, history.lifeOf(stream, n), place);
      }
    }
    this.prefix = [...to];
  }

  private compare(image: Buffer, device: number): void {
    const expected = this.expected[device]!;
    if (image.equals(expected)) return;
    const { history } = this;
    for (let block = 0; block < history.shape.blocks; block++) {
      const at = block * BLOCK;
      if (image.compare(expected, at, at + BLOCK, at, at + BLOCK) === 0) continue;
      const stream = block % history.shape.streams;
      const n = this.held[device]![block]!;
      this.fail(
        `device ${device} block ${block} of stream ${stream} should hold write ${n} of life ${history.lifeOf(stream, n)} ` +
          `and holds ${whose(image, at)}`,
      );
    }
    this.fail(`device ${device} has ${image.length} bytes`);
  }

  /**
   * For a history of one stream: fails unless everything up to write `from` is there, and of what was written behind
   * it nothing beyond `to`. Each sector for itself, since a write may have been cut off in its middle.
   */
  lookWithin(images: readonly Buffer[], from: number, to: number): void {
    const { history } = this;
    this.forward([Math.max(from, this.prefix[0]!)]);
    const whole = Buffer.alloc(BLOCK);
    for (const [device, image] of images.entries()) {
      const expected = this.expected[device]!;
      if (image.equals(expected)) continue;
      for (let at = 0; at < expected.length; at += SECTOR) {
        if (image.compare(expected, at, at + SECTOR, at, at + SECTOR) === 0) continue;
        const block = Math.floor(at / BLOCK);
        const held = this.held[device]![block]!;
        const n = image.readUInt32LE(at + 8);
        const place = placeOf(history.shape, 0, n);
        const inside = n > held && n <= to && place.device === device && place.block === block;
        if (inside) fillBlock(whole, 0, 0, n, history.lifeOf(0, n), place);
        const within = at % BLOCK;
        if (!inside || image.compare(whole, within, within + SECTOR, at, at + SECTOR) !== 0)
          this.fail(
            `byte ${at} of device ${device} is outside of the open window (${from}, ${to}]: there should be write ` +
              `${held} or a later one of the window, and there is ${whose(image, at)}`,
          );
      }
    }
  }

  /** No write stands here that was issued after one that is missing had been acknowledged. */
  private assertOrder(prefix: Prefix): void {
    const { times } = this.history;
    prefix.forEach((last, stream) => {
      const issued = times[stream]!.issuedAt(last);
      prefix.forEach((other, i) => {
        const acknowledged = times[i]!.acknowledgedAt(other + 1);
        if (i !== stream && acknowledged > 0 && acknowledged < issued)
          this.fail(
            `write ${last} of stream ${stream} is here, issued ${(issued - acknowledged).toFixed(3)} ms after ` +
              `write ${other + 1} of stream ${i}, which is not here, was acknowledged`,
          );
      });
    });
  }

  private fail(why: string): never {
    throw new Error(`${this.what} is no prefix of the group's order: ${why}`);
  }
}

/** The newest write of each stream that stands anywhere. */
function newestIn({ streams, blocks }: OrderShape, images: readonly Buffer[]): number[] {
  const found = new Array<number>(streams).fill(0);
  for (const image of images)
    for (let block = 0; block < blocks; block++) {
      const at = block * BLOCK;
      if (image.readUInt32LE(at) !== MAGIC) continue;
      const stream = block % streams;
      found[stream] = Math.max(found[stream]!, image.readUInt32LE(at + 8));
    }
  return found;
}

function whose(image: Buffer, at: number): string {
  if (image.readUInt32LE(at) !== MAGIC) return 'something else';
  return `write ${image.readUInt32LE(at + 8)} (life ${image.readUInt32LE(at + 12)})`;
}

/** Fails unless `longer` holds everything that `shorter` does. */
export function assertHolds(longer: Prefix, shorter: Prefix, what: string): void {
  shorter.forEach((n, stream) => {
    if (longer[stream]! < n) throw new Error(`${what}: stream ${stream} has ${longer[stream]} writes, not ${n}`);
  });
}

export function sumOf(prefix: Prefix): number {
  return prefix.reduce((sum, n) => sum + n, 0);
}
