import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RepError } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { checkLocalMarks, writeLocalMarks } from '../../../src/slink/local-marks.js';

const LOG = 'a'.repeat(32);

describe('local marks', () => {
  let dir = '';
  let images: { nr: number; name: string; local: string }[] = [];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'reptool-marks-'));
    images = [0, 1].map((nr) => ({ nr, name: `disk${nr}`, local: join(dir, `disk${nr}`) }));
    for (const image of images) writeFileSync(image.local, 'x'.repeat(4096));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function refused(seq: number | undefined, reason: RegExp, log = LOG): void {
    assert.throws(
      () => checkLocalMarks(realIo, images, log, seq),
      (error) => error instanceof RepError && error.errno === 'EINVAL' && reason.test(error.message),
    );
  }

  it('! a local image that was exchanged, or is of another time, device or group, is refused by name', () => {
    writeLocalMarks(realIo, images, LOG, 7);
    checkLocalMarks(realIo, images, LOG, 7);
    refused(
      8,
      /disk0: the local image of disk0 is of another time: it was left at record 6, the log at 7; put the right/,
    );
    refused(7, /belongs to another group/, 'b'.repeat(32));
    writeLocalMarks(realIo, [{ ...images[0]!, nr: 5 }], LOG, 7);
    refused(7, /is that of device 5/);
    const [a, b] = images;
    writeLocalMarks(realIo, images, LOG, 7);
    rmSync(a!.local);
    copyFileSync(b!.local, a!.local);
    refused(7, /was exchanged for another file/);
    refused(undefined, /was exchanged for another file/);
  });

  it('of a group that was not closed cleanly only the identity counts, of a clean one also the seq', () => {
    writeLocalMarks(realIo, images, LOG, null);
    checkLocalMarks(realIo, images, LOG, undefined);
    refused(7, /a copy of a group in use/);
    writeLocalMarks(realIo, images, LOG, 7);
    checkLocalMarks(realIo, images, LOG, undefined);
  });
});
