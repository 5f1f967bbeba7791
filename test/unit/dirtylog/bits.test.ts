import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { DirtyBits } from '../../../src/dirtylog/bits.js';

const TIB_SECTORS = 2 ** 31;

/** The regions that `bits` says are dirty, by `next` and, for comparison, by `has`. */
function dirty(bits: DirtyBits): number[] {
  const found: number[] = [];
  for (let r = bits.next(0); r >= 0; r = bits.next(r + 1)) found.push(r);
  const looked = Array.from({ length: bits.regions }, (_, r) => r).filter((r) => bits.has(r));
  assert.deepEqual(found, looked);
  assert.equal(bits.count, found.length);
  return found;
}

describe('DirtyBits', () => {
  const marks: { name: string; sectors: [first: number, count: number]; regions: number[] }[] = [
    { name: 'one sector', sectors: [0, 1], regions: [0] },
    { name: 'nothing', sectors: [5, 0], regions: [] },
    { name: 'the last sector of a region', sectors: [127, 1], regions: [0] },
    { name: 'two sectors across a border', sectors: [127, 2], regions: [0, 1] },
    { name: 'a region exactly', sectors: [128, 128], regions: [1] },
    { name: 'the last, shorter region', sectors: [128 * 70, 5], regions: [70] },
    { name: 'a word exactly', sectors: [32 * 128, 32 * 128], regions: Array.from({ length: 32 }, (_, i) => 32 + i) },
    {
      name: 'parts of three words',
      sectors: [31 * 128, 35 * 128],
      regions: Array.from({ length: 35 }, (_, i) => 31 + i),
    },
  ];
  for (const { name, sectors, regions } of marks)
    it(`mark of ${name} marks the regions it touches, and no other`, () => {
      const bits = new DirtyBits(128, 128 * 70 + 5);
      bits.mark(...sectors);
      assert.deepEqual(dirty(bits), regions);
      bits.mark(...sectors);
      assert.equal(bits.count, regions.length, 'marking twice counts once');
    });

  it('! mark refuses what lies behind the device, instead of losing it', () => {
    const bits = new DirtyBits(128, 1000);
    assert.throws(() => bits.mark(999, 2), /lie behind the device/);
    assert.throws(() => bits.mark(-1, 2), /lie behind the device/);
    assert.equal(bits.count, 0);
  });

  it('clear, fill and next keep the count exact, also at the borders of words', () => {
    const bits = new DirtyBits(128, 128 * 96);
    bits.fill();
    assert.equal(dirty(bits).length, 96);
    for (const r of [0, 31, 32, 63, 64, 95, 95]) bits.clear(r);
    assert.equal(dirty(bits).length, 90);
    assert.equal(bits.next(63), 65);
    assert.equal(bits.next(95), -1);
    assert.equal(bits.next(4000), -1);
    assert.equal(bits.has(4000), false);
    bits.fill();
    assert.equal(bits.count, 96);
  });

  it('bytes and from are one another, whatever was marked', () => {
    let seed = 1;
    const random = (n: number): number => (seed = (seed * 48271) % 2147483647) % n;
    for (let round = 0; round < 50; round++) {
      const sectors = 1 + random(100_000);
      const bits = new DirtyBits(256, sectors);
      const model = new Set<number>();
      for (let i = 0; i < 20; i++) {
        const first = random(sectors);
        const count = Math.min(1 + random(3000), sectors - first);
        bits.mark(first, count);
        for (let r = Math.floor(first / 256); r <= Math.floor((first + count - 1) / 256); r++) model.add(r);
        const gone = random(bits.regions);
        bits.clear(gone);
        model.delete(gone);
      }
      assert.deepEqual(
        dirty(bits),
        [...model].sort((a, b) => a - b),
      );
      const bytes = bits.bytes();
      for (let r = 0; r < bits.regions; r++) assert.equal((bytes[r >> 3]! >> (r & 7)) & 1, model.has(r) ? 1 : 0);
      assert.deepEqual(DirtyBits.from(bytes, 256, sectors).bytes(), bytes);
    }
  });

  it('from leaves out bits behind the device, and has the area of a grown one clean', () => {
    assert.deepEqual(
      dirty(DirtyBits.from(Uint8Array.of(0xff, 0xff, 0xff), 128, 128 * 10)),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.deepEqual(dirty(DirtyBits.from(Uint8Array.of(0b101), 128, 128 * 40)), [0, 2]);
  });

  it('resized keeps what is dirty; rescaled keeps it at least', () => {
    const bits = new DirtyBits(128, 1000);
    bits.mark(999, 1);
    bits.mark(0, 1);
    const grown = bits.resized(5000);
    assert.deepEqual(dirty(grown), [0, 7]);
    assert.equal(grown.deviceSectors, 5000);
    assert.throws(() => grown.resized(100), /does not shrink/);
    assert.deepEqual(dirty(bits.rescaled(512)), [0, 1]);
    assert.deepEqual(dirty(bits.rescaled(512).rescaled(128)), [0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('a device of 4 TiB takes 128 KiB with regions of 4 MiB, and 8 MiB with the smallest', () => {
    const usual = new DirtyBits(8192, 4 * TIB_SECTORS);
    assert.equal(usual.regions, 1024 * 1024);
    assert.equal(usual.bytes().length, 128 * 1024);
    const fine = new DirtyBits(128, 4 * TIB_SECTORS);
    assert.equal(fine.regions, 64 * 1024 * 1024);
    fine.mark(4 * TIB_SECTORS - 1, 1);
    assert.equal(fine.next(0), fine.regions - 1);
    fine.fill();
    assert.equal(fine.count, fine.regions);
    assert.equal(fine.bytes().length, 8 * 1024 * 1024);
  });

  it('another thread reads the bits over the same buffer', async () => {
    const bits = new DirtyBits(128, 128 * 1000);
    const module = new URL('../../../src/dirtylog/bits.js', import.meta.url).href;
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
       import(workerData.module).then(({ DirtyBits }) => {
         const bits = new DirtyBits(128, 128000, workerData.buffer);
         parentPort.on('message', () => parentPort.postMessage([bits.count, bits.next(0), bits.next(778)]));
         parentPort.postMessage('ready');
       });`,
      { eval: true, workerData: { module, buffer: bits.buffer } },
    );
    const answer = (): Promise<unknown> => new Promise((resolve) => worker.once('message', resolve));
    try {
      await answer();
      bits.mark(128 * 777, 1);
      const found = answer();
      worker.postMessage('look');
      assert.deepEqual(await found, [1, 777, -1]);
      bits.clear(777);
      const none = answer();
      worker.postMessage('look');
      assert.deepEqual(await none, [0, -1, -1]);
    } finally {
      await worker.terminate();
    }
  });
});
