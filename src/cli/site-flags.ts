/** Options that say how a site is to be, as words of a message (control/site-settings). */
import { Flags } from '@oclif/core';
import { usage } from './base.js';

export const settingFlags = {
  policy: Flags.string({
    description: 'who waits for the site: sync, async, or async+stall',
    helpValue: 'POLICY',
  }),
  stall: Flags.boolean({
    description: 'never leave the site behind: a full log waits for it, limits count also while it is down',
    allowNo: true,
  }),
  ack: Flags.string({ description: 'what counts as confirmed', options: ['durable', 'received'] }),
  fallbehind: Flags.string({
    description: 'how far an async site may be behind: ios=N, size=200m, timeout=30s, joined by commas, or none',
    helpValue: 'LIMITS',
  }),
  'sync-timeout': Flags.string({
    description: 'how long writers wait for the site at most, such as 30s, or none',
    helpValue: 'TIME',
  }),
  bandwidth: Flags.string({ description: 'bytes per second sent at most, such as 10m, or none', helpValue: 'SIZE' }),
  rpo: Flags.string({
    description: 'how long writes may be gathered before they are sent, such as 100ms',
    helpValue: 'TIME',
  }),
  'resync-rate': Flags.string({
    description: 'bytes per second that a verify reads at most, such as 100m, or none',
    helpValue: 'SIZE',
  }),
  'resync-latency': Flags.string({
    description: 'what requests of applications may take while a verify reads, such as 20ms, or auto',
    helpValue: 'TIME',
  }),
};

type Given = { readonly [K in Exclude<keyof typeof settingFlags, 'stall'>]?: string | undefined } & {
  readonly stall?: boolean | undefined;
};

export function settingWords(flags: Given, maps: readonly string[] = [], options: readonly string[] = []): string[] {
  const words: string[] = [];
  for (const key of Object.keys(settingFlags).filter((name) => name !== 'stall') as Exclude<keyof Given, 'stall'>[]) {
    const value = flags[key];
    if (value === undefined) continue;
    if (value === '' || /\s/.test(value)) throw usage(`--${key} "${value}": write it as one word`);
    words.push(`${key}=${value}`);
  }
  if (flags.stall !== undefined) words.push(`stall=${flags.stall ? 'yes' : 'no'}`);
  for (const map of maps) {
    if (!/^[^=]+=./.test(map)) throw usage(`--map ${map}: write DEVICE=PATH, such as disk0=/dev/sdb`);
    words.push(`map.${map}`);
  }
  for (const option of options) {
    if (!/^[^=]+=./.test(option)) throw usage(`--option ${option}: write WORD=VALUE, such as tls=require`);
    words.push(`option.${option}`);
  }
  return words;
}
