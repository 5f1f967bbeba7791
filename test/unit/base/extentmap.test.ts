import assert from 'node:assert/strict';
import { ExtentMap } from '../../../src/base/extentmap.js';

type Range = [start: number, end: number, value: number];

function ranges(map: ExtentMap): Range[] {
  const list: Range[] = [];
  map.forEach((start, end, value) => list.push([start, end, value]));
  return list;
}

function mapOf(...list: Range[]): ExtentMap {
  const map = new ExtentMap();
  for (const [start, end, value] of list) map.insert(start, end, value);
  return map;
}

/** The naive twin: one cell per unit, -1 where nothing is. */
class Cells {
  readonly cells: Int32Array;
  constructor(size: number) {
    this.cells = new Int32Array(size).fill(-1);
  }

  ranges(from = 0, to = this.cells.length): Range[] {
    const list: Range[] = [];
    for (let i = from; i < to; i++) {
      const value = this.cells[i]!;
      const last = list[list.length - 1];
      if (value < 0) continue;
      if (last !== undefined && last[1] === i && last[2] === value) last[1] = i + 1;
      else list.push([i, i + 1, value]);
    }
    return list;
  }
}

/** Numbers that a seed repeats. */
function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * below);
  };
}

describe('ExtentMap', () => {
  const inserts: { name: string; first: Range[]; insert: Range; expect: Range[] }[] = [
    { name: 'into nothing', first: [], insert: [5, 9, 1], expect: [[5, 9, 1]] },
    { name: 'an empty range changes nothing', first: [[0, 4, 1]], insert: [2, 2, 9], expect: [[0, 4, 1]] },
    {
      name: 'over the middle splits',
      first: [[0, 9, 1]],
      insert: [3, 5, 2],
      expect: [
        [0, 3, 1],
        [3, 5, 2],
        [5, 9, 1],
      ],
    },
    {
      name: 'of the same value into the middle changes nothing',
      first: [[0, 9, 1]],
      insert: [3, 5, 1],
      expect: [[0, 9, 1]],
    },
    {
      name: 'over several overrides all',
      first: [
        [0, 2, 1],
        [3, 5, 2],
        [6, 8, 3],
      ],
      insert: [1, 7, 4],
      expect: [
        [0, 1, 1],
        [1, 7, 4],
        [7, 8, 3],
      ],
    },
    { name: 'touching on the left joins', first: [[0, 4, 1]], insert: [4, 6, 1], expect: [[0, 6, 1]] },
    { name: 'touching on the right joins', first: [[4, 6, 1]], insert: [0, 4, 1], expect: [[0, 6, 1]] },
    {
      name: 'between two joins all three',
      first: [
        [0, 2, 1],
        [4, 6, 1],
      ],
      insert: [2, 4, 1],
      expect: [[0, 6, 1]],
    },
    {
      name: 'touching with another value stays apart',
      first: [[0, 4, 1]],
      insert: [4, 6, 2],
      expect: [
        [0, 4, 1],
        [4, 6, 2],
      ],
    },
    { name: 'the same range takes the new value', first: [[0, 4, 1]], insert: [0, 4, 2], expect: [[0, 4, 2]] },
  ];
  for (const { name, first, insert, expect } of inserts)
    it(`insert ${name}`, () => {
      const map = mapOf(...first, insert);
      assert.deepEqual(ranges(map), expect);
      assert.equal(map.count, expect.length);
    });

  it('remove keeps what lies outside', () => {
    const map = mapOf([0, 10, 1], [20, 30, 2]);
    map.remove(5, 25);
    assert.deepEqual(ranges(map), [
      [0, 5, 1],
      [25, 30, 2],
    ]);
    map.remove(1, 2);
    assert.deepEqual(ranges(map), [
      [0, 1, 1],
      [2, 5, 1],
      [25, 30, 2],
    ]);
    map.remove(-5, 100);
    assert.equal(map.empty, true);
    assert.equal(map.total, 0);
  });

  it('seek finds the range that holds a position, or the next', () => {
    const map = mapOf([10, 20, 1], [30, 40, 2]);
    assert.equal(map.seek(0) && map.start, 10);
    assert.equal(map.seek(19) && map.start, 10);
    assert.equal(map.seek(20) && map.start, 30);
    assert.equal(map.seek(40), false);
    assert.deepEqual([map.has(20), map.has(30), map.get(35), map.get(25)], [false, true, 2, undefined]);
    assert.equal(map.covered(15, 35), 10);
  });

  for (const { seed, size, steps, longest } of [
    { seed: 1, size: 200, steps: 3000, longest: 40 },
    { seed: 2, size: 5000, steps: 12_000, longest: 6 },
    { seed: 3, size: 5000, steps: 6000, longest: 900 },
  ])
    it(`does what an array of cells does (seed ${seed})`, () => {
      const roll = dice(seed);
      const map = new ExtentMap();
      const twin = new Cells(size);
      for (let step = 0; step < steps; step++) {
        const start = roll(size);
        const end = Math.min(size, start + 1 + roll(roll(10) === 0 ? longest * 20 : longest));
        if (roll(4) === 0) {
          map.remove(start, end);
          twin.cells.fill(-1, start, end);
        } else {
          const value = roll(3);
          map.insert(start, end, value);
          twin.cells.fill(value, start, end);
        }
        if (step % 97 === 0 || step === steps - 1) {
          const expect = twin.ranges();
          assert.deepEqual(ranges(map), expect, `step ${step}`);
          assert.equal(map.count, expect.length);
          assert.equal(
            map.total,
            expect.reduce((sum, [a, b]) => sum + b - a, 0),
          );
        }
        const at = roll(size);
        const clipped: Range[] = [];
        map.forEach((a, b, v) => clipped.push([a, b, v]), at, at + 50);
        assert.deepEqual(clipped, twin.ranges(at, Math.min(size, at + 50)));
        assert.equal(map.get(at) ?? -1, twin.cells[at]);
      }
    });

  it('holds a hundred thousand ranges in random order in well under a second', () => {
    const map = new ExtentMap();
    const roll = dice(7);
    const began = performance.now();
    for (let i = 0; i < 100_000; i++) map.insert(roll(1e9) * 2, 0, 0);
    for (let i = 0; i < 100_000; i++) {
      const start = roll(1e9) * 2;
      map.insert(start, start + 1, i);
    }
    assert.ok(map.count > 99_000);
    assert.ok(performance.now() - began < 3000, `took ${performance.now() - began} ms`);
  });
});
