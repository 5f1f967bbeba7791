/** Site 1 goes away, comes back, is paused, is swapped: the local disk goes on, and nothing is mixed. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertAllSame } from '../support/content.js';
import { VERIFY, assertClean, fio, type FioArgs } from '../support/fio.js';
import { unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { must } from '../support/proc.js';
import { siteStatus, statusOf, untilSite } from '../support/status.js';
import { needsFuse, needsTool } from '../support/skip.js';

const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', iodepth: 16, size: '16m' };
const SMALL = { size: '32M', logSize: '64M' };

describe('site 1', function () {
  this.timeout(90_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  async function writeSome(m: Mounted, what: string): Promise<void> {
    assertClean(await fio(m, m.disk, WRITES, 30_000), what);
  }

  /** Puts another image of the same size in place of the site's; returns where the right one is. */
  function swap(image: string): string {
    const right = `${image}.right`;
    renameSync(image, right);
    writeFileSync(image, '');
    truncateSync(image, 32 * 1024 * 1024);
    return right;
  }

  function swapBack(image: string): void {
    renameSync(`${image}.right`, image);
  }

  it('paused, shows lag and stays where it is; resumed, catches up', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before the pause');
    await m.drain();
    await m.site('pause');
    const before = await untilSite(m, 'site 1 is paused', (s) => s.state === 'paused');
    await writeSome(m, 'while paused');
    const during = await siteStatus(m);
    assert.equal(during['cursor-seq'], before['cursor-seq'], 'the site moved while it was paused');
    assert.ok(during['lag-bytes'] >= 16 * 1024 * 1024, `lag-bytes is ${during['lag-bytes']}`);
    assert.ok(during['lag-seconds'] > 0, 'no lag-seconds');
    await m.site('resume');
    await m.drain();
    assert.equal((await siteStatus(m))['lag-writes'], 0);
    await assertAllSame(m);
  });

  it('paused, stays paused over a remount', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await m.site('pause');
    await writeSome(m, 'while paused');
    await m.umount();
    await m.mount();
    assert.equal((await untilSite(m, 'site 1 is paused', (s) => s.state === 'paused')).paused, true);
    await m.site('resume');
    await assertAllSame(m);
  });

  it('! renamed away while running, confirms nothing more and says so at once; put back, it resumes by itself', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before');
    await m.drain();
    const away = join(m.top, 'away');
    const before = await siteStatus(m);
    renameSync(m.siteFolder, away);
    await writeSome(m, 'while the site is away');
    // Long before the next probe.
    const failed = await untilSite(m, 'site 1 has failed', (s) => s.state === 'failed', 6000);
    assert.match(failed.reason ?? '', /site1: the site's folder is gone from there .*; put it back/);
    assert.equal(failed['cursor-seq'], before['cursor-seq'], 'nothing was confirmed into the folder that was moved');
    assert.equal(existsSync(m.siteFolder), false, 'the folder was made anew, empty: that is no replica');
    await writeSome(m, 'after it failed');
    renameSync(away, m.siteFolder);
    await untilSite(m, 'site 1 is connected again', (s) => s.state === 'connected', 40_000);
    await assertAllSame(m);
  });

  it('! mounted over while running, confirms nothing more and says so at once; unmounted, it resumes by itself', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before');
    await m.drain();
    const before = await siteStatus(m);
    await must('mount', ['-t', 'tmpfs', 'over', m.siteFolder], { timeoutMs: 10_000 });
    await writeSome(m, 'while another file system is there');
    // Long before the next probe.
    const failed = await untilSite(m, 'site 1 has failed', (s) => s.state === 'failed', 6000);
    assert.match(
      failed.reason ?? '',
      /site1: another folder stands there now \(renamed, or mounted over\) .*; put that back/,
    );
    await writeSome(m, 'after it failed');
    // The next probe would take the empty folder for the site, if anything would.
    await m.site('resume');
    const refused = await untilSite(m, 'site 1 is refused', (s) => s.state === 'failed' && s.reason !== failed.reason);
    assert.match(refused.reason ?? '', /site1/);
    assert.equal(refused['cursor-seq'], before['cursor-seq'], 'nothing was confirmed into the folder below');
    assert.deepEqual(readdirSync(m.siteFolder), [], 'nothing was made in the file system above');
    await unmountAt(m.siteFolder);
    await untilSite(m, 'site 1 is connected again', (s) => s.state === 'connected', 40_000);
    await assertAllSame(m);
  });

  it('swapped while unmounted, is refused with a sentence; the right one is taken again', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before');
    await m.drain();
    await m.umount();
    const image = m.siteImage;
    swap(image);
    await m.mount();
    // The reason names the image.
    await untilSite(m, 'site 1 is refused', (s) => s.state === 'failed' && /disk0/.test(s.reason ?? ''));
    await writeSome(m, 'while the wrong image is there');
    swapBack(image);
    // Well before the next probe: the operator has asked.
    await m.site('resume');
    await untilSite(m, 'site 1 is connected again', (s) => s.state === 'connected', 5000);
    await assertAllSame(m);
  });

  it('swapped while paused, is refused on resume and not written to', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before');
    await m.drain();
    await m.site('pause');
    const image = m.siteImage;
    swap(image);
    await writeSome(m, 'while paused');
    await m.site('resume');
    const refused = await untilSite(m, 'site 1 is refused', (s) => s.state === 'failed', 30_000);
    assert.match(refused.reason ?? '', /disk0/, 'the reason names the image');
    const strange = await must('sh', ['-c', 'tr -d "\\000" < "$0" | wc -c', image], { timeoutMs: 20_000 });
    assert.equal(Number(strange), 0, 'the strange image was written to');
    swapBack(image);
    await m.site('resume');
    await untilSite(m, 'site 1 is connected again', (s) => s.state === 'connected', 40_000);
    await assertAllSame(m);
  });

  it('rolled back to an older copy of itself, is noticed', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await writeSome(m, 'before the copy');
    await m.drain();
    await m.umount();
    const copy = join(m.top, 'older');
    await must('cp', ['-a', '--sparse=always', m.siteFolder, copy], { timeoutMs: 30_000 });
    await m.mount();
    await writeSome(m, 'after the copy');
    await m.drain();
    await m.umount();
    renameSync(m.siteFolder, join(m.top, 'newer'));
    renameSync(copy, m.siteFolder);
    await m.mount();
    // Either the log still holds what the copy lacks and brings it up to date, or it is refused.
    const site = await untilSite(
      m,
      'site 1 is looked at',
      (s) => s.state === 'connected' || (s.state === 'failed' && /rolled back|disk0/.test(s.reason ?? '')),
    );
    if (site.state === 'failed') {
      console.log(`      refused: ${site.reason}`);
    } else {
      await assertAllSame(m);
    }
  });
});

