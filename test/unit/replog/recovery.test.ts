import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { RepError } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import type { LogPlace } from '../../../src/replog/format.js';
import type { LogFile } from '../../../src/replog/logfile.js';
import { recover, type Recovered } from '../../../src/replog/recovery.js';
import { openForAppend, settleTail } from '../../../src/replog/settle.js';
import { W } from '../../../src/replog/window.js';
import { FaultIo } from '../../support/fault-io.js';
import { MemIndex, Rig, TestClock, cleanUp, flip, link, newLog, openLog, poke } from './rig.js';

const clock = new TestClock();
const random = (bytes: number): Uint8Array => new Uint8Array(bytes).fill(0x77);

/** A log that was opened by a first daemon and holds `count` durable batches of one record each. */
function lived(count: number, bytes = 5000): { rig: Rig; places: LogPlace[] } {
  const log = newLog();
  const recovered = recover(log, new MemIndex());
  const { reign, id } = openForAppend(log, recovered, clock, random);
  const rig = new Rig({ log, place: recovered.place });
  rig.appender.beginReign(reign, id!);
  rig.settle();
  const places = [rig.window.placeBefore(rig.durable)];
  for (let i = 0; i < count; i++) {
    rig.write(bytes, i + 1);
    rig.settle();
    places.push(rig.window.placeBefore(rig.durable));
    rig.window.storeSeq(W.HEAD, rig.durable);
  }
  return { rig, places };
}

function refused(log: LogFile, index = new MemIndex()): string {
  try {
    recover(log, index);
  } catch (error) {
    assert.ok(error instanceof RepError);
    return `${error.errno}: ${error.message}`;
  }
  return 'no error';
}

/** A second daemon on the same file. */
function reopen(rig: Rig, index = new MemIndex()): { log: LogFile; recovered: Recovered } {
  const log = openLog(rig.log.path);
  return { log, recovered: recover(log, index) };
}

