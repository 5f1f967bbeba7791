import assert from 'node:assert/strict';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { Mem } from '../../../src/base/mem.js';
import { LogReader, READ } from '../../../src/replog/reader.js';
import { readSegment } from '../../../src/replog/extents.js';
import { SH } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import { FaultIo } from '../../support/fault-io.js';
import { Rig, cleanUp, newLog } from './rig.js';

const EIO = 5;

/** Payload bytes as a reader finds them, by seq, and the seqs in order. */
function readBack(rig: Rig, from = rig.log.super.head): { seqs: number[]; first: number[]; padding: number } {
  const reader = new LogReader(rig.log);
  reader.seek({ ...rig.log.super.checkpoint, ...from });
  const seqs: number[] = [];
  const first: number[] = [];
  while (reader.next() === READ.BATCH)
    for (let i = 0, at = reader.batch.payloads; i < reader.batch.count; i++) {
      const header = reader.batch.headers + i * 64;
      const bytes = reader.batch.mem.dv.getUint32(header + 48, true);
      seqs.push(reader.batch.seq + i);
      first.push(bytes === 0 ? -1 : reader.batch.mem.u8[at]!);
      at += (bytes + 511) & ~511;
    }
  const { padding } = reader;
  reader.close();
  return { seqs, first, padding };
}

function faulty(): { io: FaultIo; rig: Rig } {
  const io = new FaultIo(realIo);
  return { io, rig: new Rig({ io, log: newLog({ io }) }) };
}

