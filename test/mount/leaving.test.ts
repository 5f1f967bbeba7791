/** Sites that leave a full ring: the local disk goes on, what they lack is marked, and the marks outlive everything. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { assertAllSame, assertSame } from '../support/content.js';
import type { FioArgs } from '../support/fio.js';
import { VERIFY, assertClean, fio, fioDone, fioStart, type FioResult } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { sleep } from '../support/proc.js';
import { siteStatus, untilSite, untilStatus } from '../support/status.js';

const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', bs: '16k', iodepth: 16 };

/** Parts that meet later are turned on for these mounts. */
const SERVED = { REPTOOL_TEST_RESYNC: '1' };

/** How long any write took at most, milliseconds. */
function longestWrite(result: FioResult): number {
  const text = result.outcome.stdout;
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { write: { clat_ns: { max: number } } }[] };
  return jobs[0]!.write.clat_ns.max / 1e6;
}

describe('leaving a full ring', function () {
  this.timeout(90_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  /** How long writers had waited when site 1 was dropped, milliseconds: the shortest of all drops. */
  function waited(m: Mounted): number {
    const told =
      /site 1: left the ring, for which writers had waited (\d+) ms: \d+ regions? (?:is|are) marked and will be resynced/g;
    const times = [...m.daemonLog.matchAll(told)].map((match) => Number(match[1]));
    assert.ok(times.length > 0, m.daemonLog);
    return Math.min(...times);
  }

  it('! the local disk stays usable: with a dead site a full ring goes on within 100 ms', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    await m.drain();
    await m.site('pause');
    const result = await fio(m, m.disk, { ...WRITES, bs: '4k', size: '48m' }, 60_000);
    assertClean(result, 'with the site paused');
    const ms = waited(m);
    console.log(
      `      dropped after ${ms} ms at best; the longest of all writes took ${longestWrite(result).toFixed(0)} ms`,
    );
    assert.ok(ms <= 100, `the drop took ${ms} ms`);
    await untilStatus(m, 'no longer full', (s) => s.log.state !== 'full', 5000);
    assert.equal((await siteStatus(m)).sync, 'inconsistent');
    assert.match(await m.control('events'), /left the ring/);
  });

  it('! a site that left is made equal beside new writes, and is in order again', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '16m' }, 60_000), 'before');
    await m.drain();
    await m.site('pause');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '48m', randseed: 2 }, 60_000), 'with the site paused');
    await m.site('resume');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '24m', randseed: 3 }, 60_000), 'while it is resynced');
    await untilSite(m, 'in order', (s) => s.sync === 'in-sync' && s.state === 'connected', 40_000);
    assert.match(m.daemonLog, /site 1: everything that was missed was resynced; it is in order again/);
    await assertAllSame(m);
  });

  it('! daemons that are killed while a site is resynced carry it on', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    await m.drain();
    await m.site('pause');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '48m' }, 60_000), 'with the site paused');
    await m.site('resume');
    const writer = fioStart(m, m.disk, { ...WRITES, size: '48m', randseed: 7, rate: '8m' }, 80_000);
    for (let i = 0; i < 6; i++) {
      await m.serving(await m.killDaemon());
      await sleep(150 * i);
    }
    assertClean(await fioDone(writer), 'across the kills');
    await untilSite(m, 'in order', (s) => s.sync === 'in-sync' && s.state === 'connected', 40_000);
    await assertAllSame(m);
  });

  it('a site that is added when the history has left the log is given everything by copying', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '48m' }, 60_000), 'before');
    const folder = join(m.top, 'site2');
    const added = await m.reptool(['site', 'add', '2', `blockdev:${folder}`, '--mount', m.dir], { timeoutMs: 60_000 });
    assert.equal(added.status, 0, added.stderr);
    assert.match(added.stdout, /everything is copied to it/);
    assertClean(await fio(m, m.disk, { ...WRITES, size: '8m', randseed: 3 }, 60_000), 'meanwhile');
    await untilStatus(m, 'in order', (s) => s.connections.every((c) => c.sync === 'in-sync'), 40_000);
    await assertAllSame(m);
    await assertSame(m.image, join(folder, 'disk0.img'), 'site 2');
  });

  it('! a lost index: the site is compared and made equal, and only then called in order', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '32m' }, 60_000), 'before');
    await m.drain();
    await m.umount();
    rmSync(join(m.groupDir, 'index'), { recursive: true });
    await m.mount({ env: SERVED });
    assertClean(await fio(m, m.disk, { ...WRITES, size: '8m', randseed: 3 }, 60_000), 'meanwhile');
    await untilSite(m, 'in order', (s) => s.sync === 'in-sync' && s.state === 'connected', 40_000);
    assert.match(m.daemonLog, /everything that was missed was resynced/);
    await assertAllSame(m);
  });

  it('a daemon that is killed behind the drop finds the marks, and the site still out of the ring', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    await m.site('pause');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '32m' }, 60_000), 'before');
    await m.serving(await m.killDaemon());
    assert.equal((await siteStatus(m)).sync, 'inconsistent');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '48m', randseed: 3 }, 60_000), 'behind the kill');
    await m.umount();
    await m.mount({ env: SERVED });
    assert.equal((await siteStatus(m)).sync, 'inconsistent');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '16m', randseed: 5 }, 60_000), 'mounted again');
  });

  it('! stall holds writers as ever, and status says who', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M', env: SERVED }));
    await m.drain();
    assert.equal((await m.reptool(['site', 'set', '1', '--stall', '--mount', m.dir])).status, 0);
    await m.site('pause');
    const writer = fioStart(m, m.disk, { ...WRITES, size: '48m' }, 80_000);
    await untilStatus(m, 'held', (s) => s.log.state === 'full' && s.log['held-by'] === 'site 1', 20_000);
    assert.equal((await m.reptool(['site', 'set', '1', '--no-stall', '--mount', m.dir])).status, 0);
    assertClean(await fioDone(writer), 'once it may be dropped');
    assert.ok(waited(m) > 0);
  });
});
