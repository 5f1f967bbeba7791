/** A log in a file, a window over it, and the machines around them, driven by hand. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../../src/base/clock.js';
import { realIo, type Io } from '../../../src/base/io.js';
import * as sys from '../../../src/base/sys.js';
import { MIB } from '../../../src/base/units.js';
import type { DirtyFact, Index, IndexChange, LinkFact, ReignFact, SegmentFact } from '../../../src/index/contract.js';
import type { LogPlaceLike } from '../../../src/index/place.js';
import { Appender } from '../../../src/replog/appender.js';
import { Committer, type CommitterOptions } from '../../../src/replog/committer.js';
import { REC, type LogPlace } from '../../../src/replog/format.js';
import { obtainLog } from '../../../src/replog/logcreate.js';
import { LogFile } from '../../../src/replog/logfile.js';
import type { ClosedSegment } from '../../../src/replog/segments.js';
import { Shared } from '../../../src/replog/shared.js';
import { LogSpace } from '../../../src/replog/space.js';
import { S_UNIQUE, W, Window, windowShape } from '../../../src/replog/window.js';

export const LOG_ID = '0123456789abcdeffedcba9876543210';
export const INDEX_ID = 'aaaaaaaabbbbbbbbccccccccdddddddd';

export class TestClock implements Clock {
  ms = 1000;
  us = 1_700_000_000_000_000;
  monoMs = (): number => this.ms;
  wallUs = (): number => this.us++;
}

const folders: string[] = [];

/** A folder that goes after the suite (`afterEach(cleanUp)`). */
export function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), 'reptool-replog-'));
  folders.push(dir);
  return dir;
}

const cleanups: (() => void)[] = [];

export function cleanUp(): void {
  for (const work of cleanups.splice(0).reverse()) work();
  for (const dir of folders.splice(0)) rmSync(dir, { recursive: true, force: true });
}

export function makeWindow(place: LogPlace, ring = MIB): Window {
  const fd = sys.memfdCreate('window', 0);
  sys.ftruncate(fd, windowShape(ring).size);
  const window = Window.map(fd, ring);
  closeSync(fd);
  window.format(place);
  cleanups.push(() => window.mem.unmap());
  return window;
}

export interface Answer {
  unique: number;
  bytes: number;
  errno: number;
}

export interface RigOptions {
  size?: number;
  ring?: number;
  io?: Io;
  committer?: CommitterOptions;
  log?: LogFile;
  place?: LogPlace;
  path?: string;
}

export class Rig {
  readonly clock = new TestClock();
  readonly shared = new Shared();
  readonly answers: Answer[] = [];
  readonly errors: string[] = [];
  readonly segments: ClosedSegment[] = [];
  healed = 0;
  readonly log: LogFile;
  readonly window: Window;
  readonly space: LogSpace;
  appender: Appender;
  committer: Committer;
  private unique = 1;

  constructor(options: RigOptions = {}) {
    this.log = options.log ?? newLog(options);
    this.window = makeWindow(options.place ?? this.log.super.checkpoint, options.ring);
    this.shared.logHead = this.log.super.head.pos;
    this.shared.logRing = this.log.ring;
    this.space = new LogSpace(this.window, this.shared, this.log.segment);
    this.appender = new Appender(this.window, this.clock, this.space);
    this.appender.reign = 1;
    this.committer = this.newCommitter(options.committer);
  }

  newCommitter(options: CommitterOptions = {}): Committer {
    return new Committer(
      {
        log: this.log,
        window: this.window,
        shared: this.shared,
        clock: this.clock,
        answer: { answer: (lo, _hi, bytes, errno) => void this.answers.push({ unique: lo, bytes, errno }) },
        events: {
          logError: (errno, call) => void this.errors.push(`${call} ${errno}`),
          logHealed: () => void this.healed++,
          segmentClosed: (segment) => void this.segments.push(segment),
        },
      },
      options,
    );
  }

  get durable(): number {
    return this.window.seqOf(W.DURABLE, this.appender.seq);
  }

  /** Appends a WRITE of `bytes` bytes of value `fill`. */
  write(bytes: number, fill = 0x5a, offset = 0, device = 0): number {
    const { window, appender } = this;
    window.u8.fill(0, appender.slot(), appender.slot() + 80);
    window.dv.setUint32(appender.slot() + S_UNIQUE, this.unique++, true);
    window.u8.fill(fill, appender.payload(), appender.payload() + bytes);
    return appender.seal(REC.WRITE, device, offset, bytes, bytes, bytes);
  }

