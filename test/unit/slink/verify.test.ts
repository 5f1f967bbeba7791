import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { Mem } from '../../../src/base/mem.js';
import { KIB, MIB, SECTOR } from '../../../src/base/units.js';
import { SH } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import { Applier } from '../../../src/slink/applier.js';
import type { SiteCopy } from '../../../src/slink/contract.js';
import { Differences } from '../../../src/slink/differences.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { ImageSet, createImage } from '../../../src/slink/images.js';
import { Shipper } from '../../../src/slink/shipper.js';
import { CHUNK, Suspects } from '../../../src/slink/suspects.js';
import { LocalSource } from '../../../src/slink/local-source.js';
import { Throttle } from '../../../src/slink/throttle.js';
import { Verify, type VerifyOptions, type VerifyReport } from '../../../src/slink/verify.js';
import { Rng } from '../../support/sim-random.js';
import { LOG_ID, Rig, cleanUp, flip, poke, scratch } from '../replog/rig.js';
import { FaultIo, siteFolder } from './support.js';

const SIZE = 3 * MIB;
const DEVICE = { nr: 0, name: 'disk0', size: SIZE };

describe('Verify', () => {
  let rig: Rig;
  let file: string;
  let folder: string;
  let faults: FaultIo;
  let images: ImageSet;
  let applier: Applier;
  let shipper: Shipper;
  let site: FolderSite;
  let reads: number;
  let local: LocalSource;
  let reports: VerifyReport[];
  let verify: Verify | undefined;

  beforeEach(() => {
    rig = new Rig({ size: 32 * MIB });
    file = join(scratch(), 'disk0.img');
    folder = siteFolder();
    createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE });
    faults = new FaultIo(undefined, true);
    images = new ImageSet(faults.io, 'APPLY');
    images.open({ nr: 0, file, size: SIZE });
    images.sync();
    const { window, shared, clock, log } = rig;
    applier = new Applier(
      {
        ...{ window, shared, clock, log, images, reopen: () => undefined },
        events: { synced: () => undefined, localError: () => undefined, localHealed: () => undefined },
      },
      { synced: rig.log.super.checkpoint },
    );
    site = new FolderSite(realIo, clock, folder, { area: 512 * KIB, sparse: true });
    shipper = new Shipper(
      {
        ...{ window, shared, clock, log, site },
        events: { cursor: () => undefined, state: () => undefined, verify: (_id, report) => void reports.push(report) },
      },
      {
        ...{ identity: { logId: LOG_ID, group: 'default', nr: 1 }, devices: [DEVICE], rpoMs: 0 },
        ...{ cursor: { ...rig.log.super.checkpoint, reign: 0 }, fresh: true, place: 0 },
      },
    );
    reads = 0;
    reports = [];
    local = new LocalSource(faults.io, window, shared);
    local.use([{ nr: 0, path: file, size: SIZE }]);
    verify = undefined;
  });
  afterEach(() => {
    verify?.close();
    local.close();
    shipper.close();
    applier.close();
    images.close();
    cleanUp();
  });

  const siteImage = (): string => join(folder, 'disk0.img');

  /** The site's own way to its images; what is read is noted, and nothing may be written. */
  function watched(): SiteCopy {
    const never = (): number => assert.fail('a verify writes nothing');
    return {
      read(nr, offset, length, mem, at) {
        reads += length;
        return site.copy.read(nr, offset, length, mem, at);
      },
      nextData: (nr, offset, end) => site.copy.nextData!(nr, offset, end),
      ...{ write: never, zero: never, settle: never, whole: never },
    };
  }

  function begin(options: Partial<VerifyOptions> = {}): Verify {
    const { window, shared, clock } = rig;
    verify = new Verify(
      {
        ...{ window, shared, clock, local, told: (report) => void reports.push(report) },
        throttle: new Throttle(clock, window, shared, { rate: 0, latencyMs: 0 }),
        site: {
          copy: watched(),
          get unflushed() {
            return site.unflushed;
          },
          flush: () => site.flush(),
        },
      },
      { devices: [DEVICE], ...options },
    );
    return verify;
  }

  function write(offset: number, bytes: number, fill: number): void {
    rig.write(bytes, fill, offset);
  }

  function apply(): void {
    for (let i = 0; i < 50; i++) {
      applier.step();
      rig.clock.ms += 5;
    }
    assert.equal(applier.applied, rig.durable);
  }

  function ship(): void {
    for (let i = 0; i < 50 && shipper.step() <= 0; i++);
    assert.equal(shipper.cursor.seq, rig.durable);
  }

  function settle(): void {
    rig.settle();
    apply();
    ship();
    rig.window.storeSeq(W.HEAD, rig.durable);
  }

  /** What the shipper does with a batch, for a verify of the test's own. */
  function send(): void {
    const before = shipper.cursor.seq;
    const { window } = rig;
    for (let seq = before; seq < rig.durable; seq++) verify!.sent(window.mem, window.slotAt(seq) + 64, 1);
    ship();
  }

  /** Steps until nothing moves any more. */
  function run(): VerifyReport {
    for (let i = 0; i < 10_000; i++) {
      const ms = verify!.step(shipper.cursor.seq);
      assert.ok(ms >= 0, `the site failed with ${ms}`);
      if (ms === 0) continue;
      rig.clock.ms += 1;
      if (verify!.over || ms > 0) break;
    }
    return verify!.report;
  }

  /** The same, with applier and shipper at work and time going by. */
  function finish(): VerifyReport {
    for (let i = 0; i < 200 && !verify!.over; i++) {
      run();
      rig.settle();
      apply();
      send();
      rig.clock.ms += 1000;
    }
    assert.ok(verify!.over, 'it comes to its end');
    return verify!.report;
  }

  it('finds images that are equal to be equal, and looks at all of them', () => {
    write(0, 8192, 1);
    write(MIB, 4096, 2);
    settle();
    begin();
    const report = finish();
    assert.deepEqual(
      { ...report, rate: 0 },
      {
        ...{ state: 'done', reason: '', total: SIZE, compared: SIZE, rate: 0, suspected: 0 },
        ...{ different: 0, grain: SECTOR, ranges: [] },
      },
    );
  });

  for (const side of ['site', 'local'] as const)
    it(`! finds a single flipped bit of the ${side}'s image, and says which sector it is in`, () => {
      write(0, 64 * KIB, 1);
      settle();
      const at = 2 * MIB + 5 * SECTOR + 17;
      flip(side === 'site' ? siteImage() : file, at);
      begin();
      const { state, different, grain, ranges } = finish();
      assert.deepEqual(
        { state, different, grain, ranges },
        { state: 'done', different: 512, grain: 512, ranges: [{ device: 0, start: 2 * MIB + 5 * 512, length: 512 }] },
      );
    });

  it('reads no holes that both sides have', () => {
    write(2 * MIB, 4096, 3);
    settle();
    begin();
    finish();
    assert.ok(reads > 0 && reads <= MIB, `${reads} bytes were read of ${SIZE}`);
  });

  it('! writes that one side has and the other not yet are no difference', () => {
    settle();
    write(0, 64 * KIB, 1);
    rig.settle();
    apply();
    begin();
    // It waits for the site to have what there was at the beginning.
    run();
    assert.equal(reads, 0);
    ship();
    write(4096, 64 * KIB, 2);
    write(2 * MIB, 4096, 2);
    rig.settle();
    apply();
    const before = run();
    assert.equal(before.suspected, 64 * KIB + 4096);
    assert.equal(before.state, 'running');
    const { state, different } = finish();
    assert.deepEqual({ state, different }, { state: 'done', different: 0 });
  });

  it('! what the site has and the local images have not yet is no difference', () => {
    settle();
    begin();
    write(8192, 16 * KIB, 9);
    rig.settle();
    send();
    assert.ok(run().suspected > 0, 'they differ at the first look');
    const { different } = finish();
    assert.equal(different, 0);
  });

  it('! a sector that is written to meanwhile is left out, its neighbours are not', () => {
    write(0, 8192, 1);
    settle();
    poke(siteImage(), 0, Buffer.alloc(4096, 7));
    begin();
    assert.equal(run().suspected, 4096);
    write(2 * SECTOR, 3 * SECTOR, 5);
    const { different, ranges } = finish();
    assert.equal(different, 5 * SECTOR);
    assert.deepEqual(ranges, [
      { device: 0, start: 0, length: 1024 },
      { device: 0, start: 5 * SECTOR, length: 3 * SECTOR },
    ]);
    const [local, there] = [readFileSync(file), readFileSync(siteImage())];
    assert.ok(local.subarray(1024, 5 * 512).equals(there.subarray(1024, 5 * 512)), 'it was made equal by the write');
  });

  it('! a write that comes to one side during the second look is no difference', () => {
    settle();
    write(0, 4096, 1);
    rig.settle();
    apply();
    begin();
    ship();
    write(0, 4096, 2);
    rig.settle();
    apply();
    assert.equal(run().suspected, 4096);
    // Both have it before the second look; then one of them has something newer.
    verify!.sent(Mem.anon(4096), 0, 0);
    ship();
    write(0, 4096, 3);
    rig.settle();
    apply();
    assert.equal(run().suspected, 4096, 'it still differs at the second look');
    // The local images are synced long before the record is sent.
    rig.clock.ms += 2000;
    apply();
    assert.equal(rig.shared.load(SH.SYNCED), rig.durable);
    assert.equal(run().different, 0);
    const { different } = finish();
    assert.equal(different, 0);
  });

  it('! nothing is said to differ before the images were synced; a sync that fails means to look again', () => {
    write(0, 64 * KIB, 1);
    settle();
    write(MIB, 4096, 2);
    rig.settle();
    apply();
    // As if the kernel had given up the page: what was there before shows until the sync tells.
    poke(file, MIB, Buffer.alloc(4096));
    begin();
    send();
    assert.ok(rig.shared.load(SH.SYNCED) < rig.durable, 'not synced yet');
    assert.equal(run().different, 0);
    assert.equal(verify!.report.suspected, 4096);
    faults.rule = (call) => (call === 'APPLY:SYNC' ? { errno: ERRNO.EIO } : undefined);
    rig.clock.ms += 2000;
    applier.step();
    assert.equal(rig.window.load(W.DOUBT), 1);
    assert.equal(run().different, 0);
    faults.rule = undefined;
    const { state, different } = finish();
    assert.deepEqual({ state, different }, { state: 'done', different: 0 });
  });

  it('waits while nobody can trust the local images, and says why', () => {
    write(0, 4096, 1);
    settle();
    rig.window.store(W.AWAY, 1);
    begin();
    const report = run();
    assert.equal(report.state, 'waiting');
    assert.match(report.reason, /^slink 0 is detached/);
    rig.window.store(W.AWAY, 0);
    assert.equal(finish().state, 'done');
  });

  it('ends where a local image cannot be read', () => {
    write(0, 4096, 1);
    settle();
    faults.rule = (call) => (call === 'RESYNC:DIRECT' || call === 'RESYNC:READ' ? { errno: ERRNO.EIO } : undefined);
    begin();
    const { state, reason } = finish();
    assert.equal(state, 'failed');
    assert.match(reason, /disk0\.img: reading the local image failed: input\/output error \(EIO\)/);
  });

  for (const [pieces, pieceMs] of [
    ['large', 5],
    ['small', -1],
  ] as const)
    it(`! a site that differs everywhere is told in full, however few suspects it may keep, in ${pieces} pieces`, () => {
      settle();
      poke(siteImage(), 0, Buffer.alloc(SIZE, 1));
      begin({ mostSuspects: 1, pieceMs });
      const { different, ranges, grain } = finish();
      assert.deepEqual(
        { different, ranges, grain },
        { different: SIZE, ranges: [{ device: 0, start: 0, length: SIZE }], grain: 512 },
      );
    });

  it('tells how far it is, a few times a second', () => {
    settle();
    begin();
    finish();
    assert.deepEqual([reports[0]!.state, reports[0]!.compared], ['running', 0]);
    assert.equal(reports.at(-1)!.state, 'done');
  });

  it('ends early with what it has found', () => {
    settle();
    begin();
    verify!.end('stopped', 'by an operator');
    assert.deepEqual([reports.at(-1)!.state, reports.at(-1)!.reason], ['stopped', 'by an operator']);
    assert.equal(verify!.step(1), Infinity);
  });

  it('! under random writes, flips and delays: reports what was flipped and not written to since, and nothing else', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = new Rng(seed);
      settle();
      const flipped = new Set<number>();
      for (let i = random.below(6); i > 0; i--) {
        const sector = random.below(SIZE / SECTOR);
        if (flipped.has(sector)) continue;
        flipped.add(sector);
        flip(random.chance(0.5) ? file : siteImage(), sector * SECTOR + random.below(SECTOR));
      }
      const expected = new Set(flipped);
      verify?.close();
      begin({ mostSuspects: 1 + random.below(3), pieceMs: 0 });
      for (let i = 0; i < 400 && !verify!.over; i++) {
        switch (random.below(i < 60 ? 5 : 4)) {
          case 0:
            verify!.step(shipper.cursor.seq);
            break;
          case 1:
            for (let n = 0; n < 5; n++) applier.step();
            rig.clock.ms += 10;
            break;
          case 2:
            rig.settle();
            if (random.chance(0.7)) send();
            break;
          case 3:
            rig.clock.ms += random.below(1500);
            break;
          default: {
            const at = random.below(SIZE / SECTOR - 16);
            const sectors = 1 + random.below(16);
            write(at * SECTOR, sectors * SECTOR, random.below(256));
            for (let s = at; s < at + sectors; s++) expected.delete(s);
          }
        }
      }
      const { ranges, state } = finish();
      assert.equal(state, 'done');
      const told = new Set<number>();
      for (const { start, length } of ranges)
        for (let s = start / SECTOR; s < (start + length) / SECTOR; s++) told.add(s);
      for (const sector of told) assert.ok(flipped.has(sector), `seed ${seed}: sector ${sector} does not differ`);
      for (const sector of expected) assert.ok(told.has(sector), `seed ${seed}: sector ${sector} was not found`);
      // The next seed begins with images that are equal.
      for (const sector of flipped) write(sector * SECTOR, SECTOR, 0);
      settle();
    }
  });
});

