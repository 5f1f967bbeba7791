/**
 * The command line's side of the keeper: start one, find the one that runs, bring a new one to a daemon whose
 * keeper was killed. The keeper itself is a program of its own (src/daemon/keeper.ts), started by path.
 *
 * `run.json` in the group's folder is the one source of which processes serve a group. It names each process
 * with its start time, because after a reboot the number alone may be somebody else's.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import type { Socket } from 'node:net';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ERRNO, RepError, errnoText, type ErrnoName } from '../base/errors.js';
import { readText } from '../base/io.js';
import type { Negotiated } from '../fuse/init.js';
import type { Transport, TransportChoice } from '../fuse/transport.js';

/** What a keeper is told, as JSON in REPTOOL_KEEPER; kept in run.json for the next keeper. */
export interface KeeperConfig {
  group: string;
  /** Absolute and real (see prepareMountPoint). */
  mountpoint: string;
  /** Folder for run.json, failure.txt, daemon.log. Never on the mount itself. */
  groupDir: string;
  /** Bytes of payload ring in the window, a power of two. */
  windowRing: number;
  maxWrite: number;
  transport: TransportChoice;
  daemonScript: string;
  daemonArgs?: string[];
  /** Options of node itself, such as --max-old-space-size. */
  daemonNodeArgs?: string[];
  daemonEnv?: Record<string, string>;
  /** Take over this running daemon instead of mounting. */
  adopt?: { pid: number };
}

/** What a daemon is told, as JSON in REPTOOL_DAEMON. */
export interface DaemonConfig {
  group: string;
  groupDir: string;
  mountpoint: string;
  windowRing: number;
  transport: Transport;
  /** Why that one, and how it was mounted. */
  transportReason: string;
  /** What this system does not permit keeper and daemon, in words for status. */
  notes: string[];
  negotiated: Negotiated;
  /** Load everything, say `ready`, touch nothing, wait for `go`; end when the channel ends before that. */
  spare: boolean;
  keeperPid: number;
  /** Counts the processes that this keeper has started; only for logs. */
  generation: number;
  /** Only to bring the window into the log; fuse-native mounts nothing then. */
  drain: boolean;
}

/** Descriptors of a daemon. */
export const DAEMON_FD = { FUSE: 3, WINDOW: 4, CHANNEL: 5, LOCK: 6 } as const;

/** A process that can be told from a later one with the same number. */
export interface ProcessId {
  pid: number;
  /** Clock ticks since boot at which it started (field 22 of /proc/PID/stat). */
  start: number;
}

export interface RunState {
  keeper: number;
  keeperStart: number;
  daemon: number;
  daemonStart: number;
  spare: number | null;
  group: string;
  mountpoint: string;
  /** Minor number of the mount's device: names the connection in /sys/fs/fuse/connections. */
  minor: number;
  /** Milliseconds since 1970 at which it was mounted. */
  since: number;
  /** Daemons that were put in charge since. */
  born: number;
  resend: boolean;
  transport: Transport;
  transportReason: string;
  negotiated: Negotiated;
  config: KeeperConfig;
  /** Why the keeper has given up, in words; then every request gets EIO. */
  failure?: string;
}

export const RUN_FILE = 'run.json';
export const FAILURE_FILE = 'failure.txt';
export const LOG_FILE = 'daemon.log';

/** The state that a keeper of this group wrote last, or undefined where none runs or ended properly. */
export function readRun(groupDir: string): RunState | undefined {
  try {
    return JSON.parse(readText(path.join(groupDir, RUN_FILE))) as RunState;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new RepError('EIO', `${path.join(groupDir, RUN_FILE)}: it cannot be read; remove it if nothing is mounted`, {
      cause: error,
    });
  }
}

/** The reason a keeper left behind when it gave up, or undefined. */
export function readFailure(groupDir: string): string | undefined {
  try {
    return readText(path.join(groupDir, FAILURE_FILE)).trim();
  } catch {
    return undefined;
  }
}

/** When process `pid` started, or undefined where it does not run (a zombie does not). */
export function processStart(pid: number): number | undefined {
  let text: string;
  try {
    text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name, in brackets, may hold anything; what counts follows the last bracket, from field 3.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
}

export function isRunning(id: ProcessId): boolean {
  return processStart(id.pid) === id.start;
}

export function keeperRuns(run: RunState): boolean {
  return isRunning({ pid: run.keeper, start: run.keeperStart });
}

export function daemonRuns(run: RunState): boolean {
  return isRunning({ pid: run.daemon, start: run.daemonStart });
}

export interface StartOptions {
  /** Already locked by the caller; lives on in keeper and daemon. Not needed to adopt. */
  lockFd?: number;
  /** Where keeper and daemon write what they have to say; default: daemon.log in the group's folder. */
  logFd?: number;
  timeoutMs?: number;
  /** Called about once a second while the daemon recovers. */
  progress?: (elapsedMs: number) => void;
  env?: NodeJS.ProcessEnv;
}

export interface Started {
  run: RunState;
  /** Not waited for by the event loop; `ref()` it to stay in the foreground with it. */
  process: ChildProcess;
}

type Report = { type: 'mounted' } | { type: 'failed'; errno: string; message: string };

const START_TIMEOUT_MS = 120_000;
const KEEPER_SCRIPT = fileURLToPath(new URL('../daemon/keeper.js', import.meta.url));

/** Starts a keeper, detached, and waits until its daemon serves; throws what went wrong where it does not. */
export async function startKeeper(config: KeeperConfig, options: StartOptions = {}): Promise<Started> {
  const ownLog = options.logFd === undefined ? fs.openSync(path.join(config.groupDir, LOG_FILE), 'a', 0o600) : -1;
  const log = options.logFd ?? ownLog;
  let keeper: ChildProcess;
  try {
    keeper = spawn(process.execPath, [KEEPER_SCRIPT], {
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log, 'pipe', options.lockFd ?? 'ignore'],
      env: { ...process.env, ...options.env, REPTOOL_KEEPER: JSON.stringify(config) },
    });
  } finally {
    if (ownLog >= 0) fs.closeSync(ownLog);
  }
  const report = await firstReport(keeper, config, options);
  keeper.unref();
  if (report.type === 'failed') {
    const errno = report.errno in ERRNO ? (report.errno as ErrnoName) : 'EIO';
    throw new RepError(errno, report.message);
  }
  const run = readRun(config.groupDir);
  if (run === undefined)
    throw new RepError('EIO', `${config.mountpoint}: unmounted again at once; see ${logOf(config)}`);
  return { run, process: keeper };
}

