import assert from 'node:assert/strict';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo, type Io } from '../../../src/base/io.js';
import { O_RDWR } from '../../../src/base/sys.js';
import { KIB } from '../../../src/base/units.js';
import type { SiteOpened } from '../../../src/slink/contract.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { AREA_START, STAGE_FILE } from '../../../src/slink/stage-format.js';
import { LOG_ID, TestClock, cleanUp } from '../replog/rig.js';
import { DISK, DISK1, FaultIo, History, START, how, imagesOf, put, siteFolder } from './support.js';

const AREA = 256 * KIB;
const OPTIONS = { area: AREA };

describe('FolderSite', () => {
  let folder: string;
  let clock: TestClock;
  let sites: FolderSite[];

  beforeEach(() => {
    folder = siteFolder();
    clock = new TestClock();
    sites = [];
  });
  afterEach(() => {
    for (const site of sites) site.close();
    cleanUp();
  });

  function newSite(io: Io = realIo): FolderSite {
    const site = new FolderSite(io, clock, folder, OPTIONS);
    sites.push(site);
    return site;
  }

  function opened(site = newSite(), devices = [DISK], create = true): FolderSite {
    const result = site.open(how(devices, create));
    assert.ok(result.ok, site.reason);
    return site;
  }

  function refusal(result: SiteOpened): { refused: boolean; reason: string } {
    assert.equal(result.ok, false);
    return result.ok ? assert.fail() : result;
  }

  /** A site with `batches` batches of three records. */
  function shipped(batches = 3, site = opened()): { site: FolderSite; history: History } {
    const history = new History([DISK]);
    for (let i = 0; i < batches; i++)
      assert.equal(
        site.write(
          history
            .begin()
            .fill(i * 4096, 8192)
            .tag(`t${i}`)
            .fill(512 * i, 512)
            .end(),
        ),
        0,
        site.reason,
      );
    return { site, history };
  }

  it('makes images of full size and starts at the place it is given', () => {
    const result = newSite().open(how([DISK, DISK1]));
    assert.deepEqual(result, { ok: true, cursor: START });
    assert.equal(statSync(join(folder, 'disk0.img')).size, DISK.size);
    assert.ok(statSync(join(folder, 'disk1.img')).blocks * 512 >= DISK1.size);
  });

  it('has the batches in its images, and its cursor behind them after reopening', () => {
    const { site, history } = shipped();
    assert.deepEqual(imagesOf(folder), history.now);
    site.close();
    const again = newSite().open(how([DISK], false));
    assert.deepEqual(again, { ok: true, cursor: history.cursor });
    assert.deepEqual(imagesOf(folder), history.now);
  });

  it('takes discards and zeroes in their order between writes', () => {
    const site = opened();
    const history = new History([DISK]);
    const batch = history
      .begin()
      .fill(0, 16384)
      .zeroes(512, 8192)
      .fill(1024, 512)
      .zeroes(8192, 4096, 0, 2)
      .fill(8192, 512)
      .end();
    assert.equal(site.write(batch), 0, site.reason);
    assert.deepEqual(imagesOf(folder), history.now);
  });

  it('redoes from the stage what images lost', () => {
    const { site, history } = shipped();
    site.close();
    put(join(folder, 'disk0.img'), 0, Buffer.alloc(8192, 0xee));
    opened(newSite(), [DISK], false);
    assert.deepEqual(imagesOf(folder), history.now);
  });

  it('moves its base when the area is full, and flush empties the stage', () => {
    const site = opened();
    const history = new History([DISK]);
    for (let i = 0; i < 40; i++)
      assert.equal(
        site.write(
          history
            .begin()
            .fill(4096 * (i % 12), 12288)
            .end(),
        ),
        0,
        site.reason,
      );
    assert.equal(site.unflushed, true);
    assert.equal(site.flush(), 0, site.reason);
    assert.equal(site.unflushed, false);
    assert.ok(statSync(join(folder, STAGE_FILE)).size <= AREA_START + AREA);
    site.close();
    assert.deepEqual(newSite().open(how([DISK], false)), { ok: true, cursor: history.cursor });
    assert.deepEqual(imagesOf(folder), history.now);
  });

  it('takes a batch larger than the area', () => {
    const big = { ...DISK, size: 1024 * KIB };
    const site = opened(newSite(), [big]);
    const history = new History([big]);
    assert.equal(
      site.write(
        history
          .begin()
          .fill(0, 700 * KIB)
          .end(),
      ),
      0,
      site.reason,
    );
    assert.equal(
      site.write(
        history
          .begin()
          .fill(100 * KIB, 700 * KIB)
          .end(),
      ),
      0,
      site.reason,
    );
    site.close();
    opened(newSite(), [big], false);
    assert.deepEqual(imagesOf(folder, [big]), history.now);
  });

  it('stages durably before the first byte reaches an image', () => {
    const faults = new FaultIo();
    const site = opened(newSite(faults.io));
    faults.names.length = 0;
    shipped(1, site);
    assert.deepEqual(
      faults.names.filter((name) => /STAGE|ADDRESS|WRITE/.test(name)),
      ['SITE:STAGE', 'SITE:STAGE-SYNC', 'SITE:ADDRESS', 'SITE:WRITE'],
    );
  });

  it('! confirms a batch when it is staged durably, and before its images are written', () => {
    const faults = new FaultIo();
    const site = opened(newSite(faults.io));
    const { history } = shipped(1, site);
    faults.names.length = 0;
    const rc = site.write(history.begin().fill(20480, 4096).end(), () => void faults.names.push('TEST:CONFIRMED'));
    assert.equal(rc, 0, site.reason);
    assert.deepEqual(
      faults.names.filter((name) => /STAGE|WRITE|CONFIRMED/.test(name)),
      ['SITE:STAGE', 'SITE:STAGE-SYNC', 'TEST:CONFIRMED', 'SITE:WRITE'],
    );
  });

  describe('whose folder it is', () => {
    it('refuses a folder with an image and no stage, and leaves it alone', () => {
      writeFileSync(join(folder, 'disk0.img'), 'precious');
      const { refused, reason } = refusal(newSite().open(how()));
      assert.equal(refused, true);
      assert.match(reason, /disk0\.img: is there already .* remove it or name an empty folder/);
      assert.deepEqual(
        [readFileSync(join(folder, 'disk0.img'), 'utf8'), existsSync(join(folder, STAGE_FILE))],
        ['precious', false],
      );
    });

    it('refuses the folder of another group and of another site', () => {
      opened().close();
      const other = { ...how(), identity: { logId: 'f'.repeat(32), group: 'other', nr: 1 } };
      assert.match(refusal(newSite().open(other)).reason, /belongs to another group \("default", log 0123/);
      const nr = { ...how(), identity: { ...how().identity, nr: 2 } };
      assert.match(refusal(newSite().open(nr)).reason, /is site 1 of this group, not site 2/);
    });

    it('does not make a site anew that has existed', () => {
      const { refused, reason } = refusal(newSite().open(how([DISK], false)));
      assert.equal(refused, false);
      assert.match(reason, /holds no reptool\.stage/);
      assert.equal(existsSync(join(folder, STAGE_FILE)), false);
    });

    it('! an absent folder has failed, and opens once it is there', () => {
      const { site, history } = shipped();
      site.close();
      renameSync(folder, `${folder}.gone`);
      const again = newSite();
      const { refused, reason } = refusal(again.open(how([DISK], false)));
      assert.equal(refused, false);
      assert.match(reason, /cannot be reached: it does not exist \(ENOENT\); mount or make it/);
      renameSync(`${folder}.gone`, folder);
      assert.deepEqual(again.open(how([DISK], false)), { ok: true, cursor: history.cursor });
    });

    it('makes only the last component of its folder, and only when told', () => {
      rmSync(folder, { recursive: true });
      assert.equal(refusal(newSite().open(how())).refused, false);
      const maker = new FolderSite(realIo, clock, folder, { ...OPTIONS, makeFolder: true });
      sites.push(maker);
      assert.equal(maker.open(how()).ok, true);
      const deep = new FolderSite(realIo, clock, join(folder, 'a', 'b'), { ...OPTIONS, makeFolder: true });
      assert.equal(refusal(deep.open(how())).refused, false);
      assert.equal(existsSync(join(folder, 'a')), false);
    });
  });

  describe('exchanged and rolled-back images', () => {
    const file = (): string => join(folder, 'disk0.img');

    function without(site: FolderSite): void {
      site.close();
    }

    /** No file system attributes: only samples are left. */
    const noXattr = (): FaultIo =>
      new FaultIo((_call, _n, method) => (method.endsWith('Xattr') ? { errno: ERRNO.EOPNOTSUPP } : undefined));

    function copyOf(): Buffer {
      return readFileSync(file());
    }

    /** Puts another file in its place, without attributes. */
    function exchange(bytes: Buffer): void {
      rmSync(file());
      writeFileSync(file(), bytes);
    }

    it('! an image rolled back to an older copy is refused and not written to', () => {
      const { site, history } = shipped(2);
      assert.equal(site.flush(), 0);
      const old = copyOf();
      assert.equal(site.write(history.begin().fill(20480, 4096).end()), 0);
      assert.equal(site.flush(), 0);
      without(site);
      put(file(), 0, old);
      const { refused, reason } = refusal(newSite().open(how([DISK], false)));
      assert.equal(refused, true);
      assert.match(reason, /disk0\.img: is not the image that this site wrote: block 5 .*; put the right one back/);
      assert.ok(copyOf().equals(old), 'nothing is written to it');
    });

    it('! the same is noticed by samples alone where there are no attributes', () => {
      const faults = noXattr();
      const { site, history } = shipped(2, opened(newSite(faults.io)));
      assert.equal(site.flush(), 0);
      const old = copyOf();
      assert.equal(site.write(history.begin().fill(20480, 4096).end()), 0);
      assert.equal(site.flush(), 0);
      without(site);
      exchange(old);
      assert.match(refusal(newSite(noXattr().io).open(how([DISK], false))).reason, /block 5/);
    });

    it('! an image exchanged for another one is noticed by its mark, once that is sure to be on the disk', () => {
      const { site, history } = shipped(1, opened(newSite(), [DISK, DISK1]));
      without(site);
      exchange(copyOf());
      const again = opened(newSite(), [DISK, DISK1], false);
      for (let k = 0; k < 2; k++) {
        clock.ms += 61_000;
        assert.equal(again.write(history.begin().fill(0, 512).end()), 0);
        assert.equal(again.flush(), 0);
      }
      without(again);
      exchange(copyOf());
      assert.match(refusal(newSite().open(how([DISK, DISK1], false))).reason, /lacks the mark/);
    });

    it('! blocks that staged batches touch raise no false alarm, whole or in part', () => {
      const { site, history } = shipped(1);
      assert.equal(site.flush(), 0);
      // Samples now cover block 0 and 1; a part of each changes, in the stage and half in the image.
      assert.equal(site.write(history.begin().fill(512, 512).fill(4096, 4096).end()), 0);
      without(site);
      put(file(), 512, Buffer.alloc(512, 0x77));
      assert.deepEqual(newSite().open(how([DISK], false)), { ok: true, cursor: history.cursor });
      assert.deepEqual(imagesOf(folder), history.now);
    });

    it('! a mark that never reached the disk raises no false alarm within its minute, and is missed after it', () => {
      const { site, history } = shipped(1);
      const mark = (): Uint8Array => {
        const fd = realIo.open('TEST:OPEN', file(), O_RDWR);
        const value = realIo.getXattr('TEST:GET', fd, 'reptool.stamp');
        realIo.close('TEST:CLOSE', fd);
        assert.ok(typeof value !== 'number');
        return value;
      };
      const setMark = (value: Uint8Array): void => {
        const fd = realIo.open('TEST:OPEN', file(), O_RDWR);
        assert.equal(realIo.setXattr('TEST:SET', fd, 'reptool.stamp', value), 0);
        realIo.close('TEST:CLOSE', fd);
      };
      const old = mark();
      clock.ms += 1000;
      assert.equal(site.flush(), 0);
      assert.notDeepEqual(mark(), old);
      without(site);
      setMark(old);
      const again = opened(newSite(), [DISK], false);
      for (let i = 0; i < 3; i++) {
        clock.ms += 61_000;
        assert.equal(again.write(history.begin().fill(0, 512).end()), 0);
        assert.equal(again.flush(), 0);
      }
      without(again);
      setMark(old);
      assert.match(refusal(newSite().open(how([DISK], false))).reason, /rolled back \(mark/);
    });

    it('! a path that leads to another file is noticed by probe and before the base moves', () => {
      const { site } = shipped();
      const bytes = copyOf();
      exchange(bytes);
      assert.ok(site.probe() < 0);
      assert.match(site.reason, /disk0\.img: the path no longer leads to the file that this site opened/);
      assert.ok(site.flush() < 0);
      site.close();
      rmSync(join(folder, STAGE_FILE));
      assert.match(refusal(newSite().open(how([DISK], false))).reason, /holds no reptool\.stage/);
    });
  });

  describe('an address that leads elsewhere under an open site', () => {
    const AWAY: { name: string; go: (away: string) => void; back: (away: string) => void; reason: RegExp }[] = [
      {
        name: 'the folder is renamed away',
        go: (away) => renameSync(folder, away),
        back: (away) => renameSync(away, folder),
        reason: /: the site's folder is gone from there \(moved, removed or unmounted\): .*; put it back$/,
      },
      {
        name: 'another folder stands there',
        go: (away) => {
          renameSync(folder, away);
          mkdirSync(folder);
        },
        back: (away) => {
          rmSync(folder, { recursive: true });
          renameSync(away, folder);
        },
        reason: /: another folder stands there now \(renamed, or mounted over\) .*; put that back$/,
      },
      {
        name: 'the stage is exchanged for a copy',
        go: (away) => {
          cpSync(join(folder, STAGE_FILE), away);
          renameSync(away, join(folder, STAGE_FILE));
        },
        back: () => undefined,
        reason: /reptool\.stage: the path no longer leads to the file that this site opened/,
      },
    ];
    for (const { name, go, back, reason } of AWAY)
      it(`! confirms nothing once ${name}, and goes on when it is back`, () => {
        const { site, history } = shipped();
        const confirmed = { ...history.cursor };
        const away = `${folder}.away`;
        go(away);
        const batch = history.begin().fill(4096, 8192).end();
        assert.equal(site.write(batch), -ERRNO.ENXIO);
        assert.match(site.reason, reason);
        assert.equal(site.refused, false);
        site.close();
        back(away);
        const result = newSite().open(how([DISK], false));
        assert.ok(result.ok);
        // Staged and not confirmed: it may be there or not.
        assert.ok(result.cursor.seq >= confirmed.seq);
      });

    it('asks once per batch', () => {
      const faults = new FaultIo();
      const { site, history } = shipped(1, opened(newSite(faults.io)));
      let asked = 0;
      faults.rule = (_call, _n, method) => {
        if (method === 'stat') asked++;
        return undefined;
      };
      for (let i = 0; i < 3; i++) assert.equal(site.write(history.begin().fill(0, 512).end()), 0);
      assert.equal(asked, 3);
    });
  });

  describe('devices that come and go', () => {
    const GIG = 1024 * 1024 * KIB;

    it('! a site that exists follows the records, whatever the group has by now', () => {
      const { site, history } = shipped();
      site.close();
      const again = newSite();
      const result = again.open(how([{ ...DISK1, nr: 9 }], false));
      assert.deepEqual(result, { ok: true, cursor: history.cursor });
      assert.deepEqual(imagesOf(folder, [DISK, DISK1]), history.now);
    });

    it('! makes, grows and keeps images at the place of the record', () => {
      const site = opened();
      const history = new History([DISK]);
      const write = (batch: History): void => assert.equal(site.write(batch.end()), 0, site.reason);
      write(history.begin().fill(0, 512).add(DISK1).fill(512, 1024, 1));
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
      write(
        history
          .begin()
          .grow(1, 2 * DISK1.size)
          .fill(DISK1.size, 1024, 1),
      );
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
      const last = history.now.get(1)!;
      write(history.begin().remove(1).fill(512, 512));
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
      assert.deepEqual(readFileSync(join(folder, 'disk1.img.removed-1')), last);
      assert.equal(site.flush(), 0, site.reason);
      site.close();
      opened(newSite(), [DISK], false);
      assert.deepEqual(readFileSync(join(folder, 'disk1.img.removed-1')), last);
    });

    it('! confirms nothing where a new image finds no space, and leaves none of it behind', () => {
      const faults = new FaultIo();
      const site = opened(newSite(faults.io));
      const history = new History([DISK]);
      const batch = history.begin().fill(0, 512).add(DISK1).end();
      faults.rule = (call, _n, method) =>
        call === 'SITE:CREATE' && method === 'fallocate' ? { errno: ERRNO.ENOSPC } : undefined;
      assert.equal(site.write(batch), -ERRNO.ENOSPC);
      assert.match(site.reason, /disk1\.img\.new-1: allocating 32 KiB failed: no space left/);
      assert.deepEqual(readdirSync(folder).sort(), ['disk0.img', STAGE_FILE]);
      assert.deepEqual(site.open(how([DISK], false)), { ok: true, cursor: START });
      faults.rule = undefined;
      assert.equal(site.write(batch), 0, site.reason);
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
    });

    it('! confirms nothing where growing finds no space, and has the old size again', () => {
      const faults = new FaultIo();
      const site = opened(newSite(faults.io));
      const history = new History([DISK]);
      const batch = history
        .begin()
        .fill(0, 512)
        .grow(0, 2 * DISK.size)
        .fill(DISK.size, 512)
        .end();
      faults.rule = (call, _n, method) =>
        call === 'SITE:CREATE' && method === 'fallocate' ? { errno: ERRNO.ENOSPC } : undefined;
      assert.equal(site.write(batch), -ERRNO.ENOSPC);
      assert.match(site.reason, /disk0\.img: growing it to 128 KiB failed: no space left/);
      assert.equal(statSync(join(folder, 'disk0.img')).size, DISK.size);
      assert.deepEqual(site.open(how([DISK], false)), { ok: true, cursor: START });
      faults.rule = undefined;
      assert.equal(site.write(batch), 0, site.reason);
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
    });

    it('! cuts off what was grown for a record that was never staged', () => {
      const faults = new FaultIo();
      const site = opened(newSite(faults.io));
      const history = new History([DISK]);
      faults.rule = (call) => (call === 'SITE:STAGE' ? { die: true } : undefined);
      assert.throws(() =>
        site.write(
          history
            .begin()
            .grow(0, 2 * DISK.size)
            .end(),
        ),
      );
      assert.equal(statSync(join(folder, 'disk0.img')).size, 2 * DISK.size);
      assert.deepEqual(newSite().open(how([DISK], false)), { ok: true, cursor: START });
      assert.equal(statSync(join(folder, 'disk0.img')).size, DISK.size);
    });

    it('! refuses to put an image in the place of a file that is not its own', () => {
      const site = opened();
      const history = new History([DISK]);
      writeFileSync(join(folder, 'disk1.img'), 'precious');
      const batch = history.begin().add(DISK1).end();
      assert.equal(site.write(batch), -ERRNO.EEXIST);
      assert.match(site.reason, /disk1\.img: is there already .* and no image of this site/);
      assert.equal(readFileSync(join(folder, 'disk1.img'), 'utf8'), 'precious');
      renameSync(join(folder, 'disk1.img'), join(folder, 'mine'));
      assert.ok(site.open(how([DISK], false)).ok);
      assert.equal(site.write(batch), 0, site.reason);
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
    });

    it('refuses writes to a device that never came, and passes over devices that went without a record', () => {
      const site = opened();
      const history = new History([DISK, DISK1]);
      assert.equal(site.write(history.begin().fill(0, 512).fill(0, 512, 1).end()), -ERRNO.ENODEV);
      assert.match(site.reason, /writes to device 1, and no record of its coming/);
      assert.deepEqual(imagesOf(folder), new Map([[0, Buffer.alloc(DISK.size)]]), 'nothing of the batch is there');
    });

    it('takes records that were written twice, and those that come too late, as done', () => {
      const site = opened();
      const history = new History([DISK]);
      const batch = history.begin().add(DISK1).fill(0, 512, 1).add(DISK1).grow(1, DISK1.size).remove(1).remove(1);
      assert.equal(site.write(batch.grow(1, GIG).end()), 0, site.reason);
      assert.equal(history.seqOfFolder(folder), history.cursor.seq);
    });
  });

  describe('failures', () => {
    function fails(call: string, errno: number): { site: FolderSite; history: History; faults: FaultIo } {
      const faults = new FaultIo();
      const { site, history } = shipped(2, opened(newSite(faults.io)));
      faults.rule = (name) => (name === call ? { errno } : undefined);
      return { site, history, faults };
    }

    for (const call of ['SITE:STAGE', 'SITE:STAGE-SYNC', 'SITE:WRITE'])
      it(`a write fails with ${call} and goes on after opening again`, () => {
        const { site, history, faults } = fails(call, ERRNO.EIO);
        assert.equal(site.write(history.begin().fill(0, 4096).end()), -ERRNO.EIO);
        assert.match(site.reason, /input\/output error \(EIO\)/);
        faults.rule = undefined;
        const result = site.open(how([DISK], false));
        assert.ok(result.ok);
        const seq = history.seqOf(imagesOf(folder));
        assert.equal(seq, result.cursor.seq);
        assert.ok(seq >= 7);
      });

    it('! after a failed sync of the images all of the stage is written again', () => {
      const { site, history, faults } = fails('SITE:SYNC', ERRNO.EIO);
      assert.equal(site.flush(), -ERRNO.EIO);
      // What the failed sync left behind: nothing of it on the disk.
      put(join(folder, 'disk0.img'), 0, Buffer.alloc(16384));
      faults.rule = undefined;
      faults.names.length = 0;
      assert.ok(site.open(how([DISK], false)).ok);
      assert.deepEqual(imagesOf(folder), history.now);
      assert.ok(faults.names.indexOf('SITE:WRITE') < faults.names.indexOf('SITE:SYNC'));
    });

    it('! what is staged is written and synced again before an image gets a byte of it', () => {
      const { site, history, faults } = fails('SITE:STAGE-SYNC', ERRNO.EIO);
      assert.equal(site.write(history.begin().fill(0, 4096).end()), -ERRNO.EIO);
      faults.rule = undefined;
      faults.names.length = 0;
      assert.ok(site.open(how([DISK], false)).ok);
      const order = faults.names.filter((name) => /^SITE:(STAGE|STAGE-SYNC|WRITE)$/.test(name));
      assert.deepEqual(order.slice(0, 3), ['SITE:STAGE', 'SITE:STAGE-SYNC', 'SITE:WRITE']);
    });

    it('! a stamp that the disk may have lost is made durable before an image is made', () => {
      const faults = new FaultIo((call) => (call === 'SITE:CREATE' ? { die: true } : undefined));
      assert.throws(() => newSite(faults.io).open(how()));
      const again = new FaultIo();
      opened(newSite(again.io));
      const order = again.names.filter((name) => /STAMP|CREATE|SYNC/.test(name));
      assert.deepEqual(order.slice(0, 3), ['SITE:STAMP', 'SITE:STAMP-SYNC', 'SITE:CREATE']);
    });

    it('an image that is full is a failure with its path, and nothing confirmed is lost', () => {
      const { site, history, faults } = fails('SITE:WRITE', ERRNO.ENOSPC);
      assert.equal(site.write(history.begin().fill(0, 4096).end()), -ERRNO.ENOSPC);
      assert.match(site.reason, /disk0\.img: no space left on the device/);
      assert.equal(refusal(site.open(how([DISK], false))).refused, false);
      faults.rule = undefined;
      assert.deepEqual(site.open(how([DISK], false)), { ok: true, cursor: history.cursor });
      assert.deepEqual(imagesOf(folder), history.now);
    });

    it('a stage that is damaged where it was confirmed shows as a cursor that went back', () => {
      const { site, history } = shipped(3);
      site.close();
      put(join(folder, STAGE_FILE), AREA_START + 4096, Buffer.alloc(512, 0xff));
      const result = newSite().open(how([DISK], false));
      assert.ok(!result.ok || result.cursor.seq < history.cursor.seq);
    });

    it('falls back to the page cache where O_DIRECT is refused', () => {
      const faults = new FaultIo();
      const io = { ...faults.io };
      io.open = (call, path, flags, mode) =>
        (flags & 0x4000) !== 0 ? -ERRNO.EINVAL : faults.io.open(call, path, flags, mode);
      const { site, history } = shipped(3, opened(newSite(io)));
      site.close();
      assert.deepEqual(newSite(io).open(how([DISK], false)), { ok: true, cursor: history.cursor });
    });
  });

  it('refuses a folder whose path is a file', () => {
    rmSync(folder, { recursive: true });
    writeFileSync(folder, '');
    assert.equal(refusal(newSite().open(how())).refused, true);
    rmSync(folder);
    mkdirSync(folder);
    assert.equal(how().identity.logId, LOG_ID);
  });
});
