/**
 * Slink type `blockdev`. A site of it is a folder with one image per device, or (map) a block device or file
 * each. A table names paths only: where every leg is FOLDER/<device>.img it is the folder.
 */
import { DiskLegs } from './disk-legs.js';
import { imagePath } from './folder-devices.js';
import { FolderSite } from './folder.js';
import { RawSite } from './raw-site.js';
import type { SlinkLeg, SlinkPlace, SlinkType } from './types.js';

export const BLOCKDEV: SlinkType = {
  summary: 'a folder with one image per device, or a block device or file each',
  acks: ['durable'],
  check: (site) => {
    const [word] = Object.keys(site.options);
    return word === undefined ? '' : `option ${word}: a blockdev site takes no options; remove it`;
  },
  toPath: (site, device) => (site.address === '' ? (site.map[device] ?? '-') : imagePath(site.address, device)),
  fromPaths: (legs) => folderOf(legs) ?? { address: '', map: Object.fromEntries(legs.map((l) => [l.device, l.path])) },
  make: (site, io, clock, { stamp, taken }) => {
    if (site.address !== '') return new FolderSite(io, clock, site.address);
    const wipe = 'wipe it ("blkdiscard -z" for a device, a new sparse file), or name another one';
    return new RawSite(io, clock, { type: 'blockdev', legs: new DiskLegs(io, site.map, () => taken), stamp, wipe });
  },
};

function folderOf(legs: readonly SlinkLeg[]): SlinkPlace | undefined {
  const first = legs[0];
  if (first === undefined) return undefined;
  const folder = first.path.slice(0, Math.max(first.path.lastIndexOf('/'), 0));
  const inFolder = folder !== '' && legs.every((leg) => leg.path === imagePath(folder, leg.device));
  return inFolder ? { address: folder, map: {} } : undefined;
}
