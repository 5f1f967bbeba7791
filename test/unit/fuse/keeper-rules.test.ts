import assert from 'node:assert/strict';
import { Deaths, Watchdog, limitsFrom } from '../../../src/daemon/keeper-rules.js';
import { refuse } from '../../../src/daemon/keeper-eio.js';
import { FUSE } from '../../../src/fuse/proto.js';

const limits = limitsFrom({});

describe('daemon/keeper-rules', () => {
  it('limitsFrom takes numbers from the environment and nothing else', () => {
    const set = limitsFrom({ REPTOOL_WATCHDOG_MS: '500', REPTOOL_QUICK_DEATHS: '0', REPTOOL_SPARE_MS: 'soon' });
    assert.deepEqual([set.watchdogMs, set.quickDeaths, set.spareMs], [500, 0, limits.spareMs]);
  });

  it('Deaths replaces at once a daemon that served long', () => {
    const deaths = new Deaths(limits);
    for (let at = 0; at < 100_000; at += 2500)
      assert.equal(deaths.note({ at: at + 2000, servingAt: at, killed: false }), 0);
  });

  it('Deaths waits longer after each quick death and gives up after the fifth', () => {
    const deaths = new Deaths(limits);
    const delays = [1, 2, 3, 4, 5, 6].map((n) =>
      deaths.note({ at: n * 1000, servingAt: n * 1000 - 500, killed: false }),
    );
    assert.deepEqual(delays, [0, 100, 200, 400, 800, undefined]);
  });

  it('Deaths forgets quick deaths after their time, and after one that served long', () => {
    const deaths = new Deaths(limits);
    for (let n = 0; n < 50; n++)
      assert.notEqual(deaths.note({ at: n * 7000, servingAt: undefined, killed: true }), undefined);
    deaths.note({ at: 400_000, servingAt: 390_000, killed: false });
    assert.equal(deaths.note({ at: 400_001, servingAt: undefined, killed: false }), 0);
  });

  it('Deaths counts no kill of a daemon that served', () => {
    const deaths = new Deaths(limits);
    for (let n = 0; n < 100; n++) assert.equal(deaths.note({ at: n * 20, servingAt: n * 20 - 5, killed: true }), 0);
  });

  it('Watchdog finds either heartbeat standing still', () => {
    for (const still of ['data', 'main']) {
      const dog = new Watchdog(1000);
      dog.restart(0);
      const late: number[] = [];
      for (let now = 250, n = 0; now <= 2000; now += 250, n++)
        if (dog.late(now, still === 'data' ? 1 : n, still === 'main' ? 1 : n, true)) late.push(now);
      assert.deepEqual(late, [1500, 1750, 2000], still);
    }
  });

  it('Watchdog blames nobody after it has itself been asleep', () => {
    const dog = new Watchdog(1000);
    dog.restart(0);
    assert.equal(dog.late(250, 1, 1, true), false);
    assert.equal(dog.late(60_000, 1, 1, true), false);
    assert.equal(dog.late(60_250, 1, 1, true), false);
  });

  it('Watchdog lets recovery take its time while main beats', () => {
    const dog = new Watchdog(1000);
    dog.restart(0);
    let now = 0;
    for (let n = 0; n < 400; n++) assert.equal(dog.late((now += 250), 0, n, false), false);
    let late = 0;
    while (!dog.late((now += 250), 0, 399, false)) late = now;
    assert.ok(late > 100_000 + 29_000, `${late}`);
  });
});

describe('daemon/keeper-eio', () => {
  const EIO = -5;
  const cases: { name: string; opcode: number; node?: number; length: number; error?: number }[] = [
    { name: 'WRITE gets EIO', opcode: FUSE.WRITE, node: 2, length: 16, error: EIO },
    { name: 'LOOKUP gets EIO', opcode: FUSE.LOOKUP, length: 16, error: EIO },
    { name: 'an opcode of the future gets EIO', opcode: 999, length: 16, error: EIO },
    { name: 'GETATTR of the root is answered', opcode: FUSE.GETATTR, node: 1, length: 120, error: 0 },
    { name: 'GETATTR of a device gets EIO', opcode: FUSE.GETATTR, node: 2, length: 16, error: EIO },
    { name: 'RELEASE succeeds', opcode: FUSE.RELEASE, node: 2, length: 16, error: 0 },
    { name: 'DESTROY succeeds', opcode: FUSE.DESTROY, length: 16, error: 0 },
    { name: 'FORGET gets no answer', opcode: FUSE.FORGET, length: 0 },
    { name: 'BATCH_FORGET gets no answer', opcode: FUSE.BATCH_FORGET, length: 0 },
  ];
  for (const { name, opcode, node, length, error } of cases)
    it(`refuse: ${name}`, () => {
      const request = new DataView(new ArrayBuffer(256));
      const reply = new DataView(new ArrayBuffer(256));
      request.setUint32(4, opcode, true);
      request.setUint32(8, 77, true);
      request.setUint32(12, 0x80000000, true);
      request.setUint32(16, node ?? 1, true);
      assert.equal(refuse(request, reply), length);
      if (error === undefined) return;
      assert.deepEqual([reply.getUint32(0, true), reply.getInt32(4, true)], [length, error]);
      assert.deepEqual([reply.getUint32(8, true), reply.getUint32(12, true)], [77, 0x80000000]);
    });
});
