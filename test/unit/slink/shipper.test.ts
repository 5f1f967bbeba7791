import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { getU64 } from '../../../src/base/codec.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { encodeDeviceAdd } from '../../../src/replog/device-records.js';
import { REC, R_TIME } from '../../../src/replog/format.js';
import { SH, SHF } from '../../../src/replog/shared.js';
import { S_RECORD, W } from '../../../src/replog/window.js';
import type { Site, SiteCursor, SiteDevice, SiteOpened } from '../../../src/slink/contract.js';
import { DiskLegs } from '../../../src/slink/disk-legs.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { RawSite } from '../../../src/slink/raw-site.js';
import { Shipper, type ShipperOptions } from '../../../src/slink/shipper.js';
import { LOG_ID, Rig, cleanUp } from '../replog/rig.js';
import { FaultIo, imagesOf, siteFolder } from './support.js';

const BIG: SiteDevice = { nr: 0, name: 'disk0', size: MIB };

describe('Shipper', () => {
  let rig: Rig;
  let folder: string;
  let faults: FaultIo;
  let shipper: Shipper;
  let shippers: Shipper[];
  let cursors: SiteCursor[];
  let states: string[];
  let expect: Buffer;
  let rests: number;

  beforeEach(() => {
    rig = new Rig({ size: 32 * MIB });
    folder = siteFolder();
    faults = new FaultIo(undefined, true);
    shippers = [];
    rests = 0;
    cursors = [];
    states = [];
    expect = Buffer.alloc(BIG.size);
  });
  afterEach(() => {
    for (const s of shippers) s.close();
    cleanUp();
  });

  function start(options: Partial<ShipperOptions> = {}, site?: Site): Shipper {
    const { window, shared, clock, log } = rig;
    shipper = new Shipper(
      {
        ...{ window, shared, clock, log },
        site: site ?? new FolderSite(faults.io, clock, folder, { area: 512 * KIB, sparse: true }),
        events: {
          cursor: (place) => void cursors.push(place),
          rests: () => void rests++,
          state: (state, reason) => void states.push(reason === '' ? state : `${state}: ${reason}`),
        },
      },
      {
        identity: { logId: LOG_ID, group: 'default', nr: 1 },
        devices: [BIG],
        cursor: { ...rig.log.super.checkpoint, reign: 0 },
        fresh: true,
        place: 0,
        ...options,
      },
    );
    shippers.push(shipper);
    return shipper;
  }

  /** The same link in a new process, with what the index knows. */
  function restart(cursor: SiteCursor = cursors[cursors.length - 1]!, options: Partial<ShipperOptions> = {}): Shipper {
    shipper.close();
    shippers.pop();
    return start({ cursor, fresh: false, ...options });
  }

  function write(offset: number, bytes: number, fill: number): void {
    rig.write(bytes, fill, offset);
    expect.fill(fill, offset, offset + bytes);
  }

  function run(): number {
    for (let i = 0; i < 1000; i++) {
      const ms = shipper.step();
      if (ms > 0) return ms;
    }
    return assert.fail('the shipper does not come to rest');
  }

  /** All is durable and shipped. */
  function settle(): void {
    rig.settle();
    run();
    rig.clock.ms += 100;
    run();
  }

  /** The window is empty: what is to be shipped stands in the log only. */
  function forget(): void {
    const { window } = rig;
    window.storeSeq(W.APPLIED, rig.durable);
    window.storeSeq(W.HEAD, rig.durable);
  }

  function check(): void {
    assert.ok(imagesOf(folder).get(0)?.equals(expect) === true, 'the image is what was written');
    assert.equal(shipper.cursor.seq, rig.durable);
    assert.equal(shipper.lagBytes, 0);
    assert.equal(shipper.lagSeconds, 0);
  }

  it('ships what is durable, out of the window, and tells the cursor', () => {
    start();
    write(0, 8192, 1);
    write(4096, 512, 2);
    settle();
    check();
    assert.deepEqual(states, ['connected']);
    assert.equal(cursors[cursors.length - 1]?.seq, rig.durable);
    assert.deepEqual({ ...rig.window.placeBefore(rig.durable), reign: 1 }, cursors[cursors.length - 1]);
  });

  describe('the open window of a site without a journal', () => {
    let site: RawSite;

    /** A first batch is confirmed, and while it was on its way more became durable. */
    function oneOfTwo(): void {
      const leg = join(folder, 'leg');
      writeFileSync(leg, Buffer.alloc(BIG.size));
      const legs = new DiskLegs(faults.io, { [BIG.name]: leg });
      site = new RawSite(faults.io, rig.clock, { type: 'blockdev', legs, stamp: join(folder, 'stamp'), wipe: '' });
      start({ rpoMs: 0 }, site);
      settle();
      write(0, 4096, 1);
      rig.settle();
      const first = rig.durable;
      faults.rule = (call) => {
        if (call !== 'SITE:SYNC' || rig.durable !== first) return undefined;
        write(4096, 4096, 2);
        rig.settle();
        return undefined;
      };
      while (shipper.cursor.seq < first) shipper.step();
      assert.equal(shipper.cursor.seq, first);
      assert.ok(rig.durable > first, 'there is more to send');
    }

    /** As status puts it together. */
    function shown(): { from: number; to: number } | null {
      const from = rig.shared.linkSeq(0, rig.durable);
      const to = rig.shared.floatView[SHF.SENT]!;
      return to > from ? { from, to } : null;
    }

    it('! shows as it is when the site fails, however soon after the batch before', () => {
      oneOfTwo();
      const from = shipper.cursor.seq;
      faults.rule = (call) => (call === 'SITE:SYNC' ? { errno: ERRNO.EIO } : undefined);
      run();
      assert.equal(shipper.state, 'failed');
      assert.deepEqual([site.window?.from, site.window?.to], [from, rig.durable]);
      assert.deepEqual(shown(), { from, to: rig.durable });
    });

    it('! shows before a byte is sent', () => {
      oneOfTwo();
      const seen: unknown[] = [];
      faults.rule = (call) => {
        if (call === 'SITE:WRITE') seen.push(shown());
        return undefined;
      };
      const from = shipper.cursor.seq;
      run();
      assert.deepEqual(seen[0], { from, to: rig.durable });
      assert.equal(shown(), null);
    });

    it('! does not show behind a batch that was confirmed, where the link is paused before the next one', () => {
      oneOfTwo();
      shipper.pause();
      run();
      assert.equal(site.window, null);
      assert.equal(shown(), null);
    });
  });

  it('! never sends what is not durable here', () => {
    start();
    settle();
    write(0, 4096, 1);
    rig.clock.ms += 10_000;
    run();
    assert.ok(imagesOf(folder).get(0)!.equals(Buffer.alloc(BIG.size)));
    assert.equal(shipper.cursor.seq, 1);
  });

  it('ships out of the log what has left the window', () => {
    start();
    for (let i = 0; i < 20; i++) {
      for (let k = 0; k < 8; k++) write(((i * 8 + k) % 16) * 65536, 65536, 1 + ((i * 8 + k) % 250));
      rig.settle();
      forget();
    }
    settle();
    check();
    assert.ok(states.includes('behind') && states[states.length - 1] === 'connected', states.join());
  });

  it('! goes to the log where HEAD passes the records while they are copied', () => {
    start();
    settle();
    write(0, 65536, 1);
    rig.settle();
    // The data thread comes round between the copy and the look at HEAD: the payload is another one by then.
    const { window } = rig;
    const real = window.mem.u8;
    let raced = false;
    const copy = real.copy.bind(real);
    real.copy = (...args: Parameters<typeof copy>) => {
      const n = copy(...args);
      if (!raced) {
        raced = true;
        forget();
        rig.window.u8.fill(0xee, rig.window.ringAt, rig.window.ringAt + 65536);
      }
      return n;
    };
    rig.shared.bump(SH.SYNC_ASK);
    run();
    real.copy = copy;
    assert.equal(raced, true);
    assert.ok(imagesOf(folder).get(0)!.equals(expect));
  });

  it('gives its buffers back when nothing has come for a second, once, and goes on with new ones', () => {
    start({ rpoMs: 0 });
    settle();
    run();
    assert.equal(rests, 1, 'what opening took');
    write(0, 4096, 1);
    rig.settle();
    run();
    rig.clock.ms += 900;
    run();
    assert.equal(rests, 1, 'not yet');
    rig.clock.ms += 200;
    run();
    rig.clock.ms += 5000;
    run();
    assert.equal(rests, 2);
    write(4096, 8192, 2);
    settle();
    check();
  });

  it('with much to send waits for its turn while eight others have theirs; a little goes at once', () => {
    rig = new Rig({ size: 64 * MIB, ring: 16 * MIB });
    start({ rpoMs: 0 });
    settle();
    const { floatView } = rig.shared;
    for (let place = 1; place <= 8; place++) floatView[SHF.LARGE + place] = rig.clock.ms;
    write(0, 4096, 1);
    rig.settle();
    run();
    check();
    for (let i = 0; i < 3; i++) write(i * 256 * KIB, 512 * KIB, 2 + i);
    rig.settle();
    const from = shipper.cursor.seq;
    const wait = run();
    assert.ok(wait > 0 && wait <= 20, `asks again after ${wait} ms`);
    assert.equal(shipper.cursor.seq, from);
    assert.equal(floatView[SHF.LARGE], -1, 'and says that it waits');
    floatView[SHF.LARGE + 3] = 0;
    run();
    check();
    assert.equal(floatView[SHF.LARGE], rig.clock.ms);
  });

  it('keeps large buffers while nobody else waits for them, gives them up behind a batch where somebody does', () => {
    rig = new Rig({ size: 64 * MIB, ring: 16 * MIB });
    start({ rpoMs: 0 });
    settle();
    const { floatView } = rig.shared;
    const burst = (fill: number): void => {
      for (let i = 0; i < 3; i++) write(i * 256 * KIB, 512 * KIB, fill + i);
      rig.settle();
      run();
      check();
    };
    burst(1);
    assert.ok(floatView[SHF.LARGE]! > 0);
    floatView[SHF.LARGE + 9] = -1;
    burst(10);
    assert.equal(floatView[SHF.LARGE], 0);
  });

  it('who hangs in a call to its site takes no turn from others, and who is waited for needs none', () => {
    rig = new Rig({ size: 64 * MIB, ring: 16 * MIB });
    start({ rpoMs: 0 });
    settle();
    const { floatView } = rig.shared;
    const held = (at: number): void => {
      for (let place = 1; place <= 8; place++) floatView[SHF.LARGE + place] = at;
      for (let i = 0; i < 3; i++) write(i * 256 * KIB, 512 * KIB, 1 + i);
      rig.settle();
    };
    held(rig.clock.ms);
    run();
    assert.notEqual(shipper.cursor.seq, rig.durable);
    rig.clock.ms += 2000;
    run();
    check();
    rig.clock.ms += 2000;
    run();
    held(rig.clock.ms);
    run();
    assert.notEqual(shipper.cursor.seq, rig.durable);
    floatView[SHF.WANTED] = rig.durable;
    run();
    check();
  });

  it('an async site waits for a larger batch no longer than its RPO, and not when asked to hurry', () => {
    start({ rpoMs: 100 });
    settle();
    write(0, 4096, 1);
    rig.settle();
    const wait = run();
    assert.ok(wait > 0 && wait <= 100);
    assert.equal(shipper.idle, true, 'it may sleep meanwhile');
    rig.clock.ms += 60;
    assert.ok(run() <= 40);
    assert.equal(shipper.cursor.seq, 1);
    rig.shared.bump(SH.SYNC_ASK);
    assert.equal(shipper.idle, false);
    run();
    assert.equal(shipper.cursor.seq, 2);
    check();
  });

  it('puts a busy group off where it may, and ends that for whoever asks, also for what is not durable yet', () => {
    rig = new Rig({ size: 64 * MIB, ring: 16 * MIB });
    start({ rpoMs: 100, defer: { ms: 10_000, share: 0.5 } });
    settle();
    const from = shipper.cursor.seq;
    const load = (): void => {
      for (let i = 0; i < 9; i++) write((i % 2) * 512 * KIB, 512 * KIB, i + 1);
      rig.settle();
      forget();
      run();
    };
    load();
    rig.clock.ms += 100;
    load();
    rig.clock.ms += 100;
    assert.equal(shipper.cursor.seq, from, 'two RPOs have passed');
    assert.equal(shipper.dozes, true);
    assert.ok(shipper.lagBytes > 8 * MIB, 'and it does not hide that');
    write(0, 4096, 200);
    rig.shared.bump(SH.SYNC_ASK);
    run();
    assert.equal(shipper.dozes, false);
    rig.settle();
    run();
    check();
  });

  it('a full batch does not wait', () => {
    rig = new Rig({ size: 64 * MIB, ring: 16 * MIB });
    start({ rpoMs: 1_000_000 });
    settle();
    for (let i = 0; i < 9; i++) write((i % 2) * 512 * KIB, 512 * KIB, i + 1);
    rig.settle();
    run();
    assert.ok(shipper.cursor.seq > 1);
  });

  it('tells the cursor at most every 50 ms, and so long after data cease at the latest', () => {
    start({ rpoMs: 0 });
    run();
    rig.clock.ms += 50;
    cursors.length = 0;
    const began = rig.clock.ms;
    // Each comes to rest before the next: one writer under a sync site.
    for (let i = 0; i < 20; i++) {
      write(i * 4096, 4096, i + 1);
      rig.settle();
      run();
      rig.clock.ms += 10;
    }
    const most = (rig.clock.ms - began) / 50 + 1;
    assert.ok(cursors.length > 1 && cursors.length <= most, `${cursors.length} in ${rig.clock.ms - began} ms`);
    rig.clock.ms += 50;
    run();
    assert.equal(cursors[cursors.length - 1]?.seq, rig.durable);
    check();
  });

  it('settles an idle site after a second', () => {
    start();
    write(0, 4096, 1);
    settle();
    const flushes = (): number => faults.names.filter((name) => name === 'SITE:STAMP').length;
    const before = flushes();
    rig.clock.ms += 1000;
    run();
    assert.equal(flushes(), before + 1);
  });

  it('pause sends nothing, resume goes on where it was', () => {
    start();
    settle();
    shipper.pause();
    write(0, 4096, 1);
    settle();
    assert.equal(shipper.cursor.seq, 1);
    assert.ok(shipper.lagBytes > 0);
    rig.clock.us += 5_000_000;
    assert.ok(shipper.lagSeconds >= 4.9, `${shipper.lagSeconds}`);
    shipper.resume();
    settle();
    check();
    assert.deepEqual(states, ['connected', 'paused', 'connected']);
  });

  it('! a site that fails is probed and goes on where it confirmed', () => {
    start();
    write(0, 4096, 1);
    settle();
    faults.rule = (call) => (call === 'SITE:STAGE' ? { errno: ERRNO.EIO } : undefined);
    write(4096, 4096, 2);
    settle();
    assert.equal(shipper.state, 'failed');
    assert.match(shipper.reason, /staging a batch failed: input\/output error/);
    rig.clock.ms += 14_000;
    run();
    faults.rule = undefined;
    run();
    assert.equal(shipper.state, 'failed', 'not before its time');
    rig.clock.ms += 1000;
    settle();
    check();
    assert.equal(shipper.state, 'connected');
  });

  it('! a folder that vanishes is noticed by the probe and resumed when it is back', () => {
    start();
    write(0, 4096, 1);
    settle();
    renameSync(folder, `${folder}.gone`);
    rig.clock.ms += 15_000;
    run();
    assert.equal(shipper.state, 'failed');
    rig.clock.ms += 15_000;
    run();
    assert.match(shipper.reason, /cannot be reached/);
    renameSync(`${folder}.gone`, folder);
    shipper.retry();
    write(512, 512, 3);
    settle();
    check();
  });

  describe('where a site may go on', () => {
    /** Ships some, and leaves the link closed. */
    function shipped(): SiteCursor {
      start();
      write(0, 4096, 1);
      settle();
      write(4096, 4096, 2);
      settle();
      return cursors[cursors.length - 1]!;
    }

    function failsWith(pattern: RegExp): void {
      run();
      assert.equal(shipper.state, 'failed');
      assert.match(shipper.reason, pattern);
    }

    it('at its own cursor, ahead of the index', () => {
      shipped();
      restart(cursors[0]);
      settle();
      check();
    });

    it('ahead of the index with the records gone from the window: the log proves it', () => {
      shipped();
      shipper.close();
      shippers.pop();
      write(8192, 4096, 3);
      rig.settle();
      forget();
      start({ cursor: cursors[0]!, fresh: false });
      settle();
      check();
    });

    it('! ahead of the index, where its last record leaves the window while it is opened', () => {
      shipped();
      shipper.close();
      shippers.pop();
      const { open } = FolderSite.prototype;
      FolderSite.prototype.open = function (this: FolderSite, how): SiteOpened {
        const opened = open.call(this, how);
        write(8192, 4096, 3);
        rig.settle();
        forget();
        return opened;
      };
      try {
        start({ cursor: cursors[0]!, fresh: false });
        shipper.step();
      } finally {
        FolderSite.prototype.open = open;
      }
      assert.equal(shipper.state, 'connected', shipper.reason);
      settle();
      check();
    });

    it('! not behind what it had confirmed: it was rolled back', () => {
      const cursor = shipped();
      const seq = cursor.seq + 1;
      restart({ ...cursor, seq });
      failsWith(/site 1: was rolled back: it had confirmed record 3 and now ends at 2/);
    });

    it('! not ahead of the log: it belongs to another history', () => {
      shipped();
      shipper.close();
      shippers.pop();
      rig = new Rig({ size: 32 * MIB });
      start({ fresh: false });
      failsWith(/site 1: belongs to another history: it holds records up to 2, this log ends at 0/);
    });

    it('! not where the log has another record of the same number', () => {
      shipped();
      shipper.close();
      shippers.pop();
      rig = new Rig({ size: 32 * MIB });
      for (let i = 0; i < 5; i++) write(i * 512, 512, 99);
      rig.settle();
      start({ fresh: false });
      failsWith(/belongs to another history: record 2 is not the one in this log/);
      forget();
      shipper.retry();
      failsWith(/belongs to another history: record 2/);
    });

    it('! and is not made anew once it existed', () => {
      const cursor = shipped();
      rmSync(folder, { recursive: true });
      mkdirSync(folder);
      restart(cursor);
      failsWith(/holds no reptool\.stage/);
    });
  });

  it('makes the image of a device that is added while it runs', () => {
    start();
    settle();
    const added = { nr: 5, name: 'extra', size: 64 * KIB };
    rig.appender.appendControl(REC.DEVICE_ADD, 5, encodeDeviceAdd(added));
    rig.write(4096, 7, 0, 5);
    settle();
    assert.equal(imagesOf(folder, [added]).get(5)?.[4095], 7);
    assert.equal(shipper.state, 'connected');
    assert.equal(shipper.cursor.seq, rig.durable);
  });

  it('says which device the log writes to without a record of its coming', () => {
    start();
    settle();
    rig.write(4096, 7, 0, 5);
    settle();
    assert.equal(shipper.state, 'failed');
    assert.match(shipper.reason, /writes to device 5, and no record of its coming; resync the site/);
  });

  it('says so where the log is damaged before what it needs', () => {
    start();
    settle();
    write(0, 4096, 1);
    rig.settle();
    forget();
    writeFileSync(join(folder, 'other'), '');
    const reader = rig.log.read.bind(rig.log);
    rig.log.read = () => -ERRNO.EIO;
    rig.shared.bump(SH.SYNC_ASK);
    run();
    assert.match(shipper.reason, /the log cannot be read at position 0: input\/output error \(EIO\)/);
    rig.log.read = reader;
    shipper.retry();
    settle();
    check();
  });

  it('! ships at once what somebody waits for, and says what is confirmed', () => {
    start({ rpoMs: 100, place: 5 });
    const { shared } = rig;
    shipper.step();
    const first = rig.appender.seq;
    assert.equal(shared.linkSeq(5, first), first);
    write(0, 4096, 1);
    rig.settle();
    shipper.step();
    assert.equal(shared.linkSeq(5, first), first, 'gathers');
    shared.floatView[SHF.WANTED + 5] = first + 1;
    shipper.step();
    assert.equal(shared.linkSeq(5, first), first + 1);
    assert.equal(shared.floatView[SHF.BYTES + 5], rig.appender.payloadPos);
  });

  it('rings the committer only where somebody waits', () => {
    start({ rpoMs: 0, place: 5 });
    shipper.step();
    const rung = (): number => {
      rig.shared.store(SH.BELL_COMMIT + 1, 1);
      const before = rig.shared.load(SH.BELL_COMMIT);
      shipper.step();
      return rig.shared.load(SH.BELL_COMMIT) - before;
    };
    write(0, 4096, 1);
    rig.settle();
    assert.equal(rung(), 0);
    write(0, 4096, 2);
    rig.settle();
    rig.shared.floatView[SHF.WANTED + 5] = rig.appender.seq;
    assert.equal(rung(), 1);
  });

  it('tells the payload and the age that a limit counts, from the start and while it is paused', () => {
    start({ rpoMs: 0, place: 5 });
    shipper.step();
    shipper.pause();
    const before = rig.appender.payloadPos;
    const first = rig.write(4096, 1, 0);
    const us = getU64(rig.window.dv, rig.window.slotAt(first) + S_RECORD + R_TIME);
    write(4096, 4096, 2);
    rig.settle();
    shipper.step();
    assert.equal(rig.shared.floatView[SHF.BYTES + 5], before);
    assert.equal(rig.shared.floatView[SHF.OLDEST + 5], us);
  });

  it('sends no faster than its bandwidth, whoever waits', () => {
    start({ rpoMs: 0, place: 5, bandwidth: 1024 * KIB });
    shipper.step();
    for (let n = 0; n < 32; n++) {
      write((n % 16) * 64 * KIB, 64 * KIB, n);
      rig.settle();
    }
    const tail = rig.appender.seq;
    rig.shared.floatView[SHF.WANTED + 5] = tail;
    rig.shared.bump(SH.SYNC_ASK);
    const began = rig.clock.ms;
    while (shipper.cursor.seq < tail) {
      const ms = shipper.step();
      assert.ok(shipper.idle || ms <= 0, 'it sleeps until it may send');
      rig.clock.ms += Math.max(0, ms);
    }
    // 2 MiB at 1 MiB/s, less what was saved up and the debt of the last batch.
    const took = rig.clock.ms - began;
    assert.ok(took >= 1500 && took <= 2100, `${took} ms`);
  });
});
