/**
 * Slink type `blockdev`. A site of it is a folder with one image per device, or (map) a block device or file
 * each. A table names paths only: where every device's leg is FOLDER/<device>.img it is the folder, unless the
 * word `layout=raw` says that these are files of their own.
 */
import { RepError } from '../base/errors.js';
import { DiskLegs } from './disk-legs.js';
import { imagePath } from './folder-devices.js';
import { FolderSite } from './folder.js';
import { RawSite } from './raw-site.js';
import type { SlinkSite, SlinkType, SlinkWords } from './types.js';

const RAW = { layout: 'raw' } as const;

export const BLOCKDEV: SlinkType = {
  summary: 'a folder with one image per device, or a block device or file each',
  acks: ['durable'],
  paths: true,
  check: (site) => {
    const [word] = Object.keys(site.options);
    return word === undefined ? '' : `option ${word}: a blockdev site takes no options; remove it`;
  },

  toTable: (site, devices) => {
    const legs = devices.flatMap((device) => {
      const path = site.address === '' ? mapped(site, device) : imagePath(site.address, device);
      return path === undefined ? [] : [{ device, path }];
    });
    const misread = site.address === '' && folderOf(legs, legs.length === devices.length) !== undefined;
    return { legs, words: misread ? RAW : {} };
  },

  fromTable: ({ legs, whole, words }) => {
    const relative = legs.find((leg) => !leg.path.startsWith('/'));
    if (relative !== undefined) throw invalid(`${relative.path}`, 'a path in a table begins with a slash');
    for (const [key, value] of Object.entries(words))
      if (key !== 'layout' || value !== RAW.layout) throw invalid(`${key}=${value}`, 'only layout=raw is known');
    const folder = words['layout'] === RAW.layout ? undefined : folderOf(legs, whole);
    const map = Object.fromEntries(legs.map((leg) => [leg.device, leg.path]));
    return { address: folder ?? '', map: folder === undefined ? map : {}, options: {} };
  },

  make: (site, io, clock, { stamp, taken }) => {
    if (site.address !== '') return new FolderSite(io, clock, site.address);
    const wipe = 'wipe it ("blkdiscard -z" for a device, a new sparse file), or name another one';
    return new RawSite(io, clock, { type: 'blockdev', legs: new DiskLegs(io, site.map, () => taken), stamp, wipe });
  },
};

function mapped(site: SlinkSite, device: string): string | undefined {
  return Object.hasOwn(site.map, device) ? site.map[device] : undefined;
}

function folderOf(legs: SlinkWords['legs'], whole: boolean): string | undefined {
  const first = legs[0]?.path ?? '';
  const folder = first.slice(0, Math.max(first.lastIndexOf('/'), 0));
  if (folder === '' || !whole) return undefined;
  return legs.every((leg) => leg.path === imagePath(folder, leg.device)) ? folder : undefined;
}

function invalid(word: string, next: string): RepError {
  return new RepError('EINVAL', `blockdev: ${word}: ${next}`);
}
