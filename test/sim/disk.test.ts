import assert from 'node:assert/strict';
import { ERRNO } from '../../src/base/errors.js';
import { Mem } from '../../src/base/mem.js';
import { O_CREAT, O_DIRECT, O_RDWR } from '../../src/base/sys.js';
import { SimDisk } from '../support/sim-disk.js';
import { SimIo, SimKill, SimWorld } from '../support/sim-io.js';
import { Rng } from '../support/sim-random.js';

const mem = Mem.anon(65536);

function machine(seed = 1): { world: SimWorld; disk: SimDisk; io: SimIo } {
  const world = new SimWorld(new Rng(seed));
  const disk = new SimDisk('local', 1);
  world.mount('/d', disk);
  return { world, disk, io: new SimIo(world) };
}

function write(io: SimIo, fd: number, byte: number, len: number, pos: number): number {
  mem.u8.fill(byte, 0, len);
  return io.pwrite('TEST:WRITE', fd, mem, 0, len, pos);
}

describe('SimDisk', () => {
  it('keeps what was synced and loses any subset of sectors of the rest', () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const { disk, io } = machine(seed);
      const fd = io.open('TEST:OPEN', '/d/f', O_RDWR | O_CREAT);
      write(io, fd, 1, 4096, 0);
      io.fdatasync('TEST:SYNC', fd);
      io.syncDir('TEST:SYNC', '/d');
      write(io, fd, 2, 1024, 512);
      write(io, fd, 3, 512, 512);
      assert.equal(disk.find('/d/f')!.content()[512], 3, 'a read sees the newest');
      const file = disk.crashImage(new Rng(seed)).disk.find('/d/f')!;
      assert.equal(file.size, 4096);
      const sectors = [...Array(8).keys()].map((s) => file.content()[s * 512]!);
      assert.deepEqual([sectors[0], ...sectors.slice(3)], [1, 1, 1, 1, 1, 1]);
      seen.add(`${sectors[1]}${sectors[2]}`);
    }
    assert.deepEqual([...seen].sort(), ['11', '12', '21', '22', '31', '32']);
  });

  it('loses names that were not synced, and keeps a rename whole', () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      const { disk, io } = machine(seed);
      assert.equal(io.replaceFile('TEST:REPLACE', '/d/config', 'old'), 0);
      const fd = io.open('TEST:OPEN', '/d/fresh', O_RDWR | O_CREAT);
      io.fdatasync('TEST:SYNC', fd);
      let calls = 0;
      const { world } = { world: (io as unknown as { world: SimWorld }).world };
      world.faults = { decide: ({ kind }) => (kind === 'sync' && ++calls === 2 ? { kill: 'before' } : undefined) };
      assert.throws(() => io.replaceFile('TEST:REPLACE', '/d/config', 'new!'), SimKill);
      const after = disk.crashImage(new Rng(seed)).disk;
      const text = after.find('/d/config')!.content().toString();
      assert.ok(text === 'old' || text === 'new!', text);
      seen.add(`${text} ${after.find('/d/fresh') === undefined ? 'lost' : 'kept'}`);
    }
    assert.equal(seen.size, 4, [...seen].join(', '));
  });

  it('holds pages for clean after a failed sync, and loses them with the machine', () => {
    let lost = 0;
    for (let seed = 0; seed < 40; seed++) {
      const { world, disk, io } = machine(seed);
      const fd = io.open('TEST:OPEN', '/d/f', O_RDWR | O_CREAT);
      io.syncDir('TEST:SYNC', '/d');
      write(io, fd, 1, 4096, 0);
      world.faults = { decide: ({ kind }) => (kind === 'sync' ? { errno: ERRNO.EIO } : undefined) };
      assert.equal(io.fdatasync('TEST:SYNC', fd), -ERRNO.EIO);
      world.faults = undefined;
      assert.equal(io.fdatasync('TEST:SYNC', fd), 0);
      assert.equal(disk.find('/d/f')!.content()[0], 1);
      const file = disk.crashImage(new Rng(seed)).disk.find('/d/f')!;
      if (file.content()[0] !== 1) lost++;
      write(io, fd, 1, 4096, 0);
      assert.equal(io.fdatasync('TEST:SYNC', fd), 0);
      assert.ok(
        disk
          .crashImage(new Rng(seed))
          .disk.find('/d/f')!
          .content()
          .every((byte) => byte === 1),
      );
    }
    assert.ok(lost > 0);
  });
});

describe('SimIo', () => {
  it('counts calls the same way for the same seed and kills at the one it is told', () => {
    for (const when of ['before', 'after'] as const) {
      const { world, disk, io } = machine();
      const fd = io.open('TEST:OPEN', '/d/f', O_RDWR | O_CREAT);
      world.faults = { decide: ({ n }) => (n === 3 ? { kill: when } : undefined) };
      write(io, fd, 1, 512, 0);
      assert.throws(() => write(io, fd, 2, 512, 0), SimKill);
      assert.throws(() => io.fdatasync('TEST:SYNC', fd), SimKill, 'the dead do nothing');
      assert.equal(disk.find('/d/f')!.content()[0], when === 'before' ? 1 : 2);
    }
  });

  it('refuses direct I/O that is not aligned, as the kernel does', () => {
    const { io } = machine();
    const fd = io.open('TEST:OPEN', '/d/f', O_RDWR | O_CREAT | O_DIRECT);
    assert.equal(write(io, fd, 1, 100, 0), -ERRNO.EINVAL);
    assert.equal(io.pwrite('TEST:WRITE', fd, mem, 8, 512, 0), -ERRNO.EINVAL);
    assert.equal(io.pwrite('TEST:WRITE', fd, mem, 512, 512, 1024), 512);
  });

  it('gives EIO for everything on a disk that cannot be reached, and for descriptors of an earlier life', () => {
    const { disk, io } = machine();
    const fd = io.open('TEST:OPEN', '/d/f', O_RDWR | O_CREAT);
    disk.unreachable = true;
    assert.equal(io.fdatasync('TEST:SYNC', fd), -ERRNO.EIO);
    assert.equal(io.stat('TEST:STAT', '/d/f'), -ERRNO.EIO);
    disk.unreachable = false;
    assert.equal(io.fdatasync('TEST:SYNC', fd), 0);
    disk.crash(new Rng(1));
    assert.equal(io.fdatasync('TEST:SYNC', fd), -ERRNO.EIO);
  });
});
