/**
 * Mounting without libfuse, and what /proc/self/mountinfo knows about our mounts. Nothing here opens, stats
 * or lists a mount of ours: whoever serves it, or has to repair it, would wait for itself.
 *
 * A mount carries its group in its source and the type `fuse.reptool`; the connection is known to the kernel
 * by the minor number of the mount's device. The source is `reptool:<group>`, and `reptool:<group>:<folder>`
 * where the group's folder is not root's usual one: so whoever finds a dead mount finds its state.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ERRNO, RepError, errnoName, errnoText } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { unmountAsUser } from './fusermount.js';

export const SUBTYPE = 'reptool';
export const FS_TYPE = `fuse.${SUBTYPE}`;
export const SOURCE_PREFIX = 'reptool:';
/** Root's usual state folder. */
const USUAL_STATE = '/var/lib/reptool';
const DEV_FUSE = '/dev/fuse';
const MOUNTINFO = '/proc/self/mountinfo';
const CONNECTIONS = '/sys/fs/fuse/connections';

/** One line of mountinfo. */
export interface MountLine {
  id: number;
  major: number;
  minor: number;
  root: string;
  mountpoint: string;
  fsType: string;
  source: string;
}

/** A mount of this program. */
export interface RepMount {
  mountpoint: string;
  source: string;
  group: string;
  /** The group's folder. */
  groupDir: string;
  /** Minor number of the mount's device, which names the connection. */
  minor: number;
}

/**
 * mountinfo: `36 35 0:98 /root /mountpoint options [tag…] - type source superoptions`, with blank, tab,
 * newline and backslash in names as three octal digits.
 */
export function parseMountinfo(text: string): MountLine[] {
  const lines: MountLine[] = [];
  for (const line of text.split('\n')) {
    const words = line.split(' ');
    const dash = words.indexOf('-', 6);
    const [id, , device, root, mountpoint] = words;
    const fsType = words[dash + 1];
    const source = words[dash + 2];
    if (dash < 0 || device === undefined || root === undefined || mountpoint === undefined) continue;
    if (fsType === undefined || source === undefined) continue;
    const [major, minor] = device.split(':').map(Number);
    if (major === undefined || minor === undefined) continue;
    lines.push({
      id: Number(id),
      major,
      minor,
      root: plain(root),
      mountpoint: plain(mountpoint),
      fsType,
      source: plain(source),
    });
  }
  return lines;
}

function plain(escaped: string): string {
  if (!escaped.includes('\\')) return escaped;
  // The escapes stand for bytes, so that a name in UTF-8 must be put together as bytes.
  const bytes = Buffer.from(escaped, 'utf8').toString('latin1');
  const text = bytes.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(text, 'latin1').toString('utf8');
}

/** The mounts of this program among `lines`, whichever transport made them. */
export function repMounts(lines: MountLine[]): RepMount[] {
  return lines
    .filter((line) => line.fsType.startsWith('fuse') && line.source.startsWith(SOURCE_PREFIX))
    .map(({ mountpoint, source, minor }) => ({ mountpoint, source, ...groupOf(source), minor }));
}

/** The source of a group's mount. A group's name holds no colon. */
export function sourceOf(group: string, groupDir: string): string {
  const usual = groupDir === path.join(USUAL_STATE, group);
  return usual ? SOURCE_PREFIX + group : `${SOURCE_PREFIX}${group}:${groupDir}`;
}

function groupOf(source: string): { group: string; groupDir: string } {
  const rest = source.slice(SOURCE_PREFIX.length);
  const colon = rest.indexOf(':');
  const group = colon < 0 ? rest : rest.slice(0, colon);
  return { group, groupDir: colon < 0 ? path.join(USUAL_STATE, group) : rest.slice(colon + 1) };
}

/** The mounts of this program that this process sees. */
export function listMounts(): RepMount[] {
  return repMounts(parseMountinfo(fs.readFileSync(MOUNTINFO, 'utf8')));
}

/** True while any mount with this device is to be seen from here; without blocking the event loop. */
export async function isMounted(minor: number, source: string): Promise<boolean> {
  return has(parseMountinfo(await fs.promises.readFile(MOUNTINFO, 'utf8')), minor, source);
}

