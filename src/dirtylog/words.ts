/**
 * Dirty-log types `nolog`, `core` and `disk`. In this version they are words only: checked, kept and printed. No
 * log stands behind them, so that a site which falls out of the ring needs a full resync.
 *
 *   nolog 0
 *   core  1-2   <region size> [sync|nosync]
 *   disk  2-3   <dev> <region size> [sync|nosync]
 */
import { RepError } from '../base/errors.js';
import { MIN_REGION, type DirtyLogTable, type DirtyLogType } from './types.js';

export const NOLOG: DirtyLogType = {
  summary: 'none: the log of the group holds what the site misses',
  parse: (params) => {
    if (params.length > 0) throw invalid('nolog', params.join(' '), 'it takes no words');
    return { region: undefined, device: undefined, start: undefined };
  },
};

export const CORE: DirtyLogType = {
  summary: 'in memory',
  parse: (params) => regions('core', params, '<region size> [sync|nosync]'),
};

export const DISK: DirtyLogType = {
  summary: 'on a device of its own',
  parse: ([device, ...rest]) => {
    const usage = '<dev> <region size> [sync|nosync]';
    if (device === undefined) throw invalid('disk', 'no words', `write ${usage}`);
    return { ...regions('disk', rest, usage), device };
  },
};

function regions(type: string, params: readonly string[], usage: string): DirtyLogTable {
  const [size, start, more] = params;
  if (size === undefined) throw invalid(type, 'no region size', `write ${usage}`);
  if (more !== undefined) throw invalid(type, `"${more}"`, `only ${usage} is known`);
  const region = /^\d+$/.test(size) ? Number(size) : NaN;
  if (!Number.isSafeInteger(region)) throw invalid(type, `"${size}"`, 'a region size is a number of sectors');
  if (region < MIN_REGION) throw invalid(type, `region size ${size}`, `a region has at least ${MIN_REGION} sectors`);
  if (!Number.isInteger(Math.log2(region))) throw invalid(type, `region size ${size}`, 'use a power of two');
  if (start !== undefined && start !== 'sync' && start !== 'nosync')
    throw invalid(type, `"${start}"`, 'write sync or nosync');
  return { region, device: undefined, start };
}

function invalid(type: string, what: string, next: string): RepError {
  return new RepError('EINVAL', `${type}: ${what}: ${next}`);
}
