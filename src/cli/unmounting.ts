/**
 * `reptool umount`: takes the tree away and waits until everything written is in the log's file and the log
 * is closed. The tree itself is never looked into: its daemon may hang.
 */
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ERRNO, errnoText, RepError } from '../base/errors.js';
import { resolveMount, type MountedGroup } from '../control/client.js';
import {
  adoptIfOrphaned,
  describeFailure,
  LOG_FILE,
  readFailure,
  readRun,
  waitEnded,
} from '../control/keeper-client.js';
import { unmount } from '../fuse/mount.js';
import { interruptible, Interrupted } from './base.js';
import { describeHolders, holdersOf, releaseHint } from '../control/holders.js';
import { findServed, type Served } from './locate.js';
import { formatSeconds } from './output.js';
import { Progress } from './progress.js';

export interface Voice {
  /** Prints one line of the answer. */
  readonly say: (line: string) => void;
  /** No progress either (--json). */
  readonly quiet: boolean;
}

export interface Unmounted {
  readonly mountpoint: string;
  readonly group: string;
  /** False after --lazy while the tree is still in use. */
  readonly closed: boolean;
}

/** Somebody just looks at what appeared (udev, a shell's completion): such holders go by themselves. */
const BUSY_TRIES = 5;
const BUSY_PAUSE_MS = 100;
const SLICE_MS = 250;
/** How long --lazy waits to be able to say that the log is closed already. */
const LAZY_MS = 1000;

export async function unmountGroup(dir: string | undefined, options: Voice & { lazy: boolean }): Promise<Unmounted> {
  const mount = resolveMount(dir);
  const served = findServed(mount.dir, mount.group);
  const keeping = served === undefined ? 'none' : await adopt(served);
  const reason = keeping === 'dead' && served !== undefined ? describeFailure(served.groupDir, served.run) : undefined;
  // With nobody left to answer, whatever uses the tree gets errors only, and hinders nothing but its removal.
  await takeAway(mount, options.lazy || keeping === 'dead');
  const done = { mountpoint: mount.dir, group: mount.group };
  if (served === undefined || keeping === 'dead') {
    const why = reason === undefined ? '' : ` (${reason})`;
    throw new RepError(
      'ENOTCONN',
      `${mount.dir}: unmounted, but no process served it any more${why}, so the log was not closed; ` +
        'the next `reptool mount` reads it and loses nothing that was flushed',
    );
  }
  const closed = await closedWithin(served, options, options.lazy ? LAZY_MS : Infinity);
  if (closed) options.say(`unmounted ${mount.dir}, log closed`);
  else options.say(`detached ${mount.dir}; the log is closed when its last user is gone`);
  return { ...done, closed };
}

/** Stays as long as the mount; Ctrl-C unmounts it. */
export async function stay(mountpoint: string, voice: Voice): Promise<void> {
  const mount = resolveMount(mountpoint);
  const served = findServed(mount.dir, mount.group);
  if (served === undefined) return;
  for (;;) {
    const interrupted = await interruptible(async (stop) => {
      while (!stop.aborted) if (await waitEnded(currentRun(served), SLICE_MS)) return false;
      return true;
    });
    if (!interrupted) break;
    try {
      await unmountGroup(mount.dir, { ...voice, lazy: false });
      return;
    } catch (error) {
      if (!(error instanceof RepError) || error.errno !== 'EBUSY') throw error;
      process.stderr.write(`reptool: ${error.message}\n`);
    }
  }
  refuseUnclean(served);
  voice.say(`${mount.dir} was unmounted, log closed`);
}

/** Takes a mount away that has just been made and is not wanted any more; never throws. */
export async function withdraw(served: Served, mountpoint: string): Promise<void> {
  await unmount(mountpoint, true);
  await waitEnded(served.run, 30_000);
}

async function adopt(served: Served): Promise<'none' | 'kept' | 'adopted' | 'dead'> {
  try {
    return await adoptIfOrphaned(served.groupDir);
  } catch (error) {
    // A daemon without a keeper closes the log as well.
    if (error instanceof RepError) return 'kept';
    throw error;
  }
}

async function takeAway(mount: MountedGroup, lazy: boolean): Promise<void> {
  let rc = await unmount(mount.dir, lazy);
  for (let i = 1; rc === -ERRNO.EBUSY && i < BUSY_TRIES; i++) {
    await sleep(BUSY_PAUSE_MS);
    rc = await unmount(mount.dir, lazy);
  }
  if (rc >= 0) return;
  if (rc === -ERRNO.EBUSY) throw busy(mount.dir);
  if (rc === -ERRNO.EPERM || rc === -ERRNO.EACCES)
    throw new RepError(
      'EPERM',
      `${mount.dir}: unmounting is not permitted (EPERM); run as root, or as the user who mounted it (fusermount3)`,
    );
  throw new RepError('EIO', `${mount.dir}: unmounting failed: ${errnoText(rc)}; see dmesg`);
}

function busy(dir: string): RepError {
  const holders = holdersOf(dir);
  if (holders.length === 0)
    return new RepError(
      'EBUSY',
      `${dir}: busy, by something that does not show in /proc (another container?); end it, or detach with --lazy`,
    );
  const next = `${releaseHint(holders)}, then unmount again, or detach with --lazy`;
  return new RepError('EBUSY', `${dir}: busy: ${describeHolders(holders)}; ${next}`);
}

/** Waits until keeper and daemon have ended; false when the time is up before. Throws where they ended badly. */
async function closedWithin(served: Served, voice: Voice, limitMs: number): Promise<boolean> {
  const progress = new Progress(served.run.mountpoint);
  const started = performance.now();
  const elapsed = (): number => performance.now() - started;
  const closed = await interruptible(async (stop) => {
    while (elapsed() < limitMs) {
      const run = currentRun(served);
      if (await waitEnded(run, SLICE_MS)) return true;
      if (!voice.quiet) progress.note(holdsIt(run.daemon, served.groupDir, elapsed()));
      if (stop.aborted)
        throw new Interrupted(
          String(stop.reason),
          `${run.mountpoint}: unmounted, but its log is still being closed by process ${run.daemon}; ` +
            '`reptool mount` of this group has to wait for that',
        );
    }
    return false;
  }).finally(() => progress.end());
  if (closed) refuseUnclean(served);
  return closed;
}

function holdsIt(daemon: number, groupDir: string, elapsedMs: number): string {
  const since = formatSeconds(Math.floor(elapsedMs / 1000));
  const log = path.join(groupDir, LOG_FILE);
  return `unmounted; since ${since} process ${daemon} brings what is in memory to the log and the local images (see ${log})`;
}

/** A daemon may be restarted while it closes: the state as of now, or the last one known. */
function currentRun(served: Served): Served['run'] {
  const now = readRun(served.groupDir);
  return now?.mountpoint === served.run.mountpoint ? now : served.run;
}

/** A keeper that ended properly leaves neither run.json nor failure.txt. */
function refuseUnclean(served: Served): void {
  const { mountpoint } = served.run;
  const run = readRun(served.groupDir);
  let reason = readFailure(served.groupDir);
  if (run?.mountpoint === mountpoint) reason = describeFailure(served.groupDir, run) ?? 'keeper and daemon were killed';
  if (reason === undefined) return;
  throw new RepError(
    'EIO',
    `${mountpoint}: unmounted, but its log was not closed: ${reason}; ` +
      'the next `reptool mount` reads it and loses nothing that was flushed',
  );
}
