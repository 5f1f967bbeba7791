/**
 * The tree as the kernel asks for it: folders, names, attributes, and the files of .ctl. Runs on the main
 * thread; reads and writes of devices never come here (the data thread serves them).
 *
 *   /            0755   devices (0600) and .ctl
 *   /.ctl        0500   status, status.json, table, metrics, events (0400), messages (0600)
 *
 * Nothing can be made, removed or renamed through the tree: EPERM, with ENOENT where the name is absent.
 * An opcode must not be answered with ENOSYS where the kernel would then stop asking the devices as well
 * (FSYNC, LSEEK, FALLOCATE).
 */
import { ERRNO } from '../base/errors.js';
import {
  ATTR_OUT_BYTES,
  FUSE_GETATTR_FH,
  GETATTR_FH,
  GETATTR_FLAGS,
  DT_DIR,
  DT_REG,
  ENTRY_BYTES,
  FATTR,
  FOPEN,
  FUSE,
  INTERRUPT_UNIQUE,
  IN_NODEID,
  IN_OPCODE,
  IN_UNIQUE,
  IN_LEN,
  LSEEK_OFFSET,
  LSEEK_OUT_BYTES,
  LSEEK_WHENCE,
  OPEN_BYTES,
  OPEN_FLAGS,
  OUT_HEADER,
  READ_FH,
  READ_OFFSET,
  READ_SIZE,
  RELEASE_FH,
  SETATTR_SIZE,
  SETATTR_VALID,
  STATFS_BYTES,
  WRITE_DATA,
  WRITE_FH,
  WRITE_OUT_BYTES,
  WRITE_SIZE,
  firstUniqueHi,
  isResent,
  putAttrOut,
  putDirent,
  putEntry,
  putHeader,
  putLseekOut,
  putOpen,
  putStatfs,
  putWriteOut,
  requestName,
  wantsNoReply,
  type Attr,
} from '../fuse/proto.js';
import { getU64 } from '../base/codec.js';
import { SEEK_DATA, SEEK_HOLE } from '../base/sys.js';
import { MAX_MESSAGE, type MessageBoard } from './messages.js';
import type { EventLog } from './events.js';
import type { MessageReply } from './replies.js';
import {
  CTL_DIR,
  CTL_FILES,
  CTL_NODE,
  ROOT_NODE,
  ctlFileNode,
  ctlFileOf,
  deviceNode,
  deviceNrOf,
  type CtlFile,
} from './nodes.js';

export interface TreeDevice {
  nr: number;
  name: string;
  size: number;
}

/** Files whose text is made for each open. */
export type MadeFile = Exclude<CtlFile, 'events' | 'messages'>;

export interface TreeHost {
  devices(): readonly TreeDevice[];
  /** Text of status, status.json, table and metrics as of now. */
  text(file: MadeFile): string;
  /** When the group was last written to, milliseconds since 1970. */
  writtenMs(): number;
  /** Writes one reply to the kernel. What it returns does not matter: a request may be gone by then. */
  reply(bytes: Buffer): void;
  readonly events: EventLog;
  readonly messages: MessageBoard;
}

/** What a message write is answered with if the kernel sends it again although the answer was written. */
interface Answered {
  key: number;
  rc: number;
}

interface Running {
  uniqueLo: number;
  uniqueHi: number;
  stop: AbortController;
}

interface Handle {
  file: CtlFile;
  /** Of a MadeFile: the text as of open, so that several reads fit together. */
  text?: Buffer;
  /** messages: replies to what was written through this handle; its reads show only these. */
  replies: MessageReply[];
  wrote: boolean;
}

const VALID_MS = 1000;
const BLOCK = 4096;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const O_ACCMODE = 3;
const KEEP_ANSWERED = 64;

/** By which a request is known again when it is sent once more. */
function requestKey(view: DataView): number {
  return firstUniqueHi(view.getUint32(IN_UNIQUE + 4, true)) * 2 ** 32 + view.getUint32(IN_UNIQUE, true);
}

export class ControlTree {
  private readonly host: TreeHost;
  private readonly bornMs = Date.now();
  private readonly uid = process.getuid?.() ?? 0;
  private readonly gid = process.getgid?.() ?? 0;
  private readonly handles = new Map<number, Handle>();
  /** Handles of an earlier daemon are still in use: this one's begin elsewhere. */
  private nextHandle = Date.now() * 1000;
  /** Opens of devices by handle: the device, and the request that asked for it. */
  private readonly deviceOpens = new Map<number, { nr: number; key: number }>();
  private readonly running = new Map<number, Running>();
  private readonly answered: Answered[] = [];

