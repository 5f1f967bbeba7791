/**
 * The data thread: the request loop over /dev/fuse and the group's devices. Loaded and waiting in a warm
 * spare; once started it never returns to its event loop, so everything from main is fetched by hand.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Defect } from '../base/errors.js';
import * as sys from '../base/sys.js';
import type { DeviceGroup } from '../device/group.js';
import { KernelLoop, KernelReply } from '../fuse/loop.js';
import { carryOut, makeParts, startDevices } from './device-side.js';
import type { DataStart, DataWorkerData, FromData, ToData } from './threads.js';

const data = workerData as DataWorkerData;
const port = parentPort!;
sys.setThreadName('reptool-data');

const parts = makeParts(data);
const reply = new KernelReply(data.fuseFd);

port.once('message', (message: ToData) => {
  if (message.t !== 'start') throw new Defect(`the data thread got "${message.t}" before its start`);
  serve(message);
});
post({ t: 'up' });

function post(message: FromData, move: readonly ArrayBuffer[] = []): void {
  port.postMessage(message, move);
}

function serve(start: DataStart): void {
  const resend = start.resend ? () => reply.resend() : undefined;
  const group = startDevices(parts, data.maxWrite, start, reply, resend, post);
  group.onRing = () => takeMessages(group);
  const rc = sys.setNonblocking(data.fuseFd);
  if (rc < 0) throw new Defect(`cannot make /dev/fuse non-blocking: ${rc}`);
  const loop = new KernelLoop(data.fuseFd, data.bellFd, parts.aio.eventfd, group);
  post({ t: 'serving' });
  const errno = loop.run();
  post({ t: 'end', errno });
}

function takeMessages(group: DeviceGroup): void {
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: ToData } | undefined;
    if (received === undefined) return;
    if (received.message.t === 'start') throw new Defect('the data thread got a second start');
    carryOut(group, received.message, post);
  }
}
