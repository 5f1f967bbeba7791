/**
 * `reptool doctor`: what has to be true of a machine before a group can be mounted, and how those are that are
 * mounted. Looks only; the one file that it makes, to see what the disk can do, is gone at once.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { RepError } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { formatSize, GIB, MIB } from '../base/units.js';
import { closeClient, findMounts } from '../control/client.js';
import { DEFAULT_LOG_SIZE } from '../control/config.js';
import { stateRoot } from '../control/state.js';
import { findFusermount, usersMayAllowOthers } from '../fuse/fusermount.js';
import { mayMountItself, openFuse } from '../fuse/mount.js';
import { columns } from './output.js';
import { verdict } from './status-text.js';
import { readStatus } from './target.js';

export interface Check {
  readonly name: string;
  readonly state: 'OK' | 'WARN' | 'FAIL';
  readonly text: string;
  /** What to do about it; null where it is OK. */
  readonly next: string | null;
}

export interface Examined {
  readonly text: string;
  /** 0 all OK, 1 something is to be warned of, 2 something fails. */
  readonly status: 0 | 1 | 2;
  readonly checks: readonly Check[];
}

/** What the checks look at; tests put other facts in its place. */
export interface Machine {
  readonly node: string;
  /** As uname tells it: `6.8.0-31-generic`. */
  readonly kernel: string;
  /** Bytes that can be had before the kernel or the control group says no. */
  readonly memory: { readonly free: number; readonly of: string };
  readonly openFiles: number;
}

const NODE = [20, 19] as const;
/** From here on the kernel sends unanswered requests again. */
const RESEND = [6, 9] as const;
/** Processes of one idle group hold about 290 MiB, most of it shared. */
const MEMORY_LEAST = 300 * MIB;
const MEMORY_GOOD = 600 * MIB;
const FILES_LEAST = 256;
const SPACE_LEAST = 64 * MIB;
const TMPFS = 0x01021994;

export async function examine(state: string | undefined): Promise<Examined> {
  const machine = thisMachine();
  const checks = [
    nodeCheck(machine),
    kernelCheck(machine),
    deviceCheck(),
    mountCheck(),
    memoryCheck(machine),
    filesCheck(machine),
    ...stateChecks(path.resolve(state ?? stateRoot())),
    ...(await groupChecks()),
  ];
  const worst = checks.some((c) => c.state === 'FAIL') ? 2 : checks.some((c) => c.state === 'WARN') ? 1 : 0;
  return { text: checkLines(checks).join('\n'), status: worst, checks };
}

export function checkLines(checks: readonly Check[]): string[] {
  return columns(checks.map(({ name, state, text, next }) => [state, name, next === null ? text : `${text}; ${next}`]));
}

const ok = (name: string, text: string): Check => ({ name, state: 'OK', text, next: null });
const warn = (name: string, text: string, next: string): Check => ({ name, state: 'WARN', text, next });
const fail = (name: string, text: string, next: string): Check => ({ name, state: 'FAIL', text, next });

export function nodeCheck({ node }: Pick<Machine, 'node'>): Check {
  return isAtLeast(node, NODE)
    ? ok('node', `Node.js ${node}`)
    : fail('node', `Node.js ${node} is too old`, `install ${NODE.join('.')} or newer`);
}

export function kernelCheck({ kernel }: Pick<Machine, 'kernel'>): Check {
  return isAtLeast(kernel, RESEND)
    ? ok('kernel', `Linux ${kernel} sends unanswered requests again`)
    : warn(
        'kernel',
        `Linux ${kernel} does not send unanswered requests again, so the death of a daemon ends its mount`,
        `all else works; ${RESEND.join('.')} or newer survives it`,
      );
}

export function memoryCheck({ memory }: Pick<Machine, 'memory'>): Check {
  const text = `${formatSize(memory.free)} to be had (${memory.of}); a group needs ${formatSize(MEMORY_LEAST)}`;
  if (memory.free < MEMORY_LEAST) return fail('memory', text, 'free some, or raise the limit');
  return memory.free < MEMORY_GOOD ? warn('memory', text, 'one group fits, hardly more') : ok('memory', text);
}

export function filesCheck({ openFiles }: Pick<Machine, 'openFiles'>): Check {
  const text = `${openFiles === Infinity ? 'any number of' : openFiles} open files per process`;
  return openFiles < FILES_LEAST
    ? fail('open files', text, `raise it (ulimit -n ${4 * FILES_LEAST})`)
    : ok('open files', text);
}

function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = version.split(/[.-]/).map(Number);
  return a > major || (a === major && b >= minor);
}

function deviceCheck(): Check {
  try {
    fs.closeSync(openFuse());
    return ok('/dev/fuse', 'opens');
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    const [text, next] = halves(error.message);
    return fail('/dev/fuse', text.replace(/^\/dev\/fuse: /, ''), next);
  }
}

