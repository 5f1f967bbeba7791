/** Order over all devices of a group, as its sites keep it while their disks and links die. */
import { OrderRun } from '../support/order-run.js';
import { seedOfRun, seeded } from '../support/proc.js';
import { itInSoak } from '../support/soak.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

const CUTS = Number(process.env['REPTOOL_TEST_CUTS'] ?? 1000);
const LIVES = 5;

describe('order over three devices', function () {
  this.timeout(600_000);
  let order: OrderRun | undefined;

  before(function () {
    needsFuse(this);
    needsLoop(this);
    needsTool(this, 'mkfs.ext4', 'mkfifo');
  });
  afterEach(() => order?.cleanup());

  itInSoak(
    `! a site is a prefix of the group's order, and at least what it has confirmed, after each of ${CUTS} cuts`,
    async () => {
      const seed = seedOfRun();
      const run = (order = new OrderRun(seeded(seed)));
      const began = performance.now();
      try {
        await run.begin();
        for (let life = 1; life <= LIVES; life++) await run.live(Math.ceil((CUTS * life) / LIVES) - run.total);
        await run.end();
      } finally {
        console.log(`      seed ${seed}: ${run.total} cuts in ${((performance.now() - began) / 1000).toFixed(0)} s`);
        for (const [what, n] of [...run.counts].sort()) console.log(`      ${String(n).padStart(6)}  ${what}`);
      }
    },
  );
});
