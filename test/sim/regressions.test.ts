/** What the simulator has found in the product, each with what shows it. */
import assert from 'node:assert/strict';
import { AREA_START } from '../../src/slink/stage-format.js';
import { checkSite, openSiteCopy } from '../support/sim-checks.js';
import { Scenario, befallEach } from '../support/sim-every.js';
import { LOG_PATH } from '../support/sim-host.js';
import { Rng } from '../support/sim-random.js';
import { failureText, runSeed } from '../support/sim-seed.js';

describe('found by the simulator', function () {
  this.timeout(60_000);

  /**
   * A power cut soon after a site was made took the marks (extended attributes) of its images, which no fdatasync
   * need make durable; the site was refused for ever.
   */
  it('a site opens after a death that took the attributes of its new images', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const { run } = new Scenario(seed);
      run.restart();
      for (let i = 0; i < 12; i++) run.daemon.step('shipper1');
      assert.ok(run.host.site(1).made);
      checkSite(run.host, 1, new Rng(seed), 'crash');
      run.host.end();
    }
  });

  /**
   * Requests that were dropped for want of room are sent again with all others, in any order: an older one took back
   * what the link had been told is wanted of it, and a newer one waited beyond every timeout.
   */
  it('nobody waits for a link beyond its timeout because an older request came again', async () => {
    const result = await runSeed({ seed: 16, steps: 1200, policies: true });
    assert.ok(result.ok, result.ok ? '' : failureText(result));
  });

  /**
   * After a daemon's death a record could be durable, applied and released before its request was sent again: it
   * left the window, and the request was not recognised and became a second record.
   */
  for (const seed of [12, 47])
    it(`a request that is sent again does not become a second record (seed ${seed})`, async () => {
      const result = await runSeed({ seed, steps: 1200 });
      assert.ok(result.ok, result.ok ? '' : failureText(result));
    });

  /** One batch that grew a device several times, as a site gets it that was away, found its image too large for the first. */
  it('a site that was cut off takes several resizes of a device at once', () => {
    assert.ok(befallEach('cut', 1000, 161) > 0);
  });

  /**
   * Behind a clean end and until the second checkpoint, one superblock says that the log was closed, the other that it goes
   * on: where the newer one was damaged, what had been flushed since was passed over.
   */
  it('a log whose newest superblock is damaged does not end where it was once closed', () => {
    const { run } = new Scenario(3);
    const { host } = run;
    run.restart();
    host.client.now('write', { at: 8, count: 8 });
    run.reopen();
    host.client.now('write', { at: 16, count: 8 });
    host.client.now('flush');
    for (let i = 0; i < 8; i++) {
      run.daemon.step('committer');
      host.clock.advance(1);
    }
    assert.equal(host.client.flushed, host.history.tail);
    host.killMachine({ style: 'none' });
    const newest = host.local.find(LOG_PATH)!;
    const serials = [0, 4096].map((at) => Number(newest.content().readBigUInt64LE(at + 24)));
    newest.rot(serials[0]! > serials[1]! ? 100 : 4196, 3);
    run.restart();
    run.settle();
    host.end();
  });

  /** A batch of a stage that had been confirmed was damaged: its site seemed to end before it, with images beyond. */
  it('a site whose stage is damaged before its end is refused', () => {
    const scenario = new Scenario(5);
    const { run } = scenario;
    run.restart();
    for (let i = 0; i < 6; i++) {
      scenario.write(2, 16);
      host(run).client.now('flush');
      scenario.pump(6);
    }
    const disk = host(run).site(1).disk.settledImage();
    disk.find('/site1/group/reptool.stage')!.rot(AREA_START + 100, 1);
    for (let seed = 1; seed < 8; seed++) {
      const opened = openSiteCopy(host(run), 1, new Rng(seed), disk.settledImage());
      assert.match(typeof opened === 'string' ? opened : `open at ${opened.seq}`, /damaged \(EUCLEAN\)/);
    }
    host(run).end();
  });
});

function host(run: Scenario['run']): Scenario['run']['host'] {
  return run.host;
}
