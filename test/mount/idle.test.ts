/** A group that nobody uses costs next to nothing, and still hears what it is told at once. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { Mounted } from '../support/mounted.js';
import { needsFuse } from '../support/skip.js';

/** CPU seconds that a process has used so far (user and system, hundredths as the kernel counts them). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

describe('an idle group', function () {
  this.timeout(60_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(() => mounted?.cleanup());

  it('uses next to no CPU', async () => {
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '16M' }));
    await m.drain();
    const { daemon, keeper, spare } = m.pids;
    assert.ok(daemon !== undefined && keeper !== undefined);
    // The spare loads its code in the first seconds; what is measured is rest.
    await pause(3000);
    const pids = [daemon, keeper, ...(spare === undefined ? [] : [spare])];
    const before = pids.map(cpuSeconds);
    await pause(4000);
    const used = pids.map((pid, i) => cpuSeconds(pid) - before[i]!);
    // Four seconds: a spinning thread would use whole seconds.
    assert.ok(Math.max(...used) < 0.4, `CPU seconds in 4 s: ${used.map((s) => s.toFixed(2)).join(', ')}`);
  });

  it('takes a tag at once', async () => {
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '16M' }));
    await m.drain();
    await pause(1500);
    const started = performance.now();
    const outcome = await m.reptool(['tag', 'now', '--mount', m.dir], { timeoutMs: 20_000 });
    const ms = performance.now() - started;
    // Most of it is the start of the command; a lost wake-up would cost a whole second more.
    assert.ok(ms < 3000, `${ms.toFixed(0)} ms`);
    assert.equal(outcome.status, 0, outcome.stderr);
  });
});
