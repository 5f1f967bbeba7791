/**
 * A file system of one simulated machine: files as bytes in three states.
 *
 *   live      what a read returns: the newest write, page cache and all; survives the death of a process
 *   pending   changes since the last successful sync, in order; at a machine's death any subset survives
 *   durable   what is there after every death
 *
 * What is assumed of a disk (the same that replog/format states): a sector of 512 bytes is written whole or not
 * at all; what was written before a successful fdatasync survives; anything later survives in any subset of
 * sectors, in any order, and of a sector written several times any version may be the one that stays.
 *
 * After a *failed* fdatasync the kernel holds the pages for clean: what did not reach the disk is still read
 * from memory, no later sync writes it, and it is gone after the machine's death, unless it is written again.
 *
 * Entries of folders (create, rename, unlink) are pending until the folder is synced; a rename is kept or lost
 * whole. Folders themselves are durable at once (they are made when a group or a site is set up).
 */
import { dirname } from 'node:path';
import type { FaultSink } from './sim-coverage.js';
import type { Rng } from './sim-random.js';

export const SECTOR = 512;

/** After so long the kernel has written an inode back by itself: what no fdatasync is sure to do. */
const WRITE_BACK_MS = 35_000;

interface AttrValue {
  value: Uint8Array | undefined;
  sinceMs: number;
}

interface Change {
  pos: number;
  /** The bytes written; absent for zeroes of `length` bytes, or for a new size where `size` stands. */
  data?: Uint8Array;
  length: number;
  /** ftruncate or an allocation: the file's new size. */
  size?: number;
}

/** How much of what was not synced survives a machine's death. */
export type CrashStyle = 'none' | 'all' | 'prefix' | 'subset' | 'mostly' | 'writes' | 'last';
export const CRASH_STYLES: readonly CrashStyle[] = ['none', 'all', 'prefix', 'subset', 'mostly', 'writes', 'last'];

export const PAGE = 16 * 1024;

interface Page {
  owner: object;
  u8: Buffer;
}

/** Bytes in pages that are shared until they are written: a copy costs next to nothing. */
class Bytes {
  size: number;
  private pages: (Page | undefined)[];
  /** Pages of another owner are not to be written. */
  private owner = {};

  constructor(size = 0, pages: (Page | undefined)[] = []) {
    this.size = size;
    this.pages = pages;
  }

  copy(): Bytes {
    this.owner = {};
    return new Bytes(this.size, this.pages.slice());
  }

  /** What page `i` holds; undefined for zeroes. */
  page(i: number): Buffer | undefined {
    return this.pages[i]?.u8;
  }

  read(pos: number, to: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length;) {
      const off = (pos + done) % PAGE;
      const n = Math.min(length - done, PAGE - off);
      const page = this.pages[(pos + done - off) / PAGE];
      if (page === undefined) to.fill(0, at + done, at + done + n);
      else to.set(page.u8.subarray(off, off + n), at + done);
      done += n;
    }
  }

  resize(size: number): void {
    if (size < this.size) {
      this.zero(size, this.size - size);
      this.pages.length = Math.min(this.pages.length, Math.ceil(size / PAGE));
    }
    this.size = size;
  }

  private writable(i: number): Buffer {
    const page = this.pages[i];
    if (page !== undefined && page.owner === this.owner) return page.u8;
    const u8 = Buffer.from(new ArrayBuffer(PAGE));
    if (page !== undefined) u8.set(page.u8);
    this.pages[i] = { owner: this.owner, u8 };
    return u8;
  }

  private write(pos: number, data: Uint8Array, from: number, to: number): void {
    for (let done = from; done < to;) {
      const off = (pos + done) % PAGE;
      const n = Math.min(to - done, PAGE - off);
      this.writable((pos + done - off) / PAGE).set(data.subarray(done, done + n), off);
      done += n;
    }
  }

  private zero(pos: number, length: number): void {
    for (let done = 0; done < length;) {
      const off = (pos + done) % PAGE;
      const n = Math.min(length - done, PAGE - off);
      const i = (pos + done - off) / PAGE;
      if (n === PAGE) this.pages[i] = undefined;
      else if (this.pages[i] !== undefined) this.writable(i).fill(0, off, off + n);
      done += n;
    }
  }

  /** Turns one bit; the byte must be there. */
  flip(pos: number, bit: number): void {
    this.writable(Math.floor(pos / PAGE))[pos % PAGE]! ^= 1 << bit;
  }

  /** Applies bytes [from, to) of a change, counted from its start. */
  apply(change: Change, from: number, to: number): void {
    const end = change.pos + to;
    if (change.data !== undefined) {
      if (end > this.size) this.size = end;
      this.write(change.pos, change.data, from, to);
    } else if (change.size !== undefined) {
      this.resize(change.size);
    } else {
      const start = Math.min(change.pos + from, this.size);
      this.zero(start, Math.min(end, this.size) - start);
    }
  }
}

