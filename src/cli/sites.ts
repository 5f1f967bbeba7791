/** `reptool site list|set|add|remove|fail-pending`, on a mounted group or (--state) on one that is not. */
import * as fs from 'node:fs';
import { RepError } from '../base/errors.js';
import { formatSize } from '../base/units.js';
import { sendMessage } from '../control/client.js';
import { DEFAULT_GROUP, loadConfig, saveConfig, type SiteConfig } from '../control/config.js';
import { withSites } from '../control/dirty-logs.js';
import { daemonRuns, readRun } from '../control/keeper-client.js';
import { lockGroup, unlockGroup } from '../control/lock.js';
import { policyWords } from '../control/policy-words.js';
import { escapeWord, isPlaced, newSite, withSettings } from '../control/site-settings.js';
import { groupDir, groupFiles, siteStamp, stateRoot } from '../control/state.js';
import type { SiteStatus } from '../control/status.js';
import { productTypes } from '../control/types.js';
import { SLINK } from '../slink/types.js';
import { usage } from './base.js';
import { columns, formatSeconds, plural } from './output.js';
import { policyText, rulesText } from './status-text.js';
import { readStatus, withMount } from './target.js';

/** Which group: the mounted one (DIR), or the one of a state folder. */
export interface Where {
  readonly mount?: string | undefined;
  readonly state?: string | undefined;
  readonly group?: string | undefined;
}

export interface Changed {
  readonly text: string;
  readonly site: number;
  readonly reply: string;
  /** Null where the group is not mounted. */
  readonly mountpoint: string | null;
}

/** A new site may be given its images in full before the answer comes. */
const ADD_MS = 60_000;

export async function setSite(where: Where, nr: number, words: readonly string[]): Promise<Changed> {
  if (words.length === 0) throw usage('nothing to set; name a setting such as --policy sync');
  const place = placed(where);
  if ('dir' in place) return online(place.dir, nr, `site ${nr} set ${words.join(' ')}`);
  return offline(place.folder, nr, (sites) => {
    const before = known(sites, nr);
    const site = withSettings(before, words);
    return { sites: sites.map((s) => (s === before ? site : s)), reply: `site ${nr}: ${policyWords(site)}` };
  });
}

export async function addSite(where: Where, nr: number, address: string, words: readonly string[]): Promise<Changed> {
  const told = words.map((word) => (isPlaced(word) ? escapeWord(word) : word));
  const place = placed(where);
  if ('dir' in place)
    return online(place.dir, nr, `site add ${nr} ${escapeWord(address)} ${told.join(' ')}`.trim(), ADD_MS);
  return offline(place.folder, nr, (sites) => {
    if (sites.some((site) => site.nr === nr))
      throw new RepError('EEXIST', `site ${nr}: exists already; choose another number, or remove it first`);
    const site = newSite(String(nr), escapeWord(address), told);
    return {
      sites: [...sites, site].sort((a, b) => a.nr - b.nr),
      reply: `site ${nr} added: ${policyWords(site)}; it is made when the group is mounted`,
    };
  });
}

export async function removeSite(where: Where, nr: number): Promise<Changed> {
  const place = placed(where);
  if ('dir' in place) return online(place.dir, nr, `site remove ${nr}`);
  const removed = offline(place.folder, nr, (sites) => {
    const site = known(sites, nr);
    return { sites: sites.filter((s) => s !== site), reply: `site ${nr} removed; its data stay where they are` };
  });
  // A later site of the same number must not be measured by what this one held.
  fs.rmSync(siteStamp(place.folder, nr), { force: true });
  return removed;
}

export function failPending(dir: string | undefined): Promise<{ text: string; reply: string; mountpoint: string }> {
  return withMount(dir, async (mount) => {
    const { text } = await sendMessage(mount.dir, 'fail-pending');
    return { text, reply: text, mountpoint: mount.dir };
  });
}

