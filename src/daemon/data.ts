/**
 * The data thread: the request loop over /dev/fuse and the group's devices. Loaded and waiting in a warm
 * spare; once started it never returns to its event loop, so everything from main is fetched by hand.
 */
import * as fs from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { Defect } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { DeviceGroup } from '../device/group.js';
import { Parking } from '../device/parking.js';
import { DeviceReader, type OpenDevice } from '../device/reader.js';
import { AioReader } from '../fuse/aio.js';
import { KernelLoop, KernelReply } from '../fuse/loop.js';
import { SH, Shared } from '../replog/shared.js';
import { LogSpace } from '../replog/space.js';
import { Window } from '../replog/window.js';
import type { DataStart, DataWorkerData, ToData } from './threads.js';

/** Cold reads in flight; each has a megabyte of buffer that comes into being when it is used. */
const COLD_READS = 32;
/** Memory for requests that wait for room in the window. */
const PARKING_BYTES = 8 * 1024 * 1024;

const data = workerData as DataWorkerData;
const port = parentPort!;
sys.setThreadName('reptool-data');

const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);
const aio = new AioReader(COLD_READS, 1024 * 1024);
const reply = new KernelReply(data.fuseFd);
// The window and the parking arena are mapped with every page present: a reader killed in a page fault would
// end its request with EIO.
const parking = new Parking(PARKING_BYTES, data.maxWrite + 4096);

port.once('message', (message: ToData) => {
  if (message.t !== 'start') throw new Defect(`the data thread got "${message.t}" before its start`);
  serve(message);
});
port.postMessage({ t: 'up' });

function openDevice(device: DataStart['devices'][number]): OpenDevice {
  const fd = fs.openSync(device.local, sys.O_RDONLY);
  let direct = -1;
  try {
    direct = fs.openSync(device.local, sys.O_RDONLY | sys.O_DIRECT);
  } catch {
    // No O_DIRECT on this file system: cold reads block this thread, nothing else changes.
  }
  return { nr: device.nr, size: device.size, fd, direct };
}

function serve(start: DataStart): void {
  const space = new LogSpace(window, shared, start.logRing, start.logSegment);
  const dieEvery = Number(process.env['REPTOOL_TEST_DIE'] ?? 0);
  const group = new DeviceGroup({
    window,
    shared,
    space,
    clock: realClock,
    reply,
    reader: new DeviceReader(aio, start.devices.map(openDevice)),
    committer: shared.bell(SH.BELL_COMMIT),
    parking,
    maxWrite: data.maxWrite,
    durableWrites: start.durability === 'write',
    resend: start.resend ? () => reply.resend() : undefined,
    other: (request) => port.postMessage({ t: 'req', bytes: request }, [request.buffer as ArrayBuffer]),
    logFull: () => port.postMessage({ t: 'logfull' }),
    ...(dieEvery > 0 ? { dieEvery } : {}),
  });
  group.appender.reign = start.reign;
  if (start.newReign !== undefined)
    group.beginReign(start.reign, Buffer.from(start.newReign, 'hex'), (seq, timeUs) =>
      port.postMessage({ t: 'reign', reign: start.reign, seq, timeUs }),
    );
  group.onRing = () => takeMessages(group);
  const rc = sys.setNonblocking(data.fuseFd);
  if (rc < 0) throw new Defect(`cannot make /dev/fuse non-blocking: ${rc}`);
  const loop = new KernelLoop(data.fuseFd, data.bellFd, aio.eventfd, group);
  port.postMessage({ t: 'serving' });
  const errno = loop.run();
  port.postMessage({ t: 'end', errno });
}

function takeMessages(group: DeviceGroup): void {
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: ToData } | undefined;
    if (received === undefined) return;
    const { message } = received;
    if (message.t === 'append')
      group.control(message.type, message.device, message.payload, (seq, timeUs) =>
        port.postMessage({ t: 'appended', id: message.id, seq, timeUs }),
      );
  }
}
