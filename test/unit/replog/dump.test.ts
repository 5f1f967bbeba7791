import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RepError } from '../../../src/base/errors.js';
import { checkLog } from '../../../src/replog/check.js';
import { dumpLog, timeText, type DumpOptions } from '../../../src/replog/dump.js';
import { W } from '../../../src/replog/window.js';
import { Rig, TestClock, cleanUp, flip, newLog, scratch } from './rig.js';

const clock = new TestClock();

function dump(path: string, options?: DumpOptions): string[] {
  const lines: string[] = [];
  dumpLog(path, (line) => lines.push(line), options);
  return lines;
}

function lived(): Rig {
  const rig = new Rig();
  rig.log.writeSuper({ clean: false, reign: 1 }, clock);
  rig.appender.beginReign(1, new Uint8Array(16).fill(9));
  rig.tag('week 3');
  for (let i = 0; i < 4; i++) {
    rig.write(200_000, i, i * 4096);
    rig.settle();
    rig.window.storeSeq(W.HEAD, rig.durable);
  }
  return rig;
}

describe('dumpLog', () => {
  afterEach(cleanUp);

  it('prints a line each for superblocks, batches, padding, records and the end', () => {
    const lines = dump(lived().log.path);
    const kinds = lines.map((line) => line.split(' ')[0]);
    assert.equal(kinds.filter((kind) => kind === 'superblock').length, 2);
    assert.equal(kinds.filter((kind) => kind === 'record').length, 6);
    assert.equal(kinds.filter((kind) => kind === 'padding').length, 1);
    assert.equal(kinds.at(-1), 'end');
    assert.match(
      lines.find((line) => line.includes('type=tag'))!,
      /name="week 3"/,
    );
    assert.match(
      lines.find((line) => line.includes('type=reign'))!,
      /id=0909090909090909/,
    );
    assert.match(lines.at(-1)!, /seq=7 .*why=magic damaged=false/);
  });

  it('prints JSON, one object per line', () => {
    const rows = dump(lived().log.path, { json: true }).map((line) => JSON.parse(line) as Record<string, unknown>);
    const writes = rows.filter((row) => row['type'] === 'write');
    assert.deepEqual(
      writes.map(({ kind, seq, offset, length }) => [kind, seq, offset, length]),
      [
        ['record', 3, 0, 200_000],
        ['record', 4, 4096, 200_000],
        ['record', 5, 8192, 200_000],
        ['record', 6, 12_288, 200_000],
      ],
    );
  });

  it('prints a part', () => {
    const records = dump(lived().log.path, { from: 2, limit: 3 }).filter((line) => line.startsWith('record '));
    assert.deepEqual(
      records.map((line) => /seq=(\d+)/.exec(line)![1]),
      ['2', '3', '4'],
    );
  });

  it('begins at the head, after laps too', () => {
    const rig = new Rig();
    for (let i = 0; rig.committer.durablePos < 1.6 * rig.log.ring; i++) {
      rig.write(150_000, i);
      rig.settle();
      rig.release();
    }
    rig.write(100, 1);
    const place = rig.window.placeBefore(rig.durable);
    rig.settle();
    rig.log.writeSuper({ clean: false, checkpoint: place, head: place, durable: place }, clock);
    const records = dump(rig.log.path).filter((line) => line.startsWith('record '));
    assert.equal(records.length, 1);
    assert.match(records[0]!, new RegExp(`seq=${place.seq} type=write`));
  });

  it('says what is no log', () => {
    const path = join(scratch(), 'file');
    const sentence = (work: () => void): string => {
      try {
        work();
      } catch (error) {
        if (error instanceof RepError) return error.message;
      }
      return '';
    };
    for (const work of [() => void dump(path), () => void checkLog(path)]) {
      writeFileSync(path, 'hello');
      assert.match(sentence(work), /no replog here/);
      writeFileSync(path, Buffer.alloc(9000, 'z'));
      assert.match(sentence(work), /not a replog/);
    }
    const log = newLog();
    truncateSync(log.path, 2_000_000);
    assert.match(
      sentence(() => void dump(log.path)),
      /truncated: 2000000 bytes/,
    );
  });

  it('timeText prints microseconds', () => {
    assert.equal(timeText(1_700_000_000_000_042), '2023-11-14T22:13:20.000042Z');
    assert.equal(timeText(0), 'never');
  });
});

describe('checkLog', () => {
  afterEach(cleanUp);

  it('finds a sound log sound and says what it holds', () => {
    const rig = lived();
    const report = checkLog(rig.log.path);
    assert.deepEqual(report.problems, []);
    assert.equal(report.torn, undefined);
    assert.equal(report.records, 6);
    assert.deepEqual([report.from.seq, report.to.seq], [1, 7]);
    assert.ok(report.padding > 0);
  });

  it('calls an unfinished batch torn, not damaged', () => {
    const rig = lived();
    flip(rig.log.path, rig.log.fileOffset(rig.window.placeBefore(6).pos) + 4096);
    const report = checkLog(rig.log.path);
    assert.deepEqual(report.problems, []);
    assert.match(report.torn!, /^sum at byte \d+, record 6$/);
  });

  it('names record and byte of damage before the durable point', () => {
    const rig = lived();
    const { pos, seq } = rig.window.placeBefore(7);
    rig.log.writeSuper({ durable: { pos, seq } }, clock);
    const at = rig.log.fileOffset(rig.window.placeBefore(4).pos) + 4096;
    flip(rig.log.path, at);
    const report = checkLog(rig.log.path);
    assert.equal(report.problems.length, 1);
    assert.match(
      report.problems[0]!,
      new RegExp(`record 4 at byte ${at} is damaged \\(sum\\), before the durable point`),
    );
  });

  it('notices a damaged superblock and a checkpoint that is not of this history', () => {
    const rig = lived();
    const place = rig.window.placeBefore(5);
    rig.log.writeSuper({ checkpoint: { ...place, chainHi: 1 } }, clock);
    rig.log.writeSuper({}, clock);
    flip(rig.log.path, 200);
    const { problems } = checkLog(rig.log.path);
    assert.match(problems.join('\n'), /one of the two superblocks is damaged/);
    assert.match(problems.join('\n'), /chain at the checkpoint \(record 5\)/);
  });
});
