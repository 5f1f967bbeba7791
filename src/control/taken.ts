/** What a group occupies on its machine: no site may be put on top of it. */
import { imagePath } from '../slink/folder-devices.js';
import type { Taken } from '../slink/same-disk.js';
import type { GroupConfig } from './config.js';

/** All but site `nr`'s own; `folders` are taken whole (state, mount point). */
export function takenPlaces(config: GroupConfig, nr: number, folders: readonly string[]): Taken[] {
  const taken: Taken[] = [
    { path: config.log.path, what: "the group's log" },
    ...config.devices.map((d) => ({ path: d.local, what: `the local image of ${d.name}` })),
  ];
  for (const site of config.sites) {
    if (site.nr === nr || site.type !== 'blockdev') continue;
    const at = (name: string): string => (site.address === '' ? (site.map[name] ?? '') : imagePath(site.address, name));
    for (const { name } of config.devices)
      if (at(name) !== '') taken.push({ path: at(name), what: `site ${site.nr}'s image of ${name}` });
    if (site.address !== '') taken.push({ path: site.address, what: `in the folder of site ${site.nr}`, folder: true });
  }
  return [...taken, ...folders.map((path) => ({ path, what: `in ${path}, which is the group's own`, folder: true }))];
}
