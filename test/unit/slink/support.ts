/** Records, logs and folders for the tests of sites and images, and an Io that fails or dies where it is told. */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setU64 } from '../../../src/base/codec.js';
import { realIo, writeEach, type Io, type IoCall } from '../../../src/base/io.js';
import type { WriteList } from '../../../src/base/writelist.js';
import { KIB } from '../../../src/base/units.js';
import {
  BATCH_HEADER,
  Chain,
  RECORD_HEADER,
  RECORD_MAGIC,
  R_BYTES,
  R_CHAIN,
  R_DEVICE,
  R_LENGTH,
  R_MAGIC,
  R_OFFSET,
  R_REIGN,
  R_SEQ,
  R_SUM,
  R_TIME,
  R_TYPE,
  REC,
  advanceChain,
  payloadSpace,
  recordSum,
  type RecordType,
} from '../../../src/replog/format.js';
import { encodeDeviceAdd, encodeDeviceResize } from '../../../src/replog/device-records.js';
import { ShipBatch } from '../../../src/slink/batch.js';
import type { SiteCursor, SiteDevice, SiteOpen } from '../../../src/slink/contract.js';
import { LOG_ID, scratch } from '../replog/rig.js';

export const DISK: SiteDevice = { nr: 0, name: 'disk0', size: 64 * KIB };
export const DISK1: SiteDevice = { nr: 1, name: 'disk1', size: 32 * KIB };
export const START: SiteCursor = { pos: 0, seq: 1, chainLo: 11, chainHi: 22, time: 0, reign: 0 };

/** The process died in the middle of a call. */
export class Died extends Error {}

type Method = Exclude<keyof Io, 'toString'>;

/** What to do with a call: an errno, death before it, death after a part of it was done, or nothing. */
export type Rule = (
  call: IoCall,
  n: number,
  method: Method,
) => { errno?: number; die?: boolean; tear?: number } | undefined;

/** The real Io, every call of which is counted and may fail. After a death each further call dies too. */
export class FaultIo {
  calls = 0;
  readonly names: IoCall[] = [];
  rule: Rule | undefined;
  dead = false;
  /** Syncs say yes and do nothing: a process that dies loses nothing by it, and a test is done sooner. */
  readonly lazySync: boolean;
  readonly io: Io;

  constructor(rule?: Rule, lazySync = false) {
    this.rule = rule;
    this.lazySync = lazySync;
    const wrapped: Record<string, unknown> = {};
    for (const method of Object.keys(realIo) as Method[]) {
      const real = realIo[method] as unknown as (...args: unknown[]) => unknown;
      wrapped[method] = (...args: unknown[]) => this.through(method, real, args);
    }
    wrapped['pwriteMany'] = (call: IoCall, list: WriteList) => writeEach(this.io, call, list);
    this.io = wrapped as unknown as Io;
  }

  private through(method: Method, real: (...args: unknown[]) => unknown, args: unknown[]): unknown {
    const call = args[0] as IoCall;
    if (this.dead) {
      // A process that died has no descriptors left; the test's own must not run out.
      if (method === 'close') return real.apply(realIo, args);
      throw new Died(`${call} after death`);
    }
    const n = ++this.calls;
    this.names.push(call);
    const what = this.rule?.(call, n, method);
    if (what?.errno !== undefined) return -what.errno;
    if (what?.tear !== undefined && method === 'pwrite') {
      const [, fd, mem, off, len, pos] = args as Parameters<Io['pwrite']>;
      const part = Math.floor((len * what.tear) / 4096) * 4096;
      if (part > 0) realIo.pwrite(call, fd, mem, off, part, pos);
    }
    if (what?.tear !== undefined && method === 'pwritev') tearVec(args as Parameters<Io['pwritev']>, what.tear);
    if (what?.die === true || what?.tear !== undefined) {
      this.dead = true;
      throw new Died(`in ${call}`);
    }
    if (this.lazySync && (method === 'fdatasync' || method === 'syncDir')) return 0;
    return real.apply(realIo, args);
  }
}

/** Writes the sectors of a vectored write whose number falls below `share` of ten, in a scattered way. */
function tearVec([call, fd, vec, pos]: Parameters<Io['pwritev']>, share: number): void {
  let at = pos;
  for (let i = 0; i < vec.count; i++) {
    for (let done = 0; done < vec.lens[i]!; done += 4096) {
      const len = Math.min(4096, vec.lens[i]! - done);
      if (((at / 4096) * 7) % 10 < share * 10) realIo.pwrite(call, fd, vec.mems[i]!, vec.offs[i]! + done, len, at);
      at += len;
    }
  }
}

/** Makes batches of records with sums and chain as the appender does, and keeps the history they make. */
export class History {
  readonly batch = new ShipBatch();
  readonly cursor: SiteCursor;
  /** Contents of each device after record i; index 0 is the start. */
  readonly states: Map<number, Buffer>[] = [];
  readonly firstSeq: number;
  /** Names of all devices there ever were, by number. */
  readonly names = new Map<number, string>();
  private readonly chain = new Chain();
  private time = 1_700_000_000_000_000;

  constructor(devices: readonly SiteDevice[], start: SiteCursor = START) {
    this.cursor = { ...start };
    this.firstSeq = start.seq;
    this.chain.set(start.chainLo, start.chainHi);
    for (const { nr, name } of devices) this.names.set(nr, name);
    this.states.push(new Map(devices.map((device) => [device.nr, Buffer.alloc(device.size)])));
  }

  get now(): Map<number, Buffer> {
    return this.states[this.states.length - 1]!;
  }