/**
 * True where another mount namespace holds a copy of the mount. Such a copy (of a container, of `ip netns
 * exec`) keeps the connection alive after umount, and looks from here like a file that is still open.
 */
export async function isMountedElsewhere(minor: number, source: string): Promise<boolean> {
  const seen = new Set([await namespaceOf('self')]);
  for (const pid of await fs.promises.readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const namespace = await namespaceOf(pid);
    if (namespace === undefined || seen.has(namespace)) continue;
    seen.add(namespace);
    // A process that ends meanwhile is no reason to give up; its namespace may have others.
    const text = await fs.promises.readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => undefined);
    if (text === undefined) seen.delete(namespace);
    else if (has(parseMountinfo(text), minor, source)) return true;
  }
  return false;
}

function namespaceOf(pid: string): Promise<string | undefined> {
  return fs.promises.readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined);
}

function has(lines: MountLine[], minor: number, source: string): boolean {
  return lines.some((line) => line.major === 0 && line.minor === minor && line.source === source);
}

/**
 * Makes sure that `dir` can be mounted on, and returns its real absolute path. The last component is made
 * where it is missing; more than that would hide a typing error.
 */
export function prepareMountPoint(dir: string): string {
  const wanted = path.resolve(dir);
  const parent = realParent(wanted);
  const real = path.join(parent, path.basename(wanted));
  // First, and from mountinfo: a look into a mount whose daemon hangs would hang as well.
  refuseMounted(real);
  let info: fs.Stats | undefined;
  try {
    info = fs.statSync(real);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT') throw unusable(real, code ?? 'EIO', error);
  }
  if (info === undefined) {
    try {
      fs.mkdirSync(real, { mode: 0o755 });
      return real;
    } catch (error) {
      throw unusable(real, (error as NodeJS.ErrnoException).code ?? 'EIO', error);
    }
  }
  if (!info.isDirectory())
    throw new RepError('ENOTDIR', `${real}: a mount point must be a folder and this is none; name an empty folder`);
  const target = fs.realpathSync(real);
  if (target !== real) refuseMounted(target);
  let first: fs.Dirent | null;
  try {
    const folder = fs.opendirSync(target);
    first = folder.readSync();
    folder.closeSync();
  } catch (error) {
    throw unusable(target, (error as NodeJS.ErrnoException).code ?? 'EIO', error);
  }
  if (first !== null)
    throw new RepError(
      'ENOTEMPTY',
      `${target}: the folder is not empty (it holds ${first.name}), and a mount would hide that; name an empty folder`,
    );
  return target;
}

function realParent(wanted: string): string {
  try {
    return fs.realpathSync(path.dirname(wanted));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT')
      throw new RepError(
        'ENOENT',
        `${wanted}: its parent folder ${path.dirname(wanted)} does not exist; create that folder first`,
        { cause: error },
      );
    throw unusable(wanted, code ?? 'EIO', error);
  }
}

function refuseMounted(dir: string): void {
  const lines = parseMountinfo(fs.readFileSync(MOUNTINFO, 'utf8'));
  const found = lines.filter((line) => line.mountpoint === dir).at(-1);
  if (found === undefined) return;
  const what = found.source.startsWith(SOURCE_PREFIX)
    ? `group ${groupOf(found.source).group} is mounted there`
    : `a ${found.fsType} file system is mounted there`;
  throw new RepError('EBUSY', `${dir}: ${what} already; unmount it first (umount ${dir}) or name another folder`);
}

function unusable(dir: string, code: string, cause: unknown): RepError {
  switch (code) {
    case 'ENOTDIR':
      return new RepError('ENOTDIR', `${dir}: a part of the path is not a folder; name an empty folder`, { cause });
    case 'EACCES':
    case 'EPERM':
      return new RepError(code, `${dir}: permission denied (${code}); run as root, or name a folder of your own`, {
        cause,
      });
    case 'ENOTCONN':
      return new RepError(
        'ENOTCONN',
        `${dir}: a dead mount was left there (ENOTCONN); remove it with umount -l ${dir}`,
        {
          cause,
        },
      );
    case 'EROFS':
      return new RepError('EROFS', `${dir}: it does not exist and its file system is read-only; name another folder`, {
        cause,
      });
    default:
      return new RepError('EIO', `${dir}: it cannot be used as a mount point (${code}); name an empty folder`, {
        cause,
      });
  }
}

