import assert from 'node:assert/strict';
import { KIB, MIB, SECTOR } from '../../../src/base/units.js';
import { DirtyBits } from '../../../src/dirtylog/bits.js';
import { Walk } from '../../../src/slink/resync-walk.js';

const REGION = 64 * KIB;

describe('Walk', () => {
  let bits: DirtyBits[];
  let walk: Walk;

  /** Devices of these sizes, numbered 0, 2, 4 …, all clean. */
  function start(...sizes: number[]): void {
    bits = sizes.map((size) => new DirtyBits(REGION / SECTOR, size / SECTOR));
    renew();
  }

  function renew(): void {
    walk = new Walk(
      bits.map(({ regionSectors, deviceSectors: sectors, buffer }, i) => ({
        nr: 2 * i,
        regionSectors,
        sectors,
        buffer,
      })),
    );
  }

  function mark(i: number, ...regions: number[]): void {
    for (const region of regions) bits[i]!.mark((region * REGION) / SECTOR, 1);
    walk.recount();
  }

  function found(): [number, number, number] | undefined {
    return walk.find() ? [walk.nr, walk.offset / REGION, walk.end / REGION] : undefined;
  }

  it('finds dirty stretches, ascending, device by device, each once', () => {
    start(MIB, MIB);
    mark(0, 1, 2, 5);
    mark(1, 15);
    assert.equal(walk.left, 4 * REGION);
    const all: unknown[] = [];
    for (let t2 = 10; found() !== undefined; t2++) {
      all.push(found());
      walk.reached(walk.end, t2);
    }
    assert.deepEqual(all, [
      [0, 1, 3],
      [0, 5, 6],
      [2, 15, 16],
    ]);
    assert.deepEqual(walk.pending, [
      { device: 0, first: 1, regions: 2, t2: 10 },
      { device: 0, first: 5, regions: 1, t2: 11 },
      { device: 2, first: 15, regions: 1, t2: 12 },
    ]);
    assert.deepEqual([walk.left, walk.looked], [0, 4 * REGION]);
  });

  it('a region counts when all of it was copied, with the newest t2 of its parts', () => {
    start(MIB);
    mark(0, 1, 2);
    found();
    walk.reached(REGION + 4096, 7);
    assert.deepEqual(walk.pending, []);
    assert.deepEqual(found(), [0, 1 + 1 / 16, 3]);
    walk.reached(2 * REGION + 512, 9);
    assert.deepEqual(walk.pending, [{ device: 0, first: 1, regions: 1, t2: 9 }]);
    found();
    walk.reached(3 * REGION, 8);
    assert.deepEqual(walk.pending, [{ device: 0, first: 1, regions: 2, t2: 9 }]);
  });

  it('the last region of a device ends with it', () => {
    start(REGION + 512);
    mark(0, 1);
    assert.equal(walk.left, 512);
    found();
    assert.equal(walk.end, REGION + 512);
    walk.reached(walk.end, 3);
    assert.deepEqual(walk.pending, [{ device: 0, first: 1, regions: 1, t2: 3 }]);
    assert.equal(found(), undefined);
  });

  it('! what was not settled is found again from the beginning of its region, what was settled is not', () => {
    start(MIB);
    mark(0, 0, 1, 2);
    found();
    walk.reached(REGION, 1);
    walk.settled();
    found();
    walk.reached(2 * REGION + 4096, 2);
    walk.unsettle();
    assert.deepEqual(found(), [0, 1, 3]);
    assert.equal(walk.left, 2 * REGION);
    walk.restart();
    assert.deepEqual(found(), [0, 0, 3]);
  });

  it('what main clears meanwhile is not looked for any more, also in the middle of it', () => {
    start(MIB);
    mark(0, 4, 9);
    found();
    walk.reached(4 * REGION + 4096, 2);
    bits[0]!.clear(4);
    assert.deepEqual(found(), [0, 9, 10]);
    bits[0]!.clear(9);
    assert.equal(found(), undefined);
    assert.deepEqual(walk.pending, []);
  });

  it('passes over a device until it is told to look again', () => {
    start(MIB, MIB);
    mark(0, 1);
    mark(1, 2);
    found();
    walk.reached(REGION + 4096, 2);
    walk.passOver();
    assert.deepEqual(found(), [2, 2, 3]);
    walk.reached(walk.end, 2);
    assert.equal(found(), undefined);
    assert.equal(walk.passedOver, true);
    walk.lookAgain();
    assert.deepEqual(found(), [0, 1, 2]);
    walk.passOver();
    bits[0]!.clear(1);
    assert.equal(walk.passedOver, false);
  });

  it('knows whether all is dirty', () => {
    start(MIB, REGION);
    for (const b of bits) b.fill();
    renew();
    assert.equal(walk.allDirty, true);
    bits[1]!.clear(0);
    assert.equal(walk.allDirty, false);
  });
});
