/**
 * The command line's way to a mounted group: through the files of DIR/.ctl, each access with a time limit,
 * made in a child process, so that a mount whose daemon is stuck cannot hang the shell. (A thread of this
 * process would not do: a process whose thread waits in the kernel cannot end.)
 */
import { spawn, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ERRNO, EXIT, RepError, errnoName, type ErrnoName } from '../base/errors.js';
import { listMounts } from '../fuse/mount.js';
import type { ClientAnswer, ClientRequest } from './client-child.js';
import { parseReply, type MessageReply } from './replies.js';

export interface MountedGroup {
  /** The mount point. */
  readonly dir: string;
  /** Group name. */
  readonly group: string;
}

const READ_MS = 5000;
const MESSAGE_MS = 10_000;
const CHILD = fileURLToPath(new URL('./client-child.js', import.meta.url));

/** All reptool mounts of this machine's mount table that this process sees; the newest of each mount point. */
export function findMounts(): MountedGroup[] {
  const newest = new Map<string, MountedGroup>();
  for (const { mountpoint, group } of listMounts()) newest.set(mountpoint, { dir: mountpoint, group });
  return [...newest.values()];
}

/**
 * The mount that `dir` names, or the only one where it is undefined. Throws with exit status 3 where nothing
 * is mounted there, 2 where several are mounted and none is named. Never touches the mount itself.
 */
export function resolveMount(dir?: string, mounts: readonly MountedGroup[] = findMounts()): MountedGroup {
  if (dir === undefined) {
    const [first, ...others] = mounts;
    if (first === undefined)
      throw new RepError('ENOTCONN', 'no group is mounted; "reptool mount DIR" mounts one', { exit: EXIT.UNREACHABLE });
    if (others.length > 0)
      throw new RepError('EINVAL', `several groups are mounted (${mounts.map((m) => m.dir).join(', ')}); name one`, {
        exit: EXIT.USAGE,
      });
    return first;
  }
  const wanted = path.resolve(dir);
  const named = mounts.find((m) => m.dir === wanted) ?? mounts.find((m) => m.dir === realPath(wanted));
  if (named !== undefined) return named;
  const known =
    mounts.length === 0
      ? 'none is'
      : `mounted ${mounts.length === 1 ? 'is' : 'are'} ${mounts.map((m) => m.dir).join(', ')}`;
  throw new RepError('ENOTCONN', `${wanted}: no group is mounted there (${known}); "reptool mount ${dir}" mounts one`, {
    exit: EXIT.UNREACHABLE,
  });
}

/** The parent's real path and the name: the last component may be a mount that does not answer. */
function realPath(wanted: string): string {
  try {
    return path.join(fs.realpathSync(path.dirname(wanted)), path.basename(wanted));
  } catch {
    return wanted;
  }
}

/** Reads DIR/.ctl/`file`; ETIMEDOUT (exit status 3) after `timeoutMs`. */
export async function readControl(dir: string, file: string, timeoutMs = READ_MS): Promise<string> {
  const answer = await ask({ op: 'read', file: path.join(dir, '.ctl', file) }, dir, timeoutMs);
  if (answer.ok) return answer.text;
  throw failure(dir, answer);
}

/**
 * Sends one message and returns its reply. A refusal is a RepError with the daemon's errno and sentence.
 * `timeoutMs` bounds the transport; a `wait` message needs more than its own time limit.
 */
export async function sendMessage(dir: string, text: string, timeoutMs = MESSAGE_MS): Promise<MessageReply> {
  const answer = await ask({ op: 'message', file: path.join(dir, '.ctl', 'messages'), text }, dir, timeoutMs);
  const reply = answer.text
    .split('\n')
    .map(parseReply)
    .filter((r) => r !== undefined)
    .at(-1);
  if (!answer.ok) {
    if (reply === undefined) throw failure(dir, answer);
    throw new RepError(errnoOf(answer.code), reply.text);
  }
  // The daemon was replaced between write and read: it was done, what it said is gone.
  return reply ?? { nr: 0, at: new Date().toISOString(), errno: 0, message: text.trim(), text: '' };
}

