/**
 * Mounting and unmounting for those who may not call mount(2): through fusermount3, a set-uid program of the
 * fuse3 package. It opens /dev/fuse with its user's rights, mounts, and hands the descriptor over through a
 * socket that it inherits (its number stands in _FUSE_COMMFD).
 *
 * It mounts only where its user may write, and lets others in (allow_other) only where /etc/fuse.conf says
 * user_allow_other. It looks at mounts in the mount table alone, never into them.
 */
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import * as sys from '../base/sys.js';

const PROGRAM = 'fusermount3';
/** Where it lies where PATH does not say so. */
const USUAL_FOLDERS = ['/usr/local/bin', '/usr/bin', '/bin'];
const FUSE_CONF = '/etc/fuse.conf';
/** Part of the sentence that says who has access. */
export const WITHOUT_OTHERS = 'without allow_other';
const LIMIT_MS = 20_000;
const CAP_SYS_ADMIN = 21n;
/** Place of the socket among the descriptors of fusermount3. */
const SOCKET = 3;

/** Path of fusermount3, or undefined where it is not installed. */
export function findFusermount(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const folders = (env['PATH'] ?? '').split(path.delimiter).filter((folder) => path.isAbsolute(folder));
  return [...folders, ...USUAL_FOLDERS]
    .map((folder) => path.join(folder, PROGRAM))
    .find((file) => {
      try {
        fs.accessSync(file, fs.constants.X_OK);
        return fs.statSync(file).isFile();
      } catch {
        return false;
      }
    });
}

/** True where the administrator lets users open their mounts to others. */
export function usersMayAllowOthers(file = FUSE_CONF): boolean {
  try {
    return /^\s*user_allow_other\s*$/m.test(fs.readFileSync(file, 'utf8'));
  } catch {
    return false;
  }
}

/** The same for this user: root needs nobody's leave. */
export function mayAllowOthers(): boolean {
  return process.getuid?.() === 0 || usersMayAllowOthers();
}

/** Says who has access. */
export function accessOf(allowOther: boolean): string {
  return allowOther
    ? 'with allow_other'
    : `${WITHOUT_OTHERS}, so that only its user has access: ${FUSE_CONF} does not say user_allow_other`;
}

/** Throws the sentence that fusermount3 would fail with, as far as it can be known before. */
export function checkUserMount(dir: string): void {
  if (findFusermount() === undefined) throw notInstalled(dir);
  if (isBarred())
    throw new RepError(
      'EPERM',
      `${dir}: mounting is not permitted (EPERM), not even through fusermount3: this process cannot gain rights, ` +
        'as in many containers; run as root (CAP_SYS_ADMIN)',
    );
  const info = fs.statSync(dir, { throwIfNoEntry: false });
  if (info?.isDirectory() !== true) return;
  const uid = process.getuid?.() ?? 0;
  const sticky = (info.mode & 0o1000) !== 0 && info.uid !== uid;
  if (!sticky && mayWrite(dir)) return;
  throw new RepError(
    'EACCES',
    `${dir}: the folder belongs to user ${info.uid}, and user ${uid} can only mount on a folder of their own; ` +
      'name another one, or run as root',
  );
}

/** CAP_SYS_ADMIN is out of reach for set-uid programs, too, or they get no rights at all (no_new_privs). */
function isBarred(): boolean {
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  const bounds = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? 'ffffffff'}`);
  return ((bounds >> CAP_SYS_ADMIN) & 1n) === 0n || /^NoNewPrivs:\s*1/m.test(status);
}

function mayWrite(dir: string): boolean {
  try {
    fs.accessSync(dir, fs.constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

export interface UserMount {
  fd: number;
  /** Other users, root included, have access. */
  allowOther: boolean;
}

/** Mounts a new connection on `mountpoint` and returns its descriptor; INIT is not answered yet. */
export function mountAsUser(source: string, subtype: string, mountpoint: string): UserMount {
  const program = findFusermount();
  if (program === undefined) throw notInstalled(mountpoint);
  const pair = sys.socketPair();
  if (typeof pair === 'number') throw new RepError('EIO', `${mountpoint}: no socket: ${errnoText(pair)}; try again`);
  const [mine, theirs] = pair;
  try {
    const allowOther = usersMayAllowOthers();
    const options = [`fsname=${escaped(source)}`, `subtype=${subtype}`, 'default_permissions'];
    if (allowOther) options.push('allow_other');
    const ran = spawnSync(program, ['-o', options.join(','), '--', mountpoint], {
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, _FUSE_COMMFD: String(SOCKET) },
      timeout: LIMIT_MS,
      killSignal: 'SIGKILL',
      encoding: 'utf8',
    });
    const fd = ran.status === 0 ? sys.receiveFd(mine) : -1;
    if (fd >= 0) return { fd, allowOther };
    if (ran.status === 0) withdrawUserMount(mountpoint);
    throw failed(mountpoint, ran.stderr.trim() || (ran.error?.message ?? `exit status ${ran.status ?? ran.signal}`));
  } finally {
    fs.closeSync(mine);
    fs.closeSync(theirs);
  }
}

/** A comma ends an option and a backslash takes its meaning away. */
function escaped(text: string): string {
  return text.replace(/[\\,]/g, '\\$&');
}

function notInstalled(dir: string): RepError {
  return new RepError(
    'EPERM',
    `${dir}: mounting is not permitted (EPERM), and fusermount3, which mounts for users, is not installed; ` +
      'install it (on Debian the package fuse3), or run as root',
  );
}

function failed(dir: string, said: string): RepError {
  const errno = /busy/i.test(said) ? 'EBUSY' : /permi|access|owner/i.test(said) ? 'EPERM' : 'EIO';
  return new RepError(errno, `${dir}: fusermount3 does not mount it: ${said}; run as root, or see fusermount3(1)`);
}

/** Unmounts what this user has mounted; 0 or a negative errno. Nothing here waits for the mount. */
export function unmountAsUser(mountpoint: string, lazy: boolean): Promise<number> {
  const program = findFusermount();
  if (program === undefined) return Promise.resolve(-ERRNO.EPERM);
  const child = spawn(program, ['-u', ...(lazy ? ['-z'] : []), '--', mountpoint], {
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
    // Its messages are the only sign of what went wrong.
    env: { ...process.env, LC_ALL: 'C' },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  return new Promise((resolve) => {
    child.on('error', () => resolve(-ERRNO.EPERM));
    child.on('close', (status) => {
      if (status === 0) resolve(0);
      else if (/busy/i.test(said)) resolve(-ERRNO.EBUSY);
      else if (/not found in/.test(said)) resolve(-ERRNO.EINVAL);
      else resolve(-ERRNO.EPERM);
    });
  });
}

/** The same at once, for what has just been mounted and is not wanted. */
export function withdrawUserMount(mountpoint: string): void {
  const program = findFusermount();
  if (program !== undefined) spawnSync(program, ['-u', '-z', '--', mountpoint], { cwd: '/', timeout: LIMIT_MS });
}
