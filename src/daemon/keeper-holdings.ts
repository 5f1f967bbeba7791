/** How a keeper comes by what it holds: from the kernel when it mounts, or from a daemon whose keeper died. */
import * as fs from 'node:fs';
import { RepError, errnoText } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { DAEMON_FD, processStart, readRun, type KeeperConfig } from '../control/keeper-client.js';
import { handshake, type Negotiated } from '../fuse/init.js';
import { findFusermount, mountAsUser, withdrawUserMount } from '../fuse/fusermount.js';
import * as mount from '../fuse/mount.js';
import type { Transport } from '../fuse/transport.js';
import { windowShape } from '../replog/window.js';
import type { Heritage } from './keeper-channel.js';

export interface Holdings extends Heritage {
  minor: number;
  since: number;
  negotiated: Negotiated;
  transport: Transport;
  /** Why that one, and how the mount came about; in words for status. */
  reason: string;
}

const LOCK_FD = 4;

/** Mounts and shakes hands; undoes the mount where a later step fails. */
export function makeHoldings(config: KeeperConfig): Holdings {
  const window = makeWindow(config);
  const source = mount.sourceOf(config.group, config.groupDir);
  const { fuse, reason } = connect(source, config.mountpoint);
  try {
    const withoutResend = process.env['REPTOOL_TEST_NO_RESEND'] === '1';
    const negotiated = handshake(fuse, { maxWrite: config.maxWrite, withoutResend });
    const mine = mount.findMount(config.mountpoint, config.group);
    if (mine === undefined) throw new RepError('EIO', `${config.mountpoint}: unmounted again while it was mounted`);
    return {
      fuse,
      window,
      lock: LOCK_FD,
      minor: mine.minor,
      since: Date.now(),
      negotiated,
      transport: 'kernel',
      reason,
    };
  } catch (error) {
    if (sys.umount2(config.mountpoint, sys.MNT_DETACH) < 0) withdrawUserMount(config.mountpoint);
    throw error;
  }
}

function makeWindow(config: KeeperConfig): number {
  const window = sys.memfdCreate('reptool-window', 0);
  const size = windowShape(config.windowRing).size;
  if (window < 0 || sys.ftruncate(window, size) < 0)
    throw new RepError('ENOMEM', `no memory for a window of ${size} bytes; choose a smaller one`);
  return window;
}

/** A mounted connection, by mount(2) or by fusermount3, and how it came about. */
function connect(source: string, mountpoint: string): { fuse: number; reason: string } {
  let refused = 'no CAP_SYS_ADMIN';
  if (mount.mayMountItself()) {
    const fuse = mount.openFuse();
    try {
      mount.mountFuse(fuse, source, mountpoint);
      return { fuse, reason: 'mounted by mount(2)' };
    } catch (error) {
      fs.closeSync(fuse);
      // A container may leave the capability and forbid the call.
      if (!(error instanceof RepError) || (error.errno !== 'EPERM' && error.errno !== 'EACCES')) throw error;
      refused = error.errno;
      if (findFusermount() === undefined) throw error;
    }
  }
  const { fd, allowOther } = mountAsUser(source, mount.SUBTYPE, mountpoint);
  const others = allowOther
    ? 'with allow_other'
    : 'without allow_other, so that only its user has access: /etc/fuse.conf does not say user_allow_other';
  return { fuse: fd, reason: `mounted by fusermount3 (mount(2): ${refused}), ${others}` };
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
      `daemon ${pid}: its descriptor ${target} is not to be had: ${errnoText(fd)}; ` +
        'run as root, or as the user who mounted it with kernel.yama.ptrace_scope 1 or less',
    );
  };
  const { minor, since, negotiated, transport, transportReason: reason } = run;
  const fuse = get(DAEMON_FD.FUSE);
  const window = get(DAEMON_FD.WINDOW);
  const lock = get(DAEMON_FD.LOCK);
  return { held: { fuse, window, lock, minor, since, negotiated, transport, reason }, pidfd };
}
