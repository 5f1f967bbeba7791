/**
 * A history of writes that tells how much of it a disk holds: write i goes to slot `slotOf(i)` and carries i
 * in every sector. A disk is a prefix of history when, with P the largest i found, every slot holds the last
 * write up to P that went there. One writer, one write at a time, so that i is the order.
 */
import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { must, type Child } from './proc.js';
import type { Mounted } from './mounted.js';

export const BLOCK_BYTES = 4096;

/** Any slot, but the same for the same i. */
export function slotOf(i: number, slots: number): number {
  let h = Math.imul(i, 0x9e3779b1) >>> 0;
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) >>> 0;
  return ((h ^ (h >>> 13)) >>> 0) % slots;
}

export function fillBlock(block: Buffer, i: number): void {
  block.fill(i & 255);
  for (let at = 0; at < BLOCK_BYTES; at += 512) block.writeDoubleLE(i, at);
}

/**
 * When a write counts as kept: after an fdatasync behind it, as it is acknowledged through O_DSYNC, or simply as
 * it is acknowledged.
 */
export type HistoryMode = 'flush' | 'dsync' | 'plain';

/** A child that writes history on the device of `mounted`. */
export class History {
  readonly slots: number;
  private readonly acked: string;
  private readonly mounted: Mounted;

  constructor(mounted: Mounted, slots = 2048) {
    this.mounted = mounted;
    this.slots = slots;
    this.acked = join(mounted.top, 'acked');
  }

  start(mode: HistoryMode, first = 1, count?: number, timeoutMs = 60_000): Child {
    const words = [this.mounted.disk, String(this.slots), this.acked, mode, String(first)];
    if (count !== undefined) words.push(String(count));
    const script = join(import.meta.dirname, 'history-run.js');
    return this.mounted.spawn(process.execPath, [script, ...words], { timeoutMs });
  }

  /** Number of the last write that has to be there whatever happens. */
  get flushed(): number {
    const text = existsSync(this.acked) ? readFileSync(this.acked) : Buffer.alloc(0);
    return text.length >= 8 ? text.readDoubleLE(0) : 0;
  }

  /** How much of history the device shows; read by a child. */
  async onDevice(): Promise<number> {
    const copy = join(this.mounted.top, 'device-copy');
    await must('dd', [`if=${this.mounted.disk}`, `of=${copy}`, 'bs=1M', 'status=none'], { timeoutMs: 60_000 });
    return this.prefixIn(copy, 'the device');
  }

  /** How much of history is in an image; fails where it is not a prefix. */
  prefixIn(file: string, what: string): number {
    const fd = openSync(file, 'r');
    const found = new Float64Array(this.slots);
    const block = Buffer.alloc(BLOCK_BYTES);
    const whole = Buffer.alloc(BLOCK_BYTES);
    for (let slot = 0; slot < this.slots; slot++) {
      readSync(fd, block, 0, BLOCK_BYTES, slot * BLOCK_BYTES);
      const i = block.readDoubleLE(0);
      if (i === 0) whole.fill(0);
      else fillBlock(whole, i);
      assert.ok(block.equals(whole), `${what}: slot ${slot} holds a mixture`);
      assert.ok(i === 0 || slotOf(i, this.slots) === slot, `${what}: slot ${slot} holds write ${i} of another slot`);
      found[slot] = i;
    }
    closeSync(fd);
    const last = found.reduce((a, b) => Math.max(a, b), 0);
    const expected = new Float64Array(this.slots);
    for (let i = 1; i <= last; i++) expected[slotOf(i, this.slots)] = i;
    const wrong = found.findIndex((i, slot) => i !== expected[slot]);
    assert.equal(
      wrong,
      -1,
      `${what} is no prefix: it holds write ${last}, but slot ${wrong} has ${found[wrong]}, not ${expected[wrong]}`,
    );
    return last;
  }
}
