/** What the data thread of the kernel transport and the main loop of fuse-native have in common: the devices. */
import * as fs from 'node:fs';
import { realClock } from '../base/clock.js';
import { ERRNO, type ErrnoName } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { DeviceGroup } from '../device/group.js';
import { Parking } from '../device/parking.js';
import { DeviceReader, type OpenDevice } from '../device/reader.js';
import type { Reply } from '../device/reply.js';
import { AioReader } from '../fuse/aio.js';
import { SH, Shared } from '../replog/shared.js';
import { LogSpace } from '../replog/space.js';
import { Window } from '../replog/window.js';
import type { DataDevice, DataStart, DataWorkerData, FromData, ToDevices } from './threads.js';

/** Cold reads in flight; each has a megabyte of buffer that comes into being when it is used. */
const COLD_READS = 32;
/** Memory for requests that wait for room in the window. */
const PARKING_BYTES = 8 * 1024 * 1024;

export interface DeviceParts {
  window: Window;
  shared: Shared;
  aio: AioReader;
  parking: Parking;
}

/**
 * All memory that requests are read into. The window and the parking arena are mapped with every page present: a
 * reader killed in a page fault would end its request with EIO.
 */
export function makeParts(data: DataWorkerData): DeviceParts {
  return {
    window: Window.attach(data.windowAt, data.windowRing),
    shared: new Shared(data.shared),
    aio: new AioReader(COLD_READS, 1024 * 1024),
    parking: new Parking(PARKING_BYTES, data.maxWrite + 4096),
  };
}

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

/** Like `openDevice`; one that cannot be opened is there without an image, and its reads wait for a site's. */
function openPerhaps(device: DataDevice): OpenDevice {
  try {
    return openDevice(device);
  } catch {
    return { nr: device.nr, size: device.size, fd: -1, direct: -1 };
  }
}

/** The devices as `start` says, ready for requests; `resend` where unanswered ones can be sent again. */
export function startDevices(
  parts: DeviceParts,
  maxWrite: number,
  start: DataStart,
  reply: Reply,
  resend: (() => void) | undefined,
  post: (message: FromData, move?: readonly ArrayBuffer[]) => void,
): DeviceGroup {
  const { window, shared, aio, parking } = parts;
  const dieEvery = Number(process.env['REPTOOL_TEST_DIE'] ?? 0);
  const group = new DeviceGroup({
    ...{ window, shared, parking, maxWrite, reply, resend },
    space: new LogSpace(window, shared, start.logSegment),
    clock: realClock,
    reader: new DeviceReader(aio, start.devices.map(start.detach ? openPerhaps : openDevice)),
    detach: start.detach,
    starved: (errno) => post({ t: 'starved', errno }),
    committer: shared.bell(SH.BELL_COMMIT),
    durableWrites: start.durability === 'write',
    other: (request) => post({ t: 'req', bytes: request }, [request.buffer as ArrayBuffer]),
    logFull: () => post({ t: 'logfull' }),
    ...(dieEvery > 0 ? { dieEvery } : {}),
  });
  group.appender.reign = start.reign;
  if (start.newReign !== undefined)
    group.beginReign(start.reign, Buffer.from(start.newReign, 'hex'), (seq, timeUs) =>
      post({ t: 'reign', reign: start.reign, seq, timeUs }),
    );
  return group;
}

/** What main asks of whoever has the devices. */
export function carryOut(group: DeviceGroup, message: ToDevices, post: (message: FromData) => void): void {
  const { reader } = group;
  switch (message.t) {
    case 'append':
      return group.control(message.type, message.device, message.payload, (seq, timeUs) =>
        post({ t: 'appended', id: message.id, seq, timeUs }),
      );
    case 'open':
      return open(group, message.id, message.device, post);
    case 'resize':
      return reader.resize(message.nr, message.size);
    case 'close':
      reader.remove(message.nr);
      return reader.close(message.nr);
    case 'source':
      return turn(group, message, post);
    case 'giveUp':
      return group.source.giveUp();
  }
}

type SourceMessage = Extract<ToDevices, { t: 'source' }>;

function turn(group: DeviceGroup, message: SourceMessage, post: (message: FromData) => void): void {
  const { offer, images, local = [] } = message;
  const { nr } = offer;
  let table: OpenDevice[] | undefined = images;
  try {
    table ??= openAll(local);
  } catch (error) {
    return post({ t: 'source', nr, taken: false, why: `cannot be opened (${codeOf(error)})` });
  }
  const taken = group.turnTo(offer, table);
  post({ t: 'source', nr, taken, why: taken ? '' : 'it lacks something that has left the window' });
}

function openAll(devices: readonly DataDevice[]): OpenDevice[] {
  const table: OpenDevice[] = [];
  try {
    for (const device of devices) table.push(openDevice(device));
  } catch (error) {
    for (const { fd, direct } of table) for (const n of [fd, direct]) if (n >= 0) fs.closeSync(n);
    throw error;
  }
  return table;
}

function codeOf(error: unknown): ErrnoName {
  const { code = 'EIO' } = error as NodeJS.ErrnoException;
  return code in ERRNO ? (code as ErrnoName) : 'EIO';
}

function open(group: DeviceGroup, id: number, device: DataDevice, post: (message: FromData) => void): void {
  // Reads of it would come from images that the window knows nothing of.
  if (group.source.nr !== 0)
    return post({ t: 'device', id, errno: 'EBUSY', message: `${device.local}: slink 0 is detached` });
  try {
    group.reader.add(openDevice(device));
    post({ t: 'device', id });
  } catch (error) {
    const errno = codeOf(error);
    post({ t: 'device', id, errno, message: `${device.local}: cannot be opened (${errno})` });
  }
}
