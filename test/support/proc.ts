/**
 * Child processes with a time limit. Whatever touches a mount runs in one of these: a wedged mount may hang
 * the child for ever (even SIGKILL does not end it), but never the test runner.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { findTool } from './skip.js';

export interface Outcome {
  /** Exit status; null where a signal ended it or it did not end in time. */
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  timedOut: boolean;
  ms: number;
}

export interface RunOptions {
  timeoutMs?: number;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  input?: string;
}

/** How long the pipes of a child that has ended are still read; a process that it left behind may hold them. */
const PIPE_GRACE_MS = 300;
/** How long a killed child may take to go; after that it is left alone (it waits in a wedged mount). */
const KILL_GRACE_MS = 2000;

/** A running child; `done` always settles. */
export class Child {
  readonly process: ChildProcess;
  readonly done: Promise<Outcome>;
  ended = false;
  private timedOut = false;
  private readonly out: Buffer[] = [];
  private readonly err: Buffer[] = [];
  private settle!: (status: number | null, signal: NodeJS.Signals | null) => void;

  constructor(command: string, args: readonly string[], options: RunOptions = {}) {
    const started = performance.now();
    const child = spawn(findTool(command) ?? command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.env ? { env: options.env } : {}),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.process = child;
    child.stdout.on('data', (piece: Buffer) => this.out.push(piece));
    child.stderr.on('data', (piece: Buffer) => this.err.push(piece));
    child.stdin.on('error', () => {}); // it may end before it has read all
    child.stdin.end(options.input ?? '');

    this.done = new Promise((resolve) => {
      let closed = false;
      this.settle = (status, signal) => {
        if (closed) return;
        closed = true;
        this.ended = true;
        clearTimeout(limit);
        for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe.destroy();
        child.unref();
        const [stdout, stderr] = [this.stdout, this.stderr];
        resolve({ status, signal, stdout, stderr, timedOut: this.timedOut, ms: performance.now() - started });
      };
      const limit = setTimeout(() => this.kill(true), options.timeoutMs ?? 30_000);
      child.on('error', (error) => {
        this.err.push(Buffer.from(String(error)));
        this.settle(127, null);
      });
      child.on('close', (status, signal) => this.settle(status, signal));
      child.on('exit', (status, signal) => setTimeout(() => this.settle(status, signal), PIPE_GRACE_MS));
    });
  }

  get stdout(): string {
    return Buffer.concat(this.out).toString('utf8');
  }

  get stderr(): string {
    return Buffer.concat(this.err).toString('utf8');
  }

  get pid(): number {
    return this.process.pid ?? -1;
  }

  /** SIGKILL; gives up on a child that does not go. */
  kill(late = false): void {
    if (this.ended) return;
    this.timedOut ||= late;
    this.process.kill('SIGKILL');
    setTimeout(() => this.settle(null, 'SIGKILL'), KILL_GRACE_MS).unref();
  }

  /** Asks it to end (`SIGTERM`, or `SIGINT` for fio) and waits; killed where it does not listen. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<Outcome> {
    if (!this.ended) this.process.kill(signal);
    const timer = setTimeout(() => this.kill(true), graceMs);
    const outcome = await this.done;
    clearTimeout(timer);
    return outcome;
  }
}

/** Runs a command to its end or its time limit (30 s unless told). */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Child(command, args, options).done;
}

/** Runs a command that has to succeed; returns what it printed. */
export async function must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await run(command, args, options);
  if (outcome.status !== 0) throw new Error(describeOutcome([command, ...args].join(' '), outcome));
  return outcome.stdout;
}

export function describeOutcome(what: string, o: Outcome): string {
  const end = o.timedOut ? `not done within ${(o.ms / 1000).toFixed(1)} s` : `status ${o.status}, signal ${o.signal}`;
  return `${what}: ${end}\n${tail(o.stdout)}${tail(o.stderr)}`;
}

/** The end of a long text, for messages. */
export function tail(text: string, bytes = 3000): string {
  return text.length <= bytes ? text : `…${text.slice(-bytes)}`;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Polls until `probe` gives something; fails with `what` and the last answer when the time is up. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 15_000,
  everyMs = 50,
  explain: () => string = () => '',
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`waited ${timeoutMs / 1000} s in vain: ${what} ${explain()}`);
    await sleep(everyMs);
  }
}

/** A seeded generator (mulberry32): the same seed gives the same run. */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}

/** The seed of this run: REPTOOL_SEED, or a new one. Print it. */
export function seedOfRun(): number {
  const given = process.env['REPTOOL_SEED'];
  return given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);
}

/** The value below which `share` (0…1) of the sorted values lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.slice().sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? NaN;
}
