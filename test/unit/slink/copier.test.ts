import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { COPY, Copier, PIECE } from '../../../src/slink/copier.js';
import { LocalSource } from '../../../src/slink/local-source.js';
import { CopySite } from '../../support/copy-site.js';
import { Rig, cleanUp, scratch } from '../replog/rig.js';
import { START } from './support.js';

describe('Copier', () => {
  let site: CopySite;
  let local: LocalSource;
  let copier: Copier;
  let ours: Buffer;
  let path: string;

  /** Images of `size` bytes with the same random content, here and there. */
  function start(size: number, options: { blind?: boolean } = {}): void {
    const rig = new Rig();
    ours = Buffer.alloc(size);
    for (let i = 0; i < size; i += 512) ours.fill(`${i};`, i, i + 512);
    path = join(scratch(), 'disk0.img');
    site = new CopySite(scratch());
    site.blind = options.blind ?? false;
    const devices = [{ nr: 0, name: 'disk0', size }];
    const resync = { at: START, devices, nextDevice: 1, anew: true, force: false };
    site.open({ devices, identity: { logId: '', group: '', nr: 1 }, create: START, resync });
    site.put(0, 0, ours);
    local = new LocalSource(realIo, rig.window, rig.shared);
    local.use([{ nr: 0, path, size }]);
    copier = new Copier(local, site);
  }
  afterEach(() => {
    copier.close();
    local.close();
    site.end();
    cleanUp();
  });

  function run(piece = PIECE): void {
    writeFileSync(path, ours);
    for (let at = 0; at < ours.length; at = copier.reached) {
      assert.ok(local.begin(1));
      assert.equal(copier.some(0, at, ours.length, piece), COPY.DONE);
      assert.ok(copier.reached > at);
    }
    assert.ok(site.content(0).equals(ours));
  }

  it('writes nothing where nothing differs', () => {
    start(9 * MIB + 512);
    run();
    assert.deepEqual([copier.written, copier.zeroed, copier.read], [0, 0, 9 * MIB + 512]);
  });

  it('writes the blocks that differ, joined where little lies between, and the ragged end', () => {
    start(MIB + 512);
    for (const at of [4096, 8192 + 512, 20 * KIB, 200 * KIB, MIB]) ours[at]! ^= 1;
    run();
    // [4096, 24 KiB), one block, the end.
    assert.deepEqual([site.count.writes, copier.written], [3, 20 * KIB + 4096 + 512]);
  });

  it('runs go on from one coarse block to the next, but not beyond the piece', () => {
    start(MIB);
    for (let at = 60 * KIB; at < 260 * KIB; at += 4096) ours[at]! ^= 1;
    run(128 * KIB);
    assert.deepEqual([site.count.writes, copier.written], [3, 200 * KIB]);
  });

  it('zeroes long stretches of zeroes, writes short ones along', () => {
    start(2 * MIB);
    ours.fill(0, 64 * KIB, 320 * KIB);
    ours.fill(0, MIB, MIB + 8 * KIB);
    run();
    assert.deepEqual([copier.zeroed, copier.written - copier.zeroed], [256 * KIB, 8 * KIB]);
  });

  it('where all differs it soon only writes, and looks again now and then', () => {
    start(48 * MIB);
    for (let at = 0; at < 48 * MIB; at += 4096) ours[at]! ^= 1;
    run();
    assert.equal(copier.written, 48 * MIB);
    assert.ok(
      copier.readThere >= 20 * MIB && copier.readThere <= 24 * MIB,
      `${copier.readThere / MIB} MiB were compared`,
    );
    run();
    assert.ok(copier.written < 96 * MIB, 'and finds that nothing differs any more');
  });

  it('! what does not count is not written', () => {
    start(MIB);
    ours[0]! ^= 1;
    writeFileSync(path, ours);
    assert.ok(local.begin(1));
    local.end = () => false;
    assert.equal(copier.some(0, 0, MIB, PIECE), COPY.UNCOUNTED);
    realIo.ftruncate('T:T', realIo.open('T:T', path, 2), 0);
    realIo.ftruncate('T:T', realIo.open('T:T', path, 2), MIB);
    assert.equal(copier.some(0, 0, MIB, PIECE), COPY.UNCOUNTED, 'nor is a hole');
    assert.deepEqual([copier.written, copier.readThere], [0, 0]);
  });

  for (const call of ['read', 'write', 'zero', 'nextData'] as const)
    it(`says that the site failed where ${call} does`, () => {
      start(MIB);
      ours.fill(call === 'write' ? 9 : 0);
      writeFileSync(path, call === 'nextData' ? '' : ours);
      if (call === 'nextData') realIo.ftruncate('T:T', realIo.open('T:T', path, 2), MIB);
      site.rule = (name) => (name === call ? ERRNO.EIO : undefined);
      assert.ok(local.begin(1));
      assert.equal(copier.some(0, 0, MIB, PIECE), COPY.SITE);
      assert.equal(copier.errno, -ERRNO.EIO);
    });
});