describe('recover', () => {
  afterEach(cleanUp);

  it('! the cursor of a link that was dropped is a durable place, and one of an unknown history is not', () => {
    const { rig, places } = lived(6);
    flip(rig.log.path, rig.log.fileOffset(places[5]!.pos) + 100);
    const index = new MemIndex();
    index.commit({ links: [{ ...link(1, places[6]!, 'inconsistent'), wholeAt: 3 }] });
    rig.log.writeSuper({ indexId: index.id, indexGeneration: 0 }, clock);
    assert.match(refused(openLog(rig.log.path), index), /^EIO: .*is damaged, before the durable point/);
    index.commit({ links: [link(1, places[6]!, 'inconsistent')] });
    assert.equal(reopen(rig, index).recovered.place.seq, places[5]!.seq);
  });

  it('! a dropped link whose cursor is not in this history has no known dirty regions', () => {
    const { rig, places } = lived(6);
    const index = new MemIndex();
    const wrong = { ...places[3]!, chainLo: places[3]!.chainLo ^ 1 };
    index.commit({
      links: [
        { ...link(1, wrong, 'inconsistent'), wholeAt: 3 },
        { ...link(2, places[3]!, 'inconsistent'), wholeAt: 3 },
      ],
    });
    const { links } = reopen(rig, index).recovered;
    assert.deepEqual(
      links.map(({ wholeAt }) => wholeAt),
      [undefined, 3],
    );
  });

  it('! with a lost index nothing that it says of dirty regions counts', () => {
    const { rig, places } = lived(3);
    const index = new MemIndex();
    index.commit({ links: [{ ...link(1, places[1]!, 'inconsistent'), wholeAt: 3 }] });
    rig.log.writeSuper({ indexGeneration: 9 }, clock);
    const { links, indexLost } = reopen(rig, index).recovered;
    assert.deepEqual([indexLost, links[0]!.sync, 'wholeAt' in links[0]!], [true, 'inconsistent', false]);
  });

  it('of a new log begins a reign at its first place', () => {
    const log = newLog();
    const recovered = recover(log, new MemIndex());
    assert.deepEqual(recovered.place, log.super.checkpoint);
    assert.equal(recovered.newReign, true);
    // It has one superblock only, as one has whose other is damaged: it is read to its end, which costs nothing here.
    assert.equal(recovered.clean, false);
    assert.equal(recovered.records, 0);
    const { reign, id } = openForAppend(log, recovered, clock, random);
    assert.equal(reign, 1);
    assert.equal(Buffer.from(id!).toString('hex'), openLog(log.path).super.reignId);
  });

  it('! where the superblock of the first opening is damaged, goes to the end and not to where the log was made', () => {
    const { rig, places } = lived(5);
    assert.equal(rig.log.super.serial, 2);
    flip(rig.log.path, 4096 + 300);
    const { recovered } = reopen(rig);
    assert.deepEqual(recovered.place, places.at(-1));
    assert.equal(recovered.clean, false);
  });

  it('after a kill finds everything that was written', () => {
    const { rig, places } = lived(5);
    const { recovered } = reopen(rig);
    assert.deepEqual(recovered.place, places.at(-1));
    assert.equal(recovered.clean, false);
    assert.equal(recovered.newReign, true);
    assert.equal(recovered.reign, 1);
    assert.equal(recovered.records, 6);
    assert.equal(recovered.tornBytes, 0);
    assert.deepEqual(recovered.notes, []);
  });

  it('begins at the checkpoint, not before', () => {
    const { rig, places } = lived(5);
    rig.log.writeSuper({ checkpoint: places[3]!, durable: places[3]! }, clock);
    // Damage before it is not even seen.
    flip(rig.log.path, rig.log.fileOffset(places[1]!.pos) + 4096);
    const { recovered } = reopen(rig);
    assert.equal(recovered.records, 2);
    assert.deepEqual(recovered.place, places.at(-1));
  });

  it('takes the checkpoint of the index where that is newer', () => {
    const { rig, places } = lived(4);
    const index = new MemIndex();
    index.commit({ checkpoint: places[2]! });
    const { recovered } = reopen(rig, index);
    assert.deepEqual(recovered.checkpoint, places[2]);
    assert.deepEqual(recovered.place, places.at(-1));
  });

  it('of a log that was closed cleanly goes on in its reign', () => {
    const { rig, places } = lived(3);
    rig.log.writeSuper({ clean: true, durable: places.at(-1)! }, clock);
    const { log, recovered } = reopen(rig);
    assert.equal(recovered.newReign, false);
    assert.deepEqual(recovered.place, places.at(-1));
    assert.deepEqual(openForAppend(log, recovered, clock, random), { reign: 1 });
    assert.equal(log.super.clean, false);
  });

  it('! writes again what was not known durable, and syncs it, before anything uses it', () => {
    const { rig, places } = lived(3);
    // Two more batches, whose sync failed: they still read well, the disk may never get them.
    for (const fill of [50, 51]) {
      rig.write(5000, fill);
      rig.committer.step();
      rig.clock.ms += 3;
      rig.committer.step();
    }
    const known = places.at(-1)!.pos;
    const io = new FaultIo(realIo);
    const written: number[] = [];
    const pwrite = io.pwrite;
    io.pwrite = (call, fd, mem, off, len, pos) => {
      if (call === 'REPLOG:RECOVERY-WRITE') written.push(pos, len);
      return pwrite(call, fd, mem, off, len, pos);
    };
    const log = openLog(rig.log.path, io);
    const recovered = recover(log, new MemIndex());
    assert.equal(recovered.place.seq, places.at(-1)!.seq + 2);
    assert.equal(recovered.durablePos, known);
    const before = readFileSync(rig.log.path);
    settleTail(log, recovered);
    assert.deepEqual(written, [log.fileOffset(known), 2 * 12_288]);
    assert.ok(before.equals(readFileSync(rig.log.path)));
    openForAppend(log, recovered, clock, random);
    assert.deepEqual(
      io.calls.filter((call) => /WRITE|SYNC|SUPER$/.test(call)),
      ['REPLOG:RECOVERY-WRITE', 'REPLOG:RECOVERY-SYNC', 'REPLOG:SUPER', 'REPLOG:SUPER-SYNC'],
    );
    assert.equal(log.super.durable.pos, recovered.place.pos);
  });

  for (const call of ['REPLOG:RECOVERY-READ', 'REPLOG:RECOVERY-WRITE', 'REPLOG:RECOVERY-SYNC'])
    it(`does not open a log where ${call} fails`, () => {
      const { rig } = lived(3);
      const io = new FaultIo(realIo).arm({ call, nth: 1, errno: 5 });
      const log = openLog(rig.log.path, io);
      const recovered = recover(log, new MemIndex());
      assert.throws(() => openForAppend(log, recovered, clock, random), RepError);
      assert.equal(io.count('REPLOG:SUPER'), 0);
      assert.equal(openForAppend(log, recovered, clock, random).reign, 2);
    });

  it('never uses the number of a reign twice, though its first record was lost', () => {
    const { rig } = lived(1);
    const first = reopen(rig);
    assert.equal(openForAppend(first.log, first.recovered, clock, random).reign, 2);
    const second = reopen(rig);
    assert.equal(openForAppend(second.log, second.recovered, clock, random).reign, 3);
  });

  it('calls a site inconsistent whose cursor stands in another history', () => {
    const { rig, places } = lived(4);
    const index = new MemIndex();
    index.commit({ links: [link(1, places[2]!), link(2, { ...places[3]!, chainLo: 1 })] });
    const { recovered } = reopen(rig, index);
    assert.deepEqual(
      recovered.links.map((l) => l.sync),
      ['in-order', 'inconsistent'],
    );
    assert.match(recovered.notes.join(), /site 2 holds another history/);
  });

  it('reads no more than from the checkpoint to the end and one scan', () => {
    const { rig } = lived(5);
    flip(rig.log.path, rig.log.fileOffset(rig.committer.durablePos));
    const log = openLog(rig.log.path);
    const recovered = recover(log, new MemIndex(), { scanBytes: 262_144 });
    assert.ok(recovered.readBytes <= rig.committer.durablePos + 262_144);
  });
});

