/**
 * The fuse-native transport between the binding and the device code. Reads, writes and flushes of devices go to
 * the same sink as the kernel loop's, on the thread that the binding runs on; everything else becomes a request
 * of the kernel's protocol and goes where the kernel loop would send it, so that there is one tree for both.
 *
 * A write for which there is no room is kept with its callback: the thread of libfuse behind it waits, and with
 * it whoever wrote. Nothing is dropped, since nothing could be sent again.
 */
import { ERRNO } from '../base/errors.js';
import type { Mem } from '../base/mem.js';
import type { LoopSink } from './loop.js';
import { nativeStat, type Done, type NativeOps, type NativeStat } from './native-binding.js';
import * as client from './proto-client.js';
import { FATTR, FUSE, FUSE_ROOT_ID } from './proto.js';

/** Answers of the device code: each unique is a place in a table of callbacks. The high half is always 0. */
export class NativeReply {
  private readonly waiting: (Done | undefined)[] = [undefined];
  private readonly into: (Buffer | undefined)[] = [undefined];
  private readonly free: number[] = [];

  /** A unique for an operation; `into` takes the data that it reads. Never 0, which stands for none. */
  take(done: Done, into?: Buffer): number {
    const at = this.free.pop() ?? this.waiting.length;
    this.waiting[at] = done;
    this.into[at] = into;
    return at;
  }

  get open(): number {
    return this.waiting.length - 1 - this.free.length;
  }

  wrote(lo: number, _hi: number, bytes: number): void {
    this.settle(lo, bytes);
  }

  status(lo: number, _hi: number, rc: number): void {
    this.settle(lo, rc);
  }

  data(lo: number, _hi: number, mem: Mem, off: number, len: number): void {
    const into = this.into[lo];
    if (into !== undefined && len > 0) mem.u8.copy(into, 0, off, off + len);
    this.settle(lo, len);
  }

  /** libfuse 2 knows no LSEEK; the kernel finds positions itself. */
  position(lo: number, _hi: number, _offset: number): void {
    this.settle(lo, -ERRNO.ENOSYS);
  }

  private settle(at: number, rc: number): void {
    const done = this.waiting[at];
    if (done === undefined) return;
    this.waiting[at] = undefined;
    this.into[at] = undefined;
    this.free.push(at);
    done(rc);
  }
}

interface Handle {
  node: number;
  /** As the tree calls it. */
  fh: number;
}

interface Stalled {
  node: number;
  offset: number;
  data: Buffer;
  done: Done;
}

/** Answers to a request of the protocol, as the tree writes it. */
type Answered = (reply: Buffer) => void;

const MOST_HANDLES = 0x7fffffff;
const DIR_CHUNK = 65536;

export class NativeLoop implements NativeOps {
  private readonly sink: LoopSink;
  private readonly reply: NativeReply;
  private readonly send: (request: Buffer) => void;
  private readonly handles = new Map<number, Handle>();
  private lastHandle = 0;
  private readonly asked = new Map<number, Answered>();
  private lastUnique = 0;
  private readonly stalled: Stalled[] = [];
  private stopped = false;

  /** `send` takes requests that are not a device's; their replies come back through `replied`. */
  constructor(sink: LoopSink, reply: NativeReply, send: (request: Buffer) => void) {
    this.sink = sink;
    this.reply = reply;
    this.send = send;
  }

  /** Looks around: room may have come up, another thread may have rung. Due whenever one did, and every second. */
  turn(): void {
    this.sink.rang();
    if (this.stalled.length === 0) this.sink.prepare();
    while (this.stalled.length > 0) {
      const { node, offset, data, done } = this.stalled[0]!;
      if (!this.submit(node, offset, data, done)) return;
      this.stalled.shift();
    }
  }

  /** From now on every operation fails; those that wait for room do at once. */
  stop(): void {
    this.stopped = true;
    for (const { done } of this.stalled.splice(0)) done(-ERRNO.EIO);
  }

  // --- devices -------------------------------------------------------------------------------------------

  read(_at: string, fh: number, into: Buffer, size: number, offset: number, done: Done): void {
    const handle = this.handles.get(fh);
    if (handle === undefined || this.stopped) return done(-ERRNO.EIO);
    if (!this.isDevice(handle)) {
      const request = client.readRequest(FUSE.READ, handle.node, handle.fh, offset, size);
      return this.ask(request, (body) => done(body.copy(into)), done);
    }
    // Bookkeeping once per request; a read needs no room.
    this.sink.prepare();
    this.sink.read(handle.node, offset, size, this.reply.take(done, into), 0);
    this.sink.resting();
  }

