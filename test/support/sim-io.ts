/**
 * `Io` over simulated disks, with one place where every call can fail, be cut short or be the last one.
 * A SimIo belongs to one process: when that is killed, each later call throws again, whoever caught the first.
 */
import { dirname } from 'node:path';
import { ERRNO } from '../../src/base/errors.js';
import type { FileInfo, Io, IoCall } from '../../src/base/io.js';
import type { IoVec, Mem } from '../../src/base/mem.js';
import { O_CREAT, O_DIRECT, O_EXCL } from '../../src/base/sys.js';
import type { WriteList } from '../../src/base/writelist.js';
import type { FaultKind, FaultSink } from './sim-coverage.js';
import type { SimDisk, SimFile } from './sim-disk.js';
import type { Rng } from './sim-random.js';

const O_TRUNC = 0x200;
const O_ACCMODE = 3;

/** The process is gone: not an error that the product may handle. */
export class SimKill extends Error {
  constructor(what: string) {
    super(`killed ${what}`);
    this.name = 'SimKill';
  }
}

export type IoKind = 'open' | 'read' | 'write' | 'sync' | 'space' | 'name' | 'attr' | 'facts' | 'index';

export interface CallFacts {
  /** Counted over the whole run, from 1. */
  n: number;
  call: IoCall;
  kind: IoKind;
  path: string;
}

/** What happens to one call. `during` cuts a write short, then kills; for the rest it is `before`. */
export interface Verdict {
  kill?: 'before' | 'during' | 'after';
  errno?: number;
  /** Share of a read or write that is done, 0…1. */
  short?: number;
  /** Called behind the effect, before the caller hears of it. */
  after?: () => void;
}

export interface Faults {
  decide(facts: CallFacts): Verdict | undefined;
}

/** What outlives processes and is shared by them: disks by path, the call counter, the dice. */
export class SimWorld {
  readonly rng: Rng;
  calls = 0;
  faults: Faults | undefined;
  /** Told of each fault that a call met. */
  seen: FaultSink = () => {};
  /** Other threads may run while one is in a call: asked before and after each. */
  between: (() => void) | undefined;
  /** Last calls, newest last, for the report of a failure. */
  readonly trace: string[] = [];
  /** Every call goes into the trace. */
  traceCalls = false;
  /** How often each call name was made. */
  readonly names = new Map<string, number>();
  private readonly mounts: { at: string; disk: SimDisk }[] = [];

  constructor(rng: Rng) {
    this.rng = rng;
  }

  mount(at: string, disk: SimDisk): void {
    const i = this.mounts.findIndex((mount) => mount.at === at);
    if (i >= 0) this.mounts.splice(i, 1);
    this.mounts.push({ at, disk });
    this.mounts.sort((a, b) => b.at.length - a.at.length);
    disk.mkdir(at);
  }

  diskOf(path: string): SimDisk | undefined {
    return this.mounts.find(({ at }) => path === at || path.startsWith(`${at}/`))?.disk;
  }

  note(text: string): void {
    this.trace.push(text);
    if (this.trace.length > 400) this.trace.splice(0, 200);
  }

  /** Counts a call and asks what is to become of it. */
  enter(call: IoCall, kind: IoKind, path: string): Verdict | undefined {
    const n = ++this.calls;
    this.names.set(call, (this.names.get(call) ?? 0) + 1);
    return this.faults?.decide({ n, call, kind, path });
  }
}

interface Descriptor {
  path: string;
  disk: SimDisk;
  life: number;
  /** Undefined for a folder. */
  file: SimFile | undefined;
  direct: boolean;
  writable: boolean;
  /** Failures of the file that this descriptor has been told of. */
  told: number;
}

const ERR = (errno: number): number => -errno;

const NAMES = 'failed name, size or attribute' as const;

const FAILED: Record<IoKind, FaultKind> = {
  ...{ read: 'failed read', write: 'failed write', sync: 'failed sync', open: 'failed open' },
  ...{ name: NAMES, attr: NAMES, facts: NAMES, space: NAMES, index: 'failed commit of the index' },
};

export class SimIo implements Io {
  dead = false;
  private readonly world: SimWorld;
  private readonly open_ = new Map<number, Descriptor>();
  private nextFd = 100;

  constructor(world: SimWorld) {
    this.world = world;
  }

  /** Descriptors that are open now. */
  get openCount(): number {
    return this.open_.size;
  }

  kill(what: string): never {
    this.dead = true;
    throw new SimKill(what);
  }

