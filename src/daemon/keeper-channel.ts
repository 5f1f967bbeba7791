/**
 * One process that the keeper answers for: a daemon it started, or one it found serving (adopted). A started
 * one has a channel, JSON lines on its descriptor 5; an adopted one had its channel to the dead keeper.
 *
 *   daemon → keeper   ready | serving | refused {errno, message} | closed
 *   keeper → daemon   go {keeper, generation} | unmounted
 */
import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { DAEMON_FD, type DaemonConfig, type KeeperConfig } from '../control/keeper-client.js';
import * as sys from '../base/sys.js';

export type FromDaemon =
  { type: 'ready' } | { type: 'serving' } | { type: 'refused'; errno: string; message: string } | { type: 'closed' };

export type ToDaemon = { type: 'go'; keeper: number; generation: number } | { type: 'unmounted' };

export interface Ward {
  readonly pid: number;
  readonly adopted: boolean;
  /** It has said `closed`: all is in the log's file. */
  closed: boolean;
  refused: { errno: string; message: string } | undefined;
  /** When it said `serving`, in ms of performance.now(); undefined before. */
  servingAt: number | undefined;
  send(message: ToDaemon): void;
  kill(): void;
}

export interface WardEvents {
  message(ward: Ward, message: FromDaemon): void;
  /** Exactly once. `code` is null after a signal, and for an adopted one, whose end nobody tells. */
  ended(ward: Ward, code: number | null, signal: string | null): void;
}

/** How long after its exit the last words of a process may take to get here. */
const LAST_WORDS_MS = 500;
const SIGKILL = 9;

/** The daemon of fuse-native, beside the other one. */
const NATIVE_SCRIPT = 'native.js';

/** What a new daemon inherits. */
export interface Heritage {
  /** /dev/fuse; -1 with fuse-native, where the daemon mounts. */
  fuse: number;
  window: number;
  lock: number;
}

export class Child implements Ward {
  readonly pid: number;
  readonly adopted = false;
  closed = false;
  refused: { errno: string; message: string } | undefined;
  servingAt: number | undefined;
  private readonly process: ChildProcess;
  private readonly channel: Socket | undefined;

  constructor(config: KeeperConfig, daemon: DaemonConfig, heritage: Heritage, events: WardEvents) {
    const env: NodeJS.ProcessEnv = { ...process.env, ...config.daemonEnv, REPTOOL_DAEMON: JSON.stringify(daemon) };
    delete env['REPTOOL_KEEPER'];
    const native = path.join(path.dirname(config.daemonScript), NATIVE_SCRIPT);
    const script = daemon.transport === 'fuse-native' ? native : config.daemonScript;
    const args = [...(config.daemonNodeArgs ?? []), script, ...(config.daemonArgs ?? [])];
    const lock = heritage.lock >= 0 ? heritage.lock : 'ignore';
    this.process = spawn(process.execPath, args, {
      cwd: '/',
      stdio: ['ignore', 2, 2, heritage.fuse >= 0 ? heritage.fuse : 'ignore', heritage.window, 'pipe', lock],
      env,
    });
    this.pid = this.process.pid ?? 0;
    this.channel = (this.process.stdio as unknown[])[DAEMON_FD.CHANNEL] as Socket | undefined;
    this.channel?.on('error', () => undefined);
    if (this.channel !== undefined)
      createInterface({ input: this.channel })
        .on('line', (line) => this.heard(line, events))
        .on('error', () => undefined);

    let over = false;
    const end = (code: number | null, signal: string | null): void => {
      if (over) return;
      over = true;
      this.channel?.destroy();
      events.ended(this, code, signal);
    };
    this.process.on('error', () => end(1, null));
    this.process.on('exit', (code, signal) => {
      // Killed: go on at once, every millisecond is a pause for applications. Otherwise hear it out first.
      if (signal !== null || this.channel === undefined || this.channel.destroyed) return end(code, signal);
      this.channel.on('close', () => setImmediate(end, code, signal));
      setTimeout(end, LAST_WORDS_MS, code, signal);
    });
  }

  private heard(line: string, events: WardEvents): void {
    let message: FromDaemon;
    try {
      message = JSON.parse(line) as FromDaemon;
    } catch {
      return;
    }
    if (message.type === 'closed') this.closed = true;
    if (message.type === 'serving') this.servingAt = performance.now();
    if (message.type === 'refused') this.refused = { errno: message.errno, message: message.message };
    events.message(this, message);
  }

  send(message: ToDaemon): void {
    this.channel?.write(`${JSON.stringify(message)}\n`);
  }

  kill(): void {
    this.process.kill('SIGKILL');
  }
}

/** A daemon whose keeper died. It serves; whether its end was a clean one, others have to find out. */
export class Adopted implements Ward {
  readonly pid: number;
  readonly adopted = true;
  closed = false;
  refused: { errno: string; message: string } | undefined;
  servingAt: number | undefined = performance.now();
  private readonly pidfd: number;

  constructor(pid: number, pidfd: number, events: WardEvents) {
    this.pid = pid;
    this.pidfd = pidfd;
    void this.watch(events);
  }

  private async watch(events: WardEvents): Promise<void> {
    // In turns of half a second: process.exit waits for the pool's threads, and so would our own end.
    while (!(await sys.waitPidfd(this.pidfd, 500)));
    events.ended(this, null, null);
  }

  send(): void {
    // Its channel led to the keeper that died.
  }

  kill(): void {
    sys.pidfdSendSignal(this.pidfd, SIGKILL);
  }
}
