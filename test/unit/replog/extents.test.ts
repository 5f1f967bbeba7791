import assert from 'node:assert/strict';
import { REC } from '../../../src/replog/format.js';
import {
  EXTENT,
  encodeExtents,
  lookupExtents,
  missingSegments,
  readSegment,
  segmentFact,
  type ExtentHit,
} from '../../../src/replog/extents.js';
import type { ClosedSegment } from '../../../src/replog/segments.js';
import { W } from '../../../src/replog/window.js';
import { Rig, cleanUp } from './rig.js';

/** One full segment of writes to two devices, with discards between. */
function filled(): { rig: Rig; segment: ClosedSegment } {
  const rig = new Rig();
  rig.write(4096, 1, 8 * 512, 1);
  rig.write(1024, 2, 10 * 512, 1);
  rig.appender.seal(REC.DISCARD, 1, 12 * 512, 512, 0, 0);
  rig.appender.seal(REC.ZEROES, 2, 0, 2 ** 40, 0, 0);
  rig.write(512, 3, 0, 2);
  rig.tag('here');
  while (rig.segments.length === 0) {
    rig.write(100_000, 9, 1 << 30, 3);
    rig.settle();
    rig.window.storeSeq(W.HEAD, rig.durable);
  }
  return { rig, segment: rig.segments[0]! };
}

const short = (hit: ExtentHit): unknown[] => [hit.seq, hit.first, hit.sectors, hit.kind];

describe('extents', () => {
  afterEach(cleanUp);

  it('lookupExtents gives every version of a range, oldest first, cut to it', () => {
    const { segment } = filled();
    const table = encodeExtents(segment);
    const find = (device: number, first: number, sectors: number): ExtentHit[] =>
      lookupExtents(table, segment.start, 1, device, first, sectors);
    assert.deepEqual(find(1, 9, 4).map(short), [
      [1, 9, 4, EXTENT.DATA],
      [2, 10, 2, EXTENT.DATA],
      [3, 12, 1, EXTENT.DISCARD],
    ]);
    assert.deepEqual(find(1, 16, 100), []);
    assert.deepEqual(find(1, 0, 8), []);
    assert.deepEqual(find(7, 0, 100), []);
    assert.deepEqual(find(2, 0, 2).map(short), [
      [4, 0, 2, EXTENT.ZEROES],
      [5, 0, 1, EXTENT.DATA],
    ]);
    assert.deepEqual(find(2, 2 ** 31 - 5, 9).map(short), [[4, 2 ** 31 - 5, 5, EXTENT.ZEROES]]);
  });

  it('positions lead to the data in the log', () => {
    const { rig, segment } = filled();
    const table = encodeExtents(segment);
    const [hit] = lookupExtents(table, segment.start, 1, 1, 10, 1).filter((h) => h.seq === 2);
    const mem = rig.log.read('TEST:READ', rig.window.mem, rig.window.ringAt, 4096, hit!.pos - (hit!.pos % 4096));
    assert.equal(mem, 4096);
    assert.equal(rig.window.u8[rig.window.ringAt + (hit!.pos % 4096)], 2);
  });

  it('lookupExtents agrees with a search through all records', () => {
    const rig = new Rig({ ring: 4 << 20 });
    const all: { seq: number; device: number; first: number; sectors: number }[] = [];
    for (let i = 0; rig.segments.length === 0; i++) {
      const [device, first, sectors] = [i % 3, (i * 37) % 400, 1 + ((i * 13) % 60)];
      const seq = rig.write(sectors * 512, i & 255, first * 512, device);
      all.push({ seq, device, first, sectors });
      if (i % 10 === 0) rig.settle();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    const segment = rig.segments[0]!;
    const table = encodeExtents(segment);
    for (let first = 0; first < 460; first += 7) {
      const expected = all
        .filter((r) => r.seq <= segment.count && r.device === 1 && r.first < first + 11 && r.first + r.sectors > first)
        .map((r) => r.seq);
      assert.deepEqual(
        lookupExtents(table, 0, 1, 1, first, 11).map((hit) => hit.seq),
        expected,
      );
    }
  });

  it('segmentFact names seqs, times and tags; readSegment rebuilds the same from the log', () => {
    const { rig, segment } = filled();
    const fact = segmentFact(segment)!;
    assert.equal(fact.firstSeq, 1);
    assert.equal(fact.lastSeq, segment.count);
    assert.ok(fact.firstTimeUs > 0 && fact.lastTimeUs > fact.firstTimeUs);
    assert.deepEqual(
      fact.tags.map(({ name, seq }) => [name, seq]),
      [['here', 6]],
    );
    const limit = { pos: rig.committer.durablePos, seq: rig.durable };
    assert.deepEqual(segmentFact(readSegment(rig.log, 0, limit)), fact);
  });

  it('lookupExtents refuses a damaged table', () => {
    assert.throws(() => lookupExtents(new Uint8Array(40), 0, 1, 0, 0, 1), /damaged/);
  });

  it('missingSegments names closed segments that the index lacks', () => {
    const { rig } = filled();
    const s = rig.log.segment;
    assert.deepEqual(missingSegments(rig.log, 0, 3 * s + 5, [s]), [0, 2 * s]);
    assert.deepEqual(missingSegments(rig.log, 10, s, []), []);
  });
});
