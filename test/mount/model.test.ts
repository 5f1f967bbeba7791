/** Random operations on the device file against a model; see support/model-run for the operations. */
import { join } from 'node:path';
import assert from 'node:assert/strict';
import { assertSame } from '../support/content.js';
import { Mounted } from '../support/mounted.js';
import { describeOutcome, seedOfRun, sleep } from '../support/proc.js';
import { needsFuse } from '../support/skip.js';
import { TRANSPORTS, itUnlessExcused } from '../support/transports.js';

const WORKER = join(import.meta.dirname, '../support/model-run.js');

for (const transport of TRANSPORTS)
  describe(`device file against a model, ${transport}`, function () {
    this.timeout(150_000);
    let mounted: Mounted | undefined;

    before(function () {
      needsFuse(this);
    });
    afterEach(() => mounted?.cleanup());

    async function check(operations: number, meanwhile: (m: Mounted, done: () => boolean) => Promise<void>) {
      const seed = seedOfRun();
      console.log(`      seed ${seed} (REPTOOL_SEED=${seed} repeats it)`);
      const m = (mounted = await Mounted.start({ size: '32M', logSize: '64M', transport }));
      const expected = join(m.top, 'expected.img');
      const words = [WORKER, m.disk, String(seed), String(operations), expected];
      if (transport === 'fuse-native') words.push('no-fallocate');
      const child = m.spawn(process.execPath, words, { timeoutMs: 90_000 });
      await meanwhile(m, () => child.ended);
      const outcome = await child.done;
      assert.equal(outcome.status, 0, `${describeOutcome(`seed ${seed}`, outcome)}\n${m.daemonLog}`);
      console.log(`      ${outcome.stdout.trim()}`);
      await m.drain();
      await m.umount();
      await assertSame(m.image, expected, `seed ${seed}: local image`);
      await assertSame(m.siteImage, expected, `seed ${seed}: image of site 1`);
      await m.mount();
      await assertSame(m.disk, expected, `seed ${seed}: device after a remount`);
      await m.umount();
    }

    it('answers every operation as the model does, and so do both images', async () => {
      await check(4000, async () => {});
    });

    itUnlessExcused(transport, 'kill', 'does so while the daemon is killed all the time', async function () {
      let kills = 0;
      await check(3000, async (m, done) => {
        let last = 0;
        while (!done()) {
          await m.serving(last);
          await sleep(250);
          last = await m.killDaemon(last);
          kills++;
        }
      });
      console.log(`      ${kills} kills`);
      assert.ok(kills >= 3, `only ${kills} kills: the run was too short to say anything`);
    });

    it('does so while site 1 is paused and resumed', async () => {
      await check(2500, async (m, done) => {
        while (!done()) {
          await m.site('pause');
          await sleep(300);
          await m.site('resume');
          await sleep(100);
        }
      });
    });
  });
