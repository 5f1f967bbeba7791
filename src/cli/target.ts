/** Finding the mounted group that a command means, and asking it. */
import { EXIT, RepError } from '../base/errors.js';
import { closeClient, readControl, resolveMount, type MountedGroup } from '../control/client.js';
import { adoptIfOrphaned } from '../control/keeper-client.js';
import type { StatusJson } from '../control/status.js';
import { unreachable } from './base.js';
import { whyGone } from './gone.js';
import { findServed } from './locate.js';

/**
 * Runs `work` on the group mounted at `dir`, or on the only one. A daemon whose keeper died gets a new one
 * first, so that the next death of the daemon is survived again.
 */
export async function withMount<T>(dir: string | undefined, work: (mount: MountedGroup) => Promise<T>): Promise<T> {
  try {
    const mount = resolveMount(dir);
    await ensureKept(mount);
    return await work(mount);
  } catch (error) {
    throw withReason(error, dir);
  } finally {
    closeClient();
  }
}

/** Nobody answers: adds the reason that the keeper left, if it left one. */
function withReason(error: unknown, dir: string | undefined): unknown {
  if (!(error instanceof RepError) || error.exit !== EXIT.UNREACHABLE) return error;
  const reason = whyGone(dir);
  if (reason === undefined) return error;
  return new RepError(error.errno, `${error.message}; the reason: ${reason}`, { cause: error, exit: error.exit });
}

/** Failing to find a keeper is no reason not to ask: the daemon itself may be well. */
async function ensureKept(mount: MountedGroup): Promise<void> {
  const served = findServed(mount.dir, mount.group);
  if (served === undefined) return;
  try {
    const keeping = await adoptIfOrphaned(served.groupDir);
    if (keeping === 'adopted')
      process.stderr.write(`reptool: ${mount.dir}: its keeper had died, a new one took over\n`);
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    process.stderr.write(`reptool: ${mount.dir}: its keeper died and no new one could take over: ${error.message}\n`);
  }
}

export async function readStatus(dir: string): Promise<StatusJson> {
  const text = await readControl(dir, 'status.json');
  try {
    return JSON.parse(text) as StatusJson;
  } catch (cause) {
    throw unreachable(`${dir}/.ctl/status.json: no whole answer; is the daemon just being restarted? Try again`, cause);
  }
}

/** The status, or undefined where the daemon does not answer in time. */
export async function tryStatus(dir: string): Promise<StatusJson | undefined> {
  try {
    return await readStatus(dir);
  } catch (error) {
    if (error instanceof RepError) return undefined;
    throw error;
  }
}