/** The first line on the keeper's channel, or a failure in its stead. */
function firstReport(keeper: ChildProcess, config: KeeperConfig, options: StartOptions): Promise<Report> {
  const channel = keeper.stdio[3] as Socket;
  const started = performance.now();
  const timeoutMs = options.timeoutMs ?? START_TIMEOUT_MS;
  return new Promise((resolve) => {
    const settle = (report: Report): void => {
      clearInterval(ticker);
      clearTimeout(limit);
      lines.close();
      channel.destroy();
      keeper.removeAllListeners('exit');
      resolve(report);
    };
    const fail = (errno: ErrnoName, message: string): void => settle({ type: 'failed', errno, message });
    const ticker = setInterval(() => options.progress?.(performance.now() - started), 1000);
    const limit = setTimeout(() => {
      // It unmounts by itself; a SIGKILL would leave the mount behind.
      keeper.kill('SIGTERM');
      fail('ETIMEDOUT', `${config.mountpoint}: not serving after ${timeoutMs / 1000} s; see ${logOf(config)}`);
    }, timeoutMs);
    const lines = createInterface({ input: channel });
    lines.on('error', () => undefined);
    lines.on('line', (line) => settle(JSON.parse(line) as Report));
    channel.on('error', () => undefined);
    keeper.on('error', (error) => fail('EIO', `${config.mountpoint}: the keeper does not start: ${error.message}`));
    keeper.on('exit', (code, signal) => {
      // Its last words may still be on the way.
      setTimeout(
        () => fail('EIO', `${config.mountpoint}: the keeper ended (${signal ?? code}); see ${logOf(config)}`),
        200,
      );
    });
  });
}

function logOf(config: KeeperConfig): string {
  return path.join(config.groupDir, LOG_FILE);
}

/** none: not mounted; kept: the keeper is there; adopted: there is a new one; dead: neither keeper nor daemon. */
export type Keeping = 'none' | 'kept' | 'adopted' | 'dead';

/**
 * Brings a new keeper where the old one was killed and its daemon still serves. Every command does this
 * first, so that the next death of the daemon is survived again.
 */
export async function adoptIfOrphaned(groupDir: string, options: StartOptions = {}): Promise<Keeping> {
  const run = readRun(groupDir);
  if (run === undefined) return 'none';
  if (keeperRuns(run)) return 'kept';
  if (!daemonRuns(run)) return 'dead';
  try {
    await startKeeper({ ...run.config, adopt: { pid: run.daemon } }, { timeoutMs: 15_000, ...options });
    return 'adopted';
  } catch (error) {
    // Another command may have been faster; its keeper holds the lock, and that is as good.
    for (let i = 0; i < 40; i++) {
      const now = readRun(groupDir);
      if (now === undefined) return 'none';
      if (keeperRuns(now)) return 'kept';
      if (error instanceof RepError && error.errno !== 'EBUSY') break;
      await pause(50);
    }
    throw error;
  }
}

/**
 * Waits until keeper and daemon of `run` have ended, that is, until all that was written is in the log's
 * file. False where they still run after `timeoutMs`.
 */
export async function waitEnded(
  run: RunState,
  timeoutMs: number,
  progress?: (elapsedMs: number) => void,
): Promise<boolean> {
  const started = performance.now();
  let told = started;
  while (keeperRuns(run) || daemonRuns(run)) {
    const now = performance.now();
    if (now - started > timeoutMs) return false;
    if (now - told > 1000) progress?.((told = now) - started);
    await pause(20);
  }
  return true;
}

/** What to tell a human about a group whose keeper gave up or is gone. */
export function describeFailure(groupDir: string, run: RunState): string | undefined {
  if (run.failure !== undefined) return run.failure;
  if (keeperRuns(run) || daemonRuns(run)) return undefined;
  const left = readFailure(groupDir);
  return (
    left ?? `${run.mountpoint}: keeper and daemon are gone (${errnoText(-ERRNO.ENOTCONN)}); umount -l, then mount again`
  );
}
