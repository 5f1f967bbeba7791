/**
 * A real mount for tests: a temporary folder on a real disk, a group mounted there through the real command
 * line, and a `cleanup` that takes everything away whatever state it is in. All that touches the mount runs
 * in child processes with time limits (support/proc).
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TransportChoice } from '../../src/fuse/transport.js';
import { Child, describeOutcome, must, run, sleep, until, type Outcome, type RunOptions } from './proc.js';

/** The built command line, beside the built tests. */
export const CLI = join(import.meta.dirname, '../../src/cli/run.js');

/** The folder with package.json and README.md. */
export const PROJECT = findUp(import.meta.dirname, 'package.json');

const TMPFS_MAGIC = 0x01021994;
/** In the environment of every process that a harness starts: by it `cleanup` finds them again. */
const MARK = 'REPTOOL_TEST_MOUNT';

export interface MountOptions {
  group?: string;
  logSize?: string;
  size?: string;
  durability?: 'flush' | 'write';
  onLocalError?: 'suspend' | 'detach';
  transport?: TransportChoice;
  /** Added to the environment of keeper and daemon. */
  env?: Record<string, string>;
  timeoutMs?: number;
}

export interface Pids {
  keeper?: number;
  daemon?: number;
  spare?: number;
}

interface MountEntry {
  dev: string;
  point: string;
  type: string;
}

/** A temporary folder on a disk, not in memory: O_DIRECT and fdatasync have to mean something. */
export function diskFolder(prefix = 'reptool-mount-'): string {
  const inMemory = (dir: string): boolean => statfsSync(dir).type === TMPFS_MAGIC;
  return mkdtempSync(join([tmpdir(), '/var/tmp'].find((dir) => !inMemory(dir)) ?? '/var/tmp', prefix));
}

export class Mounted {
  readonly top: string;
  readonly dir: string;
  readonly state: string;
  readonly group: string;
  readonly options: MountOptions;
  private readonly mark: string;
  private readonly children: Child[] = [];
  private fusectl = '';

  /** `of`: in a child of a harness, its folder. What the child starts, the harness finds and takes away. */
  constructor(options: MountOptions = {}, of?: string) {
    this.options = options;
    this.group = options.group ?? 'default';
    this.mark = (of === undefined ? undefined : process.env[MARK]) ?? randomBytes(8).toString('hex');
    this.top = of ?? diskFolder();
    this.dir = join(this.top, 'mnt');
    this.state = join(this.top, 'state');
    mkdirSync(this.dir, { recursive: true });
  }

  /** A new group, mounted. */
  static async start(options: MountOptions = {}): Promise<Mounted> {
    const mounted = new Mounted(options);
    try {
      await mounted.mount();
    } catch (error) {
      await mounted.cleanup();
      throw error;
    }
    return mounted;
  }

  // --- where things are ----------------------------------------------------------------------------------