function mountCheck(): Check {
  if (mayMountItself()) return ok('mounting', 'this process may mount');
  const program = findFusermount();
  if (program === undefined)
    return fail(
      'mounting',
      'this process may not mount, and fusermount3 is not installed',
      'run as root, or install fuse3',
    );
  return usersMayAllowOthers()
    ? ok('mounting', `through ${program}, open to other users`)
    : warn(
        'mounting',
        `through ${program}, for this user alone: not even root gets in, so loop devices cannot use the disks`,
        'put user_allow_other into /etc/fuse.conf, or run as root',
      );
}

/** The folder in which state would be made, its space, and whether the log can be written past the page cache. */
function stateChecks(folder: string): Check[] {
  let at = folder;
  while (!fs.existsSync(at)) at = path.dirname(at);
  const what = at === folder ? folder : `${folder} (to be made in ${at})`;
  try {
    fs.accessSync(at, fs.constants.W_OK | fs.constants.X_OK);
  } catch {
    return [fail('state', `${what} cannot be written to`, 'run as root, or name another folder with --state')];
  }
  const info = fs.statfsSync(at);
  const free = info.bavail * info.bsize;
  const space = `${formatSize(free)} free; the log of a new group takes ${formatSize(DEFAULT_LOG_SIZE)}`;
  const checks = [
    info.type === TMPFS
      ? warn('state', `${what} lies in memory: nothing there survives a reboot`, 'name a folder on a disk with --state')
      : ok('state', what),
  ];
  if (free < SPACE_LEAST) checks.push(fail('space', space, 'free some, or name another folder with --state'));
  else if (free < DEFAULT_LOG_SIZE + GIB / 4)
    checks.push(warn('space', space, 'choose a smaller one with --log-size, or name another folder with --state'));
  else checks.push(ok('space', space));
  checks.push(directCheck(at));
  return checks;
}

function directCheck(folder: string): Check {
  const file = path.join(folder, `.reptool-doctor.${process.pid}`);
  const flags = sys.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL;
  try {
    fs.closeSync(fs.openSync(file, flags | sys.O_DIRECT, 0o600));
    return ok('direct I/O', `${folder} takes it`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EINVAL')
      return fail('direct I/O', `${folder}: no file can be made there (${code})`, 'name another folder with --state');
    return warn(
      'direct I/O',
      `${folder} does not take it: the log goes through the page cache, and cold reads hold up writes`,
      'a disk file system (ext4, xfs, btrfs) takes it',
    );
  } finally {
    fs.rmSync(file, { force: true });
  }
}

async function groupChecks(): Promise<Check[]> {
  const checks: Check[] = [];
  try {
    for (const { dir, group } of findMounts()) checks.push(await groupCheck(dir, group));
  } finally {
    closeClient();
  }
  return checks.length === 0 ? [ok('groups', 'none is mounted')] : checks;
}

async function groupCheck(dir: string, group: string): Promise<Check> {
  const name = `group ${group}`;
  try {
    const { status, line } = verdict(await readStatus(dir));
    const text = `${dir}: ${line.replace(/^[A-Z]+ reptool [^:]*: /, '')}`;
    if (status === 0) return ok(name, text);
    const next = `see \`reptool status ${dir}\``;
    return status === 1 ? warn(name, text, next) : fail(name, text, next);
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    const [text, next] = halves(error.message);
    return fail(name, text, next);
  }
}

/** A sentence's thing and reason, and its next step. */
function halves(message: string): [string, string] {
  const at = message.indexOf('; ');
  return at < 0 ? [message, 'see daemon.log in the state folder'] : [message.slice(0, at), message.slice(at + 2)];
}

function thisMachine(): Machine {
  return { node: process.versions.node, kernel: os.release(), memory: freeMemory(), openFiles: openFiles() };
}

/** What the machine has, or the least that a control group on the way up to its root leaves. */
function freeMemory(proc = '/proc', groups = '/sys/fs/cgroup'): Machine['memory'] {
  const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(textOf(`${proc}/meminfo`))?.[1] ?? 0) * 1024;
  let least = { free: available, of: 'memory of the machine' };
  const own = /^0::(.*)$/m.exec(textOf(`${proc}/self/cgroup`))?.[1] ?? '/';
  for (let at = own; ; at = path.dirname(at)) {
    const limit = Number(textOf(path.join(groups, at, 'memory.max')).trim() || NaN);
    const used = Number(textOf(path.join(groups, at, 'memory.current')).trim() || NaN);
    // What is used for the page cache could be had back.
    const cache = Number(/^inactive_file (\d+)$/m.exec(textOf(path.join(groups, at, 'memory.stat')))?.[1] ?? 0);
    const free = Math.max(0, limit - used + cache);
    if (free < least.free) least = { free, of: `memory limit of control group ${at}` };
    if (at === '/' || at === '.') return least;
  }
}

function openFiles(): number {
  const soft = /^Max open files\s+(\S+)/m.exec(textOf('/proc/self/limits'))?.[1];
  return soft === undefined || soft === 'unlimited' ? Infinity : Number(soft);
}

function textOf(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
