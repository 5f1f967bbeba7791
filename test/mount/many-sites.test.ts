/** What a group with as many sites as there may be costs: memory at rest and under load, start, CPU, status. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { assertSame } from '../support/content.js';
import { VERIFY, assertClean, fioDone, fioStart } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { describeOutcome, until } from '../support/proc.js';
import { needsFuse, needsTool } from '../support/skip.js';

const MIB = 1024 * 1024;

const SITES = 64;
/** A stage takes 128 MiB of disk, so not all of them are folders. */
const FOLDERS = 8;

/** Bounds in MiB; reptool-mount(1) and ARCHITECTURE.md name what they are made of. A group of one site takes about 130 at rest. */
const REST = 110 + 10 * SITES;
/** Eight links may have large buffers at a time, 12 MiB each; a small batch of each other link is 2 MiB at most. */
const BUSY = REST + 8 * 12 + 2 * SITES;
/** The threads of at most four sites stand ready in it. */
const SPARE = 200;

/** At rest, a second: a look around of every thread each second would be 64. Of a core. */
const SLEEPS = 60;
const CPU = 0.1;

function pss(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]) / 1024;
}

/** CPU seconds and times a thread went to sleep by itself, of all threads of a process. */
function used(pid: number): { seconds: number; sleeps: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  let sleeps = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`))
    sleeps += Number(
      /^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'))![1],
    );
  return { seconds: (Number(fields[11]) + Number(fields[12])) / 100, sleeps };
}

describe('a group with 64 sites', function () {
  this.timeout(240_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  /** Files that get a copy of disk0 each, by the group's configuration. */
  async function group(): Promise<{ m: Mounted; copies: string[] }> {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '256M' }));
    await m.drain();
    await m.umount();
    const file = join(m.groupDir, 'group.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { sites: Record<string, unknown>[] };
    const like = config.sites[0]!;
    const copies: string[] = [];
    config.sites = Array.from({ length: SITES }, (_, i) => {
      const path = join(m.top, `site-${i}`);
      if (i < FOLDERS) {
        mkdirSync(path);
        copies.push(join(path, 'disk0.img'));
        return { ...like, nr: 2 + i, address: path, map: {} };
      }
      writeFileSync(path, '');
      truncateSync(path, 16 * MIB);
      copies.push(path);
      return { ...like, nr: 2 + i, address: '', map: { disk0: path } };
    });
    writeFileSync(file, JSON.stringify(config));
    return { m, copies };
  }

  async function confirmed(m: Mounted): Promise<void> {
    const outcome = await m.reptool(['wait', m.dir, '--timeout', '100s'], { timeoutMs: 110_000 });
    assert.equal(outcome.status, 0, describeOutcome('wait', outcome));
  }

  /** The daemon's memory once it is below `bound`, where it has to come by itself. */
  async function settled(m: Mounted, bound: number, what: string): Promise<number> {
    let last = 0;
    return until(
      `the daemon takes less than ${bound} MiB ${what}`,
      () => (last = pss(m.pids.daemon!)) < bound && last,
      30_000,
      250,
      () => `(${Math.round(last)} MiB)`,
    );
  }

  it('takes ten MiB a site at rest, a bounded sum under load, no CPU to speak of; its spare takes next to none', async () => {
    const { m, copies } = await group();
    const started = performance.now();
    await m.mount();
    const mountMs = performance.now() - started;
    await confirmed(m);
    const rest = await settled(m, REST, 'at rest');

    const spare = await m.pid('spare');
    // What has just confirmed comes to rest link by link: on a busy machine that takes a while.
    let cpu = 0;
    let sleeps = Infinity;
    for (let n = 0; n < 10 && (sleeps >= SLEEPS || cpu >= CPU); n++) {
      const before = used(m.pids.daemon!);
      await pause(4000);
      const after = used(m.pids.daemon!);
      cpu = (after.seconds - before.seconds) / 4;
      sleeps = (after.sleeps - before.sleeps) / 4;
    }
    const asked = performance.now();
    await m.control('status.json');
    const statusMs = performance.now() - asked;

    let busy = 0;
    const watch = setInterval(() => (busy = Math.max(busy, pss(m.pids.daemon!))), 100);
    try {
      const small = fioStart(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 8, size: '8m', loops: 2 });
      assertClean(await fioDone(small), '4k');
      const large = fioStart(m, m.disk, { ...VERIFY, rw: 'write', bs: '1m', iodepth: 4, size: '16m', loops: 8 });
      assertClean(await fioDone(large), '1m');
      await confirmed(m);
    } finally {
      clearInterval(watch);
    }
    const again = await settled(m, REST, 'after what it has written');
    const spareMib = pss(spare);
    console.log(
      `      at rest ${Math.round(rest)} MiB, at most ${Math.round(busy)}, at rest again ${Math.round(again)}, spare ` +
        `${Math.round(spareMib)}; mounted in ${Math.round(mountMs)} ms, idle CPU ${(cpu * 100).toFixed(1)} %, ` +
        `${Math.round(sleeps)} wake-ups a second, status.json in ${Math.round(statusMs)} ms`,
    );
    assert.ok(busy < BUSY, `at most ${BUSY} MiB while it writes, not ${Math.round(busy)}`);
    assert.ok(spareMib < SPARE, `the spare takes less than ${SPARE} MiB, not ${Math.round(spareMib)}`);
    assert.ok(sleeps < SLEEPS, `${sleeps} wake-ups a second`);
    assert.ok(cpu < CPU, `${cpu * 100} % of a core`);
    assert.ok(statusMs < 2000, `status.json takes ${statusMs} ms`);

    // What the next daemon makes of it: the spare had not loaded most of the links.
    const killed = await m.killDaemon();
    await m.serving(killed);
    await confirmed(m);
    await settled(m, REST, 'in the daemon that took over');
    await m.umount();
    for (const copy of copies) await assertSame(m.image, copy, copy);
  });
});
