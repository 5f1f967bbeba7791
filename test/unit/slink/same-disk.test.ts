import assert from 'node:assert/strict';
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { realIo, type FileInfo, type Io } from '../../../src/base/io.js';
import { storageOf, takenBy } from '../../../src/slink/same-disk.js';
import { cleanUp, scratch } from '../replog/rig.js';

describe('same-disk', () => {
  let dir: string;
  beforeEach(() => void (dir = scratch()));
  afterEach(cleanUp);

  it('takenBy knows a file by any of its names', () => {
    const at = (name: string): string => join(dir, name);
    writeFileSync(at('a'), 'x');
    writeFileSync(at('b'), 'x');
    linkSync(at('a'), at('hard'));
    symlinkSync(at('a'), at('soft'));
    const taken = [{ path: at('a'), what: 'the log' }];
    for (const name of ['a', 'hard', 'soft']) assert.equal(takenBy(realIo, at(name), taken), 'the log');
    assert.equal(takenBy(realIo, at('b'), taken), '');
    assert.equal(takenBy(realIo, at('nowhere'), taken), '');
    mkdirSync(at('f'));
    writeFileSync(at('f/x'), '');
    assert.equal(takenBy(realIo, at('f/x'), [{ path: at('f'), what: 'inside', folder: true }]), 'inside');
    assert.equal(takenBy(realIo, at('b'), [{ path: at('f'), what: 'inside', folder: true }]), '');
  });

  // A sysfs of our own: disk 8:0 with partitions 8:1 and 8:2, 253:0 on 8:1, loop 7:3 on a file.
  function fakeSys(): { io: Io; sys: string; backing: string } {
    const sys = join(dir, 'sys');
    const backing = join(dir, 'backing');
    writeFileSync(backing, '');
    const put = (file: string, text: string): void => {
      mkdirSync(join(sys, file, '..'), { recursive: true });
      writeFileSync(join(sys, file), `${text}\n`);
    };
    put('devices/sda/dev', '8:0');
    for (const n of [1, 2]) {
      put(`devices/sda/sda${n}/dev`, `8:${n}`);
      put(`devices/sda/sda${n}/partition`, `${n}`);
    }
    put('devices/dm-0/dev', '253:0');
    put('devices/dm-0/slaves/sda1/dev', '8:1');
    put('devices/loop3/dev', '7:3');
    put('devices/loop3/loop/backing_file', backing);
    mkdirSync(join(sys, 'dev/block'), { recursive: true });
    const names = { '8:0': 'sda', '8:1': 'sda/sda1', '8:2': 'sda/sda2', '253:0': 'dm-0', '7:3': 'loop3' };
    for (const [dev, name] of Object.entries(names)) symlinkSync(`../../devices/${name}`, join(sys, 'dev/block', dev));
    const io: Io = {
      ...realIo,
      stat(call, file): FileInfo | number {
        const m = /^(\d+):(\d+)$/.exec(file);
        if (m === null) return realIo.stat(call, file);
        const rdev = (Number(m[1]) << 8) | Number(m[2]);
        return { size: 0, kind: 'block', id: `blk:${rdev}`, allocated: 0 };
      },
    };
    return { io, sys, backing };
  }

  const cases: { a: string; b: string; same: boolean }[] = [
    { a: '8:0', b: '8:0', same: true },
    { a: '8:1', b: '8:0', same: true },
    { a: '8:0', b: '8:2', same: true },
    { a: '8:1', b: '8:2', same: false },
    { a: '253:0', b: '8:1', same: true },
    { a: '8:0', b: '253:0', same: true },
    { a: '253:0', b: '8:2', same: false },
    { a: '7:3', b: 'backing', same: true },
    { a: 'backing', b: '7:3', same: true },
  ];
  for (const { a, b, same } of cases)
    it(`! takenBy says ${same ? 'yes' : 'no'} to ${a} beside ${b}`, () => {
      const { io, sys, backing } = fakeSys();
      const path = (word: string): string => (word === 'backing' ? backing : word);
      assert.equal(takenBy(io, path(a), [{ path: path(b), what: 'it' }], sys), same ? 'it' : '');
    });

  it('storageOf goes down to the disk', () => {
    const { io, sys } = fakeSys();
    assert.equal(storageOf(io, '253:0', sys).size, 3);
  });
});
