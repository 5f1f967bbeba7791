/** A user without any capability: mounting through fusermount3, kills, adoption, and what is refused. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { processStart } from '../../src/control/keeper-client.js';
import type { StatusJson } from '../../src/control/status.js';
import { UserSpace, type UserOptions } from '../support/as-user.js';
import { CLI } from '../support/mounted.js';
import { describeOutcome, run, sleep, until, type Outcome } from '../support/proc.js';
import { needs, needsFuse, needsTool } from '../support/skip.js';

describe('ordinary user', function () {
  this.timeout(120_000);
  let space: UserSpace | undefined;

  before(async function () {
    needsFuse(this);
    needsTool(this, 'fusermount3', 'setpriv', 'nsenter', 'unshare', 'fio');
    const reads = await run('setpriv', ['--reuid', '65534', '--clear-groups', '--regid', '65534', 'test', '-r', CLI]);
    needs(this, reads.status === 0, 'needs a build that user nobody can read');
  });
  afterEach(async () => {
    await space?.close();
    space = undefined;
  });

  async function open(options: UserOptions = {}): Promise<UserSpace> {
    return (space = await UserSpace.open(options));
  }

  function refused(outcome: Outcome, ...says: RegExp[]): void {
    assert.equal(outcome.status, 1, describeOutcome('reptool', outcome));
    for (const pattern of says) assert.match(outcome.stderr, pattern);
    assert.equal(outcome.stderr.split('\n').filter((line) => line.startsWith('reptool: ')).length, 1);
  }

  async function status(s: UserSpace): Promise<StatusJson> {
    return JSON.parse(await s.fine('status', s.dir, '--json')) as StatusJson;
  }

  it('mounts in the state folder of the user, survives kill -9 under fio --verify, and remounts', async () => {
    const s = await open();
    const said = await s.mount();
    assert.match(said, new RegExp(`^created group default in ${s.groupDir}$`, 'm'));
    assert.match(said, /^transport kernel: mounted by fusermount3 .*without allow_other/m);
    const told = await status(s);
    assert.equal(told.transport, 'kernel');
    assert.match(told['transport-reason'], /user_allow_other/);
    const job = ['--name=job', `--filename=${s.disk}`, '--rw=randwrite', '--bs=4k', '--size=48m', '--iodepth=16'];
    const verify = ['--ioengine=libaio', '--direct=1', '--verify=crc32c', '--verify_state_save=0', '--randseed=7'];
    const fio = s.start('nobody', ['fio', ...job, ...verify, '--time_based', '--runtime=4', '--loops=100']);
    for (let kills = 0, last = 0; kills < 4; kills++) {
      const daemon = await until('a daemon', () => s.pids.daemon !== last && s.pids.daemon);
      await until('it serves', () => s.daemonLog.includes(`daemon ${daemon} serves`));
      await sleep(400);
      process.kill(daemon, 'SIGKILL');
      last = daemon;
    }
    const ran = await fio.done;
    assert.equal(ran.status, 0, describeOutcome('fio', ran));
    await s.must('nobody', 'sh', '-c', `echo kept | dd of=${s.disk} bs=512 conv=notrunc,sync,fsync status=none`);
    await s.fine('wait', s.dir, '--timeout', '30s');
    await s.fine('umount', s.dir);
    await s.ended();
    assert.deepEqual(await s.mounts(), []);
    assert.equal(readFileSync(s.image).toString('utf8', 0, 4), 'kept');
    assert.ok(readFileSync(s.image).equals(readFileSync(join(s.groupDir, 'site1/disk0.img'))));
    await s.mount();
    assert.equal(await s.must('nobody', 'head', '-c', '4', s.disk), 'kept');
    await s.fine('umount', s.dir);
  });

  it('a killed keeper is replaced, and the lock names the new one', async () => {
    const s = await open();
    await s.mount();
    const { keeper, daemon } = s.pids;
    process.kill(keeper!, 'SIGKILL');
    await until('the keeper is gone', () => processStart(keeper!) === undefined);
    const told = await status(s);
    assert.equal(told.pids.daemon, daemon);
    assert.equal(told.pids.keeper, s.pids.keeper);
    assert.notEqual(told.pids.keeper, keeper);
    await until('the lock names it', () => readFileSync(join(s.groupDir, 'lock'), 'utf8') === `${s.pids.keeper}\n`);
    // The new keeper does what the old one did.
    process.kill(daemon!, 'SIGKILL');
    assert.match(await s.fine('status', s.dir), /restarted 1 time/);
    await s.fine('umount', s.dir);
    await s.ended();
  });

  it('what is left when all were killed is taken away by its user, and the reason is found', async () => {
    const s = await open();
    await s.mount();
    await s.must('nobody', 'sh', '-c', `echo flushed | dd of=${s.disk} bs=512 conv=notrunc,sync,fsync status=none`);
    const { keeper, daemon, spare } = s.pids;
    process.kill(keeper!, 'SIGSTOP');
    for (const pid of [daemon, spare, keeper]) if (pid) process.kill(pid, 'SIGKILL');
    await s.ended();
    // Root looks with another state folder in mind: the mount itself says where the state lies.
    const root = await s.run('root', 'env', '-u', 'XDG_STATE_HOME', process.execPath, CLI, 'status', s.dir);
    assert.equal(root.status, 3);
    assert.match(root.stderr, /the reason: .*keeper and daemon are gone/);
    refused(await s.reptool('umount', s.dir), /no process served it any more/);
    assert.deepEqual(await s.mounts(), []);
    await s.mount();
    assert.equal(await s.must('nobody', 'head', '-c', '7', s.disk), 'flushed');
    await s.fine('umount', s.dir);
  });

  it('lets others in where fuse.conf permits it', async () => {
    const s = await open({ fuseConf: 'user_allow_other\n' });
    assert.doesNotMatch(await s.mount(), /^transport/m);
    assert.match((await status(s))['transport-reason'], /with allow_other/);
    assert.match(await s.must('root', 'cat', join(s.dir, '.ctl/status')), /replicator/);
    await s.fine('umount', s.dir);
  });

  it('keeps root out where it does not, and says who has access', async () => {
    const s = await open();
    await s.mount();
    const outcome = await s.run('root', process.execPath, CLI, 'status', s.dir);
    assert.equal(outcome.status, 3);
    assert.match(outcome.stderr, /run as the user who mounted it/);
    await s.fine('umount', s.dir);
  });

  it('names who keeps the tree busy, and detaches it with --lazy', async () => {
    const s = await open();
    await s.mount();
    const idler = s.start('nobody', ['sh', '-c', `cd ${s.dir} && exec sleep 60`]);
    await until('it is there', () => s.processes().length >= 3 && !idler.ended);
    await sleep(200);
    refused(await s.reptool('umount', s.dir), /busy: process \d+ \(sleep\) works in/);
    assert.match(await s.fine('umount', s.dir, '--lazy'), /^detached /);
    assert.deepEqual(await s.mounts(), []);
    await idler.stop('SIGKILL');
    await s.ended();
  });

  const CASES: { name: string; options: UserOptions; before?: (s: UserSpace) => void; says: RegExp[] }[] = [
    {
      name: 'fusermount3 missing',
      options: { withoutFusermount: true },
      says: [/fusermount3, which mounts for users, is not installed/, /Debian the package fuse3/, /run as root/],
    },
    {
      name: '/dev/fuse not open to users',
      options: { fuseMode: '600' },
      says: [/\/dev\/fuse: permission denied \(EACCES\); run as root, or have it opened to users/],
    },
    {
      name: 'a mount point of somebody else',
      options: {},
      before: (s) => {
        rmdirSync(s.dir);
        mkdirSync(s.dir, { mode: 0o755 });
      },
      says: [/the folder belongs to user 0, and user 65534 can only mount on a folder of their own/],
    },
  ];
  for (const { name, options, before: prepare, says } of CASES) {
    it(`refuses with one sentence and leaves nothing behind: ${name}`, async () => {
      const s = await open(options);
      prepare?.(s);
      refused(await s.reptool('mount', s.dir, '--size', '64M', '--log-size', '32M'), ...says);
      assert.equal(existsSync(join(s.stateHome, 'reptool')), false);
      assert.deepEqual(await s.mounts(), []);
      assert.deepEqual(s.processes(), []);
    });
  }
});
