/**
 * Dirty-log types `nolog`, `core` and `disk`, and their words in a table:
 *
 *   nolog 0
 *   core  1-2   <region size> [sync|nosync]
 *   disk  1-2   <region size> [sync|nosync]            kept in the group's index
 *   disk  2-3   <dev> <region size> [sync|nosync]      kept on a device or file, whose path begins with a slash
 */
import { RepError } from '../base/errors.js';
import { DiskLog } from './disk.js';
import { makeCore, makeIndexLog, makeNolog } from './plain.js';
import { MAX_REGION, MIN_REGION, type DirtyLogTable, type DirtyLogType } from './types.js';

const WORDS = '<region size> [sync|nosync]';

export const NOLOG: DirtyLogType = {
  summary: 'none: the log of the group holds what the site misses',
  parse: (params) => {
    if (params.length > 0) throw invalid('nolog', params.join(' '), 'it takes no words');
    return { region: undefined, device: undefined, start: undefined };
  },
  look: () => '',
  make: makeNolog,
};

export const CORE: DirtyLogType = {
  summary: 'in memory',
  parse: (params) => regions('core', params, WORDS),
  look: () => '',
  make: makeCore,
};

export const DISK: DirtyLogType = {
  summary: "in the group's index, or on a device of its own",
  parse: (params) => {
    const usage = `[<dev>] ${WORDS}`;
    const [device = '', ...rest] = params;
    if (device === '' || /^\d+$/.test(device)) return regions('disk', params, usage);
    if (!device.startsWith('/'))
      throw invalid(
        'disk',
        `"${device}"`,
        'a region size is a number of sectors, the path of a device begins with a slash',
      );
    return { ...regions('disk', rest, usage), device };
  },
  look: (needs) => (needs.table.device === undefined ? '' : new DiskLog(needs, needs.table.device).look()),
  make: (needs) => (needs.table.device === undefined ? makeIndexLog(needs) : new DiskLog(needs, needs.table.device)),
};

function regions(type: string, params: readonly string[], usage: string): DirtyLogTable {
  const [size, start, more] = params;
  if (size === undefined) throw invalid(type, 'no region size', `write ${usage}`);
  if (more !== undefined) throw invalid(type, `"${more}"`, `only ${usage} is known`);
  const region = /^\d+$/.test(size) ? Number(size) : NaN;
  if (!Number.isSafeInteger(region)) throw invalid(type, `"${size}"`, 'a region size is a number of sectors');
  if (region < MIN_REGION) throw invalid(type, `region size ${size}`, `a region has at least ${MIN_REGION} sectors`);
  if (region > MAX_REGION) throw invalid(type, `region size ${size}`, `a region has at most ${MAX_REGION} sectors`);
  if (!Number.isInteger(Math.log2(region))) throw invalid(type, `region size ${size}`, 'use a power of two');
  if (start !== undefined && start !== 'sync' && start !== 'nosync')
    throw invalid(type, `"${start}"`, 'write sync or nosync');
  return { region, device: undefined, start };
}

function invalid(type: string, what: string, next: string): RepError {
  return new RepError('EINVAL', `${type}: ${what}: ${next}`);
}
