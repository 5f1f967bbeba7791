/**
 * Dirty logs as a group's configuration names them: `dirtyLogs` of a device, the words of a table by slink number. A leg
 * without words has the usual one: in the group's index, with the region size of the group.
 */
import { realpathSync } from 'node:fs';
import { RepError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { SECTOR } from '../base/units.js';
import { DEFAULT_REGION, DIRTY_LOG, type DirtyLogType } from '../dirtylog/types.js';
import type { Registry } from '../registry/registry.js';
import { RESYNC_SERVED } from '../slink/resync.js';
import { takenBy } from '../slink/same-disk.js';
import type { DeviceConfig, GroupConfig, SiteConfig } from './config.js';
import { describeHolders, holdersOf } from './holders.js';
import { dirtyLogName, dirtyLogPlaces, takenBeside } from './taken.js';

/** Sectors of a region, the same for the whole group: what the first leg says that says anything. */
export function regionOf(config: { readonly devices: readonly DeviceConfig[] }): number {
  for (const { dirtyLogs } of config.devices)
    // Numbers as keys of an object come in their order.
    for (const [, ...params] of Object.values(dirtyLogs)) {
      // A path begins with a slash: the first number is the region size, whatever the type.
      const size = params.find((word) => /^\d+$/.test(word));
      if (size !== undefined) return Number(size);
    }
  return DEFAULT_REGION;
}

/** The words of a leg, type first, also where the configuration has none. */
export function dirtyLogWords(device: DeviceConfig, nr: number, region: number, served = RESYNC_SERVED): string[] {
  return device.dirtyLogs[String(nr)] ?? (served ? ['disk', String(region)] : ['nolog']);
}

/** Legs that say the usual say nothing: so a group has one configuration, whether commands or its table made it. */
export function withoutUsual(devices: readonly DeviceConfig[], served = RESYNC_SERVED): DeviceConfig[] {
  const region = regionOf({ devices });
  const plain = devices.map((device) => {
    const usual = dirtyLogWords({ ...device, dirtyLogs: {} }, 0, region, served).join(' ');
    const said = Object.entries(device.dirtyLogs).filter(([, words]) => words.join(' ') !== usual);
    return { ...device, dirtyLogs: Object.fromEntries(said) };
  });
  // It may be only they that say how large a region is.
  return regionOf({ devices: plain }) === region ? plain : structuredClone([...devices]);
}

/** Where a device has none at the site, the site never leaves the ring, and holds writers instead. */
export function hasDirtyLog(device: Pick<DeviceConfig, 'dirtyLogs'>, nr: number): boolean {
  return device.dirtyLogs[String(nr)]?.[0] !== 'nolog';
}

/** The group with these sites: of a number that is no more no words stay, which a later site of that number would get. */
export function withSites(config: GroupConfig, sites: SiteConfig[]): GroupConfig {
  const known = new Set(sites.map(({ nr }) => String(nr)));
  const kept = (logs: DeviceConfig['dirtyLogs']): DeviceConfig['dirtyLogs'] =>
    Object.fromEntries(Object.entries(logs).filter(([nr]) => known.has(nr)));
  return { ...config, sites, devices: config.devices.map((d) => ({ ...d, dirtyLogs: kept(d.dirtyLogs) })) };
}

/** Why the words of a site's legs cannot be, naming them; '' where they can. */
export function dirtyLogFault(config: GroupConfig, types: Registry): string {
  const region = regionOf(config);
  for (const [i, device] of config.devices.entries())
    for (const { nr } of config.sites) {
      const words = device.dirtyLogs[String(nr)];
      if (words === undefined) continue;
      const fault = wordsFault(words, region, types);
      if (fault !== '') return `devices[${i}].dirtyLogs.${nr} "${words.join(' ')}": ${fault}`;
    }
  return '';
}

function wordsFault([name = '', ...params]: readonly string[], region: number, types: Registry): string {
  const type = types.peek(DIRTY_LOG, name);
  if (type === undefined)
    return `type "${name}": not registered; there is ${types.list(DIRTY_LOG)?.join(', ') ?? 'none'}`;
  try {
    const said = type.parse(params).region;
    if (said === undefined || said === region) return '';
    return `region size ${said}: all devices at all sites have one, ${region}; write that`;
  } catch (error) {
    if (error instanceof RepError) return error.message;
    throw error;
  }
}

function realOr(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/**
 * Looks at the devices of dirty logs before anything is made. EBUSY: one is something else of the group, or in use.
 * ENXIO: it is not there, too small, or holds what must not be overwritten. `begins`: the group is new.
 */
export function checkDirtyLogDevices(config: GroupConfig, types: Registry, io: Io, begins: boolean): void {
  for (const place of dirtyLogPlaces(config)) {
    const { path, device, nr } = place;
    const [name = '', ...params] = device.dirtyLogs[String(nr)]!;
    const type: DirtyLogType | undefined = types.peek(DIRTY_LOG, name);
    if (type === undefined) continue;
    const what = dirtyLogName(place);
    const other = takenBy(io, path, takenBeside(config, place, []));
    if (other !== '') throw new RepError('EBUSY', `${path}, ${what}: it is ${other} already; name another device`);
    const holders = holdersOf(realOr(path));
    if (holders.length > 0)
      throw new RepError(
        'EBUSY',
        `${path}, ${what}: it is in use: ${describeHolders(holders)}; free it, or name another`,
      );
    const fault = type.look({
      io,
      leg: { logId: config.id, link: nr, device: device.nr, name: `${device.name} at site ${nr}` },
      table: type.parse(params),
      region: regionOf(config),
      sectors: device.size / SECTOR,
      begins,
      fact: undefined,
      taken: () => '',
    });
    if (fault !== '') throw new RepError('ENXIO', fault);
  }
}
