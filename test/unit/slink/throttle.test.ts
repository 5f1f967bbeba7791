import assert from 'node:assert/strict';
import { KIB, MIB } from '../../../src/base/units.js';
import { KIND, RequestMeter } from '../../../src/replog/meters.js';
import { W } from '../../../src/replog/window.js';
import { Throttle, type ThrottleOptions } from '../../../src/slink/throttle.js';
import { Rig, cleanUp } from '../replog/rig.js';

describe('Throttle', () => {
  let rig: Rig;
  let throttle: Throttle;
  let meter: RequestMeter;
  /** How long requests take, while something is copied and while nothing is. */
  let disturbed: (share: number) => number;
  const CALM = 0.1;

  beforeEach(() => {
    rig = new Rig();
    meter = new RequestMeter(rig.shared.meters, rig.window, rig.clock);
    disturbed = () => CALM;
  });
  afterEach(cleanUp);

  function start(options: Partial<ThrottleOptions> = {}): void {
    throttle = new Throttle(rig.clock, rig.window, rig.shared, { rate: 0, latencyMs: 0, ...options });
  }

  /** A request that took `ms`, in no time. */
  function request(ms: number): void {
    const now = rig.clock.ms;
    rig.clock.ms = now - ms;
    meter.lap();
    meter.taken(KIND.WRITE, 0, 4096);
    meter.answered(KIND.WRITE);
    rig.clock.ms = now;
    meter.lap();
  }

  /** Copies for `ms` of time, pieces of 1 ms, with so many requests per millisecond beside; the part that was worked. */
  function run(ms: number, requests: number): number {
    let worked = 0;
    let owed = 0;
    for (const end = rig.clock.ms + ms; rig.clock.ms < end;) {
      const wait = throttle.wait();
      const step = wait > 0 ? Math.min(wait, 1) : 1;
      for (owed += requests * step; owed >= 1; owed--) request(wait > 0 ? CALM : disturbed(throttle.share));
      rig.clock.ms += step;
      if (wait > 0) continue;
      worked += step;
      throttle.worked(step, 64 * KIB);
    }
    return worked / ms;
  }

  it('alone it works without a rest, in large pieces', () => {
    start();
    assert.equal(run(1000, 0), 1);
    assert.equal(throttle.piece(Infinity), 4 * MIB);
  });

  it('goes on at nearly full speed beside those whom it does not disturb, in small pieces', () => {
    start();
    run(5000, 2);
    assert.ok(run(4000, 2) > 0.85, `${throttle.share}`);
    assert.equal(throttle.piece(Infinity), 256 * KIB);
  });

  it('! works so little that requests take no longer than they may, and finds out what that is', () => {
    start();
    // The more it works, the longer all others take.
    disturbed = (share) => (share > 0.2 ? 5 : CALM);
    run(3000, 2);
    const share = run(10_000, 2);
    assert.ok(share < 0.25 && share > 0.03, `${share}`);
  });

  it('takes the bound that it is given', () => {
    start({ latencyMs: 20 });
    disturbed = () => 5;
    run(5000, 2);
    assert.equal(throttle.share, 1);
    throttle.configure({ rate: 0, latencyMs: 2 });
    run(3000, 2);
    assert.ok(throttle.share <= 1 / 16, `${throttle.share}`);
  });

  it('is at full speed again half a second after the last request', () => {
    start({ latencyMs: 2 });
    disturbed = () => 50;
    run(3000, 2);
    assert.ok(throttle.share < 0.1);
    run(900, 0);
    assert.equal(throttle.share, 1);
    assert.equal(run(500, 0), 1);
  });

  it('few requests count as well, over a longer time', () => {
    start({ latencyMs: 2 });
    disturbed = () => 50;
    run(30_000, 0.01);
    assert.ok(throttle.share < 0.1, `${throttle.share}`);
  });

  it('keeps its rate, whatever it is alone with', () => {
    start({ rate: MIB });
    run(200, 0);
    let bytes = 0;
    const began = rig.clock.ms;
    while (rig.clock.ms - began < 10_000) {
      const wait = throttle.wait();
      rig.clock.ms += Math.max(wait, 1);
      if (wait > 0) continue;
      const piece = throttle.piece(Infinity);
      bytes += piece;
      throttle.worked(1, piece);
    }
    assert.ok(bytes <= 10.6 * MIB && bytes >= 9 * MIB, `${bytes / MIB} MiB in 10 s`);
  });

  it('where nobody counts it takes a fixed share while the log grows', () => {
    start();
    rig.window.store(W.STATS_OFF, 1);
    let worked = 0;
    for (let i = 0; i < 4000; i++) {
      if (i % 10 === 0) rig.write(512);
      rig.window.storeSeq(W.HEAD, rig.appender.seq - 1);
      const wait = throttle.wait();
      rig.clock.ms += 1;
      if (wait > 0) continue;
      worked++;
      throttle.worked(1, 4096);
    }
    assert.ok(worked > 800 && worked < 1400, `${worked}`);
  });

  it('takes no piece smaller than a region may be, and none that another bound forbids', () => {
    start({ rate: 1000 });
    assert.equal(throttle.piece(Infinity), 64 * KIB);
    throttle.configure({ rate: 0, latencyMs: 0 });
    assert.equal(throttle.piece(200 * KIB), 192 * KIB);
  });
});