export class SimFile {
  readonly ino: number;
  /** A block device: it has its size for ever, and whoever opens it exclusively has it alone. */
  block = false;
  /** Whether somebody who opened it exclusively still has it. */
  claimed: () => boolean = () => false;
  private live: Bytes;
  private durable: Bytes;
  private pending: Change[] = [];
  /** Failed syncs so far: every descriptor that was open then hears of it at its next sync (errseq_t). */
  failures = 0;
  /** Values of each attribute, newest last, and when they were set. The first is durable. */
  private readonly attrs: Map<string, AttrValue[]>;

  constructor(ino: number, live = new Bytes(), durable = new Bytes(), attrs = new Map<string, AttrValue[]>()) {
    this.ino = ino;
    this.live = live;
    this.durable = durable;
    this.attrs = attrs;
  }

  get size(): number {
    return this.live.size;
  }

  /** Copies what a read sees; all of it must be there. */
  read(pos: number, to: Uint8Array, at: number, length: number): void {
    this.live.read(pos, to, at, length);
  }

  /** The first byte at or behind `pos` that lies in no hole. */
  nextData(pos: number): number | undefined {
    for (let i = Math.floor(pos / PAGE); i * PAGE < this.size; i++)
      if (this.live.page(i) !== undefined) return Math.max(pos, i * PAGE);
    return undefined;
  }

  /** All that is in the file as a read sees it. */
  content(): Buffer {
    const out = Buffer.alloc(this.live.size);
    this.live.read(0, out, 0, out.length);
    return out;
  }

  /** Page `i` as a read sees it, not to be changed; undefined for zeroes. */
  page(i: number): Buffer | undefined {
    return this.live.page(i);
  }

  get unsynced(): number {
    return this.pending.length;
  }

  /** `owned` bytes are kept as they are; others are copied (Buffer.slice would not). */
  write(pos: number, data: Uint8Array, owned = false): void {
    this.change({ pos, data: owned ? data : new Uint8Array(data), length: data.length });
  }

  zero(pos: number, length: number): void {
    this.change({ pos, length });
  }

  setSize(size: number): void {
    this.change({ pos: 0, length: 0, size });
  }

  private change(change: Change): void {
    this.live.apply(change, 0, change.length);
    this.pending.push(change);
  }

  setAttr(name: string, value: Uint8Array, nowMs: number): void {
    const values = (this.attrs.get(name) ?? [{ value: undefined, sinceMs: -Infinity }]).concat({
      value: new Uint8Array(value),
      sinceMs: nowMs,
    });
    // What is old enough was written back by the kernel.
    const settled = values.findLastIndex(({ sinceMs }) => sinceMs <= nowMs - WRITE_BACK_MS);
    this.attrs.set(name, values.slice(Math.max(settled, 0)));
  }

  attr(name: string): Uint8Array | undefined {
    return this.attrs.get(name)?.at(-1)?.value;
  }

  /** A sync that succeeds. */
  sync(attrs = false): void {
    for (const change of this.pending) this.durable.apply(change, 0, change.length);
    this.pending = [];
    if (attrs)
      for (const [name, values] of this.attrs) this.attrs.set(name, [{ ...values.at(-1)!, sinceMs: -Infinity }]);
  }