  get disk(): string {
    return join(this.dir, 'disk0');
  }
  /** A folder for a file system that a test mounts. */
  get files(): string {
    return join(this.top, 'fs');
  }
  get groupDir(): string {
    return join(this.state, this.group);
  }
  get log(): string {
    return join(this.groupDir, 'replog');
  }
  get imageFolder(): string {
    return join(this.groupDir, 'images');
  }
  get image(): string {
    return imageIn(this.imageFolder);
  }
  get siteFolder(): string {
    return join(this.groupDir, 'site1');
  }
  get siteImage(): string {
    return imageIn(this.siteFolder);
  }
  get daemonLog(): string {
    const file = join(this.groupDir, 'daemon.log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  // --- commands ------------------------------------------------------------------------------------------

  /** Runs `reptool WORDS…`. */
  async reptool(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    if (!existsSync(CLI)) throw new Error('reptool is not built here: run npm run build first');
    return run(process.execPath, [CLI, ...words], { env: this.environment, ...options });
  }

  /** Runs a line in a shell, in the project's folder; reptool's state is the harness's. */
  sh(line: string, options: RunOptions = {}): Promise<Outcome> {
    const env = { ...this.environment, REPTOOL_STATE: this.state };
    return run('sh', ['-c', line], { env, cwd: PROJECT, ...options });
  }

  async mount(options: MountOptions = {}): Promise<void> {
    const outcome = await this.tryMount(options);
    if (outcome.status !== 0) throw new Error(`${describeOutcome('reptool mount', outcome)}\n${this.daemonLog}`);
    if (!this.isMounted) throw new Error('reptool mount returned, but nothing is mounted');
  }

  tryMount(options: MountOptions = {}): Promise<Outcome> {
    const o = { ...this.options, ...options };
    const words = ['mount', this.dir, '--state', this.state];
    if (o.group !== undefined) words.push('--group', o.group);
    if (o.transport !== undefined) words.push('--transport', o.transport);
    // Sizes count where the group is made; given again they might not be taken.
    if (!existsSync(join(this.groupDir, 'group.json'))) {
      if (o.logSize !== undefined) words.push('--log-size', o.logSize);
      if (o.size !== undefined) words.push('--size', o.size);
      if (o.durability !== undefined) words.push('--durability', o.durability);
      if (o.onLocalError !== undefined) words.push('--on-local-error', o.onLocalError);
    }
    const timeoutMs = o.timeoutMs ?? 60_000;
    return this.reptool(words, { timeoutMs, env: { ...this.environment, ...o.env } });
  }

  async umount(timeoutMs = 60_000): Promise<void> {
    const outcome = await this.reptool(['umount', this.dir], { timeoutMs });
    if (outcome.status !== 0) throw new Error(`${describeOutcome('reptool umount', outcome)}\n${this.daemonLog}`);
    await until('keeper and daemon end after umount', () => this.processes().length === 0, 20_000);
  }

  /** Waits until site 1 has confirmed everything written before. */
  async drain(timeoutMs = 60_000): Promise<void> {
    const words = ['wait', this.dir, '--site', '1', '--timeout', `${Math.ceil(timeoutMs / 1000)}s`];
    const outcome = await this.reptool(words, { timeoutMs: timeoutMs + 5000 });
    if (outcome.status !== 0) throw new Error(`${describeOutcome('reptool wait', outcome)}\n${this.daemonLog}`);
  }

  async site(verb: 'pause' | 'resume'): Promise<void> {
    const outcome = await this.reptool(['site', verb, '1', '--mount', this.dir]);
    if (outcome.status !== 0) throw new Error(describeOutcome(`reptool site ${verb}`, outcome));
  }

  /** Text of a file in .ctl, read by a child. */
  control(file: string, timeoutMs = 10_000): Promise<string> {
    return must('cat', [join(this.dir, '.ctl', file)], { timeoutMs });
  }

  // --- processes -----------------------------------------------------------------------------------------

  /** A child that ends with the harness at the latest. */
  spawn(command: string, args: readonly string[], options: RunOptions = {}): Child {
    const child = new Child(command, args, { env: this.environment, ...options });
    this.children.push(child);
    return child;
  }

  get pids(): Pids {
    try {
      return JSON.parse(readFileSync(join(this.groupDir, 'run.json'), 'utf8')) as Pids;
    } catch {
      return {}; // Not there, or just being replaced.
    }
  }

  /** A pid of run.json; waits until there is one. */
  pid(name: keyof Pids, not = 0): Promise<number> {
    return until(
      `a pid of the ${name} in run.json`,
      () => {
        const pid = this.pids[name];
        return pid !== undefined && pid !== not && pid > 0 ? pid : undefined;
      },
      15_000,
      1,
    );
  }

  /** The pid of a daemon that serves already. */
  async serving(not = 0): Promise<number> {
    const pid = await this.pid('daemon', not);
    await until(`daemon ${pid} serves`, () => this.daemonLog.includes(`daemon ${pid} serves`), 15_000, 1);
    return pid;
  }

  /** SIGKILL for the daemon; returns its pid. */
  async killDaemon(not = 0): Promise<number> {
    const pid = await this.pid('daemon', not);
    process.kill(pid, 'SIGKILL');
    return pid;
  }

  /** As if the machine's power failed, as far as processes go: all killed at once, the dead mount detached. */
  async killAll(): Promise<void> {
    const { keeper, daemon, spare } = this.pids;
    // The keeper first: it must not start another daemon.
    for (const pid of [keeper, daemon, spare, ...this.processes()]) signal(pid, 'SIGKILL');
    await until('all killed processes are gone', () => this.processes().length === 0, 10_000, 5);
    await must('umount', ['-l', this.dir], { timeoutMs: 10_000 });
    await until('the dead mount is gone', () => !this.isMounted, 10_000);
  }

  /** Processes of reptool that were started for this harness and live (a zombie does not). */
  processes(): number[] {
    const mark = `${MARK}=${this.mark}`;
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        if (pid === process.pid || this.children.some((child) => child.pid === pid)) return false;
        const environ = textOf(`/proc/${pid}/environ`).split('\0');
        return environ.includes(mark) && !/^State:\s+Z/m.test(textOf(`/proc/${pid}/status`));
      });
  }

  // --- the mount itself ----------------------------------------------------------------------------------

  get isMounted(): boolean {
    return mountsBelow(this.dir).some((mount) => mount.point === this.dir);
  }

  /** Requests that the kernel has handed out or queued and that are not answered. */
  async requestsWaiting(): Promise<number> {
    const folder = await this.connection();
    return Number(textOf(join(folder, 'waiting')).trim() || NaN);
  }