/** Opens /dev/fuse: the connection that the next `mount` on it makes. */
export function openFuse(device = DEV_FUSE): number {
  try {
    return fs.openSync(device, sys.O_RDWR | sys.O_CLOEXEC);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO')
      throw new RepError(
        'ENODEV',
        `${device}: this kernel has no FUSE device; load it (modprobe fuse), in a container hand it in (--device /dev/fuse)`,
        { cause: error },
      );
    if (code === 'EACCES' || code === 'EPERM')
      throw new RepError(
        code,
        `${device}: permission denied (${code}); run as root, or have it opened to users (chmod 666 ${device})`,
        { cause: error },
      );
    throw new RepError('EIO', `${device}: it does not open (${code}); see dmesg`, { cause: error });
  }
}

/** CAP_SYS_ADMIN, which mount(2) asks for. */
const CAP_SYS_ADMIN = 21n;

/** True where this process may try mount(2) itself; others go through fusermount3. */
export function mayMountItself(): boolean {
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) !== 0n;
}

/**
 * Mounts the connection `fd` on `mountpoint` by mount(2). Returns before the kernel's INIT is answered; EPERM
 * is a RepError of its own, since there is another way then.
 */
export function mountFuse(fd: number, source: string, mountpoint: string): void {
  const options = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    'allow_other',
    'default_permissions',
  ].join(',');
  const rc = sys.mount(source, mountpoint, FS_TYPE, sys.MS_NOSUID | sys.MS_NODEV, options);
  if (rc >= 0) return;
  const name = errnoName(rc);
  if (name === 'EPERM' || name === 'EACCES')
    throw new RepError(name, `${mountpoint}: mounting is not permitted (${name}); run as root (CAP_SYS_ADMIN)`);
  if (name === 'ENODEV')
    throw new RepError('ENODEV', `${mountpoint}: this kernel has no FUSE file system; load it (modprobe fuse)`);
  if (name === 'EBUSY') throw new RepError('EBUSY', `${mountpoint}: it is in use (EBUSY); unmount it first`);
  throw new RepError('EIO', `${mountpoint}: mounting failed: ${errnoText(rc)}; see dmesg`);
}

/** The newest mount of `group` on `mountpoint`, as the kernel sees it. */
export function findMount(mountpoint: string, group: string): RepMount | undefined {
  return listMounts()
    .filter((m) => m.mountpoint === mountpoint && m.group === group)
    .at(-1);
}

/**
 * Unmounts without touching the mount: on a thread of the pool, by name. Returns 0 or the negative errno.
 * `lazy` takes it out of sight and lets open files live on. Who may not call umount(2) asks fusermount3, which
 * unmounts what its user has mounted.
 */
export async function unmount(mountpoint: string, lazy = false): Promise<number> {
  const rc = await sys.umountAsync(mountpoint, sys.UMOUNT_NOFOLLOW | (lazy ? sys.MNT_DETACH : 0));
  return rc === -ERRNO.EPERM ? unmountAsUser(mountpoint, lazy) : rc;
}

/**
 * Ends a connection at once: every pending and later request fails. The only cure for a daemon that not even
 * SIGKILL ends, because it waits for itself. Through fusectl where it is mounted; false where it is not, or
 * has no such connection.
 */
export async function abortConnection(minor: number): Promise<boolean> {
  try {
    await fs.promises.writeFile(`${CONNECTIONS}/${minor}/abort`, '1');
    return true;
  } catch {
    return false;
  }
}

/** The same through umount's FORCE, which needs no fusectl but a mount point that can still be named. */
export async function forceUnmount(mountpoint: string): Promise<boolean> {
  const rc = await sys.umountAsync(mountpoint, sys.UMOUNT_NOFOLLOW | sys.MNT_FORCE);
  // Busy is what is expected: the connection has been ended before the mount was found to be in use.
  return rc === 0 || errnoName(rc) === 'EBUSY';
}

/** True once the connection behind `fd` is gone: unmounted everywhere, or aborted. */
export function connectionGone(fd: number): boolean {
  return (sys.pollOne(fd, 0, 0) & sys.POLLERR) !== 0;
}