  /** A sync that fails: some of it is on the disk, all of it counts as clean. */
  failSync(rng: Rng, seen: FaultSink = () => {}): void {
    survive(this.durable, this.pending, rng.pick(CRASH_STYLES), rng, seen);
    this.pending = [];
    this.failures++;
  }

  /** The file as it stands after the machine's death; `flips` > 0 damages that share of the unsynced sectors. */
  crashed(
    rng: Rng,
    style: CrashStyle,
    flips: number,
    nowMs: number,
    seen: FaultSink,
  ): { file: SimFile; flipped: number } {
    const durable = this.durable.copy();
    survive(durable, this.pending, style, rng, seen);
    const flipped = flips > 0 ? flip(durable, this.durable, this.pending, flips, rng) : 0;
    if (flipped > 0) seen('bit flip in what was not synced', flipped);
    const attrs = new Map<string, AttrValue[]>();
    for (const [name, values] of this.attrs) {
      const sure = Math.max(
        values.findLastIndex(({ sinceMs }) => sinceMs <= nowMs - WRITE_BACK_MS),
        0,
      );
      const kept = rng.between(sure, values.length - 1);
      if (kept < values.length - 1) seen('lost attribute');
      attrs.set(name, [{ ...values[kept]!, sinceMs: -Infinity }]);
    }
    return { file: this.as(new SimFile(this.ino, durable.copy(), durable, attrs)), flipped };
  }

  /** An exact copy of what is live, everything durable: what a process alone would find. */
  settled(): SimFile {
    return this.as(new SimFile(this.ino, this.live.copy(), this.live.copy(), new Map(this.attrs)));
  }

  private as(copy: SimFile): SimFile {
    copy.block = this.block;
    return copy;
  }

  /** Bit rot: one bit turns by itself, in what was durable as in what is read. Twice is as if nothing was. */
  rot(pos: number, bit: number): void {
    this.live.flip(pos, bit);
    this.durable.flip(pos, bit);
  }

  /** An operator's hand: changes live and durable bytes alike. */
  damage(pos: number, data: Uint8Array): void {
    this.live.apply({ pos, data, length: data.length }, 0, data.length);
    this.durable.apply({ pos, data, length: data.length }, 0, data.length);
  }
}

/** Puts that part of `pending` onto `to` which `style` lets survive, sector by sector; tells `seen` what does not. */
function survive(to: Bytes, pending: readonly Change[], style: CrashStyle, rng: Rng, seen: FaultSink): void {
  let lost = 0;
  let torn = 0;
  /** `share`: how likely each sector is to survive. */
  const keep = (change: Change, share: number): void => {
    const all = sectorsOf(change);
    const kept = share === 0 ? 0 : share === 1 ? all : keepSome(to, change, share, rng);
    if (share === 1) to.apply(change, 0, change.length);
    lost += all - kept;
    if (kept > 0 && kept < all) torn++;
  };
  if (style === 'none') {
    for (const change of pending) keep(change, 0);
  } else if (style === 'writes' || style === 'last') {
    // Requests as a disk's queue takes them: each whole or not at all.
    for (const change of pending)
      keep(change, (style === 'last' ? change === pending.at(-1) : rng.chance(0.6)) ? 1 : 0);
  } else {
    const cut = style === 'prefix' ? rng.below(pending.length + 1) : pending.length;
    const share =
      style === 'all' || style === 'prefix' ? 1 : style === 'mostly' ? 0.97 : rng.pick([0.05, 0.3, 0.5, 0.8]);
    // The last change that a prefix takes may be torn.
    pending.forEach((change, i) => keep(change, i < cut ? share : i === cut ? 0.5 : 0));
  }
  if (lost > 0) seen('lost unsynced sector', lost);
  if (torn > 0) seen('torn write', torn);
}

/** The sectors that survive. */
function keepSome(to: Bytes, change: Change, share: number, rng: Rng): number {
  let kept = 0;
  eachSector(change, (from, end) => {
    if (!rng.chance(share)) return;
    to.apply(change, from, end);
    kept++;
  });
  return kept;
}

