/**
 * Messages to the links of a group in the words of the historic targets (R-46, R-47 in their corrected forms):
 *
 *   slink add TYPE N NR [POLICY [LIMIT]] address=ADDRESS|map.DEVICE=PATH…
 *   slink del NR
 *   slink message NR fallbehind TYPE=NUMBER[UNIT]
 *   slink message NR policy POLICY
 */
import { fault, linkNumber } from './historic.js';
import { prefixOf } from './message-words.js';
import { isLimit, parseLimitWord, parsePolicy } from './policy-parse.js';
import { siteWords } from './table-site.js';

/** What these messages need of a group. */
export interface SlinkHost {
  sites(): readonly number[];
  setSite(site: number, words: readonly string[]): Promise<string>;
  addSite(nr: string, where: string, words: readonly string[]): Promise<string>;
  removeSite(site: number): Promise<string>;
}

const SLINK_VERBS = ['add', 'del', 'message'] as const;
const SLINK_USAGE = 'write slink add TYPE N NR …, slink del NR, or slink message NR fallbehind TYPE=N | policy POLICY';

export async function slink(host: SlinkHost, [verb = '', ...rest]: readonly string[]): Promise<string> {
  switch (prefixOf(verb, SLINK_VERBS)) {
    case 'add':
      return slinkAdd(host, rest);
    case 'del': {
      if (rest.length !== 1) throw fault('EINVAL', `slink del ${rest.join(' ')}`.trim(), 'write slink del NR');
      const nr = linkNumber(rest[0]);
      if (!host.sites().includes(nr)) throw fault('EPERM', `slink del ${nr}`, 'there is no such link');
      return host.removeSite(nr);
    }
    case 'message':
      return slinkMessage(host, rest);
    case undefined:
      throw fault('EINVAL', `slink ${verb}`.trim(), SLINK_USAGE);
  }
}

async function slinkAdd(host: SlinkHost, [type, countWord, ...params]: readonly string[]): Promise<string> {
  const usage = 'write slink add TYPE N NR [POLICY [LIMIT]] address=ADDRESS, N counting the words behind it';
  const count = /^\d+$/.test(countWord ?? '') ? Number(countWord) : NaN;
  if (type === undefined || Number.isNaN(count) || params.length === 0) throw fault('EINVAL', 'slink add', usage);
  if (count !== params.length)
    throw fault('EINVAL', `slink add ${type} ${count}`, `${params.length} words follow; correct the count`);
  const [nrWord, ...words] = params;
  const nr = linkNumber(nrWord);
  if (host.sites().includes(nr)) throw fault('EPERM', `slink add ${type}: slink ${nr}`, 'it is there already');
  let address: string | undefined;
  const settings: string[] = [];
  const limits: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const at = word.indexOf('=');
    const key = at < 0 ? word : word.slice(0, at);
    if (key === 'address' && at > 0) address = word.slice(at + 1);
    else if (isLimit(key)) {
      const limit = at > 0 ? word : `${word}=${words[++i] ?? ''}`;
      parseLimitWord(limit);
      limits.push(limit.toLowerCase());
    } else if (at > 0) settings.push(tableSetting(key, word));
    else if (i === 0) {
      parsePolicy(word);
      settings.push(`policy=${word}`);
    } else throw fault('EINVAL', `slink add: "${word}"`, usage);
  }
  if (address === undefined && !settings.some((word) => word.startsWith('map.')))
    throw fault(
      'EINVAL',
      `slink add ${type} ${nr}`,
      'say where it is: address=FOLDER, or map.DEVICE=PATH for each device',
    );
  if (limits.length > 0) settings.push(`fallbehind=${limits.join(',')}`);
  return host.addSite(String(nr), `${type}:${address ?? ''}`, settings);
}

/** Bare times of a table are milliseconds; `site add` wants them to say so. */
function tableSetting(key: string, word: string): string {
  const times = ['rpo', 'sync-timeout', 'resync-latency'];
  const bare = /=\d+$/.test(word) && Object.hasOwn(siteWords, key) && times.includes(key);
  return bare ? `${word}ms` : word;
}

async function slinkMessage(host: SlinkHost, words: readonly string[]): Promise<string> {
  const [nrWord, verb = '', value, more] = words;
  const nr = linkNumber(nrWord);
  const what = prefixOf(verb, ['fallbehind', 'policy']);
  if (what === undefined || value === undefined || more !== undefined)
    throw fault('EINVAL', `slink message ${words.join(' ')}`, SLINK_USAGE);
  if (!host.sites().includes(nr)) throw fault('ENOENT', `slink ${nr}`, 'there is no such link');
  if (what === 'policy') {
    parsePolicy(value);
    return host.setSite(nr, [`policy=${value}`]);
  }
  parseLimitWord(value);
  return host.setSite(nr, [`fallbehind=${value.toLowerCase()}`]);
}
