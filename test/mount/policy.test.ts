/** Policies of site 1: who is held by it, for how long, and what status says meanwhile. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SiteConfig } from '../../src/control/config.js';
import { assertAllSame } from '../support/content.js';
import { Mounted } from '../support/mounted.js';
import { must, type Child } from '../support/proc.js';
import { needsFuse } from '../support/skip.js';
import { siteStatus, untilSite, untilStatus } from '../support/status.js';

const SMALL = { size: '32M', logSize: '64M' };

describe('policies', function () {
  this.timeout(60_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(() => mounted?.cleanup());

  /** A group whose site 1 is as `change` has it. */
  async function withSite(change: Partial<SiteConfig>): Promise<Mounted> {
    const m = (mounted = await Mounted.start(SMALL));
    await m.drain();
    await m.umount();
    const file = join(m.groupDir, 'group.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { sites: SiteConfig[] };
    Object.assign(config.sites[0]!, change);
    writeFileSync(file, JSON.stringify(config));
    await m.mount();
    await untilSite(m, 'site 1 is connected', (s) => s.state === 'connected' && s['lag-writes'] === 0);
    return m;
  }

  /** One write of 4 KiB at block `n`, with direct I/O, in a process of its own. */
  function write(m: Mounted, n: number): Child {
    const fill = `head -c 4096 /dev/zero | tr '\\0' '${String.fromCharCode(97 + (n % 26))}'`;
    const line = `${fill} | dd of=${m.disk} bs=4096 count=1 seek=${n} oflag=direct iflag=fullblock conv=notrunc status=none`;
    return m.spawn('sh', ['-c', line], { timeoutMs: 45_000 });
  }

  async function wrote(child: Child): Promise<void> {
    const outcome = await child.done;
    assert.equal(outcome.status, 0, outcome.stderr);
  }

  /** What the site has at block `n`, image and stage together. */
  async function atSite(m: Mounted, n: number): Promise<string> {
    const bytes = await must('sh', [
      '-c',
      `cat ${m.siteFolder}/* 2>/dev/null | grep -c -a '${String.fromCharCode(97 + (n % 26)).repeat(600)}' || true`,
    ]);
    return bytes.trim();
  }

  it('! sync: a write returns when the site has it, and its flush as well', async () => {
    const m = await withSite({ policy: 'sync' });
    const status = await siteStatus(m);
    assert.deepEqual([status.policy, status.mode], ['sync', 'S']);
    for (let n = 0; n < 10; n++) {
      await wrote(write(m, n));
      assert.equal((await siteStatus(m))['lag-writes'], 0, `write ${n}`);
      assert.notEqual(await atSite(m, n), '0', `write ${n} is at the site`);
    }
    await assertAllSame(m);
  });

  it('sync: paused, holds writers, and status says who holds them; resumed, lets them go', async () => {
    const m = await withSite({ policy: 'sync' });
    await m.site('pause');
    const child = write(m, 1);
    const status = await untilStatus(m, 'site 1 holds a writer', (s) => s['held-by'].length > 0);
    assert.deepEqual(status['held-by'], ['site 1']);
    assert.equal(status.connections[0]!['waiting-writes'], 1);
    assert.match(
      await must('dd', [`if=${m.disk}`, 'bs=4096', 'count=1', 'skip=1', 'status=none']),
      /^b/,
      'reads go on',
    );
    assert.equal(child.ended, false);
    await m.site('resume');
    await wrote(child);
    await assertAllSame(m);
  });

  it('! fall-behind ios=3, paused: writes 1 to 4 return, the fifth only when its own copy is at the site', async () => {
    const m = await withSite({ fallBehind: { ios: 3, size: 0, timeoutMs: 0 } });
    await m.site('pause');
    for (let n = 0; n < 4; n++) await wrote(write(m, n));
    assert.equal((await siteStatus(m)).mode, 'A');
    const fifth = write(m, 4);
    await untilStatus(m, 'site 1 holds the fifth', (s) => s['held-by'][0] === 'site 1');
    assert.match(await m.control('status'), /^0 1 replicator A,\S+ S,5,/);
    // Also a daemon's death does not let it go.
    const daemon = await m.killDaemon();
    await m.serving(daemon);
    await untilStatus(m, 'site 1 holds the fifth again', (s) => s.connections[0]!['waiting-writes'] === 1);
    assert.equal(fifth.ended, false);
    await m.site('resume');
    await wrote(fifth);
    assert.equal((await siteStatus(m))['lag-writes'], 0);
    assert.notEqual(await atSite(m, 4), '0');
    await untilSite(m, 'writes are asynchronous again', (s) => s.mode === 'A');
    await m.site('pause');
    await wrote(write(m, 5));
    await m.site('resume');
    const events = await m.control('events');
    assert.match(events, /name:site1 .*mode:A /);
    await assertAllSame(m);
  });

  /** Takes the site's folder away while nothing is mounted: site 1 is down from the start. */
  async function withoutSite(change: Partial<SiteConfig>): Promise<Mounted> {
    const m = await withSite(change);
    await m.umount();
    renameSync(m.siteFolder, `${m.siteFolder}.away`);
    await m.mount();
    await untilSite(m, 'site 1 has failed', (s) => s.state === 'failed');
    return m;
  }

  async function bringBack(m: Mounted): Promise<void> {
    renameSync(`${m.siteFolder}.away`, m.siteFolder);
    await must('sh', ['-c', `echo resume > ${m.dir}/.ctl/messages`], { timeoutMs: 10_000 });
  }

  it('! a link that is down does not count for fall-behind', async () => {
    const m = await withoutSite({ fallBehind: { ios: 3, size: 0, timeoutMs: 0 } });
    for (let n = 0; n < 8; n++) await wrote(write(m, n));
    assert.equal((await siteStatus(m)).mode, 'A');
    await bringBack(m);
    await assertAllSame(m);
  });

  it('stall: a link that is down counts for fall-behind', async () => {
    const m = await withoutSite({ stall: true, fallBehind: { ios: 3, size: 0, timeoutMs: 0 } });
    for (let n = 0; n < 4; n++) await wrote(write(m, n));
    const fifth = write(m, 4);
    await untilSite(m, 'site 1 holds the fifth', (s) => s['waiting-writes'] === 1);
    assert.equal(fifth.ended, false);
    await bringBack(m);
    await wrote(fifth);
    await assertAllSame(m);
  });

  it('sync with a timeout: writers go on without a dead site, which gates again once it has caught up', async () => {
    const m = await withoutSite({ policy: 'sync', syncTimeoutMs: 500 });
    const began = Date.now();
    await wrote(write(m, 1));
    assert.ok(Date.now() - began >= 500, 'it waited for the site');
    const site = await untilSite(m, 'site 1 is degraded', (s) => s.degraded);
    assert.equal(site.mode, 'A');
    const then = Date.now();
    for (let n = 2; n < 6; n++) await wrote(write(m, n));
    assert.ok(Date.now() - then < 2000, 'later writes do not wait');
    await bringBack(m);
    await untilSite(m, 'site 1 gates again', (s) => !s.degraded && s.mode === 'S');
    assert.match(await m.control('events'), /degraded:yes .*reason:writers waited/);
    await assertAllSame(m);
  });
});
