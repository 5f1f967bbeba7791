/** another size for a log, while it is used; with a death and a fault at every call. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { ERRNO, RepError } from '../../../src/base/errors.js';
import { realIo, type Io } from '../../../src/base/io.js';
import { MIB, type LogPos } from '../../../src/base/units.js';
import { Committer } from '../../../src/replog/committer.js';
import { DATA_START } from '../../../src/replog/format.js';
import { byteOf, LogFile, resizedGeometry } from '../../../src/replog/logfile.js';
import { LogWork, type LogJob } from '../../../src/replog/logwork.js';
import { LogReader, READ } from '../../../src/replog/reader.js';
import { recover } from '../../../src/replog/recovery.js';
import { LogResize, planMapping, type LogWorker } from '../../../src/replog/resize.js';
import { W } from '../../../src/replog/window.js';
import { Crash, FaultIo } from '../../support/fault-io.js';
import { MemIndex, Rig, cleanUp, newLog, openLog, peek } from './rig.js';

const SEGMENT = 512 * 1024;
const RING = 7 * SEGMENT;

class Worker implements LogWorker {
  jobs: LogJob[] = [];
  private work: LogWork | undefined;
  private done: true | RepError | undefined;
  private readonly io: Io;

  constructor(io: Io) {
    this.io = io;
  }

  start(job: LogJob): void {
    this.jobs.push(job);
    this.done = undefined;
    this.work = new LogWork(this.io, job);
  }

  result(): true | RepError | undefined {
    return this.done;
  }

  progress(): { bytes: number; total: number } {
    return { bytes: this.work?.bytes ?? 0, total: this.work?.total ?? 0 };
  }

  run(): void {
    const { work } = this;
    if (work === undefined || this.done !== undefined) return;
    try {
      while (!work.done) work.step();
      this.done = true;
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.done = error;
    }
  }
}

class Bench {
  readonly io = new FaultIo(realIo);
  readonly rig: Rig;
  readonly worker: Worker;
  readonly resize: LogResize;
  readonly reader: LogReader;
  /** What came of it: `done SIZE`, or the error. */
  readonly ended: string[] = [];
  readonly waits: string[] = [];
  readonly suspended: string[] = [];
  hurried = 0;
  private told = false;

  constructor(size = 4 * MIB) {
    const log = newLog({ io: this.io, size });
    const rig = (this.rig = new Rig({ io: this.io, log }));
    const { window, shared, clock } = rig;
    shared.map(0, log.ring);
    // Committer and readers have files of their own, as threads do.
    rig.committer.close();
    rig.committer = new Committer(
      {
        ...{ log: openLog(log.path, this.io).follow(shared), window, shared, clock },
        answer: { answer: () => undefined },
        events: {
          logError: (errno, call) => void rig.errors.push(`${call} ${errno}`),
          logHealed: () => void rig.healed++,
          segmentClosed: () => undefined,
        },
      },
      {},
    );
    this.reader = new LogReader(openLog(log.path, this.io).follow(shared), { chunk: 64 * 1024 });
    this.reader.seek(log.super.checkpoint);
    this.worker = new Worker(this.io);
    this.resize = new LogResize({
      ...{ log, window, shared, clock, worker: this.worker },
      committer: {
        hold: () => {
          this.told = false;
          rig.committer.hold();
        },
        release: () => rig.committer.release(),
        suspend: (errno) => rig.committer.suspend(errno),
      },
      hurry: () => void this.hurried++,
      holder: () => 'site 1',
      events: {
        ended: (done, error) =>
          void this.ended.push(error === undefined ? `done ${done}` : `${error.errno}: ${error.message}`),
        suspended: (reason) => void this.suspended.push(reason),
        waits: (why) => void this.waits.push(why),
      },
    });
  }

  get end(): LogPos {
    return this.rig.window.placeBefore(this.rig.durable).pos;
  }

  /** Writes up to log position `to` at least, freeing what is `behind` bytes back. */
  fill(to: LogPos, behind = 3 * SEGMENT): void {
    while (this.end < to) {
      this.rig.write(240_000, this.end & 0xff);
      this.rig.settle();
      this.release(behind);
    }
  }

  /** Everything is applied; the head is put `behind` bytes before the end, behind a batch. */
  release(behind: number): void {
    const { rig } = this;
    const { window } = rig;
    window.storeSeq(W.APPLIED, rig.durable);
    for (;;) {
      const { place } = this.reader;
      if (this.end - place.pos <= behind || this.reader.next({ pos: this.end, seq: rig.durable }) !== READ.BATCH) break;
    }
    const head = { ...this.reader.place };
    window.storeSeq(W.HEAD, rig.durable);
    assert.equal(rig.log.writeSuper({ checkpoint: head, head, clean: false, reign: 1 }, rig.clock), 0);
    rig.shared.logHead = head.pos;
  }

  /** Lets everybody work until it is over, or waits. */
  go(ms = 4000): void {
    const { rig } = this;
    for (let i = 0; i < ms / 20 && this.resize.busy; i++) {
      this.resize.step();
      this.worker.run();
      rig.run();
      if (rig.committer.held && !this.told) {
        this.told = true;
        this.resize.held(rig.committer.position);
      }
      rig.clock.ms += 20;
    }
  }

  /** Every record from the head to the end can be read by a reader of its own, here and by who opens the log anew. */
  check(): void {
    const { rig } = this;
    for (const log of [rig.log, openLog(rig.log.path)]) {
      const reader = new LogReader(log);
      const { head } = rig.log.super;
      reader.seek({ ...rig.log.super.checkpoint, ...head });
      while (reader.next({ pos: this.end, seq: rig.durable }) === READ.BATCH);
      assert.deepEqual([reader.broken, reader.place.pos, reader.place.seq], [undefined, this.end, rig.durable]);
      reader.close();
    }
    const recovered = recover(openLog(rig.log.path), new MemIndex());
    assert.deepEqual([recovered.place.seq, recovered.place.pos], [rig.durable, this.end]);
  }
}

