/**
 * The log format of version 1, kept as a file. Today's code reads what was written then, and makes the same
 * bytes from the same inputs; whoever changes that changes the format, and needs a new version number.
 *
 * REPTOOL_REGENERATE=1 writes the fixture anew; the diff is to be reviewed.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { checkLog } from '../../../src/replog/check.js';
import { dumpLog } from '../../../src/replog/dump.js';
import { realIo } from '../../../src/base/io.js';
import { REC, type LogPlace } from '../../../src/replog/format.js';
import { byteOf } from '../../../src/replog/logfile.js';
import { LogWork, type LogJob } from '../../../src/replog/logwork.js';
import { planMapping } from '../../../src/replog/resize.js';
import { recover } from '../../../src/replog/recovery.js';
import { W } from '../../../src/replog/window.js';
import { MemIndex, Rig, cleanUp, openLog, scratch } from './rig.js';

const FIXTURE = join(top(import.meta.dirname), 'test/fixtures/replog/v1.log.gz.b64');
const DUMP = join(top(import.meta.dirname), 'test/fixtures/replog/v1.dump.txt');

/** Reign, devices, writes on both sides of a segment's end, discard, zeroes, tag, unit, a tail that was not synced. */
function generate(): Rig {
  const rig = new Rig();
  const { log, clock, appender, window } = rig;
  assert.equal(log.writeSuper({ clean: false, reign: 1, reignId: '11'.repeat(16) }, clock), 0);
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  appender.beginReign(1, new Uint8Array(16).fill(0x11));
  appender.appendControl(REC.DEVICE_ADD, 0, json({ name: 'disk0', size: 1 << 30 }));
  appender.appendControl(REC.DEVICE_ADD, 1, json({ name: 'disk1', size: 1 << 20 }));
  rig.settle();
  rig.write(4096, 0xa1, 0, 0);
  rig.write(512, 0xa2, 4096, 1);
  appender.seal(REC.DISCARD, 0, 8192, 1 << 24, 0, 0);
  appender.seal(REC.ZEROES, 1, 0, 65_536, 0, 0);
  appender.seal(REC.FLUSH, 0, 0, 0, 0, 0);
  rig.settle();
  for (let i = 0; i < 3; i++) {
    rig.write(200_000, 0xb0 + i, i << 20, 0);
    rig.settle();
    window.storeSeq(W.HEAD, rig.durable);
  }
  rig.tag('before the upgrade');
  appender.appendControl(REC.UNIT_BEGIN, 0, new Uint8Array(0));
  rig.write(4096, 0xc1, 12_288, 0);
  appender.appendControl(REC.UNIT_END, 0, new Uint8Array(0));
  appender.appendControl(REC.DEVICE_RESIZE, 1, json({ size: 1 << 21 }));
  appender.appendControl(REC.SNAPSHOT, 0, Buffer.from('snap'));
  rig.settle();
  const { pos, seq } = window.placeBefore(rig.durable);
  assert.equal(log.writeSuper({ durable: { pos, seq }, indexGeneration: 1 }, clock), 0);
  appender.appendControl(REC.DEVICE_REMOVE, 1, new Uint8Array(0));
  rig.write(4096, 0xd1, 0, 0);
  rig.committer.step();
  clock.ms += 3;
  rig.committer.step();
  return rig;
}

function text(path: string): string {
  const lines: string[] = [];
  dumpLog(path, (line) => lines.push(line));
  return `${lines.join('\n')}\n`;
}

describe('replog format version 1', () => {
  afterEach(cleanUp);

  before(() => {
    if (process.env['REPTOOL_REGENERATE'] !== '1' && existsSync(FIXTURE)) return;
    const { path } = generate().log;
    writeFileSync(FIXTURE, packed(path));
    writeFileSync(DUMP, text(path));
    cleanUp();
  });

  const unpack = (): string => unpacked(FIXTURE);

  it('is small', () => {
    assert.ok(readFileSync(FIXTURE).length < 64 * 1024);
  });

  it('reads a log of then: every record, and the place where it ends', () => {
    assert.equal(text(unpack()), readFileSync(DUMP, 'utf8'));
  });

  it('recovers a log of then', () => {
    const recovered = recover(openLog(unpack()), new MemIndex());
    assert.equal(recovered.newReign, true);
    assert.equal(recovered.reign, 1);
    assert.equal(recovered.reignId, '11'.repeat(16));
  });

  it('checks a log of then', () => {
    assert.deepEqual(checkLog(unpack()).problems, []);
  });

  it('the manual shows its bytes', () => {
    const bytes = readFileSync(unpack());
    const page = readFileSync(join(top(import.meta.dirname), 'man/reptool-replog.5'), 'utf8');
    const lines = page.match(/^[0-9a-f]{8} {2}.*$/gm) ?? [];
    assert.ok(lines.length > 20);
    for (const line of lines) {
      const at = parseInt(line.slice(0, 8), 16);
      assert.equal(line.slice(8).replace(/ /g, ''), bytes.toString('hex', at, at + 16), line);
    }
  });

  it('makes the same bytes from the same inputs', () => {
    const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
    assert.equal(digest(generate().log.path), digest(unpack()));
  });
});

