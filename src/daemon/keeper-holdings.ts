/** How a keeper comes by what it holds: from the kernel when it mounts, or from a daemon whose keeper died. */
import { RepError, errnoText } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { DAEMON_FD, processStart, readRun, type KeeperConfig } from '../control/keeper-client.js';
import { handshake, type Negotiated } from '../fuse/init.js';
import * as mount from '../fuse/mount.js';
import { windowShape } from '../replog/window.js';
import type { Heritage } from './keeper-channel.js';

export interface Holdings extends Heritage {
  minor: number;
  since: number;
  negotiated: Negotiated;
}

const LOCK_FD = 4;

/** Opens, mounts and shakes hands; undoes the mount where one of the later steps fails. */
export function makeHoldings(config: KeeperConfig): Holdings {
  const fuse = mount.openFuse();
  const window = sys.memfdCreate('reptool-window', 0);
  const size = windowShape(config.windowRing).size;
  if (window < 0 || sys.ftruncate(window, size) < 0)
    throw new RepError('ENOMEM', `no memory for a window of ${size} bytes; choose a smaller one`);
  mount.mountFuse(fuse, config.group, config.mountpoint);
  try {
    const withoutResend = process.env['REPTOOL_TEST_NO_RESEND'] === '1';
    const negotiated = handshake(fuse, { maxWrite: config.maxWrite, withoutResend });
    const mine = mount.findMount(config.mountpoint, config.group);
    if (mine === undefined) throw new RepError('EIO', `${config.mountpoint}: unmounted again while it was mounted`);
    return { fuse, window, lock: LOCK_FD, minor: mine.minor, since: Date.now(), negotiated };
  } catch (error) {
    sys.umount2(config.mountpoint, sys.MNT_DETACH);
    throw error;
  }
}

/** Gets the descriptors of a daemon whose keeper died. Opening them through /proc would not give the same files. */
export function inherit(config: KeeperConfig, pid: number): { held: Holdings; pidfd: number } {
  const run = readRun(config.groupDir);
  const pidfd = sys.pidfdOpen(pid);
  if (run === undefined || pidfd < 0 || processStart(pid) !== run.daemonStart)
    throw new RepError('ESRCH', `daemon ${pid} of ${config.mountpoint} has ended; umount -l, then mount again`);
  const get = (target: number): number => {
    const fd = sys.pidfdGetfd(pidfd, target);
    if (fd >= 0) return fd;
    throw new RepError(
      'EPERM',
      `daemon ${pid}: its descriptor ${target} is not to be had: ${errnoText(fd)}; run as root`,
    );
  };
  const { minor, since, negotiated } = run;
  const fuse = get(DAEMON_FD.FUSE);
  const window = get(DAEMON_FD.WINDOW);
  const lock = get(DAEMON_FD.LOCK);
  return { held: { fuse, window, lock, minor, since, negotiated }, pidfd };
}