describe('planMapping', () => {
  const old = { base: 0, ring: RING, oldest: 0 };
  const grown = 15 * SEGMENT;
  const rows: { name: string; ring: number; low: number; pos: number; plan: object | undefined; from?: typeof old }[] =
    [
      { name: 'growth in the first lap', ring: grown, low: 0, pos: 100, plan: { base: 0, ring: grown, oldest: 0 } },
      {
        name: 'growth in a later lap',
        ring: grown,
        low: 2 * RING,
        pos: 3 * RING - 1,
        plan: { base: 2 * RING, ring: grown, oldest: 2 * RING },
      },
      {
        name: 'growth at the wrap',
        ring: grown,
        low: RING,
        pos: 2 * RING,
        plan: { base: RING, ring: grown, oldest: RING },
      },
      {
        name: 'growth of what wraps',
        ring: grown,
        low: RING - 4096,
        pos: RING + 8192,
        plan: { base: 0, ring: grown, oldest: RING - 4096, copy: { from: RING, to: RING + 8192 } },
      },
      {
        name: 'growth by less than what wraps',
        ring: RING + SEGMENT,
        low: RING - 4096,
        pos: RING + SEGMENT + 4096,
        plan: undefined,
      },
      {
        name: 'shrink before the new end',
        ring: 4 * SEGMENT,
        low: 100,
        pos: 4 * SEGMENT,
        plan: { base: 0, ring: 4 * SEGMENT, oldest: 0 },
      },
      { name: 'shrink beyond it', ring: 4 * SEGMENT, low: 100, pos: 4 * SEGMENT + 1, plan: undefined },
      { name: 'shrink of what wraps', ring: 4 * SEGMENT, low: RING - 4096, pos: RING + 4096, plan: undefined },
      {
        name: 'shrink of an empty log',
        ring: 4 * SEGMENT,
        low: 6 * SEGMENT + 4096,
        pos: 6 * SEGMENT + 4096,
        plan: {
          base: 6 * SEGMENT,
          ring: 4 * SEGMENT,
          oldest: 6 * SEGMENT,
          copy: { from: 6 * SEGMENT, to: 6 * SEGMENT + 4096 },
        },
      },
      {
        name: 'shrink of an empty log at a border',
        ring: 4 * SEGMENT,
        low: 6 * SEGMENT,
        pos: 6 * SEGMENT,
        plan: { base: 6 * SEGMENT, ring: 4 * SEGMENT, oldest: 6 * SEGMENT },
      },
      { name: 'the same ring, whatever it holds', ring: RING, low: 0, pos: RING, plan: old },
      {
        name: 'growth of a log that was resized',
        from: { base: 3 * SEGMENT, ring: 4 * SEGMENT, oldest: 3 * SEGMENT },
        ring: 9 * SEGMENT,
        low: 8 * SEGMENT,
        pos: 10 * SEGMENT,
        plan: { base: 7 * SEGMENT, ring: 9 * SEGMENT, oldest: 7 * SEGMENT },
      },
    ];
  for (const { name, ring, low, pos, plan, from = old } of rows)
    it(name, () => {
      const found = planMapping(from, ring, SEGMENT, low, pos);
      assert.deepEqual(found, plan);
      if (found === undefined) return;
      // Every live byte stands where it stood, or is copied.
      for (let p = low; p < pos; p += 512)
        if (found.copy === undefined || p < found.copy.from) assert.equal(byteOf(found, p), byteOf(from, p), `${p}`);
    });
});

