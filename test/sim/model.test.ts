import assert from 'node:assert/strict';
import { GARBLED, History, fillPattern, readImage, type DeviceSectors } from '../support/sim-model.js';
import { SimFile } from '../support/sim-disk.js';
import { Rng } from '../support/sim-random.js';

function randomHistory(rng: Rng, records: number): History {
  const history = new History(
    new Map([
      [0, 64],
      [1, 32],
    ]),
  );
  for (let i = 0; i < records; i++) {
    const device = rng.below(2);
    const at = rng.below(30);
    const kind = rng.pick(['write', 'write', 'zero', 'flush']);
    if (kind === 'flush') history.add(history.tail, kind);
    else
      history.add(history.tail, kind, {
        device,
        at,
        count: rng.between(1, 30 - at + 1),
        write: kind === 'zero' ? 0 : history.newWrite(),
      });
  }
  return history;
}

describe('History', () => {
  it('finds which prefix an image is, and that a mixture is none', () => {
    const rng = new Rng(7);
    const history = randomHistory(rng, 700);
    for (let i = 0; i < 50; i++) {
      const seq = rng.between(1, history.tail);
      const state = history.stateAt(seq);
      const found = history.prefixesOf(state);
      assert.ok(found !== undefined && found.low <= seq && seq <= found.high);
      assert.deepEqual(history.explain(state, seq), []);
      // One sector from another time.
      state.get(0)![rng.below(30)] = 99_999;
      assert.equal(history.prefixesOf(state), undefined);
      assert.equal(history.explain(state, seq).length > 0, true);
    }
  });

  it('forgets a lost tail, whose numbers come back with other content', () => {
    const history = randomHistory(new Rng(8), 300);
    const lost = history.stateAt(history.tail);
    history.truncate(290);
    assert.equal(history.tail, 290);
    assert.deepEqual([...history.now], [...history.stateAt(290)]);
    for (let seq = 290; seq < 301; seq++)
      history.add(seq, 'write', { device: 0, at: 0, count: 30, write: history.newWrite() });
    assert.equal(history.prefixesOf(lost), undefined);
    assert.notEqual(history.prefixesOf(history.now), undefined);
  });
});

describe('patterns', () => {
  it('a sector tells its write, and any foreign byte in it', () => {
    const u8 = Buffer.alloc(8 * 512);
    fillPattern(u8, 1024, 1, 2, 3, 42);
    const image = (): DeviceSectors => {
      const file = new SimFile(1);
      file.write(0, u8);
      return new Map([[1, readImage(file, 1, 8)]]);
    };
    assert.deepEqual([...image().get(1)!], [0, 0, 42, 42, 42, 0, 0, 0]);
    u8[1024 + 700]! ^= 1;
    u8[5]! ^= 1;
    assert.deepEqual([...image().get(1)!], [GARBLED, 0, 42, GARBLED, 42, 0, 0, 0]);
    u8.copy(u8, 1024, 2048, 2560);
    assert.equal(image().get(1)![2], GARBLED, 'a sector of another place');
  });
});
