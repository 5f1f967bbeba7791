/** A site behind real NBD servers: replicate, be cut off, be killed, be refused; the export is history in the end. */
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertSame, digest } from '../support/content.js';
import { VERIFY, assertClean, fio, type FioArgs } from '../support/fio.js';
import type { Mounted } from '../support/mounted.js';
import { CuttingProxy } from '../support/cutting-proxy.js';
import { NbdServer, SERVERS, freePort, processesOf, type ServerKind } from '../support/nbd-servers.js';
import { must, seedOfRun, seeded } from '../support/proc.js';
import { parseMetrics, valueOf } from '../support/prometheus.js';
import { remapped, type Remapped } from '../support/remap.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { siteStatus, untilSite } from '../support/status.js';

const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', iodepth: 16, size: '16m' };
const LOAD: FioArgs = { ...WRITES, loops: 3, rate: '16m' };
const SIZE = 32 * 1024 * 1024;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('nbd site', function () {
  this.timeout(150_000);
  let mounted: Mounted | undefined;
  let proxy: CuttingProxy | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio', ...SERVERS);
  });
  const servers: NbdServer[] = [];
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.kill();
    proxy?.close();
    proxy = undefined;
    await mounted?.cleanup();
  });

  function blank(m: Mounted, size = SIZE): string {
    const file = join(m.top, 'export');
    writeFileSync(file, '');
    truncateSync(file, size);
    return file;
  }

  interface Setup {
    m: Remapped;
    file: string;
    server: NbdServer;
  }

  async function start(
    kind: ServerKind,
    how: { extra?: (m: Mounted) => string[]; size?: number; options?: Record<string, string>; cut?: boolean } = {},
  ): Promise<Setup> {
    const m = await remapped();
    mounted = m;
    const file = blank(m, how.size);
    const server = await NbdServer.start(m, kind, file, how.extra?.(m) ?? []);
    servers.push(server);
    if (how.cut === true) proxy = await CuttingProxy.before(server.address, () => processesOf(server.word));
    const options = { 'reconnect-wait': '500ms', timeout: '5s', ...how.options };
    m.configureSite({ type: 'nbd', address: proxy?.address ?? server.address, options });
    await m.mount();
    return { m, file, server };
  }

  async function same({ m, file }: Setup): Promise<void> {
    const device = await digest(m.disk);
    await m.drain();
    await m.umount();
    assert.equal(await digest(m.image), device, 'the local image differs from what the device showed');
    await assertSame(m.image, file, 'the export differs from the local image');
  }

  for (const kind of SERVERS)
    it(`replicates to ${kind}, discards included, over a remount`, async () => {
      const s = await start(kind);
      assertClean(await fio(s.m, s.m.disk, WRITES, 30_000), 'writes');
      for (let at = 1; at < 5; at++) await must('fallocate', ['-p', '-o', `${at * 3}MiB`, '-l', '320KiB', s.m.disk]);
      await s.m.drain();
      const site = await untilSite(s.m, 'the window is closed', (c) => c['open-window'] === null);
      assert.equal(site.peer_devices[0]!['peer-disk-state'], 'UpToDate');
      assert.match(
        await s.m.control('table'),
        new RegExp(` 1 1 ${s.server.address}/disk0 (nolog 0|disk 1 8192)$`, 'm'),
      );
      await s.m.umount();
      await s.m.mount();
      assertClean(await fio(s.m, s.m.disk, { ...WRITES, size: '4m' }, 30_000), 'writes after the remount');
      await same(s);
    });

  for (const kind of SERVERS)
    it(`! ${kind} killed and started again under load: the export is the same in the end`, async () => {
      const s = await start(kind);
      const load = fio(s.m, s.m.disk, LOAD, 60_000);
      for (let i = 0; i < 6; i++) {
        await pause(200 + 170 * i);
        await s.server.kill();
        await pause(i % 2 === 0 ? 0 : 300);
        await s.server.start();
      }
      assertClean(await load, 'load while the server dies');
      await untilSite(s.m, 'the site is connected', (c) => c.state === 'connected', 40_000);
      const metrics = parseMetrics(await s.m.control('metrics'));
      const of = (name: string): number => valueOf(metrics, `reptool_site_${name}`, { site: '1' });
      const [made, lost] = [of('connects_total'), of('connections_lost_total')];
      assert.ok(lost > 0 && made > lost - 1 && made > 1, `connected ${made} times, lost ${lost} times`);
      assert.equal(of('garbage_total'), 0);
      await same(s);
    });

  it('! connections cut again and again under load: the export is the same in the end', async () => {
    const s = await start('nbdkit', { cut: true });
    const load = fio(s.m, s.m.disk, LOAD, 60_000);
    const seed = seedOfRun();
    const random = seeded(seed);
    for (let i = 0; i < 12; i++) {
      const [server, client] = [random(2), random(2)].map((n) => (n === 0 ? 'reset' : 'end')) as ['reset', 'end'];
      await proxy!.cut({ way: 'up', bytes: random(1024 * 1024), server, client, all: true, down: false }, 1000);
      // By itself it tries again after a second or so; every other time somebody says that it is back.
      if (i % 2 === 0) await must('sh', ['-c', `echo resume > ${s.m.dir}/.ctl/messages`]);
      await untilSite(s.m, `the site is back (seed ${seed})`, (c) => c.state === 'connected', 40_000);
    }
    assertClean(await load, `load while connections are cut (seed ${seed})`);
    await same(s);
  });

  it('! our daemon killed under load: it waits for the server to let go, and the export is the same', async () => {
    const s = await start('nbdkit');
    const load = fio(s.m, s.m.disk, LOAD, 60_000);
    let last = 0;
    for (let i = 0; i < 5; i++) {
      last = await s.m.serving(last);
      await pause(300 + 200 * i);
      await s.m.killDaemon();
    }
    assertClean(await load, 'load under kills');
    await same(s);
  });

  it('a server that is away fails the site, not the local disk; umount does not wait for it', async () => {
    const s = await start('nbdkit');
    await s.m.drain();
    await s.server.kill();
    assertClean(await fio(s.m, s.m.disk, { ...WRITES, size: '4m' }, 30_000), 'the local disk');
    const failed = await untilSite(s.m, 'it has failed', (c) => c.state === 'failed');
    assert.match(failed.reason ?? '', /127\.0\.0\.1:\d+\/disk0: /);
    const since = performance.now();
    await s.m.umount();
    assert.ok(performance.now() - since < 15_000);
    await s.server.start();
    await s.m.mount();
    await same(s);
  });

  it('a server that hangs fails the site after its time-out', async () => {
    const s = await start('nbdkit', { options: { timeout: '1s' } });
    await s.m.drain();
    process.kill(s.server.child!.pid, 'SIGSTOP');
    assertClean(await fio(s.m, s.m.disk, { ...WRITES, size: '4m' }, 30_000), 'the local disk');
    const slow = /no answer for 1 s|took longer than 1 s/;
    const failed = await untilSite(s.m, 'it has failed', (c) => c.state === 'failed' && slow.test(c.reason ?? ''));
    // It may have gone before anything was on its way, too.
    assert.equal(
      failed.peer_devices[0]!['peer-disk-state'],
      failed['open-window'] === null ? 'DUnknown' : 'Inconsistent',
    );
    process.kill(s.server.child!.pid, 'SIGCONT');
    await untilSite(s.m, 'it is back', (c) => c.state === 'connected', 40_000);
    await same(s);
  });

  it('! is paused when nothing is under way any more, not when it is told to', async () => {
    const s = await start('nbdkit', { options: { timeout: '20s' } });
    await s.m.drain();
    process.kill(s.server.child!.pid, 'SIGSTOP');
    assertClean(await fio(s.m, s.m.disk, { ...WRITES, size: '1m' }, 30_000), 'writes');
    await untilSite(s.m, 'a batch is on its way', (c) => c['open-window'] !== null);
    await s.m.site('pause');
    const busy = await siteStatus(s.m);
    assert.deepEqual([busy.paused, busy.state], [true, 'connected']);
    process.kill(s.server.child!.pid, 'SIGCONT');
    const still = await untilSite(s.m, 'it is paused', (c) => c.state === 'paused');
    assert.equal(still['open-window'], null);
    await s.m.site('resume');
    await same(s);
  });

  const refusals: { name: string; kind: ServerKind; extra?: string[]; size?: number; map?: string; reason: RegExp }[] =
    [
      { name: 'read-only', kind: 'nbdkit', extra: ['-r'], reason: /disk0: is read-only/ },
      { name: 'read-only', kind: 'qemu-nbd', extra: ['-r'], reason: /disk0: is read-only/ },
      { name: 'too small', kind: 'qemu-nbd', size: SIZE / 2, reason: /disk0: is too small/ },
      { name: 'too large', kind: 'nbdkit', size: SIZE * 2, reason: /disk0: is too large/ },
      {
        name: 'of a name that is not there',
        kind: 'qemu-nbd',
        map: 'other',
        reason: /other: the server does not give this export/,
      },
      {
        name: 'in blocks of 4 KiB',
        kind: 'nbdkit',
        extra: ['--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-preferred=4096'],
        reason: /in blocks of 4096 bytes only/,
      },
    ];
  for (const { name, kind, extra, size, map, reason } of refusals)
    it(`refuses an export that is ${name} (${kind})`, async () => {
      const m = await remapped();
      mounted = m;
      const server = await NbdServer.start(m, kind, blank(m, size), extra ?? []);
      m.configureSite({ type: 'nbd', address: server.address, map: map === undefined ? {} : { disk0: map } });
      await m.mount();
      const site = await untilSite(m, 'it is refused', (c) => c.state === 'failed');
      assert.match(site.reason ?? '', reason);
    });

  it('! refuses an export that was exchanged, and writes nothing to it', async () => {
    const s = await start('nbdkit');
    assertClean(await fio(s.m, s.m.disk, WRITES, 30_000), 'writes');
    await s.m.drain();
    await s.m.umount();
    await s.server.kill();
    blank(s.m);
    await s.server.start();
    await s.m.mount();
    const site = await untilSite(
      s.m,
      'it is refused',
      (c) => c.state === 'failed' && /not as this site left/.test(c.reason ?? ''),
    );
    assert.match(site.reason ?? '', /disk0: is not as this site left it/);
    assert.ok(readFileSync(s.file).every((byte) => byte === 0));
  });

  describe('TLS', () => {
    async function certificates(m: Mounted): Promise<string> {
      const dir = join(m.top, 'tls');
      const lines = [
        `mkdir ${dir} && cd ${dir}`,
        'openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca-cert.pem',
        'openssl req -newkey rsa:2048 -nodes -subj /CN=nbd.test -keyout server-key.pem -out s.csr',
        'printf "subjectAltName=DNS:nbd.test" > ext',
        'openssl x509 -req -in s.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out server-cert.pem',
        'openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client-key.pem -out c.csr',
        'openssl x509 -req -in c.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out client-cert.pem',
        'printf "alice:0123456789abcdef0123456789abcdef\\n" > keys.psk && chmod 600 keys.psk',
      ];
      await must('sh', ['-ec', lines.join('\n')], { timeoutMs: 30_000 });
      return dir;
    }

    const good: {
      name: string;
      kind: ServerKind;
      extra: (dir: string) => string[];
      options: (dir: string) => Record<string, string>;
    }[] = [
      {
        name: 'certificates',
        kind: 'nbdkit',
        extra: (dir) => ['--tls=require', `--tls-certificates=${dir}`, '--tls-verify-peer'],
        options: (dir) => ({
          tls: 'require',
          'tls-ca': `${dir}/ca-cert.pem`,
          'tls-cert': `${dir}/client-cert.pem`,
          'tls-key': `${dir}/client-key.pem`,
          'tls-hostname': 'nbd.test',
        }),
      },
      {
        name: 'certificates',
        kind: 'qemu-nbd',
        extra: (dir) => [
          '--object',
          `tls-creds-x509,id=t,dir=${dir},endpoint=server,verify-peer=no`,
          '--tls-creds',
          't',
        ],
        options: (dir) => ({ tls: 'require', 'tls-ca': `${dir}/ca-cert.pem`, 'tls-hostname': 'nbd.test' }),
      },
      {
        name: 'a key that both know',
        kind: 'nbdkit',
        extra: (dir) => ['--tls=require', `--tls-psk=${dir}/keys.psk`],
        options: (dir) => ({ tls: 'psk', 'tls-psk': `${dir}/keys.psk`, 'tls-psk-user': 'alice' }),
      },
    ];

    async function overTls(
      kind: ServerKind,
      extra: (dir: string) => string[],
      options: (dir: string) => Record<string, string>,
    ): Promise<Setup> {
      const m = await remapped();
      mounted = m;
      const dir = await certificates(m);
      const file = blank(m);
      const server = await NbdServer.start(m, kind, file, extra(dir));
      m.configureSite({
        type: 'nbd',
        address: server.address,
        options: { 'reconnect-wait': '500ms', ...options(dir) },
      });
      await m.mount();
      return { m, file, server };
    }

    for (const { name, kind, extra, options } of good)
      it(`replicates to ${kind} by ${name}, also after it was killed`, async () => {
        const s = await overTls(kind, extra, options);
        assertClean(await fio(s.m, s.m.disk, WRITES, 30_000), 'writes');
        const load = fio(s.m, s.m.disk, { ...WRITES, rate: '8m' }, 30_000);
        await pause(500);
        await s.server.kill();
        await s.server.start();
        assertClean(await load, 'writes while it dies');
        await same(s);
      });

    const certs = good[0]!;
    const bad: { name: string; options: (dir: string) => Record<string, string>; reason: RegExp }[] = [
      { name: 'no TLS', options: () => ({}), reason: /the server wants TLS; set the site's option tls/ },
      {
        name: 'an unknown authority',
        options: () => ({ tls: 'require', 'tls-hostname': 'nbd.test' }),
        reason: /TLS failed: /,
      },
      {
        name: 'the name of another',
        options: (dir) => ({ ...certs.options(dir), 'tls-hostname': 'other.test' }),
        reason: /TLS failed: .*other\.test/,
      },
    ];
    for (const { name, options, reason } of bad)
      it(`refuses ${name}`, async () => {
        const s = await overTls('nbdkit', certs.extra, options);
        const site = await untilSite(s.m, 'it is refused', (c) => c.state === 'failed');
        assert.match(site.reason ?? '', reason);
      });

    it('refuses a server without TLS where it is required', async () => {
      const s = await start('nbdkit', { extra: () => ['--tls=off'], options: { tls: 'require' } });
      const site = await untilSite(s.m, 'it is refused', (c) => c.state === 'failed');
      assert.match(site.reason ?? '', /does not offer TLS, which the site requires/);
    });
  });

  it('an option that nobody knows is refused by name', async () => {
    const m = await remapped();
    mounted = m;
    m.configureSite({ type: 'nbd', address: `127.0.0.1:${await freePort()}`, options: { tile: '1' } });
    const outcome = await m.tryMount();
    assert.equal(outcome.status, 1);
    assert.match(outcome.stderr, /option tile: is not known; an nbd site takes timeout/);
  });
});
