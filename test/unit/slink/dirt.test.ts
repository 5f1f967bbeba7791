import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { realIo, type Io } from '../../../src/base/io.js';
import { DirtyKeep } from '../../../src/dirtylog/keep.js';
import { DISK } from '../../../src/dirtylog/words.js';
import type { Index, LinkFact } from '../../../src/index/contract.js';
import { openIndex } from '../../../src/index/lmdb.js';
import { Checkpointer } from '../../../src/replog/checkpointer.js';
import { segmentFact } from '../../../src/replog/extents.js';
import type { LogPlace } from '../../../src/replog/format.js';
import { recover } from '../../../src/replog/recovery.js';
import { W } from '../../../src/replog/window.js';
import type { SiteCursor } from '../../../src/slink/contract.js';
import { Dirt, type DirtParts } from '../../../src/slink/dirt.js';
import { Crash, FaultIo } from '../../support/fault-io.js';
import { LOG_ID, Rig, cleanUp, newLog, openLog, scratch } from '../replog/rig.js';

const REGION = 128;
const SECTORS = 64 * REGION;
const KIB64 = 65536;

const open: Index[] = [];

/** Main as far as links in and out of the ring go: checkpointer, index and dirt, with real LMDB. */
class Main {
  readonly rig: Rig;
  readonly io: FaultIo;
  readonly dir: string;
  index: Index;
  checkpointer!: Checkpointer;
  dirt!: Dirt;
  /** The devices, and the words of their dirty logs at every link. */
  devices = [
    { nr: 0, sectors: SECTORS, words: [`${REGION}`] },
    { nr: 1, sectors: SECTORS, words: [`${REGION}`] },
  ];
  readonly links = new Map<number, { cursor: SiteCursor; out: boolean }>();
  readonly told: string[] = [];
  readonly failures: string[] = [];
  doubts = 0;
  hurried = 0;

  constructor() {
    this.io = new FaultIo(realIo);
    this.rig = new Rig({ io: this.io, log: newLog({ io: this.io, size: 16 * 1024 * 1024 }) });
    this.dir = join(scratch(), 'index');
    this.index = openIndex(this.dir);
    open.push(this.index);
    const { rig } = this;
    rig.log.writeSuper({ clean: false, reign: 1, indexId: this.index.id, indexGeneration: 0 }, rig.clock);
    for (const nr of [1, 2]) this.links.set(nr, { cursor: this.at(rig.durable), out: false });
    this.start();
    for (const nr of [1, 2]) this.note(nr);
    this.commit();
  }

  start(): void {
    const { rig } = this;
    const { log, window, shared, clock } = rig;
    const dirt = new Dirt(this.parts());
    this.dirt = dirt;
    const events = { checkpointFailed: (reason: Error) => void this.failures.push(reason.message) };
    this.checkpointer = new Checkpointer({ log, index: this.index, window, shared, clock, dirt, events });
  }

  private parts(): DirtParts {
    return {
      log: this.rig.log,
      tables: {
        firstSeq: (start) => this.checkpointer.firstSeq(start),
        extents: (start) => this.checkpointer.extents(start),
      },
      devices: () => this.devices,
      region: REGION,
      keep: (link, { nr, sectors }, begins) => {
        const { words } = this.devices.find((d) => d.nr === nr)!;
        const table = DISK.parse(words);
        const leg = { logId: LOG_ID, link, device: nr, name: `disk${nr} at site ${link}` };
        const fact = this.index.dirty(link).find((f) => f.device === nr);
        const needs = { io: this.io as Io, leg, table, region: REGION, sectors, begins, fact };
        return new DirtyKeep(DISK.make({ ...needs, taken: () => '' }), needs);
      },
      cursor: (nr) => this.links.get(nr)!.cursor,
      end: () => this.at(this.rig.durable),
      synced: () => this.checkpointer.synced,
      doubts: () => this.doubts,
      commit: (atOnce) => (atOnce ? this.checkpointer.ask() : this.checkpointer.touch()),
      hurry: () => this.hurried++,
      events: {
        dropped: (nr, to, regions) => {
          this.told.push(`dropped ${nr} to ${to.seq}: ${regions}`);
          this.links.set(nr, { cursor: { ...to }, out: true });
          this.note(nr);
        },
        ordered: (nr) => void this.told.push(`ordered ${nr}`),
        clean: (nr, _epoch, wholeAt) => void this.told.push(`clean ${nr} at ${wholeAt}`),
        failed: (what) => void this.failures.push(what),
      },
    };
  }

