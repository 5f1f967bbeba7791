import assert from 'node:assert/strict';
import { SHF, Shared } from '../../../src/replog/shared.js';

describe('replog/shared', () => {
  /**
   * A shipper that has confirmed what the older request wants would not ring for the newer one, and nobody would count
   * how long that waits: a timeout would never end it.
   */
  it('! a request that is sent again does not take back what a newer one wants of a link', () => {
    const shared = new Shared();
    for (const [place, lo, hi] of [
      [3, 1 << 3, 0],
      [40, 0, 1 << 8],
    ] as const) {
      shared.pushFlush(1, 0, 20, 512, 0, lo, hi);
      shared.pushFlush(2, 0, 10, 512, 0, lo, hi);
      assert.equal(shared.floatView[SHF.WANTED + place], 20);
    }
  });
});
