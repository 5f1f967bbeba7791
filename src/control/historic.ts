/**
 * Messages in the words of the historic targets (R-45, R-46, R-48), carried out by what reptool has for them:
 *
 *   start|resume [all]                   what an error suspended; sites, if all are paused, and `all` each of them
 *   stop|suspend|postsuspend [all]       pauses every site
 *   flush                                answers when nothing is left to copy of what was written before
 *   replog resize SECTORS                the log gets another size; a size with a unit is taken as well
 *   DEVICE start|resume|stop|suspend|postsuspend
 *   DEVICE device add|del …              not in this version: a device is at every site of its group
 */
import { RepError, type ErrnoName } from '../base/errors.js';
import { SECTOR, parseSize } from '../base/units.js';
import { MAX_SITE } from './config.js';
import type { ChangeHow } from './device-changes.js';
import { prefixOf } from './message-words.js';

/** What these messages need of a group. */
export interface HistoricHost {
  sites(): readonly number[];
  isPaused(site: number): boolean;
  setPaused(site: number, paused: boolean): Promise<string>;
  resume(): Promise<string>;
  wait(links: readonly number[], timeoutMs: number, stop: AbortSignal): Promise<string>;
  resizeLog(size: number, how: ChangeHow): Promise<string>;
}

/** A day: `flush` has no limit of its own, but no timer lasts for ever. */
const FLUSH_MS = 86_400_000;

/** Words that pause or resume, for the group and for a device alike. */
export const START_VERBS = ['start', 'resume'] as const;
export const STOP_VERBS = ['stop', 'suspend', 'postsuspend'] as const;

export async function start(host: HistoricHost, all: boolean): Promise<string> {
  const sites = host.sites();
  const paused = sites.filter((nr) => host.isPaused(nr));
  // Bare, it undoes a suspend: a site that was paused by itself stays so while others are fed.
  const waking = all || paused.length === sites.length ? paused : [];
  const done: string[] = [];
  for (const nr of waking) done.push(await host.setPaused(nr, false));
  const said = await host.resume();
  return [...done, ...(done.length > 0 && said === NOTHING ? [] : [said])].join('; ');
}

/** What `resume` of the host says where no error had suspended anything. */
const NOTHING = 'nothing was suspended';

export async function stop(host: HistoricHost): Promise<string> {
  const sites = host.sites();
  if (sites.length === 0) return 'there are no sites to be paused';
  for (const nr of sites) if (!host.isPaused(nr)) await host.setPaused(nr, true);
  return `suspended: ${sites.length === 1 ? 'the site is' : `all ${sites.length} sites are`} paused, the log keeps what they miss`;
}

export async function flush(host: HistoricHost, words: readonly string[], signal: AbortSignal): Promise<string> {
  if (words.length > 0) throw fault('EINVAL', `flush ${words.join(' ')}`, 'write flush alone');
  return host.wait([0, ...host.sites()], FLUSH_MS, signal);
}

export async function replogResize(host: HistoricHost, words: readonly string[], how: ChangeHow): Promise<string> {
  const [word = ''] = words;
  const size = words.length !== 1 ? undefined : /^\d+$/.test(word) ? Number(word) * SECTOR : parseSize(word);
  if (size === undefined || !Number.isSafeInteger(size))
    throw fault('EINVAL', `replog resize ${words.join(' ')}`.trim(), 'write replog resize SECTORS');
  return host.resizeLog(size, how);
}

/** A message to a device that exists. */
export async function toDevice(host: HistoricHost, device: string, words: readonly string[]): Promise<string> {
  const [verb = '', ...rest] = words;
  const what = prefixOf(verb, [...START_VERBS, ...STOP_VERBS, 'device']);
  if (what === 'device') return deviceDevice(device, rest);
  if (what === undefined || rest.length > 0)
    throw fault(
      'EINVAL',
      `${device} ${words.join(' ')}`.trim(),
      'not understood; a device takes start, resume, stop, suspend; write others to the group, without the device',
    );
  const done = START_VERBS.some((word) => word === what) ? start(host, false) : stop(host);
  return `${device} shares its order with the group: ${await done}`;
}

function deviceDevice(device: string, [verb = '', ...rest]: readonly string[]): never {
  const what = prefixOf(verb, ['add', 'del']);
  if (what === undefined || rest.length === 0)
    throw fault('EINVAL', `${device} device ${verb}`.trim(), 'write device add REPLICATOR NR …, or device del SLINK');
  if (what === 'add')
    throw fault(
      'EINVAL',
      `${device} device add`,
      'a device has a leg at every site of its group; legs are not added one by one',
    );
  const nr = linkNumber(rest[0]);
  throw fault(
    'EINVAL',
    `${device} device del ${nr}`,
    `a device has a leg at every site of its group; legs are not removed one by one`,
  );
}

export function linkNumber(word: string | undefined): number {
  const nr = /^\d+$/.test(word ?? '') ? Number(word) : NaN;
  if (nr >= 1 && nr <= MAX_SITE) return nr;
  throw fault('EINVAL', `slink ${word ?? ''}`.trim(), `links to sites are numbered 1 to ${MAX_SITE}`);
}

export function fault(errno: ErrnoName, what: string, next: string): RepError {
  return new RepError(errno, `${what}: ${next}`);
}