function errnoOf(code: string): ErrnoName {
  return code in ERRNO ? (code as ErrnoName) : 'EIO';
}

function failure(dir: string, answer: ClientAnswer & { ok: false }): RepError {
  const errno = errnoOf(answer.code);
  const gone = errno === 'ENOTCONN' || errno === 'ECONNABORTED' || errno === 'ENODEV' || errno === 'ENOENT';
  const next = gone
    ? '"reptool umount" clears it away, "reptool mount" mounts it again'
    : errno === 'EACCES' || errno === 'EPERM'
      ? process.getuid?.() === 0
        ? 'run as the user who mounted it'
        : 'run as root'
      : 'see daemon.log in the state folder';
  return new RepError(errno, `${dir}: the group does not answer: ${answer.text.trim()}; ${next}`, {
    exit: EXIT.UNREACHABLE,
  });
}

// --- the helpers -----------------------------------------------------------------------------------------

/** A child process that carries out one request at a time. */
interface Helper {
  readonly process: ChildProcess;
  waiting: Waiting | undefined;
}

interface Waiting {
  readonly timer: NodeJS.Timeout;
  resolve(answer: ClientAnswer): void;
  reject(error: Error): void;
}

const helpers = new Set<Helper>();

/** Ends the child processes, and with them what they wait for; commands call it before they return (also done at exit). */
export function closeClient(): void {
  for (const helper of helpers) end(helper);
}

function end(helper: Helper): void {
  helpers.delete(helper);
  clearTimeout(helper.waiting?.timer);
  helper.waiting = undefined;
  helper.process.kill('SIGKILL');
}

/** One that has nothing to do; a request may be asked while another one still waits for its answer. */
function idleHelper(): Helper {
  for (const helper of helpers) if (helper.waiting === undefined) return helper;
  const child = spawn(process.execPath, [CHILD], { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' });
  const helper: Helper = { process: child, waiting: undefined };
  helpers.add(helper);
  // A child that is stuck in the kernel must not keep this process.
  child.unref();
  (child.stdin as unknown as { unref?: () => void }).unref?.();
  (child.stdout as unknown as { unref?: () => void }).unref?.();
  const lost = (why: string): void => {
    helpers.delete(helper);
    helper.waiting?.reject(new RepError('EIO', `the client process ${why}`));
    helper.waiting = undefined;
  };
  child.on('error', (error) => lost(`does not start: ${error.message}`));
  child.on('exit', (code, signal) => lost(`ended (${signal ?? code})`));
  child.stdin.on('error', () => undefined);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { waiting } = helper;
    helper.waiting = undefined;
    waiting?.resolve(JSON.parse(line) as ClientAnswer);
  });
  return helper;
}

process.on('exit', closeClient);

function ask(request: ClientRequest, dir: string, timeoutMs: number): Promise<ClientAnswer> {
  return new Promise((resolve, reject) => {
    const helper = idleHelper();
    // Holds the event loop, since the child's pipes do not.
    const timer = setTimeout(() => {
      end(helper);
      const text = `${dir}: the group did not answer within ${timeoutMs / 1000} s (${errnoName(ERRNO.ETIMEDOUT)})`;
      reject(new RepError('ETIMEDOUT', `${text}; see daemon.log in the state folder`, { exit: EXIT.UNREACHABLE }));
    }, timeoutMs);
    const settle = <T>(done: (value: T) => void) => {
      return (value: T) => {
        clearTimeout(timer);
        done(value);
      };
    };
    helper.waiting = { timer, resolve: settle(resolve), reject: settle(reject) };
    helper.process.stdin!.write(`${JSON.stringify(request)}\n`);
  });
}
