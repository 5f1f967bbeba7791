/** Starts an order test in its own process and namespace (order-child), and clears up behind it whatever happened. */
import { join } from 'node:path';
import { MIB } from '../../src/base/units.js';
import { Mounted } from './mounted.js';
import { NbdServer, type ServerKind } from './nbd-servers.js';
import type { OrderTask } from './order-child.js';
import { blankExports } from './order-nbd.js';
import { VolumeDisks } from './order-volume.js';
import { tail } from './proc.js';

const CHILD = join(import.meta.dirname, 'order-child.js');
const SITES = 2;
/** Stage, journal and three small images. */
const VOLUME = 224 * MIB;

export interface OrderPlan {
  seed: number;
  cuts: number;
  /** Keeper and daemon die together behind each of so many parts of the run. */
  lives: number;
  timeoutMs: number;
}

export async function runFolderOrder(plan: OrderPlan): Promise<void> {
  const m = new Mounted();
  const disks = new VolumeDisks(m.top);
  try {
    await disks.make(SITES, VOLUME);
    const { devices, ram } = disks;
    await inChild(m, { kind: 'folder', top: m.top, devices, ram, ...plan }, plan.timeoutMs);
  } finally {
    await clearAway(
      () => m.endProcesses(),
      () => disks.remove(),
      () => m.cleanup(),
    );
  }
}

export async function runNbdOrder(server: ServerKind, plan: OrderPlan): Promise<void> {
  const m = new Mounted();
  let running: NbdServer | undefined;
  try {
    // A qemu-nbd has one export.
    const files = blankExports(join(m.top, 'exports'), server === 'qemu-nbd' ? 1 : 3);
    running = await NbdServer.start(m, server, server === 'qemu-nbd' ? files[0]! : join(m.top, 'exports'));
    const { address, word } = running;
    await inChild(m, { kind: 'nbd', top: m.top, address, word, files, ...plan }, plan.timeoutMs);
  } finally {
    await clearAway(
      async () => running?.kill(),
      () => m.cleanup(),
    );
  }
}

async function inChild(m: Mounted, task: OrderTask, timeoutMs: number): Promise<void> {
  const words = ['--mount', '--propagation', 'private', process.execPath, CHILD, JSON.stringify(task)];
  const child = m.spawn('unshare', words, { timeoutMs });
  const outcome = await child.done;
  if (outcome.stdout !== '') console.log(outcome.stdout.trimEnd());
  if (outcome.status === 0) return;
  const how = outcome.timedOut ? `not done within ${timeoutMs / 1000} s` : `status ${outcome.status ?? outcome.signal}`;
  throw new Error(`seed ${task.seed}, ${how}: ${tail(outcome.stderr, 8000)}`);
}

/** Each of these, whatever becomes of those before; then the first failure. */
async function clearAway(...steps: (() => Promise<unknown>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) await step().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}
