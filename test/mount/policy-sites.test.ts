/** A sync site of every type, over every transport: a write returns when the site has it. */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { realIo } from '../../src/base/io.js';
import type { SiteConfig } from '../../src/control/config.js';
import { recoverFolder } from '../../src/slink/recover.js';
import { Mounted, PROJECT } from '../support/mounted.js';
import { NbdServer } from '../support/nbd-servers.js';
import { must } from '../support/proc.js';
import { remapped } from '../support/remap.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { siteStatus, untilSite } from '../support/status.js';
import { TRANSPORTS, type Transport } from '../support/transports.js';

const SIZE = 32 * 1024 * 1024;
const BLOCK = 4096;

type SiteWords = Pick<SiteConfig, 'type' | 'address'> & Partial<SiteConfig>;

interface Place {
  m: Mounted;
  /** What the site has of the device just now, without its help. */
  content(): Promise<Buffer>;
}

describe('a sync site', function () {
  this.timeout(90_000);
  let mounted: Mounted | undefined;
  let server: NbdServer | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(async () => {
    await server?.kill();
    server = undefined;
    await mounted?.cleanup();
  });

  async function set(m: Mounted, ...words: string[]): Promise<void> {
    const outcome = await m.reptool(['site', 'set', '1', ...words, '--mount', m.dir]);
    assert.equal(outcome.status, 0, outcome.stderr);
  }

  async function write(m: Mounted, n: number, letter: string): Promise<void> {
    const line = `head -c ${BLOCK} /dev/zero | tr '\\0' '${letter}' | dd of=${m.disk} bs=${BLOCK} seek=${n} count=1 iflag=fullblock conv=notrunc status=none`;
    await must('sh', ['-c', line], { timeoutMs: 20_000 });
  }

  async function holds({ m, content }: Place): Promise<void> {
    await untilSite(m, 'site 1 gates', (s) => s.state === 'connected' && s['lag-writes'] === 0);
    await set(m, '--policy', 'sync');
    for (let n = 0; n < 5; n++) {
      const letter = 'abcde'[n]!;
      await write(m, n, letter);
      const found = (await content()).subarray(n * BLOCK, (n + 1) * BLOCK);
      assert.ok(found.equals(Buffer.alloc(BLOCK, letter)), `write ${n} has returned, and the site does not have it`);
    }
    assert.equal((await siteStatus(m))['lag-writes'], 0);
    await must('sync', ['-d', m.disk], { timeoutMs: 20_000 });
    // Paused it holds; resumed it lets go.
    await m.site('pause');
    const held = write(m, 7, 'h');
    await untilSite(m, 'a writer waits', (s) => s['waiting-writes'] === 1);
    await m.site('resume');
    await held;
    assert.equal((await content())[7 * BLOCK], 'h'.charCodeAt(0));
  }

  function blank(m: Mounted, name: string): string {
    const file = join(m.top, name);
    writeFileSync(file, '');
    truncateSync(file, SIZE);
    return file;
  }

  async function withSite(make: (m: Mounted) => Promise<{ site: SiteWords; file: string }>): Promise<Place> {
    const m = await remapped();
    mounted = m;
    const { site, file } = await make(m);
    m.configureSite(site);
    await m.mount();
    return { m, content: () => Promise.resolve(readFileSync(file)) };
  }

  it('! on a raw file has every write that returned', async () => {
    const place = await withSite((m) => {
      const file = blank(m, 'leg');
      return Promise.resolve({ site: { type: 'blockdev', address: '', map: { disk0: file } }, file });
    });
    await holds(place);
  });

  it('! behind an NBD server has every write that returned', async function () {
    needsTool(this, 'nbdkit');
    const place = await withSite(async (m) => {
      const file = blank(m, 'export');
      server = await NbdServer.start(m, 'nbdkit', file);
      return { site: { type: 'nbd', address: server.address }, file };
    });
    await holds(place);
  });

  it('! of a plug-in has every write that returned', async () => {
    const m = (mounted = new Mounted());
    const [d0, spool, plugin] = [blank(m, 'd0'), join(m.top, 'spool'), join(m.top, 'spool.mjs')];
    copyFileSync(join(PROJECT, 'test/fixtures/plugins/spool.mjs'), plugin);
    const table = join(m.top, 'table');
    writeFileSync(
      table,
      `0 1 replicator ringbuffer 4 ${m.top}/log 0 auto 32768 blockdev 2 0 async spool 2 1 async\n` +
        `0 ${SIZE / 512} replicator-dev default 0 0 1 ${d0} nolog 0 1 1 ${spool} nolog 0\n`,
    );
    const made = await m.reptool(['mount', m.dir, '--state', m.state, '--table', table, '--plugin', plugin]);
    assert.equal(made.status, 0, made.stderr + m.daemonLog);
    const { replay } = (await import(plugin)) as {
      replay(from: string, device: number, to: string, size: number): void;
    };
    const content = (): Promise<Buffer> => {
      const image = join(m.top, 'replayed');
      replay(spool, 0, image, SIZE);
      return Promise.resolve(readFileSync(image));
    };
    await holds({ m, content });
  });

  const folder = (transport: Transport): void =>
    void it(`! in a folder has every write that returned (transport ${transport})`, async () => {
      const m = (mounted = await Mounted.start({ size: '32M', logSize: '64M', transport }));
      await m.drain();
      // Stage and image together, as somebody would put them together who has nothing else left.
      const content = async (): Promise<Buffer> => {
        const copy = join(m.top, 'copy');
        rmSync(copy, { recursive: true, force: true });
        await must('cp', ['-a', '--sparse=always', m.siteFolder, copy], { timeoutMs: 20_000 });
        assert.ok(recoverFolder(realIo, copy, { write: true }).written);
        return readFileSync(join(copy, 'disk0.img'));
      };
      await holds({ m, content });
    });
  for (const transport of TRANSPORTS) folder(transport);

  it('is not put off while the group is busy, though its async self was', async () => {
    const m = (mounted = await Mounted.start({ size: '128M', logSize: '512M' }));
    const load = m.spawn(
      'dd',
      ['if=/dev/zero', `of=${m.disk}`, 'bs=64k', 'seek=64', 'count=1500', 'conv=notrunc', 'status=none'],
      { timeoutMs: 60_000 },
    );
    await untilSite(m, 'the site lags', (s) => s['lag-writes'] > 0);
    await set(m, '--policy', 'sync');
    await write(m, 0, 's');
    const status = await siteStatus(m);
    assert.equal(status.mode, 'S');
    assert.equal((await load.done).status, 0);
    assert.equal((await siteStatus(m))['lag-writes'], 0);
    // The same for a limit: who is beyond it waits for the link, which is in no position to put anything off.
    await set(m, '--policy', 'async', '--fallbehind', 'ios=1');
    const began = Date.now();
    for (let n = 1; n < 9; n++) await write(m, n, 'l');
    assert.ok(Date.now() - began < 8000, `${Date.now() - began} ms for eight writes beyond a limit`);
    assert.ok((await siteStatus(m))['lag-writes'] <= 2);
  });
});
