/**
 * A child process of the order test that writes one stream (order-history), or carries a share of one.
 *
 *   node order-writer.js '{"dir": …, "times": …, "shape": …, "stream": S, "from": N, "life": L, "pace": MS, "ring": [IN, OUT]}'
 *
 * With `ring`, the number of the next write comes in through one FIFO and goes out, when that write is acknowledged,
 * through the other: several processes write one stream in turn. It ends with the first error, or when it is killed.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { BLOCK, Times, fillBlock, placeOf, type OrderShape } from './order-history.js';

export interface WriterTask {
  /** The mounted group; device i is `disk<i>`. */
  dir: string;
  /** Folder of the times files. */
  times: string;
  shape: OrderShape;
  stream: number;
  /** Number of the first write. */
  from: number;
  life: number;
  /** Milliseconds that it rests on the average between two writes. */
  pace: number;
  ring?: readonly [string, string];
}

const task = JSON.parse(process.argv[2]!) as WriterTask;
const { shape, stream, life, pace, ring } = task;
const devices = Array.from({ length: shape.devices }, (_, i) => fs.openSync(join(task.dir, `disk${i}`), 'r+'));
const times = new Times(task.times, stream);
const [from, to] = ring === undefined ? [-1, -1] : (ring.map((fifo) => fs.openSync(fifo, 'r+')) as [number, number]);
const block = Buffer.alloc(BLOCK);
const token = Buffer.alloc(8);
const nap = new Int32Array(new SharedArrayBuffer(4));

/** The number to be written next; waits for its turn. */
function turn(n: number): number {
  if (from < 0) return n;
  if (fs.readSync(from, token, 0, 8, null) !== 8) process.exit(1);
  return token.readDoubleLE(0);
}

function pass(n: number): void {
  if (to < 0) return;
  token.writeDoubleLE(n, 0);
  fs.writeSync(to, token);
}

function write(n: number): void {
  const place = placeOf(shape, stream, n);
  fillBlock(block, 0, stream, n, life, place);
  times.issue(n);
  const done = fs.writeSync(devices[place.device]!, block, 0, BLOCK, place.block * BLOCK);
  if (done !== BLOCK) throw new Error(`write ${n} returned ${done}`);
  times.acknowledge(n);
  if (n % 61 === 0) {
    fs.fdatasyncSync(devices[place.device]!);
    times.flushed(n);
  }
}

/** Writes come in bursts: some in a row without rest, then a longer one. */
function rest(n: number): void {
  const burst = 1 + (Math.imul(n >>> 4, 0x9e3779b1) >>> 28);
  if (n % burst === 0) Atomics.wait(nap, 0, 0, pace * burst);
}

for (let n = turn(task.from); ; n = turn(n + 1)) {
  write(n);
  pass(n + 1);
  rest(n);
}
