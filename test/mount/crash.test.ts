/** Keeper and daemon killed together, as a power failure would: what was flushed is there, and nothing is mixed. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { assertAllSame } from '../support/content.js';
import { fio } from '../support/fio.js';
import { History } from '../support/history.js';
import { Mounted, imageIn } from '../support/mounted.js';
import { describeOutcome, must, seedOfRun, seeded, sleep, until } from '../support/proc.js';
import { statusOf, untilStatus } from '../support/status.js';
import { needsFuse, needsTool } from '../support/skip.js';

const RECOVERY_LIMIT_MS = 500;

describe('all processes killed at once', function () {
  this.timeout(150_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(() => mounted?.cleanup());

  /** `reptool site recover` on a copy of site 1's folder, as on another machine; the prefix that it holds. */
  async function recoveredSite(m: Mounted, history: History, round: number): Promise<number> {
    const copy = join(m.top, `site-copy-${round}`);
    await must('cp', ['-a', '--sparse=always', m.siteFolder, copy], { timeoutMs: 30_000 });
    const outcome = await m.reptool(['site', 'recover', copy]);
    assert.equal(outcome.status, 0, describeOutcome('reptool site recover', outcome));
    return history.prefixIn(imageIn(copy), `round ${round}, recovered site`);
  }

  for (const mode of ['flush', 'dsync'] as const) {
    it(`keeps every ${mode === 'flush' ? 'flushed' : 'O_DSYNC'} write; device and site are prefixes of history`, async () => {
      const m = (mounted = await Mounted.start({ size: '32M', logSize: '32M' }));
      const history = new History(m);
      const seed = seedOfRun();
      const random = seeded(seed);
      const said: string[] = [];
      let first = 1;
      for (let round = 1; round <= 6; round++) {
        const writer = history.start(mode, first);
        await until(
          'some writes are flushed',
          () => history.flushed > first + 200,
          20_000,
          5,
          () => writer.stderr,
        );
        await sleep(random(400));
        await m.killAll();
        writer.kill();
        const flushed = history.flushed;
        const site = await recoveredSite(m, history, round);
        await m.mount();
        const there = await history.onDevice();
        assert.ok(
          there >= flushed,
          `round ${round} (seed ${seed}): write ${flushed} was flushed, the device ends at ${there}`,
        );
        assert.ok(
          site <= there,
          `round ${round} (seed ${seed}): site 1 is at ${site}, ahead of the device at ${there}`,
        );
        const { recovery, reign } = await statusOf(m);
        assert.equal(recovery.how, 'replayed');
        assert.ok(reign > round, `round ${round}: still reign ${reign}`);
        said.push(`${flushed}/${there}/${site}`);
        first = there + 1;
      }
      console.log(`      seed ${seed}; flushed/device/site per round: ${said.join(' ')}`);
      await assertAllSame(m);
    });
  }

  it('with --durability write every acknowledged write is there', async () => {
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '32M', durability: 'write' }));
    const history = new History(m);
    const plain = history.start('plain');
    await until(
      'some writes are acknowledged',
      () => history.flushed > 500,
      20_000,
      5,
      () => plain.stderr,
    );
    await m.killAll();
    plain.kill();
    const flushed = history.flushed;
    await m.mount();
    const there = await history.onDevice();
    assert.ok(there >= flushed, `write ${flushed} was acknowledged, the device ends at ${there}`);
  });

  it('a daemon and its keeper killed in turn lose nothing', async () => {
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '32M' }));
    const history = new History(m);
    const writer = history.start('flush');
    await until(
      'some writes are flushed',
      () => history.flushed > 200,
      20_000,
      5,
      () => writer.stderr,
    );
    await m.killDaemon();
    await sleep(30);
    await m.killAll();
    writer.kill();
    const flushed = history.flushed;
    await m.mount();
    const there = await history.onDevice();
    assert.ok(there >= flushed, `write ${flushed} was flushed, the device ends at ${there}`);
    await assertAllSame(m);
  });

  it(`a full 1 GiB log is recovered in less than ${RECOVERY_LIMIT_MS} ms`, async function () {
    needsTool(this, 'fio');
    const m = (mounted = await Mounted.start({ size: '256M', logSize: '1G' }));
    await m.site('pause');
    // More than the log holds: the last writes wait for room.
    const job = { ioengine: 'libaio', direct: 1, rw: 'write', bs: '1m', iodepth: 4, size: '256m', loops: 5 };
    const filling = fio(m, m.disk, job, 60_000);
    await untilStatus(m, 'the log is full', (s) => s.window.parked > 0 && s.log.used > 0.95 * s.log.size, 50_000);
    await m.killAll();
    await filling;
    const started = performance.now();
    await m.mount();
    const wall = performance.now() - started;
    const { recovery, log } = await statusOf(m);
    console.log(
      `      ${recovery.records} records, ${recovery.bytes} bytes replayed in ${recovery.milliseconds.toFixed(0)} ms ` +
        `(log ${Math.round((log.used / log.size) * 100)} % full); mounted after ${wall.toFixed(0)} ms in all`,
    );
    assert.equal(recovery.how, 'replayed');
    assert.ok(recovery.milliseconds < RECOVERY_LIMIT_MS, `recovery took ${recovery.milliseconds} ms`);
    await m.site('resume');
    await assertAllSame(m);
  });
});
