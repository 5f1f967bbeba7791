/** Arguments and options that several commands share, with what they accept. */
import { Args, Flags } from '@oclif/core';
import { formatSize, parseDuration, parseSize, SECTOR } from '../base/units.js';
import { usage } from './base.js';

/** Mount point as the first word; it may be left out while exactly one group is mounted. */
export const optionalDir = Args.string({
  description: 'mount point; may be left out while exactly one group is mounted',
});

/** `--mount DIR` for commands whose first word is something else. */
export const mountFlag = Flags.string({
  description: 'mount point of the group; may be left out while exactly one group is mounted',
  env: 'REPTOOL_MOUNT',
  helpValue: 'DIR',
});

export const stateFlag = Flags.string({
  description: 'state folder (default: /var/lib/reptool for root, $XDG_STATE_HOME/reptool otherwise)',
  env: 'REPTOOL_STATE',
  helpValue: 'DIR',
});

export const groupFlag = Flags.string({ description: 'name of the group', helpValue: 'NAME' });

/** A size of whole sectors, at least `least`; `--size 10G`. */
export function sizeFlag(name: string, description: string, least = SECTOR) {
  return Flags.custom<number>({
    description,
    helpValue: 'SIZE',
    parse: (text) => {
      const bytes = parseSize(text);
      if (bytes === undefined) throw usage(`--${name} ${text}: not a size; write for example 512M, 10G or 1T`);
      if (bytes % SECTOR !== 0)
        throw usage(`--${name} ${text}: ${bytes} bytes are no whole number of sectors; use a multiple of ${SECTOR}`);
      if (bytes < least)
        throw usage(`--${name} ${text}: less than the least possible ${formatSize(least)}; choose a larger size`);
      return Promise.resolve(bytes);
    },
  })();
}

/** A duration in milliseconds; `--timeout 60s`. */
export function durationFlag(name: string, description: string, initial: string) {
  return Flags.custom<number>({
    description: `${description} (default: ${initial})`,
    helpValue: 'TIME',
    default: parseDuration(initial)!,
    noCacheDefault: true,
    parse: (text) => {
      const ms = parseDuration(text);
      if (ms === undefined) throw usage(`--${name} ${text}: not a time; write for example 500ms, 60s or 5m`);
      return Promise.resolve(ms);
    },
  })();
}

/** The number of a site. */
export function siteNumber(text: string, what: string): number {
  const nr = /^\d{1,4}$/.test(text) ? Number(text) : NaN;
  if (!(nr >= 1 && nr <= 2047))
    throw usage(`${what} ${text}: sites are numbered 1 to 2047; \`reptool status\` lists those of this group`);
  return nr;
}
