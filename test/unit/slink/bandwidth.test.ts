import assert from 'node:assert/strict';
import { Bandwidth } from '../../../src/slink/bandwidth.js';

const clock = {
  ms: 1000,
  monoMs(): number {
    return this.ms;
  },
  wallUs(): number {
    return this.ms * 1000;
  },
};

/** Sends batches of `batch` bytes as soon as each is allowed, for `ms`; bytes sent. */
function flood(bucket: Bandwidth, batch: number, ms: number): number {
  let sent = 0;
  for (const end = clock.ms + ms; clock.ms < end;) {
    const wait = bucket.wait();
    if (wait > 0) {
      clock.ms += wait;
      continue;
    }
    bucket.spent(batch);
    sent += batch;
  }
  return sent;
}

describe('slink/bandwidth', () => {
  for (const [rate, batch] of [
    [1_000_000, 4096],
    [1_000_000, 300_000],
    [10_000_000, 1_000_000],
  ] as const)
    it(`keeps ${rate} bytes per second with batches of ${batch} over simulated minutes`, () => {
      const bucket = new Bandwidth(clock, rate);
      clock.ms += 60_000;
      const sent = flood(bucket, batch, 60_000);
      const least = rate * 60 - 2 * batch;
      const most = rate * 60 + rate * 0.1 + 2 * batch;
      assert.ok(sent >= least && sent <= most, `${sent} is not between ${least} and ${most}`);
    });

  it('saves up a tenth of a second, however long it rested', () => {
    const bucket = new Bandwidth(clock, 1_000_000);
    clock.ms += 3_600_000;
    const sent = flood(bucket, 1000, 1);
    assert.ok(sent >= 100_000 && sent <= 103_000, String(sent));
  });

  it('limits nothing at 0, and forgives a debt when the rate changes', () => {
    const bucket = new Bandwidth(clock, 0);
    bucket.spent(1e9);
    assert.equal(bucket.wait(), 0);
    bucket.limit(1000);
    bucket.spent(1_000_000);
    assert.ok(bucket.wait() > 900_000);
    bucket.limit(2000);
    assert.equal(bucket.wait(), 0);
  });
});
