import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { IoVec, Mem } from '../../../src/base/mem.js';
import * as sys from '../../../src/base/sys.js';
import { WriteList } from '../../../src/base/writelist.js';
import { cleanUp, scratch } from '../replog/rig.js';

const PIECE = 65536;

describe('pwriteMany', () => {
  const mem = Mem.large(4 << 20);
  const vec = new IoVec(300);
  const list = new WriteList(64);
  let file: string;
  let fd: number;

  beforeEach(() => {
    file = join(scratch(), 'image');
    fs.writeFileSync(file, Buffer.alloc(64 * PIECE));
    fd = fs.openSync(file, sys.O_RDWR | sys.O_DIRECT);
    list.clear();
    for (let i = 0; i < mem.size; i += 512) mem.dv.setUint32(i, i, true);
  });
  afterEach(() => {
    fs.closeSync(fd);
    cleanUp();
  });
  after(() => {
    mem.unmap();
    vec.table.unmap();
    list.free();
  });

  /** Piece `i` of the memory, in two ranges the wrong way round, to place `to` of the file. */
  function add(i: number, to: number, on = fd): void {
    vec.clear();
    vec.add(mem, i * PIECE + PIECE / 2, PIECE / 2);
    vec.add(mem, i * PIECE, PIECE / 2);
    list.add(on, to * PIECE, vec);
  }

  it('does all of them, more than are under way at once, each at its place', () => {
    for (let i = 0; i < 64; i++) add(i, 63 - i);
    realIo.pwriteMany('APPLY:DIRECT', list);
    const expect = Buffer.alloc(64 * PIECE);
    for (let i = 0; i < 64; i++) {
      assert.equal(list.results[i], PIECE);
      mem.u8.copy(expect, (63 - i) * PIECE, i * PIECE + PIECE / 2, (i + 1) * PIECE);
      mem.u8.copy(expect, (63 - i) * PIECE + PIECE / 2, i * PIECE, i * PIECE + PIECE / 2);
    }
    assert.ok(fs.readFileSync(file).equals(expect));
  });

  it('says of each what became of it, and the others are done', () => {
    const readOnly = fs.openSync(file, sys.O_RDONLY | sys.O_DIRECT);
    add(0, 0);
    add(1, 1, readOnly);
    add(2, 2, 9999);
    vec.clear();
    vec.add(mem, 3 * PIECE + 7, PIECE);
    list.add(fd, 3 * PIECE, vec);
    add(4, 4);
    realIo.pwriteMany('APPLY:DIRECT', list);
    fs.closeSync(readOnly);
    const [first, second, third, fourth, fifth] = list.results;
    assert.deepEqual([first, fifth], [PIECE, PIECE]);
    assert.ok(second! < 0 && third! < 0);
    assert.equal(fourth, -ERRNO.EINVAL);
  });

  it('takes what it has room for', () => {
    assert.equal(list.takes(256), true);
    assert.equal(list.takes(257), false);
    for (let i = 0; i < 64; i++) add(i, i);
    assert.equal(list.takes(1), false);
  });
});

describe('Mem', () => {
  it('large and mirrored memory begins at large pages; a collapsed memfd keeps its content', () => {
    const HUGE = 2 << 20;
    const large = Mem.large(100);
    assert.deepEqual([large.addr % HUGE, large.size], [0, HUGE]);
    large.unmap();
    const fd = sys.memfdCreate('collapse-test', 0);
    sys.ftruncate(fd, 3 * HUGE);
    fs.writeSync(fd, 'kept', HUGE);
    // Refused by kernels without MADV_COLLAPSE: then nothing has changed.
    Mem.collapse(fd, 3 * HUGE);
    const mem = Mem.mirrored(fd, HUGE, 2 * HUGE);
    assert.equal(mem.addr % HUGE, 0);
    assert.equal(mem.u8.toString('latin1', HUGE, HUGE + 4), 'kept');
    assert.equal(mem.u8.toString('latin1', 3 * HUGE, 3 * HUGE + 4), 'kept');
    mem.unmap();
    fs.closeSync(fd);
  });
});
