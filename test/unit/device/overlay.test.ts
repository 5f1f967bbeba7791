import assert from 'node:assert/strict';
import { Mem } from '../../../src/base/mem.js';
import * as sys from '../../../src/base/sys.js';
import { Overlay, PENDING } from '../../../src/device/overlay.js';
import { Window, windowShape } from '../../../src/replog/window.js';

const MIB = 1 << 20;
const DEVICE = 256 * 1024;

function makeWindow(): Window {
  const shape = windowShape(MIB);
  const fd = sys.memfdCreate('overlay-test', 0);
  sys.ftruncate(fd, shape.size);
  return Window.map(fd, MIB);
}

/** A reproducible source of whole numbers below n. */
function random(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * n);
  };
}

describe('Overlay', () => {
  it('paint equals a byte model when writes, zeroes and releases come in any order', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const rnd = random(seed);
      const window = makeWindow();
      const overlay = new Overlay(window);
      const records: { device: number; offset: number; length: number; byte: number; at: number; seq: number }[] = [];
      let pos = rnd(1000) * 512;
      let head = 1;
      let seq = 1;
      for (let step = 0; step < 300; step++) {
        const device = rnd(2);
        const offset = rnd(DEVICE / 512) * 512;
        const length = Math.min(DEVICE - offset, (1 + rnd(rnd(4) === 0 ? 128 : 10)) * 512);
        const zero = rnd(8) === 0;
        if (!zero) {
          window.u8.fill(seq & 0xff || 1, window.payloadAt(pos), window.payloadAt(pos) + length);
          overlay.add(device, offset, length, pos, seq);
        } else overlay.addZeroes(device, offset, length, seq);
        records.push({ device, offset, length, byte: zero ? 0 : seq & 0xff || 1, at: pos, seq });
        if (!zero) pos += length;
        seq++;
        // What the ring would overwrite has left.
        while (records.length > 0 && pos - records[0]!.at > MIB - 128 * 1024) head = records.shift()!.seq + 1;
        if (rnd(10) === 0 && records.length > 4) {
          head = records[rnd(4)]!.seq;
          while (records[0]!.seq < head) records.shift();
        }
        overlay.release(head);
        if (step % 5 !== 0) continue;
        const from = head + rnd(Math.max(1, seq - head));
        const d = rnd(2);
        const a = rnd(DEVICE);
        const b = Math.min(DEVICE, a + 1 + rnd(40000));
        const want = Buffer.alloc(b - a, 0xee);
        let touched = 0;
        for (const r of records) {
          if (r.device !== d || r.seq < from || r.offset >= b || r.offset + r.length <= a) continue;
          want.fill(r.byte, Math.max(r.offset, a) - a, Math.min(r.offset + r.length, b) - a);
          touched++;
        }
        const got = Mem.anon(65536);
        got.u8.fill(0xee);
        const what = overlay.probe(d, a, b, from);
        overlay.paint(d, a, b, from, got, 0);
        assert.ok(got.u8.subarray(0, b - a).equals(want), `seed ${seed} step ${step}`);
        assert.equal(what === PENDING.NONE, touched === 0, `seed ${seed} step ${step}: probe says ${what}`);
        const other = Mem.anon(65536);
        other.u8.fill(0x11);
        overlay.paint(d, a, b, from, other, 0);
        if (what === PENDING.ALL || what === PENDING.ONE_PIECE)
          assert.ok(other.u8.subarray(0, b - a).equals(want), `seed ${seed} step ${step}: not all is covered`);
        other.unmap();
        if (what === PENDING.ONE_PIECE)
          assert.ok(window.u8.subarray(overlay.pieceAt, overlay.pieceAt + b - a).equals(want), `seed ${seed} piece`);
        got.unmap();
      }
    }
  });

  it('probe says ONE_PIECE when one record covers the range and ALL when several do', () => {
    const window = makeWindow();
    const overlay = new Overlay(window);
    overlay.add(0, 4096, 8192, 512, 1);
    assert.equal(overlay.probe(0, 5000, 9000, 1), PENDING.ONE_PIECE);
    assert.equal(overlay.pieceAt, window.payloadAt(512 + 5000 - 4096));
    overlay.add(0, 8192, 4096, 512 + 8192 + 512, 2);
    assert.equal(overlay.probe(0, 5000, 9000, 1), PENDING.ALL);
    assert.equal(overlay.probe(0, 0, 9000, 1), PENDING.SOME);
    assert.equal(overlay.probe(0, 0, 9000, 3), PENDING.NONE);
    assert.equal(overlay.probe(1, 4096, 9000, 1), PENDING.NONE);
  });
});
