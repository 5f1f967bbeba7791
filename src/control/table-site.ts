/**
 * Settings of a link that the historic grammar has no words for, as `key=value` behind the policy. Printed only
 * where they are not the default.
 */
import { RepError } from '../base/errors.js';
import { SITE_DEFAULTS, type SiteConfig } from './config.js';

interface SiteWord {
  read(site: SiteConfig, value: string): void;
  /** Undefined where there is nothing to say. */
  print(site: SiteConfig): string | undefined;
}

type NumberKey = 'syncTimeoutMs' | 'bandwidth' | 'rpoMs' | 'resyncRate' | 'resyncLatencyMs';

function number(word: string, key: NumberKey, unit: string): SiteWord {
  return {
    read: (site, value) => {
      const n = /^\d+$/.test(value) ? Number(value) : NaN;
      if (!Number.isSafeInteger(n)) throw new RepError('EINVAL', `${word}=${value}: write a number of ${unit}`);
      site[key] = n;
    },
    print: (site) => (site[key] === SITE_DEFAULTS[key] ? undefined : String(site[key])),
  };
}

export const siteWords: Record<string, SiteWord> = {
  ack: {
    read: (site, value) => {
      if (value !== 'durable' && value !== 'received')
        throw new RepError('EINVAL', `ack=${value}: write durable or received`);
      site.ack = value;
    },
    print: ({ ack }) => (ack === SITE_DEFAULTS.ack ? undefined : ack),
  },
  'sync-timeout': number('sync-timeout', 'syncTimeoutMs', 'milliseconds'),
  bandwidth: number('bandwidth', 'bandwidth', 'bytes per second'),
  rpo: number('rpo', 'rpoMs', 'milliseconds'),
  'resync-rate': number('resync-rate', 'resyncRate', 'bytes per second'),
  'resync-latency': number('resync-latency', 'resyncLatencyMs', 'milliseconds'),
};

export function printSiteWords(site: SiteConfig): string[] {
  return Object.entries(siteWords).flatMap(([key, { print }]) => {
    const value = print(site);
    return value === undefined ? [] : [`${key}=${value}`];
  });
}