  tag(name: string): number {
    return this.appender.appendControl(REC.TAG, 0, Buffer.from(name));
  }

  /** Queues a flush of all records so far. */
  flush(unique: number): void {
    this.shared.pushFlush(unique, 0, this.appender.seq, 0);
  }

  /** Steps until nothing is due, without letting time pass. */
  run(): void {
    for (let i = 0; i < 100_000; i++) if (this.committer.step() > 0) return;
    throw new Error('the committer does not come to rest');
  }

  /** Lets time pass until all is durable. */
  settle(): void {
    for (let i = 0; i < 100 && this.durable !== this.appender.seq; i++) {
      this.run();
      this.clock.ms += 10;
    }
    this.run();
  }

  /** As if everything durable were applied and confirmed: the window is empty, the log's space free. */
  release(): void {
    const { window } = this;
    const durable = this.durable;
    window.storeSeq(W.APPLIED, durable);
    window.storeSeq(W.HEAD, durable);
    this.shared.logHead = window.placeBefore(durable).pos;
  }
}

export function newLog(options: RigOptions = {}): LogFile {
  const path = options.path ?? join(scratch(), 'replog');
  const spec = {
    size: options.size ?? 4 * MIB,
    logId: LOG_ID,
    indexId: INDEX_ID,
    indexGeneration: 0,
    group: 'default',
  };
  const { log } = obtainLog(options.io ?? realIo, path, 'create', spec, new TestClock());
  cleanups.push(() => log.close());
  return log;
}

export function openLog(path: string, io: Io = realIo): LogFile {
  const log = LogFile.open(io, path);
  cleanups.push(() => log.close());
  return log;
}

/** Changes bytes of a file behind everyone's back. */
export function poke(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

export function peek(path: string, at: number, length: number): Buffer {
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, at);
  closeSync(fd);
  return bytes;
}

/** Flips one bit of the byte at `at`. */
export function flip(path: string, at: number): void {
  const byte = peek(path, at, 1);
  byte[0]! ^= 1;
  poke(path, at, byte);
}

/** The index contract in memory. */
export class MemIndex implements Index {
  id = INDEX_ID;
  generation = 0;
  fail: Error | undefined;
  onCommit: (() => void) | undefined;
  readonly changes: IndexChange[] = [];
  private readonly linkMap = new Map<number, LinkFact>();
  private place: LogPlaceLike | undefined;
  private dirtyFacts: DirtyFact[] = [];

  checkpoint = (): LogPlaceLike | undefined => this.place;
  links = (): LinkFact[] => [...this.linkMap.values()].map((link) => ({ ...link }));
  reigns = (): ReignFact[] => this.changes.flatMap((change) => change.reigns ?? []);
  segments = (): Omit<SegmentFact, 'extents'>[] => this.changes.flatMap((change) => change.segments ?? []);
  extents = (): undefined => undefined;
  dirty = (link: number): DirtyFact[] => this.dirtyFacts.filter((fact) => fact.link === link);
  commit = (change: IndexChange): number => {
    if (this.fail) throw this.fail;
    this.changes.push(change);
    if (change.checkpoint) this.place = { ...change.checkpoint };
    for (const link of change.links ?? []) this.linkMap.set(link.nr, { ...link });
    for (const nr of change.dropLinks ?? []) this.linkMap.delete(nr);
    this.dirtyFacts = this.dirtyFacts.filter(
      ({ link, device }) =>
        !change.dropDirty?.some((gone) => gone.link === link && (gone.device ?? device) === device) &&
        !change.dirty?.some((fact) => fact.link === link && fact.device === device),
    );
    this.dirtyFacts.push(...(change.dirty ?? []));
    this.dirtyFacts = this.dirtyFacts.filter(({ link }) => !change.dropLinks?.includes(link));
    this.onCommit?.();
    return ++this.generation;
  };
  close = async (): Promise<void> => {};
}

export function link(nr: number, cursor: LogPlaceLike, sync: LinkFact['sync'] = 'in-order'): LinkFact {
  return { nr, cursor: { ...cursor }, reign: 1, sync, paused: false };
}