  /** Runs one call through the fault seam. `effect` does it, wholly or its first `share`. */
  through(call: IoCall, kind: IoKind, path: string, effect: (share: number) => number): number {
    if (this.dead) throw new SimKill(`already, before ${call}`);
    this.world.between?.();
    const verdict = this.world.enter(call, kind, path);
    if (verdict === undefined) {
      const result = effect(1);
      if (this.world.traceCalls) this.world.note(`    ${call} ${path} = ${result} (call ${this.world.calls})`);
      this.world.between?.();
      return result;
    }
    const where = `${call} ${path} (call ${this.world.calls})`;
    this.world.note(`  fault ${JSON.stringify(verdict)} at ${where}`);
    if (verdict.kill === 'before') this.kill(`before ${where}`);
    if (verdict.kill === 'during') {
      if (kind === 'write') effect(this.world.rng.real());
      this.kill(`during ${where}`);
    }
    if (verdict.errno !== undefined) {
      this.world.seen(verdict.errno === ERRNO.ENOSPC ? 'full disk' : FAILED[kind]);
      // A failed write may have written something, a failed sync synced something.
      if (kind === 'write' && this.world.rng.chance(0.5)) effect(this.world.rng.real());
      if (kind === 'sync') effect(-1);
      return ERR(verdict.errno);
    }
    if (verdict.short !== undefined) this.world.seen(kind === 'read' ? 'short read' : 'short write');
    const result = effect(verdict.short ?? 1);
    verdict.after?.();
    if (verdict.kill === 'after') this.kill(`after ${where}`);
    this.world.between?.();
    return result;
  }

  private disk(path: string): SimDisk | number {
    const disk = this.world.diskOf(path);
    if (disk === undefined) return ERR(ERRNO.ENOENT);
    return disk.unreachable ? ERR(ERRNO.EIO) : disk;
  }

  private descriptor(fd: number): Descriptor | number {
    const d = this.open_.get(fd);
    if (d === undefined) throw new Error(`the product used descriptor ${fd}, which is not open`);
    return d.disk.unreachable || d.life !== d.disk.life ? ERR(ERRNO.EIO) : d;
  }

  private onFile(call: IoCall, kind: IoKind, fd: number, effect: (f: SimFile, d: Descriptor, share: number) => number) {
    const path = this.open_.get(fd)?.path ?? `fd ${fd}`;
    return this.through(call, kind, path, (share) => {
      const d = this.descriptor(fd);
      if (typeof d === 'number') return d;
      if (d.file === undefined) return ERR(ERRNO.EISDIR);
      if (!d.writable && (kind === 'write' || kind === 'space')) return ERR(ERRNO.EACCES);
      return effect(d.file, d, share);
    });
  }

