/**
 * What a group's devices are, in the configuration: which are served, which are on their way in or out, and what
 * a change makes of them. Pure: nothing here touches a file.
 *
 * A device that is changed carries what was begun (`pending`) until the record of it is durable in the log; whoever
 * opens the group after a crash carries it on (device-changes.ts).
 */
import * as path from 'node:path';
import { RepError } from '../base/errors.js';
import { SECTOR, formatSize } from '../base/units.js';
import type { SiteDevice } from '../slink/contract.js';
import { MAX_DEVICE, nameFault, type DeviceConfig, type GroupConfig } from './config.js';
import type { LocalSpec } from '../slink/images.js';
import { groupFiles } from './state.js';
import { dirtyLogPlaces } from './taken.js';

/** What a new image must not be: files of others, anything in folders of others. */
export interface PlacesInUse {
  files: readonly string[];
  folders: readonly string[];
}

/** Devices that a group has at once, at most: a site names all of them in one stamp. */
export const MAX_DEVICES = 1024;

export interface NewDevice {
  name: string;
  size: number;
  /** Path of its local image, absolute; images/NAME in the group's folder where left out. */
  local?: string;
  sparse: boolean;
  /** Its number; the next that was never used where left out. */
  nr?: number;
}

/** The devices that the tree shows: all but those that have not come yet or are leaving. */
export function servedDevices(config: GroupConfig): DeviceConfig[] {
  return config.devices.filter(({ pending }) => pending === undefined || pending.op === 'resize');
}

/** The smallest number that no device ever had. */
export function nextNumber(config: GroupConfig): number {
  return config.devices.reduce((next, { nr }) => Math.max(next, nr + 1), config.nextDevice ?? 0);
}

/** What a site that is made from the beginning of the log starts with. */
export function firstDevices(config: GroupConfig): SiteDevice[] {
  return (config.firstDevices ?? servedDevices(config)).map(({ nr, name, size }) => ({ nr, name, size }));
}

/**
 * The devices that a site is to have which is given no record of before (resync). One that comes, or grows, is counted as
 * it will be, since its record may be in the log already; one that leaves is not.
 */
export function devicesAtSites(config: GroupConfig): (SiteDevice & { local: string })[] {
  return config.devices
    .filter(({ pending }) => pending?.op !== 'remove')
    .map(({ nr, name, size, local, pending }) => {
      return { nr, name, local, size: pending?.op === 'resize' ? Math.max(size, pending.size) : size };
    });
}

/**
 * A device that somebody wrote into group.json is one that is on its way in: no record of the log tells of it.
 * Files of the first version do not say which numbers were used; there, all devices have been from the beginning.
 */
export function noticeStrangers(config: GroupConfig): void {
  const { nextDevice } = config;
  if (nextDevice === undefined) return;
  for (const device of config.devices)
    if (device.nr >= nextDevice && device.pending === undefined) device.pending = { op: 'create' };
}

export function findDevice(config: GroupConfig, name: string): DeviceConfig {
  const device = config.devices.find((d) => d.name === name && d.pending?.op !== 'remove');
  if (device !== undefined) return device;
  const names = config.devices.map((d) => d.name).join(', ');
  throw new RepError('ENOENT', `${name}: no such device; the group has ${names}`);
}

/** The device that `request` asks for; throws RepError where it cannot be. `dir` is the group's folder. */
export function planCreate(config: GroupConfig, dir: string, request: NewDevice): DeviceConfig {
  const { name, size, sparse } = request;
  const fault = nameFault(name);
  if (fault !== undefined) throw new RepError('EINVAL', `"${name}": ${fault}; choose another name`);
  checkSize(name, size);
  const same = config.devices.find((d) => d.name === name);
  if (same !== undefined)
    throw new RepError(
      'EEXIST',
      same.pending?.op === 'remove'
        ? `${name}: a device of that name is being removed; mount the group to complete that, or choose another name`
        : `${name}: the group has a device of that name (${formatSize(same.size)}); choose another name`,
    );
  if (config.devices.length >= MAX_DEVICES)
    throw new RepError('ENOSPC', `${name}: the group has ${MAX_DEVICES} devices, the most there can be; use another`);
  const next = nextNumber(config);
  const nr = request.nr ?? next;
  if (nr < next)
    throw new RepError(
      'EEXIST',
      `${name}: number ${nr} was used before, and records of the log may still name it; ` +
        `take ${next} or a larger one, or leave it out`,
    );
  if (nr > MAX_DEVICE)
    throw new RepError('EINVAL', `${name}: number ${nr} is too large; devices are numbered up to ${MAX_DEVICE}`);
  const unmapped = config.sites.find((s) => s.type === 'blockdev' && s.address === '' && s.map[name] === undefined);
  if (unmapped !== undefined)
    throw new RepError(
      'EINVAL',
      `${name}: site ${unmapped.nr} has a disk for each device by name, and none for this one; ` +
        `unmount the group and add it to the map in group.json first`,
    );
  const { local = path.join(groupFiles(dir).images, name) } = request;
  if (!path.isAbsolute(local) || local.includes('\0'))
    throw new RepError('EINVAL', `${local}: name the local image by a path from the root`);
  refusePlace(config, dir, path.normalize(local));
  const device: DeviceConfig = { nr, name, size, local: path.normalize(local), dirtyLogs: {} };
  if (sparse) device.sparse = true;
  return device;
}

