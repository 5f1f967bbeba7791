/** Sites of every type that are added to a group in use, by the command line, and taken away again. */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertSame, digest } from '../support/content.js';
import { VERIFY, assertClean, fio } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { NbdServer } from '../support/nbd-servers.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { describeOutcome } from '../support/proc.js';

const MIB = 1024 * 1024;

describe('sites that are added while the group is in use', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;
  let server: NbdServer | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio', 'nbdkit');
  });
  afterEach(async () => {
    await server?.kill();
    server = undefined;
    await mounted?.cleanup();
  });

  async function fine(m: Mounted, ...words: string[]): Promise<string> {
    const outcome = await m.reptool(words, { timeoutMs: 60_000 });
    assert.equal(outcome.status, 0, describeOutcome(words.join(' '), outcome));
    return outcome.stdout;
  }

  function blank(m: Mounted, name: string, size: number): string {
    const file = join(m.top, name);
    writeFileSync(file, '');
    truncateSync(file, size);
    return file;
  }

  it('a folder, a raw file with a blank in its name and an NBD export get all of history', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '128M' }));
    const at = ['--mount', m.dir];
    assertClean(await fio(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 8, size: '8m' }, 30_000), 'before');
    const raw = blank(m, 'a raw one', 16 * MIB);
    const exported = blank(m, 'export', 16 * MIB);
    server = await NbdServer.start(m, 'nbdkit', exported);
    await fine(m, 'site', 'add', '2', `blockdev:${join(m.top, 'site two')}`, '--policy', 'sync', ...at);
    await fine(m, 'site', 'add', '3', 'blockdev:', '--map', `disk0=${raw}`, ...at);
    const refused = await m.reptool(['site', 'add', '5', `nbd:${server.address}`, '--option', 'speed=9', ...at]);
    assert.equal(refused.status, 1, describeOutcome('an unknown option', refused));
    assert.match(refused.stderr, /speed/);
    await fine(m, 'site', 'add', '4', `nbd:${server.address}`, '--option', 'timeout=5s', '--rpo', '20ms', ...at);
    assertClean(await fio(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 8, size: '16m' }, 40_000), 'after');
    await m.killDaemon();
    await m.serving();
    assertClean(
      await fio(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 8, size: '16m', randseed: 7 }, 40_000),
      'killed',
    );
    const device = await digest(m.disk);
    await fine(m, 'wait', m.dir, '--timeout', '50s');
    await m.umount();
    assert.equal(await digest(m.image), device, 'the local image');
    for (const file of [m.siteImage, join(m.top, 'site two', 'disk0.img'), raw, exported])
      await assertSame(m.image, file, file);
  });

  it('64 of them are served at once, and the 65th is refused', async () => {
    const m = (mounted = await Mounted.start({ size: '1M', logSize: '64M' }));
    const file = join(m.groupDir, 'group.json');
    await m.drain();
    await m.umount();
    const config = JSON.parse(readFileSync(file, 'utf8')) as { sites: { nr: number; address: string }[] };
    config.sites = [];
    writeFileSync(file, JSON.stringify(config));
    // Folders of a mebibyte each: a stage takes 128, so these are files.
    for (let nr = 1; nr <= 64; nr++)
      await fine(
        m,
        'site',
        'add',
        String(nr * 32 - 1),
        'blockdev:',
        '--map',
        `disk0=${blank(m, `raw${nr}`, MIB)}`,
        ...stateOf(m),
      );
    await m.mount();
    const more = await m.reptool(
      ['site', 'add', '2000', 'blockdev:', '--map', `disk0=${blank(m, 'raw65', MIB)}`, '--mount', m.dir],
      { timeoutMs: 60_000 },
    );
    assert.equal(more.status, 1, describeOutcome('the 65th site', more));
    assertClean(await fio(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 4, size: '1m' }, 30_000), 'to 64 sites');
    await fine(m, 'wait', m.dir, '--timeout', '50s');
    const pss = Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${m.pids.daemon}/smaps_rollup`, 'utf8'))![1]);
    console.log(`      64 sites: the daemon holds ${Math.round(pss / 1024)} MiB (PSS)`);
    await m.umount();
    assert.equal(statSync(m.image).size, MIB);
    for (let nr = 1; nr <= 64; nr++) await assertSame(m.image, join(m.top, `raw${nr}`), `raw${nr}`);
  });
});

function stateOf(m: Mounted): string[] {
  return ['--state', join(m.groupDir, '..')];
}
