/** Devices that come, grow and go on a real mount: command line, kernel, loop devices, kills, sites that are behind. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertSame, digest } from '../support/content.js';
import { VERIFY, fioDone, fioStart } from '../support/fio.js';
import { assertFsck, attach, detach, makeExt4, mountAt, smallDisk, unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { must, run, until, type Outcome } from '../support/proc.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';
import { TRANSPORTS } from '../support/transports.js';

const MIB = 1024 * 1024;
const SMALL = { size: '16M', logSize: '32M' };

interface Config {
  devices: { nr: number; name: string; size: number; local: string; pending?: { op: string } }[];
  nextDevice?: number;
}

describe('devices that come, grow and go', function () {
  this.timeout(180_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio', 'losetup', 'stat');
  });
  afterEach(() => mounted?.cleanup());

  const device = (m: Mounted, ...words: string[]): Promise<Outcome> =>
    m.reptool(['device', ...words, '--mount', m.dir], { timeoutMs: 60_000 });

  async function done(outcome: Promise<Outcome>): Promise<string> {
    const { status, stdout, stderr } = await outcome;
    assert.equal(status, 0, stdout + stderr);
    return stdout;
  }

  async function refused(outcome: Promise<Outcome>, message: RegExp, status = 1): Promise<void> {
    const { status: found, stderr } = await outcome;
    assert.match(stderr, message);
    assert.equal(found, status);
  }

  const config = (m: Mounted): Config => JSON.parse(readFileSync(join(m.groupDir, 'group.json'), 'utf8')) as Config;
  const sizeOf = async (file: string): Promise<number> => Number(await must('stat', ['-c', '%s', file]));
  const names = async (m: Mounted): Promise<string[]> => (await must('ls', [m.dir])).split('\n').filter(Boolean).sort();

  /** Bytes that differ everywhere, durably. */
  const fill = (file: string, from: number, mib: number): Promise<string> =>
    must(
      'sh',
      ['-c', `head -c ${mib * MIB} /dev/urandom | dd of="$0" bs=1M seek=${from} conv=notrunc,fsync status=none`, file],
      { timeoutMs: 30_000 },
    );

  /** Unmounted, all images are what the devices showed. */
  async function assertSites(m: Mounted, wanted: readonly string[]): Promise<void> {
    const shown = await Promise.all(wanted.map((name) => digest(join(m.dir, name))));
    await m.drain();
    await m.umount();
    for (const [i, name] of wanted.entries()) {
      assert.equal(await digest(join(m.imageFolder, name)), shown[i], `the local image of ${name}`);
      await assertSame(join(m.imageFolder, name), join(m.siteFolder, `${name}.img`), `${name} at site 1`);
    }
    const images = readdirSync(m.siteFolder).filter((file) => file.endsWith('.img'));
    assert.deepEqual(images.sort(), wanted.map((name) => `${name}.img`).sort());
  }

  it('! the kernel, status, events and the site see each change at once', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    assert.match(await done(device(m, 'create', 'data', '--size', '8M')), /data: created as device 1, 8 MiB/);
    assert.deepEqual(await names(m), ['data', 'disk0']);
    const data = join(m.dir, 'data');
    assert.equal(await sizeOf(data), 8 * MIB);
    await fill(data, 0, 8);
    await fill(m.disk, 2, 2);
    await refused(
      run('dd', ['if=/dev/zero', `of=${data}`, 'bs=4096', 'seek=2048', 'count=1', 'conv=notrunc']),
      /space/,
    );
    assert.match(await done(device(m, 'resize', 'data', '--size', '12M')), /data: has 12 MiB now/);
    assert.equal(await sizeOf(data), 12 * MIB);
    await fill(data, 10, 2);
    const status = JSON.parse(await m.control('status.json')) as { devices: { name: string; size: number }[] };
    assert.deepEqual(
      status.devices.map(({ name, size }) => [name, size / MIB]),
      [
        ['disk0', 16],
        ['data', 12],
      ],
    );
    assert.match(await m.control('table'), /^data: 0 24576 replicator-dev default 1 /m);
    assert.match(await m.control('status'), /^data: 0 24576 replicator-dev default 1 /m);
    const listed = JSON.parse(await done(device(m, 'list', '--json'))) as { devices: { nr: number; state: string }[] };
    assert.deepEqual(
      listed.devices.map(({ nr, state }) => [nr, state]),
      [
        [0, 'served'],
        [1, 'served'],
      ],
    );
    await done(device(m, 'create', 'short', '--size', '1M'));
    await fill(join(m.dir, 'short'), 0, 1);
    const content = await digest(join(m.dir, 'short'));
    assert.match(await done(device(m, 'remove', 'short')), /removed; its content is kept in .*images\/short/);
    assert.deepEqual(await names(m), ['data', 'disk0']);
    await refused(run('stat', [join(m.dir, 'short')]), /No such file/);
    const events = await m.control('events');
    assert.match(events, /^create device name:data nr:1 size:8388608 /m);
    assert.match(events, /^change device name:data nr:1 size:12582912 /m);
    assert.match(events, /^destroy device name:short nr:2 /m);
    await assertSites(m, ['data', 'disk0']);
    assert.equal(await digest(join(m.imageFolder, 'short')), content, 'what was removed is kept');
    assert.equal(await digest(join(m.siteFolder, 'short.img.removed-2')), content, 'and at the site');

    await m.mount();
    assert.deepEqual(await names(m), ['data', 'disk0']);
    assert.equal(await sizeOf(join(m.dir, 'data')), 12 * MIB);
    await refused(device(m, 'create', 'short', '--size', '1M'), /images\/short: exists and holds 1 MiB; move it away/);
    assert.match(await done(device(m, 'create', 'new', '--size', '1M')), /created as device 3/);
    await done(device(m, 'remove', 'new'));
    assert.equal(config(m).nextDevice, 4, 'numbers are never used again');
  });

  it('! an ext4 on a loop device grows while it is mounted', async function () {
    needsLoop(this);
    needsTool(this, 'mkfs.ext4', 'e2fsck', 'resize2fs');
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '64M' }));
    const loop = await attach(m.disk, '--direct-io=on');
    await makeExt4(loop);
    const fs = join(m.top, 'fs');
    await mountAt(loop, fs);
    await fill(join(fs, 'before'), 0, 8);
    const before = await digest(join(fs, 'before'));
    await done(device(m, 'resize', 'disk0', '--size', '96M'));
    await must('losetup', ['-c', loop]);
    assert.equal(Number(await must('blockdev', ['--getsize64', loop])), 96 * MIB);
    await growExt4(loop, fs);
    await fill(join(fs, 'after'), 0, 48);
    const after = await digest(join(fs, 'after'));
    await refused(device(m, 'remove', 'disk0'), /disk0: is the only device/);
    await done(device(m, 'create', 'other', '--size', '1M'));
    await refused(
      device(m, 'remove', 'disk0'),
      /disk0: is in use: .*\/dev\/loop\d+ is backed by .*disk0; end that first/,
    );
    await unmountAt(fs);
    await assertFsck(loop);
    await detach(loop);
    await assertSites(m, ['disk0', 'other']);
    const replica = await attach(m.siteImage, '--read-only');
    await assertFsck(replica);
    await mountAt(replica, fs, '-o', 'ro');
    assert.equal(await digest(join(fs, 'before')), before);
    assert.equal(await digest(join(fs, 'after')), after);
    await unmountAt(fs);
    await detach(replica);
  });

  it('! a device that is held open is not removed, unless by force: its user then gets ENODEV', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await done(device(m, 'create', 'data', '--size', '1M'));
    const file = join(m.dir, 'data');
    const holder = m.spawn('python3', [
      '-c',
      'import os,sys,signal\nsignal.pthread_sigmask(signal.SIG_BLOCK,[signal.SIGUSR1])\n' +
        'fd=os.open(sys.argv[1],os.O_RDWR)\nprint("open",flush=True)\nsignal.sigwait([signal.SIGUSR1])\n' +
        'try:\n os.pwrite(fd,b"x"*512,0)\n print("written")\nexcept OSError as e:\n print(e.errno)',
      file,
    ]);
    await until('the holder has it open', () => holder.stdout.includes('open'));
    await refused(device(m, 'remove', 'data'), new RegExp(`data: is in use: process ${holder.pid} .*has open`));
    assert.deepEqual(await names(m), ['data', 'disk0']);
    await done(device(m, 'remove', 'data', '--force'));
    assert.deepEqual(await names(m), ['disk0']);
    process.kill(holder.pid, 'SIGUSR1');
    await holder.done;
    assert.match(holder.stdout, /^19$/m);
    await assertSites(m, ['disk0']);
  });

  const STEPS = [
    ...['create:intention', 'create:image', 'create:appended', 'create:durable', 'create:settled'],
    ...['resize:intention', 'resize:image', 'resize:appended', 'resize:durable', 'resize:settled'],
    ...['remove:intention', 'remove:appended', 'remove:durable', 'remove:settled'],
  ];

  it('! kill -9 of the daemon behind each durable step: the change is completed, once', async () => {
    const m = (mounted = new Mounted(SMALL));
    const marker = join(m.top, 'die');
    await m.mount({ env: { REPTOOL_TEST_DEVICE_DIE: marker } });
    let killed = 0;
    let daemon = await m.serving();
    const dying = async (step: string, ...words: string[]): Promise<void> => {
      if (STEPS.includes(step)) writeFileSync(marker, step);
      await done(device(m, ...words));
      assert.equal(existsSync(marker), false, `${step} was passed`);
      daemon = await m.serving(daemon);
      killed++;
    };
    for (const [i, step] of STEPS.entries()) {
      const name = `dev${i}`;
      const is = (what: string): boolean => step.startsWith(what);
      const create = ['create', name, '--size', '1M'];
      if (is('create')) await dying(step, ...create);
      else await done(device(m, ...create));
      const file = join(m.dir, name);
      await fill(file, 0, 1);
      const grow = ['resize', name, '--size', '2M'];
      if (is('resize')) await dying(step, ...grow);
      else await done(device(m, ...grow));
      assert.equal(await sizeOf(file), 2 * MIB, step);
      await fill(file, 1, 1);
      const content = await digest(file);
      const remove = ['remove', name];
      if (is('remove')) await dying(step, ...remove);
      else await done(device(m, ...remove));
      assert.deepEqual(await names(m), ['disk0'], step);
      assert.deepEqual(
        config(m).devices.map((d) => d.name),
        ['disk0'],
      );
      assert.equal(await digest(join(m.imageFolder, name)), content, `${step}: what was removed is kept`);
    }
    assert.equal(killed, STEPS.length);
    assert.equal(config(m).nextDevice, STEPS.length + 1);
    await m.drain();
    await m.umount();
    for (const i of STEPS.keys())
      await assertSame(
        join(m.imageFolder, `dev${i}`),
        join(m.siteFolder, `dev${i}.img.removed-${i + 1}`),
        `dev${i} at site 1`,
      );
    assert.deepEqual(
      readdirSync(m.siteFolder).filter((file) => file.endsWith('.img')),
      ['disk0.img'],
    );
  });

  it('! all processes killed behind each durable step: the next mount completes what was begun', async () => {
    const m = (mounted = new Mounted(SMALL));
    const marker = join(m.top, 'die');
    const env = { REPTOOL_TEST_DEVICE_DIE: marker };
    await m.mount({ env });
    for (const [i, step] of ['create:intention', 'create:durable', 'resize:image', 'remove:appended'].entries()) {
      const [verb] = step.split(':');
      const words =
        verb === 'create'
          ? ['create', `dev${i}`, '--size', '1M']
          : verb === 'resize'
            ? ['resize', 'dev0', '--size', '3M']
            : ['remove', 'dev1'];
      if (verb === 'remove') await fill(join(m.dir, 'dev1'), 0, 1);
      // The keeper is stopped, so that nobody carries on but the next mount.
      const { keeper } = m.pids;
      process.kill(keeper!, 'SIGSTOP');
      writeFileSync(marker, step);
      const asked = m.spawn(process.execPath, [
        join(import.meta.dirname, '../../src/cli/run.js'),
        ...['device', ...words, '--mount', m.dir],
      ]);
      await until(`${step} is passed`, () => !existsSync(marker), 20_000);
      await m.killAll();
      await asked.stop('SIGKILL', 3000);
      await m.mount({ env });
    }
    assert.deepEqual(await names(m), ['dev0', 'disk0']);
    assert.equal(await sizeOf(join(m.dir, 'dev0')), 3 * MIB);
    await fill(join(m.dir, 'dev0'), 1, 2);
    await assertSites(m, ['dev0', 'disk0']);
  });

  it('! a site that is behind follows in order, from the window and from the log alone', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '64M' }));
    await m.site('pause');
    await done(device(m, 'create', 'one', '--size', '2M'));
    await fill(join(m.dir, 'one'), 0, 2);
    const one = await digest(join(m.dir, 'one'));
    await done(device(m, 'remove', 'one'));
    await done(device(m, 'create', 'two', '--size', '1M'));
    await done(device(m, 'resize', 'two', '--size', '4M'));
    await fill(join(m.dir, 'two'), 0, 4);
    await m.umount();
    // Another life: the window is gone, and group.json knows nothing of the first one any more.
    await m.mount();
    await done(device(m, 'resize', 'disk0', '--size', '20M'));
    await fill(m.disk, 16, 4);
    assert.equal(existsSync(join(m.siteFolder, 'two.img')), false);
    await m.site('resume');
    await assertSites(m, ['disk0', 'two']);
    assert.equal(await digest(join(m.siteFolder, 'one.img.removed-1')), one);
  });

  it('! three devices under load at once: one order, the same at the site', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '64M' }));
    await done(device(m, 'create', 'disk1', '--size', '16M'));
    await done(device(m, 'create', 'disk2', '--size', '16M', '--sparse'));
    const disks = ['disk0', 'disk1', 'disk2'];
    const jobs = disks.map((name, i) =>
      fioStart(m, join(m.dir, name), {
        ...VERIFY,
        rw: 'randwrite',
        size: '16M',
        iodepth: 8,
        io_size: '32M',
        randseed: i + 1,
      }),
    );
    for (const job of jobs) {
      const { error, outcome } = await fioDone(job);
      assert.equal(error, 0, outcome.stdout + outcome.stderr);
    }
    await assertSites(m, disks);
  });

  it('! a group that is not mounted: changes are begun, and the next mount completes them', async () => {
    const m = (mounted = await Mounted.start(SMALL));
    await done(device(m, 'create', 'old', '--size', '1M'));
    await m.umount();
    const offline = (...words: string[]): Promise<Outcome> => m.reptool(['device', ...words, '--state', m.state]);
    assert.match(await done(offline('create', 'data', '--size', '2M')), /data: comes as device 2 with the next mount/);
    assert.match(await done(offline('resize', 'disk0', '--size', '17M')), /disk0: grows from 16 MiB to 17 MiB/);
    assert.match(await done(offline('remove', 'old')), /old: goes with the next mount; its content stays/);
    assert.match(await done(offline('list')), /data +2 +2 MiB +comes with[^]*|disk0/);
    await refused(offline('resize', 'data', '--size', '3M'), /data: is still being made/);
    await refused(offline('resize', 'disk0', '--size', '1M'), /a device cannot shrink/);
    await m.mount();
    assert.deepEqual(await names(m), ['data', 'disk0']);
    assert.equal(await sizeOf(m.disk), 17 * MIB);
    // Named by its state folder, the mounted group is asked.
    assert.match(await done(offline('resize', 'data', '--size', '3M')), /data: has 3 MiB now/);
    await fill(join(m.dir, 'data'), 1, 2);
    await assertSites(m, ['data', 'disk0']);
  });

  it('! bad input and full disks: a sentence, the right errno, nothing changed, nothing left behind', async function () {
    needsLoop(this);
    needsTool(this, 'mkfs.ext4');
    const m = (mounted = await Mounted.start(SMALL));
    const full = join(m.top, 'full');
    await smallDisk(m, full, 8);
    const foreign = join(m.top, 'foreign');
    writeFileSync(foreign, 'precious');
    const link = join(m.top, 'link');
    symlinkSync(m.image, link);
    const before = readFileSync(join(m.groupDir, 'group.json'), 'utf8');
    const images = readdirSync(m.imageFolder);
    const local = (file: string): string[] => ['create', 'x', '--size', '1M', '--local', file];
    const cases: [string[], RegExp, number?][] = [
      [['create', 'a/b', '--size', '1M'], /a name must not contain a slash/],
      [['create', 'a@b', '--size', '1M'], /must not contain @/],
      [['create', '.a', '--size', '1M'], /must not begin with a dot/],
      [['create', '', '--size', '1M'], /a name must not be empty/, 2],
      [['create', 'x'.repeat(129), '--size', '1M'], /at most 128 bytes/],
      [['create', 'disk0', '--size', '1M'], /disk0: the group has a device of that name/],
      [['create', 'x', '--size', '1000'], /no whole number of sectors/, 2],
      [['create', 'x'], /--size is missing/, 2],
      [['create', 'x', '--size', '1M', '--nr', '0'], /number 0 was used before/],
      [local(foreign), /foreign: exists and holds 8 B; move it away/],
      [local(link), /link: is the same as .*images\/disk0, which is used already/],
      [local(m.image), /is the local image of disk0/],
      [local(join(m.siteFolder, 'x.img')), /in the folder of site 1/],
      [local(m.log), /is the group's log/],
      [local(join(m.groupDir, 'x')), /in the group's own folder/],
      [local(join(m.dir, 'x')), /mnt, which is used otherwise/],
      [local(join(m.dir, 'disk0')), /mnt, which is used otherwise/],
      [local(join(m.top, 'none', 'x')), /there is no such folder for the local image/],
      [['create', 'x', '--size', '64M', '--local', join(full, 'x')], /allocating 64 MiB failed: no space left/],
      [['resize', 'disk0', '--size', '1M'], /a device cannot shrink/],
      [['resize', 'none', '--size', '1M'], /none: no such device; the group has disk0/],
      [['remove', 'none'], /none: no such device/],
      [['remove', 'disk0'], /disk0: is the only device/],
    ];
    for (const [words, message, status] of cases) {
      await refused(device(m, ...words), message, status);
      assert.equal(readFileSync(join(m.groupDir, 'group.json'), 'utf8'), before, words.join(' '));
    }
    assert.deepEqual(readdirSync(m.imageFolder), images);
    assert.deepEqual(readdirSync(full), ['lost+found']);
    assert.equal(readFileSync(foreign, 'utf8'), 'precious');
    assert.deepEqual(await names(m), ['disk0']);

    // Growing: the image has its old size again.
    await done(device(m, 'create', 'y', '--size', '2M', '--local', join(full, 'y')));
    await refused(device(m, 'resize', 'y', '--size', '64M'), /growing it to 64 MiB failed: no space left/);
    assert.equal(statSync(join(full, 'y')).size, 2 * MIB);
    assert.equal(await sizeOf(join(m.dir, 'y')), 2 * MIB);
    await fill(join(m.dir, 'y'), 0, 2);
    const log = await must('sh', ['-c', `printf 'device remove' > ${m.dir}/.ctl/messages || true`]);
    assert.equal(log, '');
    await done(device(m, 'remove', 'y'));
    await m.umount();
    await unmountAt(full);
  });

  it('! a block device is taken empty and large enough, and zeroed', async function () {
    needsLoop(this);
    const m = (mounted = await Mounted.start(SMALL));
    const file = join(m.top, 'disk.img');
    mkdirSync(join(m.top, 'empty'));
    await must('truncate', ['-s', '8M', file]);
    const block = await attach(file);
    await must('sh', ['-c', 'echo content | dd of="$0" conv=notrunc,fsync status=none', block]);
    const create = (size: string): Promise<Outcome> => device(m, 'create', 'blk', '--size', size, '--local', block);
    await refused(create('8M'), /holds data, which would be lost/);
    await must('dd', ['if=/dev/zero', `of=${block}`, 'bs=1M', 'count=1', 'conv=fsync', 'status=none']);
    await must('sh', ['-c', 'echo hidden | dd of="$0" bs=1M seek=4 conv=notrunc,fsync status=none', block]);
    await refused(create('16M'), /has 8 MiB, too small for a device of 16 MiB/);
    await done(create('6M'));
    const blk = join(m.dir, 'blk');
    assert.equal(await digest(blk), await zeroDigest(6));
    await fill(blk, 1, 2);
    const shown = await digest(blk);
    await done(device(m, 'resize', 'blk', '--size', '8M'));
    await refused(device(m, 'resize', 'blk', '--size', '9M'), /is too small/);
    await done(device(m, 'remove', 'blk'));
    await m.drain();
    await m.umount();
    const first = await must('sh', ['-c', 'head -c 6291456 "$0" | sha256sum', block]);
    assert.equal(first.slice(0, 64), shown);
    await detach(block);
  });

  /** Online where this machine permits it (EXT4_IOC_RESIZE_FS wants CAP_SYS_RESOURCE), else between two mounts. */
  async function growExt4(loop: string, fs: string): Promise<void> {
    const online = await run('resize2fs', [loop], { timeoutMs: 60_000 });
    if (online.status === 0) return;
    assert.match(online.stderr, /Permission denied/);
    console.log('      resize2fs may not grow a mounted ext4 here (no CAP_SYS_RESOURCE): grown between two mounts');
    await unmountAt(fs);
    await must('e2fsck', ['-f', '-y', loop], { timeoutMs: 60_000 });
    await must('resize2fs', [loop], { timeoutMs: 60_000 });
    await mountAt(loop, fs);
  }

  async function zeroDigest(mib: number): Promise<string> {
    return (await must('sh', ['-c', `head -c ${mib * MIB} /dev/zero | sha256sum`])).slice(0, 64);
  }
});

