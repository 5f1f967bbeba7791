/** How a keeper comes by what it holds: from the kernel when it mounts, or from a daemon whose keeper died. */
import * as fs from 'node:fs';
import { RepError, errnoText } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import { DAEMON_FD, processStart, readRun, type KeeperConfig } from '../control/keeper-client.js';
import { handshake, type Negotiated } from '../fuse/init.js';
import { accessOf, findFusermount, mayAllowOthers, mountAsUser, withdrawUserMount } from '../fuse/fusermount.js';
import * as mount from '../fuse/mount.js';
import { NATIVE_MAX_WRITE } from '../fuse/native-binding.js';
import type { Transport } from '../fuse/transport.js';
import { windowShape } from '../replog/window.js';
import type { Heritage } from './keeper-channel.js';

export interface Holdings extends Heritage {
  /** Minor number of the mount's device; -1 until the daemon has mounted (fuse-native). */
  minor: number;
  since: number;
  negotiated: Negotiated;
  transport: Transport;
  /** Why that one, and how the mount came about; in words for status. */
  reason: string;
}

const LOCK_FD = 4;

/** Mounts; with fuse-native the daemon does. `auto` takes that where the kernel transport does not mount. */
export function makeHoldings(config: KeeperConfig): Holdings {
  const window = makeWindow(config);
  if (config.transport === 'fuse-native') return nativeHoldings(window, 'as asked for');
  try {
    return kernelHoldings(config, window);
  } catch (error) {
    if (config.transport !== 'auto' || !(error instanceof RepError) || error.errno === 'EBUSY') throw error;
    return nativeHoldings(window, `the kernel transport does not mount: ${error.message}`);
  }
}

/** libfuse shakes hands with the kernel; what it agrees on is known. */
function nativeHoldings(window: number, reason: string): Holdings {
  const negotiated = { minor: 0, flags: 0, flags2: 0, maxWrite: NATIVE_MAX_WRITE, resend: false };
  const others = mayAllowOthers() ? '' : `, ${accessOf(false)}`;
  return {
    ...{ fuse: -1, window, lock: LOCK_FD, minor: -1, since: Date.now(), negotiated, transport: 'fuse-native' },
    reason: `${reason}; does not survive the death of its daemon, discards free nothing${others}`,
  };
}

/** Mounts and shakes hands; undoes the mount where a later step fails. */
function kernelHoldings(config: KeeperConfig, window: number): Holdings {
  if (process.env['REPTOOL_TEST_NO_KERNEL_FUSE'] === '1')
    throw new RepError('EPROTO', '/dev/fuse: the kernel speaks FUSE 7.0, needed is 7.28 or later');
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
  // Before any daemon has it mapped: one killed while it reads into a page that is on the move ends the request
  // with EIO.
  Mem.collapse(window, size);
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
  return { fuse: fd, reason: `mounted by fusermount3 (mount(2): ${refused}), ${accessOf(allowOther)}` };
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
  const fuse = transport === 'kernel' ? get(DAEMON_FD.FUSE) : -1;
  const window = get(DAEMON_FD.WINDOW);
  const lock = get(DAEMON_FD.LOCK);
  return { held: { fuse, window, lock, minor, since, negotiated, transport, reason }, pidfd };
}
