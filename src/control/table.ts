/**
 * `.ctl/table`: the group as table lines, in the grammar of the `replicator` and `replicator-dev` targets, which
 * table-parse.ts reads. What was `auto` or `create` when the log was made is `open` now, so that the lines can be
 * used again as they stand.
 *
 *   0 1 replicator ringbuffer 3 <log> 0 open { <slink type> <#params> <slink> <policy> [<limit> <value>] [<key>=<value>] }
 *   [<name>: ]0 <sectors> replicator-dev <group> <nr> { <slink> 1 <path> <dirty log> <#params> <params> }
 */
import { SECTOR } from '../base/units.js';
import type { Registry } from '../registry/registry.js';
import { REPLOG } from '../replog/types.js';
import { SLINK, type SlinkWords } from '../slink/types.js';
import type { DeviceConfig, GroupConfig, SiteConfig } from './config.js';
import { servedDevices } from './device-plan.js';
import { dirtyLogWords, regionOf } from './dirty-logs.js';
import { limitWords, policyWords } from './policy-words.js';
import { namePrefix } from './status-lines.js';
import { printSiteWords } from './table-site.js';
import { escapeWord } from './table-words.js';

/** The one type of log that a configuration can name. */
const REPLOG_TYPE = 'ringbuffer';

export function tableLines(config: GroupConfig, types: Registry): string {
  const devices = servedDevices(config);
  const region = regionOf(config);
  const names = devices.map((d) => d.name);
  const sites = config.sites.map((site) => ({ site, table: siteTable(site, names, types) }));
  const log = types.peek(REPLOG, REPLOG_TYPE)!.print(config.log);
  const local = [
    '0',
    config.durability === 'write' ? 'sync' : 'async',
    ...(config.onLocalError === 'suspend' ? [] : [`on-local-error=${config.onLocalError}`]),
  ];
  const links = sites.map(({ site, table }) => `${site.type} ${counted(linkWords(site, table))}`);
  const control = [`${REPLOG_TYPE} ${counted(log)}`, `blockdev ${counted(local)}`, ...links];
  const lines = [`0 1 replicator ${control.join(' ')}`];
  for (const d of devices) {
    const legs = [`0 1 ${escapeWord(d.local)} nolog 0`];
    for (const { site, table } of sites) {
      const path = table.legs.find((leg) => leg.device === d.name)?.path;
      if (path !== undefined) legs.push(`${site.nr} 1 ${escapeWord(path)} ${dirtyLog(d, site.nr, region)}`);
    }
    lines.push(`${namePrefix(d)}0 ${d.size / SECTOR} replicator-dev ${config.name} ${d.nr} ${legs.join(' ')}`);
  }
  return `${lines.join('\n')}\n`;
}

type SiteTable = Omit<SlinkWords, 'whole'>;

/** A type that is not there (its plug-in did not load) cannot say it better than the configuration does. */
function siteTable(site: SiteConfig, devices: readonly string[], types: Registry): SiteTable {
  const type = types.peek(SLINK, site.type);
  if (type !== undefined) return type.toTable(site, devices);
  return { legs: devices.map((device) => ({ device, path: site.map[device] ?? site.address })), words: {} };
}

function linkWords(site: SiteConfig, table: SiteTable): string[] {
  return [
    String(site.nr),
    policyWords(site),
    ...limitWords(site),
    ...printSiteWords(site),
    ...Object.entries(table.words).map(([key, value]) => `${key}=${value}`),
  ];
}

function dirtyLog(device: DeviceConfig, slink: number, region: number): string {
  const [name = 'nolog', ...params] = dirtyLogWords(device, slink, region);
  return `${name} ${counted(params)}`;
}

function counted(words: readonly string[]): string {
  return [String(words.length), ...words.map(escapeWord)].join(' ');
}