  write(_at: string, fh: number, data: Buffer, size: number, offset: number, done: Done): void {
    const handle = this.handles.get(fh);
    if (handle === undefined || this.stopped) return done(-ERRNO.EIO);
    const bytes = data.subarray(0, size);
    if (!this.isDevice(handle)) {
      const request = client.writeRequest(handle.node, handle.fh, offset, bytes);
      return this.ask(request, (body) => done(client.getWritten(body)), done);
    }
    // In order behind those that wait; libfuse keeps the data where it is until `done`.
    if (this.stalled.length === 0 && this.submit(handle.node, offset, bytes, done)) return;
    this.stalled.push({ node: handle.node, offset, data: bytes, done });
  }

  /** False where there is no room for it just now. */
  private submit(node: number, offset: number, data: Buffer, done: Done): boolean {
    const { sink } = this;
    if (!sink.prepare()) return false;
    sink.bodyMem.u8.set(data, sink.bodyAt);
    // No flags: the kernel's page cache, which is in use here, sends FSYNC after an O_DSYNC write.
    sink.write(node, offset, data.length, 0, this.reply.take(done), 0);
    return true;
  }

  /** Writes that wait for room are not acknowledged, so no flush has to wait for them. */
  fsync(_at: string, _dataOnly: number, fh: number, done: Done): void {
    const handle = this.handles.get(fh);
    if (handle === undefined || this.stopped) return done(-ERRNO.EIO);
    if (!this.isDevice(handle)) return this.plain(client.bareRequest(FUSE.FSYNC, handle.node), done);
    this.sink.prepare();
    this.sink.fsync(handle.node, this.reply.take(done), 0);
  }

  private isDevice(handle: Handle): boolean {
    return handle.node >= this.sink.firstDeviceNode;
  }

  // --- the tree ------------------------------------------------------------------------------------------

  /** An answer to a request that went through `send`. */
  replied(reply: Buffer): void {
    const unique = client.replyUnique(reply);
    const answered = this.asked.get(unique);
    this.asked.delete(unique);
    answered?.(reply);
  }

  getattr(at: string, done: (rc: number, stat?: NativeStat) => void): void {
    this.resolve(at, (node) => {
      if (node < 0) return done(node);
      this.attributes(node, undefined, done);
    });
  }

  fgetattr(at: string, fh: number, done: (rc: number, stat?: NativeStat) => void): void {
    const handle = this.handles.get(fh);
    if (handle === undefined) return this.getattr(at, done);
    this.attributes(handle.node, handle.fh, done);
  }

  private attributes(node: number, fh: number | undefined, done: (rc: number, stat?: NativeStat) => void): void {
    this.ask(client.getattrRequest(node, fh), (body) => done(0, nativeStat(client.getAttrOut(body))), done);
  }

  readdir(at: string, done: (rc: number, names?: string[]) => void): void {
    this.resolve(at, (node) => {
      if (node < 0) return done(node);
      const names: string[] = [];
      const from = (offset: number): void =>
        this.ask(
          client.readRequest(FUSE.READDIR, node, 0, offset, DIR_CHUNK),
          (body) => {
            const some = client.getDirents(body);
            if (some.length === 0) return done(0, names);
            names.push(...some.map(({ name }) => name));
            from(some[some.length - 1]!.off);
          },
          done,
        );
      from(0);
    });
  }

  statfs(_at: string, done: (rc: number, statfs?: Record<string, number>) => void): void {
    this.ask(
      client.bareRequest(FUSE.STATFS, FUSE_ROOT_ID),
      (body) => {
        const s = client.getStatfs(body);
        const { blocks, bfree, bavail, files, ffree, bsize } = s;
        done(0, { bsize, frsize: bsize, blocks, bfree, bavail, files, ffree, favail: ffree, namemax: s.namelen });
      },
      done,
    );
  }

  open(at: string, flags: number, done: (rc: number, fh?: number) => void): void {
    this.resolve(at, (node) => {
      if (node < 0) return done(node);
      this.ask(
        client.openRequest(node, flags),
        (body) => {
          do this.lastHandle = this.lastHandle >= MOST_HANDLES ? 1 : this.lastHandle + 1;
          while (this.handles.has(this.lastHandle));
          this.handles.set(this.lastHandle, { node, fh: client.getOpenFh(body) });
          done(0, this.lastHandle);
        },
        done,
      );
    });
  }

