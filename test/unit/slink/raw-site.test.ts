import assert from 'node:assert/strict';
import {
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  mkdirSync,
} from 'node:fs';
import { join } from 'node:path';
import { realIo, type IoCall } from '../../../src/base/io.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { REC } from '../../../src/replog/format.js';
import { BATCH_HEADER } from '../../../src/replog/format.js';
import { DiskLegs } from '../../../src/slink/disk-legs.js';
import { RawSite } from '../../../src/slink/raw-site.js';
import type { ShipBatch } from '../../../src/slink/batch.js';
import type { SiteDevice, SiteOpen, SiteOpened } from '../../../src/slink/contract.js';
import type { Taken } from '../../../src/slink/same-disk.js';
import { TestClock, cleanUp, scratch } from '../replog/rig.js';
import { DISK, DISK1, Died, FaultIo, History, START, how as plainHow, put } from './support.js';

describe('RawSite on files', () => {
  let dir: string;
  let clock: TestClock;
  let faults: FaultIo;
  let history: History;
  let taken: Taken[];

  beforeEach(() => {
    dir = scratch();
    clock = new TestClock();
    faults = new FaultIo(undefined, true);
    history = new History([DISK, DISK1]);
    taken = [];
    for (const { name, size } of [DISK, DISK1]) make(name, size);
  });
  afterEach(cleanUp);

  const leg = (name: string): string => join(dir, name);
  const stamp = (): string => join(dir, 'site1.stamp');

  function make(name: string, size: number): void {
    writeFileSync(leg(name), '');
    truncateSync(leg(name), size);
  }

  function site(map: Record<string, string> = { disk0: leg('disk0'), disk1: leg('disk1') }): RawSite {
    const legs = new DiskLegs(faults.io, map, () => taken);
    return new RawSite(faults.io, clock, { type: 'blockdev', legs, stamp: stamp(), wipe: 'wipe it' });
  }

  function how(create = true, devices: readonly SiteDevice[] = [DISK, DISK1]): SiteOpen {
    // What the log would tell: the newest batch is behind the cursor, or nothing is.
    const sentBehind: SiteOpen['sentBehind'] = (from, visit) => {
      if (from.seq < history.cursor.seq) visit(history.batch.mem, BATCH_HEADER, history.batch.records);
      return true;
    };
    return { ...plainHow(devices, create), sentBehind };
  }

  function openUp(s: RawSite, h: SiteOpen = how()): SiteOpened {
    for (let i = 0; i < 1000; i++) {
      const opened = s.open(h);
      if (!s.preparing) return opened;
    }
    return assert.fail('it never comes to an end');
  }

  function opened(s: RawSite, h: SiteOpen = how()): number {
    const o = openUp(s, h);
    assert.ok(o.ok, o.ok ? '' : o.reason);
    return o.cursor.seq;
  }

  function contents(): Map<number, Buffer> {
    return new Map([DISK, DISK1].map((d) => [d.nr, readFileSync(leg(d.name))]));
  }

  /** A site with a few confirmed writes, settled. */
  function settled(): void {
    const s = site();
    opened(s);
    assert.equal(
      s.write(
        history
          .begin()
          .fill(0, 8 * KIB)
          .fill(4 * KIB, 4 * KIB, 1)
          .end(),
      ),
      0,
    );
    assert.equal(s.flush(), 0);
    s.close();
  }

  it('takes writes, discards and zeroes of several devices and comes back at its cursor', () => {
    const s = site();
    assert.equal(opened(s), START.seq);
    assert.equal(s.window, null);
    const batch = history
      .begin()
      .fill(0, 16 * KIB)
      .fill(512, 1024, 1)
      .zeroes(4 * KIB, 4 * KIB)
      .fill(6 * KIB, 512);
    batch.zeroes(0, 1 * KIB, 0, REC.DISCARD);
    assert.equal(s.write(batch.end()), 0);
    assert.equal(history.seqOf(contents()), history.cursor.seq);
    assert.equal(s.unflushed, true);
    assert.equal(s.flush(), 0);
    assert.equal(s.unflushed, false);
    s.close();
    assert.equal(opened(site(), how(false)), history.cursor.seq);
  });

  it('! the order is: flush, stamp, confirmed', () => {
    const s = site();
    opened(s);
    faults.names.length = 0;
    assert.equal(
      s.write(
        history
          .begin()
          .fill(0, 4 * KIB)
          .end(),
      ),
      0,
    );
    const calls = faults.names.filter((name) => /SYNC|WRITE$/.test(name)).filter((n, i, all) => n !== all[i - 1]);
    assert.deepEqual(calls.slice(0, 5), ['STAMP:WRITE', 'STAMP:SYNC', 'SITE:WRITE', 'SITE:SYNC', 'STAMP:WRITE']);
    assert.equal(calls.at(-1), 'STAMP:SYNC');
  });

  it('! a failed write leaves the window open until all of it was sent again', () => {
    const s = site();
    opened(s);
    history
      .begin()
      .fill(0, 4 * KIB)
      .fill(8 * KIB, 4 * KIB);
    const batch = history.end();
    faults.rule = (call) => (call === 'SITE:SYNC' ? { errno: 5 } : undefined);
    assert.equal(s.write(batch), -5);
    assert.match(s.reason, /disk0: input\/output error/);
    assert.deepEqual(s.window, { from: START.seq, to: START.seq + 2, bytes: 8 * KIB });
    s.close();
    faults.rule = undefined;
    assert.equal(opened(s), START.seq);
    assert.deepEqual(s.window, { from: START.seq, to: START.seq + 2, bytes: 0 });
    assert.equal(s.flush(), 0);
    assert.equal(s.unflushed, true, 'a stamp that is closed would call half a batch history');
    assert.equal(s.write(batch), 0);
    assert.equal(s.window, null);
    assert.equal(s.flush(), 0);
    assert.equal(s.unflushed, false);
  });

  it('! dies at any call and is a prefix again after its records were sent once more', () => {
    const make3 = (h: History): ShipBatch[] => {
      h.begin()
        .fill(0, 8 * KIB)
        .fill(2 * KIB, 1 * KIB, 1);
      return [h.end()];
    };
    for (let at = 1; ; at++) {
      dir = scratch();
      for (const { name, size } of [DISK, DISK1]) make(name, size);
      history = new History([DISK, DISK1]);
      faults = new FaultIo((_call, n) => (n === at ? { tear: 0.5 } : undefined), true);
      let confirmed = START.seq;
      let done = false;
      const s = site();
      try {
        if (opened(s) > 0) {
          const [batch] = make3(history);
          if (s.write(batch!) === 0) confirmed = history.cursor.seq;
          s.flush();
          s.close();
          done = true;
        }
      } catch (error) {
        if (!(error instanceof Died)) throw error;
      }
      if (history.states.length === 1) make3(history);
      faults = new FaultIo(undefined, true);
      const again = site();
      const seq = opened(again);
      assert.ok(seq >= confirmed, `call ${at}: confirmed up to ${confirmed}, back at ${seq}`);
      if (seq < history.cursor.seq) assert.equal(again.write(history.batch), 0, again.reason);
      assert.equal(again.flush(), 0);
      assert.equal(history.seqOf(contents()), history.cursor.seq, `call ${at}`);
      again.close();
      if (done) break;
    }
  });

  const wrong: { name: string; change: () => void; reason: RegExp }[] = [
    {
      name: 'exchanged for a blank one',
      change: () => make('disk0', DISK.size),
      reason: /disk0: is not as this site left it: block \d+ .*put the right one back/,
    },
    {
      name: 'rolled back by one block',
      change: () => put(leg('disk1'), 4 * KIB, Buffer.alloc(4 * KIB, 7)),
      reason: /disk1: is not as this site left it: block 1 /,
    },
    { name: 'too small', change: () => truncateSync(leg('disk0'), 32 * KIB), reason: /disk0: is too small/ },
    { name: 'too large, for a file', change: () => truncateSync(leg('disk0'), MIB), reason: /disk0: is too large/ },
    {
      name: 'a folder',
      change: () => (renameSync(leg('disk0'), leg('away')), mkdirSync(leg('disk0'))),
      reason: /neither a block device nor a file/,
    },
    {
      name: 'with its stamp lost',
      change: () => renameSync(stamp(), leg('gone')),
      reason: /stamp: is missing, so what/,
    },
    { name: 'with its stamp damaged', change: () => damage(stamp()), reason: /stamp: is damaged, so what/ },
    {
      name: 'also the local image, by a hard link',
      change: () => (
        linkSync(leg('disk0'), leg('hard')),
        taken.push({ path: leg('hard'), what: 'the local image of x' })
      ),
      reason: /disk0: is the local image of x/,
    },
    {
      name: 'in a folder of the group, by a symbolic link',
      change: () => {
        mkdirSync(leg('state'));
        renameSync(leg('disk0'), leg('state/x'));
        symlinkSync(leg('state/x'), leg('disk0'));
        taken.push({ path: leg('state'), what: 'in the state folder', folder: true });
      },
      reason: /disk0: is in the state folder/,
    },
  ];
  for (const { name, change, reason } of wrong)
    it(`! refuses a device that is ${name}, and writes nothing`, () => {
      settled();
      change();
      const before = existsSync(leg('disk1')) ? readFileSync(leg('disk1')) : undefined;
      faults.names.length = 0;
      const s = site();
      const o = openUp(s, how(false));
      assert.equal(o.ok, false);
      assert.match(s.reason, reason);
      assert.equal(s.refused, true);
      const writes = faults.names.filter((n) => /^SITE:(WRITE|DIRECT|ZEROES|DISCARD|CREATE)$/.test(n));
      assert.deepEqual(writes, []);
      assert.deepEqual(readFileSync(leg('disk1')), before);
    });

  function damage(file: string): void {
    put(file, 40, Buffer.alloc(64, 1));
    put(file, 2 * MIB + 40, Buffer.alloc(64, 1));
  }

  it('refuses two devices on one path, and one that the map lacks', () => {
    assert.equal(openUp(site({ disk0: leg('disk0'), disk1: leg('disk0') })).ok, false);
    const s = site({ disk0: leg('disk0') });
    assert.equal(openUp(s).ok, false);
    assert.match(s.reason, /device disk1: the site's map has no path for it; add disk1=PATH/);
  });

  it('waits for a path that leads nowhere, and makes nothing there', () => {
    const s = site({ disk0: leg('nowhere'), disk1: leg('disk1') });
    assert.equal(openUp(s).ok, false);
    assert.equal(s.refused, false);
    assert.match(s.reason, /nowhere: the leg of disk0 cannot be reached/);
    assert.equal(existsSync(leg('nowhere')), false);
  });

  it('! refuses a new device that holds data, says where, and takes it once it is wiped', () => {
    put(leg('disk0'), 33 * KIB, Buffer.from('x'));
    const s = site();
    assert.equal(openUp(s).ok, false);
    assert.equal(s.refused, true);
    assert.match(
      s.reason,
      /disk0: holds data \(the first at byte 33792\), and a new site must read as zeroes; wipe it/,
    );
    assert.equal(readFileSync(leg('disk0'))[33 * KIB], 0x78);
    make('disk0', DISK.size);
    assert.equal(opened(s), START.seq);
  });

  it('looks at a large device in steps, says how far, and goes on after an interruption', () => {
    const big: SiteDevice = { nr: 0, name: 'big', size: 64 * MIB };
    make('big', big.size);
    // Written zeroes: a hole would be passed over.
    writeFileSync(leg('big'), Buffer.alloc(big.size));
    const map = { big: leg('big') };
    const slow = faults.io.pread;
    faults.io.pread = (...args) => {
      clock.ms += 60;
      return slow(...args);
    };
    const s = site(map);
    const h = how(true, [big]);
    assert.equal(s.open(h).ok, false);
    assert.equal(s.preparing, true);
    assert.match(s.reason, /looks whether .*big is blank: 12%/);
    s.close();
    faults.names.length = 0;
    opened(site(map), h);
    assert.equal(faults.names.filter((n) => n === 'SITE:READ').length, (64 - 8) / 4, 'it began anew');
  });

  it('! a device that grows by a record is looked at in its new part, and keeps the rest', () => {
    settled();
    const s = site();
    opened(s, how(false));
    const size = 128 * KIB;
    const batch = history
      .begin()
      .grow(0, size)
      .fill(100 * KIB, 4 * KIB)
      .end();
    assert.equal(s.write(batch), -11);
    assert.match(s.reason, /device disk0 comes or grows: its leg is looked at first/);
    assert.equal(openUp(s, how(false)).ok, false);
    assert.match(s.reason, /disk0: is too small.*enlarge it/);
    truncateSync(leg('disk0'), size);
    put(leg('disk0'), 110 * KIB, Buffer.from('x'));
    assert.equal(openUp(s, how(false)).ok, false);
    assert.match(s.reason, /holds data \(the first at byte 112640\)/);
    put(leg('disk0'), 110 * KIB, Buffer.alloc(1));
    opened(s, how(false));
    assert.equal(s.write(batch), 0, s.reason);
    assert.equal(history.seqOf(contents()), history.cursor.seq);
  });

  it('what is cut off a device is zeroed, and its leg stays as it is', () => {
    settled();
    const s = site();
    opened(s, how(false));
    const batch = history
      .begin()
      .grow(1, 4 * KIB)
      .end();
    assert.equal(s.write(batch), 0, s.reason);
    assert.equal(readFileSync(leg('disk1')).length, DISK1.size);
    assert.ok(readFileSync(leg('disk1')).every((byte) => byte === 0));
  });

  it('! a device that comes by a record is looked at before it is written to; one that goes is let go', () => {
    const s = site({ disk0: leg('disk0') });
    opened(s, how(true, [DISK]));
    const added = history
      .begin()
      .add(DISK1)
      .fill(0, 4 * KIB, 1)
      .end();
    assert.equal(s.write(added), -11);
    assert.equal(openUp(s, how(true, [DISK])).ok, false);
    assert.match(s.reason, /device disk1: the site's map has no path for it; add disk1=PATH/);
    s.close();
    const mapped = site();
    opened(mapped, how(true, [DISK]));
    assert.equal(mapped.write(added), 0, mapped.reason);
    assert.equal(history.seqOf(contents()), history.cursor.seq);
    const gone = history.begin().fill(0, 512, 1).remove(1).fill(0, 512).end();
    assert.equal(mapped.write(gone), 0, mapped.reason);
    assert.equal(mapped.flush(), 0);
    mapped.close();
    assert.equal(opened(site({ disk0: leg('disk0') }), how(false, [])), history.cursor.seq);
    assert.equal(history.seqOf(contents()), history.cursor.seq);
  });

  it('asks for a resync where the log has writes to a device that never came', () => {
    const s = site();
    opened(s, how(true, [DISK]));
    assert.equal(
      s.write(
        history
          .begin()
          .fill(0, 4 * KIB, 1)
          .end(),
      ),
      -19,
    );
    assert.match(s.reason, /the log has writes to device 1, and no record of its coming/);
  });

  it('does not take over the stamp of a site of the same number that was elsewhere', () => {
    settled();
    make('other', DISK.size);
    history = new History([DISK]);
    const s = site({ disk0: leg('other') });
    assert.equal(opened(s, how(true, [DISK])), START.seq);
  });

  it('probe notices that a path leads elsewhere', () => {
    const s = site();
    opened(s);
    assert.equal(s.probe(), 0);
    renameSync(leg('disk0'), leg('away'));
    make('disk0', DISK.size);
    assert.equal(s.probe(), -6);
    assert.match(s.reason, /disk0: the path no longer leads to what this site opened/);
  });

  const errors: IoCall[] = [
    'STAMP:WRITE',
    'STAMP:SYNC',
    'STAMP:OPEN',
    'STAMP:READ',
    'SITE:WRITE',
    'SITE:SYNC',
    'SITE:READ',
  ];
  for (const call of errors)
    it(`! goes on after ${call} failed, without a gap`, () => {
      settled();
      const s = site();
      faults.rule = (name) => (name === call ? { errno: 28 } : undefined);
      const batch = history
        .begin()
        .fill(20 * KIB, 12 * KIB)
        .zeroes(0, 4 * KIB)
        .fill(0, 512, 1)
        .end();
      if (openUp(s, how(false)).ok) assert.notEqual(s.write(batch) + s.flush(), 0, 'the error was swallowed');
      assert.notEqual(s.reason, '');
      s.close();
      faults.rule = undefined;
      const seq = opened(s, how(false));
      if (seq < history.cursor.seq) assert.equal(s.write(batch), 0, s.reason);
      assert.equal(s.flush(), 0);
      assert.equal(history.seqOf(contents()), history.cursor.seq);
    });

  it('real calls: holes are found by the file system', () => {
    const legs = new DiskLegs(realIo, { disk0: leg('disk0') });
    assert.equal(legs.open([DISK]).ok, true);
    assert.equal(legs.nextData(0, 0, DISK.size), DISK.size);
    put(leg('disk0'), 32 * KIB, Buffer.from('x'));
    assert.ok(legs.nextData(0, 0, DISK.size) <= 32 * KIB);
    legs.close();
  });
});