function sectorsOf({ pos, length }: Change): number {
  return length === 0 ? 1 : Math.ceil((pos + length) / SECTOR) - Math.floor(pos / SECTOR);
}

/** Sectors that a change would not have changed are left alone: rewriting what is durable cannot harm it. */
function flip(to: Bytes, before: Bytes, pending: readonly Change[], share: number, rng: Rng): number {
  let flipped = 0;
  const old = Buffer.alloc(SECTOR);
  for (const change of pending) {
    const { data } = change;
    if (data === undefined) continue;
    eachSector(change, (from, end) => {
      const at = change.pos + from + rng.below(end - from);
      if (!rng.chance(share) || at >= to.size) return;
      before.read(change.pos + from, old, 0, end - from);
      if (old.compare(data, from, end, 0, end - from) === 0) return;
      to.flip(at, rng.below(8));
      flipped++;
    });
  }
  return flipped;
}

/** Calls back with each sector's part of a change, as a range counted from the change's start. */
function eachSector(change: Change, visit: (from: number, end: number) => void): void {
  if (change.length === 0) return visit(0, 0);
  let at = 0;
  while (at < change.length) {
    const end = Math.min(change.length, at + SECTOR - ((change.pos + at) % SECTOR));
    visit(at, end);
    at = end;
  }
}

export interface CrashOptions {
  /** The same for all files; without it each file has its own. */
  style?: CrashStyle;
  /** Share of unsynced sectors that come out damaged. */
  flips?: number;
}

/** One or more names that change at once: `undefined` removes the name. */
type EntryChange = [string, SimFile | undefined][];

export class SimDisk {
  readonly name: string;
  /** Stands for st_dev in identities. */
  readonly dev: number;
  /** Grows with each death: descriptors of an earlier life are stale. */
  life = 0;
  /** Cable pulled: every call fails with EIO until it is plugged in again. */
  unreachable = false;
  /** Monotonic time of the machine. */
  nowMs: () => number = () => 0;
  /** Told what a death takes. */
  seen: FaultSink = () => {};
  private readonly folders = new Set<string>();
  private live = new Map<string, SimFile>();
  private durable = new Map<string, SimFile>();
  private pending: EntryChange[] = [];
  private nextIno = 10;
  /**
   * True: fdatasync makes a new file's name and its attributes durable too, as file systems mostly do. False: only
   * what POSIX says: names with syncDir, attributes when the kernel has written the inode back.
   */
  readonly generous: boolean;

  constructor(name: string, dev: number, generous = false) {
    this.name = name;
    this.dev = dev;
    this.generous = generous;
    this.folders.add('/');
  }

  mkdir(dir: string): void {
    for (let at = dir; !this.folders.has(at); at = dirname(at)) this.folders.add(at);
  }

  isFolder(path: string): boolean {
    return this.folders.has(path);
  }

  find(path: string): SimFile | undefined {
    return this.live.get(path);
  }

  files(): IterableIterator<[string, SimFile]> {
    return this.live.entries();
  }

  create(path: string): SimFile {
    const file = new SimFile(this.nextIno++);
    this.enter([[path, file]]);
    return file;
  }

  /** A block device of so many bytes, all zero: nothing makes or loses it but somebody's hands. */
  plugIn(path: string, size: number): SimFile {
    const file = new SimFile(this.nextIno++);
    file.block = true;
    file.setSize(size);
    file.sync();
    put(this.live, [[path, file]]);
    put(this.durable, [[path, file]]);
    return file;
  }

  unlink(path: string): void {
    this.enter([[path, undefined]]);
  }

  rename(from: string, to: string): void {
    this.enter([
      [from, undefined],
      [to, this.live.get(from)],
    ]);
  }

  private enter(change: EntryChange): void {
    put(this.live, change);
    this.pending.push(change);
  }

  syncDir(dir: string): void {
    this.settle((path) => dirname(path) === dir);
  }

