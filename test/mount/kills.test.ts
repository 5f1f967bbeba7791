/** kill -9 of the daemon under load: no error, no mismatch, a short pause, and all copies equal afterwards. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { assertAllSame } from '../support/content.js';
import { VERIFY, assertClean, fio, fioDone, fioStart, type FioArgs } from '../support/fio.js';
import { Prober, figures, killDaemons, type Kill } from '../support/kills.js';
import { assertFsck, attach, detach, makeExt4, mountAt, unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { must, percentile, seedOfRun, seeded, type Child } from '../support/proc.js';
import { writeRecords } from '../support/replog.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

const KILLS = Number(process.env['REPTOOL_TEST_KILLS'] ?? 100);
const MIB = 1024 * 1024;
/** Limits for the p99 of the pause. A daemon killed before the next spare is up costs the start of a process. */
const PAUSE_LIMIT_MS = 200;
const COLD_LIMIT_MS = 2000;

/**
 * Writes and verifies, over and over, 64 requests at a time. Small ones: a site gets little done in lives this
 * short, and a log that runs full would be another pause than the one that is measured.
 */
const LOAD: FioArgs = {
  ...VERIFY,
  rw: 'randwrite',
  bsrange: '512-2k',
  blockalign: 512,
  iodepth: 64,
  loops: 100_000,
  size: '32m',
};

/** The same in a file of ext4, which takes writes one at a time that are not whole blocks of its own. */
const LOAD_IN_FILES: FioArgs = { ...LOAD, bsrange: '4k-4k', blockalign: 4096, iodepth: 128 };

describe('kill -9 of the daemon', function () {
  this.timeout(150_000);
  let mounted: Mounted | undefined;
  /** Pauses of both runs: a p99 of fifty is their maximum, which one hiccup of the machine decides. */
  const ready: number[] = [];
  const cold: number[] = [];

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  /** Kills under the load of `child`, then ends it: it must have seen nothing. */
  async function killUnder(m: Mounted, load: Child, prober: Prober): Promise<void> {
    const seed = seedOfRun();
    const kills: Kill[] = await killDaemons(m, KILLS, seeded(seed));
    const pauses = await prober.pauses(kills);
    const of = (warm: boolean): number[] => pauses.filter((_, i) => kills[i]!.warm === warm);
    const waiting = percentile(
      kills.map((kill) => kill.inFlight),
      0.5,
    );
    console.log(`      ${kills.length} kills (seed ${seed}), ${waiting} requests in flight (median)`);
    console.log(`      pause with a spare ready (${of(true).length}): ${figures(of(true))}`);
    console.log(`      pause without one (${of(false).length}): ${figures(of(false))}`);
    ready.push(...of(true));
    cold.push(...of(false));
    load.process.kill('SIGINT');
    assertClean(await fioDone(load), `fio under ${kills.length} kills\n${m.daemonLog}`);
    assert.ok(waiting >= 50, `only ${waiting} requests in flight`);
  }

  it(`${KILLS} times under fio on the file`, async () => {
    const m = (mounted = await Mounted.start({ size: '128M', logSize: '8G' }));
    const load = fioStart(m, m.disk, LOAD, 140_000);
    const prober = await Prober.start(m, m.disk, 120 * MIB);
    await killUnder(m, load, prober);
    await assertAllSame(m);
  });

  it(`${KILLS} times under fio on ext4 over a loop device`, async function () {
    needsLoop(this);
    const m = (mounted = await Mounted.start({ size: '256M', logSize: '8G' }));
    const device = await attach(m.disk, '--direct-io=on');
    await makeExt4(device);
    const fs = join(m.top, 'fs');
    await mountAt(device, fs);
    const probed = join(fs, 'probed');
    await must('dd', ['if=/dev/zero', `of=${probed}`, 'bs=64k', 'count=1', 'conv=fsync'], { timeoutMs: 20_000 });
    const load = fioStart(m, join(fs, 'data'), LOAD_IN_FILES, 140_000);
    const prober = await Prober.start(m, probed, 0);
    await killUnder(m, load, prober);
    await unmountAt(fs);
    await assertFsck(device);
    await detach(device);
    await assertAllSame(m);
  });

  it(`a pause of less than ${PAUSE_LIMIT_MS} ms (p99)`, () => {
    assert.equal(ready.length + cold.length, 2 * KILLS, 'pauses of both runs above');
    console.log(`      with a spare ready (${ready.length}): ${figures(ready)}`);
    console.log(`      without one (${cold.length}): ${figures(cold)}`);
    assert.ok(percentile(ready, 0.99) < PAUSE_LIMIT_MS, 'p99 of the pause with a spare ready, see above');
    assert.ok(percentile(cold, 0.99) < COLD_LIMIT_MS, 'p99 of the pause without a spare, see above');
  });

  it('between publishing a record and answering it, 20 times: none twice, none lost', async () => {
    const writes = 8192;
    const m = (mounted = await Mounted.start({
      size: '64M',
      logSize: '128M',
      env: { REPTOOL_TEST_DIE: String(Math.floor(writes / 21)) },
    }));
    // A site that lags keeps all records in the log.
    await m.site('pause');
    const daemons = new Set<number>();
    const watch = setInterval(() => daemons.add(m.pids.daemon ?? 0), 5);
    // Every block once: a record that came twice would show up as an offset that does.
    const result = await fio(m, m.disk, { ...VERIFY, rw: 'randwrite', iodepth: 16, size: '32m' }, 90_000);
    clearInterval(watch);
    daemons.delete(0);
    assertClean(result, `fio under directed kills\n${m.daemonLog}`);
    await m.umount();
    const records = await writeRecords(m);
    const places = new Map<number, number>();
    for (const { offset } of records) places.set(offset, (places.get(offset) ?? 0) + 1);
    const twice = [...places].filter(([, times]) => times > 1);
    console.log(`      ${daemons.size - 1} deaths, ${records.length} write records for ${writes} writes`);
    assert.deepEqual(twice.slice(0, 5), [], 'offsets that were written twice');
    assert.equal(records.length, writes, 'write records in the log');
    assert.ok(daemons.size > 15, `only ${daemons.size - 1} deaths`);
    await m.mount({ env: { REPTOOL_TEST_DIE: '' } });
    await m.site('resume');
    await assertAllSame(m);
  });
});
