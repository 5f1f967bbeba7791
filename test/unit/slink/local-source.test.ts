import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { Mem } from '../../../src/base/mem.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { SH } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import { Applier } from '../../../src/slink/applier.js';
import { ImageSet, createImage } from '../../../src/slink/images.js';
import { LocalSource } from '../../../src/slink/local-source.js';
import { Rig, cleanUp, scratch } from '../replog/rig.js';
import { FaultIo } from './support.js';

const SIZE = 2 * MIB;

describe('LocalSource', () => {
  let rig: Rig;
  let file: string;
  let faults: FaultIo;
  let images: ImageSet;
  let applier: Applier;
  let source: LocalSource;
  let mem: Mem;

  beforeEach(() => {
    rig = new Rig({ size: 16 * MIB });
    file = join(scratch(), 'disk0.img');
    createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE }, { sparse: true });
    images = new ImageSet(realIo, 'APPLY');
    images.open({ nr: 0, file, size: SIZE });
    const { window, shared, clock, log } = rig;
    applier = new Applier(
      {
        ...{ window, shared, clock, log, images, reopen: () => undefined },
        events: { synced: () => undefined, localError: () => undefined, localHealed: () => undefined },
      },
      { synced: log.super.checkpoint, gatherMs: 0 },
    );
    faults = new FaultIo();
    source = new LocalSource(faults.io, window, shared);
    source.use([{ nr: 0, path: file, size: SIZE }]);
    mem = Mem.large(SIZE);
  });
  afterEach(() => {
    source.close();
    applier.close();
    images.close();
    mem.unmap();
    cleanUp();
  });

  function apply(): void {
    rig.settle();
    for (let i = 0; i < 100 && applier.step() <= 0; i++);
    rig.window.storeSeq(W.HEAD, applier.applied);
  }

  it('! reads by O_DIRECT never return less than APPLIED says, whichever way the applier wrote', () => {
    const expect = Buffer.alloc(SIZE);
    for (let i = 1; i <= 200; i++) {
      // From 512 bytes to 128 KiB: through the page cache and past it, over dirty pages and over clean ones.
      const bytes = 512 << (i % 9);
      const offset = ((i * 7919) % (SIZE / 512 - bytes / 512)) * 512;
      rig.write(bytes, i % 251, offset);
      expect.fill(i % 251, offset, offset + bytes);
      apply();
      assert.ok(source.begin(1));
      assert.equal(source.t1, rig.durable);
      // Parts of it were read through the cache by somebody else.
      if (i % 3 === 0) readFileSync(file);
      const from = Math.floor(offset / 4096) * 4096;
      const length = Math.min(SIZE, Math.ceil((offset + bytes) / 4096) * 4096) - from;
      assert.equal(source.read(0, from, length, mem, 0), 0);
      assert.ok(source.end());
      assert.ok(mem.u8.subarray(0, length).equals(expect.subarray(from, from + length)), `after write ${i}`);
    }
    const direct = faults.names.filter((name) => name === 'RESYNC:DIRECT').length;
    assert.ok(direct >= 200, `${direct} direct reads`);
    assert.equal(source.read(0, 0, SIZE, mem, 0), 0);
    assert.ok(mem.u8.subarray(0, SIZE).equals(expect));
  });

  it('finds data that is only in the page cache, and says where a hole ends', () => {
    assert.ok(source.begin(1));
    assert.equal(source.nextData(0, 0, SIZE), SIZE);
    rig.write(4096, 1, MIB);
    apply();
    assert.equal(source.nextData(0, 0, SIZE), MIB);
    assert.equal(source.nextData(0, 0, 64 * KIB), 64 * KIB);
    assert.equal(source.nextData(0, MIB, SIZE), MIB);
  });

  it('reads through the cache where direct I/O is refused, and the ragged end of a device', () => {
    rig.write(8192, 7, 0);
    apply();
    faults.rule = (call) => (call === 'RESYNC:DIRECT' ? { errno: ERRNO.EINVAL } : undefined);
    assert.equal(source.read(0, 0, 8192, mem, 0), 0);
    assert.ok(mem.u8.subarray(0, 8192).equals(Buffer.alloc(8192, 7)));
    faults.rule = undefined;
    faults.names.length = 0;
    assert.equal(source.read(0, 0, 8192, mem, 0), 0);
    assert.deepEqual(faults.names, ['RESYNC:READ'], 'it is not asked again');
    source.close();
    assert.equal(source.read(0, 4096, 4096 + 512, mem, 0), 0);
    assert.deepEqual(faults.names.slice(-2), ['RESYNC:DIRECT', 'RESYNC:READ']);
    assert.ok(mem.u8.subarray(0, 4096 + 512).equals(Buffer.concat([Buffer.alloc(4096, 7), Buffer.alloc(512)])));
  });

  it('! no read counts while slink 0 is in doubt, away, or failing, nor one that a failed sync was beside', () => {
    const { window, shared } = rig;
    assert.ok(source.begin(1) && source.end());
    for (const word of [W.DOUBT, W.AWAY, W.SOURCE]) {
      assert.ok(source.begin(1));
      window.store(word, 1);
      assert.equal(source.end(), false);
      assert.equal(source.begin(1), false);
      assert.notEqual(source.reason, '');
      window.store(word, 0);
    }
    assert.ok(source.begin(1));
    shared.store(SH.LOCAL_ERROR, ERRNO.ENOSPC);
    assert.equal(source.end(), false);
    assert.match(source.reason, /no space left/);
    shared.store(SH.LOCAL_ERROR, 0);
    // Failed, written again and synced, all between the two looks.
    assert.ok(source.begin(1));
    shared.bump(SH.DOUBTS);
    assert.equal(source.end(), false);
  });

  it('lets go of the images while slink 0 fails, so that their file system can be unmounted', () => {
    assert.equal(source.read(0, 0, 4096, mem, 0), 0);
    rig.window.store(W.AWAY, 1);
    faults.names.length = 0;
    assert.equal(source.begin(1), false);
    assert.deepEqual(faults.names, ['RESYNC:CLOSE', 'RESYNC:CLOSE']);
  });

  it('says which image is not there, too small, or another one', () => {
    const other = new LocalSource(realIo, rig.window, rig.shared, ({ path }) => `${path}: belongs to another group`);
    other.use([{ nr: 0, path: file, size: SIZE }]);
    assert.equal(other.read(0, 0, 4096, mem, 0), -ERRNO.ENODEV);
    assert.match(other.reason, /belongs to another group/);
    assert.equal(other.nextData(5, 0, 4096), -ERRNO.ENODEV);
    assert.match(other.reason, /device 5 has no local image/);
    truncateSync(file, 4096);
    assert.equal(source.read(0, 0, 4096, mem, 0), -ERRNO.ENODEV);
    assert.match(source.reason, /has 4096 bytes, its device 2097152/);
    source.use([{ nr: 0, path: `${file}.gone`, size: SIZE }]);
    assert.equal(source.nextData(0, 0, SIZE), -ERRNO.ENODEV);
    assert.match(source.reason, /is not there/);
  });

  it('an image that cannot be read is an error that names it', () => {
    writeFileSync(file, Buffer.alloc(SIZE, 1));
    faults.rule = (call) => (call === 'RESYNC:DIRECT' ? { errno: ERRNO.EIO } : undefined);
    assert.equal(source.read(0, 0, 4096, mem, 0), -ERRNO.EIO);
    assert.match(source.reason, /disk0\.img: reading the local image failed: input/);
  });
});