/**
 * Asks for changes from within one process, so that the kernel's answer to the question before is as young as it
 * can be: sizes by name, by handle and by seeking, and a name by O_PATH, for which the kernel asks nobody while
 * it thinks that it knows.
 */
const LOOKER = `
import os, sys
top = sys.argv[1]
name = top + '/data'
def message(text):
  fd = os.open(top + '/.ctl/messages', os.O_WRONLY)
  os.write(fd, text.encode())
  os.close(fd)
def known():
  try:
    os.close(os.open(name, os.O_PATH))
    return True
  except FileNotFoundError:
    return False
def sizes(fd):
  return [os.stat(name).st_size, os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END)]
for turn in range(5):
  if known(): print('known before it is there')
  message('device create data size=1M')
  fd = os.open(name, os.O_RDWR)
  os.pwrite(fd, b'x' * 1048576, 0)
  if sizes(fd) != [1048576] * 3: print('made', sizes(fd))
  message('device resize data 2M')
  if sizes(fd) != [2097152] * 3: print('grown', sizes(fd))
  if os.pread(fd, 512, 1048576) != bytes(512): print('not zeroes')
  os.pwrite(fd, b'y', 2097151)
  os.close(fd)
  if not known(): print('not known')
  message('device remove data')
  if known(): print('known although it is gone')
  if os.listdir(top).count('data'): print('listed although it is gone')
  os.unlink(sys.argv[2])
  message('device create data size=3M')
  fd = os.open(name, os.O_RDONLY)
  if sizes(fd) != [3145728] * 3: print('made again', sizes(fd))
  if os.pread(fd, 2097152, 0) != bytes(2097152): print('content of the device before')
  os.close(fd)
  message('device remove data')
  os.unlink(sys.argv[2])
print('looked')
`;

