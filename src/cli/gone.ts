/** Why a mount does not answer, in the words that its keeper left behind. */
import * as path from 'node:path';
import { listMounts } from '../fuse/mount.js';
import { describeFailure, readFailure } from '../control/keeper-client.js';
import { findLeftBehind, findServed, lastFailureOf } from './locate.js';

/** The last known reason for the silence of `dir`, or of the only mount; undefined where none was left. */
export function whyGone(dir: string | undefined): string | undefined {
  const mounts = listMounts();
  const wanted = dir === undefined ? undefined : path.resolve(dir);
  const mount = wanted === undefined ? mounts.at(0) : mounts.find((m) => m.mountpoint === wanted);
  const mountpoint = mount?.mountpoint ?? wanted;
  if (mountpoint === undefined) return undefined;
  const served = mount === undefined ? findLeftBehind(mountpoint) : findServed(mountpoint, mount.group);
  if (served !== undefined) return describeFailure(served.groupDir, served.run);
  return mount === undefined ? lastFailureOf(mountpoint) : readFailure(mount.groupDir);
}
