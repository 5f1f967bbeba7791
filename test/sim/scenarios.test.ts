import assert from 'node:assert/strict';
import { siteImage } from '../support/sim-site.js';
import { Scenario } from '../support/sim-every.js';
import { LOG_PATH } from '../support/sim-host.js';
import { RepError } from '../../src/base/errors.js';
import { DATA_START } from '../../src/replog/format.js';

/** A group that runs, with everything written so far on its one site and in its images. */
function running(seed = 1): Scenario {
  const scenario = new Scenario(seed);
  scenario.run.restart();
  more(scenario);
  return scenario;
}

function more(scenario: Scenario): void {
  scenario.write(8, 32);
  scenario.run.host.client.now('flush');
  scenario.run.settle();
  scenario.rest(1500);
}

/** A site's disk is taken away, changed, and put back. */
function exchange(scenario: Scenario, change: () => void): string {
  const { run } = scenario;
  const disk = run.host.site(1).disk;
  disk.unreachable = true;
  scenario.rest(3000);
  change();
  disk.unreachable = false;
  disk.life++;
  for (let i = 0; i < 4; i++) scenario.rest(3000);
  const shipper = run.daemon.shippers.get(1)!;
  return `${shipper.state}: ${shipper.reason}`;
}

describe('what an operator or a disk may do', () => {
  it('a site that was set back as a whole is not taken for what it was', () => {
    const scenario = running();
    const disk = scenario.run.host.site(1).disk;
    const older = disk.settledImage();
    more(scenario);
    assert.match(
      exchange(scenario, () => disk.restore(older)),
      /^failed: .*rolled back/,
    );
    scenario.run.host.end();
  });

  it('an image of a site that was set back or exchanged is noticed', () => {
    for (const device of [0, 1]) {
      const scenario = running(device + 2);
      const disk = scenario.run.host.site(1).disk;
      const older = disk.settledImage();
      more(scenario);
      const path = siteImage(1, device);
      assert.match(
        exchange(scenario, () => disk.restore(older, [path])),
        /^failed: .*disk\d\.img/,
      );
      scenario.run.host.end();
    }
  });

  it('a site whose folder is empty has failed, and is not made anew', () => {
    const scenario = running();
    const disk = scenario.run.host.site(1).disk;
    const kept = disk.settledImage();
    const gone = (): void => {
      for (const [path] of [...disk.files()]) disk.unlink(path);
    };
    assert.match(exchange(scenario, gone), /^failed: .*is it mounted/);
    assert.match(
      exchange(scenario, () => disk.restore(kept)),
      /^connected/,
    );
    scenario.run.settle();
    scenario.run.host.end();
  });

  it('a log that is damaged before its durable point is not opened, and says where', () => {
    const scenario = running();
    const { host } = scenario.run;
    // Not on the images and not in the checkpoint yet, but durable; and a later batch says so.
    for (let k = 0; k < 2; k++) {
      scenario.write(4, 8);
      host.client.now('flush');
      for (let i = 0; i < 6; i++) {
        scenario.run.daemon.step('committer');
        host.clock.advance(1);
      }
    }
    assert.equal(host.client.flushed, host.history.tail);
    const { ring } = scenario.run.daemon.log;
    const at = DATA_START + (scenario.run.daemon.log.super.checkpoint.pos % ring);
    host.killMachine({ style: 'none' });
    host.local.find(LOG_PATH)!.damage(at + 100, Buffer.from([0xff, 0xff, 0xff]));
    assert.throws(
      () => host.start(),
      (error) =>
        error instanceof RepError && /record \d+ at byte \d+ is damaged, before the durable point/.test(error.message),
    );
    host.end();
  });
});
