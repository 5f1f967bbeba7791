import assert from 'node:assert/strict';
import { SH } from '../../../src/replog/shared.js';
import { LogSpace } from '../../../src/replog/space.js';
import { worstLogBytes } from '../../../src/replog/format.js';
import { W } from '../../../src/replog/window.js';
import { Rig, cleanUp } from './rig.js';

/** Reproducible dice (mulberry32). */
function dice(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

describe('LogSpace', () => {
  afterEach(cleanUp);

  it('counts what is not durable at its worst', () => {
    const rig = new Rig();
    assert.equal(rig.space.endWith(512), worstLogBytes(512));
    rig.write(512);
    rig.write(512);
    assert.equal(rig.space.endWith(512), 3 * worstLogBytes(512));
    rig.settle();
    // One batch of both: header, payloads, the pad to 4096.
    assert.equal(rig.space.endWith(512), 8192 + worstLogBytes(512));
  });

  it('counts the same after a restart', () => {
    const rig = new Rig();
    rig.write(100_000);
    rig.settle();
    for (let i = 0; i < 5; i++) rig.write(3000 + i);
    const again = new LogSpace(rig.window, rig.shared, rig.log.segment);
    assert.equal(again.endWith(4096), rig.space.endWith(4096));
  });

  it('keeps a reserve that only control records may use', () => {
    const rig = new Rig();
    while (rig.space.admits(4096)) {
      rig.write(4096);
      rig.settle();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    assert.ok(rig.space.admitsControl(16));
    rig.appender.beginReign(2, new Uint8Array(16));
    rig.settle();
    assert.equal(rig.durable, rig.appender.seq);
  });

  for (let seed = 1; seed <= 12; seed++)
    it(`admits only what the committer can write, seed ${seed}`, () => {
      const roll = dice(seed);
      const rig = new Rig({ committer: { syncBytes: 1 << (16 + Math.floor(roll() * 6)), gatherMs: 0 } });
      const { space, shared, window } = rig;
      const sizes = [() => 512, () => Math.floor(roll() * 9000), () => Math.floor(roll() * space.maxPayload)];
      const size = sizes[seed % 3]!;
      let admitted = 0;
      for (let i = 0; i < 1500; i++) {
        const bytes = roll() < 0.05 ? space.maxPayload : size();
        const head = window.seqOf(W.HEAD, rig.appender.seq);
        if (rig.appender.hasRoom(bytes, head) && space.admits(bytes)) {
          rig.write(bytes);
          admitted++;
        }
        // Any cut into batches: steps come at any moment, syncs are forced at any moment.
        const r = roll();
        if (r < 0.5) rig.committer.step();
        if (r < 0.15) {
          rig.flush(i);
          rig.run();
        }
        // What is durable may be applied and its space given back, or not for a long time.
        if (roll() < 0.05) rig.release();
        assert.equal(shared.load(SH.LOG_FULL), 0, 'an admitted record found no place');
      }
      rig.settle();
      assert.equal(rig.durable, rig.appender.seq);
      assert.ok(rig.committer.durablePos <= shared.logHead + rig.log.ring);
      assert.ok(admitted > 100);
    });
});
