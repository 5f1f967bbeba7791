/**
 * Sample digests of a site's devices: blocks written lately, so that a device which was exchanged or rolled
 * back since shows other content in at least one of them. A sample is dropped when its block is written, so
 * those in a stamp describe the devices at the stamp's cursor; new ones are taken between batches.
 */
import { createHash } from 'node:crypto';
import { getU64 } from '../base/codec.js';
import { Mem } from '../base/mem.js';
import { BLOCK } from '../base/units.js';
import { R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, RECORD_HEADER, REC } from '../replog/format.js';
import type { RawDevice } from './raw-stamp.js';
import { DIGEST, SAMPLES, type Sample } from './stamp-format.js';

/** Reads all of `len` bytes at `pos` of device `nr`, or the negative errno. */
export interface BlockReader {
  read(nr: number, mem: Mem, off: number, len: number, pos: number): number;
}

interface Sampled {
  device: RawDevice;
  /** Blocks written since samples were last taken, newest last; some of them. */
  recent: number[];
}

export class RawSamples {
  private readonly byNr = new Map<number, Sampled>();
  private last: Sampled | undefined;
  private readonly block = Mem.anon(BLOCK);

  constructor(devices: readonly RawDevice[]) {
    for (const device of devices) this.byNr.set(device.nr, { device, recent: [] });
  }

  close(): void {
    this.block.unmap();
  }

  /** Before a batch is written: its blocks are no samples any more, and some of them shall be. */
  note(mem: Mem, headers: number, count: number): void {
    const { dv } = mem;
    const step = Math.max(1, Math.floor(count / SAMPLES));
    for (let i = 0; i < count; i++) {
      const at = headers + i * RECORD_HEADER;
      const type = dv.getUint8(at + R_TYPE);
      if (type !== REC.WRITE && type !== REC.DISCARD && type !== REC.ZEROES) continue;
      const sampled = this.find(dv.getUint32(at + R_DEVICE, true));
      if (sampled === undefined) continue;
      const offset = getU64(dv, at + R_OFFSET);
      drop(sampled.device.samples, offset, offset + getU64(dv, at + R_LENGTH));
      if (type !== REC.WRITE || i % step !== (count - 1) % step) continue;
      remember(sampled.recent, offset);
    }
  }

  /** Before something is copied over a range: true where a sample was in there, which is none any more. */
  noteCopy(nr: number, offset: number, length: number): boolean {
    const sampled = this.find(nr);
    if (sampled === undefined) return false;
    const before = sampled.device.samples.length;
    drop(sampled.device.samples, offset, offset + length);
    remember(sampled.recent, offset);
    return sampled.device.samples.length < before;
  }

  /** A device that was written to has no sample left, and could have one. */
  get bare(): boolean {
    for (const { device, recent } of this.byNr.values())
      if (recent.length > 0 && device.samples.length === 0) return true;
    return false;
  }

  /** Takes new samples of what was written since; 0 or the negative errno. Nothing is being written. */
  take(reader: BlockReader): number {
    for (const sampled of this.byNr.values()) {
      const { device, recent } = sampled;
      if (recent.length === 0) continue;
      const fresh: Sample[] = [];
      for (const block of recent) {
        const digest = this.digest(reader, device, block);
        if (typeof digest === 'number') return digest;
        fresh.push({ block, digest });
      }
      const old = device.samples.filter((s) => !recent.includes(s.block));
      device.samples = [...old, ...fresh].slice(-SAMPLES);
      recent.length = 0;
    }
    return 0;
  }

  /**
   * A sample that the content of `device` contradicts; 0 where none does, or the negative errno. `loose`: only where all
   * of them do.
   */
  check(reader: BlockReader, device: RawDevice, loose: boolean): { block: number } | number {
    let wrong: { block: number } | undefined;
    for (const { block, digest } of device.samples) {
      const found = this.digest(reader, device, block);
      if (typeof found === 'number') return found;
      if (found === digest && loose) return 0;
      if (found !== digest) wrong ??= { block };
      if (wrong !== undefined && !loose) return wrong;
    }
    return wrong ?? 0;
  }

  private digest(reader: BlockReader, device: RawDevice, block: number): string | number {
    const pos = block * BLOCK;
    const len = Math.min(BLOCK, device.size - pos);
    if (len <= 0) return '';
    const rc = reader.read(device.nr, this.block, 0, len, pos);
    if (rc < 0) return rc;
    return createHash('sha256')
      .update(this.block.u8.subarray(0, len))
      .digest('hex')
      .slice(0, 2 * DIGEST);
  }

  private find(nr: number): Sampled | undefined {
    if (this.last?.device.nr === nr) return this.last;
    return (this.last = this.byNr.get(nr));
  }
}

function remember(recent: number[], offset: number): void {
  const block = Math.floor(offset / BLOCK);
  const known = recent.indexOf(block);
  if (known >= 0) recent.splice(known, 1);
  recent.push(block);
  if (recent.length > SAMPLES) recent.shift();
}

function drop(samples: Sample[], from: number, to: number): void {
  for (let i = samples.length - 1; i >= 0; i--) {
    const at = samples[i]!.block * BLOCK;
    if (at < to && at + BLOCK > from) samples.splice(i, 1);
  }
}