describe('! recover, at a torn tail', () => {
  afterEach(cleanUp);

  for (const [name, harm] of [
    ['a batch header lost', (rig: Rig, at: number) => poke(rig.log.path, at, Buffer.alloc(512))],
    ['a sector of a payload lost', (rig: Rig, at: number) => poke(rig.log.path, at + 4096 + 1024, Buffer.alloc(512))],
    ['all of it lost', (rig: Rig, at: number) => poke(rig.log.path, at, Buffer.alloc(12_288))],
  ] as const)
    it(`! cuts what was not durable: ${name}`, () => {
      const { rig, places } = lived(3);
      // Two batches written, no sync came back.
      rig.write(5000, 50);
      rig.committer.step();
      rig.clock.ms += 3;
      rig.committer.step();
      assert.equal(rig.durable, places.at(-1)!.seq);
      harm(rig, rig.log.fileOffset(places.at(-1)!.pos));
      const { recovered } = reopen(rig);
      assert.deepEqual(recovered.place, places.at(-1));
      assert.equal(recovered.newReign, true);
    });

  it('! stops where the chain breaks: a stale batch with a valid checksum and the expected seq is not taken', () => {
    const { rig, places } = lived(2);
    const end = places.at(-1)!;
    // Two unsynced batches of one record, 12,288 bytes each.
    const loose = (fill: number): void => {
      rig.write(5000, fill);
      rig.committer.step();
      rig.clock.ms += 3;
      rig.committer.step();
    };
    loose(61);
    loose(62);
    assert.equal(rig.durable, end.seq);
    // The machine dies; the first of them is torn, the second one whole.
    flip(rig.log.path, rig.log.fileOffset(end.pos) + 4096);
    const first = reopen(rig);
    assert.deepEqual(first.recovered.place, end);
    assert.equal(first.recovered.tornBytes, 2 * 12_288);
    assert.match(first.recovered.notes.join(), /cut a torn tail of 24576 bytes behind record 3/);

    // The next reign writes one batch of exactly the same size in the place of the torn one, and dies again.
    const { reign } = openForAppend(first.log, first.recovered, clock, random);
    const next = new Rig({ log: first.log, place: first.recovered.place });
    next.appender.reign = reign;
    next.write(5000, 71);
    next.settle();
    assert.equal(next.committer.durablePos, end.pos + 12_288);
    const second = reopen(next);
    // Record 5 of the first life stands right behind, whole, with the right position and seq.
    assert.equal(second.recovered.place.seq, end.seq + 1);
    assert.equal(second.recovered.place.pos, end.pos + 12_288);
    assert.match(second.recovered.notes.join(), /\(chain\)/);
  });
});

