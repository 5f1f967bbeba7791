/**
 * Everything as an ordinary user: a mount namespace of its own, in which /dev/fuse is open to users and files
 * of the system can be replaced (fuse.conf, fusermount3), and commands that run there as `nobody`. The real
 * system is not touched; the namespace goes with its last process.
 */
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { CLI, diskFolder, type Pids } from './mounted.js';
import { Child, describeOutcome, must, run, sleep, until, type Outcome, type RunOptions } from './proc.js';

const NOBODY = '65534';
const MARK = 'REPTOOL_TEST_USER';
const AS_NOBODY = ['setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups', '--'];

export interface UserOptions {
  /** Mode of /dev/fuse; by default 666. */
  fuseMode?: string;
  /** Text of /etc/fuse.conf. */
  fuseConf?: string;
  withoutFusermount?: boolean;
}

export class UserSpace {
  readonly top = diskFolder('reptool-user-');
  readonly dir = join(this.top, 'mnt');
  readonly stateHome = join(this.top, 'state');
  /** Where the default group must lie: $XDG_STATE_HOME/reptool/default. */
  readonly groupDir = join(this.stateHome, 'reptool/default');
  readonly disk = join(this.dir, 'disk0');
  readonly image = join(this.groupDir, 'images/disk0');
  private readonly mark = randomBytes(8).toString('hex');
  private holder: Child | undefined;

  static async open(options: UserOptions = {}): Promise<UserSpace> {
    const space = new UserSpace();
    const { top } = space;
    chmodSync(top, 0o755);
    mkdirSync(space.stateHome);
    chownSync(space.stateHome, Number(NOBODY), Number(NOBODY));
    mkdirSync(space.dir);
    chownSync(space.dir, Number(NOBODY), Number(NOBODY));
    writeFileSync(join(top, 'fuse.conf'), options.fuseConf ?? '');
    writeFileSync(join(top, 'none'), '');
    const steps = [
      `mknod ${top}/fuse c 10 229 && chmod ${options.fuseMode ?? '666'} ${top}/fuse`,
      `mount --bind ${top}/fuse /dev/fuse`,
      `mount --bind ${top}/fuse.conf /etc/fuse.conf`,
      options.withoutFusermount === true ? `mount --bind ${top}/none "$(command -v fusermount3)"` : 'true',
      'echo ready; exec sleep 600',
    ];
    const holder = new Child('unshare', ['-m', 'sh', '-c', steps.join(' && ')], { timeoutMs: 300_000 });
    space.holder = holder;
    await until('the namespace', () => holder.stdout.includes('ready') || holder.ended, 10_000);
    if (holder.ended) throw new Error(describeOutcome('unshare', await holder.done));
    return space;
  }

  /** A command inside, as root or as nobody. */
  words(user: 'root' | 'nobody', ...command: string[]): string[] {
    return ['-t', String(this.holder!.pid), '-m', '--', ...(user === 'nobody' ? AS_NOBODY : []), ...command];
  }

  start(user: 'root' | 'nobody', command: string[], options: RunOptions = {}): Child {
    const env = { ...process.env, [MARK]: this.mark, XDG_STATE_HOME: this.stateHome, HOME: '/nonexistent' };
    return new Child('nsenter', this.words(user, ...command), { env, timeoutMs: 60_000, ...options });
  }

  run(user: 'root' | 'nobody', ...command: string[]): Promise<Outcome> {
    return this.start(user, command).done;
  }

  async must(user: 'root' | 'nobody', ...command: string[]): Promise<string> {
    const outcome = await this.run(user, ...command);
    if (outcome.status !== 0) throw new Error(`${describeOutcome(command.join(' '), outcome)}\n${this.daemonLog}`);
    return outcome.stdout;
  }

  /** `reptool WORDS…` as nobody. */
  reptool(...words: string[]): Promise<Outcome> {
    return this.run('nobody', process.execPath, CLI, ...words);
  }

  async fine(...words: string[]): Promise<string> {
    return this.must('nobody', process.execPath, CLI, ...words);
  }

  mount(): Promise<string> {
    return this.fine('mount', this.dir, '--size', '64M', '--log-size', '32M');
  }

  get pids(): Pids {
    try {
      return JSON.parse(readFileSync(join(this.groupDir, 'run.json'), 'utf8')) as Pids;
    } catch {
      return {};
    }
  }

  get daemonLog(): string {
    const file = join(this.groupDir, 'daemon.log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Mounts below the folder, as seen inside. */
  async mounts(): Promise<string[]> {
    const info = await must('nsenter', this.words('root', 'cat', '/proc/self/mountinfo'));
    return info.split('\n').filter((line) => line.split(' ')[4]?.startsWith(`${this.top}/`));
  }

  /** Processes that were started here and live. */
  processes(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== this.holder?.pid && textOf(`/proc/${pid}/environ`).includes(`${MARK}=${this.mark}`))
      .filter((pid) => !/^State:\s+Z/m.test(textOf(`/proc/${pid}/status`)));
  }

  async ended(): Promise<void> {
    await until('keeper and daemon end', () => this.processes().length === 0, 20_000);
  }

  async close(): Promise<void> {
    if (this.holder?.ended === false) {
      for (const line of await this.mounts()) {
        const [, , , , point] = line.split(' ');
        await run('nsenter', this.words('root', 'umount', '-l', point!), { timeoutMs: 10_000 });
      }
    }
    for (let i = 0; i < 80 && this.processes().length > 0; i++) {
      if (i === 40) for (const pid of this.processes()) process.kill(pid, 'SIGKILL');
      await sleep(50);
    }
    await this.holder?.stop('SIGKILL', 3000);
    rmSync(this.top, { recursive: true, force: true });
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