/**
 * The same of version 2: a log that was grown while it wrapped, so that its positions stand at another place than those of
 * a log that was made with its size.
 */
const RESIZED = join(top(import.meta.dirname), 'test/fixtures/replog/v2.log.gz.b64');
const RESIZED_DUMP = join(top(import.meta.dirname), 'test/fixtures/replog/v2.dump.txt');

describe('replog format version 2', () => {
  afterEach(cleanUp);

  before(() => {
    if (process.env['REPTOOL_REGENERATE'] !== '1' && existsSync(RESIZED)) return;
    const { path } = generateResized().log;
    writeFileSync(RESIZED, packed(path));
    writeFileSync(RESIZED_DUMP, text(path));
    cleanUp();
  });

  it('reads, recovers and checks a log of then', () => {
    const path = unpacked(RESIZED);
    assert.equal(text(path), readFileSync(RESIZED_DUMP, 'utf8'));
    const log = openLog(path);
    assert.deepEqual([log.mapping.base, log.size, log.superAlone], [0, 8 << 20, false]);
    assert.equal(recover(log, new MemIndex()).place.seq, log.super.durable.seq);
    assert.deepEqual(checkLog(path).problems, []);
  });

  it('makes the same bytes from the same inputs', () => {
    assert.deepEqual(readFileSync(generateResized().log.path), readFileSync(unpacked(RESIZED)));
  });
});

/** Twenty writes of 240 kB around the end of the ring, the last eight of them kept; then 8 MiB instead of 4. */
function generateResized(): Rig {
  const rig = new Rig();
  const places: LogPlace[] = [];
  const { log, clock, window } = rig;
  for (let i = 0; i < 20; i++) {
    rig.write(240_000, i, i << 18, 0);
    rig.settle();
    window.storeSeq(W.APPLIED, rig.durable);
    window.storeSeq(W.HEAD, Math.max(1, rig.durable - 2));
    if (rig.durable > 9) rig.shared.logHead = places[rig.durable - 8]!.pos;
    places[rig.durable] = window.placeBefore(rig.durable);
  }
  const head = places[rig.durable - 8]!;
  const durable = places[rig.durable]!;
  assert.equal(
    log.writeSuper({ clean: false, reign: 1, reignId: '11'.repeat(16), checkpoint: head, head, durable }, clock),
    0,
  );
  const plan = planMapping({ ...log.mapping, oldest: 0 }, 15 << 19, 1 << 19, head.pos, durable.pos)!;
  const copy = plan.copy!;
  const jobs: LogJob[] = [
    { do: 'grow', path: log.path, from: log.size, to: 8 << 20, start: 65_536 + log.ring, end: 65_536 + plan.ring },
    {
      do: 'copy',
      path: log.path,
      from: byteOf(log.mapping, copy.from),
      to: byteOf(plan, copy.from),
      bytes: copy.to - copy.from,
    },
  ];
  for (const job of jobs) for (const work = new LogWork(realIo, job); !work.done; work.step());
  assert.equal(log.remap(8 << 20, plan, clock), 0);
  return rig;
}

function packed(path: string): string {
  const lines = gzipSync(readFileSync(path), { level: 9 })
    .toString('base64')
    .match(/.{1,100}/g)!;
  return `${lines.join('\n')}\n`;
}

function unpacked(fixture: string): string {
  const path = join(scratch(), 'replog');
  writeFileSync(path, gunzipSync(Buffer.from(readFileSync(fixture, 'ascii'), 'base64')));
  return path;
}

function top(from: string): string {
  return existsSync(join(from, 'package-lock.json')) ? from : top(dirname(from));
}
