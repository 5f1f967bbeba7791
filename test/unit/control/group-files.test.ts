import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { realIo, type Io } from '../../../src/base/io.js';
import { ERRNO, RepError } from '../../../src/base/errors.js';
import { defaultConfig, loadConfig, type GroupConfig } from '../../../src/control/config.js';
import { createGroup } from '../../../src/control/create.js';
import { lockGroup, lockHolder, unlockGroup } from '../../../src/control/lock.js';
import { groupFiles } from '../../../src/control/state.js';
import { LogFile } from '../../../src/replog/logfile.js';

const ID = '00112233445566778899aabbccddeeff';
const MIB = 1024 * 1024;

describe('control/lock', () => {
  let dir: string;
  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-lock-'));
  });
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  it('lockGroup refuses a second holder with EBUSY, naming the first, and lets go on close', () => {
    const fd = lockGroup(dir);
    assert.equal(lockHolder(dir), process.pid);
    assert.throws(() => lockGroup(dir), {
      errno: 'EBUSY',
      message: new RegExp(`in use by process ${process.pid}; unmount`),
    });
    unlockGroup(fd);
    assert.equal(lockHolder(dir), undefined);
    unlockGroup(lockGroup(dir));
  });

  it('the lock lives as long as a process that inherited it', () => {
    const fd = lockGroup(dir);
    // The child holds a copy of the descriptor; ours is closed while it still runs.
    const script = `const fs=require('fs');setTimeout(()=>fs.writeFileSync('${dir}/done','1'),50)`;
    spawnSync(process.execPath, ['-e', script], { stdio: ['ignore', 'ignore', 'inherit', fd] });
    assert.throws(() => lockGroup(dir), { errno: 'EBUSY' });
    unlockGroup(fd);
    unlockGroup(lockGroup(dir));
  });

  it('lockGroup says ENOENT where the folder is missing', () => {
    assert.throws(() => lockGroup(path.join(dir, 'nothing')), { errno: 'ENOENT', message: /no such state folder/ });
  });
});

describe('control/create', () => {
  let top: string;
  let dir: string;
  beforeEach(() => {
    top = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-create-'));
    dir = path.join(top, 'state', 'g');
  });
  afterEach(() => fs.rmSync(top, { recursive: true, force: true }));

  const small = (): GroupConfig => {
    const config = defaultConfig(dir, ID, 'g');
    config.log.size = 4 * MIB;
    config.devices[0]!.size = MIB;
    return config;
  };
  const sparse = new Set([0]);

  it('createGroup makes all parts and returns the held lock', async () => {
    const told: number[] = [];
    const fd = await createGroup(dir, small(), { sparse, progress: (done) => told.push(done) });
    try {
      const files = groupFiles(dir);
      const expected = small();
      expected.devices[0]!.sparse = true;
      assert.deepEqual(loadConfig(dir), expected);
      assert.equal(fs.statSync(files.log).size, 4 * MIB);
      assert.equal(fs.statSync(path.join(files.images, 'disk0')).size, MIB);
      assert.ok(fs.existsSync(path.join(dir, 'site1', 'disk0.img')));
      assert.ok(!fs.existsSync(files.creating));
      assert.equal(lockHolder(dir), process.pid);
      assert.ok(told.length > 0);
      const log = LogFile.open(realIo, files.log, { readOnly: true });
      assert.equal(log.super.logId, ID);
      assert.equal(log.super.group, 'g');
      log.close();
    } finally {
      unlockGroup(fd);
    }
  });

  it('createGroup refuses a group that exists and touches nothing of it', async () => {
    unlockGroup(await createGroup(dir, small(), { sparse }));
    const before = fs.readdirSync(dir).sort();
    await assert.rejects(createGroup(dir, small(), { sparse }), {
      errno: 'EEXIST',
      message: /group\.json: the group exists already/,
    });
    assert.deepEqual(fs.readdirSync(dir).sort(), before);
    assert.equal(lockHolder(dir), undefined);
  });

  it('createGroup refuses an image that exists, leaves it, and leaves nothing else', async () => {
    const image = path.join(top, 'precious');
    fs.writeFileSync(image, 'data');
    const config = small();
    config.devices[0]!.local = image;
    await assert.rejects(createGroup(dir, config), {
      errno: 'EEXIST',
      message: /precious: the image of disk0 exists already/,
    });
    assert.equal(fs.readFileSync(image, 'utf8'), 'data');
    assert.deepEqual(fs.readdirSync(top), ['precious']);
  });

  it('createGroup takes nothing over that stands in a site folder', async () => {
    const site = path.join(top, 'site');
    fs.mkdirSync(site);
    fs.writeFileSync(path.join(site, 'disk0.img'), 'somebody else');
    const config = small();
    config.sites[0]!.address = site;
    await assert.rejects(createGroup(dir, config, { sparse }), RepError);
    assert.deepEqual(fs.readdirSync(site), ['disk0.img']);
    assert.equal(fs.readFileSync(path.join(site, 'disk0.img'), 'utf8'), 'somebody else');
    assert.deepEqual(fs.readdirSync(top), ['site']);
  });

  it('createGroup removes everything where the disk is full in the middle of it', async () => {
    let calls = 0;
    const io: Io = { ...realIo, pwrite: (...args) => (++calls > 1 ? -ERRNO.ENOSPC : realIo.pwrite(...args)) };
    await assert.rejects(createGroup(dir, small(), { sparse, io }), { errno: 'ENOSPC' });
    assert.deepEqual(fs.readdirSync(top), []);
  });

  it('createGroup removes everything when it is interrupted', async () => {
    const stop = new AbortController();
    const made = createGroup(dir, small(), { sparse, signal: stop.signal, progress: () => stop.abort() });
    await assert.rejects(made, { errno: 'EINTR', message: /interrupted; nothing was left behind/ });
    assert.deepEqual(fs.readdirSync(top), []);
  });

  it('createGroup clears away what a creation left behind that was killed', async () => {
    const files = groupFiles(dir);
    fs.mkdirSync(files.index, { recursive: true });
    fs.writeFileSync(files.log, 'half');
    fs.writeFileSync(files.creating, '');
    unlockGroup(await createGroup(dir, small(), { sparse }));
    assert.equal(fs.statSync(files.log).size, 4 * MIB);
  });

  it('createGroup refuses a configuration that could not be loaded again, before it makes anything', async () => {
    await assert.rejects(createGroup(dir, { ...small(), name: 'a/b' }), { errno: 'EINVAL' });
    assert.deepEqual(fs.readdirSync(top), []);
  });
});
