/** Rules where they look at what is there: logs, devices, other groups. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { realClock } from '../../../src/base/clock.js';
import { realIo } from '../../../src/base/io.js';
import {
  checkTable,
  planTable,
  readTable,
  readTableText,
  type TablePlan,
  type TableText,
} from '../../../src/cli/tables.js';
import { loadConfig } from '../../../src/control/config.js';
import { createGroup } from '../../../src/control/create.js';
import { lockGroup, unlockGroup } from '../../../src/control/lock.js';
import { productTypes } from '../../../src/control/types.js';
import { obtainLog } from '../../../src/replog/logcreate.js';
import { LogFile } from '../../../src/replog/logfile.js';
import { SLINK } from '../../../src/slink/types.js';
import { diskFolder } from '../../support/mounted.js';

const SECTORS = 8192;
const SIZE = SECTORS * 512;

/** A log of `group`; returns its identity. */
function makeLog(file: string, size: number, group: string, clean: boolean): string {
  const logId = group.padEnd(32, '0').replace(/[^0-9a-f]/g, '1');
  const spec = { size, logId, indexId: '2'.repeat(32), indexGeneration: 0, group };
  const { log } = obtainLog(realIo, file, 'create', spec, realClock);
  if (!clean) log.writeSuper({ clean: false }, realClock);
  log.close();
  return logId;
}