  constructor(host: TreeHost) {
    this.host = host;
  }

  /** Serves one request, header included. The answer goes to `host.reply`, now or (for messages) later. */
  serve(request: Uint8Array): void {
    const bytes = Buffer.from(request.buffer, request.byteOffset, request.byteLength);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const opcode = view.getUint32(IN_OPCODE, true);
    if (wantsNoReply(opcode)) {
      if (opcode === FUSE.INTERRUPT) this.interrupt(view);
      return;
    }
    const rc = this.dispatch(opcode, view, bytes);
    if (rc <= 0) this.status(view, rc);
  }

  /** Ends everything that waits: the mount is going away. */
  close(): void {
    for (const { stop } of this.running.values()) stop.abort();
  }

  /** Returns a negative errno or 0 for a bare answer; 1 where the answer is given elsewhere. */
  private dispatch(opcode: number, view: DataView, bytes: Buffer): number {
    const node = getU64(view, IN_NODEID);
    switch (opcode) {
      case FUSE.LOOKUP:
        return this.lookup(view, node, requestName(bytes, 0, view.getUint32(IN_LEN, true)));
      case FUSE.GETATTR:
        return this.getattr(view, node);
      case FUSE.SETATTR:
        return this.setattr(view, node);
      case FUSE.OPEN:
        return this.open(view, node);
      case FUSE.READ:
        return this.read(view, node);
      case FUSE.WRITE:
        return this.write(view, bytes, node);
      case FUSE.RELEASE:
        this.handles.delete(getU64(view, RELEASE_FH));
        this.deviceOpens.delete(getU64(view, RELEASE_FH));
        return 0;
      case FUSE.OPENDIR:
        return this.isFolder(node) ? this.answer(view, OPEN_BYTES, (v, at) => putOpen(v, at, 0, 0)) : -ERRNO.ENOTDIR;
      case FUSE.READDIR:
        return this.readdir(view, node);
      case FUSE.RELEASEDIR:
      case FUSE.FSYNC:
      case FUSE.FSYNCDIR:
      case FUSE.ACCESS:
      case FUSE.DESTROY:
        return 0;
      case FUSE.STATFS:
        return this.statfs(view);
      case FUSE.LSEEK:
        return this.lseek(view, node);
      case FUSE.FALLOCATE:
        return -ERRNO.EOPNOTSUPP;
      case FUSE.UNLINK:
      case FUSE.RMDIR:
      case FUSE.RENAME:
      case FUSE.RENAME2:
        return this.forbid(opcode, bytes, view, node);
      case FUSE.SYMLINK:
      case FUSE.MKNOD:
      case FUSE.MKDIR:
      case FUSE.LINK:
      case FUSE.CREATE:
      case FUSE.TMPFILE:
        return -ERRNO.EPERM;
      case FUSE.READLINK:
        return -ERRNO.EINVAL;
      // FLUSH among them: close then asks nobody. GETXATTR: else every write asks for security.capability.
      default:
        return -ERRNO.ENOSYS;
    }
  }

  // --- names and attributes ------------------------------------------------------------------------------

  private lookup(view: DataView, parent: number, name: string): number {
    const node = this.find(parent, name);
    if (node < 0) return node;
    return this.answer(view, ENTRY_BYTES, (v, at) => putEntry(v, at, node, VALID_MS, this.attrOf(node)!));
  }

  /** The node of `name` in folder `parent`, or a negative errno. */
  private find(parent: number, name: string): number {
    if (parent === ROOT_NODE) {
      if (name === CTL_DIR) return CTL_NODE;
      const device = this.host.devices().find((d) => d.name === name);
      return device === undefined ? -ERRNO.ENOENT : deviceNode(device.nr);
    }
    if (parent !== CTL_NODE) return -ERRNO.ENOTDIR;
    const file = CTL_FILES.find((f) => f === name);
    return file === undefined ? -ERRNO.ENOENT : ctlFileNode(file);
  }

