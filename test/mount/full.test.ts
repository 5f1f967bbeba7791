/** What happens where space runs out: in the ring, under the log, under an image, at a site. */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertAllSame, digest } from '../support/content.js';
import { VERIFY, assertClean, fio, fioDone, fioStart, type FioArgs } from '../support/fio.js';
import { smallDisk, unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { must, run, sleep } from '../support/proc.js';
import type { StatusJson } from '../../src/control/status.js';
import { statusOf, untilSite, untilStatus } from '../support/status.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', bs: '16k', iodepth: 16 };

describe('no space left', function () {
  this.timeout(90_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsLoop(this);
    needsTool(this, 'fio', 'mkfs.ext4');
  });
  afterEach(() => mounted?.cleanup());

  /** Fills the file system of `dir` but for `leave` MiB; returns the file to remove. */
  async function fill(dir: string, leave: number): Promise<string> {
    const filler = join(dir, 'filler');
    const free = Number((await must('df', ['--output=avail', '-m', dir])).split('\n')[1]);
    if (free > leave) await must('fallocate', ['-l', `${free - leave}M`, filler]);
    else writeFileSync(filler, '');
    return filler;
  }

  for (const bs of ['4k', '1m']) {
    it(`in the ring (${bs}): writers wait, reads and .ctl go on, status names the holder, resume frees them`, () =>
      ringFull(bs));
  }

  async function ringFull(bs: string): Promise<void> {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '8m' }), 'before');
    await m.drain();
    await m.site('pause');
    const writer = fioStart(m, m.disk, { ...WRITES, bs, size: '48m' }, 80_000);
    const held = (s: StatusJson): boolean => s.log.state === 'full' && s.log['held-by'] === 'site 1';
    await untilStatus(m, 'the log is full, held by site 1', held, 20_000);
    await sleep(300);
    assert.equal(writer.ended, false, 'the writer did not wait');
    for (let i = 0; i < 5; i++) {
      const read = await run('dd', [`if=${m.disk}`, 'of=/dev/null', 'bs=1M', 'count=16'], { timeoutMs: 5000 });
      assert.equal(read.status, 0, `a read did not go on: ${read.stderr}`);
    }
    assert.equal((await run('ls', ['-l', m.dir], { timeoutMs: 5000 })).status, 0);
    assert.match((await m.reptool(['status', m.dir])).stdout, /site 1/);
    await m.site('resume');
    assertClean(await fioDone(writer), 'the writer that waited');
    await assertAllSame(m);
  }

  it('in the ring: a daemon killed meanwhile changes nothing', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    await m.site('pause');
    const writer = fioStart(m, m.disk, { ...WRITES, bs: '4k', size: '48m' }, 80_000);
    await untilStatus(m, 'the log is full', (s) => s.log.state === 'full', 30_000);
    const pid = await m.killDaemon();
    await m.pid('daemon', pid);
    await untilStatus(m, 'the log is full again', (s) => s.log.state === 'full', 30_000);
    await m.site('resume');
    assertClean(await fioDone(writer), 'the writer that waited');
    await assertAllSame(m);
  });

  it('in the ring: umount with the site paused keeps what it lacks', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '64M' }));
    await m.site('pause');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '32m' }), 'while paused');
    const device = await digest(m.disk);
    await m.umount();
    assert.equal(await digest(m.image), device);
    await m.mount();
    await m.site('resume');
    await assertAllSame(m);
  });

  it('under the log: creation is refused and leaves nothing', async () => {
    const m = (mounted = new Mounted({ size: '16M', logSize: '64M' }));
    mkdirSync(m.state);
    await smallDisk(m, m.state, 40);
    const outcome = await m.tryMount();
    assert.notEqual(outcome.status, 0, 'a log larger than its file system was made');
    console.log(`      ${outcome.stderr.trim()}`);
    assert.match(outcome.stderr, /ENOSPC|space|room/);
    assert.equal(m.isMounted, false);
    const left = await must('find', [m.state, '-type', 'f', '-size', '+64k']);
    assert.equal(left, '', 'files of a refused creation');
    await unmountAt(m.state);
  });

  it('under the local image: writes wait or say so, status says why, it goes on when space is freed', async () => {
    const m = (mounted = new Mounted({ size: '96M', logSize: '64M' }));
    mkdirSync(m.imageFolder, { recursive: true });
    await smallDisk(m, m.imageFolder, 64);
    await m.mount();
    const filler = await fill(m.imageFolder, 16);
    const writer = fioStart(m, m.disk, { ...WRITES, size: '40m', end_fsync: 1 }, 80_000);
    const status = await untilStatus(m, 'the local image has failed', (s) => s.suspended, 30_000);
    assert.match(status['suspended-reason'] ?? '', /space|ENOSPC/);
    console.log(`      ${status['suspended-reason']}`);
    rmSync(filler);
    await untilStatus(m, 'it goes on', (s) => !s.suspended, 40_000);
    assertClean(await fioDone(writer), 'the writer that waited');
    await assertAllSame(m);
  });

  it('at site 1: the site fails with a reason, the local disk goes on, later it resumes', async () => {
    const m = (mounted = new Mounted({ size: '96M', logSize: '128M' }));
    mkdirSync(m.siteFolder, { recursive: true });
    // Room for the stage file and a part of the image.
    await smallDisk(m, m.siteFolder, 200);
    await m.mount();
    const filler = await fill(m.siteFolder, 8);
    assertClean(await fio(m, m.disk, { ...WRITES, size: '32m' }), 'while the site runs full');
    const failed = await untilSite(m, 'site 1 has failed', (s) => s.state === 'failed', 30_000);
    assert.match(failed.reason ?? '', /space|ENOSPC/);
    console.log(`      ${failed.reason}`);
    assert.equal((await statusOf(m)).suspended, false, 'a full site suspended the local disk');
    rmSync(filler);
    await m.site('resume');
    await untilSite(m, 'site 1 is connected again', (s) => s.state === 'connected', 40_000);
    await assertAllSame(m);
  });
});
