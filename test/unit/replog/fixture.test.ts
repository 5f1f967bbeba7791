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
import { REC } from '../../../src/replog/format.js';
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
    const packed = gzipSync(readFileSync(path), { level: 9 }).toString('base64');
    writeFileSync(FIXTURE, `${packed.match(/.{1,100}/g)!.join('\n')}\n`);
    writeFileSync(DUMP, text(path));
    cleanUp();
  });

  function unpack(): string {
    const path = join(scratch(), 'replog');
    writeFileSync(path, gunzipSync(Buffer.from(readFileSync(FIXTURE, 'ascii'), 'base64')));
    return path;
  }

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

function top(from: string): string {
  return existsSync(join(from, 'package-lock.json')) ? from : top(dirname(from));
}