/** The device, and whether it has that size already. */
export function planResize(config: GroupConfig, name: string, size: number): { device: DeviceConfig; done: boolean } {
  const device = findDevice(config, name);
  checkSize(name, size);
  if (device.pending?.op === 'create')
    throw new RepError('EBUSY', `${name}: is still being made; mount the group to complete that, then resize it`);
  const now = device.pending?.op === 'resize' ? device.pending.size : device.size;
  if (size < now)
    throw new RepError(
      'EINVAL',
      `${name}: has ${formatSize(now)}, and a device cannot shrink: what is cut off would be lost at every site; ` +
        'make a smaller device and copy what you need',
    );
  return { device, done: size === device.size };
}

export function planRemove(config: GroupConfig, name: string): DeviceConfig {
  const device = findDevice(config, name);
  if (!servedDevices(config).some((d) => d !== device))
    throw new RepError('EBUSY', `${name}: is the only device, and a group has at least one; create another one first`);
  return device;
}

function checkSize(name: string, size: number): void {
  if (!Number.isSafeInteger(size) || size < SECTOR)
    throw new RepError('EINVAL', `${name}: ${size} bytes are no size for a device; give at least ${SECTOR}`);
  if (size % SECTOR !== 0)
    throw new RepError('EINVAL', `${name}: ${size} bytes are no whole number of sectors; use a multiple of ${SECTOR}`);
}

/** A place that belongs to another device, to a site or to the group itself. */
function refusePlace(config: GroupConfig, dir: string, local: string): void {
  const taken = (by: string): RepError =>
    new RepError('EEXIST', `${local}: is ${by}; name another place for the local image`);
  for (const d of config.devices) if (d.local === local) throw taken(`the local image of ${d.name}`);
  for (const site of config.sites) {
    if (site.type === 'blockdev' && site.address !== '' && (local === site.address || isInside(local, site.address)))
      throw taken(`in the folder of site ${site.nr}`);
    for (const [name, file] of Object.entries(site.map))
      if (file === local) throw taken(`what site ${site.nr} uses for ${name}`);
  }
  if (local === config.log.path) throw taken("the group's log");
  const files = groupFiles(dir);
  if (local === dir || (isInside(local, dir) && !isInside(local, files.images)))
    throw taken("in the group's own folder, and not under images/");
}

export function isInside(file: string, folder: string): boolean {
  return file.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

// --- what a change makes of the configuration --------------------------------------------------------------

/** `config` with `device` as it is to be; a device of another number is added. The old object stays as it is. */
export function withDevice(config: GroupConfig, device: DeviceConfig): GroupConfig {
  const others = config.devices.filter((d) => d.nr !== device.nr);
  const devices = [...others, device].sort((a, b) => a.nr - b.nr);
  return changed(config, devices);
}

/** `config` without device `nr`, whose number stays used. */
export function withoutDevice(config: GroupConfig, nr: number): GroupConfig {
  return changed(
    config,
    config.devices.filter((d) => d.nr !== nr),
  );
}

/** With the first change the beginning is written down, since the present no longer tells it. */
function changed(config: GroupConfig, devices: DeviceConfig[]): GroupConfig {
  const first = firstDevices(config);
  const next = Math.max(nextNumber(config), nextNumber({ ...config, devices }));
  return { ...config, devices, nextDevice: next, firstDevices: first };
}

/** `config` with the devices of `was`: what was begun has failed and left nothing behind. */
export function restored(config: GroupConfig, was: GroupConfig): GroupConfig {
  const { devices: _1, nextDevice: _2, firstDevices: _3, ...rest } = config;
  return { ...was, ...rest };
}

/** The images that slink 0 writes to: of what is served, and of what is leaving and may have records left. */
export function localImages(config: GroupConfig): LocalSpec[] {
  return config.devices.flatMap((d) => {
    if (d.pending?.op === 'create') return [];
    const grown = d.pending?.op === 'resize' ? { grown: d.pending.size } : {};
    const optional = d.pending?.op === 'remove';
    // A removal may have been asked for while a growth was under way.
    return [
      {
        ...{ nr: d.nr, name: d.name, file: d.local, size: d.size, optional },
        ...(optional ? { grown: Number.MAX_SAFE_INTEGER } : grown),
      },
    ];
  });
}

/** What belongs to somebody already, for a new image to keep away from. */
export function placesInUse(config: GroupConfig, dir: string, mountpoint?: string): PlacesInUse {
  const dirtyLogs = dirtyLogPlaces(config).map((place) => place.path);
  const files = [config.log.path, groupFiles(dir).config, ...config.devices.map((d) => d.local), ...dirtyLogs];
  const folders = mountpoint === undefined ? [] : [mountpoint];
  for (const site of config.sites) {
    if (site.type !== 'blockdev') continue;
    if (site.address !== '') folders.push(site.address);
    files.push(...Object.values(site.map));
  }
  return { files, folders };
}

/** A device without what was begun. */
export function settled(device: DeviceConfig): DeviceConfig {
  const { pending: _, ...rest } = device;
  return rest;
}
