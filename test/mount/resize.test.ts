/** Another size for the log of a mounted group: under load, over deaths, on a full disk, and what is refused. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertAllSame } from '../support/content.js';
import { VERIFY, assertClean, fio, fioDone, fioStart, type FioArgs } from '../support/fio.js';
import { killDaemons } from '../support/kills.js';
import { attach, detach, smallDisk, unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { sleep, type Outcome } from '../support/proc.js';
import { statusOf, untilStatus } from '../support/status.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

const MIB = 1024 * 1024;
const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', bs: '16k', iodepth: 16 };

describe('replog resize', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  const resize = (m: Mounted, size: string, timeoutMs = 60_000): Promise<Outcome> =>
    m.reptool(['replog', 'resize', size, '--mount', m.dir], { timeoutMs });

  async function resized(m: Mounted, size: string): Promise<void> {
    const outcome = await resize(m, size);
    assert.equal(outcome.status, 0, outcome.stderr);
    assert.match(outcome.stdout, /^the log has /);
  }

  /** The site holds what it lacks in the log, whatever becomes of the log. */
  async function stalls(m: Mounted): Promise<void> {
    const outcome = await m.reptool(['site', 'set', '1', '--stall', '--mount', m.dir]);
    assert.equal(outcome.status, 0, outcome.stderr);
    await m.site('pause');
  }

  function configured(m: Mounted): { size: number; resize?: number } {
    return (JSON.parse(readFileSync(join(m.groupDir, 'group.json'), 'utf8')) as { log: { size: number } }).log;
  }

  it('grows and shrinks under load: nobody notices, and everything is the same everywhere', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    const writer = fioStart(m, m.disk, { ...WRITES, size: '64m', loops: 6, rate: '20m' }, 110_000);
    await sleep(500);
    for (const size of ['24M', '40M', '100M']) {
      const outcome = await resize(m, size);
      assert.equal(outcome.status, 0, outcome.stderr);
      // One that is smaller than what wraps just now waits for the head, which moves on.
      await untilStatus(m, `the log has ${size}`, (s) => s.log.resize === null, 30_000);
      assert.equal(statSync(m.log).size, parseInt(size) * MIB);
      await sleep(700);
    }
    assertClean(await fioDone(writer), 'the writer');
    await m.drain();
    const shrunk = await resize(m, '12M');
    assert.equal(shrunk.status, 0, shrunk.stderr);
    assert.equal(statSync(m.log).size, 12 * MIB);
    assertClean(await fio(m, m.disk, { ...WRITES, size: '40m' }), 'on the smaller log');
    await assertAllSame(m);
    assert.equal((await m.reptool(['replog', 'check', '--state', m.state, '--group', m.group])).status, 0);
    assert.deepEqual(configured(m).size, 12 * MIB);
    await m.mount();
    await assertAllSame(m);
  });

  it('gives writers room while a site is down and the log is full', async () => {
    const m = (mounted = await Mounted.start({ size: '128M', logSize: '16M' }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '10m' }), 'before');
    await m.drain();
    await stalls(m);
    const writer = fioStart(m, m.disk, { ...WRITES, size: '48m' }, 80_000);
    await untilStatus(m, 'the log is full', (s) => s.log.state === 'full', 30_000);
    await resized(m, '128M');
    assertClean(await fioDone(writer), 'the writer that waited');
    await untilStatus(m, 'the log is not full', (s) => s.log.state === 'ok', 5000);
    const busy = await resize(m, '16M');
    assert.equal(busy.status, 1);
    assert.match(busy.stderr, /cannot shrink to 16 MiB now: .* still needed by site 1.*reptool wait/);
    await m.site('resume');
    await assertAllSame(m);
    await m.mount();
    await resized(m, '16M');
    await assertAllSame(m);
  });

  it('goes on over deaths of the daemon, and of everything', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    const writer = fioStart(m, m.disk, { ...WRITES, size: '32m', loops: 8, rate: '20m' }, 110_000);
    let seed = 1;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    const kills = killDaemons(m, 8, random, [5, 60]);
    for (const size of ['60M', '300M', '500M']) {
      await resized(m, size);
      await untilStatus(m, `the log has ${size}`, (s) => s.log.resize === null, 30_000);
    }
    await kills;
    assertClean(await fioDone(writer), 'the writer');
    assert.equal(configured(m).size, 500 * MIB);
    await assertAllSame(m);
    await m.mount();
    // Everything dies while it grows: the next mount carries on.
    const growing = m.spawn('sh', ['-c', `echo replog resize ${(900 * MIB) / 512} > ${m.dir}/.ctl/messages`], {
      timeoutMs: 30_000,
    });
    await untilStatus(m, 'the log grows', (s) => s.log.resize !== null, 10_000);
    await m.killAll();
    await growing.done;
    await m.mount();
    await untilStatus(m, 'the log has grown', (s) => s.log.resize === null && s.log.size > 850 * MIB, 60_000);
    assert.equal(configured(m).size, 900 * MIB);
    assert.equal(configured(m).resize, undefined);
    await assertAllSame(m);
  });

  it('on a full disk nothing is changed, and a second one is refused meanwhile', async function () {
    needsLoop(this);
    needsTool(this, 'mkfs.ext4');
    const m = (mounted = new Mounted({ size: '8M', logSize: '16M' }));
    mkdirSync(m.state, { recursive: true });
    await smallDisk(m, m.state, 128);
    await m.mount();
    assertClean(await fio(m, m.disk, { ...WRITES, size: '8m' }), 'before');
    const before = statSync(m.log).size;
    const outcome = await resize(m, '2G');
    assert.equal(outcome.status, 1);
    assert.match(outcome.stderr, /no room for a log of 2 GiB, it keeps its 16 MiB/);
    assert.equal(statSync(m.log).size, before);
    assert.deepEqual(configured(m), { path: 'replog', size: 16 * MIB });
    assert.equal((await statusOf(m)).log.resize, null);
    assertClean(await fio(m, m.disk, { ...WRITES, size: '8m' }), 'after');
    await assertAllSame(m);
    await unmountAt(m.state);
  });

  it('refuses a second one while it waits, and what no log can be', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '14m' }), 'before');
    await m.drain();
    await stalls(m);
    // Around the end of the ring by more than the growth below.
    assertClean(await fio(m, m.disk, { ...WRITES, size: '11m' }), 'around the end');
    const waits = await resize(m, '17M');
    assert.equal(waits.status, 0, waits.stderr);
    assert.match(waits.stdout, /^the log is to have 17 MiB, which waits: the log has wrapped.*held by site 1/);
    const second = await resize(m, '64M');
    assert.equal(second.status, 1);
    assert.match(second.stderr, /is being resized to 17 MiB already/);
    const { resize: shown } = (await statusOf(m)).log;
    assert.equal(shown?.state, 'waiting');
    // It is told by the next daemon, and by the next mount, too.
    await m.umount();
    assert.equal(configured(m).resize, 17 * MIB);
    await m.mount();
    await untilStatus(m, 'it waits again', (s) => s.log.resize?.state === 'waiting', 20_000);
    await m.site('resume');
    await m.drain();
    await untilStatus(m, 'the log has grown', (s) => s.log.resize === null, 20_000);
    assert.equal(configured(m).size, 17 * MIB);
    for (const [size, why] of [
      ['1M', /cannot have 1048576 bytes; give a multiple of 512 from 4194304/],
      ['3000T', /takes no file of 3000 TiB|2.9 PiB|no room for a log of/],
    ] as const) {
      const wrong = await resize(m, size);
      assert.equal(wrong.status, 1, wrong.stdout);
      assert.match(wrong.stderr, why);
    }
    assert.equal(statSync(m.log).size, 17 * MIB);
    await assertAllSame(m);
  });

  it('of a group that is not mounted', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '16M' }));
    assertClean(await fio(m, m.disk, { ...WRITES, size: '14m' }), 'before');
    await m.drain();
    await stalls(m);
    assertClean(await fio(m, m.disk, { ...WRITES, size: '6m' }), 'around the end');
    await m.umount();
    const offline = (size: string): Promise<Outcome> =>
      m.reptool(['replog', 'resize', size, '--state', m.state, '--group', m.group, '--json'], { timeoutMs: 30_000 });
    const small = await offline('8M');
    assert.equal(small.status, 1);
    assert.match(small.stdout, /cannot have 8 MiB now: .* still needed by sites/);
    const grown = await offline('40M');
    assert.equal(grown.status, 0, grown.stdout);
    assert.equal((JSON.parse(grown.stdout) as { done: boolean }).done, true);
    assert.deepEqual([statSync(m.log).size, configured(m).size], [40 * MIB, 40 * MIB]);
    assert.equal((await m.reptool(['replog', 'check', '--state', m.state, '--group', m.group])).status, 0);
    await m.mount();
    await m.site('resume');
    await assertAllSame(m);
    const shrunk = await offline('5M');
    assert.equal(shrunk.status, 0, shrunk.stdout);
    assert.equal(statSync(m.log).size, 5 * MIB);
    await m.mount();
    assertClean(await fio(m, m.disk, { ...WRITES, size: '20m' }), 'on the smaller log');
    await m.killAll();
    const unclean = await offline('16M');
    assert.match(unclean.stdout, /not closed cleanly; mount it/);
    await m.mount();
    await assertAllSame(m);
  });

  it('of a block device: up to its end', async function () {
    needsLoop(this);
    const m = (mounted = new Mounted({ size: '16M' }));
    const at = (name: string): string => join(m.top, name);
    for (const [name, size] of [
      ['logdisk', 48 * MIB],
      ['ld', 16 * MIB],
    ] as const) {
      writeFileSync(at(name), '');
      truncateSync(at(name), size);
    }
    const log = await attach(at('logdisk'));
    const sectors = (16 * MIB) / 512;
    const table = at('table');
    writeFileSync(
      table,
      `0 1 replicator ringbuffer 4 ${log} 0 create ${sectors} blockdev 2 0 async blockdev 2 1 async\n` +
        `0 ${sectors} replicator-dev default 0 0 1 ${at('ld')} nolog 0 1 1 ${at('far')}/disk0.img core 2 8192 sync\n`,
    );
    const words = ['mount', m.dir, '--state', m.state, '--table', table];
    const outcome = await m.reptool(words, { timeoutMs: 60_000 });
    assert.equal(outcome.status, 0, outcome.stderr);
    const beyond = await resize(m, '64M');
    assert.equal(beyond.status, 1);
    assert.match(
      beyond.stderr,
      /the device has 50331648 bytes \(48 MiB\), the log was to have 67108864; give at most that/,
    );
    await resized(m, '48M');
    assertClean(await fio(m, m.disk, { ...WRITES, size: '16m', loops: 4 }), 'on the larger log');
    await m.umount();
    await detach(log);
  });
});
