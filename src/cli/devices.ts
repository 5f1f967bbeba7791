/** `reptool device …`: asks the mounted group, or changes one that is not mounted, which completes it when it is. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { EXIT, RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { sendMessage } from '../control/client.js';
import { DEFAULT_GROUP, loadConfig, type DeviceConfig } from '../control/config.js';
import { createOffline, removeOffline, resizeOffline } from '../control/device-offline.js';
import type { NewDevice } from '../control/device-plan.js';
import { readRun } from '../control/keeper-client.js';
import { lockGroup, lockHolder, unlockGroup } from '../control/lock.js';
import { groupDir, groupFiles, stateRoot } from '../control/state.js';
import { usage } from './base.js';
import { columns } from './output.js';
import { readStatus, withMount } from './target.js';

/** Which group: a mounted one, or one in a state folder. */
export interface DeviceTarget {
  readonly mount: string | undefined;
  readonly state: string | undefined;
  readonly group: string | undefined;
}

export interface DeviceTold {
  readonly text: string;
  readonly device: string;
  readonly reply: string;
  /** Where the group is not mounted: its folder. */
  readonly state?: string;
  readonly mountpoint?: string;
}

/** An image of terabytes is allocated, and a block device zeroed, before the answer comes. */
const CREATE_MS = 24 * 3_600_000;
const RESIZE_MS = CREATE_MS;
const REMOVE_MS = 120_000;

/** A disk has no size of its own to fall back to. */
export function needed(size: number | undefined): number {
  if (size === undefined) throw usage('--size is missing: say how large the disk is to be, for example --size 10G');
  return size;
}

export function createDevice(target: DeviceTarget, request: NewDevice): Promise<DeviceTold> {
  const local = request.local === undefined ? undefined : path.resolve(request.local);
  const asked = local === undefined ? request : { ...request, local };
  const words = [
    ...['device', 'create', word(request.name), `size=${request.size}`],
    ...(local === undefined ? [] : [`local=${escaped(local)}`]),
    ...(request.sparse ? ['sparse'] : []),
    ...(request.nr === undefined ? [] : [`nr=${request.nr}`]),
  ];
  return change(target, request.name, words, CREATE_MS, (dir) => createOffline(realIo, dir, asked));
}

export function resizeDevice(target: DeviceTarget, name: string, size: number): Promise<DeviceTold> {
  const words = ['device', 'resize', word(name), String(size)];
  return change(target, name, words, RESIZE_MS, (dir) => resizeOffline(realIo, dir, name, size));
}

export function removeDevice(target: DeviceTarget, name: string, force: boolean): Promise<DeviceTold> {
  const words = ['device', 'remove', word(name), ...(force ? ['force'] : [])];
  return change(target, name, words, REMOVE_MS, (dir) => removeOffline(realIo, dir, name));
}

export interface DeviceRow {
  readonly nr: number;
  readonly name: string;
  readonly size: number;
  readonly local: string;
  /** `served`, or what was begun and is completed when the group is mounted. */
  readonly state: string;
}

export async function listDevices(target: DeviceTarget): Promise<{ text: string; devices: DeviceRow[] }> {
  const place = placeOf(target);
  const devices =
    place.offline === undefined
      ? await withMount(place.mount, async (mount) => {
          const { devices } = await readStatus(mount.dir);
          return devices.map((d) => ({ nr: d.volume, name: d.name, size: d.size, local: d.local, state: 'served' }));
        })
      : loadConfig(place.offline).devices.map(rowOf);
  const rows = devices.map((d) => [d.name, String(d.nr), formatSize(d.size), d.state, d.local]);
  return { text: columns([['NAME', 'NR', 'SIZE', 'STATE', 'LOCAL'], ...rows]).join('\n'), devices };
}

function rowOf({ nr, name, size, local, pending }: DeviceConfig): DeviceRow {
  const state =
    pending === undefined
      ? 'not mounted'
      : pending.op === 'resize'
        ? `grows to ${formatSize(pending.size)} with the next mount`
        : pending.op === 'create'
          ? 'comes with the next mount'
          : 'goes with the next mount';
  return { nr, name, size, local, state };
}

async function change(
  target: DeviceTarget,
  device: string,
  words: readonly string[],
  timeoutMs: number,
  offline: (dir: string) => string,
): Promise<DeviceTold> {
  const place = placeOf(target);
  if (place.offline !== undefined) {
    const state = place.offline;
    const lock = lockGroup(state);
    try {
      const text = offline(state);
      return { text, reply: text, device, state };
    } finally {
      unlockGroup(lock);
    }
  }
  return withMount(place.mount, async (mount) => {
    const reply = await sendMessage(mount.dir, words.join(' '), timeoutMs);
    return { text: reply.text === '' ? 'done' : reply.text, reply: reply.text, device, mountpoint: mount.dir };
  });
}

/** A state folder whose group is mounted stands for the mount; otherwise it is changed as it lies there. */
export function placeOf(target: DeviceTarget): { mount: string | undefined; offline?: string } {
  if (target.state === undefined && target.group === undefined) return { mount: target.mount };
  const dir = groupDir(target.state ?? stateRoot(), target.group ?? DEFAULT_GROUP);
  if (!fs.existsSync(groupFiles(dir).config))
    throw new RepError('ENOENT', `${dir}: no such group; --state and --group name another, reptool mount makes one`, {
      exit: EXIT.FAILED,
    });
  const run = lockHolder(dir) === undefined ? undefined : readRun(dir);
  return run === undefined ? { mount: undefined, offline: dir } : { mount: run.mountpoint };
}

/** A name that could be taken for several words must not reach the group as such. */
function word(name: string): string {
  if (/^\S+$/u.test(name)) return name;
  throw usage(`"${name}": a name must not be empty and must not contain blanks; choose another name`);
}

/** Blanks in a path are written as in a table: `\ `. */
function escaped(file: string): string {
  return file.replace(/[\\\s]/g, (ch) => `\\${ch}`);
}