  at(seq: number): SiteCursor {
    return { ...this.rig.window.placeBefore(seq), reign: 1 };
  }

  note(nr: number): void {
    const { cursor, out } = this.links.get(nr)!;
    const { reign, ...place } = cursor;
    const fact: LinkFact = { nr, cursor: place, reign, sync: out ? 'inconsistent' : 'in-order', paused: false };
    if (out) fact.wholeAt = this.dirt.wholeAt(nr) ?? 0;
    this.checkpointer.noteLink(fact);
  }

  /** Regions that records were written to, one record of half a region each. */
  write(device: number, ...regions: number[]): void {
    for (const region of regions) {
      this.rig.write(KIB64 / 2, region + 1, region * KIB64, device);
      this.rig.settle();
    }
    this.rig.window.storeSeq(W.APPLIED, this.rig.durable);
    this.rig.window.storeSeq(W.HEAD, this.rig.durable);
    for (const segment of this.rig.segments.splice(0)) {
      const fact = segmentFact(segment);
      if (fact !== undefined) this.checkpointer.noteSegment(fact);
    }
  }

  /** Slink 0's images have everything up to now, synced. */
  sync(seq = this.rig.durable): void {
    this.checkpointer.noteApplied(this.rig.window.placeBefore(seq));
  }

  commit(): void {
    this.rig.clock.ms += 2000;
    this.checkpointer.ask();
    this.checkpointer.step();
  }

  /** Drops a link and commits. */
  drop(nr: number, to?: number): void {
    this.dirt.drop(nr, to === undefined ? undefined : this.at(to));
    this.mark();
    this.commit();
  }

  mark(): void {
    for (let i = 0; this.dirt.step() === 0; i++) assert.ok(i < 10_000);
  }

  dirty(nr: number, device: number): number[] {
    const { bits } = this.dirt.logs(nr).get(device)!;
    const regions: number[] = [];
    for (let r = bits.next(0); r >= 0; r = bits.next(r + 1)) regions.push(r);
    return regions;
  }

  copy(
    nr: number,
    device: number,
    first: number,
    regions = 1,
    t2 = this.rig.durable,
    epoch = this.dirt.epoch(nr),
  ): void {
    this.dirt.copied(nr, { epoch, device, first, regions, t2, doubts: this.doubts });
  }

  copyAll(nr: number): void {
    for (const { nr: device } of this.devices)
      for (const region of this.dirty(nr, device)) this.copy(nr, device, region);
  }

  /** The daemon has died: another one finds what is on the disk. */
  async next(): Promise<LinkFact[]> {
    this.io.disarm();
    await this.index.close();
    open.splice(open.indexOf(this.index), 1);
    this.index = openIndex(this.dir);
    open.push(this.index);
    const { path } = this.rig.log;
    const recovered = recover(openLog(path), this.index);
    assert.equal(recovered.indexLost, false);
    this.told.length = 0;
    this.start();
    for (const fact of recovered.links) {
      const cursor = { ...fact.cursor, reign: fact.reign };
      this.links.set(fact.nr, { cursor, out: fact.sync === 'inconsistent' });
      if (fact.sync !== 'inconsistent') continue;
      assert.notEqual(fact.wholeAt, undefined);
      this.dirt.begin(fact.nr, 'stored');
      this.note(fact.nr);
    }
    return recovered.links;
  }
}

const seqs = (facts: readonly LinkFact[]): unknown[] => facts.map((f) => [f.nr, f.cursor.seq, f.sync]);

