import assert from 'node:assert/strict';
import { getU64 } from '../../../src/base/codec.js';
import { Appender } from '../../../src/replog/appender.js';
import {
  Chain,
  REC,
  R_CHAIN,
  R_REIGN,
  R_SUM,
  R_TIME,
  RECORD_HEADER,
  advanceChain,
  recordSum,
} from '../../../src/replog/format.js';
import { S_ANSWER, S_RECORD, S_UNIQUE, W, type Window } from '../../../src/replog/window.js';
import { Rig, cleanUp, makeWindow, TestClock } from './rig.js';

const PLACE = { pos: 4096, seq: 7, chainLo: 1, chainHi: 2, time: 5_000_000_000_000_000 };

function sumOf(window: Window, seq: number): number {
  const slot = window.slotAt(seq);
  const at = window.payloadAt(window.payloadPos(slot));
  const end = at + window.dv.getUint32(slot + S_RECORD + 48, true);
  return recordSum(window.u8, slot + S_RECORD, end === at ? undefined : window.u8.subarray(at, end));
}

describe('Appender', () => {
  afterEach(cleanUp);

  it('takes seq, chain and time from the slot before the tail', () => {
    const window = makeWindow(PLACE);
    const clock = new TestClock();
    const appender = new Appender(window, clock);
    assert.equal(appender.seq, 7);
    assert.equal(appender.seal(REC.FLUSH, 0, 0, 0, 0, 0), 7);
    const at = window.slotAt(7) + S_RECORD;
    // The clock is behind the last record: time stands still, it does not step back.
    assert.equal(getU64(window.dv, at + R_TIME), PLACE.time);
    const chain = new Chain().set(1, 2);
    advanceChain(chain, window.dv, at, 0);
    assert.ok(chain.equals(window.dv, at + R_CHAIN));
  });

  it('goes on where another one was killed', () => {
    const rig = new Rig();
    rig.write(4096);
    rig.write(700);
    const next = new Appender(rig.window, rig.clock);
    assert.equal(next.seq, rig.appender.seq);
    assert.equal(next.payloadPos, rig.appender.payloadPos);
    assert.equal(next.reign, 1);
    rig.appender = next;
    const seq = rig.write(512);
    assert.equal(rig.window.dv.getUint32(rig.window.slotAt(seq) + S_RECORD + R_SUM, true), sumOf(rig.window, seq));
  });

  it('publishes the tail last, with everything in place', () => {
    const rig = new Rig();
    const seq = rig.write(1000, 0x11, 8192, 3);
    const { window } = rig;
    const slot = window.slotAt(seq);
    assert.equal(window.seqOf(W.TAIL, seq), seq + 1);
    assert.ok(window.holds(slot, seq));
    assert.equal(window.dv.getUint32(slot + S_RECORD + R_SUM, true), sumOf(window, seq));
    assert.equal(window.dv.getUint32(slot + S_ANSWER, true), 1000);
    assert.equal(window.payloadEnd(slot) - window.payloadPos(slot), 1024);
  });

  it('clears what an earlier lap left behind an odd payload', () => {
    const rig = new Rig();
    rig.window.u8.fill(0xff, rig.appender.payload(), rig.appender.payload() + 1024);
    const at = rig.appender.payload();
    rig.write(600);
    assert.ok(rig.window.u8.subarray(at + 600, at + 1024).every((byte) => byte === 0));
  });

  it('appends control records that no request can be matched with', () => {
    const rig = new Rig();
    rig.window.u8.fill(0xee, rig.appender.slot(), rig.appender.slot() + 128);
    const seq = rig.tag('before the upgrade');
    const slot = rig.window.slotAt(seq);
    assert.equal(getU64(rig.window.dv, slot + S_UNIQUE), 0);
    const at = rig.window.payloadAt(rig.window.payloadPos(slot));
    assert.equal(rig.window.u8.toString('utf8', at, at + 18), 'before the upgrade');
  });

  it('mixes the identity of a reign into the chain', () => {
    const chains = [1, 2].map((fill) => {
      const rig = new Rig();
      const seq = rig.appender.beginReign(4, new Uint8Array(16).fill(fill));
      const at = rig.window.slotAt(seq) + S_RECORD;
      assert.equal(rig.window.dv.getUint32(at + R_REIGN, true), 4);
      return rig.window.placeBefore(seq + 1);
    });
    assert.notDeepEqual(chains[0], chains[1]);
  });

  it('hasRoom refuses the last two slots', () => {
    const rig = new Rig();
    const { slots } = rig.window.shape;
    for (let i = 0; i < slots - 2; i++) {
      assert.ok(rig.appender.hasRoom(0, 1), `record ${i}`);
      assert.equal(rig.appender.hasRoom(0, 1, 3), i <= slots - 5);
      rig.appender.seal(REC.FLUSH, 0, 0, 0, 0, 0);
    }
    assert.ok(!rig.appender.hasRoom(0, 1));
    assert.ok(rig.appender.hasRoom(0, 2));
  });

  it('hasRoom refuses a payload that would overwrite the head', () => {
    const rig = new Rig();
    const half = rig.window.shape.ring / 2;
    rig.write(half);
    assert.ok(rig.appender.hasRoom(half, 1));
    assert.ok(!rig.appender.hasRoom(half + 1, 1));
    rig.write(512);
    assert.ok(!rig.appender.hasRoom(half, 1));
    assert.ok(rig.appender.hasRoom(half, 2));
    assert.ok(rig.appender.hasRoom(rig.window.shape.ring, rig.appender.seq));
  });

  it('carries payloads across the end of the ring in one piece', () => {
    const rig = new Rig();
    for (let i = 0; i < 6; i++) rig.write(150_000, i);
    const seq = rig.write(150_000, 9);
    const { window } = rig;
    const at = window.payloadAt(window.payloadPos(window.slotAt(seq)));
    assert.ok(at - window.ringAt + 150_000 > window.shape.ring);
    assert.equal(window.dv.getUint32(window.slotAt(seq) + S_RECORD + R_SUM, true), sumOf(window, seq));
  });

  it('record headers have the size the format says', () => {
    assert.equal(S_RECORD + RECORD_HEADER, 128);
  });
});