describe('Committer', () => {
  afterEach(cleanUp);

  it('puts many records into one batch and syncs once for all who wait', () => {
    const { io, rig } = faulty();
    for (let i = 0; i < 20; i++) rig.write(4096, i);
    for (let i = 0; i < 5; i++) rig.flush(100 + i);
    rig.run();
    assert.equal(io.count('REPLOG:WRITE'), 1);
    assert.equal(io.count('REPLOG:SYNC'), 1);
    assert.deepEqual(
      rig.answers.map((a) => a.unique),
      [100, 101, 102, 103, 104],
    );
    assert.ok(rig.answers.every((a) => a.errno === 0));
    assert.equal(rig.durable, 21);
    assert.deepEqual(readBack(rig).first, [...Array(20).keys()]);
  });

  it('answers only after the sync, and releases only after the answer', () => {
    const { io, rig } = faulty();
    const seen: string[] = [];
    const state = (): string => `durable ${rig.durable} released ${rig.window.load(W.RELEASED)}`;
    const answer = rig.answers.push.bind(rig.answers);
    rig.answers.push = (...items) => {
      seen.push(`answer ${state()} syncs ${io.count('REPLOG:SYNC')}`);
      return answer(...items);
    };
    rig.write(512);
    rig.flush(1);
    rig.run();
    assert.deepEqual(seen, ['answer durable 2 released 1 syncs 1']);
    assert.equal(state(), 'durable 2 released 2');
  });

  it('answers a flush of durable records without a sync', () => {
    const { io, rig } = faulty();
    rig.write(512);
    rig.settle();
    const before = io.count('REPLOG:SYNC');
    rig.flush(7);
    rig.run();
    assert.equal(io.count('REPLOG:SYNC'), before);
    assert.deepEqual(rig.answers, [{ unique: 7, bytes: 0, errno: 0 }]);
  });

  it('waits for a record whose flush was queued before it was sealed', () => {
    const rig = new Rig();
    rig.shared.pushFlush(9, 0, rig.appender.seq + 1, 512);
    rig.run();
    assert.deepEqual(rig.answers, []);
    rig.write(512);
    rig.run();
    assert.deepEqual(rig.answers, [{ unique: 9, bytes: 512, errno: 0 }]);
  });

  it('gathers small writes for a while, and takes a large one at once', () => {
    const { io, rig } = faulty();
    rig.write(512);
    const wait = rig.committer.step();
    assert.ok(wait > 0 && wait <= 2, `waits ${wait} ms`);
    assert.ok(rig.committer.idle);
    rig.write(256 * 1024);
    assert.ok(!rig.committer.idle);
    rig.run();
    assert.equal(io.count('REPLOG:WRITE'), 1);
  });

  it('syncs after a short silence without anyone waiting', () => {
    const { io, rig } = faulty();
    rig.write(512);
    rig.clock.ms += 1;
    rig.run();
    rig.clock.ms += 2;
    rig.run();
    assert.equal(io.count('REPLOG:SYNC'), 0);
    rig.clock.ms += 3;
    rig.run();
    assert.equal(io.count('REPLOG:SYNC'), 1);
    assert.equal(rig.durable, 2);
  });

  it('syncs within a bounded time although writes never cease', () => {
    const { io, rig } = faulty();
    for (let i = 0; i < 60; i++) {
      rig.write(512);
      rig.clock.ms += 2;
      rig.run();
    }
    assert.ok(io.count('REPLOG:SYNC') >= 1);
  });

  it('syncs when enough is unsynced, and at once while requests are parked', () => {
    const io = new FaultIo(realIo);
    const rig = new Rig({ io, log: newLog({ io }), committer: { syncBytes: 300_000, gatherBytes: 1 } });
    rig.write(200_000);
    rig.run();
    assert.equal(io.count('REPLOG:SYNC'), 0);
    rig.write(200_000);
    rig.run();
    assert.equal(io.count('REPLOG:SYNC'), 1);
    rig.write(512);
    rig.shared.store(SH.DATA_WAITS, 1);
    rig.run();
    assert.equal(rig.durable, rig.appender.seq);
  });

  it('pads the end of a segment that the next record does not fit into', () => {
    const rig = new Rig();
    for (let i = 0; i < 6; i++) {
      rig.write(200_000, i + 1);
      rig.settle();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    const back = readBack(rig);
    assert.deepEqual(back.first, [1, 2, 3, 4, 5, 6]);
    // Two of 204,800 in each segment of 524,288.
    assert.equal(back.padding, 2 * (524_288 - 2 * 204_800));
  });

  it('never lets a batch cross a segment, whatever the sizes', () => {
    const rig = new Rig({ ring: 4 << 20 });
    for (let i = 0; i < 300; i++) rig.write(1 + ((i * 7919) % 12_000), i & 255);
    rig.settle();
    const back = readBack(rig);
    assert.deepEqual(
      back.seqs,
      [...Array(300).keys()].map((i) => i + 1),
    );
    assert.deepEqual(
      back.first,
      [...Array(300).keys()].map((i) => i & 255),
    );
  });

  it('goes round the ring, and stops with LOG_FULL until the head moves', () => {
    const rig = new Rig();
    let laps = 0;
    for (let i = 0; laps < 2; i++) {
      if (rig.committer.durablePos > (laps + 1) * rig.log.ring) laps++;
      rig.write(100_000, i);
      rig.settle();
      rig.release();
    }
    const head = rig.shared.logHead;
    // Past admission: what the data thread never does.
    while (rig.shared.load(SH.LOG_FULL) === 0) {
      rig.write(100_000);
      rig.flush(1);
      rig.run();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    assert.ok(rig.durable < rig.appender.seq);
    rig.shared.logHead = head + rig.log.ring / 2;
    rig.run();
    assert.equal(rig.shared.load(SH.LOG_FULL), 0);
    assert.equal(rig.durable, rig.appender.seq);
  });

  it('finishes short writes', () => {
    const { io, rig } = faulty();
    io.arm({ call: 'REPLOG:WRITE', nth: 1, short: 4096 }).arm({ call: 'REPLOG:WRITE', nth: 2, short: 512 * 9 });
    for (let i = 0; i < 30; i++) rig.write(3000, i);
    rig.settle();
    assert.ok(io.count('REPLOG:WRITE') >= 3);
    assert.deepEqual(readBack(rig).first, [...Array(30).keys()]);
  });

  it('copies through a buffer where the disk has sectors of 4096 bytes', () => {
    const io = new FaultIo(realIo).arm({ call: 'REPLOG:PROBE', nth: 0, errno: 22 });
    const rig = new Rig({ io, log: newLog({ io }) });
    if (!rig.log.direct) return;
    assert.equal(rig.log.align, 4096);
    for (let i = 0; i < 30; i++) rig.write(700, i);
    rig.settle();
    assert.deepEqual(readBack(rig).first, [...Array(30).keys()]);
  });

  it('hands over a segment when all of it is durable, the same as the log holds', () => {
    const rig = new Rig();
    rig.tag('first');
    for (let i = 0; rig.segments.length === 0; i++) {
      rig.write(90_000, i, i * 512);
      if (i === 2) rig.tag('third');
      rig.settle();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    const [segment] = rig.segments;
    assert.ok(segment!.complete);
    assert.equal(segment!.start, 0);
    assert.deepEqual(
      segment!.tags.map((tag) => tag.name),
      ['first', 'third'],
    );
    const { durablePos, durable } = rig.committer;
    assert.deepEqual(readSegment(rig.log, 0, { pos: durablePos, seq: durable }), segment);
  });

  it('calls a segment incomplete that it came into the middle of', () => {
    const rig = new Rig();
    rig.write(90_000);
    rig.settle();
    rig.committer.close();
    rig.committer = rig.newCommitter();
    while (rig.segments.length === 0) {
      rig.write(90_000);
      rig.settle();
      rig.window.storeSeq(W.HEAD, rig.durable);
    }
    assert.equal(rig.segments[0]!.complete, false);
  });

  it('writes again, from DURABLE, what a killed one had written', () => {
    const { io, rig } = faulty();
    rig.write(512, 1);
    rig.settle();
    rig.write(512, 2);
    rig.write(512, 3);
    io.arm({ call: 'REPLOG:SYNC', nth: 1, crash: 'before' });
    rig.flush(5);
    assert.throws(() => rig.run(), /crash at REPLOG:SYNC/);
    io.disarm();
    assert.equal(rig.durable, 2);
    rig.committer = rig.newCommitter();
    rig.run();
    rig.clock.ms += 100;
    rig.run();
    assert.equal(rig.durable, 4);
    assert.deepEqual(readBack(rig).first, [1, 2, 3]);
  });
});

describe('! Committer, after a failed write or sync', () => {
  afterEach(cleanUp);

  for (const call of ['REPLOG:SYNC', 'REPLOG:WRITE'] as const)
    it(`! moves DURABLE only when everything unsynced was written again and synced (${call})`, () => {
      const { io, rig } = faulty();
      rig.write(512, 1);
      rig.settle();
      const { durablePos } = rig.committer;

      // Two batches in the file, then the failure.
      rig.write(4096, 2);
      rig.committer.step();
      rig.clock.ms += 2.5;
      rig.committer.step();
      assert.equal(rig.committer.written, 3);
      rig.write(4096, 3);
      io.arm({ call, nth: 1, errno: EIO });
      rig.flush(11);
      rig.run();
      assert.equal(rig.shared.load(SH.LOG_ERROR), EIO);
      assert.deepEqual(rig.errors, [`${call} 5`]);
      assert.deepEqual(rig.answers, [{ unique: 11, bytes: 0, errno: EIO }]);
      assert.equal(rig.durable, 2);

      // The disk works again, but nothing is tried silently; who waits is refused, what is durable is not.
      io.disarm();
      const calls = io.calls.length;
      rig.clock.ms += 1000;
      rig.flush(12);
      rig.shared.pushFlush(13, 0, 2, 0);
      rig.run();
      assert.equal(io.calls.length, calls);
      assert.equal(rig.durable, 2);
      assert.deepEqual(rig.answers.slice(1), [
        { unique: 12, bytes: 0, errno: EIO },
        { unique: 13, bytes: 0, errno: 0 },
      ]);
      assert.equal(rig.errors.length, 1);

      // What the disk holds of the first attempt does not count: it is destroyed here, as a disk may.
      const at = rig.log.fileOffset(durablePos);
      const gone = Buffer.alloc(65_536, 0xdd);
      const { mem, done } = direct(gone);
      assert.equal(realIo.pwrite('TEST:POKE', rig.log.fd, mem, 0, gone.length, at), gone.length);
      done();

      rig.shared.bump(SH.LOG_RETRY);
      rig.flush(14);
      rig.run();
      assert.equal(rig.shared.load(SH.LOG_ERROR), 0);
      assert.equal(rig.healed, 1);
      assert.equal(rig.durable, 4);
      assert.deepEqual(rig.answers.at(-1), { unique: 14, bytes: 0, errno: 0 });
      assert.deepEqual(readBack(rig).first, [1, 2, 3]);
    });

  it('! a retry that fails leaves the log suspended', () => {
    const { io, rig } = faulty();
    rig.write(512, 1);
    rig.flush(1);
    io.arm({ call: 'REPLOG:SYNC', nth: 0, errno: EIO });
    rig.run();
    rig.shared.bump(SH.LOG_RETRY);
    rig.run();
    assert.equal(rig.shared.load(SH.LOG_ERROR), EIO);
    assert.equal(rig.durable, 1);
    assert.equal(rig.errors.length, 2);
    assert.equal(rig.healed, 0);
    io.disarm();
    rig.shared.bump(SH.LOG_RETRY);
    rig.run();
    assert.equal(rig.durable, 2);
    assert.equal(rig.healed, 1);
  });

  it('! does not hand over a segment twice, nor one that is not durable', () => {
    const { io, rig } = faulty();
    for (let i = 0; i < 5; i++) rig.write(120_000, i);
    io.arm({ call: 'REPLOG:SYNC', nth: 1, errno: EIO });
    rig.flush(1);
    rig.run();
    assert.equal(rig.segments.length, 0);
    rig.shared.bump(SH.LOG_RETRY);
    rig.run();
    rig.write(512);
    rig.settle();
    assert.deepEqual(
      rig.segments.map((s) => [s.start, s.count, s.complete]),
      [[0, 4, true]],
    );
  });

  describe('with links that hold writers', () => {
    let rig: Rig;

    beforeEach(() => {
      rig = new Rig();
      for (const place of [1, 40]) {
        rig.shared.setBit(SH.GATES, place, true);
        rig.shared.store(SH.LINK_SEQ + place, 1);
      }
    });

    /** A write that waits for links; bits as in an entry. */
    function held(unique: number, linksLo: number, linksHi = 0): number {
      rig.shared.pushFlush(unique, 0, rig.appender.seq + 1, 512, 0, linksLo, linksHi);
      const seq = rig.write(512);
      rig.run();
      return seq;
    }

    function confirm(place: number, seq: number): void {
      rig.shared.store(SH.LINK_SEQ + place, seq);
      assert.ok(!rig.committer.idle, 'the committer finds something to do');
      rig.run();
    }

    const answered = (): number[] => rig.answers.map(({ unique }) => unique);
    const released = (): number => rig.window.seqOf(W.RELEASED, rig.appender.seq);

    it('! answers a write when it is durable and each of its links has confirmed it, not before', () => {
      const seq = held(1, 1 << 1, 1 << 8);
      assert.equal(rig.durable, seq + 1, 'it is synced at once: somebody waits');
      assert.deepEqual([rig.committer.awaitedLo, rig.committer.awaitedHi], [1 << 1, 1 << 8]);
      rig.shared.store(SH.LINK_SEQ + 1, seq + 1);
      rig.run();
      assert.deepEqual(answered(), []);
      confirm(40, seq + 1);
      assert.deepEqual(rig.answers, [{ unique: 1, bytes: 512, errno: 0 }]);
    });

    it('answers others while one waits for a link', () => {
      held(1, 1 << 1);
      held(2, 0, 1 << 8);
      rig.write(512);
      rig.flush(3);
      rig.run();
      assert.deepEqual(answered(), [3]);
      confirm(40, 3);
      assert.deepEqual(answered(), [3, 2]);
      assert.ok(rig.committer.idle, 'it sleeps while a link keeps somebody waiting');
      confirm(1, 3);
      assert.deepEqual(answered(), [3, 2, 1]);
      assert.equal(rig.shared.load(SH.FLUSH_HEAD), rig.shared.load(SH.FLUSH_TAIL));
    });

    it('! releases no record whose request is still to be answered, nor any behind it', () => {
      const first = held(1, 1 << 1);
      const second = held(2, 0, 1 << 8);
      assert.equal(released(), first);
      confirm(40, second + 1);
      assert.equal(released(), first, 'the second was answered, the first not');
      confirm(1, second + 1);
      assert.equal(released(), second + 1);
    });

    it('does not wait for links that gate no longer', () => {
      held(1, 1 << 1);
      rig.shared.setBit(SH.GATES, 1, false);
      assert.ok(!rig.committer.idle);
      rig.run();
      assert.deepEqual(answered(), [1]);
    });

    it('answers with EIO, once, when the operator has those who wait fail; the records stay', () => {
      const seq = held(1, 1 << 1);
      rig.write(512);
      rig.flush(2);
      rig.shared.bump(SH.FAIL_ASK);
      rig.run();
      assert.deepEqual(rig.answers, [
        { unique: 1, bytes: 512, errno: ERRNO.EIO },
        { unique: 2, bytes: 0, errno: 0 },
      ]);
      assert.equal(rig.durable, seq + 2);
      held(3, 1 << 1);
      assert.deepEqual(answered(), [1, 2], 'the next one waits again');
    });

    it('keeps who waits for a link only waiting when the log fails, and refuses the others', () => {
      const io = new FaultIo(realIo);
      rig.committer.close();
      rig = new Rig({ io });
      rig.shared.setBit(SH.GATES, 1, true);
      rig.shared.store(SH.LINK_SEQ + 1, 1);
      const seq = held(1, 1 << 1);
      io.arm({ call: 'REPLOG:SYNC', nth: 1, errno: ERRNO.EIO });
      held(2, 1 << 1);
      assert.deepEqual(rig.answers, [{ unique: 2, bytes: 512, errno: ERRNO.EIO }]);
      assert.ok(rig.committer.idle, 'it sleeps');
      confirm(1, seq + 1);
      assert.deepEqual(answered(), [2, 1]);
      assert.equal(rig.answers[1]!.errno, 0);
    });
  });
});

function direct(bytes: Buffer): { mem: Mem; done: () => void } {
  const mem = Mem.anon(bytes.length);
  bytes.copy(mem.u8);
  return { mem, done: () => mem.unmap() };
}
