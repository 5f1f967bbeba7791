/**
 * A daemon as small as can be for the keeper's tests: a folder with one file `disk`, kept in a backing file
 * (argument 1), which speaks the keeper's channel and moves the window's words. Its page-cache writes survive
 * SIGKILL, so that only the keeper is on trial. Knobs, by environment:
 *
 *   TESTD_CRASH_MS   exits with status 3 that long after `serving`
 *   TESTD_REFUSE     refuses to serve, with this text
 *   TESTD_HOLD       reads writes and never answers them
 *   TESTD_KNOT       writes to its own mount from main, after that long, with TESTD_HOLD: not even SIGKILL ends it
 *   TESTD_LEAVE      exits with status 4 instead of draining after the unmount, unless the window is all it has
 */
import { closeSync, fdatasyncSync, existsSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { ERRNO } from '../../src/base/errors.js';
import { getU64 } from '../../src/base/codec.js';
import { Mem } from '../../src/base/mem.js';
import * as sys from '../../src/base/sys.js';
import { DAEMON_FD, type DaemonConfig } from '../../src/control/keeper-client.js';
import * as P from '../../src/fuse/proto.js';
import { W, WORDS } from '../../src/replog/window.js';

const SIZE = 64 << 20;
const DISK = 2;
const NAME = Buffer.from('disk');

interface Job {
  backing: string;
  gate: Int32Array;
  words: number;
}

function attrOf(ino: number): P.Attr {
  const dir = ino === P.FUSE_ROOT_ID;
  return {
    ino,
    size: dir ? 0 : SIZE,
    blocks: 0,
    mode: dir ? 0o40755 : 0o100644,
    nlink: 1,
    uid: 0,
    gid: 0,
    blksize: 4096,
    atimeMs: 0,
    mtimeMs: 0,
    ctimeMs: 0,
  };
}

/** The request loop, in a thread. */
function loop({ backing, gate, words }: Job): void {
  const word = new Int32Array(sys.memoryView(words, WORDS));
  const request = Mem.anon((1 << 20) + 8192);
  const reply = Mem.anon((1 << 20) + 8192);
  const back = openSync(backing, 'r+');
  const root = attrOf(P.FUSE_ROOT_ID);
  const disk = attrOf(DISK);
  const hold = process.env['TESTD_HOLD'] !== undefined;
  const { dv, u8 } = request;
  const fd = DAEMON_FD.FUSE;
  parentPort!.postMessage('up');
  Atomics.wait(gate, 0, 0);
  parentPort!.postMessage('serving');

  for (;;) {
    Atomics.add(word, W.BEAT_DATA, 1);
    if (Atomics.load(gate, 1) !== 0) break;
    if (!sys.readable(fd, 50)) continue;
    const n = sys.read(fd, request.addr, request.size);
    if (n === -ERRNO.ENODEV || n === -ERRNO.ECONNABORTED) break;
    if (n <= 0) continue;
    const op = dv.getUint32(P.IN_OPCODE, true);
    if (P.wantsNoReply(op)) continue;
    let body = 0;
    let error = 0;
    const at = P.OUT_HEADER;
    const node = getU64(dv, P.IN_NODEID);
    switch (op) {
      case P.FUSE.LOOKUP:
        if (P.requestName(u8, 0, n) === 'disk') body = P.putEntry(reply.dv, at, DISK, 1e6, disk);
        else error = -ERRNO.ENOENT;
        break;
      case P.FUSE.GETATTR:
      case P.FUSE.SETATTR:
        body = P.putAttrOut(reply.dv, at, 1e6, node === DISK ? disk : root);
        break;
      case P.FUSE.OPEN:
        body = P.putOpen(reply.dv, at, 1, P.FOPEN.DIRECT_IO | P.FOPEN.PARALLEL_DIRECT_WRITES);
        break;
      case P.FUSE.OPENDIR:
        body = P.putOpen(reply.dv, at, 0, 0);
        break;
      case P.FUSE.READDIR:
        if (getU64(dv, P.READ_OFFSET) === 0)
          body = P.putDirent(reply.dv, reply.u8, at, at + 4096, DISK, 1, P.DT_REG, NAME) - at;
        break;
      case P.FUSE.READ:
        body = sys.pread(back, reply.addr + at, dv.getUint32(P.READ_SIZE, true), getU64(dv, P.READ_OFFSET));
        break;
      case P.FUSE.WRITE: {
        if (hold) continue;
        const size = dv.getUint32(P.WRITE_SIZE, true);
        sys.pwrite(back, request.addr + P.WRITE_DATA, size, getU64(dv, P.WRITE_OFFSET));
        Atomics.add(word, W.TAIL, 1);
        body = P.putWriteOut(reply.dv, at, size);
        break;
      }
      case P.FUSE.STATFS:
        body = P.putStatfs(reply.dv, at, 4096, SIZE / 4096, 0, 1);
        break;
      case P.FUSE.FSYNC:
      case P.FUSE.FLUSH:
      case P.FUSE.RELEASE:
      case P.FUSE.RELEASEDIR:
      case P.FUSE.DESTROY:
        break;
      default:
        error = -ERRNO.ENOSYS;
    }
    const hi = dv.getUint32(P.IN_UNIQUE + 4, true);
    const length = P.putHeader(reply.dv, 0, at + body, error, dv.getUint32(P.IN_UNIQUE, true), hi);
    sys.write(fd, reply.addr, length);
  }
  closeSync(back);
  parentPort!.postMessage('gone');
}

function main(): void {
  const config = JSON.parse(process.env['REPTOOL_DAEMON']!) as DaemonConfig;
  const backing = process.argv[2]!;
  if (!existsSync(backing)) writeFileSync(backing, Buffer.alloc(SIZE));
  const words = sys.mmap(0, WORDS, sys.PROT_READ_WRITE, sys.MAP_SHARED, DAEMON_FD.WINDOW, 0);
  const word = new Int32Array(sys.memoryView(words, WORDS));
  const gate = new Int32Array(new SharedArrayBuffer(8));
  const channel = new Socket({ fd: DAEMON_FD.CHANNEL });
  const say = (message: object): void => void channel.write(`${JSON.stringify(message)}\n`);
  const go = (): void => {
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
    setInterval(() => Atomics.add(word, W.BEAT_MAIN, 1), 20);
  };
  const worker = new Worker(new URL(import.meta.url), { workerData: { backing, gate, words } satisfies Job });

  worker.on('message', (what: string) => {
    if (what === 'up') {
      const refusal = process.env['TESTD_REFUSE'];
      if (refusal !== undefined) {
        say({ type: 'refused', errno: 'ENXIO', message: refusal });
        channel.end(() => process.exit(1));
      } else if (config.spare) say({ type: 'ready' });
      else go();
    }
    if (what === 'serving') {
      say({ type: 'serving' });
      const crash = process.env['TESTD_CRASH_MS'];
      if (crash !== undefined) setTimeout(() => process.exit(3), Number(crash));
      const knot = process.env['TESTD_KNOT'];
      if (knot !== undefined && Atomics.load(word, W.BORN) === 1)
        setTimeout(() => writeFileSync(join(config.mountpoint, 'disk'), 'x', { flag: 'r+' }), Number(knot));
    }
    if (what === 'gone') {
      // A daemon in its first life leaves its records behind; one started to drain finds them and stays.
      if (process.env['TESTD_LEAVE'] !== undefined && Atomics.load(word, W.BORN) === 1) process.exit(4);
      const fd = openSync(backing, 'r+');
      fdatasyncSync(fd);
      Atomics.store(word, W.DURABLE, Atomics.load(word, W.TAIL));
      writeSync(2, `drained ${Atomics.load(word, W.TAIL)}\n`);
      say({ type: 'closed' });
      channel.end(() => process.exit(0));
    }
  });
  createInterface({ input: channel }).on('line', (line) => {
    const message = JSON.parse(line) as { type: string };
    if (message.type === 'go') go();
    if (message.type === 'unmounted') Atomics.store(gate, 1, 1);
  });
  channel.on('error', () => undefined);
  channel.on('close', () => {
    // A spare without a keeper is of no use; a serving daemon goes on.
    if (Atomics.load(gate, 0) === 0) process.exit(0);
  });
  setInterval(() => undefined, 1 << 30);
}

if (isMainThread) main();
else loop(workerData as Job);
