/** From a table to the configuration of a group, and whether a group that exists is the one a table describes. */
import { RepError } from '../base/errors.js';
import { SECTOR } from '../base/units.js';
import {
  checkConfig,
  DEFAULT_WINDOW_RING,
  type DeviceConfig,
  type FallBehind,
  type GroupConfig,
  type SiteConfig,
} from './config.js';
import type { DeviceTrace } from '../replog/device-trace.js';
import { nextNumber } from './device-plan.js';
import { dirtyLogWords, regionOf, withoutUsual } from './dirty-logs.js';
import type { TableGroup } from './table-parse.js';

export interface TableSetting {
  id: string;
  name: string;
  /** Bytes: as the table has it or, of a log that exists, as that says itself. */
  logSize: number;
  plugins: readonly string[];
  /** Named in errors. */
  source: string;
}

/** Throws EINVAL where the words make no group. */
export function tableConfig(table: TableGroup, setting: TableSetting): GroupConfig {
  const config: GroupConfig = {
    version: 1,
    id: setting.id,
    name: setting.name,
    durability: table.durability,
    onLocalError: table.onLocalError,
    plugins: [...setting.plugins],
    log: { path: table.log.path, size: setting.logSize },
    windowRing: DEFAULT_WINDOW_RING,
    devices: withoutUsual(table.devices),
    sites: structuredClone(table.sites),
  };
  return checkConfig(config, setting.source);
}

/** Throws EINVAL naming the first thing in which the group that exists is another one. */
export function checkSameGroup(table: TableGroup, config: GroupConfig, source: string): void {
  const differ = (what: string, said: string, is: string): void => {
    if (said === is) return;
    throw new RepError(
      'EINVAL',
      `${source}: ${what} ${said}, but group ${config.name} exists with ${is}; ` +
        'correct the table, or change the group while it is mounted',
    );
  };
  differ('log', table.log.path, config.log.path);
  differ('slink 0 with durability', table.durability, config.durability);
  differ('slink 0 with on-local-error', table.onLocalError, config.onLocalError);
  const byNumber = (list: readonly { nr: number }[]): string =>
    list
      .map(({ nr }) => nr)
      .sort((a, b) => a - b)
      .join(', ');
  differ('devices', byNumber(table.devices), byNumber(config.devices));
  differ('slinks', byNumber(table.sites) || 'none', byNumber(config.sites) || 'none');
  const legs = table.sites.map(({ nr }) => nr);
  for (const device of table.devices) {
    const said = deviceFacts(device, legs, regionOf(table));
    for (const [key, value] of Object.entries(
      deviceFacts(
        config.devices.find((d) => d.nr === device.nr)!,
        legs,
        regionOf(config),
      ),
    ))
      differ(`device ${device.nr} with ${key}`, said[key]!, value);
  }
  for (const site of table.sites)
    for (const [key, value] of Object.entries(siteFacts(config.sites.find((s) => s.nr === site.nr)!)))
      differ(`slink ${site.nr} with ${key}`, siteFacts(site)[key]!, value);
}

/**
 * For a log whose group.json was lost: the numbers that its records name are used, and the devices of `config`, which
 * came from a table, must be those that the log ends with. Throws EINVAL naming the first that is not.
 */
export function checkLogDevices(config: GroupConfig, trace: DeviceTrace, source: string): void {
  const fault = (nr: number, reason: string): RepError =>
    new RepError('EINVAL', `${source}: device ${nr}${reason} (log ${config.log.path})`);
  for (const [nr, { seq, removed, name, size, reach }] of [...trace.devices].sort(([a], [b]) => a - b)) {
    const device = config.devices.find((d) => d.nr === nr);
    if (device === undefined) {
      if (removed) continue;
      const called = name === undefined ? '' : ` with name ${name}`;
      throw fault(nr, `${called}: the log has it since record ${seq}, the table does not; add its line`);
    }
    if (removed)
      throw fault(nr, `: was removed by record ${seq} of the log, and its number stays used; leave its line out`);
    if (name !== undefined && name !== device.name)
      throw fault(nr, ` with name ${device.name}: the log has it with ${name}; correct the line`);
    if (size !== undefined && size !== device.size)
      throw fault(
        nr,
        ` with length ${device.size / SECTOR}: the log has it with ${size / SECTOR} since record ${seq}; correct the line`,
      );
    if (reach > device.size)
      throw fault(
        nr,
        ` with length ${device.size / SECTOR}: the log has writes to it up to sector ${Math.ceil(reach / SECTOR)}; ` +
          'correct the line',
      );
  }
  config.nextDevice = Math.max(trace.next, nextNumber(config));
}

/** A leg that the table leaves out, or the configuration says nothing of, has the usual dirty log. */
function deviceFacts(device: DeviceConfig, legs: readonly number[], region: number): Record<string, string> {
  const dirtyLogs = Object.fromEntries(legs.map((nr) => [nr, dirtyLogWords(device, nr, region)]));
  return {
    name: device.name,
    length: String(device.size / SECTOR),
    path: device.local,
    'dirty logs': sorted(dirtyLogs),
  };
}

function siteFacts(site: SiteConfig): Record<string, string> {
  return {
    type: site.type,
    policy: `${site.policy}${site.stall ? '+stall' : ''}`,
    'fall-behind': limitText(site.fallBehind),
    address: site.address === '' ? sorted(site.map) : site.address,
    map: sorted(site.map),
    options: sorted(site.options),
    ack: site.ack,
    rpo: String(site.rpoMs),
    bandwidth: String(site.bandwidth),
    'sync-timeout': String(site.syncTimeoutMs),
    'resync-rate': String(site.resyncRate),
    'resync-latency': String(site.resyncLatencyMs),
  };
}

function limitText({ ios, size, timeoutMs }: FallBehind): string {
  return `ios ${ios}, size ${size / SECTOR}, timeout ${timeoutMs}`;
}

function sorted(map: object): string {
  return JSON.stringify(Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1))));
}
