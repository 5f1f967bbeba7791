/**
 * How soon a group serves again whose log holds much that a site lacks. Recovery reads from the checkpoint, the index tells
 * the rest: it must not grow with what is not shipped.
 */
import assert from 'node:assert/strict';
import { VERIFY, assertClean, fio } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { statusOf } from '../support/status.js';

/** 4 GiB of log with 1 GiB that the site lacks take a minute to make: by default an eighth of both. */
const FULL = process.env['REPTOOL_TEST_LARGE_LOG'] === '1';
const [LOG, LACKS] = FULL ? ['4G', '1G'] : ['512M', '128M'];
const READY_MS = 1000;

describe(`restart with a log of ${LOG} of which a site lacks ${LACKS}`, function () {
  this.timeout(300_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  it('! is ready in under a second, however it ended', async () => {
    const m = (mounted = await Mounted.start({ size: LACKS, logSize: LOG, timeoutMs: 200_000 }));
    await m.drain();
    await m.site('pause');
    const writes = { ...VERIFY, rw: 'randwrite', bs: '4k', iodepth: 32, do_verify: 0 };
    assertClean(await fio(m, m.disk, writes, 200_000), 'what the site lacks');
    const took: Record<string, number> = {};
    const note = async (what: string, how: string): Promise<void> => {
      const { recovery, log } = await statusOf(m);
      assert.equal(recovery.how, how);
      took[what] = recovery.milliseconds;
      const lacks = log.used;
      assert.ok(lacks > (FULL ? 1 : 0.125) * 1024 * 1024 * 1024, `${lacks} bytes of the log are in use`);
    };
    const timed = async (what: string, how: string, work: () => Promise<unknown>): Promise<void> => {
      const from = performance.now();
      await work();
      took[`${what}, the whole command`] = Math.round(performance.now() - from);
      await note(what, how);
    };
    await m.umount();
    await timed('unmounted', 'clean', () => m.mount());
    assertClean(await fio(m, m.disk, { ...writes, size: '64m', randseed: 3 }, 60_000), 'once more');
    await m.killAll();
    await timed('all killed', 'replayed', () => m.mount());
    await timed('daemon killed', 'adopted', async () => m.serving(await m.killDaemon()));
    console.log(`      ${Object.entries(took).map(([what, ms]) => `${what}: ${ms} ms`).join('; ')}`); // prettier-ignore
    for (const what of ['unmounted', 'all killed', 'daemon killed'])
      assert.ok(took[what]! < READY_MS, `${what}: ${took[what]} ms`);
  });
});
