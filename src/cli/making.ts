/**
 * What a failing command made is taken away again, and nothing else. Only called for what is known to be made
 * by this very command, under the group's lock.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { GroupConfig } from '../control/config.js';
import { groupFiles } from '../control/state.js';

/** The folders on the way to `dir`, itself included, that do not exist now; innermost first. */
export function missingFolders(dir: string): string[] {
  const missing: string[] = [];
  for (let at = path.resolve(dir); !fs.existsSync(at); at = path.dirname(at)) missing.push(at);
  return missing;
}

/** Removes folders that are empty; one that is not (or on which something is mounted) stays, with its parents. */
export function removeFolders(folders: readonly string[]): void {
  try {
    for (const folder of folders) fs.rmdirSync(folder);
  } catch {
    // It never came to be, or somebody else uses it by now.
  }
}

/**
 * Takes a group away that createGroup has made: it refuses what exists, so all parts are ours. So is whatever
 * has come since (`made`: the folder as createGroup left it): keeper and daemon wrote it.
 */
export function removeGroup(dir: string, config: GroupConfig, made: ReadonlySet<string>): void {
  const files = groupFiles(dir);
  const parts = [
    ...entriesOf(dir)
      .filter((name) => !made.has(name))
      .map((name) => path.join(dir, name)),
    files.config,
    ...config.sites.filter((site) => site.type === 'blockdev' && site.address !== '').map((site) => site.address),
    ...config.devices.map((device) => device.local),
    files.index,
    config.log.path,
  ];
  for (const thing of parts) fs.rmSync(thing, { recursive: true, force: true });
  removeFolders([files.images]);
  fs.rmSync(files.lock, { force: true });
}

export function entriesOf(dir: string): string[] {
  return fs.existsSync(dir) ? fs.readdirSync(dir) : [];
}
