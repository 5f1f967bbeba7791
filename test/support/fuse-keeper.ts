/**
 * Starts a keeper with the small test daemon in a folder of its own, and removes every trace afterwards,
 * whatever state a test left it in: by process number, then lazily by mount point.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, mkdirSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  FAILURE_FILE,
  LOG_FILE,
  isRunning,
  processStart,
  readRun,
  startKeeper,
  type KeeperConfig,
  type ProcessId,
  type RunState,
} from '../../src/control/keeper-client.js';
import { LOCK_EX, LOCK_NB, flock } from '../../src/base/sys.js';
import { listMounts, unmount } from '../../src/fuse/mount.js';
import type { AppResult } from './fuse-app.js';

export interface BenchOptions {
  /** For the keeper: its limits. */
  env?: Record<string, string>;
  /** For the daemons: the knobs of fuse-daemon. */
  daemonEnv?: Record<string, string>;
}

const script = (name: string): string => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

export class Bench {
  readonly dir: string;
  readonly mountpoint: string;
  readonly groupDir: string;
  readonly config: KeeperConfig;
  private readonly env: Record<string, string>;
  private readonly seen = new Map<number, ProcessId>();

  constructor(options: BenchOptions = {}) {
    this.dir = mkdtempSync(join(tmpdir(), 'reptool-keeper-'));
    this.mountpoint = join(this.dir, 'mnt');
    this.groupDir = join(this.dir, 'group');
    mkdirSync(this.mountpoint);
    mkdirSync(this.groupDir);
    this.env = { REPTOOL_MOUNT_POLL_MS: '100', ...options.env };
    this.config = {
      group: `test-${process.pid}`,
      mountpoint: this.mountpoint,
      groupDir: this.groupDir,
      windowRing: 1 << 20,
      maxWrite: 1 << 20,
      transport: 'kernel',
      daemonScript: script('fuse-daemon'),
      daemonArgs: [join(this.dir, 'backing')],
      daemonEnv: options.daemonEnv ?? {},
    };
  }

  async start(): Promise<RunState> {
    const lockFd = openSync(join(this.groupDir, 'lock'), 'a');
    flock(lockFd, LOCK_EX | LOCK_NB);
    try {
      const { run } = await startKeeper(this.config, { lockFd, env: this.env, timeoutMs: 15_000 });
      this.note(run);
      return run;
    } finally {
      closeSync(lockFd);
    }
  }

  get options(): { env: Record<string, string> } {
    return { env: this.env };
  }

  run(): RunState | undefined {
    const run = readRun(this.groupDir);
    if (run !== undefined) this.note(run);
    return run;
  }

  private note(run: RunState): void {
    for (const pid of [run.keeper, run.daemon, run.spare ?? 0]) {
      const start = pid > 0 ? processStart(pid) : undefined;
      if (start !== undefined && !this.seen.has(pid)) this.seen.set(pid, { pid, start });
    }
  }

  /** Waits until `met` is, and returns what it returned. */
  async until<T>(what: string, met: () => T | undefined | false, ms = 8000): Promise<T> {
    const started = performance.now();
    for (;;) {
      const value = met();
      if (value !== undefined && value !== false) return value;
      if (performance.now() - started > ms) throw new Error(`not within ${ms} ms: ${what}\n${this.log()}`);
      await pause(5);
    }
  }

  /** A run with a daemon other than `pid` that is in charge and, if asked for, a spare beside it. */
  replaced(pid: number, spare = false): Promise<RunState> {
    return this.until(`a daemon in the place of ${pid}`, () => {
      const run = this.run();
      return run !== undefined && run.daemon > 0 && run.daemon !== pid && (!spare || run.spare !== null) && run;
    });
  }

  /** A spare that is loaded and waits. */
  withSpare(): Promise<RunState> {
    return this.until('a spare that is ready', () => {
      const run = this.run();
      return run?.spare != null && this.log().includes(`spare ${run.spare} is ready`) && run;
    });
  }

  app(ms: number, limitMs = ms + 10_000): Promise<AppResult> {
    const child = spawn(process.execPath, [script('fuse-app'), join(this.mountpoint, 'disk'), String(ms)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.seen.set(child.pid!, { pid: child.pid!, start: processStart(child.pid!) ?? 0 });
    return new Promise((resolve, reject) => {
      let text = '';
      const limit = setTimeout(() => reject(new Error(`the application hangs\n${this.log()}`)), limitMs);
      child.stdout.on('data', (part: Buffer) => (text += part.toString()));
      child.on('close', () => {
        clearTimeout(limit);
        if (text === '') reject(new Error('the application was killed'));
        else resolve(JSON.parse(text) as AppResult);
      });
    });
  }

  /** A process that is ended with the rest. */
  spawn(program: string, ...args: string[]): number {
    const pid = spawn(program, args, { stdio: 'ignore' }).pid!;
    this.seen.set(pid, { pid, start: processStart(pid) ?? 0 });
    return pid;
  }

  isMounted(): boolean {
    return listMounts().some((m) => m.mountpoint === this.mountpoint);
  }

  /** All processes ever seen have ended. */
  ended(): Promise<unknown> {
    return this.until('all processes ended', () => [...this.seen.values()].every((id) => !isRunning(id)) || undefined);
  }

  log(): string {
    return this.text(LOG_FILE);
  }

  failure(): string {
    return this.text(FAILURE_FILE);
  }

  private text(name: string): string {
    try {
      return readFileSync(join(this.groupDir, name), 'utf8');
    } catch {
      return '';
    }
  }

  /** Milliseconds from each death to the next `serves`, as the keeper has logged them. */
  restarts(): number[] {
    return [...this.log().matchAll(/serves, ([\d.]+) ms after/g)].map((hit) => Number(hit[1]));
  }

  async clean(): Promise<void> {
    this.run();
    // Keeper first, or it would bring new daemons. With the last holder of the descriptor the kernel ends the
    // connection, and with it everything that hangs.
    const keeper = readRun(this.groupDir)?.keeper;
    const order = [...this.seen.values()].sort((a, b) => Number(b.pid === keeper) - Number(a.pid === keeper));
    for (const id of order) if (isRunning(id)) process.kill(id.pid, 'SIGKILL');
    if (this.isMounted()) await unmount(this.mountpoint, true);
    await this.ended().catch(() => undefined);
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 3 });
  }
}
