import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describeHolders, holdersOf, releaseHint } from '../../../src/control/holders.js';

describe('cli/holders', () => {
  let top: string;

  function file(name: string, text: string): void {
    mkdirSync(dirname(join(top, name)), { recursive: true });
    writeFileSync(join(top, name), text);
  }

  function link(name: string, to: string): void {
    mkdirSync(dirname(join(top, name)), { recursive: true });
    symlinkSync(to, join(top, name));
  }

  const scan = (dir: string) => holdersOf(dir, join(top, 'proc'), join(top, 'sys'));

  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), 'reptool-holders.'));
    file('proc/self/mountinfo', '30 1 0:44 / /mnt/rep rw - fuse.reptool reptool rw\n');
  });

  afterEach(() => rmSync(top, { recursive: true, force: true }));

  it('holdersOf finds nobody when nobody is there', () => {
    link('proc/7/cwd', '/mnt/report');
    assert.deepEqual(scan('/mnt/rep'), []);
  });

  it('holdersOf finds a process by its folder, by an open file and by a map', () => {
    file('proc/7/comm', 'bash\n');
    link('proc/7/cwd', '/mnt/rep');
    file('proc/8/comm', 'qemu\n');
    link('proc/8/cwd', '/');
    link('proc/8/fd/5', '/mnt/rep/disk0');
    file('proc/9/comm', 'db\n');
    file('proc/9/maps', '7f00-7f01 rw-s 0000 00:2c 3    /mnt/rep/disk0 (deleted)\n');
    const found = scan('/mnt/rep');
    assert.equal(
      describeHolders(found),
      'process 7 (bash) works in /mnt/rep, process 8 (qemu) has open /mnt/rep/disk0 and process 9 (db) maps /mnt/rep/disk0',
    );
    assert.equal(releaseHint(found), 'end processes 7, 8 and 9');
  });

  it('holdersOf finds a loop device and where it is mounted, and says what to type', () => {
    file('sys/block/loop3/loop/backing_file', '/mnt/rep/disk0\n');
    file(
      'proc/self/mountinfo',
      '30 1 0:44 / /mnt/rep rw - fuse.reptool reptool rw\n31 1 7:3 / /mnt/my\\040fs rw shared:1 - ext4 /dev/loop3 rw\n',
    );
    const found = scan('/mnt/rep');
    assert.equal(describeHolders(found), '/dev/loop3 is backed by /mnt/rep/disk0');
    assert.equal(releaseHint(found), 'run `umount /mnt/my fs && losetup -d /dev/loop3`');
    file('sys/block/loop3/loop/autoclear', '1\n');
    assert.equal(releaseHint(scan('/mnt/rep')), 'run `umount /mnt/my fs`', 'it goes with its mount');
  });

  it('holdersOf finds a mount inside the tree and a swap file', () => {
    file('proc/self/mountinfo', '31 1 0:50 / /mnt/rep/x rw - tmpfs none rw\n');
    file('proc/swaps', 'Filename Type Size Used Priority\n/mnt/rep/disk0 file 1 0 -2\n');
    assert.deepEqual(
      scan('/mnt/rep').map((holder) => [holder.kind, holder.release]),
      [
        ['mount', 'umount /mnt/rep/x'],
        ['swap', 'swapoff /mnt/rep/disk0'],
      ],
    );
  });
});
