import assert from 'node:assert/strict';
import { RecentLatency } from '../../../src/replog/latency.js';
import { BUCKETS, KIND, METER, bucketOf } from '../../../src/replog/meters.js';
import { Shared } from '../../../src/replog/shared.js';

const READ = 0;
const WRITE = 1;

describe('RecentLatency', () => {
  const { meters } = new Shared();

  function took(kind: number, ms: number, times = 1, block: number = METER.DATA): void {
    meters[block + kind * (BUCKETS + 1) + bucketOf(ms * 1000)]! += times;
  }

  it('shows what came since it began, of each kind, whoever answered', () => {
    took(KIND.READ, 100, 50);
    const latency = new RecentLatency(meters);
    assert.deepEqual([latency.look(), latency.quantile(READ, 0.99)], [0, 0]);
    took(KIND.WRITE, 0.1, 90);
    took(KIND.WRITE, 5, 10, METER.COMMIT);
    took(KIND.DISCARD, 900, 50);
    assert.equal(latency.look(), 100);
    assert.deepEqual([latency.requests(READ), latency.requests(WRITE)], [0, 100]);
    const p99 = latency.quantile(WRITE, 0.99);
    assert.ok(p99 > 4 && p99 <= 8.2, `${p99}`);
    const p50 = latency.quantile(WRITE, 0.5);
    assert.ok(p50 > 0.064 && p50 <= 0.128, `${p50}`);
    latency.begin();
    assert.equal(latency.look(), 0);
    took(KIND.READ, 1);
    assert.deepEqual([latency.look(), latency.requests(READ)], [1, 1]);
  });

  it('takes what is beyond all buckets for no less than the last bound', () => {
    const latency = new RecentLatency(meters);
    took(KIND.FLUSH, 60_000);
    latency.look();
    assert.ok(latency.quantile(2, 0.99) > 16_000);
  });
});
