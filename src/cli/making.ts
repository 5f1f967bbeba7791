/**
 * What a failing command made is taken away again, and nothing else. Only called for what is known to be made
 * by this very command, under the group's lock.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { realIo } from '../base/io.js';
import type { GroupConfig } from '../control/config.js';
import { groupFiles } from '../control/state.js';
import { blankLog } from '../replog/logcreate.js';

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

/** Of the parts that a configuration names, what is there before the group is made; of folders, what is in them. */
export type Beforehand = ReadonlyMap<string, readonly string[]>;

export function beforehand(config: GroupConfig): Beforehand {
  const there = new Map<string, readonly string[]>();
  for (const part of namedParts(config)) {
    const info = fs.statSync(part, { throwIfNoEntry: false });
    if (info !== undefined) there.set(part, info.isDirectory() ? fs.readdirSync(part) : []);
  }
  return there;
}

/** Files and folders outside of the state folder's own, as configured. */
function namedParts(config: GroupConfig): string[] {
  const folders = config.sites.filter((site) => site.type === 'blockdev' && site.address !== '');
  return [...folders.map((site) => site.address), ...config.devices.map((device) => device.local), config.log.path];
}

/**
 * Takes a group away that this command has made. What was there `before` stays, but what was made a log there is
 * blank again; of the state folder, so does what
 * is in it and not of the group. `made`: the folder as it was once the group was made; what has come since, keeper
 * and daemon wrote.
 */
export function removeGroup(
  dir: string,
  config: GroupConfig,
  made: ReadonlySet<string>,
  before: Beforehand = new Map(),
): void {
  const files = groupFiles(dir);
  const named = namedParts(config).flatMap((part) => {
    const kept = before.get(part);
    if (kept === undefined) return [part];
    const inside = fs.statSync(part, { throwIfNoEntry: false })?.isDirectory() === true ? fs.readdirSync(part) : [];
    return inside.filter((name) => !kept.includes(name)).map((name) => path.join(part, name));
  });
  const parts = [
    ...entriesOf(dir)
      .filter((name) => !made.has(name))
      .map((name) => path.join(dir, name)),
    files.config,
    ...named,
    files.index,
  ];
  for (const thing of parts) fs.rmSync(thing, { recursive: true, force: true });
  if (before.has(config.log.path)) blankLog(realIo, config.log.path);
  removeFolders([files.images]);
  fs.rmSync(files.lock, { force: true });
}

export function entriesOf(dir: string): string[] {
  return fs.existsSync(dir) ? fs.readdirSync(dir) : [];
}
