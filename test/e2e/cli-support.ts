/** A group of its own for each test, run through the real command line; everything has a time limit. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processStart, readRun, type RunState } from '../../src/control/keeper-client.js';
import { listMounts } from '../../src/fuse/mount.js';
import type { TransportChoice } from '../../src/fuse/transport.js';
import { BIN, TOP } from '../unit/cli/support.js';

const LIMIT_MS = 60_000;

/** The smallest useful group: quick to make, and small enough to look into. */
export const SMALL = ['--log-size', '16M', '--size', '64M'];

export interface Ran {
  stdout: string;
  stderr: string;
  exit: number | null;
}

export interface Running {
  child: ChildProcess;
  /** What it has printed so far. */
  stdout(): string;
  ended: Promise<Ran>;
}

/** A command line that is under way; killed when the limit is over. */
export function start(words: readonly string[], options: { limitMs?: number; cwd?: string } = {}): Running {
  const child = spawn(process.execPath, [BIN, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: options.cwd ?? TOP,
    env: { ...process.env, REPTOOL_MOUNT: '', DEBUG: '' },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<Ran>((resolve) => {
    const timer = setTimeout(() => {
      stderr += `[killed after ${options.limitMs ?? LIMIT_MS} ms]`;
      child.kill('SIGKILL');
    }, options.limitMs ?? LIMIT_MS);
    child.on('close', (exit) => {
      clearTimeout(timer);
      resolve({ stdout, stderr, exit });
    });
  });
  return { child, stdout: () => stdout, ended };
}

export function reptool(...words: string[]): Promise<Ran> {
  return start(words).ended;
}

/** The command line ended well; returns what it printed. */
export async function fine(...words: string[]): Promise<string> {
  const ran = await reptool(...words);
  assert.equal(ran.exit, 0, `reptool ${words.join(' ')}: ${ran.stderr}${ran.stdout}`);
  return ran.stdout;
}

/** The command line failed with `exit` and one sentence that holds all of `says`. */
export async function fails(exit: number, says: RegExp[], ...words: string[]): Promise<string> {
  const ran = await reptool(...words);
  assert.equal(ran.exit, exit, `reptool ${words.join(' ')}: ${ran.stderr}${ran.stdout}`);
  for (const pattern of says) assert.match(ran.stderr, pattern);
  const sentences = ran.stderr.split('\n').filter((line) => line.startsWith('reptool: '));
  assert.equal(sentences.length, 1, `one sentence: ${ran.stderr}`);
  assert.equal(ran.stdout, '');
  return ran.stderr;
}

/** A shell line with a time limit: what touches a mount must not hang the test. */
export function shell(line: string, limitMs = 20_000): Ran {
  const ran = spawnSync('timeout', ['-s', 'KILL', String(limitMs / 1000), 'sh', '-c', line], { encoding: 'utf8' });
  return { stdout: ran.stdout, stderr: ran.stderr, exit: ran.status };
}

export function shellFine(line: string): string {
  const ran = shell(line);
  assert.equal(ran.exit, 0, `${line}: ${ran.stderr}`);
  return ran.stdout;
}

export class Place {
  /** Options of `reptool mount`. */
  readonly how: readonly string[];
  readonly top = mkdtempSync(join(tmpdir(), 'reptool-e2e.'));
  readonly mount = join(this.top, 'rep');
  readonly state = join(this.top, 'state');
  readonly group = join(this.state, 'default');
  readonly log = join(this.group, 'replog');
  readonly image = join(this.group, 'images/disk0');
  readonly disk = join(this.mount, 'disk0');

  constructor(transport: TransportChoice = 'auto') {
    this.how = ['--state', this.state, '--transport', transport];
  }

  /** `reptool mount` of the small group with this state folder. */
  async mountSmall(...more: string[]): Promise<string> {
    return fine('mount', this.mount, ...this.how, ...SMALL, ...more);
  }

  async umount(): Promise<void> {
    await fine('umount', this.mount);
  }

  run(): RunState {
    const run = readRun(this.group);
    assert.ok(run, 'run.json is there');
    return run;
  }

  /** Writes a block of text at block `nr` of disk0 and flushes it. */
  write(nr: number, text: string): void {
    shellFine(`yes '${text}' | head -c 4096 | dd of=${this.disk} bs=4096 seek=${nr} conv=notrunc,fsync status=none`);
  }

  read(nr: number): string {
    return shellFine(`dd if=${this.disk} bs=4096 skip=${nr} count=1 status=none`).split('\n')[0]!;
  }

  /** As a loss of power for the program: keeper, daemon and spare at once. */
  async killAll(): Promise<void> {
    const { keeper, daemon, spare } = this.run();
    process.kill(keeper, 'SIGSTOP'); // Otherwise it puts the next one in place.
    const pids = [daemon, spare, keeper].filter((pid) => pid !== null);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await until('all are gone', () => pids.every((pid) => processStart(pid) === undefined));
  }

  mounted(): boolean {
    return listMounts().some((m) => m.mountpoint === this.mount);
  }

  /** Every file below the state folder with a digest, except what only notes who was here. */
  digest(): Map<string, string> {
    const found = new Map<string, string>();
    if (!existsSync(this.state)) return found;
    for (const name of readdirSync(this.state, { recursive: true, encoding: 'utf8' }).sort()) {
      const file = join(this.state, name);
      if (!statSync(file).isFile()) found.set(name, 'folder');
      else if (!/(?:^|\/)(?:(?:keeper\.)?lock|lock\.mdb|run\.json|daemon\.log|failure\.txt)$/.test(name))
        found.set(name, createHash('sha256').update(readFileSync(file)).digest('hex'));
    }
    return found;
  }

  /** Whatever a test did: no mount, no process and no file of it remains. */
  async clear(): Promise<void> {
    const run = existsSync(this.group) ? readRun(this.group) : undefined;
    const mine = listMounts().filter((m) => m.mountpoint.startsWith(`${this.top}/`));
    for (const { mountpoint } of mine) {
      const gone = await start(['umount', mountpoint], { limitMs: 15_000 }).ended;
      if (gone.exit !== 0) shell(`umount -l ${mountpoint}`);
    }
    for (const pid of [run?.keeper, run?.daemon, run?.spare]) {
      if (pid == null || !/REPTOOL_(?:KEEPER|DAEMON)=/.test(environment(pid))) continue;
      process.kill(pid, 'SIGKILL');
    }
    shell(`awk -v top=${this.top}/ 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | xargs -r umount -l`);
    rmSync(this.top, { recursive: true, force: true });
  }
}

function environment(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8');
  } catch {
    return '';
  }
}

/** Waits until `met`, at most `limitMs`. */
export async function until(what: string, met: () => boolean, limitMs = 20_000): Promise<void> {
  for (const end = performance.now() + limitMs; !met(); await sleep(20))
    assert.ok(performance.now() < end, `${what}: not within ${limitMs} ms`);
}