describe('tables', () => {
  let top: string;
  let log: string;
  let state: string;

  beforeEach(() => {
    top = diskFolder('reptool-tables-');
    log = path.join(top, 'log');
    state = path.join(top, 'state/g');
    fs.writeFileSync(path.join(top, 'd0'), '');
    fs.truncateSync(path.join(top, 'd0'), SIZE);
  });
  afterEach(() => fs.rmSync(top, { recursive: true, force: true }));

  function write(logWords: string, remote = 'site/disk0.img', dirty = 'nolog 0', length = SECTORS): string {
    const file = path.join(top, 'table');
    fs.writeFileSync(
      file,
      `0 1 replicator ${logWords} blockdev 2 0 async blockdev 2 1 async\n` +
        `0 ${length} replicator-dev g 0 0 1 ${top}/d0 nolog 0 1 1 ${top}/${remote} ${dirty}\n`,
    );
    return file;
  }
  const text = (...words: Parameters<typeof write>): TableText => readTableText(write(...words));
  const plan = (...words: Parameters<typeof write>): Promise<TablePlan> =>
    planTable(readTable(text(...words), productTypes({})), productTypes({}), 'g', [], new AbortController().signal);
  const open = (): string => `ringbuffer 2 ${log} 0`;
  const mode = (word: string, sectors = SECTORS): string => `ringbuffer 4 ${log} 0 ${word} ${sectors}`;
  /** A log of group g in the place of the log, closed cleanly or not; its identity. */
  const haveLog = (clean = true): string => makeLog(log, 2 * SIZE, 'g', clean);

  async function make(word: 'auto' | 'create'): Promise<void> {
    const planned = await plan(mode(word));
    assert.equal(planned.logIsThere, false);
    unlockGroup(await createGroup(state, planned.config, { table: { mode: word } }));
  }
  const identity = (): string => {
    const file = LogFile.open(realIo, log, { readOnly: true });
    file.close();
    return file.super.logId;
  };

  it('R-9 open without a log: ENOENT; over something else: EINVAL', async () => {
    await assert.rejects(plan(open()), { errno: 'ENOENT', message: /there is no replog; use auto or create/ });
    fs.writeFileSync(log, Buffer.alloc(SIZE, 'x'));
    await assert.rejects(plan(open()), { errno: 'EINVAL' });
    fs.writeFileSync(log, Buffer.alloc(SIZE));
    await assert.rejects(plan(open()), { errno: 'EINVAL' });
  });

  it('R-9 auto makes a log where there is none or something else, and opens the one that is there', async () => {
    await make('auto');
    const id = identity();
    fs.rmSync(state, { recursive: true });
    const again = await plan(mode('auto'));
    assert.equal(again.logIsThere, true);
    assert.equal(again.config.id, id);
    assert.equal(again.config.nextDevice, 1);
    assert.equal(again.config.devices[0]!.sparse, true, 'its image has holes');
    fs.writeFileSync(path.join(top, 'd0'), Buffer.alloc(SIZE, 'x'));
    assert.equal((await plan(mode('auto'))).config.devices[0]!.sparse, undefined);
    fs.writeFileSync(path.join(top, 'd0'), Buffer.alloc(SIZE));
    fs.writeFileSync(log, 'something else');
    assert.equal((await plan(mode('auto'))).logIsThere, false);
  });

  it('R-9 create initialises a log that is there and closed', async () => {
    const id = haveLog();
    await make('create');
    assert.notEqual(identity(), id);
    assert.equal(loadConfig(state).id, identity());
  });

  it('R-9 create refuses a log that was not closed, and leaves it: EPERM', async () => {
    const id = haveLog(false);
    const planned = await plan(mode('create'));
    await assert.rejects(createGroup(state, planned.config, { table: { mode: 'create' } }), {
      errno: 'EPERM',
      message: /active or was not closed cleanly/,
    });
    assert.equal(identity(), id);
    assert.equal(fs.existsSync(state), false);
  });

  it('R-9 create refuses a group that is there: EEXIST, and EPERM while it is active', async () => {
    await make('auto');
    const table = readTable(text(mode('create')), productTypes({}));
    assert.throws(() => checkTable(table, loadConfig(state), state), {
      errno: 'EEXIST',
      message: /create: group g exists in .*; write open or auto/,
    });
    const lock = lockGroup(state);
    try {
      assert.throws(() => checkTable(table, loadConfig(state), state), { errno: 'EPERM', message: /is active/ });
    } finally {
      unlockGroup(lock);
    }
    checkTable(readTable(text(mode('auto')), productTypes({})), loadConfig(state), state);
    checkTable(readTable(text(open()), productTypes({})), loadConfig(state), state);
  });

  it('R-10 a log that is opened has the size it says itself', async () => {
    haveLog();
    assert.equal((await plan(mode('auto'))).config.log.size, 2 * SIZE);
    assert.equal((await plan(open())).config.log.size, 2 * SIZE);
  });

  it('R-14 a log that is in use: EBUSY, and EPERM for create', async () => {
    haveLog();
    const fd = fs.openSync(log, 'r');
    try {
      await assert.rejects(plan(open()), { errno: 'EBUSY', message: /is in use: process \d+ .*cannot share a log/ });
      await assert.rejects(plan(mode('create')), { errno: 'EPERM', message: /create: log .* is active: process/ });
    } finally {
      fs.closeSync(fd);
    }
  });

  it('R-14 a log of another group: EINVAL', async () => {
    makeLog(log, SIZE, 'other', true);
    await assert.rejects(plan(open()), { errno: 'EINVAL', message: /is that of group other, not of g/ });
  });

  it('R-16 the device of a dirty log that is not there: ENXIO', async () => {
    await assert.rejects(plan(mode('auto'), 'site/disk0.img', `disk 2 ${top}/dlog 8192`), {
      errno: 'ENXIO',
      message: /dlog, the dirty log of disk0 at site 1: it cannot be had: it does not exist \(ENOENT\); make it, or/,
    });
    fs.writeFileSync(path.join(top, 'dlog'), '');
    assert.deepEqual(
      (await plan(mode('auto'), 'site/disk0.img', `disk 2 ${top}/dlog 8192`)).config.devices[0]!.dirtyLogs,
      {
        1: ['disk', `${top}/dlog`, '8192'],
      },
    );
  });

  const unfit: { name: string; make: (file: string) => void; errno: string; says: RegExp }[] = [
    {
      name: 'something else',
      make: (file) => fs.writeFileSync(file, 'my letters'),
      errno: 'ENXIO',
      says: /dlog, the dirty log of disk0 at site 1: it holds something that is no dirty log; name another device, or/,
    },
    {
      name: 'the local image by another name',
      make: (file) => fs.linkSync(path.join(top, 'd0'), file),
      errno: 'EBUSY',
      says: /dlog, the dirty log of disk0 at site 1: it is the local image of disk0 already; name another device/,
    },
    {
      name: 'the log by another name',
      make: (file) => {
        haveLog();
        fs.symlinkSync(log, file);
      },
      errno: 'EBUSY',
      says: /it is the group's log already/,
    },
    {
      name: "a site's image by another name",
      make: (file) => {
        fs.mkdirSync(path.join(top, 'site'));
        fs.writeFileSync(path.join(top, 'site/disk0.img'), '');
        fs.linkSync(path.join(top, 'site/disk0.img'), file);
      },
      errno: 'EBUSY',
      says: /it is site 1's image of disk0 already/,
    },
    { name: 'a folder', make: (file) => fs.mkdirSync(file), errno: 'ENXIO', says: /it is a folder; name a file/ },
  ];
  for (const { name, make, errno, says } of unfit)
    it(`R-16 a dirty log on ${name}: ${errno}`, async () => {
      make(path.join(top, 'dlog'));
      const before = fs.statSync(path.join(top, 'dlog')).size;
      const word = errno === 'EBUSY' ? ' nosync' : '';
      const dirty = `disk ${word === '' ? 2 : 3} ${top}/dlog 8192${word}`;
      await assert.rejects(plan(mode('auto'), 'site/disk0.img', dirty), { errno, message: says });
      assert.equal(fs.statSync(path.join(top, 'dlog')).size, before, 'looking changes nothing');
    });

  it('R-16 a dirty log within the folder of a site: EBUSY', async () => {
    fs.mkdirSync(path.join(top, 'site'));
    fs.writeFileSync(path.join(top, 'site/dlog'), '');
    await assert.rejects(plan(mode('auto'), 'site/disk0.img', `disk 2 ${top}/site/dlog 8192`), {
      errno: 'EBUSY',
      message: /it is in the folder of site 1 already/,
    });
  });

  it('R-16 a dirty log that somebody has open: EBUSY', async () => {
    const fd = fs.openSync(path.join(top, 'dlog'), 'w');
    try {
      await assert.rejects(plan(mode('auto'), 'site/disk0.img', `disk 2 ${top}/dlog 8192`), {
        errno: 'EBUSY',
        message: /dlog, the dirty log of disk0 at site 1: it is in use: process \d+ .* has open .*dlog; free it/,
      });
    } finally {
      fs.closeSync(fd);
    }
  });

  it('R-19 what is on the device of a dirty log is overwritten where the table says sync or nosync', async () => {
    fs.writeFileSync(path.join(top, 'dlog'), 'my letters');
    await plan(mode('auto'), 'site/disk0.img', `disk 3 ${top}/dlog 8192 sync`);
    assert.equal(fs.readFileSync(path.join(top, 'dlog'), 'utf8'), 'my letters', 'but not by looking');
  });

  it('R-18 a remote path that is not there is no error: its folder is made by whoever brings it, later', async () => {
    const planned = await plan(mode('auto'), 'not/mounted/disk0.img');
    unlockGroup(await createGroup(state, planned.config, { table: { mode: 'auto' } }));
    assert.equal(loadConfig(state).sites[0]!.address, path.join(top, 'not/mounted'));
    assert.equal(fs.existsSync(path.join(top, 'not')), false);
  });

  it('R-18 a remote path that is there and wrong is an error, and nothing is left', async () => {
    fs.mkdirSync(path.join(top, 'site'));
    fs.writeFileSync(path.join(top, 'site/disk0.img'), 'somebody else');
    const planned = await plan(mode('auto'));
    const before = fs.readdirSync(top).sort();
    await assert.rejects(createGroup(state, planned.config, { table: { mode: 'auto' } }), { errno: 'EEXIST' });
    assert.deepEqual(fs.readdirSync(top).sort(), before);
    assert.deepEqual(fs.readdirSync(path.join(top, 'site')), ['disk0.img']);
    assert.equal(fs.statSync(path.join(top, 'd0')).size, SIZE);
  });

  it('R-18 the local device must be there: ENOENT, and have the size: EINVAL', async () => {
    await assert.rejects(plan(mode('auto'), 'site/disk0.img', 'nolog 0', SECTORS + 8), {
      errno: 'EINVAL',
      message: /d0: the local device of disk0 has 8192 sectors instead of 8200/,
    });
    fs.rmSync(path.join(top, 'd0'));
    await assert.rejects(plan(mode('auto')), {
      errno: 'ENOENT',
      message: /make it first, such as: truncate -s 4194304/,
    });
    fs.mkdirSync(path.join(top, 'd0'));
    await assert.rejects(plan(mode('auto')), { errno: 'EINVAL', message: /is a dir; name a file or a block device/ });
  });

  it('a local device that holds data is refused while there are sites, which would lack it', async () => {
    const fd = fs.openSync(path.join(top, 'd0'), 'r+');
    fs.writeSync(fd, 'x', SIZE - 1);
    fs.closeSync(fd);
    await assert.rejects(plan(mode('auto')), {
      errno: 'EINVAL',
      message: /holds data \(within 4 MiB\).*sites would lack/,
    });
  });

  it('a site that its type cannot make is refused before anything is made', async () => {
    const types = productTypes({});
    const picky = { ...types.peek(SLINK, 'blockdev')!, check: () => 'not to my liking; choose another' };
    types.unregister(SLINK, 'blockdev');
    types.register(SLINK, 'blockdev', picky);
    const table = readTable(text(mode('auto')), types);
    await assert.rejects(planTable(table, types, 'g', [], new AbortController().signal), {
      errno: 'EINVAL',
      message: /table: slink 1: not to my liking/,
    });
  });

  it('a creation that is taken back leaves what was there, and no log where there was a file', async () => {
    fs.writeFileSync(log, '');
    const planned = await plan(mode('auto'));
    const stop = new AbortController();
    const made = createGroup(state, planned.config, {
      table: { mode: 'auto' },
      signal: stop.signal,
      progress: (done, total) => void (done >= total && stop.abort()),
    });
    await assert.rejects(made, { errno: 'EINTR' });
    assert.equal(fs.existsSync(state), false);
    assert.ok(
      fs
        .readFileSync(log)
        .subarray(0, 8192)
        .every((byte) => byte === 0),
    );
    assert.ok(fs.existsSync(path.join(top, 'd0')));
  });
});