describe('R-49: LogResize', function () {
  this.timeout(60_000);
  afterEach(cleanUp);

  it('R-49 grows a log in its first lap, and an older program still opens it', () => {
    const bench = new Bench();
    bench.fill(2 * SEGMENT);
    bench.resize.begin(8 * MIB);
    bench.go();
    assert.deepEqual(bench.ended, [`done ${8 * MIB}`]);
    assert.deepEqual(bench.rig.log.mapping, { base: 0, ring: 15 * SEGMENT });
    for (const at of [20, 4096 + 20]) assert.equal(peek(bench.rig.log.path, at, 1)[0], 1);
    assert.equal(bench.rig.shared.logRing, 15 * SEGMENT);
    assert.equal(statSync(bench.rig.log.path).size, 8 * MIB);
    bench.check();
    bench.fill(20 * SEGMENT, 13 * SEGMENT);
    bench.check();
  });

  it('R-49 grows a log that wraps, which is copied behind its old end', () => {
    const bench = new Bench();
    bench.fill(9 * SEGMENT, 5 * SEGMENT);
    bench.resize.begin(8 * MIB);
    bench.go();
    assert.deepEqual(bench.ended, [`done ${8 * MIB}`]);
    assert.deepEqual(
      bench.worker.jobs.map((job) => job.do),
      ['grow', 'copy'],
    );
    assert.equal(bench.rig.log.mapping.base, 0);
    bench.check();
    // Everything that the new ring has room for is kept.
    bench.fill(18 * SEGMENT, 13 * SEGMENT);
    bench.check();
  });

  it('R-49 a growth that is too small for what wraps waits for the head, and says for whom', () => {
    const bench = new Bench();
    bench.fill(9 * SEGMENT, 5 * SEGMENT);
    bench.resize.begin(4 * MIB + SEGMENT);
    bench.go();
    assert.deepEqual(bench.ended, []);
    assert.match(
      bench.waits.join(),
      /the log has wrapped.*held by site 1.*a growth to .* or more would need no waiting/,
    );
    assert.equal(bench.resize.facts()?.state, 'waiting');
    assert.throws(() => bench.resize.begin(16 * MIB), /EPERM|is being resized to 4.5 MiB already/);
    bench.fill(bench.end + 300_000, SEGMENT);
    bench.go();
    assert.deepEqual(bench.ended, [`done ${4 * MIB + SEGMENT}`]);
    assert.equal(bench.rig.log.mapping.base, RING);
    for (const at of [20, 4096 + 20]) assert.equal(peek(bench.rig.log.path, at, 1)[0], 2);
    bench.check();
    bench.fill(25 * SEGMENT, 6 * SEGMENT);
    bench.check();
  });

  it('R-49 shrinks where everything lies before the new end, and cuts the file', () => {
    const bench = new Bench(8 * MIB);
    bench.fill(3 * SEGMENT, 2 * SEGMENT);
    bench.resize.begin(4 * MIB);
    bench.go();
    assert.deepEqual(bench.ended, [`done ${4 * MIB}`]);
    assert.equal(statSync(bench.rig.log.path).size, 4 * MIB);
    bench.check();
    bench.fill(20 * SEGMENT);
    bench.check();
  });

  it('R-49 shrinks an empty log wherever its end is', () => {
    const bench = new Bench(8 * MIB);
    bench.fill(12 * SEGMENT + 100_000, 0);
    bench.release(0);
    bench.resize.begin(4 * MIB);
    bench.go();
    assert.deepEqual(bench.ended, [`done ${4 * MIB}`]);
    assert.equal(bench.rig.log.mapping.base, 12 * SEGMENT);
    bench.check();
    bench.fill(30 * SEGMENT);
    bench.check();
  });

  for (const [name, to, behind, why] of [
    ['what it holds goes around its end', 17, 6, /EBUSY: .*goes around its end; wait until the sites/],
    ['what it holds lies beyond the new end', 14, 2, /EBUSY: .*lies beyond the new end; wait until/],
  ] as const)
    it(`R-49 does not shrink where ${name}, and takes as much as before`, () => {
      const bench = new Bench(8 * MIB);
      bench.fill(to * SEGMENT, behind * SEGMENT);
      bench.resize.begin(4 * MIB);
      bench.go();
      assert.match(bench.ended.join(), why);
      assert.equal(bench.rig.shared.logRing, 15 * SEGMENT);
      assert.equal(statSync(bench.rig.log.path).size, 8 * MIB);
      bench.check();
    });

  it('R-49 refuses sizes that no log can have: EINVAL', () => {
    const bench = new Bench();
    for (const size of [0, 4 * MIB - 512, 8 * MIB + 1, NaN])
      assert.throws(
        () => bench.resize.begin(size),
        (error: RepError) => error.errno === 'EINVAL',
        `${size}`,
      );
    assert.equal(resizedGeometry(64 * MIB, 16 * MIB), undefined);
    assert.equal(resizedGeometry(65 * MIB, 16 * MIB)?.ring, 64 * MIB);
  });

  it('on a full disk nothing is changed', () => {
    const bench = new Bench();
    bench.fill(SEGMENT);
    for (const call of ['REPLOG:ALLOCATE', 'REPLOG:ZERO', 'REPLOG:WORK-SYNC']) {
      bench.io.arm({ call, nth: 1, errno: ERRNO.ENOSPC });
      bench.resize.begin(8 * MIB);
      bench.go();
      assert.match(bench.ended.pop()!, /ENOSPC: .*no room for a log of 8 MiB, it keeps its 4 MiB/);
      assert.equal(statSync(bench.rig.log.path).size, 4 * MIB);
      bench.io.disarm();
    }
    bench.fill(9 * SEGMENT);
    bench.check();
  });

  it('! a superblock that cannot be written suspends the log until it can', () => {
    for (const nth of [1, 2])
      for (const call of ['REPLOG:SUPER', 'REPLOG:SUPER-SYNC']) {
        const bench = new Bench();
        bench.fill(9 * SEGMENT, 5 * SEGMENT);
        bench.io.arm({ call, nth, errno: ERRNO.EIO });
        bench.io.arm({ call, nth: nth + 1, errno: ERRNO.EIO });
        bench.resize.begin(8 * MIB);
        bench.go(400);
        assert.match(bench.suspended.join(), /its superblock cannot be written/);
        assert.deepEqual(bench.rig.errors, [`REPLOG:SUPER ${ERRNO.EIO}`]);
        // Neither the operator's retry nor a flush gets anything written meanwhile.
        bench.rig.write(5000);
        bench.rig.run();
        assert.notEqual(bench.rig.durable, bench.rig.appender.seq);
        bench.io.disarm();
        bench.go();
        assert.deepEqual(bench.ended, [`done ${8 * MIB}`]);
        assert.equal(bench.rig.healed, 1);
        bench.rig.settle();
        bench.check();
      }
  });

  it('! the committer writes nothing from held to release', () => {
    const bench = new Bench();
    bench.fill(SEGMENT);
    bench.rig.write(5000);
    bench.rig.committer.hold();
    bench.rig.run();
    assert.ok(bench.rig.committer.held);
    const { position } = bench.rig.committer;
    const writes = bench.io.count('REPLOG:WRITE');
    bench.rig.write(5000);
    bench.rig.flush(7);
    bench.rig.run();
    assert.deepEqual([bench.rig.committer.position, bench.io.count('REPLOG:WRITE')], [position, writes]);
    bench.rig.committer.release();
    bench.rig.settle();
    bench.check();
  });

  it('! a reader that slept over the change reads again', () => {
    const bench = new Bench();
    bench.fill(9 * SEGMENT, 5 * SEGMENT);
    const log = openLog(bench.rig.log.path, bench.io).follow(bench.rig.shared);
    const reader = new LogReader(log, { chunk: 4096 });
    reader.seekUnproven(bench.rig.log.super.head.pos);
    let reads = 0;
    const { pread } = bench.io;
    bench.io.pread = (call, fd, mem, off, len, pos) => {
      if (call === 'REPLOG:READ' && fd === log.fd && ++reads === 1) {
        // While it is in the call the log is resized, and what it is to read is written over.
        bench.io.pread = pread;
        bench.resize.begin(8 * MIB);
        bench.go();
        const r = pread(call, fd, mem, off, len, pos);
        mem.u8.fill(0xee, off, off + len);
        return r;
      }
      return pread(call, fd, mem, off, len, pos);
    };
    while (reader.next({ pos: bench.end, seq: bench.rig.durable }) === READ.BATCH);
    assert.deepEqual([reader.broken, reader.place.seq], [undefined, bench.rig.durable]);
    reader.close();
    assert.deepEqual(bench.ended, [`done ${8 * MIB}`]);
  });

  it('! a daemon that dies at any call leaves a log that goes on', () => {
    const stories: [string, number, (bench: Bench) => void][] = [
      ['grow in one lap', 8, (bench) => bench.fill(9 * SEGMENT, SEGMENT)],
      ['grow what wraps', 8, (bench) => bench.fill(9 * SEGMENT, 5 * SEGMENT)],
      ['shrink', 4, (bench) => bench.fill(3 * SEGMENT, SEGMENT)],
      [
        'shrink when empty',
        4,
        (bench) => {
          bench.fill(12 * SEGMENT + 100_000, 0);
          bench.release(0);
        },
      ],
    ];
    for (const [name, to, prepare] of stories)
      for (let nth = 1, over = false; !over; nth++) {
        const bench = new Bench(to === 8 ? 4 * MIB : 8 * MIB);
        prepare(bench);
        bench.rig.write(5000);
        bench.rig.settle();
        bench.io.arm({ call: '*', nth, crash: 'before' });
        try {
          bench.resize.begin(to * MIB);
          bench.go();
          over = true;
        } catch (error) {
          if (!(error instanceof Crash)) throw error;
        }
        bench.io.disarm();
        const log = openLog(bench.rig.log.path);
        const recovered = recover(log, new MemIndex());
        assert.equal(recovered.place.seq, bench.rig.durable, `${name}, call ${nth}: ${bench.io.calls.at(-1)}`);
        assert.ok(statSync(log.path).size >= log.size);
        // Both superblocks say the same before anything is written where they differ.
        if (log.superAlone) assert.equal(log.writeSuper({}, bench.rig.clock), 0);
        assert.equal(LogFile.open(realIo, log.path).superAlone, false);
        cleanUp();
      }
  });

  it('a file of a log that is being resized is not called truncated', () => {
    const bench = new Bench();
    bench.resize.begin(8 * MIB);
    bench.resize.step();
    bench.worker.run();
    assert.equal(openLog(bench.rig.log.path).size, 4 * MIB);
    bench.go();
    assert.equal(openLog(bench.rig.log.path).size, 8 * MIB);
    assert.equal(DATA_START + bench.rig.log.ring <= 8 * MIB, true);
  });
});
