/** Small parts of the daemon's main thread that need no mount. */
import assert from 'node:assert/strict';
import { Rate } from '../../../src/daemon/rate.js';
import { Timeline } from '../../../src/daemon/timeline.js';

describe('daemon/rate', () => {
  it('Rate follows a steady stream and forgets it within minutes', () => {
    const rate = new Rate(0, 0);
    for (let s = 1; s <= 10; s++) rate.note(s * 1000, s * 1000);
    assert.equal(Math.round(rate.bytesPerSecond), 1000);
    for (let s = 11; s <= 310; s++) rate.note(10_000, s * 1000);
    assert.ok(rate.bytesPerSecond < 1);
  });
  it('Rate takes the first stream as it is, not smoothed from nothing', () => {
    const rate = new Rate(0, 0);
    rate.note(0, 60_000);
    rate.note(5000, 61_000);
    assert.ok(rate.bytesPerSecond > 4000);
  });
});

describe('daemon/timeline', () => {
  it('notBefore never names a time after the record was written', () => {
    const timeline = new Timeline(64);
    const writtenAt: number[] = [];
    let tail = 1;
    for (let t = 0; t < 1000; t++) {
      timeline.note(tail, t * 1000);
      for (let n = 0; n < t % 5; n++) writtenAt[tail++] = t * 1000 + 500;
    }
    for (let seq = 1; seq < tail; seq++) assert.ok(timeline.notBefore(seq) <= writtenAt[seq]!, `record ${seq}`);
    // The newest are known to the second, the oldest more coarsely.
    assert.ok(writtenAt[tail - 1]! - timeline.notBefore(tail - 1) <= 2000);
  });
  it('notBefore says 0 where it knows nothing', () => {
    const timeline = new Timeline();
    assert.equal(timeline.notBefore(5), 0);
    timeline.note(10, 7);
    assert.equal(timeline.notBefore(9), 0);
    assert.equal(timeline.notBefore(10), 7);
  });
  it('idle time before the first unconfirmed record does not count', () => {
    const timeline = new Timeline();
    timeline.note(5, 1000);
    timeline.note(5, 900_000);
    timeline.note(6, 901_000);
    assert.equal(timeline.notBefore(5), 900_000);
  });
});