  private getattr(view: DataView, node: number): number {
    const attr = this.attrOf(node);
    if (attr === undefined) return -ERRNO.ENOENT;
    // Through a handle: of what is read through it. Who reads through the page cache is cut off at the size.
    const byHandle = (view.getUint32(GETATTR_FLAGS, true) & FUSE_GETATTR_FH) !== 0;
    const handle = byHandle ? this.handles.get(getU64(view, GETATTR_FH)) : undefined;
    if (handle !== undefined && handle.file !== 'events') attr.size = this.textOf(handle).length;
    // Control files change by themselves: the kernel must ask each time, or `tail -f` sees nothing.
    const valid = ctlFileOf(node) === undefined ? VALID_MS : 0;
    return this.answer(view, ATTR_OUT_BYTES, (v, at) => putAttrOut(v, at, valid, attr));
  }

  private setattr(view: DataView, node: number): number {
    const attr = this.attrOf(node);
    if (attr === undefined) return -ERRNO.ENOENT;
    const valid = view.getUint32(SETATTR_VALID, true);
    if ((valid & (FATTR.MODE | FATTR.UID | FATTR.GID)) !== 0) return -ERRNO.EPERM;
    if ((valid & FATTR.SIZE) !== 0 && this.isFolder(node)) return -ERRNO.EISDIR;
    // O_TRUNC arrives as size 0 without a handle; for a disk, as for a control file, it means nothing.
    const size = getU64(view, SETATTR_SIZE);
    if ((valid & FATTR.SIZE) !== 0 && size !== attr.size && (size !== 0 || (valid & FATTR.FH) !== 0))
      return -ERRNO.EPERM;
    return this.answer(view, ATTR_OUT_BYTES, (v, at) => putAttrOut(v, at, 0, attr));
  }

  private attrOf(node: number): Attr | undefined {
    const nr = deviceNrOf(node);
    if (nr !== undefined) {
      const device = this.host.devices().find((d) => d.nr === nr);
      return device && this.attr(node, S_IFREG | 0o600, 1, device.size, this.host.writtenMs());
    }
    if (node === ROOT_NODE) return this.attr(node, S_IFDIR | 0o755, 3, 0, this.bornMs);
    if (node === CTL_NODE) return this.attr(node, S_IFDIR | 0o500, 2, 0, this.bornMs);
    const file = ctlFileOf(node);
    if (file === undefined) return undefined;
    return this.attr(node, S_IFREG | (file === 'messages' ? 0o600 : 0o400), 1, this.sizeOf(file), this.changedMs(file));
  }

  private attr(ino: number, mode: number, nlink: number, size: number, timeMs: number): Attr {
    return {
      ino,
      size,
      blocks: Math.ceil(size / 512),
      mode,
      nlink,
      uid: this.uid,
      gid: this.gid,
      blksize: BLOCK,
      atimeMs: timeMs,
      mtimeMs: timeMs,
      ctimeMs: timeMs,
    };
  }

  private sizeOf(file: CtlFile): number {
    if (file === 'events') return this.host.events.size;
    if (file === 'messages') return Buffer.byteLength(this.host.messages.text());
    // Made anew for each open, as in /proc: who reads as many bytes as stat told would get a cut text.
    return 0;
  }

  private changedMs(file: CtlFile): number {
    if (file === 'events') return this.host.events.mtimeMs;
    return file === 'messages' ? this.host.messages.changedMs : Date.now();
  }

  private isFolder(node: number): boolean {
    return node === ROOT_NODE || node === CTL_NODE;
  }

  private readdir(view: DataView, node: number): number {
    const names: { ino: number; type: number; name: string }[] = [
      { ino: node, type: DT_DIR, name: '.' },
      { ino: ROOT_NODE, type: DT_DIR, name: '..' },
    ];
    if (node === ROOT_NODE) {
      names.push({ ino: CTL_NODE, type: DT_DIR, name: CTL_DIR });
      for (const d of this.host.devices()) names.push({ ino: deviceNode(d.nr), type: DT_REG, name: d.name });
    } else if (node === CTL_NODE) {
      for (const f of CTL_FILES) names.push({ ino: ctlFileNode(f), type: DT_REG, name: f });
    } else {
      return -ERRNO.ENOTDIR;
    }
    const size = Math.min(view.getUint32(READ_SIZE, true), 65536);
    const out = Buffer.alloc(OUT_HEADER + size);
    const v = new DataView(out.buffer, out.byteOffset, out.byteLength);
    let at = OUT_HEADER;
    for (let i = getU64(view, READ_OFFSET); i < names.length; i++) {
      const { ino, type, name } = names[i]!;
      const next = putDirent(v, out, at, out.length, ino, i + 1, type, Buffer.from(name));
      if (next === at) break;
      at = next;
    }
    return this.send(view, out, at);
  }

