/**
 * From a mount point to the state folder of its group, without asking the mount: its daemon may hang. The
 * mount's source in the mount table names the folder, even when every process is gone; the processes that
 * serve the mount know it, too.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { RepError } from '../base/errors.js';
import { readFailure, readRun, type RunState } from '../control/keeper-client.js';
import { pointedGroups } from '../control/gave-up.js';
import { groupDir, stateRoot } from '../control/state.js';
import { listMounts } from '../fuse/mount.js';

export interface Served {
  readonly groupDir: string;
  readonly run: RunState;
}

/**
 * Who serves, or served last, the mount of `group` on `mountpoint`; undefined where no trace is left. `likely`
 * is a state folder to look into first.
 */
export function findServed(
  mountpoint: string,
  group: string,
  likely = groupDir(stateRoot(), group),
  proc = '/proc',
): Served | undefined {
  for (const folder of [likely, ...foldersOfMounts(mountpoint)]) {
    const served = servedFrom(folder, mountpoint);
    if (served !== undefined) return served;
  }
  for (const folder of foldersOfProcesses(mountpoint, proc)) {
    const served = servedFrom(folder, mountpoint);
    if (served !== undefined) return served;
  }
  return undefined;
}

/** What groups have to say about a mount point where nothing is mounted now. */
export function findLeftBehind(mountpoint: string, root = stateRoot()): Served | undefined {
  for (const folder of candidates(mountpoint, root)) {
    const served = servedFrom(folder, mountpoint);
    if (served !== undefined) return served;
  }
  return undefined;
}

/** The last words of a keeper that gave the mount point up and took the mount away, where it left some. */
export function lastFailureOf(mountpoint: string, root = stateRoot()): string | undefined {
  return candidates(mountpoint, root)
    .map((folder) => readFailure(folder))
    .filter((text) => text?.slice(text.indexOf(' ') + 1).startsWith(`${mountpoint}: `) === true)
    .sort()
    .at(-1);
}

/** Folders of groups that may know of a mount point: those named there when it was given up, those of `root`. */
function candidates(mountpoint: string, root: string): string[] {
  let names: string[] = [];
  try {
    names = fs.readdirSync(root);
  } catch {
    // No state folder here, or another account's.
  }
  return [...pointedGroups(mountpoint), ...names.map((name) => path.join(root, name))];
}

function servedFrom(folder: string, mountpoint: string): Served | undefined {
  let run: RunState | undefined;
  try {
    run = readRun(folder);
  } catch (error) {
    // Another user's folder: what is in it is not for us to know.
    if (error instanceof RepError) return undefined;
    throw error;
  }
  return run?.mountpoint === mountpoint ? { groupDir: folder, run } : undefined;
}

/** State folders named by what is mounted there, the newest first. */
function foldersOfMounts(mountpoint: string): string[] {
  return listMounts()
    .filter((mount) => mount.mountpoint === mountpoint)
    .map((mount) => mount.groupDir)
    .reverse();
}

/** State folders named in the environment of keepers and daemons of this mount point. */
function foldersOfProcesses(mountpoint: string, proc: string): Set<string> {
  const folders = new Set<string>();
  for (const pid of fs.readdirSync(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    let environment: string;
    try {
      environment = fs.readFileSync(path.join(proc, pid, 'environ'), 'utf8');
    } catch {
      continue; // Gone by now, or somebody else's.
    }
    const word = environment.split('\0').find((entry) => /^REPTOOL_(?:KEEPER|DAEMON)=/.test(entry));
    if (word === undefined) continue;
    const told = parse(word.slice(word.indexOf('=') + 1));
    if (told?.mountpoint === mountpoint && told.groupDir !== undefined) folders.add(told.groupDir);
  }
  return folders;
}

function parse(text: string): { mountpoint?: string; groupDir?: string } | undefined {
  try {
    return JSON.parse(text) as { mountpoint?: string; groupDir?: string };
  } catch {
    return undefined;
  }
}
