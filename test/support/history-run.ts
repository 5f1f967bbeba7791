/**
 * A child process: writes a history that can be recognised afterwards (support/history says how).
 *
 *   node history-run.js FILE SLOTS ACKED flush|dsync|plain [FIRST [COUNT]]
 *
 * ACKED is a file (not on the device) that holds the number of the last write that has to survive.
 */
import * as fs from 'node:fs';
import { BLOCK_BYTES, fillBlock, slotOf } from './history.js';

const [file, slotsText, acked, mode, first = '1', count = '1000000000'] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
];
const slots = Number(slotsText);
const O_DSYNC = 0x1000;
const fd = fs.openSync(file, fs.constants.O_RDWR | (mode === 'dsync' ? O_DSYNC : 0));
const ack = fs.openSync(acked, fs.existsSync(acked) ? 'r+' : 'w+');
const block = Buffer.alloc(BLOCK_BYTES);
const number = Buffer.alloc(8);

const from = Number(first);
const to = from + Number(count);
let unflushed = 0;
for (let i = from; i < to; i++) {
  fillBlock(block, i);
  const done = fs.writeSync(fd, block, 0, BLOCK_BYTES, slotOf(i, slots) * BLOCK_BYTES);
  if (done !== BLOCK_BYTES) throw new Error(`write ${i} was short: ${done}`);
  unflushed++;
  if (mode === 'flush' && (unflushed > i % 23 || i === to - 1)) {
    fs.fdatasyncSync(fd);
    unflushed = 0;
  }
  if (mode !== 'flush') unflushed = 0;
  if (unflushed === 0) {
    number.writeDoubleLE(i, 0);
    fs.writeSync(ack, number, 0, 8, 0);
  }
}
