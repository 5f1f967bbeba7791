import assert from 'node:assert/strict';
import { Mem } from '../../../src/base/mem.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { PLAN_BYTES, PLAN_RECORDS, WritePlan } from '../../../src/slink/plan.js';

interface Write {
  device: number;
  offset: number;
  bytes: number;
  /** Where its data stand. */
  at: number;
}

const DEVICES = 3;
const DISK = 256 * KIB;

function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * below);
  };
}

describe('WritePlan', () => {
  const mem = Mem.lazy(8 * MIB);
  const plan = new WritePlan();
  after(() => mem.unmap());

  /** Adds `writes`, given oldest first, and returns the runs as [device, offset, bytes, ranges]. */
  function runs(writes: Write[]): [number, number, number, number][] {
    plan.begin(mem);
    for (const w of [...writes].reverse()) plan.add(w.device, w.offset, w.bytes, w.at);
    plan.seal();
    const list: [number, number, number, number][] = [];
    while (plan.nextRun()) list.push([plan.device, plan.offset, plan.vec.total, plan.vec.count]);
    return list;
  }

  const w = (offset: number, bytes: number, at: number, device = 0): Write => ({ device, offset, bytes, at });

  it('joins neighbours and sorts by device and offset', () => {
    assert.deepEqual(runs([w(8192, 4096, 0), w(0, 4096, 4096), w(4096, 4096, 8192), w(512, 512, 12288, 1)]), [
      [0, 0, 12288, 2],
      [1, 512, 512, 1],
    ]);
  });

  it('writes of each sector only the newest version', () => {
    assert.deepEqual(runs([w(0, 8192, 0), w(2048, 1024, 16384)]), [[0, 0, 8192, 3]]);
    assert.deepEqual(runs([w(2048, 1024, 16384), w(0, 8192, 0)]), [[0, 0, 8192, 1]]);
  });

  it('knows nothing of earlier batches once it has given its memory back', () => {
    const batch = [w(0, 8192, 0), w(2048, 1024, 16384), w(65536, 4096, 20480, 2)];
    const before = runs(batch);
    plan.release();
    assert.deepEqual(runs(batch), before);
    plan.release();
    assert.deepEqual(runs([w(0, 4096, 0)]), [[0, 0, 4096, 1]]);
  });

  it('keeps a run at 1 MiB', () => {
    const writes = Array.from({ length: 4 }, (_, i) => w(i * 512 * KIB, 512 * KIB, i * 512 * KIB));
    assert.deepEqual(
      runs(writes).map(([, offset, bytes]) => [offset, bytes]),
      [
        [0, MIB],
        [MIB, MIB],
      ],
    );
  });

  it('tells devices and far offsets apart', () => {
    const far = 2 ** 45;
    assert.deepEqual(runs([w(far, 4096, 0, 7), w(0, 4096, 4096, 7), w(far, 4096, 8192, 4_000_000_000)]), [
      [7, 0, 4096, 1],
      [7, far, 4096, 1],
      [4_000_000_000, far, 4096, 1],
    ]);
  });

  it('refuses what is no whole sector', () => {
    plan.begin(mem);
    assert.throws(() => plan.add(0, 100, 512, 0), /whole sectors/);
  });

  for (let seed = 1; seed <= 5; seed++)
    it(`makes what writing one after the other makes (seed ${seed})`, () => {
      const roll = dice(seed);
      for (let i = 0; i < mem.size; i += 4) mem.dv.setUint32(i, (i * 2654435761 + seed) >>> 0, true);
      for (let round = 0; round < 30; round++) {
        const expect = Array.from({ length: DEVICES }, () => Buffer.alloc(DISK));
        const writes: Write[] = [];
        let at = 0;
        const n = 1 + roll(400);
        for (let i = 0; i < n; i++) {
          const bytes = 512 * (1 + roll(roll(8) === 0 ? 128 : 16));
          const offset = 512 * roll((DISK - bytes) / 512 + 1);
          const device = roll(DEVICES);
          if (at + bytes > PLAN_BYTES) break;
          writes.push({ device, offset, bytes, at });
          mem.u8.copy(expect[device]!, offset, at, at + bytes);
          at += bytes;
        }
        const got = Array.from({ length: DEVICES }, () => Buffer.alloc(DISK));
        const written = new Set<string>();
        plan.begin(mem);
        for (const x of writes.reverse()) plan.add(x.device, x.offset, x.bytes, x.at);
        plan.seal();
        let before = -1;
        while (plan.nextRun()) {
          const key = plan.device * 2 ** 40 + plan.offset;
          assert.ok(key > before, 'runs rise');
          before = key;
          let pos = plan.offset;
          for (let i = 0; i < plan.vec.count; i++) {
            const off = plan.vec.offs[i]!;
            const len = plan.vec.lens[i]!;
            mem.u8.copy(got[plan.device]!, pos, off, off + len);
            for (let s = 0; s < len; s += 512) {
              const sector = `${plan.device}:${pos + s}`;
              assert.ok(!written.has(sector), `${sector} is written once`);
              written.add(sector);
            }
            pos += len;
          }
        }
        for (let d = 0; d < DEVICES; d++) assert.ok(got[d]!.equals(expect[d]!), `device ${d}, round ${round}`);
      }
    });

  it('takes as many records as its limits allow, in the worst pattern', () => {
    plan.begin(mem);
    let n = 0;
    // Every other sector first, then records that fill the gaps between them: most pieces per record.
    for (; WritePlan.fits(n, plan.bytes, 512) && n < PLAN_RECORDS / 2; n++) plan.add(0, n * 1024, 512, 0);
    for (let i = 0; WritePlan.fits(n, plan.bytes, 2048); n++, i++) plan.add(0, i * 2048, 2048, 0);
    plan.seal();
    let bytes = 0;
    while (plan.nextRun()) bytes += plan.vec.total;
    assert.ok(bytes > 0 && plan.pieces < 2 * n);
  });

  it('costs well under half a core at 75,000 records a second', function () {
    const roll = dice(1);
    const n = 1024;
    const offsets = Float64Array.from({ length: n }, () => roll(262_144) * 4096);
    const round = (): void => {
      plan.begin(mem);
      for (let i = n - 1; i >= 0; i--) plan.add(0, offsets[i]!, 4096, i * 4096);
      plan.seal();
      while (plan.nextRun());
    };
    for (let i = 0; i < 50; i++) round();
    let best = Infinity;
    for (let i = 0; i < 20; i++) {
      const began = performance.now();
      for (let k = 0; k < 10; k++) round();
      best = Math.min(best, (performance.now() - began) / (10 * n));
    }
    const core = (best * 75_000 * 100) / 1000;
    if (process.env['PLAN_BENCH'] !== undefined)
      console.log(`      ${(best * 1e6).toFixed(0)} ns a record, ${core.toFixed(1)} % of a core`);
    assert.ok(core < 50, `${core} % of a core`);
  });
});
