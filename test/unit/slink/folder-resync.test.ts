import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo, type Io } from '../../../src/base/io.js';
import { Mem } from '../../../src/base/mem.js';
import { O_DIRECT } from '../../../src/base/sys.js';
import { BLOCK, KIB } from '../../../src/base/units.js';
import type { SiteOpen, SiteOpened } from '../../../src/slink/contract.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { recoverFolder } from '../../../src/slink/recover.js';
import { STAGE_FILE } from '../../../src/slink/stage-format.js';
import { TestClock, cleanUp } from '../replog/rig.js';
import { Copying, oldFile } from './copying.js';
import { DISK, DISK1, FaultIo, History, how, imagesOf, put, siteFolder } from './support.js';

const DISK2 = { nr: 2, name: 'disk2', size: 16 * KIB };
/** Has the name of one that is removed before it comes. */
const DISK3 = { nr: 3, name: 'disk1', size: 24 * KIB };

describe('FolderSite with a resync', () => {
  let folder: string;
  let clock: TestClock;
  let history: History;
  let sites: FolderSite[];

  beforeEach(() => {
    folder = siteFolder();
    clock = new TestClock();
    history = new History([DISK, DISK1]);
    sites = [];
  });
  afterEach(() => {
    for (const site of sites) site.close();
    cleanUp();
  });

  const file = (name: string): string => join(folder, name);

  function newSite(io: Io = realIo): FolderSite {
    const site = new FolderSite(io, clock, folder, { area: 256 * KIB });
    sites.push(site);
    return site;
  }

  function ship(site: FolderSite): void {
    assert.equal(site.write(history.end()), 0, site.reason);
  }

  /** A site with two confirmed batches, the second of them staged only. */
  function behind(): void {
    const site = newSite();
    assert.ok(site.open(how([DISK, DISK1])).ok, site.reason);
    history.begin().fill(0, 8192).fill(4096, 4096, 1);
    ship(site);
    assert.equal(site.flush(), 0);
    history.begin().fill(4096, 8192).fill(16384, 512);
    ship(site);
    site.close();
  }

  /** History goes on without the site, which is dropped then. */
  function dropped(missed: () => void = () => void history.begin().fill(32768, 8192).fill(0, 4096, 1)): Copying {
    missed();
    history.end();
    return new Copying(history);
  }

  function refusal(opened: SiteOpened): string {
    if (opened.ok) return assert.fail('it was opened');
    assert.equal(opened.refused, true, opened.reason);
    return opened.reason;
  }

  function openPlain(site = newSite(), create = false): SiteOpened {
    return site.open(how([DISK, DISK1], create));
  }

  /** It opens in order at the end of history, and its images are that. */
  function checkWhole(): void {
    const site = newSite();
    const opened = openPlain(site);
    assert.deepEqual(opened, { ok: true, cursor: history.cursor }, site.reason);
    assert.equal(site.inconsistent, false);
    site.close();
    assert.equal(history.seqOfFolder(folder), history.cursor.seq);
  }

  it('! is inconsistent from the open until whole, begins at the place it is given, and is equal then', () => {
    behind();
    const copying = dropped();
    const site = newSite();
    assert.deepEqual(copying.opened(site), copying.at);
    assert.match(site.readers() as string, /is inconsistent until its resync is done/);
    copying.copy(site, 0);
    site.close();
    assert.match(refusal(openPlain()), /is inconsistent, as a resync of it was not completed; resync the site/);
    assert.deepEqual(copying.opened(site), copying.at);
    history.begin().fill(12288, 8192);
    ship(site);
    copying.finish(site);
    assert.equal(typeof site.readers(), 'object');
    site.close();
    checkWhole();
  });

  it('! the stamp says inconsistent before the first image is changed, and whole behind the last sync', () => {
    behind();
    const copying = dropped(
      () =>
        void history
          .begin()
          .grow(0, 128 * KIB)
          .remove(1)
          .add(DISK2)
          .fill(0, 512, 2),
    );
    const faults = new FaultIo(undefined, true);
    const site = newSite(faults.io);
    let order: string[] = [];
    faults.rule = (call, _n, method) => {
      if (/^(pwrite|pwritev|fallocate|ftruncate|rename|fdatasync|syncDir|setXattr)$/.test(method)) order.push(call);
      return undefined;
    };
    copying.opened(site);
    // The second stamp of the open: the first settles what the site had, in order.
    const said = order.indexOf('SITE:STAMP-SYNC', order.indexOf('SITE:STAMP-SYNC', order.indexOf('SITE:SYNC')) + 1);
    assert.ok(said > 0);
    const changes = order.findIndex((call) => call === 'SITE:CREATE');
    assert.ok(changes > said, order.join(' '));
    copying.copy(site, 2);
    order = [];
    assert.equal(site.copy.whole(), 0, site.reason);
    const stamped = order.indexOf('SITE:STAMP');
    assert.ok(order.includes('SITE:SYNC'));
    assert.ok(stamped > order.lastIndexOf('SITE:SYNC') && stamped > order.lastIndexOf('SITE:XATTR'), order.join(' '));
  });

  it('! what it had confirmed and only staged comes into its images before the stage begins anew', () => {
    behind();
    // What a power cut takes: it had not been synced.
    put(file('disk0.img'), 4096, Buffer.alloc(12288 + 512));
    const had = history.now;
    const copying = dropped(() => void history.begin().fill(40960, 512));
    copying.opened(newSite());
    assert.deepEqual(imagesOf(folder, [DISK, DISK1]), had);
  });

  it('! goes on from its own place where that is farther, in order or not, unless everything is copied anew', () => {
    behind();
    const copying = dropped();
    const site = newSite();
    copying.opened(site);
    history.begin().fill(0, 512);
    ship(site);
    assert.equal(site.flush(), 0);
    history.begin().fill(512, 512);
    ship(site);
    const beyond = { ...history.cursor };
    site.close();
    assert.deepEqual(copying.opened(newSite()), beyond);
    site.close();
    copying.finish(sites.at(-1)!);
    assert.deepEqual(copying.opened(newSite()), beyond, 'its stamp was in order');
    copying.anew = true;
    assert.deepEqual(copying.opened(newSite()), copying.at);
  });

  it('has the devices of the present: those that came, grew and went where no record tells of it', () => {
    behind();
    const copying = dropped(
      () =>
        void history
          .begin()
          .grow(0, 128 * KIB)
          .fill(100 * KIB, 4096)
          .remove(1)
          .add(DISK3)
          .fill(0, 512, 3)
          .add(DISK2),
    );
    copying.nextDevice = 4;
    const site = newSite();
    copying.opened(site);
    assert.ok(existsSync(file('disk1.img.removed-1')));
    assert.deepEqual(
      ['disk0', 'disk1', 'disk2'].map((name) => statSync(file(`${name}.img`)).size),
      [128 * KIB, DISK3.size, DISK2.size],
    );
    // Written twice, or of a device that has left; then one that is really new.
    history
      .begin()
      .add(DISK3)
      .grow(0, 128 * KIB)
      .add({ nr: 4, name: 'disk4', size: 8 * KIB })
      .fill(0, 4096, 4);
    ship(site);
    site.close();
    copying.opened(site);
    copying.dirty.set(4, new Set());
    copying.finish(site);
    site.close();
    checkWhole();
  });

  it('! passes over records of devices that had left when it began, also once it is in order', () => {
    behind();
    // Device 1 is being removed: it is none of the present any more, its records are still to come.
    const copying = dropped();
    const resync = { ...copying.resync, devices: [DISK], nextDevice: 2 };
    const site = newSite();
    assert.ok(copying.open(site, { resync }).ok, site.reason);
    assert.equal(existsSync(file('disk1.img')), false);
    history.begin().fill(0, 512, 1).add(DISK1);
    ship(site);
    copying.copy(site, 0);
    assert.equal(site.copy.whole(), 0, site.reason);
    site.close();
    const again = newSite();
    assert.ok(openPlain(again).ok, again.reason);
    history
      .begin()
      .fill(512, 512, 1)
      .grow(1, 64 * KIB)
      .fill(8192, 512)
      .remove(1);
    ship(again);
    again.close();
    checkWhole();
    assert.ok(existsSync(file('disk1.img.removed-1')));
  });

  it('copies: reads past the cache, sees what was written through it, passes over holes, makes holes of zeroes', () => {
    behind();
    const direct = new Set<number>();
    let reads: boolean[] = [];
    const io: Io = {
      ...realIo,
      open: (call, path, flags, mode) => {
        const fd = realIo.open(call, path, flags, mode);
        if (fd >= 0 && (flags & O_DIRECT) !== 0) direct.add(fd);
        else direct.delete(fd);
        return fd;
      },
      pread: (call, fd, mem, off, len, pos) => {
        if (call === 'SITE:READ') reads.push(direct.has(fd));
        return realIo.pread(call, fd, mem, off, len, pos);
      },
    };
    const copying = dropped();
    const site = newSite(io);
    copying.opened(site);
    history.begin().fill(20480, 512);
    ship(site);
    const mem = Mem.anon(128 * KIB);
    reads = [];
    assert.equal(site.copy.read(0, 16384, 16384, mem, 4096), 16384);
    if (direct.size > 0) assert.deepEqual(reads, [true]);
    assert.ok(mem.u8.subarray(8192, 8704).equals(history.now.get(0)!.subarray(20480, 20992)));
    assert.equal(site.copy.read(0, 512, 1024, mem, 4096), 1024, 'also what is not on blocks');

    mem.u8.fill(0x33, 0, 65536);
    assert.equal(site.copy.write(0, 0, DISK.size, mem, 0), 0);
    assert.equal(site.copy.zero(0, 8192, 32768), 0);
    assert.equal(site.copy.settle(), 0);
    assert.equal(site.copy.nextData!(0, 8192, DISK.size), 40960);
    assert.equal(site.copy.nextData!(0, 8192, 16384), 16384);
    assert.equal(site.copy.nextData!(0, 4096, DISK.size), 4096);
    mem.unmap();
  });

  it('copies: says what cannot be, and stays open', () => {
    behind();
    const site = newSite();
    const mem = Mem.anon(BLOCK);
    assert.equal(site.copy.read(0, 0, BLOCK, mem, 0), -ERRNO.ENOTCONN);
    assert.ok(openPlain(site).ok);
    assert.equal(site.copy.write(0, 0, BLOCK, mem, 0), -ERRNO.EPERM);
    assert.match(site.reason, /is in order: nothing may be copied into it/);
    assert.equal(site.copy.zero(0, 0, BLOCK), -ERRNO.EPERM);
    assert.deepEqual([site.copy.settle(), site.copy.whole()], [0, 0]);
    assert.equal(site.copy.read(0, 0, BLOCK, mem, 0), BLOCK);
    assert.equal(site.copy.read(7, 0, BLOCK, mem, 0), -ERRNO.ENODEV);
    assert.equal(site.copy.read(0, DISK.size, BLOCK, mem, 0), -ERRNO.ENODEV);
    assert.match(site.reason, /has no device 0 of \d+ bytes/);
    assert.equal(site.probe(), 0);
    mem.unmap();
  });

  it('! a copy that could not be synced is not settled', () => {
    behind();
    const copying = dropped();
    const faults = new FaultIo();
    const site = newSite(faults.io);
    copying.opened(site);
    copying.copy(site, 0);
    faults.rule = (call) => (call === 'SITE:SYNC' ? { errno: ERRNO.EIO } : undefined);
    assert.equal(site.copy.settle(), -ERRNO.EIO);
    assert.match(site.reason, /disk0\.img: input\/output error/);
    assert.equal(site.copy.whole(), -ERRNO.EIO);
    assert.equal(site.inconsistent, true);
  });

  it('has samples again once it is whole, of what was copied as well', () => {
    behind();
    const copying = dropped();
    const site = newSite();
    copying.opened(site);
    copying.finish(site);
    site.close();
    put(file('disk0.img'), 32768, Buffer.alloc(4096, 0x99));
    assert.match(refusal(openPlain()), /disk0\.img: is not the image that this site wrote: block 8/);
  });

  describe('what stands there and is not this site', () => {
    /** The same content in a new file, which has no mark. */
    function replace(name: string, bytes: Buffer): void {
      rmSync(file(name));
      writeFileSync(file(name), bytes);
    }

    function takenByForce(copying: Copying): void {
      copying.anew = true;
      copying.force = false;
      const how = copying.how();
      assert.equal(newSite().open(how).ok, false);
      const only: SiteOpen = { ...how, resync: { ...how.resync!, anew: false, force: true } };
      assert.equal(newSite().open(only).ok, false, 'force alone, where something may be clean');
      copying.force = true;
      const site = newSite();
      assert.deepEqual(copying.opened(site), copying.at);
      history.begin().fill(0, 1024);
      ship(site);
      copying.finish(site);
      site.close();
      // What is no business of this site stays where it is.
      if (existsSync(file('theirs.img'))) renameSync(file('theirs.img'), file('theirs'));
      checkWhole();
    }

    const others: { name: string; put: () => void }[] = [
      { name: 'a blank disk in the place of an image', put: () => replace('disk0.img', Buffer.alloc(DISK.size)) },
      { name: 'an image that is too large', put: () => replace('disk1.img', Buffer.alloc(DISK.size, 7)) },
      { name: 'an image that is too small', put: () => truncateSync(file('disk0.img'), 4096) },
      { name: 'an empty file', put: () => replace('disk1.img', Buffer.alloc(0)) },
      { name: 'an image that is gone', put: () => rmSync(file('disk0.img')) },
      {
        name: 'a blank folder',
        put: () => {
          for (const name of ['disk0.img', 'disk1.img', STAGE_FILE]) rmSync(file(name));
        },
      },
      { name: 'a stage that is gone', put: () => rmSync(file(STAGE_FILE)) },
      { name: 'a stage whose stamps are cut off', put: () => truncateSync(file(STAGE_FILE), 300) },
      {
        name: 'the folder of another site',
        put: () => {
          for (const name of ['disk0.img', 'disk1.img', STAGE_FILE]) rmSync(file(name));
          const other = newSite();
          const identity = { logId: 'f'.repeat(32), group: 'other', nr: 4 };
          const devices = [
            { ...DISK, size: 128 * KIB },
            { nr: 9, name: 'theirs', size: 8 * KIB },
          ];
          assert.ok(other.open({ ...how(devices), identity }).ok, other.reason);
          const theirs = new History(devices);
          assert.equal(other.write(theirs.begin().fill(0, 4096).fill(0, 4096, 9).end()), 0);
          other.close();
        },
      },
    ];
    for (const { name, put } of others)
      it(`! ${name} is refused, and taken where the operator says so and everything is copied`, () => {
        behind();
        // Samples speak for a minute, marks from then on.
        clock.ms += 61_000;
        const site = newSite();
        assert.ok(openPlain(site).ok);
        history.begin().fill(8192, 512).fill(0, 512, 1);
        ship(site);
        assert.equal(site.flush(), 0);
        site.close();
        const copying = dropped();
        put();
        if (name.endsWith('another site')) {
          copying.anew = true;
          const reason = refusal(newSite().open(copying.how()));
          assert.match(reason, /belongs to another group \("other", log fff/);
        }
        takenByForce(copying);
      });

    it('what cannot be an image is not taken, and nothing is changed', () => {
      behind();
      const copying = dropped(() => void history.begin().add(DISK2));
      Object.assign(copying, { anew: true, force: true });
      writeFileSync(file('disk2.img.removed-2'), 'x');
      const before = readFileSync(file(STAGE_FILE));
      assert.match(refusal(newSite().open(copying.how())), /disk2\.img\.removed-2: stands where .* move it away/);
      const site = newSite();
      assert.ok(openPlain(site).ok, 'it is in order still');
      assert.ok(before.length > 0);
    });

    it('a file in the place of a device that came meanwhile is refused', () => {
      behind();
      const copying = dropped(() => void history.begin().add(DISK2));
      writeFileSync(file('disk2.img'), 'precious');
      assert.match(refusal(newSite().open(copying.how())), /disk2\.img: is there already \(8 B\) .*move it away/);
      assert.equal(readFileSync(file('disk2.img'), 'utf8'), 'precious');
      assert.ok(openPlain().ok, 'it is in order still');
    });

    it('is made where there is none yet, and only in an empty folder', () => {
      history.begin().fill(0, 4096).fill(8192, 512, 1);
      history.end();
      const copying = new Copying(history);
      assert.equal(newSite().open(copying.how()).ok, false, 'a site that is known to have been');
      writeFileSync(file('disk1.img'), 'precious');
      assert.match(refusal(newSite().open(copying.how(true))), /disk1\.img: is there already/);
      assert.equal(existsSync(file(STAGE_FILE)), false);
      rmSync(file('disk1.img'));
      const site = newSite();
      assert.deepEqual(site.open(copying.how(true)), { ok: true, cursor: copying.at });
      assert.equal(site.inconsistent, true);
      copying.finish(site);
      site.close();
      checkWhole();
    });
  });

  describe('whose stage an older reptool wrote', () => {
    for (const version of [1, 2])
      it(`! version ${version} is opened, resynced and whole`, () => {
        history = new History([DISK]);
        history.begin().fill(0, 8192);
        history.end();
        if (version === 1) {
          history.begin().fill(4096, 4096).tag('x');
          history.end();
        }
        const staged = { ...history.cursor };
        const lay = (): void => {
          writeFileSync(file(STAGE_FILE), oldFile(`v${version}.stage`));
          writeFileSync(file('disk0.img'), oldFile(`v${version}.disk0`));
        };
        lay();
        const site = newSite();
        assert.deepEqual(openPlain(site), { ok: true, cursor: staged }, site.reason);
        assert.ok(readFileSync(file('disk0.img')).equals(history.now.get(0)!));
        site.close();
        lay();
        if (version === 2) truncateSync(file('disk0.img'), 96 * KIB);
        const copying = dropped(() => void history.begin().add(DISK1).fill(16384, 512).fill(0, 512, 1));
        copying.opened(site);
        copying.finish(site);
        site.close();
        checkWhole();
      });
  });

  describe('recoverFolder', () => {
    it('! refuses a site that is inconsistent with reason and next step, looks at it, and does it by force', () => {
      behind();
      const copying = dropped();
      const site = newSite();
      copying.opened(site);
      copying.copy(site, 0);
      history.begin().fill(512, 512);
      ship(site);
      site.close();
      put(file('disk0.img'), 512, Buffer.alloc(512));
      const before = imagesOf(folder, [DISK, DISK1]);
      assert.throws(
        () => recoverFolder(realIo, folder, { write: true }),
        /is inconsistent: a resync was not completed, .*; mount the group and let the resync end, .* with --force/,
      );
      assert.equal(recoverFolder(realIo, folder, { write: false }).inconsistent, true);
      assert.deepEqual(imagesOf(folder, [DISK, DISK1]), before);
      const report = recoverFolder(realIo, folder, { write: true, force: true });
      assert.deepEqual([report.inconsistent, report.written, report.staged.records], [true, true, 1]);
      assert.ok(readFileSync(file('disk0.img')).equals(history.now.get(0)!));
      assert.match(refusal(openPlain()), /is inconsistent/, 'it says so still');
    });
  });
});
