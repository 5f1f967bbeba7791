import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import { SHIP_BYTES } from '../../../src/slink/batch.js';
import { Deferral } from '../../../src/slink/deferral.js';

const RING = 1024 * MIB;
const PER_MS = 1 * MIB;

describe('Deferral', () => {
  let now: number;
  let pos: number;
  let lag: number;
  let other: number;
  let deferral: Deferral;

  beforeEach(() => {
    now = 1000;
    pos = lag = other = 0;
    deferral = new Deferral(100, { ring: RING }, { ms: 10_000, share: 0.5 });
  });

  /** Lets `ms` pass with so many bytes becoming durable in each; what `wait` then says. */
  function pass(ms: number, perMs: number): number {
    now += ms;
    pos += ms * perMs;
    lag += ms * perMs;
    return wait();
  }

  function wait(): number {
    return deferral.wait(now, pos, lag, lag + other);
  }

  /** Milliseconds until it sends under a steady load. */
  function heldFor(perMs: number, limit = 100_000): number {
    const from = now;
    while (now - from < limit) if (pass(1, perMs) === 0) return now - from;
    return limit;
  }

  it('sends after the RPO where the group is not busy, however little there is', () => {
    lag = 4096;
    assert.equal(wait(), 100);
    assert.equal(pass(60, 0), 40);
    assert.equal(pass(40, 0), 0);
  });

  it('puts a busy group off until half of the ring is in use', () => {
    wait();
    const held = heldFor(PER_MS);
    assert.ok(held >= 512 && held <= 513, `${held} ms at 1 MiB each`);
    assert.equal(deferral.active, false);
  });

  it('counts what others hold of the ring', () => {
    wait();
    other = 256 * MIB;
    const held = heldFor(PER_MS);
    assert.ok(held >= 256 && held <= 257, `${held}`);
  });

  it('never for longer than its time', () => {
    const slow = (2 * SHIP_BYTES) / 100;
    deferral = new Deferral(100, { ring: 1e12 }, { ms: 10_000, share: 0.5 });
    wait();
    const held = heldFor(slow);
    assert.ok(held >= 10_000 && held <= 10_001, `${held}`);
  });

  it('sends at the next look where the load ends', () => {
    wait();
    assert.ok(pass(150, PER_MS) > 0 && deferral.active);
    assert.ok(pass(100, 0) === 0 || pass(100, 0) === 0);
    assert.equal(deferral.active, false);
  });

  it('catches up at full speed afterwards, and only a link that is level is put off again', () => {
    wait();
    heldFor(PER_MS);
    while (lag >= SHIP_BYTES) {
      deferral.sent();
      lag -= SHIP_BYTES;
      if (lag >= SHIP_BYTES) assert.equal(pass(1, PER_MS), 0, `${lag} bytes behind`);
    }
    deferral.sent();
    assert.ok(wait() > 0);
    assert.ok(pass(100, PER_MS) > 0);
    assert.ok(pass(100, PER_MS) > 0 && deferral.active, 'put off again');
  });

  it('! a debt is paid first: a link that comes back far behind is not put off', () => {
    lag = RING / 2;
    assert.equal(wait(), 0);
    assert.equal(pass(10, PER_MS), 0);
  });

  it('! without the option no batch ever waits', () => {
    deferral = new Deferral(100, { ring: RING }, undefined);
    lag = SHIP_BYTES;
    assert.equal(wait(), 0);
    const never = new Deferral(100, { ring: RING }, { ms: 0, share: 0.5 });
    assert.equal(never.wait(now, pos, SHIP_BYTES, SHIP_BYTES), 0);
  });
});