describe('! recover, at damage before the durable point', () => {
  afterEach(cleanUp);

  it('! refuses, names record and byte and the sites that hold it, and changes nothing', () => {
    const { rig, places } = lived(6);
    const index = new MemIndex();
    index.commit({ links: [link(1, places[5]!), link(2, places[1]!), link(3, places[6]!, 'inconsistent')] });
    const at = rig.log.fileOffset(places[2]!.pos);
    flip(rig.log.path, at + 4096 + 600);
    const before = readFileSync(rig.log.path);
    const message = refused(openLog(rig.log.path), index);
    assert.match(message, /^EIO: replog .*: record 4 at byte \d+ is damaged, before the durable point \(seq 7\)/);
    assert.ok(message.includes(`byte ${at + 4096} `));
    assert.match(message, /sites that still hold the data: 1\./);
    assert.ok(before.equals(readFileSync(rig.log.path)));
  });

  for (const [name, fact] of [
    ['the superblock', (rig: Rig, p: LogPlace) => void rig.log.writeSuper({ durable: p }, clock)],
    ['a link cursor', (_rig: Rig, p: LogPlace, index: MemIndex) => void index.commit({ links: [link(1, p)] })],
  ] as const)
    it(`! knows the durable point from ${name}`, () => {
      const { rig, places } = lived(4);
      const index = new MemIndex();
      fact(rig, places.at(-1)!, index);
      flip(rig.log.path, rig.log.fileOffset(places[3]!.pos) + 4096);
      assert.match(refused(openLog(rig.log.path), index), /^EIO: .*record 5 .*before the durable point/);
    });

  it('! knows the durable point from what a later batch says', () => {
    const { rig, places } = lived(4);
    // Only the last header tells that record 3 was durable: superblock and index are old.
    flip(rig.log.path, rig.log.fileOffset(places[1]!.pos) + 4096);
    assert.match(refused(openLog(rig.log.path)), /^EIO: .*record 3 /);
  });

  it('! refuses a log that was closed cleanly and does not reach its tail', () => {
    const { rig, places } = lived(3);
    rig.log.writeSuper({ clean: true, durable: places.at(-1)! }, clock);
    poke(rig.log.path, rig.log.fileOffset(places[2]!.pos), Buffer.alloc(4096));
    assert.match(refused(openLog(rig.log.path)), /^EIO: .*record 4 .*before the durable point \(seq 5\)/);
  });

  it('! refuses where the sector cannot be read', () => {
    const { rig, places } = lived(3);
    rig.log.writeSuper({ durable: places.at(-1)! }, clock);
    const io = new FaultIo(realIo).arm({ call: 'REPLOG:READ', nth: 0, errno: 5 });
    assert.match(refused(openLog(rig.log.path, io)), /^EIO: .*record 1 /);
  });
});

describe('! recover, with an index that is lost or older than the superblock says', () => {
  afterEach(cleanUp);

  const facts = (rig: Rig, place: LogPlace): MemIndex => {
    const index = new MemIndex();
    index.commit({ checkpoint: rig.log.super.checkpoint, links: [link(1, place), link(2, place)] });
    rig.log.writeSuper({ indexGeneration: index.generation }, clock);
    return index;
  };

  it('! makes every site inconsistent where it is older', () => {
    const { rig, places } = lived(3);
    const index = facts(rig, places[2]!);
    rig.log.writeSuper({ indexGeneration: index.generation + 1 }, clock);
    const { recovered } = reopen(rig, index);
    assert.equal(recovered.indexLost, true);
    assert.deepEqual(
      recovered.links.map((l) => l.sync),
      ['inconsistent', 'inconsistent'],
    );
    assert.match(recovered.notes.join(), /older \(commit 1\) than the replog \(2\): every site needs a resync/);
  });

  it('! makes every site inconsistent where it is another one', () => {
    const { rig, places } = lived(3);
    const index = facts(rig, places[2]!);
    index.id = 'f'.repeat(32);
    index.generation = 1000;
    const { recovered } = reopen(rig, index);
    assert.equal(recovered.indexLost, true);
    assert.ok(recovered.links.every((l) => l.sync === 'inconsistent'));
    assert.deepEqual(recovered.checkpoint, rig.log.super.checkpoint);
  });

  it('trusts one that is newer: it is committed first', () => {
    const { rig, places } = lived(3);
    const index = facts(rig, places[2]!);
    index.commit({ links: [link(1, places[3]!)] });
    const { recovered } = reopen(rig, index);
    assert.equal(recovered.indexLost, false);
    assert.ok(recovered.links.every((l) => l.sync === 'in-order'));
  });
});
