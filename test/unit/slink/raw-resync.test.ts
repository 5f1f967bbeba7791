import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { Mem } from '../../../src/base/mem.js';
import { BLOCK, KIB } from '../../../src/base/units.js';
import { BATCH_HEADER } from '../../../src/replog/format.js';
import type { SiteOpen, SiteOpened } from '../../../src/slink/contract.js';
import { DiskLegs } from '../../../src/slink/disk-legs.js';
import { RawSite } from '../../../src/slink/raw-site.js';
import { RawStampFile } from '../../../src/slink/raw-stamp.js';
import { TestClock, cleanUp, scratch } from '../replog/rig.js';
import { Copying, oldFile } from './copying.js';
import { DISK, DISK1, Died, FaultIo, History, START, how as plainHow, put, type Rule } from './support.js';

const DEVICES = [DISK, DISK1];
const DISK2 = { nr: 2, name: 'disk2', size: 16 * KIB };

describe('RawSite with a resync', function () {
  this.timeout(120_000);
  let dir: string;
  let clock: TestClock;
  let faults: FaultIo;
  let history: History;
  let all: RawSite[];

  function begin(): void {
    dir = scratch();
    clock = new TestClock();
    faults = new FaultIo(undefined, true);
    history = new History(DEVICES);
    all = [];
    for (const { name, size } of [...DEVICES, DISK2]) make(name, size);
  }
  beforeEach(begin);
  afterEach(() => {
    for (const s of all) s.close();
    cleanUp();
  });

  const leg = (name: string): string => join(dir, name);
  const stampPath = (): string => join(dir, 'site1.stamp');

  function make(name: string, size: number): void {
    writeFileSync(leg(name), '');
    truncateSync(leg(name), size);
  }

  function site(io = faults.io): RawSite {
    const map = { disk0: leg('disk0'), disk1: leg('disk1'), disk2: leg('disk2') };
    const s = new RawSite(io, clock, {
      ...{ type: 'blockdev', legs: new DiskLegs(io, map), stamp: stampPath(), wipe: 'wipe it' },
    });
    all.push(s);
    return s;
  }

  /** The log has the last batch, and nothing before it. */
  const sentBehind: NonNullable<SiteOpen['sentBehind']> = (from, visit) => {
    if (from.seq === history.cursor.seq) return true;
    if (from.seq !== history.batch.before.seq) return false;
    visit(history.batch.mem, BATCH_HEADER, history.batch.records);
    return true;
  };

  function openPlain(s = site(), create = false): SiteOpened {
    for (let i = 0; i < 1000; i++) {
      const opened = s.open({ ...plainHow(DEVICES, create), sentBehind });
      if (!s.preparing) return opened;
    }
    return assert.fail('it never comes to an end');
  }

  function ship(s: RawSite): void {
    let rc = s.write(history.end());
    // A device that comes is looked at first.
    if (rc === -ERRNO.EAGAIN) rc = -1;
    assert.equal(rc, 0, s.reason);
  }

  /** Two confirmed batches, closed. */
  function behind(): void {
    const s = site();
    assert.ok(openPlain(s, true).ok, s.reason);
    history.begin().fill(0, 8192).fill(4096, 4096, 1);
    ship(s);
    history.begin().fill(16384, 4096);
    ship(s);
    assert.equal(s.flush(), 0);
    s.close();
  }

  function dropped(missed: () => void = () => void history.begin().fill(32768, 8192).fill(0, 4096, 1)): Copying {
    missed();
    history.end();
    const copying = new Copying(history);
    return copying;
  }

  function opened(copying: Copying, s = site()): RawSite {
    const o = copying.open(s, { sentBehind });
    assert.ok(o.ok, s.reason);
    assert.equal(s.inconsistent, true);
    copying.anew = false;
    return s;
  }

  function refusal(o: SiteOpened): string {
    if (o.ok) return assert.fail('it was opened');
    assert.equal(o.refused, true, o.reason);
    return o.reason;
  }

  function contents(): Map<number, Buffer> {
    return new Map([...history.now.keys()].map((nr) => [nr, readFileSync(leg(history.names.get(nr)!))]));
  }

  function checkWhole(): void {
    const s = site();
    assert.deepEqual(openPlain(s), { ok: true, cursor: history.cursor }, s.reason);
    assert.equal(s.inconsistent, false);
    s.close();
    assert.equal(history.seqOf(contents()), history.cursor.seq);
  }

  it('! is inconsistent from the open until whole, begins at the place it is given, and is equal then', () => {
    behind();
    const copying = dropped();
    const s = opened(copying);
    assert.match(s.readers!() as string, /is inconsistent until its resync is done/);
    assert.equal(s.unflushed, false);
    copying.copy(s, 0);
    s.close();
    assert.match(
      refusal(openPlain()),
      /says that site 1 is inconsistent, as a resync .* not completed; resync the site/,
    );
    assert.deepEqual(copying.open(s, { sentBehind }), { ok: true, cursor: copying.at });
    history.begin().fill(12288, 8192);
    ship(s);
    copying.finish(s);
    assert.equal(typeof s.readers!(), 'object');
    s.close();
    checkWhole();
  });

  it('! the stamp says inconsistent before the first byte is written, and whole behind the last sync', () => {
    behind();
    const copying = dropped();
    const order: string[] = [];
    faults.rule = (call, _n, method) =>
      void (/^(pwrite|pwritev|fallocate|fdatasync)$/.test(method) && order.push(call));
    const s = opened(copying);
    assert.deepEqual([...new Set(order)].sort(), ['STAMP:SYNC', 'STAMP:WRITE'], 'nothing but the stamp');
    copying.copy(s, 0);
    order.length = 0;
    assert.equal(s.copy.whole(), 0, s.reason);
    const synced = order.lastIndexOf('SITE:SYNC');
    assert.ok(synced >= 0 && order.indexOf('STAMP:WRITE') > synced, order.join(' '));
  });

  it('! goes on from its own place where that is farther, in order or not, unless everything is copied anew', () => {
    behind();
    const copying = dropped();
    const s = opened(copying);
    history.begin().fill(0, 512);
    ship(s);
    const beyond = { ...history.cursor };
    s.close();
    assert.deepEqual(copying.open(s, { sentBehind }), { ok: true, cursor: beyond });
    copying.finish(s);
    s.close();
    assert.deepEqual(copying.open(s, { sentBehind }), { ok: true, cursor: beyond }, 'its stamp was in order');
    copying.anew = true;
    assert.deepEqual(copying.open(s, { sentBehind }), { ok: true, cursor: copying.at });
  });

  it('! has the devices of the present; what comes or grows is looked at, and taken by force only', () => {
    behind();
    truncateSync(leg('disk0'), 96 * KIB);
    const copying = dropped(
      () =>
        void history
          .begin()
          .grow(0, 96 * KIB)
          .remove(1)
          .add(DISK2)
          .fill(0, 512, 2),
    );
    copying.nextDevice = 3;
    for (const [name, at] of [
      ['disk0', 80 * KIB],
      ['disk2', 8192],
    ] as const) {
      put(leg(name), at, Buffer.from('precious'));
      const o = copying.open(site(), { sentBehind });
      assert.match(refusal(o), new RegExp(`${name}: holds data .the first at byte ${at}.*wipe it`));
      put(leg(name), at, Buffer.alloc(8));
    }
    const file = new RawStampFile(faults.io, stampPath());
    const stamp = file.load();
    file.close();
    assert.ok(typeof stamp === 'object' && !stamp.inconsistent, 'it is in order still');

    put(leg('disk2'), 8192, Buffer.from('precious'));
    Object.assign(copying, { anew: true, force: true });
    const s = opened(copying);
    // Of one that has left; written twice; and one that is really new.
    history
      .begin()
      .add(DISK2)
      .grow(0, 96 * KIB)
      .fill(512, 512, 2);
    ship(s);
    copying.finish(s);
    s.close();
    checkWhole();
    assert.ok(
      readFileSync(leg('disk1'))
        .subarray(4096, 8192)
        .some((b) => b !== 0),
      'its leg stays as it was',
    );
  });

  it('! passes over records of devices that had left when it began, also once it is in order', () => {
    behind();
    const copying = dropped();
    const resync = { ...copying.resync, devices: [DISK], nextDevice: 2 };
    const s = site();
    assert.ok(copying.open(s, { resync, sentBehind }).ok, s.reason);
    history.begin().fill(0, 512, 1).add(DISK1);
    ship(s);
    copying.copy(s, 0);
    assert.equal(s.copy.whole(), 0, s.reason);
    s.close();
    // Another process.
    const later = site();
    assert.ok(openPlain(later).ok, later.reason);
    history
      .begin()
      .fill(512, 512, 1)
      .grow(1, 64 * KIB)
      .fill(8192, 512)
      .remove(1);
    ship(later);
    assert.equal(later.flush(), 0);
    later.close();
    checkWhole();
  });

  it('! a device that comes by a record while it is inconsistent stays when it is opened again', () => {
    behind();
    const copying = dropped();
    copying.nextDevice = 2;
    const { resync } = copying;
    const s = site();
    assert.ok(copying.open(s, { resync, sentBehind }).ok, s.reason);
    history.begin().add(DISK2).fill(0, 4096, 2);
    assert.equal(s.write(history.end()), -ERRNO.EAGAIN);
    s.close();
    assert.ok(copying.open(s, { resync, sentBehind }).ok, s.reason);
    assert.equal(s.write(history.batch), 0, s.reason);
    copying.dirty.set(2, new Set());
    copying.finish(s);
    s.close();
    checkWhole();
  });

  describe('what stands there and is not this site', () => {
    function takenByForce(copying: Copying): void {
      copying.anew = true;
      assert.equal(copying.open(site(), { sentBehind }).ok, false);
      copying.anew = false;
      copying.force = true;
      assert.equal(copying.open(site(), { sentBehind }).ok, false, 'force alone, where something may be clean');
      copying.anew = true;
      const s = opened(copying);
      history.begin().fill(0, 1024);
      ship(s);
      copying.finish(s);
      s.close();
      checkWhole();
    }

    const others: { name: string; put: () => void }[] = [
      { name: 'a blank disk', put: () => make('disk0', DISK.size) },
      { name: 'a disk with other data', put: () => writeFileSync(leg('disk0'), Buffer.alloc(DISK.size, 7)) },
      {
        name: 'no stamp, and disks with data',
        put: () => rmSync(stampPath()),
      },
      { name: 'a stamp that is cut off', put: () => truncateSync(stampPath(), 300) },
    ];
    for (const { name, put } of others)
      it(`! ${name} is refused, and taken where the operator says so and everything is copied`, () => {
        behind();
        const copying = dropped();
        put();
        takenByForce(copying);
      });

    it('is made where there is none yet, on blank disks', () => {
      history.begin().fill(0, 4096).fill(8192, 512, 1);
      history.end();
      const copying = new Copying(history);
      put(leg('disk1'), 512, Buffer.from('x'));
      const create = { create: START, sentBehind };
      assert.match(refusal(copying.open(site(), create)), /disk1: holds data/);
      put(leg('disk1'), 512, Buffer.alloc(1));
      const s = site();
      assert.deepEqual(copying.open(s, create), { ok: true, cursor: copying.at }, s.reason);
      copying.finish(s);
      s.close();
      checkWhole();
    });

    it('! a disk that is exchanged while it is copied onto is noticed', () => {
      behind();
      const copying = dropped();
      const s = opened(copying);
      copying.copy(s, 0, 0, 12);
      copying.settle(s);
      s.close();
      copyFileSync(leg('disk0'), leg('mine'));
      make('disk0', DISK.size);
      assert.match(refusal(copying.open(site(), { sentBehind })), /disk0: is not as this site left it/);
      copyFileSync(leg('mine'), leg('disk0'));
      copying.finish(opened(copying, s));
      s.close();
      checkWhole();
    });
  });

  describe('samples behind a call that failed', () => {
    /** All samples are touched by a batch that fails in the middle; then the log loses it. */
    function failed(): Copying {
      behind();
      const s = site();
      assert.ok(openPlain(s).ok, s.reason);
      history.begin().fill(0, 20480).fill(4096, 4096, 1);
      history.end();
      faults.rule = (call) => (call === 'SITE:SYNC' ? { errno: ERRNO.EIO } : undefined);
      assert.equal(s.write(history.batch), -ERRNO.EIO);
      faults.rule = undefined;
      s.close();
      return dropped();
    }

    it('! raise no false alarm where the log has lost the records', () => {
      const copying = failed();
      const s = opened(copying);
      copying.finish(s);
      s.close();
      checkWhole();
    });

    it('! are known to a process that never saw the failure', () => {
      behind();
      const s = site();
      assert.ok(openPlain(s).ok);
      history.begin().fill(0, 20480).fill(4096, 4096, 1);
      faults.rule = (call) => (call === 'SITE:SYNC' ? { die: true } : undefined);
      assert.throws(() => s.write(history.end()), Died);
      faults = new FaultIo(undefined, true);
      // It looks at what the log has even though the disk is not there; by the next time the log has it no more.
      rmSync(leg('disk1.away'), { force: true });
      copyFileSync(leg('disk1'), leg('disk1.away'));
      rmSync(leg('disk1'));
      assert.equal(openPlain().ok, false);
      copyFileSync(leg('disk1.away'), leg('disk1'));
      const copying = dropped();
      const again = opened(copying);
      copying.finish(again);
      again.close();
      checkWhole();
    });
  });

  it('! the open window outlasts whole where a call had failed beyond it', () => {
    behind();
    const s = site();
    assert.ok(openPlain(s).ok);
    history.begin().fill(0, 4096).fill(4096, 4096).tag('x');
    const { batch } = history;
    history.end();
    faults.rule = (call) => (call === 'SITE:SYNC' ? { errno: ERRNO.EIO } : undefined);
    assert.equal(s.write(batch), -ERRNO.EIO);
    faults.rule = undefined;
    const copying = new Copying(history);
    copying.at = { ...batch.before };
    opened(copying, s);
    copying.finish(s);
    assert.deepEqual(s.window, { from: batch.before.seq, to: history.cursor.seq, bytes: 0 });
    assert.equal(s.flush(), 0);
    assert.equal(s.unflushed, true, 'a stamp that is closed would call half a batch history');
    assert.equal(s.write(batch), 0);
    assert.equal(s.flush(), 0);
    s.close();
    checkWhole();
  });

  it('copies: say what cannot be, and the site stays open', () => {
    behind();
    const s = site();
    const mem = Mem.anon(2 * BLOCK);
    assert.equal(s.copy.read(0, 0, BLOCK, mem, 0), -ERRNO.ENOTCONN);
    assert.ok(openPlain(s).ok);
    assert.equal(s.copy.write(0, 0, BLOCK, mem, 0), -ERRNO.EPERM);
    assert.match(s.reason, /site is in order: nothing may be copied into it/);
    assert.equal(s.copy.read(0, 4096, BLOCK, mem, BLOCK), BLOCK);
    assert.ok(mem.u8.subarray(BLOCK, 2 * BLOCK).equals(history.now.get(0)!.subarray(4096, 8192)));
    assert.equal(s.copy.read(9, 0, BLOCK, mem, 0), -ERRNO.ENODEV);
    assert.equal(s.copy.nextData!(0, 20480, DISK.size), DISK.size);
    assert.equal(s.copy.nextData!(0, 16384, DISK.size), 16384);
    assert.equal(s.probe(), 0);
    mem.unmap();
  });

  it('! a stamp that an older reptool wrote is opened, resynced and whole', () => {
    history = new History([DISK]);
    history.begin().fill(0, 8192);
    history.end();
    writeFileSync(stampPath(), oldFile('v1.rawstamp'));
    writeFileSync(leg('disk0'), oldFile('v1.leg'));
    // Its target was another folder's.
    const s = site();
    assert.deepEqual(openPlain(s), { ok: true, cursor: history.cursor }, s.reason);
    s.close();
    writeFileSync(stampPath(), oldFile('v1.rawstamp'));
    const copying = dropped(() => void history.begin().add(DISK1).fill(16384, 512).fill(0, 512, 1));
    opened(copying, s);
    copying.finish(s);
    s.close();
    checkWhole();
  });

  /** Confirmed batches; a gap; copies beside records; whole; records. Returns what the stamp must say. */
  function live(life: { copying?: Copying; confirmed: number; says: 'order' | 'inconsistent' | undefined }): void {
    const s = site();
    const shipped = (): void => {
      assert.equal(s.write(history.end()), 0, s.reason);
      if (life.says === 'order') life.confirmed = history.cursor.seq;
    };
    try {
      assert.ok(openPlain(s, true).ok, s.reason);
      life.says = 'order';
      history.begin().fill(0, 8192).fill(0, 4096, 1);
      shipped();
      assert.equal(s.flush(), 0, s.reason);
      history.begin().fill(4096, 8192).fill(8192, 1024, 1);
      shipped();
      history.begin().fill(20480, 8192).remove(1).add(DISK2).fill(512, 512, 2).fill(4096, 512).end();
      const copying = (life.copying = new Copying(history));
      copying.nextDevice = 3;
      life.says = undefined;
      opened(copying, s);
      life.says = 'inconsistent';
      copying.copy(s, 0, 0, 4);
      copying.settle(s);
      history.begin().fill(1024, 4096).fill(24576, 1024).zeroes(8192, 2048);
      history.end();
      copying.copy(s, 0, 4, 8);
      shipped();
      copying.settle(s);
      copying.copy(s, 0);
      copying.settle(s);
      copying.copy(s, 2);
      life.says = undefined;
      assert.equal(s.copy.whole(), 0, s.reason);
      life.says = 'order';
      life.confirmed = history.cursor.seq;
      for (const blocks of copying.dirty.values()) blocks.clear();
      history.begin().fill(0, 1024).fill(0, 1024, 2);
      shipped();
      assert.equal(s.flush(), 0, s.reason);
      history.begin().fill(2048, 512, 2);
      shipped();
    } catch (error) {
      if (!(error instanceof Died)) throw error;
    } finally {
      s.close();
    }
  }

  function judge(what: string, { copying, confirmed, says }: Parameters<typeof live>[0]): void {
    faults = new FaultIo(undefined, true);
    const file = new RawStampFile(faults.io, stampPath());
    const stamp = file.load();
    file.close();
    const inconsistent = typeof stamp === 'object' && stamp.inconsistent;
    if (says !== undefined) assert.equal(inconsistent, says === 'inconsistent', what);
    if (inconsistent) assert.match(refusal(openPlain()), /is inconsistent/, what);
    else if (typeof stamp === 'object' && !stamp.open) {
      assert.ok(stamp.cursor.seq >= confirmed, what);
      const state = history.states[stamp.cursor.seq - history.firstSeq]!;
      for (const [nr, bytes] of state)
        assert.ok(readFileSync(leg(history.names.get(nr)!)).equals(bytes), `${what}: device ${nr}`);
    }
    const order = copying ?? new Copying(history);
    const s = site();
    const o = order.open(s, { sentBehind, ...(confirmed === 1 ? { create: order.at } : {}) });
    assert.ok(o.ok, `${what}: ${s.reason}`);
    if (o.cursor.seq < history.cursor.seq) {
      assert.equal(o.cursor.seq, history.batch.before.seq, what);
      assert.equal(s.write(history.batch), 0, `${what}: ${s.reason}`);
    }
    order.finish(s);
    assert.equal(s.window, null, what);
    s.close();
    const last = site();
    assert.deepEqual(openPlain(last), { ok: true, cursor: history.cursor }, `${what}: ${last.reason}`);
    last.close();
    assert.equal(history.seqOf(contents()), history.cursor.seq, what);
  }

  const kinds: { name: string; applies: (method: string) => boolean; rule: (at: number) => Rule }[] = [
    {
      name: 'before it',
      applies: (method) => !/^(close|stat|info|pread|nextData)$/.test(method),
      rule: (at) => (_call, n) => (n === at ? { die: true } : undefined),
    },
    {
      name: 'in the middle of a write',
      applies: (method) => method.startsWith('pwrite'),
      rule: (at) => (_call, n) => (n === at ? { tear: 0.5 } : undefined),
    },
  ];
  for (const { name, applies, rule } of kinds)
    it(`! cut off at every call it says that it is inconsistent or is a prefix, and becomes equal (${name})`, () => {
      const run = (which?: Rule): { methods: string[]; life: Parameters<typeof live>[0] } => {
        cleanUp();
        begin();
        const methods: string[] = [];
        faults.rule = (call, n, method) => (methods.push(method), which?.(call, n, method));
        const life = { confirmed: 1, says: undefined };
        live(life);
        return { methods, life };
      };
      const whole = run();
      const { methods } = whole;
      judge('the whole life', whole.life);
      assert.ok(methods.length > 100, `only ${methods.length} calls`);
      for (let at = 1; at <= methods.length; at++) {
        if (!applies(methods[at - 1]!)) continue;
        const { life } = run(rule(at));
        assert.equal(faults.dead, true);
        judge(`call ${at}, ${faults.names[at - 1]}`, life);
      }
    });
});