describe('Dirt', function () {
  this.timeout(30_000);
  let m: Main;
  beforeEach(() => {
    m = new Main();
  });
  afterEach(async () => {
    for (const index of open.splice(0)) await index.close();
    cleanUp();
  });

  it('drop: marks, cursor and state are one commit, and the head moves behind it', () => {
    m.write(0, 3, 4, 9);
    m.write(1, 7);
    m.sync();
    m.links.set(2, { cursor: m.at(5), out: false });
    m.note(2);
    m.commit();
    const before = m.rig.shared.logHead;
    assert.equal(m.checkpointer.holder().nr, 1);
    m.dirt.drop(1);
    assert.equal(m.dirt.isLeaving(1), true);
    m.mark();
    assert.deepEqual([m.dirt.isLeaving(1), m.dirt.isOut(1)], [false, true]);
    assert.deepEqual(m.told, ['dropped 1 to 5: 4'], 'the shipper hears of it when it is committed');
    assert.equal(m.rig.shared.logHead, before);
    m.commit();
    assert.deepEqual(m.told, ['dropped 1 to 5: 4', 'ordered 1']);
    assert.deepEqual(seqs(m.index.links()), [
      [1, 5, 'inconsistent'],
      [2, 5, 'in-order'],
    ]);
    assert.deepEqual(
      m.index.dirty(1).map((f) => [f.device, f.region, f.regions, f.bits[0], f.bits[1]]),
      [
        [0, REGION, 64, 0b0001_1000, 0b10],
        [1, REGION, 64, 0b1000_0000, 0],
      ],
    );
    assert.equal(m.rig.shared.logHead, m.at(5).pos);
  });

  it('a link that is out of the ring holds the head at its cursor, and is dropped again', () => {
    m.write(0, 1);
    m.links.delete(2);
    m.checkpointer.dropLink(2);
    m.drop(1);
    const epoch = m.dirt.epoch(1);
    const at = m.links.get(1)!.cursor;
    m.write(0, 2);
    m.sync();
    m.commit();
    assert.deepEqual([m.rig.shared.logHead, m.checkpointer.holder().nr], [at.pos, 1]);
    m.drop(1);
    assert.deepEqual(m.dirty(1, 0), [1, 2]);
    assert.ok(m.dirt.epoch(1) > epoch);
    assert.equal(m.rig.shared.logHead, m.at(3).pos);
  });

  it('! a region is cleared only when slink 0 has synced what was durable behind the read', () => {
    m.write(0, 3, 4);
    m.drop(1);
    m.copy(1, 0, 3);
    m.copy(1, 0, 4, 1, 2);
    m.commit();
    assert.deepEqual(m.dirty(1, 0), [3, 4], 'nothing is synced');
    m.sync(2);
    m.commit();
    assert.deepEqual(m.dirty(1, 0), [3]);
    m.sync();
    m.commit();
    assert.deepEqual(m.dirty(1, 0), []);
    assert.equal(m.told.at(-1), `clean 1 at ${m.rig.durable}`);
  });

  it('! what was copied in an older epoch, or before a sync of slink 0 failed, clears nothing', () => {
    m.write(0, 3, 4);
    m.drop(1);
    const old = m.dirt.epoch(1);
    m.copy(1, 0, 3);
    m.write(0, 3);
    m.drop(1);
    m.copy(1, 0, 3, 1, m.rig.durable, old);
    m.copy(1, 0, 4);
    m.doubts++;
    m.sync();
    m.commit();
    assert.deepEqual(m.dirty(1, 0), [3, 4]);
    m.copy(1, 0, 3, 2);
    m.commit();
    assert.deepEqual(m.dirty(1, 0), []);
  });

  it('asks for one sync of slink 0 where nothing but that is waited for', () => {
    m.write(0, 3, 4);
    m.drop(1);
    m.copy(1, 0, 3);
    assert.equal(m.hurried, 0);
    m.copy(1, 0, 4);
    m.copy(1, 0, 4);
    assert.equal(m.hurried, 1);
  });

  it('is in order again when the site says so, at a place that is far enough, in this epoch', () => {
    m.write(0, 3);
    m.drop(1);
    const epoch = m.dirt.epoch(1);
    assert.equal(m.dirt.inSync(1, epoch, 100), false, 'something is dirty');
    m.copyAll(1);
    m.sync();
    m.write(0, 8);
    m.commit();
    assert.deepEqual(m.dirt.clean(1), { epoch, wholeAt: 3 }, 'what was durable when it became clean');
    assert.equal(m.dirt.inSync(1, epoch - 1, 3), false);
    assert.equal(m.dirt.inSync(1, epoch, 2), false);
    assert.equal(m.dirt.inSync(1, epoch, 3), true);
    m.links.set(1, { cursor: m.at(3), out: false });
    m.note(1);
    m.commit();
    assert.deepEqual([seqs(m.index.links())[0], m.index.dirty(1)], [[1, 3, 'in-order'], []]);
    assert.equal(m.dirt.isOut(1), false);
  });

  it('one that has come far enough by itself while it was marked stays in the ring', () => {
    m.write(0, 3, 4);
    m.dirt.drop(1);
    m.links.set(1, { cursor: m.at(3), out: false });
    m.note(1);
    m.mark();
    assert.deepEqual([m.dirt.isOut(1), m.told], [false, []]);
  });

  it('what cannot be read is marked, all of it', () => {
    m.write(0, 3, 4);
    const { log } = m.rig;
    m.io.arm({ call: 'REPLOG:READ', nth: 0, errno: 5 });
    m.dirt.drop(1);
    m.mark();
    m.io.disarm();
    assert.equal(m.dirt.regions(1), 128);
    assert.match(m.failures[0]!, /^site 1: what it lacks cannot be read: .*; all of it is resynced$/);
    assert.ok(log.ring > 0);
  });

  it('a new site whose history is gone: everything, from the durable end on; nosync: nothing', () => {
    m.write(0, 3);
    for (const [nr, how, regions] of [
      [1, 'stored', 128],
      [2, 'none', 0],
    ] as const) {
      m.links.set(nr, { cursor: m.at(2), out: true });
      m.dirt.begin(nr, how, { begins: true });
      m.note(nr);
      assert.equal(m.dirt.regions(nr), regions);
      assert.deepEqual([m.dirt.order(nr).at.seq, m.dirt.order(nr).wholeAt], [2, 2]);
    }
    m.commit();
    assert.deepEqual(m.told, ['clean 2 at 2'], 'nobody is ordered what it begins with');
  });

  it('`nosync` of a dirty log counts where the leg begins, and never again', async () => {
    for (const device of m.devices) device.words = [`${REGION}`, 'nosync'];
    m.write(0, 3);
    m.links.set(1, { cursor: m.at(2), out: true });
    m.dirt.begin(1, 'stored', { begins: true });
    m.note(1);
    assert.equal(m.dirt.regions(1), 0);
    m.write(0, 5);
    m.drop(1);
    await m.next();
    assert.deepEqual(m.dirty(1, 0), [5]);
  });

  it('what a verify found is marked and resynced, and the cursor stays', () => {
    m.write(0, 3);
    m.links.set(1, { cursor: m.at(2), out: false });
    m.note(1);
    m.dirt.mark(1, [
      { device: 1, first: 5 * REGION + 8, sectors: 8 },
      { device: 0, first: SECTORS - 8, sectors: 800 },
      { device: 7, first: 0, sectors: 8 },
    ]);
    m.commit();
    assert.deepEqual([m.dirty(1, 0), m.dirty(1, 1)], [[63], [5]]);
    assert.deepEqual(m.told, ['dropped 1 to 2: 2', 'ordered 1']);
  });

  it('a site that may have lost what it had confirmed is dirty as a whole; a late word of that counts no more', () => {
    m.write(0, 3);
    m.drop(1);
    const epoch = m.dirt.epoch(1);
    m.dirt.lost(1, epoch - 1);
    assert.equal(m.dirt.regions(1), 1);
    m.dirt.lost(1, epoch);
    m.commit();
    assert.deepEqual([m.dirt.regions(1), m.dirt.epoch(1) > epoch, m.told.at(-1)], [128, true, 'ordered 1']);
  });

  it('devices: a new one is clean, one that grew keeps its marks, one that left is waited for by nobody', () => {
    m.write(0, 3);
    m.write(1, 4);
    m.drop(1);
    const shared = m.dirt.order(1).bits.find((b) => b.nr === 1)!.buffer;
    m.devices = [
      { nr: 0, sectors: 2 * SECTORS, words: [`${REGION}`] },
      { nr: 2, sectors: SECTORS, words: [`${REGION}`] },
    ];
    m.commit();
    assert.deepEqual(
      [...m.dirt.logs(1)].map(([nr, { bits }]) => [nr, bits.count, bits.deviceSectors]),
      [
        [0, 1, SECTORS],
        [2, 0, SECTORS],
      ],
    );
    assert.equal(new Int32Array(shared)[0], 0, 'the shipper finds nothing to do there');
    m.write(0, 100);
    m.write(2, 9);
    m.drop(1);
    assert.deepEqual([m.dirty(1, 0), m.dirty(1, 2)], [[3, 100], [9]]);
    assert.deepEqual(
      m.index.dirty(1).map((f) => [f.device, f.regions]),
      [
        [0, 128],
        [2, 64],
      ],
    );
  });

  it('a failed commit is tried again with all of it', () => {
    m.write(0, 3);
    m.dirt.drop(1);
    m.mark();
    m.io.arm({ call: 'REPLOG:SUPER', nth: 1, errno: 5 });
    m.commit();
    assert.equal(m.rig.shared.logHead, 0);
    m.write(0, 9);
    m.commit();
    assert.deepEqual(seqs(m.index.links())[0], [1, 2, 'inconsistent']);
    assert.equal(m.told.filter((t) => t === 'ordered 1').length, 1);
  });

  it('! wholeAt of an order is never before what the site may have been sent', () => {
    m.write(0, 3);
    m.drop(1);
    m.write(0, 4, 5);
    assert.equal(m.dirt.order(1).wholeAt, m.rig.durable);
  });
});

