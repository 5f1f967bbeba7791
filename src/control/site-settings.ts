/**
 * A site and its settings as messages and commands say them: `2 blockdev:/backup/site2 policy=sync`.
 *
 *   policy=sync|async[+stall]        who waits for the site; words of a table (policy-parse)
 *   stall=yes|no
 *   ack=durable|received
 *   fallbehind=LIMIT[,LIMIT…]|none   ios=N, size=N[s|k|m|g|t|p|e], timeout=N[s|m|h|d]
 *   sync-timeout=TIME|none           how long writers wait for the site at most
 *   bandwidth=SIZE|none              bytes per second
 *   rpo=TIME                         how long it may gather
 *   resync-rate=SIZE|none            bytes per second that a verify reads of the site
 *   resync-latency=TIME|auto         what requests may take meanwhile
 *   map.DEVICE=PATH                  `site add` only: where a device is at the site
 *   option.WORD=VALUE                `site add` only: what the site's type understands, such as option.tls=require
 *
 * A blank in an address or path is written `\040`, a backslash `\134`, as in mountinfo.
 */
import { RepError } from '../base/errors.js';
import { parseDuration, parseSize } from '../base/units.js';
import { MAX_SITE, plainSite, type SiteConfig } from './config.js';
import { NO_LIMITS, parseLimitWord, parsePolicy } from './policy-parse.js';

type Setting = (site: SiteConfig, value: string) => void;

const SETTINGS: Record<string, Setting> = {
  policy: (site, value) => {
    const { policy, stall } = parsePolicy(value);
    site.policy = policy;
    // `policy=async` alone says nothing about stall, which has a word of its own.
    if (stall || value.includes('+')) site.stall = stall;
  },
  stall: (site, value) => {
    if (value !== 'yes' && value !== 'no') throw invalid(`stall=${value}`, 'write stall=yes or stall=no');
    site.stall = value === 'yes';
  },
  ack: (site, value) => {
    if (value !== 'durable' && value !== 'received') throw invalid(`ack=${value}`, 'write durable or received');
    site.ack = value;
  },
  fallbehind: (site, value) => {
    site.fallBehind =
      value === 'none'
        ? { ...NO_LIMITS }
        : value.split(',').reduce((limits, word) => parseLimitWord(word, limits), { ...NO_LIMITS });
  },
  'sync-timeout': (site, value) => void (site.syncTimeoutMs = value === 'none' ? 0 : time('sync-timeout', value)),
  bandwidth: (site, value) => void (site.bandwidth = rate('bandwidth', value)),
  rpo: (site, value) => void (site.rpoMs = time('rpo', value)),
  'resync-rate': (site, value) => void (site.resyncRate = rate('resync-rate', value)),
  'resync-latency': (site, value) => void (site.resyncLatencyMs = value === 'auto' ? 0 : time('resync-latency', value)),
};

/** Words that `site set` understands, in the order of the manual. */
export const SETTING_WORDS = Object.keys(SETTINGS);

/** `site` with the settings of `words` (KEY=VALUE). Throws EINVAL naming the word; checkConfig then judges the whole. */
export function withSettings(site: SiteConfig, words: readonly string[]): SiteConfig {
  const changed = structuredClone(site);
  const seen = new Set<string>();
  for (const word of words) {
    const at = word.indexOf('=');
    const key = (at < 0 ? word : word.slice(0, at)).toLowerCase();
    const setting = Object.hasOwn(SETTINGS, key) ? SETTINGS[key] : undefined;
    if (setting === undefined || at < 0) throw invalid(word, `write KEY=VALUE with ${SETTING_WORDS.join(', ')}`);
    if (seen.has(key)) throw invalid(word, `${key} is given twice`);
    seen.add(key);
    setting(changed, word.slice(at + 1));
  }
  return changed;
}

/** What only a new site is given, and where it goes. */
const PLACES = { map: 'map.DEVICE=PATH', option: 'option.WORD=VALUE' } as const;

/** A new site: its number, TYPE:ADDRESS, `map.…`, `option.…` and settings. Throws EINVAL. */
export function newSite(nr: string, where: string, words: readonly string[]): SiteConfig {
  const number = siteNumberOf(nr);
  const at = where.indexOf(':');
  if (at <= 0) throw invalid(where, 'write TYPE:ADDRESS such as blockdev:/backup/site2');
  const type = where.slice(0, at);
  const address = unescapeWord(where.slice(at + 1));
  if (type === 'blockdev' && address !== '' && !address.startsWith('/'))
    throw invalid(where, 'the folder of a blockdev site is named by its whole path, from /');
  const site = plainSite(number, type, address);
  const placed = words.filter(isPlaced);
  for (const word of placed) {
    const kind = word.startsWith('map.') ? 'map' : 'option';
    const m = /^[a-z]+\.([^=]+)=(.+)$/.exec(word);
    if (m === null) throw invalid(word, `write ${PLACES[kind]}`);
    const key = unescapeWord(m[1]!);
    const into = kind === 'map' ? site.map : site.options;
    if (Object.hasOwn(into, key)) throw invalid(word, `${key} is given twice`);
    into[key] = unescapeWord(m[2]!);
  }
  return withSettings(
    site,
    words.filter((word) => !isPlaced(word)),
  );
}

/** True for words whose value may hold blanks and is escaped in a message. */
export function isPlaced(word: string): boolean {
  return word.startsWith('map.') || word.startsWith('option.');
}

export function siteNumberOf(word: string): number {
  const nr = /^\d{1,4}$/.test(word) ? Number(word) : NaN;
  if (nr === 0) throw invalid('site 0', 'slink 0 is the local site; name a site from 1');
  if (!(nr <= MAX_SITE)) throw invalid(`site ${word}`, `sites are numbered 1 to ${MAX_SITE}`);
  return nr;
}

/** As one word of a message. */
export function escapeWord(text: string): string {
  return text.replace(/[\s\\]/g, (ch) => `\\${ch.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

function unescapeWord(word: string): string {
  return word.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

function rate(key: string, value: string): number {
  const bytes = value === 'none' ? 0 : parseSize(value);
  if (bytes === undefined) throw invalid(`${key}=${value}`, 'write bytes per second such as 10m, or none');
  return Math.round(bytes);
}

/** A bare number could be seconds (as elsewhere on the command line) or milliseconds (as in tables): it says which. */
function time(key: string, value: string): number {
  const ms = /^0+$/.test(value) ? 0 : /^\d+$/.test(value) ? undefined : parseDuration(value);
  if (ms === undefined) throw invalid(`${key}=${value}`, `write a time with its unit, such as ${key}=100ms or 30s`);
  return ms;
}

function invalid(what: string, next: string): RepError {
  return new RepError('EINVAL', `${what}: ${next}`);
}