  private statfs(view: DataView): number {
    const devices = this.host.devices();
    // All of it free: a disk of a fixed size never fills up, and nobody's monitoring should think so.
    const blocks = Math.ceil(devices.reduce((sum, d) => sum + d.size, 0) / BLOCK);
    return this.answer(view, STATFS_BYTES, (v, at) => putStatfs(v, at, BLOCK, blocks, blocks, devices.length));
  }

  private forbid(opcode: number, bytes: Buffer, view: DataView, parent: number): number {
    // RENAME carries {newdir u64}, RENAME2 {newdir u64, flags u32, padding u32} before the names.
    const skip = opcode === FUSE.RENAME ? 8 : opcode === FUSE.RENAME2 ? 16 : 0;
    const name = requestName(bytes, skip, view.getUint32(IN_LEN, true) - skip);
    const node = this.find(parent, name);
    return node < 0 ? node : -ERRNO.EPERM;
  }

  // --- files ---------------------------------------------------------------------------------------------

  private open(view: DataView, node: number): number {
    if (this.isFolder(node)) return -ERRNO.EISDIR;
    const nr = deviceNrOf(node);
    if (nr !== undefined) {
      if (!this.host.devices().some((d) => d.nr === nr)) return -ERRNO.ENOENT;
      const flags = FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES;
      const fh = this.noteOpen(nr, requestKey(view));
      return this.answer(view, OPEN_BYTES, (v, at) => putOpen(v, at, fh, flags));
    }
    const file = ctlFileOf(node);
    if (file === undefined) return -ERRNO.ENOENT;
    // Root passes the permission check of the kernel, but there is nothing to write.
    if (file !== 'messages' && (view.getUint32(OPEN_FLAGS, true) & O_ACCMODE) !== 0) return -ERRNO.EACCES;
    const handle: Handle = { file, replies: [], wrote: false };
    if (file !== 'messages' && file !== 'events') handle.text = Buffer.from(this.host.text(file));
    const fh = this.nextHandle++;
    this.handles.set(fh, handle);
    return this.answer(view, OPEN_BYTES, (v, at) => putOpen(v, at, fh, FOPEN.DIRECT_IO));
  }

  /** An open whose answer got lost is sent again: then the handle that went with it is nobody's. */
  private noteOpen(nr: number, key: number): number {
    for (const [fh, open] of this.deviceOpens) if (open.key === key) this.deviceOpens.delete(fh);
    const fh = this.nextHandle++;
    this.deviceOpens.set(fh, { nr, key });
    return fh;
  }

  /** How many opens of a device were answered by this daemon and not released since. */
  opensOf(nr: number): number {
    let count = 0;
    for (const open of this.deviceOpens.values()) if (open.nr === nr) count++;
    return count;
  }

  private read(view: DataView, node: number): number {
    const file = ctlFileOf(node);
    if (file === undefined) return this.isFolder(node) ? -ERRNO.EISDIR : -ERRNO.ENOENT;
    const offset = getU64(view, READ_OFFSET);
    const size = view.getUint32(READ_SIZE, true);
    const data = this.contentOf(file, getU64(view, READ_FH), offset, size);
    const out = Buffer.alloc(OUT_HEADER + data.length);
    data.copy(out, OUT_HEADER);
    return this.send(view, out, out.length);
  }

  /**
   * A handle may come from an earlier daemon, which took its text along: then the present text is read. Whoever has a
   * part of the other one has all of it as a rule (one read gives it) and looks for its end.
   */
  private contentOf(file: CtlFile, fh: number, offset: number, size: number): Buffer {
    if (file === 'events') return this.host.events.read(offset, size);
    const handle = this.handles.get(fh);
    if (handle === undefined && offset > 0) return Buffer.alloc(0);
    const text = this.textOf(handle ?? { file, replies: [], wrote: false });
    return text.subarray(Math.min(offset, text.length), Math.min(offset + size, text.length));
  }

  private textOf({ file, text, replies, wrote }: Handle): Buffer {
    if (file === 'events') return Buffer.alloc(0);
    if (file === 'messages') return Buffer.from(this.host.messages.text(wrote ? replies : undefined));
    return text ?? Buffer.from(this.host.text(file));
  }

