import assert from 'node:assert/strict';
import { RepError } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import type { SegmentFact } from '../../../src/index/contract.js';
import { Checkpointer } from '../../../src/replog/checkpointer.js';
import { recover } from '../../../src/replog/recovery.js';
import { W } from '../../../src/replog/window.js';
import { FaultIo } from '../../support/fault-io.js';
import { MemIndex, Rig, cleanUp, link, newLog, openLog } from './rig.js';

interface Set {
  io: FaultIo;
  rig: Rig;
  index: MemIndex;
  failures: string[];
  checkpointer: Checkpointer;
}

function set(records = 6): Set {
  const io = new FaultIo(realIo);
  const rig = new Rig({ io, log: newLog({ io }) });
  for (let i = 0; i < records; i++) {
    rig.write(5000);
    rig.settle();
  }
  rig.log.writeSuper({ clean: false, reign: 1 }, rig.clock);
  io.calls.length = 0;
  const index = new MemIndex();
  const failures: string[] = [];
  const { log, window, shared, clock } = rig;
  const events = { checkpointFailed: (reason: Error) => void failures.push(reason.message) };
  const checkpointer = new Checkpointer({ log, index, window, shared, clock, events });
  return { io, rig, index, failures, checkpointer };
}

const at = (rig: Rig, seq: number): ReturnType<Rig['window']['placeBefore']> => rig.window.placeBefore(seq);

