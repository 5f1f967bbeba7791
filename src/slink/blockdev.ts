/**
 * Slink type `blockdev`. A site of it is a folder with one image per device, or (map) a block device or file
 * each. A table names paths only: where every leg is FOLDER/<device>.img it is the folder.
 */
import { imagePath } from './folder-devices.js';
import { FolderSite } from './folder.js';
import type { SlinkLeg, SlinkPlace, SlinkType } from './types.js';

export const BLOCKDEV: SlinkType = {
  summary: 'a folder with one image per device, on this machine or a mounted file system',
  acks: ['durable'],
  check: (site) => (site.address === '' ? 'map: not served by this version; name a folder as the address' : ''),
  toPath: (site, device) => (site.address === '' ? (site.map[device] ?? '-') : imagePath(site.address, device)),
  fromPaths: (legs) => folderOf(legs) ?? { address: '', map: Object.fromEntries(legs.map((l) => [l.device, l.path])) },
  make: (site, io, clock) => new FolderSite(io, clock, site.address),
};

function folderOf(legs: readonly SlinkLeg[]): SlinkPlace | undefined {
  const first = legs[0];
  if (first === undefined) return undefined;
  const folder = first.path.slice(0, Math.max(first.path.lastIndexOf('/'), 0));
  const inFolder = folder !== '' && legs.every((leg) => leg.path === imagePath(folder, leg.device));
  return inFolder ? { address: folder, map: {} } : undefined;
}
