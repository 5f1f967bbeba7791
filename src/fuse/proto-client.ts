/**
 * The other side of the protocol in proto.ts: requests put together and replies taken apart. For a transport
 * that hears operations from a library instead of the kernel: whoever answers requests then needs no second
 * language. Not for hot paths; reads and writes of devices never come here.
 */
import { getU64, setU64 } from '../base/codec.js';
import {
  FATTR,
  FUSE,
  FUSE_GETATTR_FH,
  GETATTR_FH,
  GETATTR_FLAGS,
  IN_HEADER,
  IN_LEN,
  IN_NODEID,
  IN_OPCODE,
  IN_UNIQUE,
  OPEN_FLAGS,
  OUT_HEADER,
  READ_FH,
  READ_OFFSET,
  READ_SIZE,
  RELEASE_FH,
  SETATTR_FH,
  SETATTR_SIZE,
  SETATTR_VALID,
  WRITE_DATA,
  WRITE_FH,
  WRITE_OFFSET,
  WRITE_SIZE,
  type Attr,
} from './proto.js';

/** Length of SETATTR's and of READ's request. */
const SETATTR_END = 128;
const READ_END = 80;

type Fill = (view: DataView) => void;

/** A request without its unique, which whoever sends it puts in with `setUnique`. */
function request(opcode: number, node: number, length: number, fill?: Fill): Buffer {
  const bytes = Buffer.alloc(length);
  const view = viewOf(bytes);
  view.setUint32(IN_LEN, length, true);
  view.setUint32(IN_OPCODE, opcode, true);
  setU64(view, IN_NODEID, node);
  fill?.(view);
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function setUnique(bytes: Buffer, unique: number): void {
  bytes.writeUInt32LE(unique, IN_UNIQUE);
}

/** LOOKUP, UNLINK, RMDIR: the body is a name. */
export function nameRequest(opcode: number, parent: number, name: string): Buffer {
  const bytes = Buffer.from(`${name}\0`);
  const out = request(opcode, parent, IN_HEADER + bytes.length);
  bytes.copy(out, IN_HEADER);
  return out;
}

/** RENAME: {newdir u64, name, newname}. */
export function renameRequest(parent: number, name: string, newParent: number, newName: string): Buffer {
  const names = Buffer.from(`${name}\0${newName}\0`);
  const out = request(FUSE.RENAME, parent, IN_HEADER + 8 + names.length, (v) => setU64(v, IN_HEADER, newParent));
  names.copy(out, IN_HEADER + 8);
  return out;
}

/** One without a body that matters: STATFS, MKDIR where everything is refused anyway. */
export function bareRequest(opcode: number, node: number): Buffer {
  return request(opcode, node, IN_HEADER + 32);
}

export function getattrRequest(node: number, fh?: number): Buffer {
  return request(FUSE.GETATTR, node, IN_HEADER + 16, (v) => {
    if (fh === undefined) return;
    v.setUint32(GETATTR_FLAGS, FUSE_GETATTR_FH, true);
    setU64(v, GETATTR_FH, fh);
  });
}

/** `valid`: FATTR bits; those of mode, owner and times carry no values, since they only are asked for leave. */
export function setattrRequest(node: number, valid: number, size = 0, fh?: number): Buffer {
  return request(FUSE.SETATTR, node, SETATTR_END, (v) => {
    v.setUint32(SETATTR_VALID, fh === undefined ? valid : valid | FATTR.FH, true);
    setU64(v, SETATTR_SIZE, size);
    if (fh !== undefined) setU64(v, SETATTR_FH, fh);
  });
}

export function openRequest(node: number, flags: number): Buffer {
  return request(FUSE.OPEN, node, IN_HEADER + 8, (v) => v.setUint32(OPEN_FLAGS, flags, true));
}

/** READ and READDIR. */
export function readRequest(opcode: number, node: number, fh: number, offset: number, size: number): Buffer {
  return request(opcode, node, READ_END, (v) => {
    setU64(v, READ_FH, fh);
    setU64(v, READ_OFFSET, offset);
    v.setUint32(READ_SIZE, size, true);
  });
}

export function writeRequest(node: number, fh: number, offset: number, data: Uint8Array): Buffer {
  const out = request(FUSE.WRITE, node, WRITE_DATA + data.length, (v) => {
    setU64(v, WRITE_FH, fh);
    setU64(v, WRITE_OFFSET, offset);
    v.setUint32(WRITE_SIZE, data.length, true);
  });
  out.set(data, WRITE_DATA);
  return out;
}

export function releaseRequest(node: number, fh: number): Buffer {
  return request(FUSE.RELEASE, node, IN_HEADER + 24, (v) => setU64(v, RELEASE_FH, fh));
}

// --- replies ---------------------------------------------------------------------------------------------

export function replyUnique(reply: Uint8Array): number {
  return viewOf(reply).getUint32(8, true);
}

/** 0 or a negative errno. */
export function replyError(reply: Uint8Array): number {
  return viewOf(reply).getInt32(4, true);
}

export function replyBody(reply: Uint8Array): Buffer {
  return Buffer.from(reply.buffer, reply.byteOffset + OUT_HEADER, reply.byteLength - OUT_HEADER);
}

/** attr, as putAttr draws it. */
export function getAttr(view: DataView, at: number): Attr {
  const time = (sec: number, nsec: number): number =>
    getU64(view, at + sec) * 1000 + view.getUint32(at + nsec, true) / 1e6;
  return {
    ino: getU64(view, at),
    size: getU64(view, at + 8),
    blocks: getU64(view, at + 16),
    atimeMs: time(24, 48),
    mtimeMs: time(32, 52),
    ctimeMs: time(40, 56),
    mode: view.getUint32(at + 60, true),
    nlink: view.getUint32(at + 64, true),
    uid: view.getUint32(at + 68, true),
    gid: view.getUint32(at + 72, true),
    blksize: view.getUint32(at + 80, true),
  };
}

/** entry_out: the node and its attributes. */
export function getEntry(body: Buffer): { node: number; attr: Attr } {
  const view = viewOf(body);
  return { node: getU64(view, 0), attr: getAttr(view, 40) };
}

/** attr_out, the reply to GETATTR and SETATTR. */
export function getAttrOut(body: Buffer): Attr {
  return getAttr(viewOf(body), 16);
}

/** open_out and write_out begin with what counts. */
export function getOpenFh(body: Buffer): number {
  return getU64(viewOf(body), 0);
}

export function getWritten(body: Buffer): number {
  return body.readUInt32LE(0);
}

export interface Dirent {
  name: string;
  /** Where READDIR goes on behind it. */
  off: number;
}

export function getDirents(body: Buffer): Dirent[] {
  const view = viewOf(body);
  const found: Dirent[] = [];
  for (let at = 0; at + 24 <= body.length;) {
    const length = view.getUint32(at + 16, true);
    found.push({ name: body.toString('utf8', at + 24, at + 24 + length), off: getU64(view, at + 8) });
    at += (24 + length + 7) & ~7;
  }
  return found;
}

export interface StatfsOut {
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  bsize: number;
  namelen: number;
}

export function getStatfs(body: Buffer): StatfsOut {
  const view = viewOf(body);
  const [blocks, bfree, bavail, files, ffree] = [0, 8, 16, 24, 32].map((at) => getU64(view, at)) as [
    ...[number, number, number, number, number],
  ];
  return { blocks, bfree, bavail, files, ffree, bsize: view.getUint32(40, true), namelen: view.getUint32(44, true) };
}
