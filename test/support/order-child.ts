/**
 * An order test in a process of its own, and in a mount namespace of its own: what it mounts nobody else can hold, and
 * it all goes when its last process does, however that ends.
 *
 *   node order-child.js '{"top": …, "seed": …, "cuts": …, "lives": …, …}'      (OrderTask)
 */
import { Mounted } from './mounted.js';
import { NbdOrderRun, type NbdOrderTask } from './order-nbd.js';
import { OrderRun } from './order-run.js';
import { seeded } from './proc.js';

export type OrderTask = { top: string; seed: number; cuts: number; lives: number } & (
  { kind: 'folder'; devices: readonly string[]; ram: string } | ({ kind: 'nbd' } & NbdOrderTask)
);

const task = JSON.parse(process.argv[2]!) as OrderTask;
const mounted = new Mounted({}, task.top);
const random = seeded(task.seed);
const run =
  task.kind === 'folder'
    ? new OrderRun(mounted, task.devices, task.ram, random)
    : new NbdOrderRun(mounted, task, random);
const began = performance.now();
try {
  await run.begin();
  for (let life = 1; life <= task.lives; life++) await run.live(Math.ceil((task.cuts * life) / task.lives) - run.total);
  await run.end();
} catch (error) {
  process.exitCode = 1;
  console.error(error);
} finally {
  const seconds = (performance.now() - began) / 1000;
  const rate = (run.total / seconds).toFixed(1);
  console.log(`      seed ${task.seed}: ${run.total} cuts in ${seconds.toFixed(0)} s, ${rate} per second`);
  for (const [what, n] of [...run.counts].sort()) console.log(`      ${String(n).padStart(6)}  ${what}`);
  await run.cleanup();
}
// A call to the mount that never returns must not keep it.
process.exit();