describe('the local image', function () {
  this.timeout(60_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  const wrongs: { name: string; damage: (image: string) => void }[] = [
    { name: 'swapped for another', damage: (image) => swapLocal(image, 32) },
    { name: 'truncated', damage: (image) => truncateSync(image, 16 * 1024 * 1024) },
    { name: 'gone', damage: (image) => renameSync(image, `${image}.right`) },
  ];

  for (const { name, damage } of wrongs) {
    it(`${name} while unmounted, is refused with a sentence, and served again once it is back`, async () => {
      const m = (mounted = await Mounted.start(SMALL));
      assertClean(await fio(m, m.disk, WRITES, 30_000), 'before');
      await m.drain();
      await m.umount();
      const { image } = m;
      const right = `${image}.right`;
      if (name === 'truncated') await must('cp', ['-a', image, right], { timeoutMs: 30_000 });
      damage(image);
      const outcome = await m.tryMount();
      assert.notEqual(outcome.status, 0, 'mount went on with a wrong local image');
      assert.match(outcome.stderr, /disk0/, `the message names the image: ${outcome.stderr}`);
      console.log(`      ${outcome.stderr.trim()}`);
      assert.equal(m.isMounted, false, 'a refused mount stays mounted');
      renameSync(right, image);
      await m.mount();
      assert.equal((await statusOf(m)).suspended, false);
      await assertAllSame(m);
    });
  }

  function swapLocal(image: string, mib: number): void {
    renameSync(image, `${image}.right`);
    writeFileSync(image, '');
    truncateSync(image, mib * 1024 * 1024);
  }
});
