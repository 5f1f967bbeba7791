/**
 * Devices of a group that is not mounted: what can be done without the log is done here and stands in group.json
 * as begun; the next daemon appends the records and completes it before it serves (device-changes.ts).
 *
 * Who calls holds the group's lock.
 */
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { loadConfig, saveConfig, type DeviceConfig, type GroupConfig } from './config.js';
import { growLocal, lookAtPlace, makeImage, undoImage, type ImageJob } from './device-image.js';
import { planCreate, planRemove, planResize, placesInUse, withDevice, type NewDevice } from './device-plan.js';

const LATER = 'with the next mount';

/** Each returns the sentence that answers; throws RepError, and then nothing has changed. */
export function createOffline(io: Io, dir: string, request: NewDevice): string {
  const config = loadConfig(dir, io);
  const device = planCreate(config, dir, request);
  const job = jobOf(config, device);
  const before = lookAtPlace(io, job, placesInUse(config, dir));
  saveConfig(dir, withDevice(config, { ...device, pending: { op: 'create' } }), io);
  try {
    makeImage(io, job);
  } catch (error) {
    undoImage(io, job, before);
    saveConfig(dir, config, io);
    throw error;
  }
  return `${device.name}: comes as device ${device.nr} ${LATER}, ${formatSize(device.size)}, local image ${device.local}`;
}

export function resizeOffline(io: Io, dir: string, name: string, size: number): string {
  const config = loadConfig(dir, io);
  const { device, done } = planResize(config, name, size);
  if (done) return `${name}: has ${formatSize(size)} already`;
  saveConfig(dir, withDevice(config, { ...device, pending: { op: 'resize', size } }), io);
  try {
    growLocal(io, jobOf(config, device), size);
  } catch (error) {
    saveConfig(dir, config, io);
    throw error;
  }
  return `${name}: grows from ${formatSize(device.size)} to ${formatSize(size)} ${LATER}`;
}

export function removeOffline(io: Io, dir: string, name: string): string {
  const config = loadConfig(dir, io);
  const device = planRemove(config, name);
  saveConfig(dir, withDevice(config, { ...device, pending: { op: 'remove' } }), io);
  return `${name}: goes ${LATER}; its content stays in ${device.local}`;
}

function jobOf(config: GroupConfig, device: DeviceConfig): ImageJob {
  const { nr, name, local, size } = device;
  return { nr, name, local, size, sparse: device.sparse === true, logId: config.id };
}
