/** Gathered asynchronous reads against a real file. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as sys from '../../../src/base/sys.js';
import { AioReader } from '../../../src/fuse/aio.js';

const BLOCK = 4096;

describe('AioReader', () => {
  let dir: string;
  let fd: number;

  before(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-aio-'));
    const file = path.join(dir, 'image');
    fs.writeFileSync(
      file,
      Buffer.alloc(64 * BLOCK, 0).map((_, i) => (i / BLOCK) & 255),
    );
    fd = fs.openSync(file, sys.O_RDONLY | sys.O_DIRECT);
  });
  after(() => {
    fs.closeSync(fd);
    fs.rmSync(dir, { recursive: true });
  });

  /** Reaps until `n` reads have finished: first byte and count of each, by slot. */
  function reaped(aio: AioReader, n: number): Map<number, [number, number]> {
    const found = new Map<number, [number, number]>();
    for (let i = 0; i < 100_000 && found.size < n; i++)
      aio.reap(0, (slot) => found.set(slot, [aio.mem.u8[aio.dataAt(slot)]!, aio.result[slot]!]));
    assert.equal(found.size, n);
    return found;
  }

  it('begins what was gathered when it is told to, or when it is enough', () => {
    const aio = new AioReader(16, 64 * 1024);
    const slots = [5, 9, 30].map((block) => aio.queue(fd, block * BLOCK + 512, 1024));
    assert.equal(aio.inFlight, 3);
    aio.reap(0, () => assert.fail('nothing was begun'));
    aio.submit();
    const found = reaped(aio, 3);
    assert.deepEqual(
      slots.map((slot) => found.get(slot)),
      [
        [5, 1024],
        [9, 1024],
        [30, 1024],
      ],
    );
    for (let block = 0; block < 8; block++) aio.queue(fd, block * BLOCK, BLOCK);
    assert.deepEqual([...reaped(aio, 8).values()].map(([first]) => first).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.equal(aio.inFlight, 0);
  });

  it('waits for one where all slots are taken, whether it was begun or not', () => {
    const aio = new AioReader(4, 64 * 1024);
    for (let block = 0; block < 4; block++) aio.queue(fd, block * BLOCK, BLOCK);
    assert.ok(aio.full);
    let done = 0;
    aio.reap(1, () => done++);
    assert.ok(done > 0 && !aio.full);
  });

  it('reads at once what the kernel does not take, and tells its error', () => {
    const aio = new AioReader(4, 64 * 1024);
    const good = aio.queue(fd, 7 * BLOCK, BLOCK);
    const bad = aio.queue(-1, 0, BLOCK);
    const behind = aio.queue(fd, 8 * BLOCK, BLOCK);
    aio.submit();
    const found = reaped(aio, 3);
    assert.deepEqual(found.get(good), [7, BLOCK]);
    assert.deepEqual(found.get(behind), [8, BLOCK]);
    assert.equal(found.get(bad)![1], -9, 'EBADF');
    const counter = new Uint8Array(8);
    while (aio.inFlight > 0) aio.reap(0, () => undefined);
    fs.readSync(aio.eventfd, counter);
    // Nothing but a refused one is under way: whoever polls has to hear of it all the same.
    aio.queue(-1, 0, BLOCK);
    aio.submit();
    assert.equal(fs.readSync(aio.eventfd, counter), 8, 'the eventfd is up');
  });
});