describe('Checkpointer', () => {
  afterEach(cleanUp);

  it('waits for its interval, unless it is asked', () => {
    const { rig, index, checkpointer } = set();
    assert.equal(checkpointer.step(), 1000);
    checkpointer.noteApplied(at(rig, 3));
    checkpointer.step();
    assert.equal(index.generation, 1);
    checkpointer.noteApplied(at(rig, 4));
    rig.clock.ms += 400;
    assert.equal(checkpointer.step(), 600);
    assert.equal(index.generation, 1);
    checkpointer.ask();
    checkpointer.step();
    assert.equal(index.generation, 2);
    rig.clock.ms += 5000;
    checkpointer.step();
    assert.equal(index.generation, 2, 'nothing new, nothing written');
  });

  it('does not wait where a sixteenth of the ring would come free', () => {
    const { rig, index, checkpointer } = set(2);
    checkpointer.noteApplied(at(rig, 2));
    checkpointer.step();
    for (let i = 0; i < 2; i++) {
      rig.write(200_000);
      rig.settle();
    }
    checkpointer.noteApplied(at(rig, rig.durable));
    checkpointer.step();
    assert.equal(index.generation, 2);
  });

  it('keeps the log from the oldest of checkpoint and cursors', () => {
    const { rig, checkpointer } = set();
    checkpointer.noteApplied(at(rig, 6));
    checkpointer.noteLink(link(1, at(rig, 3)));
    checkpointer.noteLink(link(2, at(rig, 5)));
    checkpointer.ask();
    checkpointer.step();
    assert.equal(rig.shared.logHead, at(rig, 3).pos);
    assert.deepEqual(rig.log.super.head, { pos: at(rig, 3).pos, seq: 3 });
    const { pos } = at(rig, 3);
    assert.deepEqual(checkpointer.holder(), { nr: 1, pos, bytes: at(rig, 7).pos - pos });

    checkpointer.noteLink(link(1, at(rig, 3)), false);
    checkpointer.ask();
    checkpointer.step();
    assert.equal(rig.shared.logHead, at(rig, 5).pos);
    checkpointer.dropLink(2);
    checkpointer.ask();
    checkpointer.step();
    assert.equal(rig.shared.logHead, at(rig, 6).pos);
    assert.equal(checkpointer.holder().nr, 0);
  });

  it('refuses a link that wants what the log no longer holds', () => {
    const { rig, checkpointer } = set();
    checkpointer.noteApplied(at(rig, 6));
    checkpointer.ask();
    checkpointer.step();
    assert.throws(() => checkpointer.noteLink(link(1, at(rig, 2))), /no longer holds; it needs a resync/);
    checkpointer.noteLink(link(1, at(rig, 2), 'inconsistent'));
  });

  it('an inconsistent link holds the head at its cursor where it is resynced, and nothing where it is not', () => {
    for (const dirt of [undefined, { take: () => ({}), committed: () => undefined }]) {
      const { rig, index } = set();
      index.commit({ links: [{ ...link(1, at(rig, 3), 'inconsistent'), wholeAt: 2 }] });
      const { log, window, shared, clock } = rig;
      const events = { checkpointFailed: (reason: Error) => assert.fail(reason) };
      const checkpointer = new Checkpointer({ log, index, window, shared, clock, events, ...(dirt && { dirt }) });
      checkpointer.noteApplied(at(rig, 6));
      assert.equal(checkpointer.holder().nr, dirt === undefined ? 0 : 1);
      checkpointer.noteLink({ ...link(1, at(rig, 4), 'inconsistent'), wholeAt: 2 });
      checkpointer.ask();
      checkpointer.step();
      assert.equal(shared.logHead, at(rig, dirt === undefined ? 6 : 4).pos);
    }
  });

  it('knows the segments of the index, and those that it has not got yet', () => {
    const { rig, index, checkpointer } = set();
    const segment = (start: number, firstSeq: number): SegmentFact => {
      return {
        start,
        firstSeq,
        lastSeq: firstSeq,
        firstTimeUs: 1,
        lastTimeUs: 1,
        tags: [],
        extents: Uint8Array.of(firstSeq),
      };
    };
    index.commit({ segments: [segment(0, 1)] });
    assert.deepEqual([checkpointer.firstSeq(0), checkpointer.firstSeq(rig.log.segment)], [1, undefined]);
    checkpointer.noteSegment(segment(rig.log.segment, 9));
    assert.deepEqual(
      [checkpointer.firstSeq(rig.log.segment), checkpointer.extents(rig.log.segment)],
      [9, Uint8Array.of(9)],
    );
  });

  it('reports a failure once, tries again after the interval and then gives the space back', () => {
    const { rig, index, failures, checkpointer } = set();
    index.fail = new RepError('ENOSPC', 'index: commit failed');
    checkpointer.noteApplied(at(rig, 6));
    checkpointer.ask();
    for (let i = 0; i < 5; i++) {
      checkpointer.step();
      rig.clock.ms += 1000;
    }
    assert.deepEqual(failures, ['index: commit failed']);
    assert.equal(rig.shared.logHead, 0);
    index.fail = undefined;
    checkpointer.step();
    assert.equal(rig.shared.logHead, at(rig, 6).pos);
  });

  it('closes cleanly: the next open needs no new reign', () => {
    const { rig, index, checkpointer } = set();
    checkpointer.noteApplied(at(rig, 4));
    checkpointer.closeClean();
    const log = openLog(rig.log.path);
    assert.equal(log.super.clean, true);
    assert.deepEqual(log.super.durable, { pos: at(rig, 7).pos, seq: 7 });
    const recovered = recover(log, index);
    assert.equal(recovered.newReign, false);
    assert.equal(recovered.records, 3);
  });

  it('gives space back that a daemon killed between index and superblock had found free', () => {
    const { io, rig, index, failures, checkpointer } = set();
    const place = at(rig, 6);
    checkpointer.noteApplied(place);
    checkpointer.ask();
    io.arm({ call: 'REPLOG:SUPER', nth: 1, crash: 'before' });
    assert.throws(() => checkpointer.step(), /crash/);
    io.disarm();
    const { log, window, shared, clock } = rig;
    const events = { checkpointFailed: (reason: Error) => void failures.push(reason.message) };
    const next = new Checkpointer({ log, index, window, shared, clock, events });
    // The images stand where the index says: nothing new comes from there.
    next.noteApplied(place);
    next.step();
    assert.equal(shared.logHead, place.pos);
  });

  it('does not call a log clean that is not durable to its tail', () => {
    const { rig, checkpointer } = set();
    rig.write(512);
    assert.throws(() => checkpointer.closeClean(), /EBUSY|not durable yet/);
    assert.equal(rig.window.seqOf(W.TAIL, 7), 8);
  });
});

