import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import * as sys from '../../../src/base/sys.js';
import {
  BOUNDS_US,
  BUCKETS,
  CommitMeter,
  KIND,
  LINK_METER,
  LOG_METER,
  LinkMeter,
  METER,
  METER_WORDS,
  MeterReader,
  RequestMeter,
  bucketOf,
} from '../../../src/replog/meters.js';
import { Shared } from '../../../src/replog/shared.js';
import { W, Window, windowShape } from '../../../src/replog/window.js';
import { SimClock } from '../../support/sim-clock.js';

describe('replog/meters', () => {
  let window: Window;
  let shared: Shared;
  let clock: SimClock;
  let reader: MeterReader;

  beforeEach(() => {
    const fd = sys.memfdCreate('meters-test', 0);
    sys.ftruncate(fd, windowShape(1 << 20).size);
    window = Window.map(fd, 1 << 20);
    closeSync(fd);
    shared = new Shared();
    clock = new SimClock();
    reader = new MeterReader(shared.meters);
  });

  it('bucketOf puts a time into the first bucket whose bound is not below it', () => {
    const simple = (us: number): number => {
      const i = BOUNDS_US.findIndex((bound) => us <= bound);
      return i < 0 ? BUCKETS - 1 : i;
    };
    const edges = [0, 0.3, 1, ...BOUNDS_US.flatMap((b) => [b - 1, b - 0.5, b, b + 0.001, b + 1]), 2 ** 31, 1e12];
    for (const us of edges) assert.equal(bucketOf(us), simple(us), `${us}`);
    assert.equal(BOUNDS_US[0], 8);
    assert.equal(BOUNDS_US.at(-1), 16_777_216);
  });

  it('no two blocks share a word, and the last one ends with the buffer', () => {
    const starts = Object.values(METER);
    assert.deepEqual(
      [...starts].sort((a, b) => a - b),
      starts,
    );
    assert.equal(METER.DEVICES + 4096 * 8, METER_WORDS);
    assert.equal(shared.meters.length, METER_WORDS);
  });

  it('a request is counted when it is taken, and its time when it was answered', () => {
    const meter = new RequestMeter(shared.meters, window, clock);
    meter.lap();
    meter.taken(KIND.WRITE, 3, 4096);
    meter.answered(KIND.WRITE);
    clock.advance(0.02);
    assert.equal(reader.latency(KIND.WRITE).count, 0, 'not before the lap');
    meter.lap();
    clock.advance(5000);
    meter.lap();
    const { buckets, count, seconds } = reader.latency(KIND.WRITE);
    assert.equal(count, 1, 'what nobody asked for has no time');
    assert.equal(buckets[bucketOf(20)], 1);
    assert.ok(Math.abs(seconds - 20e-6) < 1e-9);
    assert.deepEqual(reader.device(3, KIND.WRITE), { requests: 1, bytes: 4096 });
    assert.deepEqual(reader.device(2, KIND.WRITE), { requests: 0, bytes: 0 });
    assert.deepEqual(reader.device(3, KIND.READ), { requests: 0, bytes: 0 });
  });

  it('a request that is answered later has its own beginning', () => {
    const meter = new RequestMeter(shared.meters, window, clock);
    meter.lap();
    meter.taken(KIND.READ, 0, 512);
    meter.answered(KIND.READ);
    const { mark } = meter;
    meter.later();
    meter.lap();
    clock.advance(3);
    meter.finished(KIND.READ, mark);
    const { buckets, count } = reader.latency(KIND.READ);
    assert.equal(count, 1);
    assert.equal(buckets[bucketOf(3000)], 1);
  });

  it('the committer knows kind and beginning from the ticket', () => {
    const meter = new RequestMeter(shared.meters, window, clock);
    const commit = new CommitMeter(shared.meters, window, clock);
    meter.lap();
    const tickets = [KIND.WRITE, KIND.FLUSH, KIND.DISCARD].map((kind) => meter.ticket(kind));
    meter.lap();
    clock.advance(1.5);
    for (const ticket of tickets) commit.answered(ticket, 0);
    commit.answered(tickets[1]!, 5);
    for (const kind of [KIND.WRITE, KIND.FLUSH, KIND.DISCARD]) {
      const { buckets, count, seconds } = reader.latency(kind);
      assert.equal(count, 1);
      assert.equal(buckets[bucketOf(1500)], 1);
      assert.ok(Math.abs(seconds - 1.5e-3) < 2e-6, `${seconds}`);
    }
    assert.equal(reader.errors(KIND.FLUSH), 1);
    assert.equal(reader.errors(KIND.WRITE), 0);
  });

  it('what fails is an error and has no time', () => {
    const meter = new RequestMeter(shared.meters, window, clock);
    meter.lap();
    meter.answered(KIND.READ);
    meter.refused(KIND.READ);
    clock.advance(1);
    meter.lap();
    assert.equal(reader.errors(KIND.READ), 1);
    assert.equal(reader.latency(KIND.READ).count, 0);
  });

  it('nothing is counted while statistics are off, and a request over the change is not measured', () => {
    const meter = new RequestMeter(shared.meters, window, clock);
    const commit = new CommitMeter(shared.meters, window, clock);
    const link = new LinkMeter(shared.meters, window, 0);
    meter.lap();
    window.store(W.STATS_OFF, 1);
    meter.answered(KIND.WRITE);
    meter.lap();
    meter.taken(KIND.WRITE, 0, 512);
    meter.answered(KIND.WRITE);
    meter.failed(KIND.WRITE);
    assert.equal(meter.ticket(KIND.FLUSH), 0);
    assert.equal(meter.mark, 0);
    commit.wrote(4096, 1);
    commit.answered(0, 0);
    commit.synced(commit.beginSync());
    link.sent(512, 1);
    assert.ok(shared.meters.every((word) => word === 0));
    clock.advance(100);
    window.store(W.STATS_OFF, 0);
    meter.lap();
    assert.ok(
      shared.meters.every((word) => word === 0),
      'the first lap only begins',
    );
    const parked = 0;
    meter.resume(parked);
    meter.answered(KIND.WRITE);
    meter.lap();
    assert.ok(
      shared.meters.every((word) => word === 0),
      'its beginning is not known',
    );
  });

  it('reset shows zero at once and goes on from there, without touching words that others write', () => {
    const commit = new CommitMeter(shared.meters, window, clock);
    const link = new LinkMeter(shared.meters, window, 2);
    commit.wrote(8192, 3);
    link.sent(512, 1);
    commit.synced(commit.beginSync());
    const before = shared.meters.slice();
    reader.reset();
    assert.deepEqual(shared.meters, before);
    assert.equal(reader.log(LOG_METER.BYTES), 0);
    assert.equal(reader.syncs.count, 0);
    commit.wrote(4096, 1);
    assert.deepEqual(
      [reader.log(LOG_METER.BYTES), reader.log(LOG_METER.BATCHES), reader.log(LOG_METER.RECORDS)],
      [4096, 1, 1],
    );
    assert.equal(reader.link(2, LINK_METER.BYTES), 0);
    // Another link on the same thread begins at zero, and never shows less.
    new LinkMeter(shared.meters, window, 2).opened();
    assert.equal(reader.link(2, LINK_METER.BYTES), 0);
    assert.equal(reader.link(2, LINK_METER.OPENS), 1);
  });
});
