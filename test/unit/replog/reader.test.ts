import assert from 'node:assert/strict';
import { realIo } from '../../../src/base/io.js';
import type { LogPlace } from '../../../src/replog/format.js';
import { LogReader, READ } from '../../../src/replog/reader.js';
import { W } from '../../../src/replog/window.js';
import { FaultIo } from '../../support/fault-io.js';
import { Rig, cleanUp, flip, openLog, peek, poke } from './rig.js';

/** One batch per record, each made durable. */
function batches(rig: Rig, count: number, bytes = 5000): LogPlace[] {
  const places: LogPlace[] = [];
  for (let i = 0; i < count; i++) {
    rig.write(bytes, i + 1, i * 8192);
    rig.settle();
    places.push(rig.window.placeBefore(rig.durable));
    rig.window.storeSeq(W.HEAD, rig.durable);
  }
  return places;
}

describe('LogReader', () => {
  afterEach(cleanUp);

  it('yields batches with their places, then finds the end', () => {
    const rig = new Rig();
    const places = batches(rig, 4);
    const reader = new LogReader(rig.log);
    reader.seek(rig.log.super.checkpoint);
    for (const [i, place] of places.entries()) {
      assert.equal(reader.next(), READ.BATCH);
      assert.deepEqual(reader.place, place);
      assert.equal(reader.batch.seq, i + 1);
      assert.equal(reader.batch.count, 1);
      assert.equal(reader.batch.mem.u8[reader.batch.payloads], i + 1);
    }
    assert.equal(reader.next(), READ.BROKEN);
    assert.equal(reader.broken!.reason, 'magic');
    assert.equal(reader.broken!.seq, 5);
    reader.close();
  });

  it('starts at any boundary and never looks beyond a limit', () => {
    const rig = new Rig();
    const places = batches(rig, 4);
    const io = new FaultIo(realIo);
    const reader = new LogReader(openLog(rig.log.path, io));
    reader.seek(places[0]!);
    // What lies behind the limit may be half written: a wrong byte there is none of the reader's business.
    flip(rig.log.path, rig.log.fileOffset(places[2]!.pos) + 4);
    assert.equal(reader.next(places[2]), READ.BATCH);
    assert.equal(reader.next(places[2]), READ.BATCH);
    assert.equal(reader.next(places[2]), READ.END);
    assert.equal(reader.next(), READ.BROKEN);
    flip(rig.log.path, rig.log.fileOffset(places[2]!.pos) + 4);
    // The buffer holds the damaged version: a seek forgets it.
    reader.seek(places[2]!);
    assert.equal(reader.next(places[3]), READ.BATCH);
    reader.close();
  });

  it('goes round the ring', () => {
    const rig = new Rig();
    let from = rig.log.super.checkpoint;
    const reader = new LogReader(rig.log, { chunk: 65_536 });
    reader.seek(from);
    for (let i = 0; rig.committer.durablePos < 2.5 * rig.log.ring; i++) {
      rig.write(100_000, i & 255);
      rig.settle();
      const place = rig.window.placeBefore(rig.durable);
      assert.equal(reader.next(place), READ.BATCH);
      assert.equal(reader.batch.mem.u8[reader.batch.payloads], i & 255);
      assert.deepEqual(reader.place, place);
      assert.equal(reader.next(place), READ.END);
      rig.release();
      from = place;
    }
    reader.seek({ ...from, pos: from.pos - rig.log.ring });
    assert.equal(reader.next(), READ.BROKEN);
    reader.close();
  });

  it('reads large batches through a small buffer', () => {
    const rig = new Rig({ size: 64 << 20, ring: 8 << 20 });
    for (let i = 0; i < 900; i++) rig.write(4096 + (i % 5) * 512, i & 255);
    rig.settle();
    const reader = new LogReader(rig.log, { chunk: 65_536 });
    reader.seek(rig.log.super.checkpoint);
    let records = 0;
    while (reader.next() === READ.BATCH) records += reader.batch.count;
    assert.equal(records, 900);
    reader.close();
  });

  it('believes the first batch where the chain is not known', () => {
    const rig = new Rig();
    const places = batches(rig, 3);
    const reader = new LogReader(rig.log);
    reader.seekUnproven(places[0]!.pos);
    assert.equal(reader.next(), READ.BATCH);
    assert.deepEqual(reader.place, places[1]);
    reader.close();
  });

  describe('breaks at', () => {
    // Byte of the second batch that is changed, and what the reader makes of it.
    for (const [name, at, reason, byte] of [
      ['a lost magic', 4, 'magic', 0],
      ['another version', 8, 'version', 0],
      ['impossible lengths', 24, 'shape', 0],
      ['a wrong batch checksum', 0, 'crc', 0],
      ['a changed position', 32, 'crc', 0],
      ['a changed record header', 64 + 24, 'crc', 0],
      ['a changed payload', 4096 + 77, 'sum', 4096],
    ] as const)
      it(name, () => {
        const rig = new Rig();
        const places = batches(rig, 3);
        const start = rig.log.fileOffset(places[0]!.pos);
        flip(rig.log.path, start + at);
        const reader = new LogReader(openLog(rig.log.path));
        reader.seek(rig.log.super.checkpoint);
        assert.equal(reader.next(), READ.BATCH);
        assert.equal(reader.next(), READ.BROKEN);
        assert.deepEqual(reader.broken, { reason, pos: places[0]!.pos, byte: start + byte, seq: 2, errno: 0 });
        assert.deepEqual(reader.place, places[0]);
        reader.close();
      });

    it('an earlier lap', () => {
      const rig = new Rig();
      const [first] = batches(rig, 2);
      const reader = new LogReader(rig.log);
      reader.seek({ ...rig.log.super.checkpoint, pos: rig.log.ring });
      assert.equal(reader.next(), READ.BROKEN);
      assert.equal(reader.broken!.reason, 'position');
      assert.ok(first);
      reader.close();
    });

    it('a batch of another history with the expected position and seq', () => {
      const one = new Rig();
      const two = new Rig();
      batches(one, 2);
      two.write(5000, 99);
      two.settle();
      batches(two, 1);
      const at = one.log.fileOffset(8192 + 4096);
      poke(one.log.path, at, peek(two.log.path, at, 12_288));
      const reader = new LogReader(openLog(one.log.path));
      reader.seek(one.log.super.checkpoint);
      assert.equal(reader.next(), READ.BATCH);
      assert.equal(reader.next(), READ.BROKEN);
      assert.equal(reader.broken!.reason, 'chain');
      reader.close();
    });

    it('a sector that cannot be read, and only there', () => {
      const rig = new Rig();
      const places = batches(rig, 3);
      const io = new FaultIo(realIo);
      const log = openLog(rig.log.path, io);
      const bad = log.fileOffset(places[1]!.pos);
      const pread = io.pread;
      io.pread = (call, fd, mem, off, len, pos) =>
        pos <= bad && pos + len > bad ? -5 : pread(call, fd, mem, off, len, pos);
      const reader = new LogReader(log);
      reader.seek(log.super.checkpoint);
      assert.equal(reader.next(), READ.BATCH);
      assert.equal(reader.next(), READ.BATCH);
      assert.equal(reader.next(), READ.BROKEN);
      assert.deepEqual(reader.broken, { reason: 'read', pos: places[1]!.pos, byte: bad, seq: 3, errno: 5 });
      reader.close();
    });
  });
});
