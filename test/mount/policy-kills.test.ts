/**
 * kill -9 under load with a sync site: no application sees an error while only daemons die, and when everything has died
 * at once, what was acknowledged is at the site, flushed or not.
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { realIo } from '../../src/base/io.js';
import { recoverFolder } from '../../src/slink/recover.js';
import { ACKED_BLOCK, fillAcked, type Acked } from '../support/acked-writer.js';
import { assertAllSame } from '../support/content.js';
import { Mounted } from '../support/mounted.js';
import { describeOutcome, must, seedOfRun, seeded, sleep, until, type Child } from '../support/proc.js';
import { needsFuse } from '../support/skip.js';
import { untilSite } from '../support/status.js';

const WRITER = join(import.meta.dirname, '../support/acked-writer.js');
const HANDS = 16;
const ROUNDS = 3;
const KILLS = Number(process.env['REPTOOL_TEST_SYNC_KILLS'] ?? 30);
/** A daemon lives so long, milliseconds. */
const LIFE: readonly [number, number] = [30, 300];

describe('kill -9 under a sync site', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
  });
  afterEach(() => mounted?.cleanup());

  async function writer(m: Mounted, first: number): Promise<Child> {
    const env = { ...process.env, UV_THREADPOOL_SIZE: String(HANDS) };
    const words = [WRITER, m.disk, String(HANDS), String(first)];
    const child = m.spawn(process.execPath, words, { env, timeoutMs: 100_000 });
    await until('the writer writes', () => child.stdout.includes('ready') || child.ended, 10_000, 5);
    return child;
  }

  async function stopped(child: Child): Promise<Acked> {
    child.process.kill('SIGTERM');
    const outcome = await child.done;
    assert.equal(outcome.status, 0, describeOutcome('the writer', outcome));
    return JSON.parse(outcome.stdout.slice(outcome.stdout.indexOf('{'))) as Acked;
  }

  /** A copy of the site, repaired as an operator would, holds all that was acknowledged and nothing that never was. */
  async function assertAtSite(m: Mounted, { acked, begun }: Acked): Promise<void> {
    const copy = join(m.top, 'copy');
    rmSync(copy, { recursive: true, force: true });
    await must('cp', ['-a', '--sparse=always', m.siteFolder, copy], { timeoutMs: 20_000 });
    const report = recoverFolder(realIo, copy, { write: true });
    assert.ok(report.written, JSON.stringify(report));
    const image = readFileSync(join(copy, 'disk0.img'));
    const wanted = Buffer.alloc(ACKED_BLOCK);
    for (let hand = 0; hand < HANDS; hand++) {
      const block = image.subarray(hand * ACKED_BLOCK, (hand + 1) * ACKED_BLOCK);
      const count = block.readUInt32LE(4);
      assert.ok(
        count >= acked[hand]! && count <= begun[hand]!,
        `hand ${hand}: write ${acked[hand]} was acknowledged, ${begun[hand]} begun, and the site has ${count}`,
      );
      fillAcked(wanted, hand, count);
      assert.ok(count === 0 || block.equals(wanted), `hand ${hand}: its block at the site is torn`);
    }
  }

  it(`! ${KILLS} daemons and ${ROUNDS} times everything: what was acknowledged is at the site`, async () => {
    const seed = seedOfRun();
    const random = seeded(seed);
    const m = (mounted = await Mounted.start({ size: '32M', logSize: '128M' }));
    const set = await m.reptool(['site', 'set', '1', '--policy', 'sync', '--mount', m.dir]);
    assert.equal(set.status, 0, describeOutcome('reptool site set', set));
    let first = 1;
    let writes = 0;
    for (let round = 1; round <= ROUNDS; round++) {
      if (round > 1) await m.mount();
      await untilSite(m, 'site 1 gates', (s) => s.state === 'connected' && s.mode === 'S');
      const child = await writer(m, first);
      let pid = 0;
      for (let i = 0; i < KILLS / ROUNDS; i++) {
        pid = await m.serving(pid);
        await sleep(LIFE[0] + random(LIFE[1] - LIFE[0]));
        await m.killDaemon();
      }
      await m.serving(pid);
      await sleep(random(LIFE[1]));
      const last = round === ROUNDS;
      if (!last) await m.killAll();
      const result = await stopped(child);
      const begun = Math.max(...result.begun);
      writes += result.acked.reduce((sum, count) => sum + count - first + 1, 0);
      first = begun + 1;
      if (last)
        assert.deepEqual(result.errors, [], `seed ${seed}: daemons died, and an application was told\n${m.daemonLog}`);
      await assertAtSite(m, result);
    }
    console.log(`      ${writes} writes acknowledged (seed ${seed})`);
    assert.ok(writes > 100 * ROUNDS, `only ${writes} writes`);
    await assertAllSame(m);
  });
});
