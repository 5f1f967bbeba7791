/**
 * A child process that writes with many hands at once and remembers what was acknowledged.
 *
 *   node acked-writer.js FILE HANDS FIRST
 *
 * Hand h overwrites block h of 4 KiB over and over, its number h and a count that starts at FIRST; nothing is flushed.
 * It prints `ready`, and at its end (SIGTERM, or the first error of each hand) one line of JSON: per hand the last count
 * that was acknowledged and the last that was begun, and the errors.
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';

export interface Acked {
  acked: number[];
  begun: number[];
  errors: string[];
}

export const ACKED_BLOCK = 4096;

/** A block begins with hand and count, and is filled with a byte of them, so that a torn one shows. */
export function fillAcked(block: Buffer, hand: number, count: number): void {
  block.fill((hand * 31 + count) & 0xff);
  block.writeUInt32LE(hand, 0);
  block.writeUInt32LE(count, 4);
}

const write = promisify(fs.write);

async function main(): Promise<void> {
  const [file, hands, first] = [process.argv[2]!, Number(process.argv[3]), Number(process.argv[4])];
  const fd = fs.openSync(file, 'r+');
  const result: Acked = { acked: [], begun: [], errors: [] };
  let stopped = false;
  process.on('SIGTERM', () => (stopped = true));
  const hand = async (h: number): Promise<void> => {
    const block = Buffer.alloc(ACKED_BLOCK);
    for (let count = first; !stopped; count++) {
      fillAcked(block, h, count);
      result.begun[h] = count;
      try {
        const { bytesWritten } = await write(fd, block, 0, ACKED_BLOCK, h * ACKED_BLOCK);
        if (bytesWritten !== ACKED_BLOCK) throw new Error(`short write: ${bytesWritten}`);
      } catch (error) {
        result.errors.push(String(error));
        return;
      }
      result.acked[h] = count;
    }
  };
  const all = Array.from({ length: hands }, (_, h) => {
    result.acked[h] = result.begun[h] = first - 1;
    return hand(h);
  });
  process.stdout.write('ready\n');
  await Promise.all(all);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

if (process.argv[1] === import.meta.filename) await main();
