/** `--on-local-error detach` on real mounts: the disk under slink 0's images fails or is full, and applications go on. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StatusJson } from '../../src/control/status.js';
import { VERIFY, fio, fioDone, fioStart, type FioArgs } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { Volume, VolumeDisks } from '../support/order-volume.js';
import { must, run, sleep } from '../support/proc.js';
import { needsFuse, needsRoot, needsTool } from '../support/skip.js';
import { statusOf, untilStatus } from '../support/status.js';

const MIB = 1 << 20;
const SIZE = 48;
/** Random writes, read back and compared while they go on and at the end. */
const JOB: FioArgs = { ...VERIFY, rw: 'randrw', rwmixread: 30, size: `${SIZE}m`, verify_backlog: 256, iodepth: 4 };

const detached = (s: StatusJson): boolean => s['local-detached']?.['reads-from'] === 'site 1' && !s.suspended;
const attached = (s: StatusJson): boolean => s['local-detached'] === null && s.devices[0]!['disk-state'] === 'UpToDate';

describe('a local disk that fails, with --on-local-error detach', function () {
  this.timeout(180_000);
  let mounted: Mounted | undefined;
  let disks: VolumeDisks | undefined;

  before(function () {
    needsFuse(this);
    needsRoot(this);
    needsTool(this, 'fio', 'mkfs.ext4', 'losetup', 'cp', 'cmp');
  });
  afterEach(async () => {
    if (mounted?.isMounted === true) await mounted.reptool(['umount', mounted.dir], { timeoutMs: 30_000 });
    if (mounted !== undefined) await run('umount', [mounted.imageFolder], { timeoutMs: 10_000 });
    await disks?.remove();
    await mounted?.cleanup();
    mounted = disks = undefined;
  });

  /** A group whose local image stands on an ext4 of its own. */
  async function group(mib = 128): Promise<{ m: Mounted; v: Volume }> {
    const m = (mounted = await Mounted.start({ size: `${SIZE}M`, logSize: '128M', onLocalError: 'detach' }));
    await m.drain();
    await m.umount();
    const aside = mkdtempSync(join(m.top, 'aside-'));
    await must('cp', ['-a', `${m.imageFolder}/.`, aside]);
    rmSync(m.imageFolder, { recursive: true });
    disks = new VolumeDisks(m.top);
    await disks.make(1, mib * MIB);
    const v = new Volume(m.groupDir, 'images', disks.devices[0]!);
    await must('cp', ['-a', `${aside}/.`, m.imageFolder]);
    await m.mount();
    await untilStatus(m, 'site 1 is connected', (s) => s.connections[0]!.state === 'connected');
    return { m, v };
  }

  /** After everything is back: unmounted, local image and site's image are the same. */
  async function same(m: Mounted): Promise<void> {
    await m.drain();
    await m.umount();
    await must('cmp', [m.image, m.siteImage], { timeoutMs: 60_000 });
  }

  async function repair(v: Volume): Promise<void> {
    await v.unmount();
    await v.mount(async () => undefined);
  }

  it('! applications see no error, reads come from the site, and slink 0 catches up', async () => {
    const { m, v } = await group();
    // What slink 0 lacks stays in the log, which must not fill meanwhile.
    const child = fioStart(m, m.disk, { ...JOB, time_based: true, runtime: 9, rate_iops: 1000 }, 60_000);
    await sleep(1500);
    v.shutDown('cut');
    const s = await untilStatus(m, 'slink 0 is detached', detached);
    assert.match(s['local-detached']!.reason, /(images\/disk0.*: (write|sync|redo)|local images: read) failed/);
    assert.equal(s.devices[0]!['disk-state'], 'Diskless');
    const text = (await m.reptool(['status', m.dir])).stdout;
    assert.match(text, /local detached: .*; reads from site 1/);
    assert.match(await m.control('events'), /change group name:default local-disk:Diskless reads-from:site1/);
    assert.ok(existsSync(join(m.groupDir, 'detached.json')));
    // Its daemon may die meanwhile, again and again.
    for (let i = 0, pid = 0; i < 2; i++) {
      pid = await m.killDaemon(pid);
      await m.serving(pid);
      await untilStatus(m, 'still detached', detached);
    }
    const stays = await m.reptool(['message', m.group, 'resume', '--mount', m.dir]);
    assert.equal(stays.status, 1, stays.stdout);
    assert.match(stays.stderr, /still failing/);
    const done = await fioDone(child);
    assert.equal(done.error, 0, JSON.stringify(done.outcome));
    assert.equal(done.outcome.status, 0);
    // Nobody has it open any more, so that it can be repaired.
    await repair(v);
    const back = await m.reptool(['message', m.group, 'resume', '--mount', m.dir]);
    assert.equal(back.status, 0, back.stderr);
    await untilStatus(m, 'slink 0 is attached', attached, 30_000);
    assert.ok(!existsSync(join(m.groupDir, 'detached.json')));
    const again = await fio(m, m.disk, { ...JOB, time_based: true, runtime: 2 });
    assert.equal(again.error, 0, again.outcome.stderr);
    await same(m);
  });

  it('a full disk detaches slink 0, and room attaches it again', async () => {
    const { m } = await group(96);
    const ballast = join(m.imageFolder, 'ballast');
    await must('sh', ['-c', 'head -c 200M /dev/zero > "$0" 2>/dev/null; sync; exit 0', ballast], { timeoutMs: 30_000 });
    const done = await fio(m, m.disk, { ...JOB, rw: 'write', bs: '64k' });
    assert.equal(done.error, 0, done.outcome.stderr);
    const s = await untilStatus(m, 'slink 0 is detached', detached);
    assert.match(s['local-detached']!.reason, /no space left|ENOSPC/i);
    rmSync(ballast);
    assert.equal((await m.reptool(['message', m.group, 'resume', '--mount', m.dir])).status, 0);
    await untilStatus(m, 'slink 0 is attached', attached, 30_000);
    await same(m);
  });

  it('unmounted while detached, it is mounted detached, and a wrong image is not taken', async () => {
    const { m, v } = await group();
    v.shutDown('powered off');
    const first = await fio(m, m.disk, { ...JOB, rw: 'randwrite', number_ios: 2000 });
    assert.equal(first.error, 0, first.outcome.stderr);
    await untilStatus(m, 'slink 0 is detached', detached);
    const before = await must('sha256sum', [m.disk], { timeoutMs: 30_000 });
    await m.umount();
    await m.mount();
    await untilStatus(m, 'slink 0 is detached after the mount', detached);
    assert.equal(await must('sha256sum', [m.disk], { timeoutMs: 30_000 }), before);
    const busy = await m.reptool(['site', 'remove', '1', '--yes', '--mount', m.dir]);
    assert.notEqual(busy.status, 0);
    const change = await m.reptool(['device', 'create', 'disk1', '--size', '1M', '--mount', m.dir]);
    assert.match(change.stderr, /slink 0 is detached/);
    await repair(v);
    const image = m.image;
    const kept = `${image}.kept`;
    await must('cp', ['-a', image, kept]);
    rmSync(image);
    writeFileSync(image, '');
    truncateSync(image, SIZE * MIB);
    const wrong = await m.reptool(['message', m.group, 'resume', '--mount', m.dir]);
    assert.equal(wrong.status, 1);
    assert.match(wrong.stderr, /exchanged for another file/);
    assert.ok(detached(await statusOf(m)));
    rmSync(image);
    await must('cp', ['-a', kept, image]);
    assert.equal((await m.reptool(['message', m.group, 'resume', '--mount', m.dir])).status, 0);
    await untilStatus(m, 'slink 0 is attached', attached, 30_000);
    assert.equal(await must('sha256sum', [m.disk], { timeoutMs: 30_000 }), before);
    await same(m);
  });

  it('without a site that can serve it waits as with suspend, and says why', async () => {
    const { m, v } = await group();
    await m.site('pause');
    const child = fioStart(m, m.disk, { ...JOB, rw: 'write', size: '8m' }, 60_000);
    const done = await fioDone(child);
    assert.equal(done.error, 0);
    await sleep(1200);
    v.shutDown('cut');
    const writing = m.spawn('dd', [
      `if=/dev/zero`,
      `of=${m.disk}`,
      'bs=64k',
      'count=16',
      'oflag=direct',
      'conv=notrunc',
    ]);
    const s = await untilStatus(m, 'it says why', (st) => st['suspended-reason'] !== null);
    assert.match(s['suspended-reason']!, /site 1 lacks \d+ writes/);
    await m.site('resume');
    await untilStatus(m, 'slink 0 is detached', detached);
    assert.equal((await writing.done).status, 0);
    await repair(v);
    await m.reptool(['message', m.group, 'resume', '--mount', m.dir]);
    await untilStatus(m, 'slink 0 is attached', attached, 30_000);
    await same(m);
  });
});
