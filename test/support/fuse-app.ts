/**
 * An application on a mount: writes numbered blocks, reads them back, and remembers every error and the
 * longest wait. A process of its own, because a mount that hangs must not hang the tests.
 *
 * Arguments: file, milliseconds to run. Prints one line of JSON.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

export interface AppResult {
  writes: number;
  longestMs: number;
  /** Code of the error that ended it, or null. */
  error: string | null;
  /** Blocks that did not read back as written. */
  wrong: number;
}

const BLOCK = 4096;
const BLOCKS = 1024;

function run(file: string, ms: number): AppResult {
  const result: AppResult = { writes: 0, longestMs: 0, error: null, wrong: 0 };
  const block = Buffer.alloc(BLOCK);
  const back = Buffer.alloc(BLOCK);
  const started = performance.now();
  try {
    const fd = openSync(file, 'r+');
    for (let n = 1; performance.now() - started < ms; n++) {
      const before = performance.now();
      const at = ((n * 7) % BLOCKS) * BLOCK;
      block.fill(n & 0xff);
      block.writeUInt32LE(n, 0);
      writeSync(fd, block, 0, BLOCK, at);
      result.writes++;
      readSync(fd, back, 0, BLOCK, at);
      if (!back.equals(block)) result.wrong++;
      result.longestMs = Math.max(result.longestMs, performance.now() - before);
    }
    closeSync(fd);
  } catch (error) {
    result.error = (error as NodeJS.ErrnoException).code ?? String(error);
    result.longestMs = Math.max(result.longestMs, performance.now() - started);
  }
  return result;
}

if (process.argv[1]?.endsWith('fuse-app.js') === true) {
  const [file, ms] = process.argv.slice(2);
  process.stdout.write(`${JSON.stringify(run(file!, Number(ms)))}\n`);
}
