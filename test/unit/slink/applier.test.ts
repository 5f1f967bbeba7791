import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { REC, type LogPlace } from '../../../src/replog/format.js';
import { SH } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import { Applier, type ApplierOptions, type OpenFailure } from '../../../src/slink/applier.js';
import { ImageSet, createImage } from '../../../src/slink/images.js';
import { replayLocal } from '../../../src/slink/replay.js';
import { Rig, cleanUp, scratch } from '../replog/rig.js';
import { FaultIo, put } from './support.js';

const SIZE = 2 * MIB;

describe('Applier', () => {
  let rig: Rig;
  let file: string;
  let faults: FaultIo;
  let images: ImageSet;
  let applier: Applier;
  let events: string[];
  let places: LogPlace[];
  let expect: Buffer;

  beforeEach(() => {
    rig = new Rig({ size: 16 * MIB });
    file = join(scratch(), 'disk0.img');
    createImage(realIo, 'APPLY', { nr: 0, file, size: SIZE });
    faults = new FaultIo();
    images = new ImageSet(faults.io, 'APPLY');
    images.open({ nr: 0, file, size: SIZE });
    images.sync();
    events = [];
    places = [];
    expect = Buffer.alloc(SIZE);
    applier = newApplier();
  });
  afterEach(() => {
    applier.close();
    images.close();
    cleanUp();
  });

  function newApplier(options: Partial<ApplierOptions> = {}): Applier {
    const { window, shared, clock, log } = rig;
    return new Applier(
      {
        ...{ window, shared, clock, log, images, reopen },
        events: {
          synced: (place) => void places.push(place),
          localError: (errno, path, during) => void events.push(`${during} ${errno} ${path}`),
          localHealed: () => void events.push('healed'),
        },
      },
      { synced: rig.log.super.checkpoint, ...options },
    );
  }

  function reopen(): OpenFailure | undefined {
    images.close();
    try {
      images.open({ nr: 0, file, size: SIZE });
    } catch {
      return { errno: images.errno === 0 ? ERRNO.EIO : images.errno, file };
    }
    return undefined;
  }

  function write(offset: number, bytes: number, fill: number): void {
    rig.write(bytes, fill, offset);
    expect.fill(fill, offset, offset + bytes);
  }

  function range(type: 2 | 3, offset: number, length: number): void {
    rig.appender.seal(type, 0, offset, length, 0, 0);
    expect.fill(0, offset, offset + length);
  }

  /** Steps until nothing is due, without letting time pass. */
  function run(): number {
    for (let i = 0; i < 1000; i++) {
      const ms = applier.step();
      if (ms > 0) return ms;
    }
    return assert.fail('the applier does not come to rest');
  }

  /** All is durable and applied. */
  function settle(): void {
    rig.settle();
    run();
    rig.clock.ms += 10;
    run();
  }

  /** What the data thread does once records are applied and answered. */
  function moveHead(): void {
    rig.window.storeSeq(W.HEAD, rig.window.seqOf(W.APPLIED, rig.appender.seq));
  }

  function fail(call: string, errno: number): void {
    faults.rule = (name) => (name === call ? { errno } : undefined);
  }

  const image = (): Buffer => readFileSync(file);
  const applied = (): number => rig.window.seqOf(W.APPLIED, rig.appender.seq);

  it('applies durable records and nothing before they are durable', () => {
    write(0, 8192, 1);
    rig.clock.ms += 10;
    run();
    assert.equal(applied(), 1);
    assert.ok(image().equals(Buffer.alloc(SIZE)));
    settle();
    assert.equal(applied(), rig.appender.seq);
    assert.ok(image().equals(expect));
  });

  it('applies versions, discards and zeroes so that the last one counts', () => {
    write(0, 65536, 1);
    range(REC.DISCARD, 4096, 8192);
    write(4096, 512, 2);
    range(REC.ZEROES, 0, 1024);
    write(512, 512, 3);
    write(512, 512, 4);
    rig.tag('between');
    range(REC.DISCARD, 30000 - (30000 % 512), 1024);
    settle();
    assert.ok(image().equals(expect));
  });

  it('waits a few milliseconds for company, but not while somebody needs room', () => {
    write(0, 4096, 1);
    rig.settle();
    const wait = applier.step();
    assert.ok(wait > 0 && wait <= 5, `${wait}`);
    assert.equal(applier.idle, true, 'it may sleep meanwhile');
    write(8192, 512, 2);
    rig.settle();
    assert.equal(applier.idle, false, 'there is news');
    rig.shared.store(SH.DATA_WAITS, 1);
    assert.equal(applier.step(), 0);
    assert.equal(applied(), rig.appender.seq);
  });

  it('syncs after a second without work, and only then says so', () => {
    write(0, 4096, 1);
    settle();
    assert.deepEqual(places, []);
    rig.clock.ms += 1000;
    run();
    assert.deepEqual(places, [rig.window.placeBefore(rig.appender.seq)]);
    run();
    assert.equal(places.length, 1);
  });

  it('syncs when it is asked to, with all that was durable then', () => {
    write(0, 4096, 1);
    rig.settle();
    rig.shared.bump(SH.SYNC_ASK);
    assert.equal(applier.idle, false);
    run();
    assert.equal(places[0]?.seq, rig.appender.seq);
    assert.equal(applier.idle, true);
  });

  it('syncs when enough is unsynced, at a boundary of the log', () => {
    applier.close();
    applier = newApplier({ syncBytes: 64 * KIB });
    for (let i = 0; i < 6; i++) {
      for (let k = 0; k < 4; k++) write(((i * 4 + k) % 16) * 16384, 16384, i * 4 + k + 1);
      settle();
      moveHead();
    }
    assert.ok(places.length >= 2);
    // A reader can begin at each of them.
    for (const place of places) replayLocal(rig.log, images, place, rig.window.placeBefore(rig.durable));
    assert.ok(image().equals(expect));
  });

  it('syncs at once when all is done and the daemon closes', () => {
    write(0, 4096, 1);
    settle();
    rig.shared.store(SH.CLOSING, 1);
    run();
    assert.equal(places[0]?.seq, rig.appender.seq);
  });

  it('control records move the checkpoint like any other', () => {
    rig.tag('a');
    settle();
    rig.clock.ms += 1000;
    run();
    assert.equal(places[0]?.seq, rig.appender.seq);
  });

  it('! on an image error nothing moves, the error is told once, and it goes on by itself or when asked', () => {
    fail('APPLY:WRITE', ERRNO.ENOSPC);
    write(0, 4096, 1);
    settle();
    assert.equal(applied(), 1);
    assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.ENOSPC);
    rig.clock.ms += 1000;
    run();
    run();
    assert.deepEqual(events, [`write ${ERRNO.ENOSPC} ${file}`]);
    faults.rule = undefined;
    assert.ok(applier.step() > 0, 'not before its time');
    rig.shared.bump(SH.LOCAL_RETRY);
    run();
    assert.deepEqual(events.slice(1), ['healed']);
    assert.deepEqual([applied(), rig.shared.load(SH.LOCAL_ERROR)], [rig.appender.seq, 0]);
    assert.ok(image().equals(expect));

    fail('APPLY:WRITE', ERRNO.EIO);
    write(4096, 4096, 2);
    settle();
    faults.rule = undefined;
    rig.clock.ms += 1000;
    run();
    assert.deepEqual(events.slice(2), [`write ${ERRNO.EIO} ${file}`, 'healed']);
    assert.ok(image().equals(expect));
  });

  it('! after a failed image sync everything since the last good one is written again before the checkpoint moves', () => {
    write(0, 4096, 1);
    settle();
    rig.clock.ms += 1000;
    run();
    const good = places.length;
    write(0, 8192, 2);
    write(4096, 4096, 3);
    range(REC.ZEROES, 6144, 512);
    write(65536, 512, 4);
    settle();
    moveHead();
    fail('APPLY:SYNC', ERRNO.EIO);
    rig.clock.ms += 1000;
    run();
    assert.deepEqual(events, [`sync ${ERRNO.EIO} ${file}`]);
    assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.EIO);
    // The kernel dropped what it could not write; the records have left the window, and its slots are used again.
    put(file, 0, Buffer.alloc(8192, 1));
    put(file, 65536, Buffer.alloc(512));
    for (let i = 0; i < 3; i++) write(131072, 512, 50 + i);
    rig.settle();
    faults.rule = undefined;
    faults.names.length = 0;
    assert.equal(places.length, good);
    rig.clock.ms += 1000;
    run();
    assert.equal(places.length, good + 1);
    settle();
    rig.clock.ms += 1000;
    run();
    assert.ok(faults.names.indexOf('APPLY:WRITE') < faults.names.indexOf('APPLY:SYNC'));
    assert.ok(image().equals(expect));
    assert.deepEqual([events[1], rig.shared.load(SH.LOCAL_ERROR)], ['healed', 0]);
    assert.equal(places[places.length - 1]?.seq, rig.appender.seq);
  });

  it('! a failed sync is counted behind the doubt, so that no count stands for a doubt that is yet to come', () => {
    write(0, 4096, 7);
    settle();
    const { window, shared } = rig;
    const bump = shared.bump.bind(shared);
    const seen: number[] = [];
    shared.bump = (word) => {
      if (word === SH.DOUBTS) seen.push(window.load(W.DOUBT));
      bump(word);
    };
    fail('APPLY:SYNC', ERRNO.EIO);
    for (let i = 1; i <= 2; i++) {
      rig.clock.ms += 1000;
      run();
      assert.equal(shared.load(SH.DOUBTS), i);
    }
    faults.rule = undefined;
    rig.clock.ms += 1000;
    run();
    assert.deepEqual([seen, window.load(W.DOUBT), shared.load(SH.DOUBTS)], [[1, 1], 0, 2]);
  });

  it('! writing again never shows an older version of what is being read', () => {
    for (let i = 1; i <= 20; i++) {
      write(0, 4096, i);
      settle();
    }
    fail('APPLY:SYNC', ERRNO.EIO);
    rig.clock.ms += 1000;
    run();
    const seen = new Set<number>();
    faults.rule = (call) => {
      if (call.startsWith('APPLY:')) seen.add(image()[0]!);
      return undefined;
    };
    rig.clock.ms += 1000;
    run();
    assert.deepEqual([...seen], [20]);
    assert.equal(faults.names.filter((name) => name === 'APPLY:WRITE').length, 21, 'only the newest is written');
  });

  it('! a daemon that adopts a window writes again what the one before it had failed to sync', () => {
    write(0, 4096, 7);
    settle();
    // It had got the error of a failed sync and was killed: the kernel will not say it twice.
    fail('APPLY:SYNC', ERRNO.EIO);
    rig.clock.ms += 1000;
    run();
    assert.equal(rig.window.load(W.DOUBT), 1);
    faults.rule = undefined;
    put(file, 0, Buffer.alloc(4096));
    applier.close();
    applier = newApplier({ redo: true });
    assert.equal(applier.idle, false);
    run();
    assert.ok(image().equals(expect));
    assert.equal(places[0]?.seq, rig.appender.seq);
  });

  it('a log that cannot be read keeps the doubt', () => {
    write(0, 4096, 7);
    settle();
    put(rig.log.path, 65536 + 4096, Buffer.alloc(512, 9));
    fail('APPLY:SYNC', ERRNO.EIO);
    rig.clock.ms += 1000;
    run();
    faults.rule = undefined;
    for (let i = 0; i < 3; i++) {
      rig.clock.ms += 1000;
      run();
    }
    assert.deepEqual(places, []);
    assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.EIO);
  });

  describe('while reads come from a site', () => {
    beforeEach(() => {
      applier.close();
      applier = newApplier({ probeMs: 15_000 });
      write(0, 8192, 1);
      settle();
      rig.clock.ms += 1000;
      run();
      write(4096, 8192, 2);
      settle();
      rig.window.storeSeq(W.SOURCE, 1);
      assert.equal(applier.idle, false);
      run();
    });

    it('! counts as a doubt: what was read of the images and not synced may have been given up with them', () => {
      assert.equal(rig.shared.load(SH.DOUBTS), 1);
      const synced = rig.shared.load(SH.SYNCED);
      assert.ok(synced < rig.durable, 'the images are closed without a sync');
    });

    it('! says that it is away before records leave the window without it, and then reads the log only', () => {
      assert.equal(rig.window.load(W.AWAY), 1);
      assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.EIO);
      assert.equal(images.get(0), undefined, 'its file system can be unmounted');
      write(65536, 4096, 3);
      write(0, 512, 4);
      rig.settle();
      // The window forgets them, and what stands in their slots now is not theirs.
      rig.window.storeSeq(W.HEAD, rig.appender.seq);
      for (let seq = applied(); seq < rig.appender.seq - 1; seq++) {
        const slot = rig.window.slotAt(seq);
        rig.window.u8.fill(0xee, slot + 64, slot + 128 - 8);
      }
      put(file, 4096, Buffer.alloc(8192, 9));
      run();
      rig.clock.ms += 15_000;
      run();
      assert.equal(applied(), rig.appender.seq);
      assert.ok(image().equals(expect), 'what was never synced is written again');
      assert.equal(rig.shared.load(SH.LOCAL_ERROR), 0);
      assert.equal(rig.window.load(W.AWAY), 1, 'until the data thread has turned reads back');
      rig.window.store(W.SOURCE, 0);
      assert.equal(applier.idle, false);
      run();
      assert.equal(rig.window.load(W.AWAY), 0);
    });

    it('opens the images at the next probe or when it is asked to, and stays away where they fail', () => {
      write(0, 512, 4);
      rig.settle();
      fail('APPLY:OPEN', ERRNO.EIO);
      rig.shared.bump(SH.LOCAL_RETRY);
      assert.equal(run(), 15_000);
      assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.EIO);
      fail('APPLY:WRITE', ERRNO.ENOSPC);
      rig.shared.bump(SH.LOCAL_RETRY);
      run();
      assert.equal(rig.shared.load(SH.LOCAL_ERROR), ERRNO.ENOSPC);
      faults.rule = undefined;
      rig.shared.bump(SH.LOCAL_RETRY);
      run();
      assert.equal(rig.shared.load(SH.LOCAL_ERROR), 0);
      assert.ok(image().equals(expect));
    });

    it('! a turn back that is taken back leaves it away', () => {
      const { words } = rig.window;
      const store = rig.window.store.bind(rig.window);
      rig.window.storeSeq(W.SOURCE, 0);
      rig.window.store = (word, value) => {
        store(word, value);
        // Between its two looks the data thread turns to a site again.
        if (word === W.AWAY && value === 0) words[W.SOURCE] = 1;
      };
      run();
      assert.equal(rig.window.load(W.AWAY), 1);
    });
  });

  describe('replayLocal', () => {
    it('! makes the images exactly the history up to the end, whatever of it they held', () => {
      const from = rig.window.placeBefore(rig.appender.seq);
      for (let i = 0; i < 200; i++) write(512 * ((i * 37) % 2048), 512 * (1 + (i % 9)), 1 + (i % 250));
      range(REC.DISCARD, 8192, 16384);
      write(9216, 512, 99);
      rig.settle();
      const to = rig.window.placeBefore(rig.durable);
      put(file, 0, Buffer.alloc(65536, 0xcc).fill(0, 1024));
      expect.copy(expect);
      const progress: number[] = [];
      // What the replay does not cover must have been right before.
      const covered = replayLocal(rig.log, images, from, to, (done, total) => progress.push(done / total));
      assert.equal(covered.records, 202);
      assert.equal(progress[progress.length - 1], 1);
      const got = image();
      for (const [at, length] of [
        [8192, 16384],
        [0, 512],
      ])
        assert.ok(got.subarray(at, at! + length!).equals(expect.subarray(at, at! + length!)));
      replayLocal(rig.log, images, from, to);
      assert.ok(image().equals(got), 'again changes nothing');
    });

    it('fails with the image that cannot be written and the record that cannot be read', () => {
      const from = rig.window.placeBefore(rig.appender.seq);
      write(0, 4096, 1);
      rig.settle();
      const to = rig.window.placeBefore(rig.durable);
      fail('APPLY:WRITE', ERRNO.ENOSPC);
      assert.throws(
        () => replayLocal(rig.log, images, from, to),
        /disk0\.img: replaying the log failed: no space left/,
      );
      faults.rule = undefined;
      put(rig.log.path, 65536 + 4096, Buffer.alloc(512, 9));
      assert.throws(() => replayLocal(rig.log, images, from, to), /record 1 at byte \d+ cannot be read \(sum\)/);
    });
  });
});
