/** What a group occupies on its machine: no site and no dirty log may be put on top of it. */
import { imagePath } from '../slink/folder-devices.js';
import type { Taken } from '../slink/same-disk.js';
import type { DeviceConfig, GroupConfig } from './config.js';

/** A dirty log on a device or file of its own. */
export interface DirtyLogPlace {
  path: string;
  device: DeviceConfig;
  nr: number;
}

export function dirtyLogPlaces(config: Pick<GroupConfig, 'devices'>): DirtyLogPlace[] {
  return config.devices.flatMap((device) =>
    Object.entries(device.dirtyLogs).flatMap(([nr, [, path = '']]) =>
      path.startsWith('/') ? [{ path, device, nr: Number(nr) }] : [],
    ),
  );
}

export function dirtyLogName({ device, nr }: Omit<DirtyLogPlace, 'path'>): string {
  return `the dirty log of ${device.name} at site ${nr}`;
}

/** All but that dirty log. */
export function takenBeside(
  config: GroupConfig,
  place: Omit<DirtyLogPlace, 'path'>,
  folders: readonly string[],
): Taken[] {
  return takenPlaces(config, undefined, folders).filter(({ what }) => what !== dirtyLogName(place));
}

/** All but the images of site `nr`; `folders` are taken whole (state, mount point). */
export function takenPlaces(config: GroupConfig, nr: number | undefined, folders: readonly string[]): Taken[] {
  const taken: Taken[] = [
    { path: config.log.path, what: "the group's log" },
    ...config.devices.map((d) => ({ path: d.local, what: `the local image of ${d.name}` })),
    ...dirtyLogPlaces(config).map((place) => ({ path: place.path, what: dirtyLogName(place) })),
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
