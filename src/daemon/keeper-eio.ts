/**
 * What stands in for a daemon once the keeper has given up: a thread that answers every request with EIO, so
 * that applications fail instead of hanging, and umount works. It ends when the mount does.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { ERRNO } from '../base/errors.js';
import { KIB } from '../base/units.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import {
  ATTR_OUT_BYTES,
  FUSE,
  FUSE_ROOT_ID,
  IN_NODEID,
  IN_OPCODE,
  IN_UNIQUE,
  OUT_HEADER,
  putAttrOut,
  putHeader,
  WRITE_DATA,
  wantsNoReply,
  type Attr,
} from '../fuse/proto.js';

const S_IFDIR = 0o40000;
const root: Attr = {
  ino: FUSE_ROOT_ID,
  size: 0,
  blocks: 0,
  mode: S_IFDIR | 0o755,
  nlink: 2,
  uid: 0,
  gid: 0,
  blksize: 4096,
  atimeMs: 0,
  mtimeMs: 0,
  ctimeMs: 0,
};

/** Writes the answer to the request at 0 of `request` into `reply`; returns its length, 0 for none. */
export function refuse(request: DataView, reply: DataView): number {
  const opcode = request.getUint32(IN_OPCODE, true);
  if (wantsNoReply(opcode)) return 0;
  const lo = request.getUint32(IN_UNIQUE, true);
  const hi = request.getUint32(IN_UNIQUE + 4, true);
  switch (opcode) {
    case FUSE.GETATTR:
      // The mount point itself can still be looked at: umount and df of other file systems want that.
      if (request.getUint32(IN_NODEID, true) !== FUSE_ROOT_ID) break;
      putAttrOut(reply, OUT_HEADER, 0, root);
      return putHeader(reply, 0, OUT_HEADER + ATTR_OUT_BYTES, 0, lo, hi);
    case FUSE.DESTROY:
    case FUSE.RELEASE:
    case FUSE.RELEASEDIR:
      return putHeader(reply, 0, OUT_HEADER, 0, lo, hi);
  }
  return putHeader(reply, 0, OUT_HEADER, -ERRNO.EIO, lo, hi);
}

/** How long a read may block before the thread can be ended. */
const TURN_MS = 200;

function serve(fd: number, maxWrite: number): void {
  const request = Mem.anon(maxWrite + WRITE_DATA + 64 * KIB);
  const reply = Mem.anon(4 * KIB);
  for (;;) {
    if (!sys.readable(fd, TURN_MS)) continue;
    const n = sys.read(fd, request.addr, request.size);
    if (n === -ERRNO.ENODEV || n === -ERRNO.ECONNABORTED) return;
    if (n <= 0) continue;
    const length = refuse(request.dv, reply.dv);
    // ENOENT says that the caller went away meanwhile: nobody is left to be told.
    if (length > 0) sys.write(fd, reply.addr, length);
  }
}

/** Present where this file runs as the thread, absent where a test only borrows `refuse`. */
const job = workerData as { eio?: { fd: number; maxWrite: number } } | null;
if (job?.eio !== undefined) {
  sys.setThreadName('rep-eio');
  serve(job.eio.fd, job.eio.maxWrite);
  parentPort?.postMessage('gone');
}