describe('Differences', () => {
  it('joins ranges, and counts what differs exactly', () => {
    const d = new Differences([{ nr: 0, size: MIB }]);
    d.add(0, 512, 1024);
    d.add(0, 0, 512);
    d.add(0, 4096, 8192);
    assert.deepEqual([d.bytes, d.grain], [5120, 512]);
    assert.deepEqual(d.ranges, [
      { device: 0, start: 0, length: 1024 },
      { device: 0, start: 4096, length: 4096 },
    ]);
  });

  it('! grows coarser where there are too many ranges, and still holds all that differs', () => {
    const size = 10 * MIB + 512;
    const d = new Differences(
      [
        { nr: 0, size },
        { nr: 1, size },
      ],
      16,
    );
    const sectors = Array.from({ length: 100 }, (_, i) => i * 200);
    for (const s of sectors) d.add(s % 400 === 0 ? 0 : 1, s * 512, s * 512 + 512);
    d.add(0, size - 512, size);
    assert.equal(d.bytes, 101 * 512);
    const { ranges, grain } = d;
    assert.ok(ranges.length <= 16 && grain > 512, `${ranges.length} ranges of ${grain}`);
    const held = (device: number, at: number): boolean =>
      ranges.some((r) => r.device === device && r.start <= at && at + 512 <= r.start + r.length);
    for (const s of sectors) assert.ok(held(s % 400 === 0 ? 0 : 1, s * 512), `sector ${s}`);
    assert.ok(held(0, size - 512));
    for (const r of ranges) assert.ok(r.start + r.length <= size, 'no range reaches beyond its device');
  });
});

describe('Suspects', () => {
  it('a discard of everything crosses out what it covers, on its device only', () => {
    const suspects = new Suspects();
    suspects.mark(0, 0, 1);
    suspects.mark(0, 5 * CHUNK + 512, 2);
    suspects.mark(1, 5 * CHUNK, 3);
    const rig = new Rig();
    rig.appender.seal(2, 0, 512, 1000 * CHUNK, 0, 0);
    suspects.crossOut(rig.window.mem, rig.window.slotAt(1) + 64, 1);
    const left: string[] = [];
    for (let s = suspects.oldest(1); s !== undefined; s = suspects.oldest(1)) {
      s.forEach((start, end) => void left.push(`${s.device} ${start} ${end}`));
      suspects.drop(s);
    }
    assert.deepEqual(left, ['0 0 512', `1 ${5 * CHUNK} ${5 * CHUNK + 512}`]);
    cleanUp();
  });
});
