/** What the keeper tells others through files: run.json, failure.txt, the log, and its line to the CLI. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as sys from '../base/sys.js';
import { RepError } from '../base/errors.js';
import { pointToGroup } from '../control/gave-up.js';
import { FAILURE_FILE, RUN_FILE, type RunState } from '../control/keeper-client.js';

/** One line in the group's daemon.log. */
export function log(text: string): void {
  try {
    fs.writeSync(2, `${new Date().toISOString()} keeper[${process.pid}] ${text}\n`);
  } catch {
    // A full disk must not end the keeper.
  }
}

const CLI_FD = 3;
let reported = false;

/** Tells the CLI how it went; once, and nobody need listen. */
export function report(message: object): void {
  if (reported) return;
  reported = true;
  try {
    fs.writeSync(CLI_FD, `${JSON.stringify(message)}\n`);
    fs.closeSync(CLI_FD);
  } catch {
    // The CLI is gone, or there was none.
  }
}

/**
 * run.json, always replaced as a whole. Asynchronous, because the folder may lie on a disk that is slow just
 * now; what is newest when a write ends is written next. Not synced: after a power loss nothing runs.
 */
export class RunFile {
  private readonly file: string;
  private wanted: string | undefined;
  private writing: Promise<void> | undefined;

  constructor(groupDir: string) {
    this.file = path.join(groupDir, RUN_FILE);
  }

  set(run: RunState): Promise<void> {
    this.wanted = `${JSON.stringify(run, undefined, 2)}\n`;
    this.writing ??= this.write().finally(() => (this.writing = undefined));
    return this.writing;
  }

  private async write(): Promise<void> {
    while (this.wanted !== undefined) {
      const text = this.wanted;
      this.wanted = undefined;
      try {
        await fs.promises.writeFile(`${this.file}.new`, text, { mode: 0o600 });
        await fs.promises.rename(`${this.file}.new`, this.file);
      } catch (error) {
        log(`${this.file}: not written: ${(error as Error).message}`);
      }
    }
  }

  async remove(): Promise<void> {
    await this.writing;
    await fs.promises.rm(this.file, { force: true }).catch(() => undefined);
  }
}

/**
 * Why the keeper gave `mountpoint` up, for whoever comes next, and the way to it, since the mount that names the
 * folder may go; `undefined` removes what an earlier one left.
 */
export async function writeFailure(groupDir: string, mountpoint: string, text: string | undefined): Promise<void> {
  const file = path.join(groupDir, FAILURE_FILE);
  try {
    if (text === undefined) await fs.promises.rm(file, { force: true });
    else await fs.promises.writeFile(file, `${new Date().toISOString()} ${text}\n`, { mode: 0o600 });
    await pointToGroup(mountpoint, text === undefined ? undefined : groupDir);
  } catch (error) {
    log(`${file}: not written: ${(error as Error).message}`);
  }
}

/**
 * One keeper per group. The group's own lock cannot say so: daemons hold it too, and a keeper that adopts
 * gets it from them. This one is never inherited.
 */
export function takeKeeperLock(groupDir: string): void {
  const file = path.join(groupDir, 'keeper.lock');
  const fd = fs.openSync(file, sys.O_RDWR | sys.O_CREAT | sys.O_CLOEXEC, 0o600);
  if (sys.flock(fd, sys.LOCK_EX | sys.LOCK_NB) < 0)
    throw new RepError('EBUSY', `${groupDir}: another keeper runs for this group; unmount it first`);
}

const YAMA = '/proc/sys/kernel/yama/ptrace_scope';

/** Says where this system keeps a new keeper from taking the descriptors of a daemon; undefined where not. */
export function tracingNote(file = YAMA, uid = process.getuid?.() ?? 0): string | undefined {
  let scope: number;
  try {
    scope = Number(fs.readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
  // 2 leaves it to CAP_SYS_PTRACE, 3 to nobody.
  if (scope < 2 || (scope === 2 && uid === 0)) return undefined;
  return `kernel.yama.ptrace_scope is ${scope}: a killed keeper cannot be replaced while its daemon serves`;
}
