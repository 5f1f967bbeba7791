import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { IoVec, Mem } from '../../../src/base/mem.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { DIRECT_FROM, ImageSet, createImage, imageFailure } from '../../../src/slink/images.js';
import { cleanUp, scratch } from '../replog/rig.js';
import { FaultIo, type Rule } from './support.js';

const SIZE = 4 * MIB;

describe('ImageSet', () => {
  const mem = Mem.lazy(2 * MIB);
  const vec = new IoVec(64);
  let file: string;
  let faults: FaultIo;
  let images: ImageSet;

  beforeEach(() => {
    file = join(scratch(), 'disk0.img');
    faults = new FaultIo();
    createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE });
    images = new ImageSet(faults.io, 'APPLY');
  });
  afterEach(() => {
    images.close();
    cleanUp();
  });
  after(() => mem.unmap());

  function open(): void {
    images.open({ nr: 0, file, size: SIZE });
  }

  function write(offset: number, bytes: number, fill: number, memOff = 0): number {
    mem.u8.fill(fill, memOff, memOff + bytes);
    vec.clear();
    vec.add(mem, memOff, bytes);
    return images.write(0, offset, vec);
  }

  function failing(call: string, errno: number, times = Infinity): Rule {
    let left = times;
    return (name) => (name === call && left-- > 0 ? { errno } : undefined);
  }

  describe('createImage', () => {
    it('makes a file of the full size, allocated in full', () => {
      const st = statSync(file);
      assert.equal(st.size, SIZE);
      assert.ok(st.blocks * 512 >= SIZE);
    });

    it('leaves holes where it is told to', () => {
      const sparse = join(scratch(), 'sparse.img');
      createImage(realIo, 'APPLY', { nr: 0, file: sparse, size: SIZE }, { sparse: true });
      assert.equal(statSync(sparse).size, SIZE);
      assert.ok(statSync(sparse).blocks * 512 < SIZE / 2);
    });

    it('refuses a file that is not empty, unless it may be taken over', () => {
      assert.throws(
        () => createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE }),
        /exists and holds 4 MiB; remove it/,
      );
      createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE }, { overwrite: true });
      writeFileSync(file, Buffer.alloc(SIZE + 512, 1));
      assert.throws(() => createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE }, { overwrite: true }), /too large/);
      assert.equal(readFileSync(file)[SIZE], 1, 'nothing was cut off');
    });

    it('writes zeroes where the file system cannot allocate', () => {
      const other = join(scratch(), 'other.img');
      faults.rule = (_call, _n, method) => (method === 'fallocate' ? { errno: ERRNO.EOPNOTSUPP } : undefined);
      createImage(faults.io, 'APPLY', { nr: 0, file: other, size: SIZE });
      assert.ok(statSync(other).blocks * 512 >= SIZE);
    });

    it('says that the file system is full', () => {
      faults.rule = (_call, _n, method) => (method === 'fallocate' ? { errno: ERRNO.ENOSPC } : undefined);
      assert.throws(
        () => createImage(faults.io, 'APPLY', { nr: 0, file: join(scratch(), 'x.img'), size: SIZE }),
        /x\.img: allocating 4 MiB failed: no space left/,
      );
    });
  });

  const sizes = [
    {
      name: 'one that is too small',
      size: SIZE + 512,
      error: /too small: the image has 4194304 bytes, its device 4194816/,
    },
    {
      name: 'one that is too large',
      size: SIZE - 512,
      error: /too large: the image has 4194304 bytes, its device 4193792/,
    },
  ];
  for (const { name, size, error } of sizes)
    it(`open refuses ${name}, naming both sizes`, () => assert.throws(() => images.open({ nr: 0, file, size }), error));

  it('open refuses a folder and names what is missing', () => {
    mkdirSync(`${file}.d`);
    assert.throws(() => images.open({ nr: 0, file: `${file}.d`, size: SIZE }), /\.d: /);
    assert.throws(() => images.open({ nr: 0, file: `${file}.x`, size: SIZE }), /does not exist/);
  });

  it('sends long aligned runs past the page cache and the others through it', () => {
    open();
    assert.equal(write(0, DIRECT_FROM, 1), 0);
    assert.equal(write(0, DIRECT_FROM - 4096, 2), 0);
    assert.equal(write(512, DIRECT_FROM, 3), 0);
    assert.equal(write(0, DIRECT_FROM, 4, 512), 0);
    assert.deepEqual(
      faults.names.filter((name) => /WRITE|DIRECT/.test(name)),
      ['APPLY:DIRECT', 'APPLY:WRITE', 'APPLY:WRITE', 'APPLY:DIRECT'],
    );
  });

  it('goes through the page cache for good where O_DIRECT is refused at the first write', () => {
    open();
    faults.rule = failing('APPLY:DIRECT', ERRNO.EINVAL);
    assert.equal(write(0, DIRECT_FROM, 7), 0);
    assert.equal(write(0, DIRECT_FROM, 8), 0);
    assert.equal(faults.names.filter((name) => name === 'APPLY:DIRECT').length, 1);
    assert.equal(readFileSync(file)[100], 8);
  });

  it('! buffered reads see direct writes at once, and direct writes keep what was written around them', () => {
    open();
    const back = Mem.anon(MIB);
    const expect = Buffer.alloc(SIZE);
    let state = 1;
    const roll = (n: number): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 1) % n;
    for (let i = 1; i <= 400; i++) {
      const direct = roll(2) === 0;
      const bytes = direct ? DIRECT_FROM + 4096 * roll(32) : 512 * (1 + roll(24));
      const unit = direct ? 4096 : 512;
      const offset = unit * roll((SIZE - bytes) / unit);
      const fill = 1 + (i % 255);
      assert.equal(write(offset, bytes, fill), 0);
      expect.fill(fill, offset, offset + bytes);
      // Around the edges, so that pages half written by either way are in the cache.
      const from = Math.max(0, offset - 1536);
      const length = Math.min(SIZE - from, bytes + 3072, MIB);
      assert.equal(images.read(0, back, 0, length, from), length);
      assert.ok(back.u8.subarray(0, length).equals(expect.subarray(from, from + length)), `write ${i}`);
    }
    back.unmap();
    assert.ok(faults.names.includes('APPLY:DIRECT') && faults.names.includes('APPLY:WRITE'));
    assert.ok(readFileSync(file).equals(expect));
  });

  it('goes past the page cache with payloads on sectors, and learns where a disk wants more', () => {
    open();
    mem.u8.fill(3, 0, 256 * KIB);
    vec.clear();
    vec.add(mem, 512, 128 * KIB);
    assert.equal(images.write(0, 0, vec), 0);
    assert.deepEqual([faults.names.includes('APPLY:DIRECT'), faults.names.includes('APPLY:WRITE')], [true, false]);
    faults.rule = failing('APPLY:DIRECT', ERRNO.EINVAL, 1);
    assert.equal(images.write(0, 0, vec), 0, 'refused once, then written through the cache');
    const direct = (): number => faults.names.filter((name) => name === 'APPLY:DIRECT').length;
    const before = direct();
    assert.equal(images.write(0, 0, vec), 0);
    assert.equal(direct(), before, 'not tried again with memory on sectors');
    vec.clear();
    vec.add(mem, 4096, 128 * KIB);
    assert.equal(images.write(0, 0, vec), 0);
    assert.equal(direct(), before + 1, 'but with memory on pages');
    assert.equal(readFileSync(file)[100_000], 3);
  });

  it('queued runs are in the image when they are finished, refused and short ones too', () => {
    open();
    mem.u8.fill(0);
    const put = (at: number, fill: number): number => {
      mem.u8.fill(fill, at, at + DIRECT_FROM);
      vec.clear();
      vec.add(mem, at, DIRECT_FROM);
      return images.queue(0, 2 * at, vec);
    };
    let n = 0;
    faults.rule = (call, _n, method) => {
      if (call !== 'APPLY:DIRECT' || method !== 'pwritev') return undefined;
      n++;
      return n === 2 ? { errno: ERRNO.EAGAIN } : undefined;
    };
    for (let i = 0; i < 4; i++) assert.equal(put(i * DIRECT_FROM, 10 + i), 0);
    assert.equal(n, 0, 'nothing is begun before');
    assert.equal(images.settle(), 0);
    assert.equal(n, 5, 'the one that failed was tried alone');
    const back = readFileSync(file);
    for (let i = 0; i < 4; i++) assert.equal(back[2 * i * DIRECT_FROM + 5], 10 + i);
    assert.equal(images.settle(), 0, 'and then there is nothing left');
    assert.equal(n, 5);
  });

  it('! a queued run that fails is an error of the image, and what is abandoned is never written', () => {
    open();
    faults.rule = failing('APPLY:DIRECT', ERRNO.EIO);
    mem.u8.fill(9, 0, DIRECT_FROM);
    vec.clear();
    vec.add(mem, 0, DIRECT_FROM);
    assert.equal(images.queue(0, 0, vec), 0);
    assert.equal(images.settle(), -ERRNO.EIO);
    assert.equal(images.failedFile, file);
    faults.rule = undefined;
    assert.equal(images.queue(0, 0, vec), 0);
    images.abandon();
    assert.equal(images.settle(), 0);
    assert.equal(readFileSync(file)[0], 0);
  });

  it('writes what a short write left over', () => {
    open();
    let cut = true;
    const io = { ...faults.io };
    io.pwritev = (call, fd, v, pos) => {
      if (!cut) return faults.io.pwritev(call, fd, v, pos);
      cut = false;
      return realIo.pwrite(call, fd, v.mems[0]!, v.offs[0]!, 1000, pos);
    };
    const short = new ImageSet(io, 'APPLY');
    short.open({ nr: 0, file, size: SIZE });
    for (let i = 0; i < 8192; i++) mem.u8[i] = i % 251;
    vec.clear();
    vec.add(mem, 0, 4096);
    vec.add(mem, 8192, 512);
    assert.equal(short.write(0, 4096, vec), 0);
    const back = readFileSync(file).subarray(4096, 4096 + 4608);
    assert.ok(back.equals(Buffer.concat([mem.u8.subarray(0, 4096), mem.u8.subarray(8192, 8704)])));
    short.close();
  });

  it('reports the errno with the path of the image', () => {
    open();
    faults.rule = failing('APPLY:WRITE', ERRNO.ENOSPC);
    assert.equal(write(0, 4096, 1), -ERRNO.ENOSPC);
    assert.equal(images.errno, ERRNO.ENOSPC);
    assert.match(imageFailure(images), /disk0\.img: no space left on the device \(ENOSPC\)/);
  });

  it('knows no device but its own, and passes over one that was removed', () => {
    open();
    vec.clear();
    vec.add(mem, 0, 512);
    assert.equal(images.write(5, 0, vec), -ERRNO.ENODEV);
    images.forget(5);
    assert.equal(images.write(5, 0, vec), 0);
    assert.equal(images.discard(5, 0, 512), 0);
    assert.deepEqual([images.knows(0), images.knows(5), images.knows(6)], [true, true, false]);
  });

  it('discard gives the space back and reads as zeroes, also where the file system makes no holes', () => {
    open();
    write(0, MIB, 9);
    assert.equal(images.discard(0, 4096, MIB - 4096), 0);
    assert.equal(images.sync(), 0);
    const bytes = readFileSync(file);
    assert.deepEqual([bytes[4095], bytes[4096], bytes[MIB - 1]], [9, 0, 0]);
    assert.ok(statSync(file).blocks * 512 < SIZE - MIB / 2);
    faults.rule = failing('APPLY:DISCARD', ERRNO.EOPNOTSUPP);
    assert.equal(images.discard(0, 0, 4096), 0);
    assert.deepEqual([readFileSync(file)[0], readFileSync(file)[4095]], [0, 0]);
  });

  it('zeroes are zeroes, with fallocate and without', () => {
    open();
    for (const errno of [0, ERRNO.EOPNOTSUPP]) {
      write(0, 16 * KIB, 9);
      faults.rule = errno === 0 ? undefined : (_c, _n, method) => (method === 'fallocate' ? { errno } : undefined);
      assert.equal(images.zeroes(0, 512, 8192), 0);
      faults.rule = undefined;
      const bytes = readFileSync(file);
      assert.deepEqual([bytes[511], bytes[512], bytes[8703], bytes[8704]], [9, 0, 0, 9]);
    }
  });

  it('syncs what was written to, and again where the sync failed', () => {
    open();
    assert.equal(images.unsettled, true, 'an earlier process may have left something in the page cache');
    assert.equal(images.sync(), 0);
    const syncs = (): number => faults.names.filter((name) => name === 'APPLY:SYNC').length;
    assert.equal(images.sync(), 0);
    assert.equal(syncs(), 1);
    write(0, 4096, 1);
    faults.rule = failing('APPLY:SYNC', ERRNO.EIO, 1);
    assert.equal(images.sync(), -ERRNO.EIO);
    assert.equal(images.unsynced, 4096);
    assert.equal(images.sync(), 0);
    assert.deepEqual([syncs(), images.unsynced], [3, 0]);
  });

  it('notices that its path leads elsewhere', () => {
    open();
    assert.equal(images.strayed(), undefined);
    writeFileSync(`${file}.new`, Buffer.alloc(SIZE));
    realIo.unlink('TEST:UNLINK', file);
    assert.equal(images.strayed()?.file, file);
  });
});