describe('! Checkpointer order: index flushed, superblock durable, space reused', () => {
  afterEach(cleanUp);

  it('! index first, superblock second, head last', () => {
    const { io, rig, index, checkpointer } = set();
    const order: string[] = [];
    const { shared } = rig;
    index.onCommit = () => order.push(`index, superblock serial ${rig.log.super.serial}, head ${shared.logHead}`);
    const sync = io.fdatasync;
    io.fdatasync = (call, fd) => {
      order.push(`${call}, index ${index.generation}, head ${shared.logHead}`);
      return sync(call, fd);
    };
    checkpointer.noteApplied(at(rig, 6));
    checkpointer.ask();
    checkpointer.step();
    assert.deepEqual(order, ['index, superblock serial 2, head 0', 'REPLOG:SUPER-SYNC, index 1, head 0']);
    assert.equal(shared.logHead, at(rig, 6).pos);
    assert.equal(rig.log.super.indexGeneration, 1);
  });

  it('! nothing moves where the index cannot be flushed', () => {
    const { io, rig, index, checkpointer } = set();
    const supers = io.count('REPLOG:SUPER');
    index.fail = new RepError('EIO', 'index: commit failed');
    checkpointer.noteApplied(at(rig, 6));
    checkpointer.ask();
    checkpointer.step();
    assert.equal(io.count('REPLOG:SUPER'), supers);
    assert.equal(rig.shared.logHead, 0);
  });

  for (const call of ['REPLOG:SUPER', 'REPLOG:SUPER-SYNC'])
    it(`! no space is reused where ${call} fails between index and head`, () => {
      const { io, rig, index, failures, checkpointer } = set();
      io.arm({ call, nth: 1, errno: 5 });
      checkpointer.noteApplied(at(rig, 6));
      checkpointer.ask();
      checkpointer.step();
      assert.equal(index.generation, 1);
      assert.equal(rig.shared.logHead, 0);
      assert.equal(failures.length, 1);
      rig.clock.ms += 1000;
      checkpointer.step();
      assert.equal(rig.shared.logHead, at(rig, 6).pos);
    });

  for (const [call, when] of [
    ['REPLOG:SUPER', 'before'],
    ['REPLOG:SUPER', 'after'],
    ['REPLOG:SUPER-SYNC', 'before'],
    ['REPLOG:SUPER-SYNC', 'after'],
  ] as const)
    it(`! a crash ${when} ${call} leaves a log that opens, with nothing overwritten`, () => {
      const { io, rig, index, checkpointer } = set();
      checkpointer.noteApplied(at(rig, 6));
      checkpointer.noteLink(link(1, at(rig, 5)));
      checkpointer.ask();
      io.arm({ call, nth: 1, crash: when });
      assert.throws(() => checkpointer.step(), /crash/);
      assert.equal(rig.shared.logHead, 0);
      const recovered = recover(openLog(rig.log.path), index);
      assert.equal(recovered.indexLost, false);
      assert.deepEqual(recovered.checkpoint, at(rig, 6));
      assert.deepEqual(
        recovered.links.map((l) => [l.nr, l.cursor.seq, l.sync]),
        [[1, 5, 'in-order']],
      );
      assert.equal(recovered.place.seq, 7);
    });

  it('! the first commit into an index that is not the right one says so of every link', () => {
    const { rig, index } = set();
    index.commit({ links: [link(1, at(rig, 3)), link(2, at(rig, 4))] });
    rig.log.writeSuper({ indexGeneration: 9 }, rig.clock);
    const { log, window, shared, clock } = rig;
    const events = { checkpointFailed: () => assert.fail() };
    const checkpointer = new Checkpointer({ log, index, window, shared, clock, events });
    checkpointer.step();
    assert.deepEqual(
      index.changes.at(-1)!.links!.map((l) => l.sync),
      ['inconsistent', 'inconsistent'],
    );
    assert.equal(log.super.indexGeneration, index.generation);
    assert.ok(index.links().every((l) => l.sync === 'inconsistent'));
  });

  it('! rewind gives a new link the whole history while it is still in the log, and refuses where it is not', () => {
    const rig = new Rig({ log: newLog({ size: 32 * 1024 * 1024 }) });
    const { log, window, shared, clock } = rig;
    const events = { checkpointFailed: (reason: Error) => assert.fail(reason) };
    const checkpointer = new Checkpointer({ log, index: new MemIndex(), window, shared, clock, events });
    const fill = (count: number): void => {
      for (let i = 0; i < count; i++) {
        rig.write(200 * 1024);
        rig.settle();
        window.storeSeq(W.APPLIED, rig.durable);
        window.storeSeq(W.HEAD, rig.durable);
      }
      checkpointer.noteApplied(at(rig, rig.durable));
      checkpointer.ask();
      checkpointer.step();
    };
    const first = at(rig, 1);
    fill(16);
    assert.ok(shared.logHead > 0);
    assert.ok(checkpointer.rewind());
    assert.equal(shared.logHead, 0);
    checkpointer.noteLink(link(9, first));
    checkpointer.ask();
    checkpointer.step();
    assert.deepEqual([log.super.head, shared.logHead], [{ pos: 0, seq: 1 }, 0]);
    checkpointer.dropLink(9);
    checkpointer.step();
    clock.ms += 2000;
    checkpointer.step();
    fill(96);
    const head = shared.logHead;
    assert.ok(log.super.durable.pos < log.ring, 'nothing is written over yet, though it soon would be');
    assert.equal(checkpointer.rewind(), false);
    assert.equal(shared.logHead, head);
  });
});