  open(call: IoCall, path: string, flags: number): number {
    return this.through(call, 'open', path, () => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      const writable = (flags & O_ACCMODE) !== 0;
      let file = disk.find(path);
      if (file === undefined && !disk.isFolder(path)) {
        if ((flags & O_CREAT) === 0 || !disk.isFolder(dirname(path))) return ERR(ERRNO.ENOENT);
        file = disk.create(path);
      } else if ((flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL)) {
        return ERR(ERRNO.EEXIST);
      } else if (file === undefined && writable) {
        return ERR(ERRNO.EISDIR);
      }
      const alone = file?.block === true && (flags & O_EXCL) !== 0;
      if (alone && file!.claimed()) return ERR(ERRNO.EBUSY);
      if ((flags & O_TRUNC) !== 0 && file?.block !== true) file?.setSize(0);
      const fd = this.nextFd++;
      const { life } = disk;
      if (alone) file!.claimed = () => !this.dead && this.open_.has(fd) && disk.life === life;
      this.open_.set(fd, {
        path,
        disk,
        life,
        file,
        direct: (flags & O_DIRECT) !== 0,
        writable,
        told: file?.failures ?? 0,
      });
      return fd;
    });
  }

  close(call: IoCall, fd: number): number {
    const { path } = this.open_.get(fd) ?? { path: `fd ${fd}` };
    const rc = this.through(call, 'name', path, () => {
      if (!this.open_.delete(fd)) throw new Error(`the product closed descriptor ${fd}, which is not open`);
      return 0;
    });
    // Whatever close says, the descriptor is gone.
    if (rc < 0) this.open_.delete(fd);
    return rc;
  }

  private facts(call: IoCall, path: string, find: () => { disk: SimDisk; file: SimFile | undefined } | number) {
    let info: FileInfo | undefined;
    const rc = this.through(call, 'facts', path, () => {
      const found = find();
      if (typeof found === 'number') return found;
      const { disk, file } = found;
      info = {
        size: file?.size ?? 4096,
        kind: file === undefined ? 'dir' : file.block ? 'block' : 'file',
        id: file?.block === true ? blockId(disk.dev, file.ino) : `${disk.dev}:${file?.ino ?? 2}`,
        allocated: file?.size ?? 4096,
      };
      return 0;
    });
    return info === undefined || rc < 0 ? rc : info;
  }

  info(call: IoCall, fd: number): FileInfo | number {
    return this.facts(call, this.open_.get(fd)?.path ?? `fd ${fd}`, () => this.descriptor(fd));
  }

  stat(call: IoCall, path: string): FileInfo | number {
    return this.facts(call, path, () => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      const file = disk.find(path);
      return file === undefined && !disk.isFolder(path) ? ERR(ERRNO.ENOENT) : { disk, file };
    });
  }

  pread(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
    return this.onFile(call, 'read', fd, (file, d, share) => {
      if (d.direct && misaligned(mem.addr + off, len, pos)) return ERR(ERRNO.EINVAL);
      const n = cut(Math.min(len, Math.max(0, file.size - pos)), share);
      file.read(pos, mem.u8, off, n);
      return n;
    });
  }

  pwrite(call: IoCall, fd: number, mem: Mem, off: number, len: number, pos: number): number {
    return this.onFile(call, 'write', fd, (file, d, share) => {
      if (d.direct && misaligned(mem.addr + off, len, pos)) return ERR(ERRNO.EINVAL);
      if (file.block && pos + len > file.size) return ERR(ERRNO.ENOSPC);
      const done = cut(len, share);
      file.write(pos, mem.u8.subarray(off, off + done));
      return done;
    });
  }

  pwritev(call: IoCall, fd: number, vec: IoVec, pos: number): number {
    return this.onFile(call, 'write', fd, (file, d, share) => {
      const bytes = new Uint8Array(vec.total);
      let at = 0;
      for (let i = 0; i < vec.count; i++) {
        const mem = vec.mems[i]!;
        const off = vec.offs[i]!;
        const len = vec.lens[i]!;
        if (d.direct && misaligned(mem.addr + off, len, pos + at)) return ERR(ERRNO.EINVAL);
        bytes.set(mem.u8.subarray(off, off + len), at);
        at += len;
      }
      if (at !== vec.total) throw new Error(`an IoVec of ${vec.total} bytes holds ${at}`);
      if (file.block && pos + at > file.size) return ERR(ERRNO.ENOSPC);
      const done = cut(at, share);
      file.write(pos, bytes.subarray(0, done), true);
      return done;
    });
  }

  /** In any order; a death in between leaves any subset done, one of them torn. */
  pwriteMany(call: IoCall, list: WriteList): void {
    const order = Array.from({ length: list.count }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const k = this.world.rng.below(i + 1);
      [order[i], order[k]] = [order[k]!, order[i]!];
    }
    for (const i of order) list.results[i] = this.pwritev(call, list.fds[i]!, list.vecs[i]!, list.positions[i]!);
  }

  /** Holes are pages that nothing was written to since they were zeroed. */
  nextData(call: IoCall, fd: number, pos: number): number {
    return this.onFile(call, 'facts', fd, (file) => file.nextData(pos) ?? ERR(ERRNO.ENXIO));
  }

  fdatasync(call: IoCall, fd: number): number {
    return this.onFile(call, 'sync', fd, (file, d, share) => {
      if (share < 0) {
        file.failSync(this.world.rng, this.world.seen);
        d.told = file.failures;
        return 0;
      }
      file.sync(d.disk.generous);
      d.disk.syncedFile(file);
      if (d.told === file.failures) return 0;
      d.told = file.failures;
      return ERR(ERRNO.EIO);
    });
  }

  fallocate(call: IoCall, fd: number, mode: number, pos: number, len: number): number {
    return this.onFile(call, 'space', fd, (file) => {
      if (file.block && (mode & 1) === 0) return ERR(ERRNO.EOPNOTSUPP);
      if (mode === 0) {
        if (pos + len > file.size) file.setSize(pos + len);
      } else if (mode === 3 || mode === 17) {
        file.zero(pos, Math.max(0, Math.min(len, file.size - pos)));
      } else if (mode === 16) {
        if (pos + len > file.size) file.setSize(pos + len);
        file.zero(pos, len);
      } else if (mode !== 1) {
        return ERR(ERRNO.EOPNOTSUPP);
      }
      return 0;
    });
  }

  ftruncate(call: IoCall, fd: number, size: number): number {
    return this.onFile(call, 'space', fd, (file) => {
      if (file.block) return ERR(ERRNO.EINVAL);
      file.setSize(size);
      return 0;
    });
  }

  replaceFile(call: IoCall, path: string, text: string): number {
    const temporary = `${path}.new`;
    const make = this.through(call, 'write', temporary, (share) => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      if (!disk.isFolder(dirname(path))) return ERR(ERRNO.ENOENT);
      const file = disk.find(temporary) ?? disk.create(temporary);
      file.setSize(0);
      const bytes = Buffer.from(text);
      file.write(0, bytes.subarray(0, cut(bytes.length, share)));
      return 0;
    });
    if (make < 0) return make;
    const sync = this.through(call, 'sync', temporary, (share) => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      const file = disk.find(temporary)!;
      // What a short count left out is written before the sync, as the real one does.
      if (share >= 0 && file.size < Buffer.byteLength(text)) file.write(0, Buffer.from(text));
      if (share < 0) file.failSync(this.world.rng, this.world.seen);
      else file.sync();
      return 0;
    });
    if (sync < 0) return sync;
    const rename = this.through(call, 'name', path, () => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      disk.rename(temporary, path);
      return 0;
    });
    return rename < 0 ? rename : this.syncDir(call, dirname(path));
  }

  readFile(call: IoCall, path: string): string | number {
    let text = '';
    const rc = this.through(call, 'read', path, () => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      const file = disk.find(path);
      if (file === undefined) return ERR(ERRNO.ENOENT);
      text = file.content().toString('utf8');
      return 0;
    });
    return rc < 0 ? rc : text;
  }

  unlink(call: IoCall, path: string): number {
    return this.through(call, 'name', path, () => {
      const disk = this.disk(path);
      if (typeof disk === 'number') return disk;
      if (disk.find(path) === undefined) return ERR(ERRNO.ENOENT);
      disk.unlink(path);
      return 0;
    });
  }

  rename(call: IoCall, from: string, to: string): number {
    return this.through(call, 'name', from, () => {
      const disk = this.disk(from);
      if (typeof disk === 'number') return disk;
      if (disk.find(from) === undefined) return ERR(ERRNO.ENOENT);
      disk.rename(from, to);
      return 0;
    });
  }

  mkdir(call: IoCall, dir: string): number {
    return this.through(call, 'name', dir, () => {
      const disk = this.disk(dir);
      if (typeof disk === 'number') return disk;
      disk.mkdir(dir);
      return 0;
    });
  }

  syncDir(call: IoCall, dir: string): number {
    return this.through(call, 'sync', dir, (share) => {
      const disk = this.disk(dir);
      if (typeof disk === 'number') return disk;
      if (share >= 0) disk.syncDir(dir);
      return 0;
    });
  }

  setXattr(call: IoCall, fd: number, name: string, value: Uint8Array): number {
    return this.onFile(call, 'attr', fd, (file, { disk }) => {
      file.setAttr(name, value, disk.nowMs());
      return 0;
    });
  }

  getXattr(call: IoCall, fd: number, name: string): Uint8Array | number {
    let value: Uint8Array | undefined;
    const rc = this.onFile(call, 'attr', fd, (file) => {
      value = file.attr(name)?.slice();
      return value === undefined ? ERR(ERRNO.ENODATA) : 0;
    });
    return rc < 0 ? rc : value!;
  }
}

/** A device number that the machine below has none of: no kernel gives out this major number. */
function blockId(dev: number, ino: number): string {
  const minor = dev * 256 + ino;
  return `blk:${(((minor >> 8) << 20) | (0xfff << 8) | (minor & 0xff)) >>> 0}`;
}

/** O_DIRECT: memory, length and position in whole sectors. */
function misaligned(addr: number, len: number, pos: number): boolean {
  return addr % 512 !== 0 || len % 512 !== 0 || pos % 512 !== 0;
}

/** A short count, in whole sectors where there are any, so that a loop over O_DIRECT can go on. */
function cut(len: number, share: number): number {
  if (share >= 1) return len;
  const part = Math.floor(len * share);
  return len >= 512 ? Math.max(part - (part % 512), 512) : Math.min(len, Math.max(part, 1));
}
