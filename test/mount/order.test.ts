/** Order over all devices of a group, as its sites keep it while their disks, links and servers die. */
import { SERVERS } from '../support/nbd-servers.js';
import { runFolderOrder, runNbdOrder } from '../support/order-start.js';
import { seedOfRun } from '../support/proc.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

const CUTS = Number(process.env['REPTOOL_TEST_CUTS'] ?? 1000);
/** Of an NBD site, for each server. */
const LINE_CUTS = Math.ceil(CUTS / 25);

describe('order over three devices', () => {
  before(function () {
    needsFuse(this);
    needsTool(this, 'mkfifo', 'unshare');
  });

  describe('in a folder', function () {
    this.timeout(960_000);

    before(function () {
      needsLoop(this);
      needsTool(this, 'mkfs.ext4');
    });

    it(`! a site is a prefix of the group's order, and at least what it has confirmed, after each of ${CUTS} cuts`, () =>
      runFolderOrder({ seed: seedOfRun(), cuts: CUTS, lives: 5, timeoutMs: 900_000 }));
  });

  describe('on an NBD server', function () {
    this.timeout(330_000);

    before(function () {
      needsTool(this, ...SERVERS);
    });

    for (const server of SERVERS)
      it(`! ${server}: outside of its open window a site is a prefix, after each of ${LINE_CUTS} cuts`, () =>
        runNbdOrder(server, { seed: seedOfRun(), cuts: LINE_CUTS, lives: 2, timeoutMs: 300_000 }));
  });
});