  release(_at: string, fh: number, done: Done): void {
    const handle = this.handles.get(fh);
    this.handles.delete(fh);
    if (handle === undefined) return done(0);
    // Of devices, too: the tree counts who has one open.
    this.plain(client.releaseRequest(handle.node, handle.fh), done);
  }

  truncate(at: string, size: number, done: Done): void {
    this.change(at, FATTR.SIZE, done, size);
  }

  ftruncate(at: string, fh: number, size: number, done: Done): void {
    const handle = this.handles.get(fh);
    if (handle === undefined) return this.truncate(at, size, done);
    this.plain(client.setattrRequest(handle.node, FATTR.SIZE, size, handle.fh), done);
  }

  utimens(at: string, _atime: number, _mtime: number, done: Done): void {
    this.change(at, FATTR.ATIME | FATTR.MTIME, done);
  }

  chmod(at: string, _mode: number, done: Done): void {
    this.change(at, FATTR.MODE, done);
  }

  chown(at: string, _uid: number, _gid: number, done: Done): void {
    this.change(at, FATTR.UID | FATTR.GID, done);
  }

  private change(at: string, valid: number, done: Done, size = 0): void {
    this.resolve(at, (node) => {
      if (node < 0) done(node);
      else this.plain(client.setattrRequest(node, valid, size), done);
    });
  }

  create(_at: string, _mode: number, done: Done): void {
    this.plain(client.bareRequest(FUSE.CREATE, FUSE_ROOT_ID), done);
  }

  mknod(_at: string, _mode: number, _device: number, done: Done): void {
    this.plain(client.bareRequest(FUSE.MKNOD, FUSE_ROOT_ID), done);
  }

  mkdir(_at: string, _mode: number, done: Done): void {
    this.plain(client.bareRequest(FUSE.MKDIR, FUSE_ROOT_ID), done);
  }

  symlink(_from: string, _to: string, done: Done): void {
    this.plain(client.bareRequest(FUSE.SYMLINK, FUSE_ROOT_ID), done);
  }

  link(_from: string, _to: string, done: Done): void {
    this.plain(client.bareRequest(FUSE.LINK, FUSE_ROOT_ID), done);
  }

  unlink(at: string, done: Done): void {
    this.named(FUSE.UNLINK, at, done);
  }

  rmdir(at: string, done: Done): void {
    this.named(FUSE.RMDIR, at, done);
  }

  rename(from: string, to: string, done: Done): void {
    const [fromFolder, name] = split(from);
    const [toFolder, newName] = split(to);
    this.resolve(fromFolder, (parent) => {
      if (parent < 0) return done(parent);
      this.resolve(toFolder, (newParent) => {
        if (newParent < 0) return done(newParent);
        this.plain(client.renameRequest(parent, name, newParent, newName), done);
      });
    });
  }

  private named(opcode: number, at: string, done: Done): void {
    const [folder, name] = split(at);
    this.resolve(folder, (parent) => {
      if (parent < 0) done(parent);
      else this.plain(client.nameRequest(opcode, parent, name), done);
    });
  }

  /** The node of a path, or a negative errno: one LOOKUP per component, as the kernel would. */
  private resolve(at: string, found: (node: number) => void): void {
    const names = at.split('/').filter((name) => name !== '');
    const next = (node: number, i: number): void => {
      const name = names[i];
      if (name === undefined) return found(node);
      this.ask(client.nameRequest(FUSE.LOOKUP, node, name), (body) => next(client.getEntry(body).node, i + 1), found);
    };
    next(FUSE_ROOT_ID, 0);
  }

  /** A request whose answer has no body that counts. */
  private plain(request: Buffer, done: Done): void {
    this.ask(request, () => done(0), done);
  }

  private ask(request: Buffer, good: (body: Buffer) => void, bad: (rc: number) => void): void {
    if (this.stopped) return bad(-ERRNO.EIO);
    do this.lastUnique = (this.lastUnique + 1) >>> 0;
    while (this.lastUnique === 0 || this.asked.has(this.lastUnique));
    client.setUnique(request, this.lastUnique);
    this.asked.set(this.lastUnique, (reply) => {
      const rc = client.replyError(reply);
      if (rc < 0) bad(rc);
      else good(client.replyBody(reply));
    });
    this.send(request);
  }
}

/** Folder and last component. */
function split(at: string): [string, string] {
  const slash = at.lastIndexOf('/');
  return [at.slice(0, slash), at.slice(slash + 1)];
}
