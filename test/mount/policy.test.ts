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

  /** `reptool site WORDS…`, which has to succeed; what it says. */
  async function site(m: Mounted, ...words: string[]): Promise<string> {
    const outcome = await m.reptool(['site', ...words, '--mount', m.dir], { timeoutMs: 60_000 });
    assert.equal(outcome.status, 0, outcome.stderr);
    return outcome.stdout;
  }

  async function refused(m: Mounted, error: RegExp, ...words: string[]): Promise<void> {
    const before = readFileSync(join(m.groupDir, 'group.json'), 'utf8');
    const outcome = await m.reptool(['site', ...words, '--mount', m.dir]);
    assert.equal(outcome.status, 1, `${words.join(' ')}: ${outcome.stdout}`);
    assert.match(outcome.stderr, error);
    assert.equal(readFileSync(join(m.groupDir, 'group.json'), 'utf8'), before, 'group.json was changed');
  }

  it('site set changes a mounted group at once and for good; what contradicts itself changes nothing', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await site(m, 'set', '1', '--fallbehind', 'ios=10000,size=200m', '--bandwidth', '100m', '--rpo', '50ms');
    assert.match(await m.control('table'), /async.* ios 10000/);
    const status = await siteStatus(m);
    assert.deepEqual(status['fall-behind'], { ios: 10000, size: 200 << 20, 'timeout-ms': 0 });
    assert.deepEqual([status.bandwidth, status['rpo-ms']], [100 << 20, 50]);
    await refused(m, /a sync site never falls behind/, 'set', '1', '--policy', 'sync');
    await refused(m, /name one/, 'set', '1', '--policy', 'sync+async');
    await refused(m, /not served|durable/, 'set', '1', '--ack', 'received');
    await refused(m, /no such site/, 'set', '9', '--policy', 'sync');
    assert.match(
      await site(m, 'set', '1', '--policy', 'sync', '--fallbehind', 'none'),
      /writes wait for it from now on/,
    );
    await wrote(write(m, 1));
    assert.equal((await siteStatus(m))['lag-writes'], 0);
    assert.match(await m.control('events'), /change site name:site1 .*policy:sync mode:S/);
    assert.match(await site(m, 'list'), /site1 +connected +policy:sync/);
    const daemon = await m.killDaemon();
    await m.serving(daemon);
    assert.equal((await siteStatus(m)).mode, 'S', 'the next daemon holds writers as well');
    await m.umount();
    await m.mount();
    assert.equal((await siteStatus(m)).policy, 'sync');
    await assertAllSame(m);
  });

  it('site set policy=async lets go who waits; fail-pending answers them with EIO once', async () => {
    const m = await withSite({ policy: 'sync' });
    await m.site('pause');
    const first = write(m, 1);
    await untilSite(m, 'one waits', (s) => s['waiting-writes'] === 1);
    assert.match(await site(m, 'fail-pending'), /1 waiting request was answered with EIO/);
    const outcome = await first.done;
    assert.match(outcome.stderr, /[Ii]nput\/output error/);
    const second = write(m, 2);
    await untilSite(m, 'the next one waits again', (s) => s['waiting-writes'] === 1);
    await site(m, 'set', '1', '--policy', 'async');
    await wrote(second);
    await m.site('resume');
    await m.drain();
    assert.notEqual(await atSite(m, 1), '0', 'what failed is in the log and reached the site');
    await assertAllSame(m);
  });

  it('site add makes a site from the beginning of the log, site remove lets its writers go', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    for (let n = 0; n < 5; n++) await wrote(write(m, n));
    const folder = join(m.top, 'second one');
    assert.match(await site(m, 'add', '7', `blockdev:${folder}`, '--policy', 'sync'), /site 7 added/);
    await untilSite(m, 'site 7 gates', (s) => s['peer-node-id'] === 7 && s.mode === 'S');
    await wrote(write(m, 6));
    await must('cmp', [m.disk, join(folder, 'disk0.img'), '-n', '4096']);
    await refused(m, /exists already/, 'add', '7', `blockdev:${join(m.top, 'third')}`);
    await refused(m, /used by/, 'add', '8', `blockdev:${m.siteFolder}`);
    await refused(m, /make or mount/, 'add', '8', `blockdev:${join(m.top, 'no/where')}`);
    await refused(m, /unknown type|not served/, 'add', '8', 'pigeon:home');
    await must('mkdir', [join(m.top, 'foreign')]);
    writeFileSync(join(m.top, 'foreign', 'disk0.img'), 'somebody else wrote this');
    await refused(m, /was not added/, 'add', '8', `blockdev:${join(m.top, 'foreign')}`);
    assert.equal(readFileSync(join(m.top, 'foreign', 'disk0.img'), 'utf8'), 'somebody else wrote this');

    const message = `site 7 pause`;
    await must('sh', ['-c', `echo '${message}' > ${m.dir}/.ctl/messages`], { timeoutMs: 10_000 });
    const child = write(m, 8);
    await untilSite(m, 'site 7 holds a writer', (s) => s['waiting-writes'] === 1);
    await site(m, 'remove', '7');
    await wrote(child);
    assert.equal((await m.control('table')).includes(' 7 '), false);
    assert.match(await m.control('events'), /destroy site name:site7/);
    assert.match(await site(m, 'add', '7', `blockdev:${join(m.top, 'again')}`), /site 7 added/);
    await untilSite(m, 'site 7 has all', (s) => s['peer-node-id'] === 7 && s['lag-writes'] === 0);
    await m.umount();
    const offline = await m.reptool(['site', 'set', '7', '--rpo', '1s', '--state', m.state]);
    assert.equal(offline.status, 0, offline.stderr);
    assert.match(readFileSync(join(m.groupDir, 'group.json'), 'utf8'), /"rpoMs": 1000/);
    const bad = await m.reptool(['site', 'add', '9', 'pigeon:here', '--state', m.state]);
    assert.equal(bad.status, 1);
    assert.equal((await m.reptool(['site', 'remove', '7', '--state', m.state])).status, 0);
    await m.mount();
    await assertAllSame(m);
  });

  it('site add is refused where the log has lost its beginning, and changes nothing', async () => {
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '16M' }));
    await must('dd', ['if=/dev/urandom', `of=${m.disk}`, 'bs=1M', 'count=30', 'conv=notrunc,fsync', 'status=none'], {
      timeoutMs: 60_000,
    });
    await refused(m, /no longer holds the whole history/, 'add', '2', `blockdev:${join(m.top, 'late')}`);
    await assertAllSame(m);
  });
});
