import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { getU64 } from '../../../src/base/codec.js';
import { realClock } from '../../../src/base/clock.js';
import { ERRNO } from '../../../src/base/errors.js';
import type { Mem } from '../../../src/base/mem.js';
import * as sys from '../../../src/base/sys.js';
import { DeviceGroup, type GroupOptions } from '../../../src/device/group.js';
import { Parking } from '../../../src/device/parking.js';
import { DeviceReader } from '../../../src/device/reader.js';
import type { Reply } from '../../../src/device/reply.js';
import { AioReader } from '../../../src/fuse/aio.js';
import { R_LENGTH, R_OFFSET, R_TYPE, REC } from '../../../src/replog/format.js';
import { E_LINKS, FLUSH_ENTRY, FLUSH_SLOTS, SH, SHF, Shared } from '../../../src/replog/shared.js';
import { LogSpace } from '../../../src/replog/space.js';
import { S_RECORD, W, Window, windowShape } from '../../../src/replog/window.js';

const MIB = 1 << 20;
const SIZE = 4 * MIB;
const SEGMENT = 512 * 1024;
const RING = 64 * SEGMENT;
const MAX_WRITE = 64 * 1024;
const O_DSYNC = 0x1000;
const NODE = 1024;
const RESENT = 0x80000000;

class Answers implements Reply {
  readonly list: { lo: number; hi: number; rc: number; data?: Buffer }[] = [];
  wrote(lo: number, hi: number, bytes: number): void {
    this.list.push({ lo, hi, rc: bytes });
  }
  status(lo: number, hi: number, rc: number): void {
    this.list.push({ lo, hi, rc });
  }
  position(lo: number, hi: number, offset: number): void {
    this.list.push({ lo, hi, rc: offset });
  }
  data(lo: number, hi: number, mem: Mem, off: number, len: number): void {
    this.list.push({ lo, hi, rc: len, data: Buffer.from(mem.u8.subarray(off, off + len)) });
  }
  take(): { lo: number; hi: number; rc: number; data?: Buffer } | undefined {
    return this.list.shift();
  }
}

/** A group on a real image whose committer and applier are the test's own hands on the window's words. */
class Bench {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-group-'));
  readonly image = path.join(this.dir, 'disk0');
  readonly window: Window;
  readonly shared = new Shared();
  readonly answers = new Answers();
  readonly aio = new AioReader(4, MIB);
  readonly others: Uint8Array[] = [];
  group: DeviceGroup;
  reader!: DeviceReader;
  resends = 0;
  unique = 0;

  constructor(options: Partial<GroupOptions> = {}, ring = MIB) {
    const file = fs.openSync(this.image, 'w');
    fs.ftruncateSync(file, SIZE);
    fs.closeSync(file);
    const fd = sys.memfdCreate('group-test', 0);
    sys.ftruncate(fd, windowShape(ring).size);
    this.window = Window.map(fd, ring);
    this.window.format({ pos: 0, seq: 1, chainLo: 1, chainHi: 2, time: 0 });
    this.group = this.start(options);
  }

  start(options: Partial<GroupOptions> = {}): DeviceGroup {
    const { window, shared } = this;
    const fd = fs.openSync(this.image, 'r');
    const direct = fs.openSync(this.image, fs.constants.O_RDONLY | sys.O_DIRECT);
    if (shared.logRing === 0) shared.logRing = RING;
    this.group = new DeviceGroup({
      window,
      shared,
      space: new LogSpace(window, shared, SEGMENT),
      clock: realClock,
      reply: this.answers,
      reader: (this.reader = new DeviceReader(this.aio, [{ nr: 0, size: SIZE, fd, direct }])),
      committer: shared.bell(SH.BELL_COMMIT),
      maxWrite: MAX_WRITE,
      durableWrites: false,
      resend: () => this.resends++,
      other: (request) => this.others.push(request),
      logFull: () => undefined,
      parking: new Parking(256 * 1024, MAX_WRITE + 4096),
      ...options,
    });
    return this.group;
  }