export async function listSites(where: Where): Promise<{ text: string; sites: SiteStatus[] | SiteConfig[] }> {
  const place = placed(where);
  if (!('dir' in place)) {
    const { sites } = loadConfig(place.folder);
    const rows = sites.map((site) => [
      `site${site.nr}`,
      `policy:${policyWords(site)}`,
      configured(site),
      placeOf(site),
    ]);
    return { text: listText(rows), sites };
  }
  return withMount(place.dir, async (mount) => {
    const { connections: sites } = await readStatus(mount.dir);
    const rows = sites.map((site) => [
      site.name,
      `${site.state}${site.degraded ? ',degraded' : ''}`,
      `policy:${policyText(site)}`,
      site['lag-writes'] === 0 ? 'lag:none' : `lag:${formatSeconds(site['lag-seconds']).replace(' ', '')}`,
      [rulesText(site), site['waiting-writes'] > 0 ? `waiting:${site['waiting-writes']}` : ''].join(' ').trim(),
      `${site.type}:${site.address}`,
    ]);
    return { text: listText(rows), sites };
  });
}

function listText(rows: string[][]): string {
  return rows.length === 0 ? 'no site' : columns(rows).join('\n');
}

function configured(site: SiteConfig): string {
  const { ios, size, timeoutMs } = site.fallBehind;
  const limits = [
    ios > 0 ? plural(ios, 'write') : '',
    size > 0 ? formatSize(size) : '',
    timeoutMs > 0 ? formatSeconds(timeoutMs / 1000) : '',
  ].filter((word) => word !== '');
  return [
    limits.length > 0 ? `fall-behind:${limits.join(',').replaceAll(' ', '')}` : '',
    site.syncTimeoutMs > 0 ? `sync-timeout:${formatSeconds(site.syncTimeoutMs / 1000).replace(' ', '')}` : '',
    site.bandwidth > 0 ? `bandwidth:${formatSize(site.bandwidth).replace(' ', '')}/s` : '',
    site.resyncRate > 0 ? `resync-rate:${formatSize(site.resyncRate).replace(' ', '')}/s` : '',
  ]
    .join(' ')
    .trim();
}

function placeOf(site: SiteConfig): string {
  return `${site.type}:${site.address}`;
}

// --- where -----------------------------------------------------------------------------------------------

/** A group that is not mounted is changed in its folder; one that is, through its mount, however it was named. */
function placed(where: Where): { dir: string | undefined } | { folder: string } {
  if (where.mount !== undefined || (where.state === undefined && where.group === undefined))
    return { dir: where.mount };
  const folder = folderOf(where);
  const run = readRun(folder);
  return run !== undefined && daemonRuns(run) ? { dir: run.mountpoint } : { folder };
}

function folderOf({ state, group }: Where): string {
  return groupDir(state ?? stateRoot(), group ?? DEFAULT_GROUP);
}

function online(dir: string | undefined, site: number, message: string, timeoutMs?: number): Promise<Changed> {
  return withMount(dir, async (mount) => {
    const { text } = await sendMessage(mount.dir, message, timeoutMs);
    return { text, site, reply: text, mountpoint: mount.dir };
  });
}

/** Under the group's lock, which whoever serves it holds as well. */
function offline(
  dir: string,
  site: number,
  change: (sites: SiteConfig[]) => { sites: SiteConfig[]; reply: string },
): Changed {
  // Says what is missing better than the lock does.
  loadConfig(dir);
  const lock = lockGroup(dir);
  try {
    const config = loadConfig(dir);
    const { sites, reply } = change(config.sites);
    const { config: file } = groupFiles(dir);
    for (const changed of sites.filter((s) => !config.sites.includes(s))) checkType(changed, file);
    saveConfig(dir, withSites(config, sites));
    return { text: reply, site, reply, mountpoint: null };
  } finally {
    unlockGroup(lock);
  }
}

/** Whether there can be such a site, as far as its type can tell from the words. */
function checkType(site: SiteConfig, file: string): void {
  const type = productTypes().peek(SLINK, site.type);
  if (type === undefined)
    throw new RepError('ENOENT', `${file}: site ${site.nr}: unknown type "${site.type}"; write blockdev:/folder`);
  const fault = type.acks.includes(site.ack)
    ? type.check(site)
    : `ack ${site.ack}: a ${site.type} site cannot; write durable`;
  if (fault !== '') throw new RepError('EINVAL', `${file}: site ${site.nr}: ${fault}`);
}

function known(sites: readonly SiteConfig[], nr: number): SiteConfig {
  const site = sites.find((s) => s.nr === nr);
  if (site !== undefined) return site;
  const numbers = sites.map((s) => s.nr).join(', ');
  throw new RepError(
    'ENOENT',
    `site ${nr}: no such site; ${numbers === '' ? 'there are none' : `there is ${numbers}`}`,
  );
}
