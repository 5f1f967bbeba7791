import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { realIo } from '../../../src/base/io.js';
import { KIB } from '../../../src/base/units.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { recoverFolder } from '../../../src/slink/recover.js';
import { AREA_START, STAGE_FILE } from '../../../src/slink/stage-format.js';
import { LOG_ID, TestClock, cleanUp } from '../replog/rig.js';
import { DISK, DISK1, History, how, imagesOf, put, siteFolder } from './support.js';

const DEVICES = [DISK, DISK1];

describe('recoverFolder', () => {
  let folder: string;
  let history: History;

  beforeEach(() => {
    folder = siteFolder();
    history = new History(DEVICES);
    const site = new FolderSite(realIo, new TestClock(), folder, { area: 256 * KIB });
    assert.ok(site.open(how(DEVICES)).ok);
    assert.equal(site.write(history.begin().fill(0, 8192).fill(0, 4096, 1).end()), 0);
    assert.equal(site.flush(), 0);
    assert.equal(site.write(history.begin().fill(4096, 8192).tag('backup done').end()), 0);
    site.close();
    // The images have lost what only the stage is sure to have.
    put(join(folder, 'disk0.img'), 4096, Buffer.alloc(8192, 0xdd));
  });
  afterEach(cleanUp);

  it('only looks, unless it is told to write', () => {
    const before = imagesOf(folder, DEVICES);
    const report = recoverFolder(realIo, folder, { write: false });
    assert.deepEqual(
      { ...report, images: report.images.map(({ name, state }) => `${name} ${state}`) },
      {
        group: 'default',
        logId: LOG_ID,
        nr: 1,
        seq: history.cursor.seq,
        reign: 1,
        timeUs: history.cursor.time,
        staged: { batches: 1, records: 2, bytes: 8704 },
        inconsistent: false,
        images: ['disk0 ok', 'disk1 ok'],
        kept: [],
        written: false,
      },
    );
    assert.deepEqual(imagesOf(folder, DEVICES), before);
  });

  it('! brings the images to the last record the site confirmed, and again changes nothing', () => {
    for (let i = 0; i < 2; i++) {
      assert.equal(recoverFolder(realIo, folder, { write: true }).written, true);
      assert.deepEqual(imagesOf(folder, DEVICES), history.now);
    }
    const site = new FolderSite(realIo, new TestClock(), folder);
    assert.deepEqual(site.open(how(DEVICES, false)), { ok: true, cursor: history.cursor });
    site.close();
  });

  it('! follows devices that came, grew and went in what is staged, and says what is kept', () => {
    const site = new FolderSite(realIo, new TestClock(), folder, { area: 256 * KIB });
    assert.ok(site.open(how(DEVICES, false)).ok);
    const added = { nr: 2, name: 'disk1', size: 8 * KIB };
    history
      .begin()
      .remove(1)
      .add(added)
      .fill(0, 4096, 2)
      .grow(2, 16 * KIB)
      .fill(12 * KIB, 512, 2);
    assert.equal(site.write(history.end()), 0, site.reason);
    site.close();
    for (const write of [false, true, true]) {
      const report = recoverFolder(realIo, folder, { write });
      assert.deepEqual(
        report.images.map(({ name, size, state }) => [name, size, state]),
        [
          ['disk0', DISK.size, 'ok'],
          ['disk1', 16 * KIB, 'ok'],
        ],
      );
      assert.deepEqual(report.kept, [{ name: 'disk1', file: join(folder, 'disk1.img.removed-1') }]);
    }
    assert.equal(history.seqOfFolder(folder), history.cursor.seq);
  });

  it('stops at a torn batch', () => {
    put(join(folder, STAGE_FILE), AREA_START + 4096, Buffer.alloc(512, 1));
    put(join(folder, 'disk0.img'), 100, Buffer.alloc(100, 0xdd));
    const report = recoverFolder(realIo, folder, { write: false });
    assert.deepEqual([report.seq, report.staged.batches], [3, 0]);
    assert.match(report.images[0]!.state, /is not what this site wrote last/);
  });

  it('! writes to no image where one of them is not the right one', () => {
    rmSync(join(folder, 'disk1.img'));
    writeFileSync(join(folder, 'disk1.img'), Buffer.alloc(DISK1.size));
    const before = imagesOf(folder, DEVICES);
    const report = recoverFolder(realIo, folder, { write: true });
    assert.equal(report.written, false);
    assert.match(report.images[1]!.state, /is not what this site wrote last/);
    assert.deepEqual(imagesOf(folder, DEVICES), before);
  });

  it('says what is missing', () => {
    rmSync(join(folder, 'disk1.img'));
    assert.match(recoverFolder(realIo, folder, { write: false }).images[1]!.state, /disk1\.img: .*does not exist/);
    put(join(folder, STAGE_FILE), 0, Buffer.alloc(4096));
    put(join(folder, STAGE_FILE), 1024 * KIB, Buffer.alloc(4096));
    assert.throws(() => recoverFolder(realIo, folder, { write: false }), /reptool\.stage: holds no valid stamp/);
    assert.throws(
      () => recoverFolder(realIo, `${folder}.x`, { write: false }),
      /opening the stage failed: it does not exist/,
    );
  });
});
