/** The fuse-native transport where it differs: who dies, who is told, and what is still there afterwards. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { processStart } from '../../src/control/keeper-client.js';
import type { StatusJson } from '../../src/control/status.js';
import { UserSpace } from '../support/as-user.js';
import { assertSame } from '../support/content.js';
import { CLI, Mounted } from '../support/mounted.js';
import { describeOutcome, must, run, sleep, until, type Outcome } from '../support/proc.js';
import { needs, needsFuse, needsTool } from '../support/skip.js';

const SHAPE = { size: '64M', logSize: '64M', transport: 'fuse-native' } as const;
/** Where Debian keeps libfuse 2. */
const SYSTEM_LIBFUSE = '/lib/x86_64-linux-gnu/libfuse.so.2';
const DSYNC_ROUNDS = 5;
const ACKED_ROUNDS = 5;

describe('fuse-native transport', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;
  let space: UserSpace | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(async () => {
    await mounted?.cleanup();
    await space?.close();
    mounted = space = undefined;
  });

  async function status(m: Mounted): Promise<StatusJson> {
    return JSON.parse(await m.control('status.json')) as StatusJson;
  }

  /** The keeper takes the dead mount away, drains, and ends. */
  async function gone(m: Mounted): Promise<void> {
    await until('keeper and daemons end', () => m.processes().length === 0, 30_000);
    assert.equal(m.isMounted, false, m.daemonLog);
  }

  /** Runs a line of JavaScript on the disk and then kills `victims` from within it, with nothing between. */
  function writeAndKill(m: Mounted, flags: string, fill: number, victims: number[]): Promise<string> {
    const script = `
      const fs = require('node:fs');
      const fd = fs.openSync(process.argv[1], fs.constants.O_WRONLY | (${flags}));
      const block = Buffer.alloc(65536, ${fill});
      for (let at = 0; at < 16; at++) fs.writeSync(fd, block, 0, block.length, at * block.length);
      for (const pid of ${JSON.stringify(victims)}) process.kill(pid, 'SIGKILL');`;
    return must(process.execPath, ['-e', script, m.disk], { timeoutMs: 20_000 });
  }

  function expectImage(m: Mounted, fill: number, what: string): void {
    const found = readFileSync(m.image).subarray(0, 16 * 65536);
    assert.ok(found.equals(Buffer.alloc(found.length, fill)), what);
  }

  it('! what was acknowledged, flushed or not, outlives the daemon; the reason is told, the next mount has it', async () => {
    const m = (mounted = await Mounted.start(SHAPE));
    let drained = 0;
    for (let round = 1; round <= ACKED_ROUNDS; round++) {
      await writeAndKill(m, '0', round, [await m.serving()]);
      await gone(m);
      const failure = readFileSync(join(m.groupDir, 'failure.txt'), 'utf8');
      assert.match(failure, /ended \(SIGKILL\), and the fuse-native transport does not survive that; mount again/);
      drained += m.daemonLog.match(/records are in memory only/g)?.length ?? 0;
      if (/in memory only/.test(m.daemonLog)) assert.match(failure, /everything that was acknowledged is in the log/);
      const asked = await m.sh(`${process.execPath} ${CLI} status ${m.dir}`);
      assert.equal(asked.status, 3);
      assert.match(asked.stderr, /the reason: .*the fuse-native transport does not survive that/);
      expectImage(m, round, `round ${round}: the local image`);
      rmSync(join(m.groupDir, 'daemon.log'));
      await m.mount();
      assert.equal(existsSync(join(m.groupDir, 'failure.txt')), false, 'the reason is out of date once it is mounted');
      await assertSame(m.disk, m.image, `round ${round}: the device`);
    }
    assert.ok(drained > 0, 'no kill left anything to drain: the test shows nothing');
    await m.drain();
    await m.umount();
    await assertSame(m.image, m.siteImage, 'the site');
  });

  it('! the reason is found wherever the state lies, also when the mount is gone, until the next mount', async () => {
    const m = (mounted = new Mounted(SHAPE));
    // The environment of a shell in which nobody said where the state is.
    const status = (): Promise<Outcome> => m.reptool(['status', m.dir]);
    await m.mount();
    assert.deepEqual(pointers(m), []);
    for (let round = 0; round < 2; round++) {
      process.kill(await m.serving(), 'SIGKILL');
      await gone(m);
      const asked = await status();
      assert.equal(asked.status, 3);
      assert.match(asked.stderr, /the reason: .*the fuse-native transport does not survive that; mount again/);
      assert.deepEqual(pointers(m), [m.groupDir]);
      const elsewhere = await m.reptool(['status', join(m.top, 'other')]);
      assert.doesNotMatch(elsewhere.stderr, /the reason/);
      rmSync(join(m.groupDir, 'daemon.log'));
      await m.mount();
      assert.deepEqual(pointers(m), []);
    }
    await m.umount();
    assert.doesNotMatch((await status()).stderr, /the reason/, 'nothing is left to be told after a proper end');
  });

  function pointers(m: Mounted): string[] {
    const folder = join(m.top, 'run', 'gave-up');
    return existsSync(folder) ? readdirSync(folder).map((name) => readlinkSync(join(folder, name))) : [];
  }

  it('! an O_DSYNC write is in the log before it is acknowledged, also with O_DIRECT', async () => {
    const m = (mounted = await Mounted.start(SHAPE));
    for (let round = 1; round <= DSYNC_ROUNDS; round++) {
      const flags = round % 2 === 0 ? 'fs.constants.O_DSYNC | fs.constants.O_DIRECT' : 'fs.constants.O_DSYNC';
      const daemon = await m.serving();
      // The keeper and its window die as well: only the log's file can know of the writes.
      await writeAndKill(m, flags, round, [m.pids.keeper!, daemon]);
      await until('all are gone', () => m.processes().length === 0, 10_000);
      await must('umount', ['-l', m.dir], { timeoutMs: 10_000 });
      await m.mount();
      const found = await must('head', ['-c', '1048576', m.disk], { timeoutMs: 10_000 });
      assert.equal(found, String.fromCharCode(round).repeat(1048576), `round ${round} (${flags})`);
      rmSync(join(m.groupDir, 'daemon.log'));
      await m.umount();
      await m.mount();
    }
    await m.umount();
  });

  it('an open file gets errors, not a hang, when the daemon dies', async () => {
    const m = (mounted = await Mounted.start(SHAPE));
    const script = `
      const fs = require('node:fs');
      const fd = fs.openSync(process.argv[1], 'r+');
      console.log('open');
      for (;;) try { fs.writeSync(fd, Buffer.alloc(4096), 0, 4096, 0); }
      catch (error) { console.log(error.code); process.exit(); }`;
    const app = m.spawn(process.execPath, ['-e', script, m.disk], { timeoutMs: 20_000 });
    await until('it writes', () => app.stdout.includes('open'));
    await sleep(100);
    await m.killDaemon();
    assert.match((await app.done).stdout, /ENOTCONN|ECONNABORTED/);
    await gone(m);
  });

  it('a killed keeper is replaced; the new one unmounts and drains when the daemon dies', async () => {
    const m = (mounted = await Mounted.start(SHAPE));
    const { keeper, daemon } = m.pids;
    process.kill(keeper!, 'SIGKILL');
    await until('the keeper is gone', () => processStart(keeper!) === undefined);
    const asked = await m.reptool(['status', m.dir, '--json']);
    assert.equal(asked.status, 0, describeOutcome('status', asked));
    assert.equal((JSON.parse(asked.stdout) as StatusJson).pids.daemon, daemon);
    await writeAndKill(m, '0', 7, [daemon!]);
    await gone(m);
    await m.mount();
    expectImage(m, 7, 'the local image');
    await m.umount();
  });

  it('writers wait while the log is full, control files are served, and nothing is lost', async () => {
    const m = (mounted = await Mounted.start({ ...SHAPE, logSize: '16M' }));
    await m.site('pause');
    const writing = m.spawn('dd', ['if=/dev/urandom', `of=${m.disk}`, 'bs=1M', 'count=40', 'conv=notrunc,fsync']);
    await until('the log is full', async () => (await status(m)).log.state === 'full', 20_000);
    await sleep(300);
    assert.equal(writing.ended, false, 'the writer waits');
    await m.site('resume');
    assert.equal((await writing.done).status, 0);
    await m.drain();
    await m.umount();
    await assertSame(m.image, m.siteImage, 'the site');
  });

  it('auto takes it where the kernel transport does not mount, and says why', async () => {
    const m = (mounted = new Mounted({ ...SHAPE, transport: 'auto', env: { REPTOOL_TEST_NO_KERNEL_FUSE: '1' } }));
    await m.mount();
    const told = await status(m);
    assert.equal(told.transport, 'fuse-native');
    assert.match(told['transport-reason'], /kernel transport does not mount: .*the kernel speaks FUSE 7.0/);
    await m.umount();
    const outcome = await m.tryMount({ transport: 'kernel' });
    assert.equal(outcome.status, 1);
    assert.match(outcome.stderr, /the kernel speaks FUSE 7\.0/);
    assert.equal(m.isMounted, false);
    await m.mount({ env: {}, transport: 'auto' });
    assert.equal((await status(m)).transport, 'kernel');
    await m.umount();
  });

  it('needs no libfuse of the system', async function () {
    needs(this, process.arch === 'x64', 'the package brings libfuse for x64 only');
    needsTool(this, 'unshare');
    const m = (mounted = new Mounted(SHAPE));
    writeFileSync(join(m.top, 'none'), '');
    const words = [CLI, 'mount', m.dir, '--state', m.state, '--size', '64M', '--log-size', '16M'];
    const hide = existsSync(SYSTEM_LIBFUSE)
      ? `mount --bind ${join(m.top, 'none')} "$(realpath ${SYSTEM_LIBFUSE})" && `
      : '';
    const line = [process.execPath, ...words, '--transport', 'fuse-native'].join(' ');
    const read = `${line} && cat ${m.dir}/.ctl/status && ${process.execPath} ${CLI} umount ${m.dir}`;
    const outcome = await run('unshare', ['-m', 'sh', '-c', hide + read], { timeoutMs: 30_000 });
    assert.equal(outcome.status, 0, describeOutcome('mount', outcome) + m.daemonLog);
    assert.match(outcome.stdout, /replicator-dev/);
  });

  it('works for an ordinary user', async function () {
    needsTool(this, 'fusermount', 'setpriv', 'nsenter', 'unshare');
    const reads = await run('setpriv', ['--reuid', '65534', '--clear-groups', '--regid', '65534', 'test', '-r', CLI]);
    needs(this, reads.status === 0, 'needs a build that user nobody can read');
    const s = (space = await UserSpace.open());
    const words = ['mount', s.dir, '--size', '64M', '--log-size', '32M', '--transport', 'fuse-native'];
    await s.fine(...words);
    assert.match(await s.fine('status', s.dir), /transport:fuse-native, as asked for; .*without allow_other/);
    await s.must('nobody', 'sh', '-c', `echo kept | dd of=${s.disk} bs=512 conv=notrunc,sync,fsync status=none`);
    process.kill(s.pids.daemon!, 'SIGKILL');
    await s.ended();
    assert.deepEqual(await s.mounts(), []);
    await s.fine(...words);
    assert.equal(await s.must('nobody', 'head', '-c', '4', s.disk), 'kept');
    await s.fine('umount', s.dir);
    await s.ended();
  });
});
