/**
 * `.ctl/status`: one line per target, `<start> <len> <target> <status…>`, positional and append-only.
 *
 *   0 1 replicator {<A|S>,<ios>,<size>} <Σios>/<Σsize>/<log size> <head> <tail> <free> <state> <holder>
 *   0 <len> replicator-dev <group> <nr> {<err>,<sync>}
 *
 * Sizes and positions are sectors. Per link: A asynchronous, S synchronous (by its policy, or because it is
 * beyond its fall-behind limits: writes wait for it); writes and sectors not yet
 * confirmed. `state` is ok, full or error; `holder` the link that keeps the log's head, or `-`. Per device and
 * link: err A (alive) or W (does not take writes); sync `-` for the local disk, else regions `<in sync>[+]/<all>`, with
 * the `+` while dirty ones are copied.
 */
import { SECTOR } from '../base/units.js';
import { servedDevices } from './device-plan.js';
import type { GroupFacts, SiteFacts } from './facts.js';
import { buildStatus } from './facts.js';

export function statusLines(f: GroupFacts): string {
  const status = buildStatus(f);
  const { window, log, config } = f;
  const links: { mode: 'A' | 'S'; ios: number; sectors: number }[] = [
    {
      mode: config.durability === 'write' ? 'S' : 'A',
      ios: window.tail - window.applied,
      sectors: sectors(window.unapplied),
    },
    ...status.connections.map((c) => ({ mode: c.mode, ios: c['lag-writes'], sectors: sectors(c['lag-bytes']) })),
  ];
  const ios = links.reduce((sum, link) => sum + link.ios, 0);
  const size = links.reduce((sum, link) => sum + link.sectors, 0);
  const used = status.log.used;
  const words = [
    ...links.map((link) => `${link.mode},${link.ios},${link.sectors}`),
    `${ios}/${size}/${sectors(log.ring)}`,
    sectors(log.headPos),
    sectors(log.durablePos),
    sectors(log.ring - used),
    status.log.state,
    log.holder ?? '-',
  ];
  const lines = [`0 1 replicator ${words.join(' ')}`];
  for (const d of servedDevices(config)) {
    const regions = Math.ceil(d.size / SECTOR / f.region);
    const perLink = [
      `${f.localError === 0 ? 'A' : 'W'},-`,
      ...f.sites.map((site) => `${siteError(site)},${inSync(site, d.nr, regions)}/${regions}`),
    ];
    lines.push(`${namePrefix(d)}0 ${d.size / SECTOR} replicator-dev ${config.name} ${d.nr} ${perLink.join(' ')}`);
  }
  return `${lines.join('\n')}\n`;
}

/** dmsetup's `name: ` before a line, where the number alone would give another name. */
export function namePrefix(device: { nr: number; name: string }): string {
  return device.name === `disk${device.nr}` ? '' : `${device.name}: `;
}

function inSync(site: SiteFacts, device: number, regions: number): string {
  if (site.needsFullResync) return '0';
  const clean = regions - (site.dirty.get(device)?.dirty ?? 0);
  return `${clean}${site.inconsistent && site.state === 'resyncing' ? '+' : ''}`;
}

function siteError(site: SiteFacts): string {
  return site.state === 'failed' ? 'W' : 'A';
}

function sectors(bytes: number): number {
  return Math.ceil(bytes / SECTOR);
}
