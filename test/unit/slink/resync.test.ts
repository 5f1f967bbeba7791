import assert from 'node:assert/strict';
import { renameSync, statSync } from 'node:fs';
import { ERRNO } from '../../../src/base/errors.js';
import { KIB, MIB, SECTOR } from '../../../src/base/units.js';
import { SH } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import type { SiteDevice } from '../../../src/slink/contract.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { ResyncRig, type ResyncRigOptions } from '../../support/resync-rig.js';
import { cleanUp } from '../replog/rig.js';
import { FaultIo, imagesOf, put, siteFolder } from './support.js';

const DISK: SiteDevice = { nr: 0, name: 'disk0', size: MIB };
const REGION = 64 * KIB;

describe('Resync', () => {
  let r: ResyncRig;
  const rigs: ResyncRig[] = [];

  function start(options: ResyncRigOptions = {}): ResyncRig {
    r = new ResyncRig({ devices: [DISK], ...options });
    rigs.push(r);
    return r;
  }

  afterEach(() => {
    for (const rig of rigs.splice(0)) rig.close();
    cleanUp();
  });

  /** All is written, durable, applied and shipped. */
  function settle(): void {
    for (let i = 0; i < 20; i++) {
      r.rig.settle();
      r.step(r.applier);
      r.moveHead();
      r.step(r.shipper, 20);
      r.rig.clock.ms += 5;
    }
  }

  /** A link in order, with something in every region; then out of the ring. */
  function inOrder(): void {
    for (let at = 0; at < MIB; at += REGION) r.write(at, REGION, 1 + at / REGION);
    settle();
    assert.equal(r.shipper.state, 'connected');
    assert.ok(r.site.content(0).equals(r.at(r.rig.appender.seq)));
  }

  function same(): void {
    assert.ok(r.site.content(0).equals(r.at(r.shipper.cursor.seq)), 'the site is history at its cursor');
  }

  it('copies what is dirty and nothing else, and says so region by region, then that the site is whole', () => {
    start();
    inOrder();
    r.shipper.pause();
    r.write(3 * REGION, 8192, 77);
    r.write(4 * REGION + 512, 512, 78);
    settle();
    const { written } = r.site.count;
    r.drop();
    assert.deepEqual([r.dirty, r.shipper.cursor.seq], [2, r.rig.durable]);
    // What nobody marked is nobody's business: a mark too few would show.
    r.site.put(0, 9 * REGION, Buffer.alloc(512, 99));
    r.shipper.resume();
    assert.ok(r.finish());
    assert.deepEqual(
      r.copied.map(({ device, first, regions, epoch }) => ({ device, first, regions, epoch })),
      [{ device: 0, first: 3, regions: 2, epoch: 1 }],
    );
    assert.equal(r.site.count.written - written, 8192 + 4096);
    assert.equal(r.site.count.writes, 2);
    const expect = r.at(r.shipper.cursor.seq).fill(99, 9 * REGION, 9 * REGION + 512);
    assert.ok(r.site.content(0).equals(expect));
    assert.deepEqual([r.site.inconsistent, r.inSync?.place.seq], [false, r.shipper.cursor.seq]);
    assert.deepEqual(r.states.slice(-3), ['connecting', 'resyncing', 'connected'].slice(-3));
  });

  it('with nothing dirty the site is whole as soon as main says that nothing is', () => {
    start();
    inOrder();
    r.shipper.resync(r.order());
    r.step(r.shipper, 5);
    assert.equal(r.shipper.state, 'resyncing');
    assert.equal(r.site.inconsistent, true);
    r.main();
    r.shipper.step();
    assert.deepEqual([r.site.inconsistent, r.shipper.state, r.site.count.read], [false, 'connected', 0]);
    assert.equal(r.inSync?.epoch, 1);
  });

  it('is not whole before the cursor has reached what main says', () => {
    start();
    inOrder();
    r.shipper.resync(r.order());
    r.step(r.shipper, 5);
    const seq = r.shipper.cursor.seq;
    r.shipper.whole(1, seq + 1);
    r.step(r.shipper, 5);
    assert.equal(r.inSync, undefined);
    r.write(0, 512, 9);
    settle();
    assert.equal(r.inSync!.place.seq, seq + 1);
    same();
  });

  it('! writes of applications into what is being copied: the site is history when it is whole', () => {
    const seeds = Number(process.env['REPTOOL_TEST_RESYNCS'] ?? 3);
    const from = Number(process.env['REPTOOL_SEED'] ?? 1);
    for (let seed = from; seed < from + seeds; seed++) interleave(seed);
  });

  /** One group through forty resyncs; every turn draws what happens next. */
  function interleave(seed: number): void {
    const random = rng(seed);
    const below = (n: number): number => Math.floor(random() * n);
    const devices = [DISK, { nr: 3, name: 'disk3', size: 256 * KIB + 512 * below(8) }].slice(0, 1 + below(2));
    start({ devices, direct: random() < 0.5, sparse: random() < 0.5, ship: { rpoMs: 0 } });
    let fill = 0;
    const change = (): void => {
      if (!r.room) return;
      const { nr, size } = devices[below(devices.length)]!;
      const sectors = size / SECTOR;
      const first = below(sectors);
      const count = Math.min(sectors - first, 1 + below(random() < 0.2 ? 128 : 12));
      if (random() < 0.1) r.clear(first * SECTOR, count * SECTOR, nr);
      else r.write(first * SECTOR, count * SECTOR, (fill = (fill % 250) + 1), nr);
    };
    const pages = new Pages(r);
    const turn = (): void => {
      const what = below(100);
      if (what < 30) change();
      else if (what < 45) r.rig.settle();
      else if (what < 60) r.applier.step();
      else if (what < 66) r.moveHead();
      else if (what < 85) r.shipper.step();
      else if (what < 92) r.main();
      else if (what < 95) r.rig.clock.ms += below(30);
      else if (what < 96) r.rig.shared.bump(SH.SYNC_ASK);
      else if (what < 97) pages.lose(random);
      else if (what < 98 && random() < 0.5) r.drop();
      else fault();
    };
    const fault = (): void => {
      let left = below(4);
      r.site.rule = (call) => {
        if (call === 'open' || left-- > 0) return undefined;
        r.site.rule = undefined;
        r.site.crash(() => random() < 0.5);
        return ERRNO.EIO;
      };
    };
    r.torn = () => {
      for (let n = below(6); n > 0; n--) {
        const what = below(4);
        if (what < 2) change();
        else if (what === 2) r.rig.settle();
        else r.applier.step();
      }
    };
    r.whole = ({ place }) => {
      for (const { nr } of devices)
        assert.ok(r.site.content(nr).equals(r.at(place.seq, nr)), `seed ${seed}: whole at ${place.seq}, and is not`);
    };
    for (let n = 0; n < 20; n++) change();
    settle();
    for (let round = 0; round < 40; round++) {
      if (round === 0 || random() < 0.15) r.orderAll();
      else {
        for (let n = below(40); n > 0; n--) change();
        r.rig.settle();
        r.drop();
      }
      for (let n = below(120); n > 0; n--) turn();
      r.site.rule = undefined;
      const torn: (() => void) | undefined = r.torn;
      r.torn = undefined;
      assert.ok(
        r.finish(),
        `seed ${seed}, round ${round}: not whole: ${r.shipper.state} ${r.shipper.reason}, ${r.dirty} dirty`,
      );
      r.torn = torn;
      for (const { nr } of devices)
        assert.ok(
          r.site.content(nr).equals(r.at(r.shipper.cursor.seq, nr)),
          `seed ${seed}, round ${round}: device ${nr} is not history at ${r.shipper.cursor.seq}`,
        );
    }
    rigs.splice(rigs.indexOf(r), 1);
    r.close();
    cleanUp();
  }

  it('! the same with a folder site, whose calls fail now and then', () => {
    for (let seed = 1; seed <= 2; seed++) {
      const folder = siteFolder();
      const faults = new FaultIo(undefined, true);
      const random = rng(seed);
      const below = (n: number): number => Math.floor(random() * n);
      start({
        sparse: true,
        other: (clock) =>
          new FolderSite(faults.io, clock, folder, { area: 512 * KIB, sparse: true, direct: seed === 1 }),
      });
      for (let n = 0, fill = 0; n < 20; n++) {
        const change = (): void => {
          if (r.room) r.write(below(1900) * SECTOR, (1 + below(100)) * SECTOR, (fill = (fill % 250) + 1));
        };
        // Not shipped: the site lacks it when the link is dropped.
        r.shipper.pause();
        for (let k = below(20); k >= 0; k--) change();
        settle();
        if (n % 5 === 0) r.orderAll();
        else r.drop();
        r.shipper.resume();
        r.torn = change;
        for (let k = below(60); k > 0; k--) {
          if (below(4) === 0) change();
          if (below(3) === 0) r.rig.settle();
          if (below(3) === 0) r.applier.step();
          if (below(30) === 0) faults.rule = () => (below(10) === 0 ? { errno: ERRNO.EIO } : undefined);
          r.moveHead();
          r.shipper.step();
          r.main();
          r.rig.clock.ms += 5;
        }
        faults.rule = undefined;
        r.torn = undefined;
        assert.ok(r.finish(), `seed ${seed}, round ${n}: ${r.shipper.state} ${r.shipper.reason}, ${r.dirty} dirty`);
        // It may have failed once more since: what was staged then is in the images when it is open.
        for (let k = 0; k < 100 && (r.shipper.state !== 'connected' || r.shipper.cursor.seq < r.rig.durable); k++)
          settle();
        assert.equal(r.shipper.cursor.seq, r.rig.appender.seq);
        const image = imagesOf(folder, [DISK]).get(0);
        assert.ok(image?.equals(r.at(r.shipper.cursor.seq)) === true, `seed ${seed}, round ${n}`);
      }
    }
  });

  it('! a read that is torn by the applier is whole when the records that follow are there, and not before', () => {
    start();
    inOrder();
    r.rig.shared.bump(SH.SYNC_ASK);
    settle();
    assert.equal(r.synced.seq, r.rig.durable);
    // Nothing is shipped but what somebody wants.
    r.shipper.configure(1_000_000, 0);
    let torn = 0;
    r.torn = () => {
      // Over the border between the two halves of the read, so that each shows another version.
      r.torn = undefined;
      r.write(MIB / 2 - 4096, 8192, 100);
      torn++;
      r.rig.settle();
      r.step(r.applier);
    };
    let whole = 0;
    r.whole = ({ place }) => {
      whole = place.seq;
      assert.ok(r.site.content(0).equals(r.at(place.seq)), 'it is history when it says so');
    };
    r.orderAll();
    assert.ok(r.finish());
    assert.deepEqual([torn, whole, r.copied[0]!.t2], [1, r.rig.durable, r.rig.durable]);
    same();
  });

  it('! copies again what the site had not settled when it failed', () => {
    start();
    inOrder();
    r.site.put(0, 0, Buffer.alloc(MIB, 0xee));
    r.orderAll();
    r.site.rule = (call) => (call === 'settle' ? ERRNO.EIO : undefined);
    for (let i = 0; i < 100 && r.shipper.state !== 'failed'; i++) {
      r.shipper.step();
      r.rig.clock.ms += 50;
    }
    assert.match(r.shipper.reason, /settle failed/);
    assert.ok(r.site.content(0).equals(r.at(r.rig.appender.seq)), 'all was copied');
    r.site.crash(() => false);
    assert.ok(r.site.content(0).equals(Buffer.alloc(MIB, 0xee)), 'and nothing of it stayed');
    assert.deepEqual(r.copied, []);
    r.site.rule = undefined;
    assert.ok(r.finish());
    same();
  });

  it('! a new epoch in the middle begins anew, and nothing is told of the old one', () => {
    start({ resyncRate: 512 * KIB });
    inOrder();
    r.site.put(0, 0, Buffer.alloc(MIB, 0xee));
    r.orderAll();
    r.step(r.shipper, 2);
    assert.ok(r.site.count.written > 0);
    r.site.crash(() => false);
    r.write(0, REGION, 50);
    r.rig.settle();
    r.drop();
    assert.ok(r.finish());
    assert.ok(r.copied.length > 0 && r.copied.every(({ epoch }) => epoch === 2));
    assert.equal(r.inSync?.epoch, 2);
    same();
    // An order that was overtaken changes nothing.
    r.shipper.resync({ ...r.order(), epoch: 1 });
    assert.equal(r.shipper.state, 'connected');
  });

  it('! does not use what was read when slink 0 came into doubt, or away, before it was written', () => {
    start();
    inOrder();
    const { window, shared } = r.rig;
    for (const [set, unset, why] of [
      [() => window.store(W.DOUBT, 1), () => window.store(W.DOUBT, 0), /a sync of the local images failed/],
      [() => window.store(W.AWAY, 1), () => window.store(W.AWAY, 0), /slink 0 is detached/],
      [() => window.store(W.SOURCE, -1), () => window.store(W.SOURCE, 0), /slink 0 is detached/],
      [() => shared.store(SH.LOCAL_ERROR, 5), () => shared.store(SH.LOCAL_ERROR, 0), /the local images fail: input/],
    ] as const) {
      r.site.put(0, 0, Buffer.alloc(MIB, 0xee));
      r.orderAll();
      const { written, zeroed } = r.site.count;
      r.torn = set;
      for (let i = 0; i < 10; i++) {
        r.shipper.step();
        r.rig.clock.ms += 100;
      }
      assert.deepEqual([r.site.count.written, r.site.count.zeroed], [written, zeroed]);
      assert.match(r.shipper.reason, why);
      assert.equal(r.shipper.state, 'resyncing');
      unset();
      r.torn = undefined;
      r.rig.clock.ms += 200;
      assert.ok(r.finish());
      assert.equal(r.shipper.reason, '');
      same();
    }
  });

  it('! copies again what a failed sync of slink 0 may have taken back since', () => {
    start();
    inOrder();
    r.rig.shared.bump(SH.SYNC_ASK);
    settle();
    r.write(0, REGION, 60);
    r.rig.settle();
    r.step(r.applier);
    // The kernel has failed to write the page and gives it up: until the sync says so, reads find what was there before.
    put(r.localOf(0), 0, Buffer.alloc(REGION, 1));
    r.bits.get(0)!.mark(0, 128);
    r.shipper.resync(r.order({ at: r.end() }));
    for (let i = 0; i < 30; i++) {
      r.shipper.step();
      r.main();
      r.rig.clock.ms += 100;
    }
    assert.deepEqual([r.copied.length, r.dirty], [1, 1], 'main waits for the sync');
    r.applyIo.rule = (call) => (call === 'APPLY:SYNC' ? { errno: ERRNO.EIO } : undefined);
    r.rig.shared.bump(SH.SYNC_ASK);
    r.step(r.applier);
    r.applyIo.rule = undefined;
    r.rig.clock.ms += 1000;
    r.step(r.applier);
    assert.equal(r.synced.seq, r.rig.durable, 'all was written again and synced');
    assert.ok(r.finish());
    assert.equal(r.copied.length, 2);
    same();
  });

  it('! ships nothing that slink 0 lacks while it copies, and copies although there is always more to ship', () => {
    start({ resyncRate: 512 * KIB });
    inOrder();
    r.orderAll();
    r.step(r.shipper, 1);
    const done = (): number => r.copied.reduce((sum, { regions }) => sum + regions, 0);
    let shipped = 0;
    for (let i = 0; done() < 16; i++) {
      assert.ok(i < 2000, 'it comes to copy');
      // Records that became durable together are applied apart: APPLIED stands within a batch of the log.
      for (let n = 0; n < 5; n++) r.write(((i * 5 + n) % 256) * 4096, 4096, 1 + (i % 200));
      r.rig.settle();
      const before = r.shipper.cursor.seq;
      r.shipper.step();
      const applied = r.rig.window.seqOf(W.APPLIED, r.rig.durable);
      if (done() < 16) assert.ok(r.shipper.cursor.seq <= applied, `${r.shipper.cursor.seq} of ${applied}`);
      shipped += r.shipper.cursor.seq - before;
      r.step(r.applier, i % 3 === 0 ? 1 : 0);
      r.moveHead();
      r.main();
      r.rig.clock.ms += 20;
      if (i % 10 === 9) r.rig.shared.bump(SH.SYNC_ASK);
    }
    assert.ok(shipped > 100, `and ${shipped} records were shipped beside`);
    assert.ok(r.finish());
    same();
  });

  it('! while slink 0 is away nothing is copied, and records are shipped as they become durable', () => {
    start();
    inOrder();
    r.orderAll();
    r.rig.window.store(W.SOURCE, 7);
    r.write(0, 4096, 5);
    r.rig.settle();
    r.step(r.shipper, 10);
    assert.equal(r.shipper.cursor.seq, r.rig.durable);
    assert.match(r.shipper.reason, /slink 0 is detached/);
    r.rig.window.store(W.SOURCE, 0);
    r.rig.clock.ms += 200;
    assert.ok(r.finish());
    same();
  });

  it('a pause is heard between two pieces, and what is not settled waits; close leaves a site that goes on later', () => {
    start({ devices: [{ ...DISK, size: 64 * MIB }], regionSectors: 8192, sparse: true });
    r.write(0, 4096, 1);
    put(r.localOf(0), MIB, Buffer.alloc(63 * MIB, 3));
    settle();
    r.site.put(0, 0, Buffer.alloc(16 * MIB, 0xee));
    r.orderAll();
    r.step(r.shipper, 2);
    const { written } = r.site.count;
    assert.ok(written > 0 && written < 32 * MIB, `${written}`);
    assert.equal(r.shipper.heeds, true);
    r.shipper.pause();
    r.rig.clock.ms += 5000;
    r.step(r.shipper, 10);
    assert.equal(r.shipper.state, 'paused');
    assert.equal(r.site.count.written, written);
    r.shipper.resume();
    assert.equal(r.shipper.state, 'resyncing');
    r.step(r.shipper, 2);
    r.shipper.close();
    assert.equal(r.site.inconsistent, true);
  });

  it('waits for a device whose image is not there, here or at the site, and passes over one that left', () => {
    const second = { nr: 1, name: 'disk1', size: 256 * KIB };
    start({ devices: [DISK, second] });
    inOrder();
    r.write(0, REGION, 9, 1);
    settle();
    renameSync(r.localOf(0), `${r.localOf(0)}.gone`);
    r.orderAll();
    for (let i = 0; i < 100; i++) {
      r.shipper.step();
      r.rig.clock.ms += 50;
    }
    assert.match(r.shipper.reason, /disk0\.img: the local image is not there/);
    assert.deepEqual([...new Set(r.copied.map(({ device }) => device))], [1], 'the other one is done meanwhile');
    renameSync(`${r.localOf(0)}.gone`, r.localOf(0));
    assert.ok(r.finish());
    same();

    r.bits.get(1)!.fill();
    r.shipper.resync(r.order());
    r.site.devices.delete(1);
    for (let i = 0; i < 10; i++) {
      r.shipper.step();
      r.rig.clock.ms += 50;
    }
    assert.match(r.shipper.reason, /device 1 is not at the site/);
    for (let region = 0; region < 4; region++) r.bits.get(1)!.clear(region);
    assert.ok(r.finish());
    r.site.devices.set(1, second);
  });

  it('zeroes become holes, and holes on both sides are not read', () => {
    start({ devices: [{ ...DISK, size: 8 * MIB }], sparse: true });
    r.write(0, 64 * KIB, 1);
    settle();
    r.site.put(0, 4 * MIB, Buffer.alloc(MIB, 5));
    r.orderAll();
    assert.ok(r.finish());
    same();
    assert.ok(r.site.count.zeroed >= MIB && r.site.count.zeroed <= 4 * MIB, `${r.site.count.zeroed}`);
    assert.ok(r.site.count.read <= 4 * MIB, `${r.site.count.read}`);
    assert.ok(statSync(r.site.fileOf(0)).blocks * 512 < MIB);
  });

  it('a site that cannot tell its holes is read, and only written where it is not zero', () => {
    start({ devices: [{ ...DISK, size: 8 * MIB }], sparse: true });
    r.write(0, 64 * KIB, 1);
    settle();
    r.site.blind = true;
    r.site.put(0, 5 * MIB, Buffer.alloc(512, 5));
    r.orderAll();
    assert.ok(r.finish());
    same();
    assert.ok(r.site.count.zeroed > 0 && r.site.count.zeroed <= 4 * MIB, `${r.site.count.zeroed}`);
  });

  it('! 64 GiB of nothing on both sides are equal in no time', () => {
    start({ devices: [{ ...DISK, size: 64 * 1024 * MIB }], regionSectors: 8192, sparse: true });
    r.orderAll();
    const began = performance.now();
    assert.ok(r.finish());
    const took = performance.now() - began;
    assert.ok(took < 5000, `${took} ms`);
    assert.deepEqual([r.site.count.read, r.site.count.written, r.site.count.zeroed], [0, 0, 0]);
    assert.equal(
      r.copied.reduce((sum, { regions }) => sum + regions, 0),
      16384,
    );
  });

  describe('opening the site', () => {
    function failed(): void {
      for (let i = 0; i < 100 && r.shipper.state !== 'failed'; i++) {
        r.rig.settle();
        r.step(r.applier);
        r.shipper.step();
        r.main();
        r.rig.clock.ms += 50;
      }
      assert.equal(r.shipper.state, 'failed');
    }

    it('! an order that begins anew is no leave to make a site that has been: its disk may not be mounted', () => {
      start();
      inOrder();
      r.orderAll();
      r.step(r.shipper, 1);
      const how = r.site.opens[r.site.opens.length - 1];
      assert.deepEqual([how?.resync?.anew, how?.create], [true, undefined]);
    });

    it('once the site was open in an epoch it goes on from its own place, also where the order began anew', () => {
      start();
      inOrder();
      r.orderAll();
      r.step(r.shipper, 1);
      assert.equal(r.site.opens[r.site.opens.length - 1]?.resync?.anew, true);
      r.write(0, 512, 3);
      r.site.rule = (call) => (call === 'settle' ? ERRNO.EIO : undefined);
      failed();
      const { seq } = r.shipper.cursor;
      r.site.rule = undefined;
      r.rig.clock.ms += 50;
      r.step(r.shipper, 1);
      const how = r.site.opens[r.site.opens.length - 1];
      assert.deepEqual([how?.resync?.anew, how?.create], [false, undefined]);
      assert.equal(r.shipper.cursor.seq, seq);
      assert.ok(r.finish());
      same();
    });

    it('! one that was rolled back behind what it confirmed in this epoch is not gone on with', () => {
      start();
      inOrder();
      const old = { cursor: { ...r.site.stamp!.cursor } };
      r.bits.get(0)!.mark(0, 128);
      r.shipper.resync(r.order());
      settle();
      r.write(MIB - 512, 512, 3);
      settle();
      r.site.rule = (call) => (call === 'whole' ? ERRNO.EIO : undefined);
      r.rig.shared.bump(SH.SYNC_ASK);
      failed();
      r.site.rule = undefined;
      Object.assign(r.site.stamp!, { cursor: old.cursor });
      r.rig.clock.ms += 50;
      r.step(r.shipper, 3);
      assert.match(r.shipper.reason, /was rolled back: it had confirmed/);
    });

    it('! one of another history is refused, and begun anew only where everything is dirty', () => {
      start();
      inOrder();
      Object.assign(r.site.stamp!, { cursor: { ...r.site.stamp!.cursor, chainLo: 1, seq: r.shipper.cursor.seq } });
      r.bits.get(0)!.mark(0, 128);
      r.shipper.resync(r.order());
      r.step(r.shipper, 2);
      assert.match(r.shipper.reason, /belongs to another history/);
      for (const bits of r.bits.values()) bits.fill();
      r.shipper.resync(r.order());
      assert.ok(r.finish());
      same();
    });

    it('is not read from by others while it is inconsistent', () => {
      start();
      inOrder();
      const images = (): number => r.rig.shared.load(SH.IMAGES);
      assert.equal(images() & 1, 1);
      r.bits.get(0)!.mark(0, 128);
      r.shipper.resync(r.order());
      r.step(r.shipper, 5);
      r.write(0, 512, 3);
      settle();
      assert.equal(images() & 1, 0);
      assert.ok(r.finish());
      assert.equal(images() & 1, 1);
      assert.equal(r.rig.shared.heldSeq(0, r.rig.durable), r.shipper.cursor.seq);
    });
  });
});

/** Pages of slink 0's images that the kernel gives up because it cannot write them. */
class Pages {
  private readonly r: ResyncRig;
  constructor(r: ResyncRig) {
    this.r = r;
  }

  /** What was not synced of some sectors is gone, and the next sync says so. */
  lose(random: () => number): void {
    const { r } = this;
    const unsynced = r.history.filter(({ seq }) => seq >= r.synced.seq && seq < r.rig.window.seqOf(W.APPLIED, seq));
    if (unsynced.length === 0 || r.applyIo.rule !== undefined) return;
    for (const { device, offset, length } of unsynced) {
      if (random() < 0.5) continue;
      const old = r.at(r.synced.seq, device);
      put(r.localOf(device), offset, old.subarray(offset, offset + length));
    }
    r.applyIo.rule = (call) => {
      if (call !== 'APPLY:SYNC') return undefined;
      r.applyIo.rule = undefined;
      return { errno: ERRNO.EIO };
    };
  }
}

function rng(seed: number): () => number {
  let a = (seed * 0x9e3779b1) | 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
