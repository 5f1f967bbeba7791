/**
 * The devices of a site without a journal. They come and grow by records, or by a resync that begins behind those; one that
 * comes, and the part by which one grows, is looked at before anything is sent to it.
 */
import { BLOCK } from '../base/units.js';
import { decodeDeviceAdd, decodeDeviceResize } from '../replog/device-records.js';
import { REC, R_BYTES, R_DEVICE, R_TYPE, payloadSpace } from '../replog/format.js';
import type { ShipBatch } from './batch.js';
import type { SiteDevice, SiteResync } from './contract.js';
import type { RawDevice } from './raw-stamp.js';

export function newDevice({ nr, name, size }: SiteDevice): RawDevice {
  return { nr, name, size, target: '', making: true, blank: 0, samples: [] };
}

function grow(device: RawDevice, size: number): void {
  if (!device.making) Object.assign(device, { making: true, blank: device.size, samples: inside(device) });
  device.size = size;
}

/** Samples whose block lies wholly within the device: the last one reads differently once it has grown. */
function inside(device: RawDevice): RawDevice['samples'] {
  return device.samples.filter((s) => (s.block + 1) * BLOCK <= device.size);
}

/**
 * Takes over into `devices` what a batch adds and grows. Names of those, or the number of a device that is written to and
 * has no record of its coming; `knows`: it has a leg, or is known to need none any more.
 */
export function takeNews(batch: ShipBatch, devices: RawDevice[], knows: (nr: number) => boolean): string[] | number {
  const { dv, u8 } = batch.mem;
  const news: string[] = [];
  const come = new Set<number>();
  let payload = batch.payloadAt;
  let last = -1;
  for (let i = 0; i < batch.records; i++) {
    const at = batch.recordAt(i);
    const bytes = dv.getUint32(at + R_BYTES, true);
    const nr = dv.getUint32(at + R_DEVICE, true);
    const type = dv.getUint8(at + R_TYPE);
    const text = u8.subarray(payload, payload + bytes);
    payload += payloadSpace(bytes);
    if (type === REC.DEVICE_ADD) {
      const added = decodeDeviceAdd(text);
      if (added === undefined || devices.some((d) => d.nr === nr) || knows(nr)) continue;
      devices.push(newDevice({ nr, ...added }));
      come.add(nr);
      news.push(added.name);
    } else if (type === REC.DEVICE_RESIZE) {
      const size = decodeDeviceResize(text);
      const device = devices.find((d) => d.nr === nr);
      if (device === undefined || size === undefined || size <= device.size) continue;
      grow(device, size);
      news.push(device.name);
    } else if (type === REC.WRITE || type === REC.DISCARD || type === REC.ZEROES) {
      if (nr === last || knows(nr) || come.has(nr)) last = nr;
      else return nr;
    }
  }
  return news;
}

/**
 * Takes over into `devices` what a resync's order has beyond them, before it begins. Returns the numbers of those that
 * leave when it does; what came by records behind its place stays.
 */
export function takeOrder(devices: RawDevice[], resync: SiteResync): Set<number> {
  for (const wanted of resync.devices) {
    const known = devices.find((device) => device.nr === wanted.nr);
    if (known === undefined) devices.push(newDevice(wanted));
    else if (wanted.size > known.size) grow(known, wanted.size);
  }
  const stays = ({ nr }: RawDevice): boolean => nr >= resync.nextDevice || resync.devices.some((d) => d.nr === nr);
  return new Set(devices.filter((device) => !stays(device)).map(({ nr }) => nr));
}