  /** Serves one WRITE as the loop would; returns its unique. */
  write(offset: number, bytes: Buffer, flags = 0, unique = ++this.unique, hi = 0): number {
    assert.ok(this.group.prepare());
    if (this.group.awaitsResent && hi === 0) this.group.resentSeen();
    bytes.copy(this.group.bodyMem.u8, this.group.bodyAt);
    this.group.write(NODE, offset, bytes.length, flags, unique, hi);
    return unique;
  }

  read(offset: number, size: number): Buffer {
    assert.ok(this.group.prepare());
    const unique = ++this.unique;
    this.group.read(NODE, offset, size, unique, 0);
    this.group.resting();
    for (let i = 0; i < 10_000 && this.answers.list.length === 0; i++) this.group.readsDone();
    const answer = this.answers.take();
    assert.ok(answer?.data !== undefined && answer.lo === unique, JSON.stringify(answer));
    return answer.data;
  }

  /** Everything in the window becomes durable; its log position is made up the way a committer would set it. */
  commit(): void {
    const { window } = this;
    const tail = this.group.appender.seq;
    window.dv.setFloat64(window.slotAt(tail - 1) + 48, 4096 * tail, true);
    window.storeSeq(W.DURABLE, tail);
    window.storeSeq(W.RELEASED, tail);
  }

  /** Applies everything durable to the image. */
  apply(): void {
    const { window } = this;
    const tail = this.group.appender.seq;
    const from = window.seqOf(W.APPLIED, tail);
    const fd = fs.openSync(this.image, 'r+');
    for (let seq = from; seq < tail; seq++) {
      const slot = window.slotAt(seq);
      const offset = getU64(window.dv, slot + S_RECORD + R_OFFSET);
      const length = getU64(window.dv, slot + S_RECORD + R_LENGTH);
      const at = window.payloadAt(window.payloadPos(slot));
      if (window.dv.getUint8(slot + S_RECORD + R_TYPE) === REC.WRITE) fs.writeSync(fd, window.u8, at, length, offset);
      else fs.writeSync(fd, Buffer.alloc(length), 0, length, offset);
    }
    fs.closeSync(fd);
    window.storeSeq(W.APPLIED, tail);
  }