  /** Called after a successful sync of the file. */
  syncedFile(file: SimFile): void {
    if (this.generous) this.settle((path) => this.live.get(path) === file);
  }

  private settle(wanted: (path: string) => boolean): void {
    const left: EntryChange[] = [];
    for (const change of this.pending) {
      if (change.some(([path]) => wanted(path))) put(this.durable, change);
      else left.push(change);
    }
    this.pending = left;
  }

  /** The disk after the machine's death, as a disk of its own; this one stays as it is. */
  crashImage(rng: Rng, options: CrashOptions = {}): { disk: SimDisk; flipped: number } {
    const names = new Map(this.durable);
    const ordered = rng.chance(0.5);
    const cut = rng.below(this.pending.length + 1);
    this.pending.forEach((change, i) => {
      if ((ordered ? i < cut : rng.chance(0.5)) && possible(names, change)) put(names, change);
      else this.seen('lost name');
    });
    const copies = new Map<SimFile, SimFile>();
    let flipped = 0;
    for (const file of new Set(names.values())) {
      const style = options.style ?? rng.pick(CRASH_STYLES);
      const crash = file.crashed(rng, style, options.flips ?? 0, this.nowMs(), this.seen);
      flipped += crash.flipped;
      copies.set(file, crash.file);
    }
    return { disk: this.withFiles(names, copies), flipped };
  }

  /** A copy as the processes see it now, everything durable. */
  settledImage(): SimDisk {
    return this.withFiles(this.live, new Map([...this.live.values()].map((file) => [file, file.settled()])));
  }

  /** An operator's hand: the files at `paths`, or all, become what they are on `other`. */
  restore(other: SimDisk, paths: readonly string[] = [...new Set([...this.live.keys(), ...other.live.keys()])]): void {
    this.pending = [];
    for (const path of paths) {
      const file = other.live.get(path)?.settled();
      put(this.live, [[path, file]]);
      put(this.durable, [[path, file]]);
    }
  }

  /**
   * This disk and another are mounted in each other's place: all files of each, below `here` and `there`, are found
   * under the other's paths from now on, and every descriptor is stale. Names that were not synced are kept.
   */
  exchange(other: SimDisk, here: string, there: string): void {
    const moved = (files: ReadonlyMap<string, SimFile>, from: string, to: string): Map<string, SimFile> =>
      new Map([...files].map(([path, file]) => [to + path.slice(from.length), file]));
    const [ours, theirs] = [moved(this.live, here, there), moved(other.live, there, here)];
    for (const [disk, files] of [[this, theirs] as const, [other, ours] as const]) {
      disk.live = files;
      disk.durable = new Map(files);
      disk.pending = [];
      disk.life++;
      disk.nextIno = Math.max(this.nextIno, other.nextIno);
    }
  }

  private withFiles(names: ReadonlyMap<string, SimFile>, copies: ReadonlyMap<SimFile, SimFile>): SimDisk {
    const disk = new SimDisk(this.name, this.dev, this.generous);
    for (const dir of this.folders) disk.folders.add(dir);
    for (const [path, file] of names) disk.live.set(path, copies.get(file)!);
    disk.durable = new Map(disk.live);
    disk.nextIno = this.nextIno;
    disk.nowMs = this.nowMs;
    disk.seen = this.seen;
    return disk;
  }

  /** The machine dies and comes back: this disk becomes its own crash image, and every descriptor is stale. */
  crash(rng: Rng, options: CrashOptions = {}): number {
    const { disk, flipped } = this.crashImage(rng, options);
    this.live = disk.live;
    this.durable = disk.durable;
    this.pending = [];
    this.life++;
    return flipped;
  }
}

/** A rename whose file never got its old name cannot have happened: no file system gives a file two names that way. */
function possible(names: ReadonlyMap<string, SimFile>, change: EntryChange): boolean {
  return change.length === 1 || names.get(change[0]![0]) === change[1]![1];
}

function put(names: Map<string, SimFile>, change: EntryChange): void {
  for (const [path, file] of change) {
    if (file === undefined) names.delete(path);
    else names.set(path, file);
  }
}
