/** The keeper against a real kernel, with the small daemon of test/support/fuse-daemon. */
import assert from 'node:assert/strict';
import { existsSync, openSync, closeSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import {
  RUN_FILE,
  adoptIfOrphaned,
  isRunning,
  keeperRuns,
  processStart,
  readFailure,
  waitEnded,
} from '../../src/control/keeper-client.js';
import { ERRNO, RepError } from '../../src/base/errors.js';
import { LOCK_EX, LOCK_NB, flock } from '../../src/base/sys.js';
import { abortConnection, forceUnmount, unmount } from '../../src/fuse/mount.js';
import { Bench, type BenchOptions } from '../support/fuse-keeper.js';
import { needsFuse, needsTool } from '../support/skip.js';

function namespaceOf(pid: number | string): string {
  return readlinkSync(`/proc/${pid}/ns/mnt`);
}

describe('keeper', function () {
  this.timeout(40_000);
  let bench: Bench | undefined;

  before(function () {
    needsFuse(this);
  });

  afterEach(async function () {
    const used = bench;
    bench = undefined;
    if (used === undefined) return;
    if (this.currentTest?.state === 'failed') console.log(used.log());
    await used.clean();
    assert.equal(used.isMounted(), false, 'a mount was left behind');
  });

  function make(options: BenchOptions = {}): Bench {
    bench = new Bench(options);
    return bench;
  }

  it('serves, and ends with every process when it is unmounted', async () => {
    const b = make();
    const run = await b.start();
    assert.equal(run.resend, true);
    await b.withSpare();
    const result = await b.app(200);
    assert.deepEqual([result.error, result.wrong], [null, 0]);
    assert.ok(result.writes > 0);

    assert.equal(await unmount(b.mountpoint), 0);
    assert.equal(await waitEnded(run, 5000), true);
    await b.ended();
    assert.equal(b.run(), undefined, 'run.json is left');
    assert.match(b.log(), /drained \d+/);
    assert.equal(b.failure(), '');
  });

  it('brings the next daemon under load without an error, warm and cold', async () => {
    const b = make();
    let run = await b.start();
    const app = b.app(5000);
    for (let i = 0; i < 6; i++) {
      // Every second time the spare is not there yet.
      if (i % 2 === 0) await b.withSpare();
      else await pause(30);
      const { daemon, spare } = b.run()!;
      process.kill(daemon, 'SIGKILL');
      run = await b.replaced(daemon);
      if (i % 2 === 0) assert.equal(run.daemon, spare, 'the spare was not promoted');
    }
    const result = await app;
    assert.deepEqual([result.error, result.wrong], [null, 0]);
    assert.equal(run.born, 7);
    const times = b.restarts();
    assert.equal(times.length, 6);
    console.log(`        restart ms: ${times.join(' ')}; longest wait ${result.longestMs.toFixed(1)} ms`);
  });

  it('replaces a spare that dies', async () => {
    const b = make();
    await b.start();
    const { daemon, spare } = await b.withSpare();
    process.kill(spare!, 'SIGKILL');
    const next = await b.until('another spare', () => {
      const run = b.run();
      return run?.spare != null && run.spare !== spare && run;
    });
    assert.equal(next.daemon, daemon);
    assert.equal((await b.app(50)).error, null);
  });

  it('gives up after too many quick deaths: EIO, failure.txt, and umount ends it', async () => {
    const b = make({
      env: { REPTOOL_QUICK_DEATHS: '3', REPTOOL_SPARE_MS: '20' },
      daemonEnv: { TESTD_CRASH_MS: '50' },
    });
    await b.start();
    const result = await b.app(10_000);
    assert.equal(result.error, 'EIO');
    assert.match(b.failure(), /died 4 times .*get EIO/);
    const run = await b.until('the reason in run.json', () => {
      const now = b.run();
      return now?.failure !== undefined && now;
    });
    assert.match(run.failure!, /unmount, repair, mount again/);
    // Stays so, for everybody.
    assert.equal((await b.app(100)).error, 'EIO');
    assert.equal(isRunning({ pid: run.keeper, start: run.keeperStart }), true);

    assert.equal(await unmount(b.mountpoint), 0);
    await b.ended();
    assert.equal(existsSync(join(b.groupDir, RUN_FILE)), false);
    assert.match(readFailure(b.groupDir)!, /died 4 times/);
    assert.match(b.log(), /drained/, 'the window was not brought into the log');
  });

  it('reports what the daemon refuses, and leaves no mount', async () => {
    const b = make({ daemonEnv: { TESTD_REFUSE: 'no log here; make one' } });
    await assert.rejects(b.start(), (error: unknown) => {
      assert.ok(error instanceof RepError);
      assert.deepEqual([error.errno, error.message], ['ENXIO', 'no log here; make one']);
      return true;
    });
    await b.until('unmounted', () => !b.isMounted());
  });

  it('refuses a second keeper for the group', async () => {
    const b = make();
    await b.start();
    await assert.rejects(b.start(), /another keeper runs/);
    assert.equal((await b.app(50)).error, null);
  });

  it('kills a daemon that stands still, and goes on with the next', async () => {
    const b = make({ env: { REPTOOL_WATCHDOG_MS: '600' } });
    await b.start();
    const { daemon } = await b.withSpare();
    const app = b.app(2500);
    await pause(200);
    process.kill(daemon, 'SIGSTOP');
    await b.replaced(daemon);
    assert.equal(processStart(daemon), undefined);
    const result = await app;
    assert.deepEqual([result.error, result.wrong], [null, 0]);
    assert.ok(result.longestMs > 300 && result.longestMs < 2000, `waited ${result.longestMs} ms`);
    assert.match(b.log(), /no progress for 600 ms; killed/);
  });

  it('aborts the connection of a daemon that waits for itself and that SIGKILL does not end', async () => {
    const b = make({
      env: { REPTOOL_WATCHDOG_MS: '400' },
      daemonEnv: { TESTD_HOLD: '1', TESTD_KNOT: '300' },
    });
    await b.start();
    const { error } = await b.app(10_000);
    assert.ok(error === 'ENOTCONN' || error === 'ECONNABORTED', `${error}`);
    await b.ended();
    assert.equal(b.isMounted(), false);
    assert.match(b.failure(), /could not be killed; the connection was aborted/);
  });

  it('is replaced when it alone was killed, and the new one survives the death of the daemon', async () => {
    const b = make();
    const first = await b.start();
    await b.withSpare();
    const app = b.app(6000);
    process.kill(first.keeper, 'SIGKILL');
    await b.until('the keeper is dead', () => !keeperRuns(first));
    await pause(200);
    // Two commands at once: one new keeper.
    const outcomes = await Promise.all([
      adoptIfOrphaned(b.groupDir, b.options),
      adoptIfOrphaned(b.groupDir, b.options),
    ]);
    assert.ok(outcomes.includes('adopted'), outcomes.join());
    const run = await b.withSpare();
    assert.notEqual(run.keeper, first.keeper);
    assert.equal(run.daemon, first.daemon);
    assert.equal(await adoptIfOrphaned(b.groupDir, b.options), 'kept');

    process.kill(run.daemon, 'SIGKILL');
    const next = await b.replaced(run.daemon, true);
    process.kill(next.daemon, 'SIGKILL');
    await b.replaced(next.daemon);
    const result = await app;
    assert.deepEqual([result.error, result.wrong], [null, 0]);
    assert.equal(await unmount(b.mountpoint), 0);
    await b.ended();
  });

  it('ends with an adopted daemon that is unmounted', async () => {
    const b = make();
    const first = await b.start();
    process.kill(first.keeper, 'SIGKILL');
    await b.until('the keeper is dead', () => !keeperRuns(first));
    assert.equal(await adoptIfOrphaned(b.groupDir, b.options), 'adopted');
    assert.equal(b.run()!.daemon, first.daemon);
    assert.equal((await b.app(50)).error, null);
    assert.equal(await unmount(b.mountpoint), 0);
    await b.ended();
    assert.equal(b.run(), undefined);
  });

  it('brings what is in memory only into the log when the last daemon fails to', async () => {
    const b = make({ daemonEnv: { TESTD_LEAVE: '1' } });
    await b.start();
    await b.app(50);
    assert.equal(await unmount(b.mountpoint), 0);
    await b.ended();
    assert.match(b.log(), /records are in memory only/);
    assert.match(b.log(), /drained/);
  });

  it('unmounts lazily: an open file is served until it is closed', async () => {
    const b = make();
    const run = await b.start();
    await b.withSpare();
    const app = b.app(2500);
    await pause(300);
    assert.equal(await unmount(b.mountpoint, true), 0);
    assert.equal(b.isMounted(), false);
    await b.until('the keeper has noticed', () => b.log().includes('unmounted lazily'));
    // Survives the death of the daemon as before.
    process.kill(run.daemon, 'SIGKILL');
    const result = await app;
    assert.deepEqual([result.error, result.wrong], [null, 0]);
    await b.ended();
    assert.match(b.log(), /drained/);
  });

  for (const adopted of [false, true])
    it(`ends${adopted ? ' an adopted daemon' : ''} in spite of a copy of the mount in another namespace`, async function () {
      needsTool(this, 'unshare', 'sleep');
      const b = make();
      const run = await b.start();
      const other = b.spawn('unshare', '--mount', '--propagation', 'private', 'sleep', '30');
      await b.until('the copy', () => namespaceOf(other) !== namespaceOf('self'));
      assert.equal((await b.app(50)).error, null);
      if (adopted) {
        process.kill(run.keeper, 'SIGKILL');
        await b.until('the keeper is dead', () => !keeperRuns(run));
        assert.equal(await adoptIfOrphaned(b.groupDir, b.options), 'adopted');
        b.run();
      }
      assert.equal(await unmount(b.mountpoint), 0);
      await b.until('the keeper has ended', () => b.run() === undefined);
      assert.match(b.log(), /is unmounted/);
      assert.match(b.log(), /drained/);
      assert.notEqual(processStart(other), undefined, 'the other namespace was to outlive it');
    });

  it('drains and ends when the connection is aborted', async () => {
    const b = make();
    const run = await b.start();
    const app = b.app(8000);
    await pause(300);
    // Without fusectl, as in many containers, FORCE does the same.
    if (!(await abortConnection(run.minor))) assert.equal(await forceUnmount(b.mountpoint), true);
    const { error } = await app;
    assert.ok(error === 'ENOTCONN' || error === 'ECONNABORTED', `${error}`);
    await b.ended();
    assert.equal(b.isMounted(), false);
    assert.match(b.log(), /drained/);
  });

  it('without RESEND in the kernel: pending requests fail instead of hanging', async () => {
    const b = make({ env: { REPTOOL_TEST_NO_RESEND: '1' }, daemonEnv: { TESTD_HOLD: '1' } });
    const run = await b.start();
    assert.deepEqual([run.resend, run.spare], [false, null]);
    const app = b.app(8000);
    await pause(500);
    process.kill(run.daemon, 'SIGKILL');
    const { error } = await app;
    assert.ok(error === 'ENOTCONN' || error === 'ECONNABORTED', `${error}`);
    await b.ended();
    assert.match(b.failure(), /cannot send requests again/);
    assert.equal(b.isMounted(), false);
  });

  it('unmounts on SIGTERM, but not while it is in use; SIGHUP is nothing', async () => {
    const b = make();
    const run = await b.start();
    const app = b.app(800);
    await pause(300);
    process.kill(run.keeper, 'SIGHUP');
    process.kill(run.keeper, 'SIGTERM');
    assert.equal((await app).error, null);
    assert.match(b.log(), /it is in use; stays mounted/);
    assert.equal(b.isMounted(), true);
    process.kill(run.keeper, 'SIGTERM');
    await b.ended();
    assert.equal(b.isMounted(), false);
  });

  it('hands the lock on, so that it is held as long as anyone serves', async () => {
    const b = make();
    const run = await b.start();
    const fd = openSync(join(b.groupDir, 'lock'), 'r');
    try {
      assert.equal(flock(fd, LOCK_EX | LOCK_NB), -ERRNO.EAGAIN);
      process.kill(run.keeper, 'SIGKILL');
      await b.until('the keeper is dead', () => !keeperRuns(run));
      assert.equal(flock(fd, LOCK_EX | LOCK_NB), -ERRNO.EAGAIN);
    } finally {
      closeSync(fd);
    }
  });
});