  /** The folder of this mount's FUSE connection; mounts the control file system for it in the test's own folder. */
  private async connection(): Promise<string> {
    const entry = mountsBelow(this.dir).find((mount) => mount.point === this.dir);
    const minor = entry?.dev.split(':')[1] ?? 'none';
    if (this.fusectl === '' && !existsSync(`/sys/fs/fuse/connections/${minor}`)) {
      const folder = join(this.top, 'fusectl');
      mkdirSync(folder, { recursive: true });
      await must('mount', ['-t', 'fusectl', 'none', folder]);
      this.fusectl = folder;
    }
    return join(this.fusectl === '' ? '/sys/fs/fuse/connections' : this.fusectl, minor);
  }

  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, [MARK]: this.mark, REPTOOL_RUN: join(this.top, 'run') };
  }

  // --- the end -------------------------------------------------------------------------------------------

  /** All that was started is killed at once, and gone: what it had mounted in a namespace of its own is, too. */
  async endProcesses(): Promise<void> {
    for (const child of this.children) if (!child.ended) await child.stop('SIGKILL', 3000);
    const left = (): number[] => this.processes();
    const gone = (): boolean => {
      // Again, since a keeper that was killed a moment later may have started one more.
      for (const pid of left()) signal(pid, 'SIGKILL');
      return left().length === 0;
    };
    await until('all killed processes are gone', gone, 20_000);
  }

  /** Takes everything away; throws where something stays behind. Safe to call twice. */
  async cleanup(): Promise<void> {
    for (const child of this.children) if (!child.ended) await child.stop('SIGKILL', 3000);
    const inner = (): MountEntry[] => mountsBelow(this.top).filter((m) => m.point !== this.dir && m.type !== 'fusectl');
    for (const { point } of inner().reverse()) await leave(['umount', point], ['umount', '-l', point]);
    await this.detachLoops();
    if (this.isMounted) await this.leaveMount();
    for (const name of ['SIGTERM', 'SIGKILL'] as const) {
      for (let i = 0; i < 40 && this.processes().length > 0; i++) {
        if (i === 20) for (const pid of this.processes()) signal(pid, name);
        await sleep(50);
      }
    }
    for (const { point } of mountsBelow(this.top).reverse()) await leave(['umount', point], ['umount', '-l', point]);
    const left = mountsBelow(this.top).map((mount) => mount.point);
    if (left.length > 0) throw new Error(`still mounted after cleanup: ${left.join(', ')}`);
    rmSync(this.top, { recursive: true, force: true });
    const alive = this.processes();
    if (alive.length > 0) throw new Error(`still running after cleanup: ${alive.join(', ')}`);
  }

  private async leaveMount(): Promise<void> {
    if (existsSync(CLI)) await this.reptool(['umount', this.dir], { timeoutMs: 15_000 });
    if (this.isMounted) await leave(['umount', this.dir], ['umount', '-l', this.dir]);
    if (!this.isMounted) return;
    const abort = join(await this.connection(), 'abort');
    await run('sh', ['-c', 'echo 1 > "$0"', abort], { timeoutMs: 5000 });
    await run('umount', ['-l', this.dir], { timeoutMs: 5000 });
  }

  /** Loop devices over files of this harness. */
  private async detachLoops(): Promise<void> {
    for (const name of readdirSync('/sys/block').filter((block) => block.startsWith('loop'))) {
      if (!textOf(`/sys/block/${name}/loop/backing_file`).startsWith(`${this.top}/`)) continue;
      await run('losetup', ['-d', `/dev/${name}`], { timeoutMs: 10_000 });
      for (let i = 0; i < 40 && existsSync(`/sys/block/${name}/loop/backing_file`); i++) await sleep(50);
    }
  }
}

async function leave(...attempts: string[][]): Promise<void> {
  for (const [command, ...args] of attempts) {
    if ((await run(command!, args, { timeoutMs: 10_000 })).status === 0) return;
  }
}

function signal(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined || pid <= 1) return;
  try {
    process.kill(pid, name);
  } catch {
    // It is gone already.
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Mounts at or below `dir`, outer ones first. Reads the mount table only. */
export function mountsBelow(dir: string): MountEntry[] {
  return textOf('/proc/self/mountinfo')
    .split('\n')
    .map((line) => line.split(' '))
    .filter((words) => words[4] === dir || words[4]?.startsWith(`${dir}/`))
    .map((words) => ({ dev: words[2]!, point: words[4]!, type: words[words.indexOf('-') + 1] ?? '' }));
}

/** The image of disk0 in a folder of images. */
export function imageIn(folder: string): string {
  return (
    [join(folder, 'disk0.img'), join(folder, 'disk0')].find((file) => existsSync(file)) ?? join(folder, 'disk0.img')
  );
}

function findUp(from: string, name: string): string {
  for (let dir = from; ; dir = dirname(dir)) if (existsSync(join(dir, name)) || dir === '/') return dir;
}