for (const transport of TRANSPORTS)
  describe(`devices as the kernel shows them, ${transport}`, function () {
    this.timeout(60_000);
    let mounted: Mounted | undefined;

    before(function () {
      needsFuse(this);
      needsTool(this, 'python3', 'losetup', 'blockdev');
    });
    afterEach(() => mounted?.cleanup());

    it('! sizes and names are seen changed by the time a change is answered', async () => {
      const m = (mounted = await Mounted.start({ ...SMALL, transport }));
      const kept = join(m.imageFolder, 'data');
      const { stdout, stderr } = await run('python3', ['-c', LOOKER, m.dir, kept], { timeoutMs: 30_000 });
      assert.equal(stdout, 'looked\n', stderr);
    });

    it('! losetup -c finds the new size without anybody having looked', async function () {
      needsLoop(this);
      const m = (mounted = await Mounted.start({ ...SMALL, transport }));
      const loop = await attach(m.disk);
      for (const mib of [17, 24]) {
        await must('sh', ['-c', `printf 'device resize disk0 ${mib}M' > ${m.dir}/.ctl/messages && losetup -c ${loop}`]);
        assert.equal(Number(await must('blockdev', ['--getsize64', loop])), mib * MIB);
      }
      await detach(loop);
      await m.drain();
      await m.umount();
    });
  });
