/** A site on raw block devices and files: replicate, die, be swapped, be refused; nothing is mixed. */
import assert from 'node:assert/strict';
import { linkSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digest, assertSame } from '../support/content.js';
import { VERIFY, assertClean, fio, type FioArgs } from '../support/fio.js';
import { attach, makeExt4, mountAt, unmountAt } from '../support/loop.js';
import type { Mounted } from '../support/mounted.js';
import { must } from '../support/proc.js';
import { remapped } from '../support/remap.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';
import { siteStatus, untilSite } from '../support/status.js';

const WRITES: FioArgs = { ...VERIFY, rw: 'randwrite', iodepth: 16, size: '16m' };
const SIZE = 32 * 1024 * 1024;

describe('raw site', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsLoop(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  /** A file in the test's folder that reads as zeroes. */
  function blank(m: Mounted, name: string, size = SIZE): string {
    const file = join(m.top, name);
    writeFileSync(file, '');
    truncateSync(file, size);
    return file;
  }

  const loopOn = (file: string, ...options: string[]): Promise<string> => attach(file, ...options);

  /** A group whose site 1 is the device that `leg` makes. */
  async function start(leg: (m: Mounted) => string | Promise<string>): Promise<{ m: Mounted; leg: string }> {
    const m = (mounted = await remapped());
    const path = await leg(m);
    m.configureSite({ type: 'blockdev', address: '', map: { disk0: path } });
    await m.mount();
    return { m, leg: path };
  }

  async function same(m: Mounted, leg: string): Promise<void> {
    const device = await digest(m.disk);
    await m.drain();
    await m.umount();
    assert.equal(await digest(m.image), device, 'the local image differs from what the device showed');
    await assertSame(m.image, leg, 'the leg of site 1 differs from the local image');
  }

  it('replicates to a block device, discards included, and says when the window is closed', async () => {
    const { m, leg } = await start(async (n) => loopOn(blank(n, 'disk')));
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'writes');
    for (let at = 1; at < 8; at++) await must('fallocate', ['-p', '-o', `${at * 2 - 1}MiB`, '-l', '320KiB', m.disk]);
    await m.drain();
    const s = await untilSite(m, 'the window is closed', (site) => site['open-window'] === null);
    assert.equal(s.peer_devices[0]!['peer-disk-state'], 'UpToDate');
    assert.deepEqual(s.map, { disk0: leg });
    assert.match(await m.control('table'), new RegExp(` 1 1 ${leg} (nolog 0|disk 1 8192)$`, 'm'));
    await same(m, leg);
  });

  it('! daemon killed again and again under load: the leg is the same in the end', async () => {
    const { m, leg } = await start((n) => blank(n, 'disk'));
    const load = fio(m, m.disk, { ...WRITES, loops: 4, rate: '20m' }, 60_000);
    let last = 0;
    for (let i = 0; i < 6; i++) {
      last = await m.serving(last);
      await new Promise((resolve) => setTimeout(resolve, 100 + 150 * i));
      await m.killDaemon();
    }
    assertClean(await load, 'load under kills');
    await same(m, leg);
  });

  it('! all killed in the middle of writes: mounted again, it goes on, and the leg is the same', async () => {
    const { m, leg } = await start((n) => blank(n, 'disk'));
    const load = m.spawn('fio', [
      '--name=x',
      `--filename=${m.disk}`,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=16',
      '--ioengine=libaio',
      '--direct=1',
      '--size=16m',
      '--loops=50',
      '--allow_file_create=0',
    ]);
    await untilSite(m, 'the site is inside its window', (s) => s['open-window'] !== null);
    await m.killAll();
    await load.done;
    await m.mount();
    await same(m, leg);
  });

  it('! swapped while unmounted, it is refused and not written to; the right one is taken again', async () => {
    const { m, leg } = await start((n) => blank(n, 'disk'));
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'writes');
    await m.drain();
    await m.umount();
    renameSync(leg, `${leg}.right`);
    blank(m, 'disk');
    await m.mount();
    const refused = await untilSite(m, 'it is refused', (s) => s.state === 'failed');
    assert.match(refused.reason ?? '', /disk: is not as this site left it.*put the right one back/);
    assertClean(await fio(m, m.disk, WRITES, 30_000), 'writes beside it');
    assert.equal(
      readFileSync(leg).every((byte) => byte === 0),
      true,
      'the strange image was written to',
    );
    renameSync(`${leg}.right`, leg);
    await untilSite(m, 'it is taken again', (s) => s.state === 'connected', 40_000);
    await same(m, leg);
  });

  const refusals: { name: string; leg: (m: Mounted) => string | Promise<string>; reason: RegExp }[] = [
    {
      name: 'that holds data',
      leg: (m) => (writeFileSync(blank(m, 'disk'), 'x', { flag: 'r+' }), join(m.top, 'disk')),
      reason: /disk: holds data \(the first at byte 0\).*wipe it \("blkdiscard -z"/,
    },
    {
      name: 'that is mounted',
      leg: async (m) => {
        const loop = await loopOn(blank(m, 'disk'));
        await makeExt4(loop);
        await mountAt(loop, join(m.top, 'fs'));
        return loop;
      },
      reason: /loop\d+: is mounted or otherwise in use; unmount it/,
    },
    { name: 'that is read-only', leg: (m) => loopOn(blank(m, 'disk'), '--read-only'), reason: /cannot be written to/ },
    { name: 'that is too small', leg: (m) => blank(m, 'disk', SIZE / 2), reason: /disk: is too small/ },
    { name: 'that is no device', leg: () => '/dev/null', reason: /null: is neither a block device nor a file/ },
    { name: 'in the own mount', leg: (m) => m.disk, reason: /disk0: is in .*mnt, which is the group's own/ },
    {
      name: 'that is the local image by another name',
      leg: (m) => (linkSync(m.image, join(m.top, 'hard')), join(m.top, 'hard')),
      reason: /hard: is the local image of disk0/,
    },
    {
      name: 'that is a loop device over the local image',
      leg: (m) => loopOn(m.image),
      reason: /is the local image of disk0/,
    },
    { name: 'that is not there', leg: (m) => join(m.top, 'nowhere'), reason: /nowhere: .*cannot be reached/ },
  ];
  for (const { name, leg, reason } of refusals)
    it(`refuses a leg ${name}; the local disk goes on`, async () => {
      const { m } = await start(leg);
      const s = await untilSite(m, 'it is refused', (site) => site.state === 'failed');
      assert.match(s.reason ?? '', reason);
      assertClean(await fio(m, m.disk, { ...WRITES, size: '2m' }, 30_000), 'the local disk');
      assert.equal((await siteStatus(m))['cursor-seq'], s['cursor-seq']);
      if (name === 'that is mounted') await unmountAt(join(m.top, 'fs'));
    });
});