describe('! Dirt across a crash: dirty log of a device, index, superblock, head', function () {
  this.timeout(60_000);
  let m: Main;
  let device: string;

  /** Device 0 in the index, device 1 on a dirty log of its own. */
  beforeEach(() => {
    m = new Main();
    device = join(scratch(), 'dlog');
    writeFileSync(device, '');
    truncateSync(device, 1 << 20);
    m.devices[1]!.words = [device, `${REGION}`];
  });
  afterEach(async () => {
    m.dirt.close();
    for (const index of open.splice(0)) await index.close();
    cleanUp();
  });

  /** What the statement of section 20 asks of the link, whatever became of the daemon. */
  function assertNothingLost(facts: LinkFact[], from: LogPlace, wrote: Map<number, number[]>): void {
    const fact = facts.find((f) => f.nr === 1)!;
    assert.ok(m.rig.log.super.head.pos <= fact.cursor.pos, 'the log still holds what follows the cursor');
    if (fact.sync === 'in-order') return assert.equal(fact.cursor.seq, from.seq);
    for (const [nr, regions] of wrote) {
      const dirty = m.dirty(1, nr);
      for (const region of regions) assert.ok(dirty.includes(region), `device ${nr}, region ${region} is not marked`);
    }
  }

  for (const [call, when] of [
    ['DIRTYLOG:WRITE', 'before'],
    ['DIRTYLOG:WRITE', 'after'],
    ['DIRTYLOG:SYNC', 'before'],
    ['DIRTYLOG:SYNC', 'after'],
    ['REPLOG:SUPER', 'before'],
    ['REPLOG:SUPER', 'after'],
    ['REPLOG:SUPER-SYNC', 'before'],
    ['REPLOG:SUPER-SYNC', 'after'],
  ] as const)
    for (const nth of [1, 2])
      it(`! a drop that dies ${when} ${call} (${nth}) leaves the link in order, or all of it marked`, async () => {
        const from = m.links.get(1)!.cursor;
        m.write(0, 3, 4);
        m.write(1, 5);
        m.sync();
        m.checkpointer.dropLink(2);
        m.links.delete(2);
        m.dirt.drop(1);
        m.mark();
        m.io.arm({ call, nth, crash: when });
        let died = false;
        try {
          m.commit();
          m.write(1, 6);
          m.drop(1);
        } catch (error) {
          if (!(error instanceof Crash)) throw error;
          died = true;
        }
        assert.ok(died, `${call} is called`);
        const facts = await m.next();
        assertNothingLost(facts, from, new Map([[0, [3, 4]], [1, [5]]])); // prettier-ignore
        assert.ok(m.rig.shared.logHead <= facts[0]!.cursor.pos);
      });

  it('! the marks are on the dirty log, synced, before the index says that the cursor moved', () => {
    m.write(1, 5);
    m.drop(1);
    const from = m.rig.durable;
    m.write(1, 6);
    m.dirt.drop(1);
    m.mark();
    const order: string[] = [];
    const { fdatasync } = m.io;
    m.io.fdatasync = (call, fd) => {
      order.push(`${call}, cursor ${m.index.links().find((l) => l.nr === 1)!.cursor.seq}`);
      return fdatasync(call, fd);
    };
    m.commit();
    assert.deepEqual(order, [`DIRTYLOG:SYNC, cursor ${from}`, `REPLOG:SUPER-SYNC, cursor ${from + 1}`]);
  });

  for (const [call, when] of [
    ['DIRTYLOG:WRITE', 'before'],
    ['DIRTYLOG:SYNC', 'before'],
    ['DIRTYLOG:SYNC', 'after'],
    ['REPLOG:SUPER', 'before'],
    ['REPLOG:SUPER-SYNC', 'after'],
  ] as const)
    it(`! a clear that dies ${when} ${call} clears nothing that was not copied`, async () => {
      m.write(0, 3, 4);
      m.write(1, 5, 6);
      m.drop(1);
      m.sync();
      m.copy(1, 0, 3);
      m.copy(1, 1, 5);
      m.io.arm({ call, nth: 1, crash: when });
      assert.throws(() => m.commit(), Crash);
      await m.next();
      assert.ok(m.dirty(1, 0).includes(4) && m.dirty(1, 1).includes(6));
      m.copyAll(1);
      m.sync();
      m.commit();
      assert.deepEqual([m.dirt.regions(1), m.dirt.clean(1) !== undefined], [0, true]);
    });

  it('! a dirty log that does not flush holds nobody: the index keeps its marks, and gives them back', async () => {
    m.write(0, 3);
    m.write(1, 5);
    m.sync();
    m.checkpointer.dropLink(2);
    m.links.delete(2);
    m.io.arm({ call: 'DIRTYLOG:SYNC', nth: 0, errno: 5 });
    m.drop(1);
    assert.equal(m.dirt.logs(1).get(1)!.log.state, 'F');
    assert.match(m.failures.at(-1)!, /^site 1: .*; the index keeps its marks until that works again$/);
    assert.equal(m.rig.shared.logHead, m.at(m.rig.durable).pos, 'writers go on');
    assert.deepEqual(
      m.index.dirty(1).map((f) => f.device),
      [0, 1],
    );
    await m.next();
    assert.ok(m.dirty(1, 1).includes(5));
    m.commit();
    m.commit();
    assert.deepEqual(
      [m.dirt.logs(1).get(1)!.log.state, m.index.dirty(1).map((f) => f.device)],
      ['A', [0]],
      'on its device again',
    );
  });

  it('! a dirty log that is not there any more: every region is dirty', async () => {
    m.write(1, 5);
    m.drop(1);
    m.dirt.close();
    writeFileSync(device, Buffer.alloc(1 << 20));
    await m.next();
    assert.equal(m.dirt.logs(1).get(1)!.bits.count, 64);
  });
});
