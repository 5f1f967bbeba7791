import assert from 'node:assert/strict';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RepError } from '../../../src/base/errors.js';
import { usersMayAllowOthers } from '../../../src/fuse/fusermount.js';
import {
  abortConnection,
  openFuse,
  parseMountinfo,
  prepareMountPoint,
  repMounts,
  sourceOf,
} from '../../../src/fuse/mount.js';
import { isRoot } from '../../support/skip.js';

const INFO = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
41 27 0:52 / /mnt/a\\040b\\134\\303\\244 rw,nosuid,nodev shared:7 - fuse.reptool reptool:default rw,user_id=0
42 27 0:53 / /srv/disks rw,nosuid,nodev - fuse reptool:my:/home/a\\040b,c\\134/my rw,user_id=0
43 27 0:54 / /mnt/other rw - fuse.sshfs host:/dir rw
a broken line
44 27 0:55 / /mnt/none rw - tmpfs  rw`;

function refused(work: () => unknown, errno: string, ...parts: RegExp[]): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(error instanceof RepError, String(error));
    assert.equal(error.errno, errno);
    for (const part of parts) assert.match(error.message, part);
    return true;
  });
}

describe('fuse/mount', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'reptool-mount-'))));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('parseMountinfo reads device, place, type and source, with and without tags', () => {
    const lines = parseMountinfo(INFO);
    assert.deepEqual(
      lines.map(({ major, minor, mountpoint, fsType }) => [major, minor, mountpoint, fsType]),
      [
        [0, 21, '/proc', 'proc'],
        [254, 0, '/', 'ext4'],
        [0, 52, '/mnt/a b\\ä', 'fuse.reptool'],
        [0, 53, '/srv/disks', 'fuse'],
        [0, 54, '/mnt/other', 'fuse.sshfs'],
        [0, 55, '/mnt/none', 'tmpfs'],
      ],
    );
    assert.equal(lines[1]!.source, '/dev/vda');
    assert.equal(lines[5]!.source, '');
  });

  it('repMounts finds ours, of either transport', () => {
    assert.deepEqual(repMounts(parseMountinfo(INFO)), [
      {
        ...{ mountpoint: '/mnt/a b\\ä', source: 'reptool:default', minor: 52 },
        ...{ group: 'default', groupDir: '/var/lib/reptool/default' },
      },
      {
        ...{ mountpoint: '/srv/disks', source: 'reptool:my:/home/a b,c\\/my', minor: 53 },
        ...{ group: 'my', groupDir: '/home/a b,c\\/my' },
      },
    ]);
  });

  it('sourceOf names the folder of the group unless it is the usual one of root', () => {
    assert.equal(sourceOf('default', '/var/lib/reptool/default'), 'reptool:default');
    assert.equal(sourceOf('my', '/home/a b,c\\/my'), 'reptool:my:/home/a b,c\\/my');
  });

  it('usersMayAllowOthers reads fuse.conf as fusermount3 does', () => {
    const conf = join(dir, 'fuse.conf');
    assert.equal(usersMayAllowOthers(conf), false);
    for (const [text, may] of [
      ['#user_allow_other\n', false],
      ['mount_max = 10\nuser_allow_other\n', true],
      ['user_allow_other = no\n', false],
    ] as const) {
      writeFileSync(conf, text);
      assert.equal(usersMayAllowOthers(conf), may, text);
    }
  });

  it('prepareMountPoint makes the last component and returns the real path', () => {
    mkdirSync(join(dir, 'real'));
    symlinkSync(join(dir, 'real'), join(dir, 'link'));
    assert.equal(prepareMountPoint(join(dir, 'link', 'new')), join(dir, 'real', 'new'));
    assert.ok(existsSync(join(dir, 'real', 'new')));
    assert.equal(prepareMountPoint(join(dir, 'real', 'new')), join(dir, 'real', 'new'));
    rmSync(join(dir, 'real', 'new'), { recursive: true });
    assert.equal(prepareMountPoint(join(dir, 'link')), join(dir, 'real'));
  });

  it('prepareMountPoint refuses what cannot be mounted on, and says what to do', () => {
    writeFileSync(join(dir, 'file'), '');
    mkdirSync(join(dir, 'full'));
    writeFileSync(join(dir, 'full', 'thing'), '');
    refused(() => prepareMountPoint(join(dir, 'no', 'new')), 'ENOENT', /parent folder .*no does not exist; create/);
    assert.equal(existsSync(join(dir, 'no')), false);
    refused(() => prepareMountPoint(join(dir, 'file')), 'ENOTDIR', /must be a folder/, /name an empty folder/);
    refused(() => prepareMountPoint(join(dir, 'file', 'sub')), 'ENOTDIR', /not a folder/);
    refused(() => prepareMountPoint(join(dir, 'full')), 'ENOTEMPTY', /holds thing/, /name an empty folder/);
    refused(() => prepareMountPoint('/proc'), 'EBUSY', /\/proc: a proc file system is mounted there already; unmount/);
  });

  it('prepareMountPoint says so where it may not make the folder', () => {
    const nobody = 65534;
    const root = isRoot();
    if (root) chownSync(dir, nobody, nobody);
    chmodSync(dir, 0o500);
    if (root) process.seteuid!(nobody);
    try {
      refused(() => prepareMountPoint(join(dir, 'new')), 'EACCES', /permission denied/, /run as root/);
    } finally {
      if (root) process.seteuid!(0);
    }
  });

  it('openFuse says how to get a missing device', () => {
    refused(() => openFuse(join(dir, 'fuse')), 'ENODEV', /no FUSE device/, /modprobe fuse/);
  });

  it('abortConnection is false for a connection that there is not', async () => {
    assert.equal(await abortConnection(999_999), false);
  });
});
