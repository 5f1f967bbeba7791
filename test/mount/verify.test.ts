/** `reptool site verify` on real mounts: what it finds, what it leaves alone, whom it refuses, how it ends. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readSync, renameSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { VerifyStatus } from '../../src/control/status.js';
import { VERIFY, assertClean, fio, type FioArgs } from '../support/fio.js';
import type { Mounted } from '../support/mounted.js';
import { Mounted as Mount } from '../support/mounted.js';
import { NbdServer } from '../support/nbd-servers.js';
import { until, type Outcome } from '../support/proc.js';
import { parseMetrics, valueOf } from '../support/prometheus.js';
import { remapped } from '../support/remap.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { siteStatus, untilSite } from '../support/status.js';

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
const WRITES: FioArgs = { ...VERIFY, rw: 'write', bs: '64k', iodepth: 4, size: '24m' };
/** A sector that nobody writes to in these tests but the first fill. */
const AT = 20 * MIB + 7 * 512 + 99;

describe('site verify', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;
  let server: NbdServer | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(async () => {
    await server?.kill();
    server = undefined;
    await mounted?.cleanup();
  });

  /** A folder site that has 24 MiB of data, all of it confirmed. */
  async function filled(size = '32M'): Promise<Mounted> {
    const m = (mounted = await Mount.start({ size, logSize: '64M' }));
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'fill');
    await m.drain();
    return m;
  }

  function blank(m: Mounted, name: string): string {
    const file = join(m.top, name);
    writeFileSync(file, '');
    truncateSync(file, SIZE);
    return file;
  }

  function flipBit(file: string, at: number): void {
    const fd = openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0]! ^= 4;
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
  }

  const verify = (m: Mounted, ...words: string[]): Promise<Outcome> =>
    m.reptool(['site', 'verify', '1', '--mount', m.dir, ...words], { timeoutMs: 60_000 });

  async function outcomeOf(m: Mounted): Promise<VerifyStatus> {
    const v = (await siteStatus(m)).verify;
    assert.ok(v !== null, 'status knows of a verify');
    return v;
  }

  async function findsTheBit(m: Mounted, image: string): Promise<void> {
    const clean = await verify(m);
    assert.equal(clean.status, 0, clean.stdout + clean.stderr);
    assert.match(clean.stdout, /^site 1: 32MiB compared in .* s, no difference\n$/);
    flipBit(image, AT);
    const found = await verify(m, '--json');
    assert.equal(found.status, 1, found.stdout + found.stderr);
    const { verify: v } = JSON.parse(found.stdout) as { verify: VerifyStatus };
    const start = Math.floor(AT / 512) * 512;
    assert.deepEqual(
      [v.state, v['different-bytes'], v['range-grain'], v.different],
      ['done', 512, 512, [{ volume: 0, device: 'disk0', start, length: 512 }]],
    );
    flipBit(image, AT);
    assert.equal((await verify(m)).status, 0, 'put right again, it is equal');
  }

  it('! finds a single flipped bit in a folder', async () => {
    const m = await filled();
    await findsTheBit(m, m.siteImage);
  });

  it('! finds a single flipped bit in the local image', async () => {
    const m = await filled();
    await findsTheBit(m, m.image);
  });

  it('! finds a single flipped bit on a raw device', async () => {
    const m = (mounted = await remapped());
    const leg = blank(m, 'leg');
    m.configureSite({ type: 'blockdev', address: '', map: { disk0: leg } });
    await m.mount();
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'fill');
    await m.drain();
    await findsTheBit(m, leg);
  });

  it('! finds a single flipped bit at an NBD server', async function () {
    needsTool(this, 'nbdkit');
    const m = (mounted = await remapped());
    const file = blank(m, 'export');
    server = await NbdServer.start(m, 'nbdkit', file);
    m.configureSite({ type: 'nbd', address: server.address });
    await m.mount();
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'fill');
    await m.drain();
    await findsTheBit(m, file);
  });

  it('! under load: what is written meanwhile is no difference, what was flipped is found', async () => {
    const m = await filled();
    const load = fio(m, m.disk, { ...VERIFY, rw: 'randwrite', bs: '4k', iodepth: 8, size: '16m', loops: 6 }, 60_000);
    for (let i = 0; i < 3; i++) {
      const clean = await verify(m);
      assert.equal(clean.status, 0, clean.stdout + clean.stderr);
    }
    flipBit(m.siteImage, AT);
    const found = await verify(m);
    assert.equal(found.status, 1, found.stdout + found.stderr);
    assert.match(found.stdout, /512B in 1 range differ\n {2}disk0: 512 bytes from byte \d+ on differ\n$/);
    assertClean(await load, 'the load beside it');
  });

  it('status, --check, metrics and events tell of it', async () => {
    const m = await filled();
    flipBit(m.siteImage, AT);
    await verify(m);
    const text = await m.reptool(['status', m.dir]);
    assert.match(text.stdout, /^ {4}verify of \S+Z: 32MiB compared in .* s, 512B in 1 range differ$/m);
    const check = await m.reptool(['status', m.dir, '--check']);
    assert.equal(check.status, 2);
    assert.match(check.stdout, /^CRITICAL reptool default: site1 differs in 512B \(verify of /);
    const metrics = parseMetrics(await m.control('metrics'));
    assert.equal(valueOf(metrics, 'reptool_site_verify_different_bytes', { site: '1' }), 512);
    assert.equal(valueOf(metrics, 'reptool_site_verify_compared_bytes', { site: '1' }), SIZE);
    assert.equal(valueOf(metrics, 'reptool_site_verify_running', { site: '1' }), 0);
    const events = await m.control('events');
    assert.match(events, /^change site name:site1 nr:1 verify:start time:/m);
    assert.match(events, /^change site name:site1 nr:1 verify:end result:done different:512 time:/m);
  });

  describe('slowly', () => {
    /** A verify in the background that takes about ten seconds. */
    async function slow(): Promise<Mounted> {
      const m = await filled();
      const set = await m.reptool(['site', 'set', '1', '--resync-rate', '2m', '--mount', m.dir]);
      assert.equal(set.status, 0, set.stderr);
      return m;
    }

    async function begun(): Promise<Mounted> {
      const m = await slow();
      const outcome = await verify(m, '--background');
      assert.equal(outcome.status, 0, outcome.stderr);
      assert.match(outcome.stdout, /^site 1: verify started, 32 MiB to compare; status shows how far it is/);
      return m;
    }

    it('is kept to its rate, and shown by status while it goes on', async () => {
      const m = await begun();
      const site = await untilSite(
        m,
        'a rate',
        (s) => (s.verify?.['bytes-per-second'] ?? 0) > 0 && s.verify!['bytes-compared'] >= 4 * MIB,
      );
      assert.equal(site.peer_devices[0]!['replication-state'], 'VerifyS');
      const took = (Date.now() - Date.parse(site.verify!.started)) / 1000;
      // A piece more than there was to give.
      assert.ok(site.verify!['bytes-compared'] <= 2 * MIB * (took + 1) + 4 * MIB, JSON.stringify(site.verify));
      assert.match(
        (await m.reptool(['status', m.dir])).stdout,
        /replication:VerifyS .*\n(.*\n)*? {4}verify: \d+% of 32MiB/,
      );
      const metrics = parseMetrics(await m.control('metrics'));
      assert.equal(valueOf(metrics, 'reptool_site_verify_running', { site: '1' }), 1);
    });

    it('a second one is refused, and the first one goes on', async () => {
      const m = await begun();
      const { started } = await outcomeOf(m);
      const second = await verify(m);
      assert.equal(second.status, 1);
      assert.match(second.stderr, /^reptool: site 1: a verify is running already; wait for its end, or stop it/);
      const v = await outcomeOf(m);
      assert.deepEqual([v.started, v.ended], [started, null]);
    });

    it('--stop ends it and keeps what it has found; once more there is nothing to stop', async () => {
      const m = await begun();
      const stopped = await verify(m, '--stop');
      assert.equal(stopped.status, 0, stopped.stderr);
      const { verify: v } = await untilSite(m, 'it has ended', (s) => s.verify?.ended !== null);
      assert.deepEqual([v!.state, v!.reason], ['stopped', 'by an operator']);
      assert.match((await verify(m, '--stop')).stdout, /^site 1: no verify was running\n$/);
    });

    it('Ctrl-C ends the waiting only, and says how to end the rest', async () => {
      const m = await slow();
      const child = m.spawn(process.execPath, [
        join(import.meta.dirname, '../../src/cli/run.js'),
        'site',
        'verify',
        '1',
        '--mount',
        m.dir,
      ]);
      await untilSite(m, 'it has begun', (s) => s.verify !== null && s.verify['bytes-compared'] > 0);
      const ended = await child.stop('SIGINT');
      assert.equal(ended.status, 130, ended.stderr);
      assert.match(ended.stderr, /waiting was interrupted, the verify goes on; `reptool site verify 1 --stop` ends it/);
      assert.equal((await outcomeOf(m)).ended, null);
    });

    it('a pause ends it, with that reason', async () => {
      const m = await begun();
      await m.site('pause');
      const { verify: v } = await untilSite(m, 'it has ended', (s) => s.verify?.ended !== null);
      assert.deepEqual([v!.state, v!.reason], ['stopped', 'the site was paused']);
    });

    it('a site that fails ends it, with that reason', async () => {
      const m = await begun();
      renameSync(m.siteFolder, `${m.siteFolder}.gone`);
      const written = await m.sh(`head -c 4096 /dev/urandom | dd of=${m.disk} conv=notrunc status=none`);
      assert.equal(written.status, 0);
      const { verify: v } = await untilSite(m, 'it has ended', (s) => s.verify?.ended !== null);
      assert.equal(v!.state, 'failed');
      assert.match(v!.reason!, /the site has failed: .*the site's folder is gone from there/);
    });

    for (const [what, end, says] of [
      [
        'a site that is removed',
        (m: Mounted) => m.reptool(['site', 'remove', '1', '--mount', m.dir]),
        /the site was removed/,
      ],
      ['a daemon that is killed', (m: Mounted) => m.killDaemon(), /the daemon was replaced/],
    ] as const)
      it(`${what} ends it, and whoever waits hears of it`, async () => {
        const m = await slow();
        const waiting = verify(m);
        await untilSite(m, 'it has begun', (s) => s.verify !== null && s.verify['bytes-compared'] > 0);
        await end(m);
        const outcome = await waiting;
        assert.equal(outcome.status, 1, outcome.stdout);
        assert.match(outcome.stderr, says);
      });
  });

  it('refuses a site that is paused, has failed or is not there, and changes nothing', async () => {
    const m = await filled();
    await m.site('pause');
    const refused = async (nr: string, errno: string, says: RegExp): Promise<void> => {
      const outcome = await m.reptool(['site', 'verify', nr, '--mount', m.dir]);
      assert.equal(outcome.status, 1, outcome.stdout);
      assert.match(outcome.stderr, says);
      const reply = (await m.control('messages')).trimEnd().split('\n').at(-1)!;
      assert.equal(reply.split('\t')[2], errno);
      assert.equal((await siteStatus(m)).verify, null);
    };
    await refused('1', 'EBUSY', /^reptool: site 1 is not verified: it is paused; resume it first\n$/);
    await refused('7', 'ENOENT', /^reptool: site 7: no such site; there is 1\n$/);
    await m.site('resume');
    renameSync(m.siteFolder, `${m.siteFolder}.gone`);
    await m.sh(`head -c 4096 /dev/urandom | dd of=${m.disk} conv=notrunc status=none`);
    await untilSite(m, 'it has failed', (s) => s.state === 'failed');
    await refused('1', 'EIO', /^reptool: site 1 is not verified: it has failed: .*folder is gone/);
    renameSync(`${m.siteFolder}.gone`, m.siteFolder);
    await until(
      'it works again',
      async () => (await m.site('resume'), (await siteStatus(m)).state === 'connected') || undefined,
      20_000,
    );
    const fine = await verify(m);
    assert.equal(fine.status, 0, fine.stdout + fine.stderr);
  });
});
