/** Killing the daemon at random moments, and how long applications felt it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { percentile, sleep, until, type Child } from './proc.js';
import type { Mounted } from './mounted.js';

/** CLOCK_MONOTONIC, the same in every process of the machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export interface Kill {
  /** When, on the monotonic clock. */
  at: number;
  pid: number;
  /** Requests that the kernel held for the daemon just before. */
  inFlight: number;
  /** A spare stood ready to take over. */
  warm: boolean;
}

/** How long a spare is waited for. */
const SPARE_MS = 5000;

/**
 * Kills the daemon `count` times, each time another process, `min` to `max` ms after it began to serve (mostly
 * before there is a spare again) or, every other time, after a spare was ready.
 */
export async function killDaemons(
  mounted: Mounted,
  count: number,
  random: (below: number) => number,
  [min, max]: readonly [number, number] = [30, 300],
): Promise<Kill[]> {
  const kills: Kill[] = [];
  let pid = 0;
  const spareReady = (): boolean => mounted.daemonLog.includes(`spare ${mounted.pids.spare} is ready`);
  while (kills.length < count) {
    await mounted.serving(pid);
    if (kills.length % 2 === 1) await until('a spare is ready', spareReady, SPARE_MS, 5);
    await sleep(min + random(max - min));
    const [inFlight, warm] = [await mounted.requestsWaiting(), spareReady()];
    const at = monotonicMs();
    pid = await mounted.killDaemon(pid);
    kills.push({ at, pid, inFlight, warm });
  }
  return kills;
}

const PROBER = join(import.meta.dirname, 'prober.js');
/** A write this soon after the kill is served by the next daemon, or was under way. */
const NEAR_MS = 5;

/** A prober (support/prober) on `offset` of `file`. */
export class Prober {
  private readonly child: Child;
  private readonly out: string;

  private constructor(child: Child, out: string) {
    this.child = child;
    this.out = out;
  }

  static async start(mounted: Mounted, file: string, offset: number): Promise<Prober> {
    const out = join(mounted.top, 'prober.log');
    const child = mounted.spawn(process.execPath, [PROBER, file, String(offset), '0', out], { timeoutMs: 300_000 });
    const prober = new Prober(child, out);
    const said = (): string => (child.ended ? child.stderr : '');
    await until('the prober is ready', () => child.ended || prober.text.startsWith('ready'), 10_000, 20, said);
    return prober;
  }

  private get text(): string {
    try {
      return readFileSync(this.out, 'utf8');
    } catch {
      return '';
    }
  }

  /** Ends it; for each kill the milliseconds until the first reply after it. */
  async pauses(kills: readonly Kill[]): Promise<number[]> {
    const outcome = await this.child.stop('SIGTERM', 15_000);
    if (outcome.status !== 0) throw new Error(`the prober failed: ${outcome.stderr}`);
    const writes = this.text.split('\n').flatMap((line) => {
      const [from, to] = line.split(' ').map(Number);
      return from !== undefined && to !== undefined && to > 0 && !line.startsWith('writes')
        ? [[from, to] as const]
        : [];
    });
    return kills.map(({ at }) => {
      const after = writes.filter(([, to]) => to > at);
      const near = after.filter(([from]) => from < at + NEAR_MS);
      // On a busy machine the prober itself may have slept for longer: then its next write counts.
      return Math.max(...(near.length > 0 ? near : after.slice(0, 1)).map(([, to]) => to - at));
    });
  }
}

/** `p50 3.1 ms, p99 40.2 ms, max 41.0 ms` */
export function figures(values: readonly number[], unit = 'ms'): string {
  const one = (share: number): string => percentile(values, share).toFixed(1);
  return `p50 ${one(0.5)} ${unit}, p99 ${one(0.99)} ${unit}, max ${Math.max(...values).toFixed(1)} ${unit}`;
}
