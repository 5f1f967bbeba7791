/**
 * A child process: writes one 4 KiB block with O_DIRECT again and again, a millisecond apart, reads it back
 * now and then, and notes every write that took long. What an application feels when the daemon dies.
 *
 *   node prober.js FILE OFFSET SLOW-MS OUT      until SIGTERM
 *
 * OUT: a line `START END` (milliseconds of the monotonic clock) per slow write, `ready` first, `writes N` last.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import * as sys from '../../src/base/sys.js';
import { Mem } from '../../src/base/mem.js';
import { monotonicMs } from './kills.js';

const [file, offsetText, slowText, out] = process.argv.slice(2) as [string, string, string, string];
const offset = Number(offsetText);
const slow = Number(slowText);
const log = fs.openSync(out, 'a');
const fd = fs.openSync(file, fs.constants.O_RDWR | sys.O_DIRECT);
const block = Mem.anon(4096);
const back = Mem.anon(4096);
const nap = new Int32Array(new SharedArrayBuffer(4));

let stopped = false;
process.on('SIGTERM', () => (stopped = true));

let writes = 0;
fs.writeSync(log, 'ready\n');
while (!stopped) {
  for (let i = 0; i < 8; i++) {
    writes++;
    block.u8.fill(writes & 255);
    block.u8.writeUInt32LE(writes, 0);
    const from = monotonicMs();
    const r = sys.pwrite(fd, block.addr, 4096, offset);
    const to = monotonicMs();
    assert.equal(r, 4096, `write ${writes} returned ${r}`);
    if (to - from >= slow) fs.writeSync(log, `${from.toFixed(3)} ${to.toFixed(3)}\n`);
    Atomics.wait(nap, 0, 0, 1);
  }
  assert.equal(sys.pread(fd, back.addr, 4096, offset), 4096);
  assert.ok(back.u8.equals(block.u8), `block read after write ${writes} is not what was written`);
  await turn();
}
fs.writeSync(log, `writes ${writes}\n`);
