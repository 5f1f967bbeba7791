/**
 * The daemon of the fuse-native transport. The binding owns the main loop of the process it runs in, so here the
 * devices have the main thread, and what is main elsewhere (main.ts) is a thread like the others:
 *
 *   kernel ─▶ libfuse ─▶ main loop: devices ──window──▶ committer ─▶ log
 *                           │  ▲  └─ the tree's requests ▶ main.ts ─ their replies ─┐
 *                           │  └── answers to flushes ── committer                  │
 *                           └──────────────────────────◀──────────────────────────┘
 *
 * A daemon that is only to bring the window into the log (`drain`) mounts nothing and ends its serving at once.
 */
import * as fs from 'node:fs';
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import { ERRNO, RepError } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import type { DaemonConfig } from '../control/keeper-client.js';
import type { DeviceGroup } from '../device/group.js';
import { sourceOf } from '../fuse/mount.js';
import { mayAllowOthers } from '../fuse/fusermount.js';
import { mountNative } from '../fuse/native-binding.js';
import { NativeLoop, NativeReply } from '../fuse/native-loop.js';
import { carryOut, makeParts, startDevices, type DeviceParts } from './device-side.js';
import type { DataStart, DataWorkerData, FromData, NativeWorkerData, ToNative } from './threads.js';
import { broken, log } from './workers.js';

/** The devices look around at least this often, for the watchdog. */
const TURN_MS = 1000;

const config = JSON.parse(process.env['REPTOOL_DAEMON'] ?? '{}') as DaemonConfig;
process.title = `reptool ${config.group}`;
process.on('uncaughtException', (error) => broken('devices', error));
process.on('unhandledRejection', (error) => broken('devices', error));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
  process.on(signal, () => log(`${signal} ignored: unmount ${config.mountpoint} to end this daemon`));
sys.setThreadName('reptool-data');

const { port1: port, port2: theirs } = new MessageChannel();
const workerData: NativeWorkerData = { native: theirs };
const main = new Worker(new URL('./main.js', import.meta.url), { workerData, transferList: [theirs] });
main.on('error', (error) => broken('main', error));
main.on('exit', (code) => process.exit(code));

const reply = new NativeReply();
let born: { data: DataWorkerData; parts: DeviceParts } | undefined;
let group: DeviceGroup | undefined;
let loop: NativeLoop | undefined;

port.on('message', (message: ToNative) => {
  switch (message.t) {
    case 'born':
      born = { data: message.data, parts: makeParts(message.data) };
      listen(message.answers);
      return post({ t: 'up' });
    case 'start':
      return void serve(message);
    case 'append':
    case 'open':
    case 'resize':
    case 'close':
    case 'source':
    case 'giveUp':
      if (group !== undefined) carryOut(group, message, post);
      return;
    case 'answer':
      return loop?.replied(Buffer.from(message.bytes));
    case 'stop':
      loop?.stop();
      return post({ t: 'end', errno: ERRNO.ENODEV });
  }
});

function post(message: FromData, move: readonly ArrayBuffer[] = []): void {
  port.postMessage(message, move);
}

/** The committer's answers: [unique low, bytes, errno]…, as many as one sync has earned. */
function listen(answers: MessagePort): void {
  answers.on('message', (batch: Int32Array) => {
    for (let i = 0; i < batch.length; i += 3) {
      const errno = batch[i + 2]!;
      reply.status(batch[i]! >>> 0, 0, errno === 0 ? batch[i + 1]! : -errno);
    }
  });
}

async function serve(start: DataStart): Promise<void> {
  const { data, parts } = born!;
  const devices = startDevices(parts, data.maxWrite, start, reply, undefined, post);
  group = devices;
  const served = new NativeLoop(devices, reply, (request) => post({ t: 'req', bytes: request }));
  if (config.drain) {
    post({ t: 'serving' });
    return post({ t: 'end', errno: ERRNO.ENODEV });
  }
  loop = served;
  try {
    const source = sourceOf(config.group, config.groupDir);
    await mountNative({ source, mountpoint: config.mountpoint, allowOther: mayAllowOthers() }, served);
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    return post({ t: 'failed', errno: error.errno, message: error.message });
  }
  setInterval(() => served.turn(), TURN_MS);
  const fuse = connection();
  post({ t: 'serving', connection: fuse });
  void watch(served, devices, [data.bellFd, parts.aio.eventfd, fuse]);
}

/**
 * A descriptor of the connection that libfuse has mounted. Our own, since libfuse closes its own when the mount
 * is gone, and its number may mean something else then.
 */
function connection(): number {
  for (const fd of fs.readdirSync('/proc/self/fd')) {
    try {
      if (fs.readlinkSync(`/proc/self/fd/${fd}`) === '/dev/fuse') return sys.dup(Number(fd));
    } catch {
      // The descriptor that the folder was read with.
    }
  }
  return -1;
}

/** Waits on a thread of the pool for the bell, finished reads and the end of the connection. */
async function watch(served: NativeLoop, devices: DeviceGroup, [bell, reads, fuse]: number[]): Promise<void> {
  const mem = Mem.anon(4096);
  const { dv } = mem;
  const counterAt = 64;
  [bell!, reads!, fuse!].forEach((fd, i) => {
    dv.setInt32(i * 8, fd, true);
    dv.setUint16(i * 8 + 4, i === 2 ? 0 : sys.POLLIN, true);
  });
  for (;;) {
    for (const at of [6, 14, 22]) dv.setUint16(at, 0, true);
    await sys.pollAsync(mem.addr, 3, TURN_MS);
    if (dv.getUint16(14, true) !== 0) {
      sys.raw.read(reads!, mem.addr + counterAt, 8);
      devices.readsDone();
    }
    if (dv.getUint16(6, true) !== 0) {
      sys.raw.read(bell!, mem.addr + counterAt, 8);
      served.turn();
    }
    if ((dv.getUint16(22, true) & sys.POLLERR) !== 0) return post({ t: 'end', errno: ERRNO.ENODEV });
  }
}