  close(): void {
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

describe('DeviceGroup', () => {
  const benches: Bench[] = [];
  const bench = (options: Partial<GroupOptions> = {}, ring = MIB): Bench => {
    const b = new Bench(options, ring);
    benches.push(b);
    return b;
  };
  afterEach(() => {
    for (const b of benches.splice(0)) b.close();
  });

  it('reads give every acknowledged byte when writes have any offset and length and move through all stages', () => {
    const b = bench();
    const model = Buffer.alloc(SIZE);
    let state = 7;
    const rnd = (n: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return Math.floor((state / 4294967296) * n);
    };
    for (let i = 0; i < 2000; i++) {
      const offset = rnd(SIZE - 40_000);
      const length = 1 + rnd(rnd(5) === 0 ? 40_000 : 3000);
      const end = offset + length;
      if (rnd(10) === 0) {
        const mode = rnd(2) === 0 ? 3 : 17;
        assert.ok(b.group.prepare());
        b.group.fallocate(NODE, offset, length, mode, ++b.unique, 0);
        model.fill(0, offset, end);
        assert.equal(b.answers.take()?.rc, 0);
      } else {
        const bytes = Buffer.alloc(length, 1 + rnd(255));
        b.write(offset, bytes);
        bytes.copy(model, offset);
        assert.equal(b.answers.take()?.rc, length);
      }
      if (rnd(12) === 0) b.commit();
      if (rnd(12) === 0 && b.window.seqOf(W.DURABLE, b.group.appender.seq) === b.group.appender.seq) b.apply();
      const at = rnd(SIZE - 50_000);
      const size = 1 + rnd(50_000);
      assert.ok(b.read(at, size).equals(model.subarray(at, at + size)), `step ${i}`);
      if (i % 100 === 99) {
        b.commit();
        b.apply();
      }
    }
  });

  describe('reads from a site', () => {
    const PLACE = 3;

    /** The site's image: everything below the tail is in it, or will be. */
    class Site {
      readonly path: string;
      readonly b: Bench;
      constructor(b: Bench) {
        this.b = b;
        this.path = path.join(b.dir, 'site');
        fs.writeFileSync(this.path, '');
        fs.truncateSync(this.path, SIZE);
      }
      /** Its shipper has confirmed everything below `seq`. */
      has(seq: number): void {
        this.b.shared.store(SH.HELD + PLACE, seq | 0);
      }
      put(offset: number, bytes: Buffer): void {
        const fd = fs.openSync(this.path, 'r+');
        fs.writeSync(fd, bytes, 0, bytes.length, offset);
        fs.closeSync(fd);
      }
      turn(): boolean {
        const epoch = this.b.shared.load(SH.IMAGES + PLACE);
        const fd = fs.openSync(this.path, 'r');
        const direct = fs.openSync(this.path, fs.constants.O_RDONLY | sys.O_DIRECT);
        return this.b.group.turnTo({ nr: 7, place: PLACE, epoch }, [{ nr: 0, size: SIZE, fd, direct }]);
      }
    }

    function detachable(): { b: Bench; site: Site; errnos: number[] } {
      const errnos: number[] = [];
      const b = bench({ detach: true, starved: (errno) => errnos.push(errno) });
      b.shared.store(SH.IMAGES + PLACE, 1);
      return { b, site: new Site(b), errnos };
    }

    const at = (b: Bench, word: number): number => b.window.seqOf(word, b.group.appender.seq);

    it('! begin only where the site holds everything that has left the window', () => {
      const { b, site } = detachable();
      b.write(0, Buffer.alloc(4096, 1));
      b.commit();
      b.apply();
      b.group.prepare();
      assert.equal(at(b, W.HEAD), b.group.appender.seq);
      site.has(b.group.appender.seq - 1);
      assert.equal(site.turn(), false);
      assert.equal(b.window.load(W.SOURCE), 0);
      site.put(0, Buffer.alloc(4096, 1));
      site.has(b.group.appender.seq);
      b.shared.store(SH.IMAGES + PLACE, 2);
      assert.equal(site.turn(), false, 'it is not open');
      b.shared.store(SH.IMAGES + PLACE, 3);
      assert.ok(site.turn());
      assert.equal(b.window.load(W.SOURCE), 7);
    });

    it('! bound the window by what the site has in its images, and by slink 0 until that is away', () => {
      const { b, site } = detachable();
      const first = b.group.appender.seq;
      site.has(first);
      assert.ok(site.turn());
      b.write(0, Buffer.alloc(4096, 5));
      b.write(8192, Buffer.alloc(4096, 6));
      b.answers.list.length = 0;
      b.commit();
      b.group.prepare();
      assert.equal(at(b, W.HEAD), first);
      assert.deepEqual(b.read(0, 4096), Buffer.alloc(4096, 5));
      site.put(0, Buffer.alloc(4096, 5));
      site.has(first + 1);
      b.group.prepare();
      assert.equal(at(b, W.HEAD), first, 'the applier still reads the window');
      b.window.store(W.AWAY, 1);
      b.group.prepare();
      assert.equal(at(b, W.HEAD), first + 1);
      assert.ok(at(b, W.APPLIED) < at(b, W.HEAD));
      assert.deepEqual(b.read(0, 12288).subarray(0, 4096), Buffer.alloc(4096, 5));
      assert.deepEqual(b.read(8192, 4096), Buffer.alloc(4096, 6));
    });

    it('! end only when slink 0 has everything that has left the window', () => {
      const { b, site } = detachable();
      site.has(b.group.appender.seq);
      assert.ok(site.turn());
      b.window.store(W.AWAY, 1);
      b.write(0, Buffer.alloc(4096, 5));
      b.answers.take();
      b.commit();
      site.put(0, Buffer.alloc(4096, 5));
      site.has(b.group.appender.seq);
      b.group.prepare();
      const back = (): boolean => {
        const fd = fs.openSync(b.image, 'r');
        return b.group.turnTo({ nr: 0, place: -1, epoch: 0 }, [{ nr: 0, size: SIZE, fd, direct: -1 }]);
      };
      assert.equal(back(), false);
      b.shared.store(SH.LOCAL_ERROR, ERRNO.EIO);
      b.apply();
      assert.equal(back(), false);
      b.shared.store(SH.LOCAL_ERROR, 0);
      assert.ok(back());
      assert.equal(b.window.load(W.SOURCE), 0);
      assert.deepEqual(b.read(0, 4096), Buffer.alloc(4096, 5));
    });

    it('! wait, with whole and ragged writes, while the site is opened again; then they are sent again', () => {
      const { b, site, errnos } = detachable();
      site.put(0, Buffer.alloc(8192, 3));
      site.has(b.group.appender.seq);
      assert.ok(site.turn());
      b.shared.store(SH.IMAGES + PLACE, 2);
      b.group.prepare();
      b.group.read(NODE, 0, 4096, 900, 0);
      assert.equal(b.answers.list.length, 0);
      assert.deepEqual(errnos, [0]);
      assert.ok(b.group.prepare());
      b.group.write(NODE, 100, 10, 0, 901, 0);
      assert.equal(b.answers.list.length, 0);
      assert.equal(b.resends, 0);
      b.shared.store(SH.IMAGES + PLACE, 3);
      assert.ok(site.turn());
      b.group.prepare();
      assert.equal(b.resends, 1);
      b.group.resentSeen();
      assert.deepEqual(b.read(0, 4096), Buffer.alloc(4096, 3));
    });

    it('get EIO once nobody is expected, and what is in the window is read all the same', () => {
      const { b, site } = detachable();
      site.has(b.group.appender.seq);
      assert.ok(site.turn());
      b.write(0, Buffer.alloc(4096, 8));
      b.answers.take();
      b.shared.store(SH.IMAGES + PLACE, 2);
      b.group.source.giveUp();
      assert.deepEqual(b.read(0, 4096), Buffer.alloc(4096, 8));
      b.group.prepare();
      b.group.read(NODE, 65536, 4096, 900, 0);
      assert.equal(b.answers.take()?.rc, -ERRNO.EIO);
    });

    it('a daemon that adopts the window reads nothing before it is offered the site again', () => {
      const { b, site } = detachable();
      site.put(65536, Buffer.alloc(4096, 4));
      site.has(b.group.appender.seq);
      assert.ok(site.turn());
      b.start({ detach: true });
      b.group.prepare();
      b.group.read(NODE, 65536, 4096, 900, 0);
      assert.equal(b.answers.list.length, 0);
      assert.ok(site.turn());
      b.group.prepare();
      b.group.resentSeen();
      assert.deepEqual(b.read(65536, 4096), Buffer.alloc(4096, 4));
    });
  });

  it('a write at the end is short, one past the end is ENOSPC, a growing fallocate is ENOSPC', () => {
    const b = bench();
    b.write(SIZE - 512, Buffer.alloc(1024, 1));
    assert.equal(b.answers.take()?.rc, 512);
    b.write(SIZE, Buffer.alloc(512, 1));
    assert.equal(b.answers.take()?.rc, -ERRNO.ENOSPC);
    b.group.prepare();
    b.group.fallocate(NODE, SIZE, 512, 0, 99, 0);
    assert.equal(b.answers.take()?.rc, -ERRNO.ENOSPC);
    assert.equal(b.read(SIZE - 512, 4096).length, 512);
    assert.equal(b.read(SIZE + 512, 4096).length, 0);
  });

  it('! a write with O_DSYNC is answered like a flush of its own seq, queued before the record is published', () => {
    const b = bench();
    const tail = b.group.appender.seq;
    b.write(0, Buffer.alloc(4096, 1), O_DSYNC);
    assert.equal(b.answers.list.length, 0);
    assert.equal(b.shared.load(SH.FLUSH_TAIL), 1);
    assert.deepEqual([...b.shared.flush.subarray(0, 4)], [1, 0, tail + 1, 4096]);
  });

  it('fsync is answered at once when all is durable and queued otherwise', () => {
    const b = bench();
    b.group.prepare();
    b.group.fsync(NODE, 50, 0);
    assert.equal(b.answers.take()?.rc, 0);
    b.write(0, Buffer.alloc(4096, 1));
    b.answers.take();
    b.group.fsync(NODE, 51, 0);
    assert.equal(b.answers.list.length, 0);
    assert.equal(b.shared.load(SH.FLUSH_TAIL), 1);
  });

  it('! a resent request that is in the log only gets its answer attached again', () => {
    const b = bench();
    b.write(0, Buffer.alloc(4096, 1));
    b.write(4096, Buffer.alloc(4096, 2), O_DSYNC);
    b.answers.list.length = 0;
    const tail = b.group.appender.seq;
    // The daemon dies; the next one adopts the window.
    b.shared.store(SH.FLUSH_HEAD, b.shared.load(SH.FLUSH_TAIL));
    b.start();
    const hi = RESENT;
    b.write(0, Buffer.alloc(4096, 1), 0, 1, hi);
    assert.deepEqual(b.answers.take(), { lo: 1, hi, rc: 4096 });
    b.write(4096, Buffer.alloc(4096, 2), O_DSYNC, 2, hi);
    assert.equal(b.answers.list.length, 0, 'a synchronous write still waits');
    assert.equal(b.group.appender.seq, tail, 'nothing was appended');
    b.write(8192, Buffer.alloc(4096, 3), 0, 3, hi);
    assert.equal(b.answers.take()?.rc, 4096);
    assert.equal(b.group.appender.seq, tail + 1, 'what was not in the log is appended');
    assert.ok(b.read(0, 12288).equals(Buffer.concat([1, 2, 3].map((v) => Buffer.alloc(4096, v)))));
  });

  it('! no record leaves the window before the requests that are sent again were seen', () => {
    const b = bench();
    b.write(0, Buffer.alloc(4096, 1), O_DSYNC);
    const tail = b.group.appender.seq;
    // Durable and applied, but the daemon dies before it answers; the next one's committer releases at once.
    b.shared.store(SH.FLUSH_HEAD, b.shared.load(SH.FLUSH_TAIL));
    b.commit();
    b.apply();
    b.start();
    b.group.prepare();
    b.write(0, Buffer.alloc(4096, 1), O_DSYNC, 1, RESENT);
    assert.deepEqual(b.answers.take(), { lo: 1, hi: RESENT, rc: 4096 });
    assert.equal(b.group.appender.seq, tail, 'no duplicate');
    b.group.resentSeen();
    b.group.prepare();
    assert.equal(b.window.seqOf(W.HEAD, tail), tail);
  });

  it('! no room in the window: writes are parked, reads go on, the rest is fetched again when space returns', () => {
    const b = bench();
    const block = Buffer.alloc(MAX_WRITE, 9);
    let offset = 0;
    let acknowledged = 0;
    for (let i = 0; i < 40; i++, offset = (offset + MAX_WRITE) % SIZE) {
      block.fill(i + 1);
      b.write(offset, block);
      if (b.answers.take() !== undefined) acknowledged++;
    }
    assert.ok(acknowledged >= 10 && acknowledged < 20, `${acknowledged} acknowledged`);
    assert.equal(b.shared.load(SH.DATA_WAITS), 1);
    assert.ok(b.shared.load(SH.PARKED) >= 2);
    assert.equal(b.read(0, 512)[0], 1, 'reads go on');
    assert.equal(b.resends, 0);
    const parked = b.shared.load(SH.PARKED);
    b.commit();
    b.apply();
    assert.ok(b.group.prepare());
    assert.equal(b.answers.list.length, parked, 'the parked ones were answered, in order');
    assert.equal(b.shared.load(SH.PARKED), 0);
    assert.equal(b.resends, 1, 'the others are asked for again');
    assert.equal(b.shared.load(SH.DATA_WAITS), 0);
    b.answers.list.length = 0;
    for (let i = 0; i < acknowledged + parked; i++) assert.equal(b.read(i * MAX_WRITE, 512)[0], i + 1);
  });

  it('without resend nothing is dropped: requests stay in the kernel', () => {
    const b = bench({ resend: undefined });
    const block = Buffer.alloc(MAX_WRITE, 9);
    let taken = 0;
    while (taken < 100 && b.group.prepare()) {
      b.write(0, block);
      taken++;
    }
    assert.ok(taken < 40, `${taken} requests were taken`);
    b.commit();
    b.apply();
    assert.ok(b.group.prepare());
    assert.equal(b.answers.list.length, taken, 'each was answered once');
  });

  it('! a record leaves the window only when it is durable, applied and answered', () => {
    const b = bench();
    b.write(0, Buffer.alloc(4096, 1));
    const tail = b.group.appender.seq;
    const head = (): number => b.window.seqOf(W.HEAD, tail);
    const first = head();
    b.window.storeSeq(W.DURABLE, tail);
    b.window.storeSeq(W.APPLIED, tail);
    b.group.prepare();
    assert.equal(head(), first, 'applied but not released');
    b.window.storeSeq(W.APPLIED, first);
    b.window.storeSeq(W.RELEASED, tail);
    b.group.prepare();
    assert.equal(head(), first, 'released but not applied');
    b.window.storeSeq(W.APPLIED, tail);
    b.group.prepare();
    assert.equal(head(), tail);
  });

  it('writes fail with EIO while the log has an error, reads go on', () => {
    const b = bench();
    b.shared.store(SH.LOG_ERROR, ERRNO.EIO);
    b.write(0, Buffer.alloc(4096, 1));
    assert.equal(b.answers.take()?.rc, -ERRNO.EIO);
    assert.equal(b.read(0, 512).length, 512);
  });

  it('requests of other nodes are handed on whole', () => {
    const b = bench();
    b.group.prepare();
    const request = Buffer.from(Array.from({ length: 200 }, (_, i) => i));
    request.copy(b.group.headMem.u8, b.group.headAt, 0, 80);
    request.copy(b.group.bodyMem.u8, b.group.bodyAt, 80);
    b.group.other(200);
    assert.ok(Buffer.from(b.others[0]!).equals(request));
  });

  describe('with policies', () => {
    const SYNC = 1 << 2;

    function sync(b: Bench, on = true): void {
      for (const pair of [SH.GATES, SH.SYNC]) b.shared.setBit(pair, 2, on);
      b.shared.store(SH.HOLDING, on ? 1 : 0);
      b.shared.store(SH.LINK_SEQ + 2, b.group.appender.seq);
    }

    function limit(b: Bench, word: number, value: number): void {
      b.shared.floatView[word + 2] = value;
      for (const pair of [SH.GATES, SH.LIMITED]) b.shared.setBit(pair, 2, true);
      b.shared.store(SH.HOLDING, 1);
      b.shared.store(SH.LINK_SEQ + 2, b.group.appender.seq);
      b.shared.floatView[SHF.BYTES + 2] = b.group.appender.payloadPos;
    }

    /** Links in the newest entry of the flush queue. */
    function links(b: Bench): number {
      const at = ((b.shared.load(SH.FLUSH_TAIL) - 1) & (FLUSH_SLOTS - 1)) * FLUSH_ENTRY;
      return b.shared.flush[at + E_LINKS]!;
    }

    it('every write, discard and flush waits for a sync link', () => {
      const b = bench();
      sync(b);
      b.write(0, Buffer.alloc(4096, 1));
      b.write(4096, Buffer.alloc(100, 1));
      b.group.prepare();
      b.group.fallocate(NODE, 0, 8192, 3, 90, 0);
      b.group.prepare();
      b.group.fsync(NODE, 91, 0);
      assert.deepEqual(b.answers.list, []);
      assert.equal(b.shared.load(SH.FLUSH_TAIL), 4);
      for (let n = 0; n < 4; n++) assert.equal(b.shared.flush[n * FLUSH_ENTRY + E_LINKS], SYNC);
      assert.equal(b.shared.floatView[SHF.WANTED + 2], b.group.appender.seq);
    });

    it('! a flush of what is durable here still waits where a sync link has not confirmed it', () => {
      const b = bench();
      b.write(0, Buffer.alloc(4096, 1));
      b.answers.take();
      b.commit();
      sync(b);
      b.shared.store(SH.LINK_SEQ + 2, b.group.appender.seq - 1);
      b.group.prepare();
      b.group.fsync(NODE, 91, 0);
      assert.deepEqual([b.answers.list.length, links(b)], [0, SYNC]);
      b.shared.store(SH.LINK_SEQ + 2, b.group.appender.seq);
      b.group.prepare();
      b.group.fsync(NODE, 92, 0);
      assert.equal(b.answers.take()?.rc, 0);
    });

    it('! fall-behind by writes: the fifth write at "ios 3" waits, and at or below it none does', () => {
      const b = bench();
      limit(b, SHF.LIMIT_IOS, 3);
      for (let n = 0; n < 4; n++) {
        b.write(n * 4096, Buffer.alloc(4096, 1));
        assert.equal(b.answers.take()?.rc, 4096, `write ${n + 1}`);
      }
      b.write(0, Buffer.alloc(4096, 1));
      assert.deepEqual([b.answers.list.length, links(b), b.shared.load(SH.SWITCHES + 2)], [0, SYNC, 1]);
      b.shared.store(SH.LINK_SEQ + 2, b.group.appender.seq - 3);
      b.group.prepare();
      assert.equal(b.shared.load(SH.SWITCHES + 2), 2, 'told without another write');
      b.write(0, Buffer.alloc(4096, 1));
      assert.equal(b.answers.take()?.rc, 4096);
    });

    it('fall-behind by size counts payload, by timeout the age of the oldest write', () => {
      const b = bench({}, MIB);
      limit(b, SHF.LIMIT_BYTES, 8192);
      for (let n = 0; n < 3; n++) b.write(0, Buffer.alloc(4096, 1));
      assert.equal(b.answers.list.length, 3, '8192 are not more than 8192');
      b.write(0, Buffer.alloc(512, 1));
      assert.deepEqual([b.answers.list.length, links(b)], [3, SYNC]);

      let us = 1_000_000_000;
      const late = bench({ clock: { wallUs: () => us, monoMs: () => us / 1000 } });
      limit(late, SHF.LIMIT_US, 50_000);
      late.write(0, Buffer.alloc(512, 1));
      us += 50_000;
      late.write(0, Buffer.alloc(512, 1));
      assert.equal(late.answers.list.length, 2);
      us += 1;
      late.write(0, Buffer.alloc(512, 1));
      assert.deepEqual([late.answers.list.length, links(late)], [2, SYNC]);
    });

    it('! a resent request waits for the same links as before, and its record stays until it is answered', () => {
      const b = bench();
      limit(b, SHF.LIMIT_IOS, 1);
      for (let n = 0; n < 3; n++) b.write(n * 4096, Buffer.alloc(4096, n));
      assert.equal(b.answers.list.length, 2);
      b.answers.list.length = 0;
      const tail = b.group.appender.seq;
      // The daemon dies. By the time of the next one the link is within its limits again, yet lacks this write.
      b.shared.store(SH.FLUSH_HEAD, b.shared.load(SH.FLUSH_TAIL));
      b.shared.store(SH.LINK_SEQ + 2, tail - 1);
      b.start();
      b.commit();
      b.apply();
      b.write(8192, Buffer.alloc(4096, 2), 0, 3, RESENT);
      assert.equal(b.answers.list.length, 0);
      assert.equal(links(b), SYNC);
      b.group.resentSeen();
      b.group.prepare();
      assert.equal(b.window.seqOf(W.HEAD, tail), tail - 1, 'held, although the committer had let it go');
      b.shared.store(SH.FLUSH_HEAD, b.shared.load(SH.FLUSH_TAIL));
      b.group.prepare();
      assert.equal(b.window.seqOf(W.HEAD, tail), tail);
    });

    it('parks writes before the flush queue is full, so that reads go on', () => {
      const b = bench({}, 16 * MIB);
      b.shared.logRing = 1024 * MIB;
      b.start({ space: new LogSpace(b.window, b.shared, 16 * MIB) });
      sync(b);
      for (let n = 0; n < FLUSH_SLOTS - 1024; n++) b.write(0, Buffer.alloc(512, 1));
      b.write(0, Buffer.alloc(512, 2));
      assert.equal(b.shared.load(SH.PARKED), 1);
      assert.equal(b.read(0, 512)[0], 1);
    });

    it('a flush that finds no place comes again when there is one; until then reads go on', () => {
      const b = bench({}, 16 * MIB);
      b.shared.logRing = 1024 * MIB;
      b.start({ space: new LogSpace(b.window, b.shared, 16 * MIB) });
      sync(b);
      b.write(0, Buffer.alloc(512, 1));
      const flush = (): void => {
        assert.ok(b.group.prepare());
        b.group.fsync(NODE, ++b.unique, 0);
      };
      for (let n = 0; n < FLUSH_SLOTS - 1; n++) flush();
      assert.equal(b.shared.flushRoom, 0);
      const resends = b.resends;
      flush();
      assert.equal(b.read(0, 512)[0], 1);
      assert.equal(b.resends, resends, 'not while there is no room');
      // The site is there again: all are answered.
      b.shared.store(SH.FLUSH_HEAD, b.shared.load(SH.FLUSH_TAIL));
      b.group.prepare();
      assert.equal(b.resends, resends + 1);
    });
  });

  it('! a device takes no write behind the record of its removal; what is in the log before is answered again', () => {
    const bench = new Bench();
    const data = Buffer.alloc(4096, 7);
    const unique = bench.write(0, data);
    assert.equal(bench.answers.take()?.rc, 4096);
    let removed = 0;
    bench.group.control(REC.DEVICE_REMOVE, 0, new Uint8Array(0), (seq) => (removed = seq));
    assert.equal(removed, 2);
    bench.write(0, data);
    assert.equal(bench.answers.take()?.rc, -ERRNO.ENODEV);
    assert.equal(bench.group.appender.seq, 3, 'nothing came behind the removal');
    bench.write(0, data, 0, unique, RESENT);
    assert.equal(bench.answers.take()?.rc, 4096, 'sent again, it is found in the log');
  });

  it('a device that has grown takes writes up to its new size, and no further', () => {
    const bench = new Bench();
    bench.write(SIZE, Buffer.alloc(4096, 1));
    assert.equal(bench.answers.take()?.rc, -ERRNO.ENOSPC);
    bench.reader.resize(0, SIZE + 4096);
    bench.write(SIZE, Buffer.alloc(8192, 1));
    assert.equal(bench.answers.take()?.rc, 4096, 'cut off at the end');
    bench.write(SIZE + 4096, Buffer.alloc(512, 1));
    assert.equal(bench.answers.take()?.rc, -ERRNO.ENOSPC);
  });
});
