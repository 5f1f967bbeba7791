/** An operator who changes the policies of sites while the group is served, and helps those who wait. */
import { SH } from '../../src/replog/shared.js';
import type { LinkRules } from '../../src/slink/policy.js';
import type { Coverage } from './sim-coverage.js';
import type { SimHost } from './sim-host.js';
import { randomRules } from './sim-shape.js';
import type { Rng } from './sim-random.js';

/** Chance of each step that something is changed. */
const RATE = 1 / 120;
const ROUGH_RATE = 1 / 5;

export class Operator {
  private readonly host: SimHost;
  private readonly rng: Rng;
  private readonly coverage: Coverage;
  rough = false;

  constructor(host: SimHost, rng: Rng, coverage: Coverage) {
    this.host = host;
    this.rng = rng;
    this.coverage = coverage;
  }

  maybe(): void {
    const { rng, host } = this;
    if (!rng.chance(this.rough ? ROUGH_RATE : RATE) || host.configured.length === 0) return;
    const { nr } = rng.pick(host.configured);
    const what = rng.weighted({ change: 10, failPending: this.rough ? 10 : 4, remove: this.rough ? 0.05 : 1 });
    if (what === 'change') this.change(nr, randomRules(rng));
    else if (what === 'remove') this.remove(nr);
    else this.failPending();
  }

  /** `reptool site set`. */
  change(nr: number, rules: LinkRules): void {
    const { host } = this;
    const daemon = host.daemon!;
    host.note(`site ${nr} is to be ${JSON.stringify(rules)}`);
    host.policies.link(nr).change(rules);
    daemon.policies.change(daemon.placeOf(nr), rules);
    daemon.shared.bump(SH.SYNC_ASK);
    this.coverage.hit('policy changed');
    this.coverage.fault('policy changed');
  }

  /** `reptool site fail-pending`. */
  failPending(): void {
    this.host.note('who waits for sites is to get an error');
    this.coverage.fault('fail-pending');
    this.host.daemon!.shared.bump(SH.FAIL_ASK);
    this.coverage.hit('fail-pending');
  }

  /** `reptool site remove`. */
  remove(nr: number): void {
    const { host } = this;
    host.note(`site ${nr} is removed`);
    host.site(nr).removed = true;
    host.policies.link(nr).remove();
    host.daemon!.removeSite(nr);
    this.coverage.hit('site removed');
  }
}