  private lseek(view: DataView, node: number): number {
    const attr = this.attrOf(node);
    if (attr === undefined) return -ERRNO.ENOENT;
    const offset = getU64(view, LSEEK_OFFSET);
    const whence = view.getUint32(LSEEK_WHENCE, true);
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -ERRNO.EINVAL;
    // A text that is made anew for each open has no size, so no end to seek to; reading it works.
    if (attr.size === 0 && !this.isFolder(node)) return -ERRNO.EINVAL;
    if (offset >= attr.size) return -ERRNO.ENXIO;
    const found = whence === SEEK_DATA ? offset : attr.size;
    return this.answer(view, LSEEK_OUT_BYTES, (v, at) => putLseekOut(v, at, found));
  }

  // --- messages ------------------------------------------------------------------------------------------

  private write(view: DataView, bytes: Buffer, node: number): number {
    if (ctlFileOf(node) !== 'messages') return this.isFolder(node) ? -ERRNO.EISDIR : -ERRNO.EPERM;
    const size = view.getUint32(WRITE_SIZE, true);
    const uniqueLo = view.getUint32(IN_UNIQUE, true);
    const uniqueHi = view.getUint32(IN_UNIQUE + 4, true);
    const key = firstUniqueHi(uniqueHi) * 2 ** 32 + uniqueLo;
    const resent = isResent(uniqueHi);
    const running = this.running.get(key);
    if (running !== undefined) {
      // Still being carried out: the answer must carry the unique that the kernel knows it by now.
      running.uniqueHi = uniqueHi;
      return 1;
    }
    const before = resent ? this.answered.find((a) => a.key === key) : undefined;
    if (before !== undefined) return this.wrote(uniqueLo, uniqueHi, before.rc);
    if (size > MAX_MESSAGE) return -ERRNO.EINVAL;
    const now: Running = { uniqueLo, uniqueHi, stop: new AbortController() };
    this.running.set(key, now);
    const handle = this.handles.get(getU64(view, WRITE_FH));
    if (handle) handle.wrote = true;
    const text = bytes.toString('utf8', WRITE_DATA, WRITE_DATA + size);
    void this.host.messages.submit(text, { resent, stop: now.stop.signal }).then((reply) => {
      handle?.replies.push(reply);
      const rc = reply.errno === 0 ? size : -reply.errno;
      this.running.delete(key);
      this.answered.push({ key, rc });
      if (this.answered.length > KEEP_ANSWERED) this.answered.shift();
      this.wrote(now.uniqueLo, now.uniqueHi, rc);
    });
    return 1;
  }

  private wrote(uniqueLo: number, uniqueHi: number, rc: number): number {
    const out = Buffer.alloc(OUT_HEADER + WRITE_OUT_BYTES);
    const v = new DataView(out.buffer, out.byteOffset, out.byteLength);
    const len = rc < 0 ? OUT_HEADER : out.length;
    putHeader(v, 0, len, Math.min(rc, 0), uniqueLo, uniqueHi);
    if (rc >= 0) putWriteOut(v, OUT_HEADER, rc);
    this.host.reply(out.subarray(0, len));
    return 1;
  }

  private interrupt(view: DataView): void {
    const lo = view.getUint32(INTERRUPT_UNIQUE, true);
    const hi = view.getUint32(INTERRUPT_UNIQUE + 4, true);
    this.running.get(firstUniqueHi(hi) * 2 ** 32 + lo)?.stop.abort();
  }

  // --- answers -------------------------------------------------------------------------------------------

  private answer(request: DataView, bodyBytes: number, put: (view: DataView, at: number) => number): number {
    const out = Buffer.alloc(OUT_HEADER + bodyBytes);
    const body = put(new DataView(out.buffer, out.byteOffset, out.byteLength), OUT_HEADER);
    return this.send(request, out, OUT_HEADER + body);
  }

  private send(request: DataView, out: Buffer, len: number): number {
    const v = new DataView(out.buffer, out.byteOffset, out.byteLength);
    putHeader(v, 0, len, 0, request.getUint32(IN_UNIQUE, true), request.getUint32(IN_UNIQUE + 4, true));
    this.host.reply(out.subarray(0, len));
    return 1;
  }

  private status(request: DataView, rc: number): void {
    const out = Buffer.alloc(OUT_HEADER);
    const v = new DataView(out.buffer, out.byteOffset, out.byteLength);
    putHeader(v, 0, OUT_HEADER, rc, request.getUint32(IN_UNIQUE, true), request.getUint32(IN_UNIQUE + 4, true));
    this.host.reply(out);
  }
}
