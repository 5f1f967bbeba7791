/** What the simulator has found in the product, each with what shows it. */
import assert from 'node:assert/strict';
import { checkSite } from '../support/sim-checks.js';
import { Scenario } from '../support/sim-every.js';
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
});
