/** fio as a child with a time limit, its JSON taken apart, and the one question: was anything wrong? */
import assert from 'node:assert/strict';
import { describeOutcome, tail, type Child, type Outcome } from './proc.js';
import type { Mounted } from './mounted.js';

export type FioArgs = Record<string, string | number | true>;

export interface FioSide {
  iops: number;
  bw: number;
  total_ios: number;
  io_bytes: number;
}

export interface FioResult {
  outcome: Outcome;
  error: number;
  read: FioSide;
  write: FioSide;
  trim: FioSide;
}

/** Direct libaio with verification, the usual case. */
export const VERIFY: FioArgs = {
  ioengine: 'libaio',
  direct: 1,
  bs: '4k',
  verify: 'crc32c',
  verify_fatal: 1,
  verify_state_save: 0,
  randrepeat: 0,
};

/** Starts fio; `fioDone` waits for it. Once the mount is gone it makes no file where a device was. */
export function fioStart(mounted: Mounted, file: string, args: FioArgs, timeoutMs = 60_000): Child {
  const all: FioArgs = { name: 'job', filename: file, 'output-format': 'json', group_reporting: true, ...args };
  if (file.startsWith(`${mounted.dir}/`)) all.allow_file_create = 0;
  const words = Object.entries(all).map(([key, value]) => (value === true ? `--${key}` : `--${key}=${value}`));
  return mounted.spawn('fio', words, { timeoutMs, cwd: mounted.top });
}

export async function fioDone(child: Child): Promise<FioResult> {
  const outcome = await child.done;
  const from = outcome.stdout.indexOf('{');
  const none: FioSide = { iops: 0, bw: 0, total_ios: 0, io_bytes: 0 };
  let job: Partial<FioResult> | undefined;
  try {
    const parsed = JSON.parse(outcome.stdout.slice(from)) as { jobs: Partial<FioResult>[] };
    job = parsed.jobs[0];
  } catch {
    // Then it ended badly, and the outcome says how.
  }
  const { error = -1, read = none, write = none, trim = none } = job ?? {};
  return { outcome, error, read, write, trim };
}

export async function fio(mounted: Mounted, file: string, args: FioArgs, timeoutMs?: number): Promise<FioResult> {
  return fioDone(fioStart(mounted, file, args, timeoutMs));
}

/** No I/O error, no mismatch, and it ended by itself (or by our SIGINT). */
export function assertClean(result: FioResult, what: string): void {
  const { outcome } = result;
  const text = `${outcome.stdout.slice(0, Math.max(0, outcome.stdout.indexOf('{')))}${outcome.stderr}`;
  assert.doesNotMatch(text, /verify:|verify failed|io_u error|err=\s*[1-9]/, `${what}: ${tail(text)}`);
  assert.equal(outcome.timedOut, false, describeOutcome(what, outcome));
  assert.equal(result.error, 0, describeOutcome(what, outcome));
  assert.ok(outcome.status === 0 || outcome.status === 128, describeOutcome(what, outcome));
}