  begin(): this {
    this.batch.begin(this.cursor);
    return this;
  }

  write(offset: number, data: Uint8Array, device = 0): this {
    this.record(REC.WRITE, device, offset, data.length, data);
    return this.change(device, (image) => image.set(data, offset));
  }

  /** WRITE of `length` bytes, each sector of which differs from all others. */
  fill(offset: number, length: number, device = 0): this {
    const data = Buffer.alloc(length);
    for (let i = 0; i < length; i += 512) data.fill(`${this.cursor.seq}:${offset + i};`, i, i + 512);
    return this.write(offset, data, device);
  }

  zeroes(offset: number, length: number, device = 0, type: RecordType = REC.ZEROES): this {
    this.record(type, device, offset, length);
    return this.change(device, (image) => image.fill(0, offset, offset + length));
  }

  tag(name: string): this {
    this.record(REC.TAG, 0, 0, 0, Buffer.from(name));
    this.states.push(this.now);
    return this;
  }

  add(device: SiteDevice): this {
    this.record(REC.DEVICE_ADD, device.nr, 0, 0, encodeDeviceAdd(device));
    this.names.set(device.nr, device.name);
    const known = this.now.get(device.nr) ?? Buffer.alloc(device.size);
    this.states.push(new Map([...this.now, [device.nr, known]]));
    return this;
  }

  grow(nr: number, size: number): this {
    this.record(REC.DEVICE_RESIZE, nr, 0, 0, encodeDeviceResize(size));
    const image = this.now.get(nr);
    const next = new Map(this.now);
    if (image !== undefined && image.length < size)
      next.set(nr, Buffer.concat([image, Buffer.alloc(size - image.length)]));
    this.states.push(next);
    return this;
  }

  remove(nr: number): this {
    this.record(REC.DEVICE_REMOVE, nr, 0, 0);
    const next = new Map(this.now);
    next.delete(nr);
    this.states.push(next);
    return this;
  }

  /** The number of the last record after which the images of `folder` are these and no others, or undefined. */
  seqOfFolder(folder: string): number | undefined {
    const files = readdirSync(folder).filter((name) => name.endsWith('.img'));
    const found = new Map(files.map((name) => [name.slice(0, -4), readFileSync(join(folder, name))]));
    for (let i = this.states.length - 1; i >= 0; i--) {
      const state = this.states[i]!;
      const same = [...state].every(([nr, bytes]) => found.get(this.names.get(nr)!)?.equals(bytes) === true);
      if (same && state.size === found.size) return this.firstSeq + i;
    }
    return undefined;
  }

  end(): ShipBatch {
    this.batch.endPos = this.cursor.pos += 4096 + this.batch.bytes;
    return this.batch;
  }

  /** The number of the last record after which all devices look so, or undefined. */
  seqOf(images: Map<number, Buffer>): number | undefined {
    for (let i = this.states.length - 1; i >= 0; i--) {
      const state = this.states[i]!;
      if ([...state].every(([nr, bytes]) => images.get(nr)?.equals(bytes) === true)) return this.firstSeq + i;
    }
    return undefined;
  }

  private change(device: number, how: (image: Buffer) => void): this {
    const next = new Map(this.now);
    const image = Buffer.from(next.get(device)!);
    how(image);
    next.set(device, image);
    this.states.push(next);
    return this;
  }

  private record(type: RecordType, device: number, offset: number, length: number, data?: Uint8Array): void {
    const { batch, cursor, chain } = this;
    const { dv, u8 } = batch.mem;
    const at = BATCH_HEADER + batch.records * RECORD_HEADER;
    const payload = batch.payloadAt + batch.bytes;
    u8.fill(0, at, at + RECORD_HEADER);
    dv.setUint16(at + R_MAGIC, RECORD_MAGIC, true);
    dv.setUint8(at + R_TYPE, type);
    setU64(dv, at + R_SEQ, cursor.seq);
    setU64(dv, at + R_TIME, (this.time += 1000));
    setU64(dv, at + R_OFFSET, offset);
    setU64(dv, at + R_LENGTH, length);
    dv.setUint32(at + R_DEVICE, device, true);
    dv.setUint32(at + R_REIGN, 1, true);
    dv.setUint32(at + R_BYTES, data?.length ?? 0, true);
    if (data !== undefined) {
      u8.fill(0, payload, payload + payloadSpace(data.length));
      u8.set(data, payload);
      batch.bytes += payloadSpace(data.length);
    }
    dv.setUint32(at + R_SUM, recordSum(u8, at, data), true);
    advanceChain(chain, dv, at, payload);
    chain.store(dv, at + R_CHAIN);
    batch.records++;
    Object.assign(cursor, { seq: cursor.seq + 1, chainLo: chain.lo, chainHi: chain.hi, time: this.time, reign: 1 });
  }
}

export function how(devices: readonly SiteDevice[] = [DISK], create = true): SiteOpen {
  const identity = { logId: LOG_ID, group: 'default', nr: 1 };
  return { devices, identity, ...(create ? { create: START } : {}) };
}

export function siteFolder(): string {
  const folder = join(scratch(), 'site');
  mkdirSync(folder);
  return folder;
}

export function imagesOf(folder: string, devices: readonly SiteDevice[] = [DISK]): Map<number, Buffer> {
  const images = new Map<number, Buffer>();
  for (const { nr, name } of devices) {
    const file = join(folder, `${name}.img`);
    if (existsSync(file)) images.set(nr, readFileSync(file));
  }
  return images;
}

export function put(file: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}
