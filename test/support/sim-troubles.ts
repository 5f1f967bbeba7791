/** What goes wrong with single sites: each has its own troubles, which come and pass by themselves. */
import { ERRNO } from '../../src/base/errors.js';
import type { Coverage } from './sim-coverage.js';
import type { SimHost } from './sim-host.js';
import type { CallFacts, IoKind, Verdict } from './sim-io.js';
import type { Rng } from './sim-random.js';
import { differs } from './sim-raw.js';
import type { SimSite } from './sim-site.js';

/**
 *   cut, killed   at one of its next calls its disk is gone; killed: what was not synced there is lost as well
 *   refusing      it can be reached and opens nothing
 *   erring        some of its calls fail
 *   slow          each call takes long, and everybody else goes on meanwhile
 *   exchanged     another site's disk stands in its place
 */
type Kind = 'cut' | 'killed' | 'refusing' | 'erring' | 'slow' | 'exchanged';

interface Trouble {
  kind: Kind;
  /** Step at which it has passed. */
  until: number;
  /** cut, killed: calls before it, and where in the call. */
  calls: number;
  when: 'before' | 'during' | 'after';
  /** refusing, erring. */
  kinds: readonly IoKind[];
  errno: number;
  rate: number;
}

/** Calls that a slow site is slow for: everybody's steps in each make a run long. */
const SLOW_CALLS = 40;

/** A trouble that is armed and never meets a call passes as well. */
const LONGEST = 800;

const USUAL = { cut: 3, killed: 3, refusing: 1, erring: 2, slow: 2, exchanged: 3, pause: 2, clock: 1 };
const ROUGH = { cut: 3, killed: 5, refusing: 2, erring: 2, slow: 1, exchanged: 12, pause: 12, clock: 6 };

export class SiteTroubles {
  private readonly host: SimHost;
  private readonly rng: Rng;
  private readonly coverage: Coverage;
  private readonly now = new Map<SimSite, Trouble>();
  /** They come often, and pass soon. */
  rough = false;

  constructor(host: SimHost, rng: Rng, coverage: Coverage) {
    this.host = host;
    this.rng = rng;
    this.coverage = coverage;
  }

  /** Something goes wrong with one site. */
  strike(step: number): void {
    const { rng, host } = this;
    const well = host.configured.filter((site) => !this.now.has(site));
    if (well.length === 0) return;
    const site = rng.pick(well);
    const event = rng.weighted(this.rough ? ROUGH : USUAL);
    const until = step + (this.rough ? rng.between(3, 60) : rng.between(50, LONGEST));
    if (event === 'pause') this.pause(site);
    else if (event === 'clock') this.setClock(site);
    else if (event === 'exchanged') this.exchange(site, well, until);
    else this.begin(site, { ...this.dice(event), until });
  }

  private dice(kind: Kind): Trouble {
    const { rng } = this;
    const refusing = kind === 'refusing';
    return {
      kind,
      until: 0,
      calls: rng.between(0, rng.pick([2, 8])),
      when: rng.pick(['before', 'during', 'after']),
      kinds: refusing
        ? ['open', 'facts']
        : rng.pick<readonly IoKind[]>([
            ['write'],
            ['sync'],
            ['write', 'sync', 'space'],
            ['read', 'open', 'name', 'attr'],
          ]),
      errno: rng.pick(refusing ? [ERRNO.EACCES, ERRNO.ENOENT, ERRNO.EIO] : [ERRNO.EIO, ERRNO.ENOSPC]),
      rate: refusing ? 1 : rng.pick([0.1, 0.5, 1]),
    };
  }

  private begin(site: SimSite, trouble: Trouble): void {
    this.host.note(`site ${site.nr} will be ${trouble.kind}`);
    this.now.set(site, trouble);
    this.coverage.hit(`site ${trouble.kind}`);
  }

  private pause(site: SimSite): void {
    if (site.paused) return this.resume(site);
    this.host.note(`site ${site.nr} is paused`);
    site.paused = true;
    this.host.daemon?.shippers.get(site.nr)?.pause();
    this.coverage.hit('site paused');
    this.coverage.fault('site paused');
  }

  private resume(site: SimSite): void {
    if (!site.paused) return;
    this.host.note(`site ${site.nr} is resumed`);
    site.paused = false;
    this.host.daemon?.shippers.get(site.nr)?.resume();
    this.coverage.hit('site resumed');
  }

  private setClock(site: SimSite): void {
    site.clock.skewUs = this.rng.between(-100_000_000, 100_000_000);
    this.coverage.hit('clock of a site set wrong');
    this.coverage.fault('clock of a site set wrong');
  }

  private exchange(site: SimSite, well: readonly SimSite[], until: number): void {
    const others = well.filter((other) => other !== site && other.made);
    if (others.length === 0 || !site.made) return;
    const other = this.rng.pick(others);
    // Mostly both have come equally far, and nothing could tell their disks from each other.
    const { local, history } = this.host;
    const same = (one: SimSite, its: SimSite): boolean =>
      one.shape.raw !== undefined && differs(local, history, one, its) === undefined;
    if ((same(site, other) || same(other, site)) && this.rng.chance(0.9)) return;
    this.host.note(`the disks of sites ${site.nr} and ${other.nr} are exchanged`);
    site.exchange(other);
    for (const one of [site, other]) this.now.set(one, { ...this.dice('exchanged'), until });
    this.coverage.hit('site exchanged');
    this.coverage.fault('disk of a site exchanged');
  }

  /** Two disks are exchanged while nobody has them open. */
  exchangeUnseen(step: number): void {
    const well = this.host.configured.filter((site) => !this.now.has(site));
    for (let tries = 0; tries < 4 && well.length > 0 && well.every((site) => site.exchanged === undefined); tries++)
      this.exchange(this.rng.pick(well), well, step + this.rng.between(50, LONGEST));
  }

  /** Every site is cut off, for so long. */
  allAway(until: number): void {
    for (const site of this.host.sites.values()) {
      if (this.now.has(site)) continue;
      this.begin(site, { ...this.dice('cut'), until });
      this.coverage.fault('link cut');
      site.disk.unreachable = true;
    }
  }

  /** What was to last until this step passes. */
  tick(step: number): void {
    for (const [site, { until }] of this.now) if (until <= step) this.heal(site);
  }

  private heal(site: SimSite): void {
    const trouble = this.now.get(site);
    if (trouble === undefined) return;
    this.now.delete(site);
    this.host.note(`site ${site.nr} is well again`);
    site.disk.unreachable = false;
    const other = site.exchanged;
    if (other === undefined) return;
    site.exchange(other);
    this.now.delete(other);
  }

  healAll(): void {
    for (const site of [...this.now.keys()]) this.heal(site);
    for (const site of this.host.sites.values()) this.resume(site);
  }

  /** What becomes of a call, where it is one of a site. */
  decide({ kind, path }: CallFacts): Verdict | undefined {
    if (this.now.size === 0) return undefined;
    const site = this.host.siteAt(path);
    const trouble = site === undefined ? undefined : this.now.get(site);
    if (trouble === undefined) return undefined;
    switch (trouble.kind) {
      case 'cut':
      case 'killed':
        return this.loseDisk(site!, trouble);
      case 'refusing':
      case 'erring':
        if (!trouble.kinds.includes(kind) || !this.rng.chance(trouble.rate)) return undefined;
        this.coverage.hit(`error at a call of a site (${trouble.kind})`);
        return { errno: trouble.errno };
      case 'slow':
        if (trouble.calls-- < -SLOW_CALLS) return undefined;
        this.coverage.hit('slow call of a site');
        this.coverage.fault('slow call of a site');
        for (let n = this.rng.between(1, 4); n > 0; n--) {
          this.host.clock.advance(this.rng.pick([1, 10, 50]));
          this.host.daemon?.others();
        }
        return undefined;
      case 'exchanged':
        return undefined;
    }
  }

  private loseDisk(site: SimSite, trouble: Trouble): Verdict | undefined {
    if (site.disk.unreachable || trouble.calls-- > 0) return undefined;
    const lose = (): void => {
      this.coverage.hit(`site ${trouble.kind} ${trouble.when} a call`);
      this.coverage.fault(trouble.kind === 'killed' ? 'disk of a site died' : 'link cut');
      if (trouble.kind === 'killed') this.host.killSite(site.nr, { flips: this.rng.chance(0.2) ? 0.02 : 0 });
      site.disk.unreachable = true;
    };
    if (trouble.when === 'before') {
      lose();
      return undefined;
    }
    return trouble.when === 'after' ? { after: lose } : { short: 0.05 + 0.9 * this.rng.real(), after: lose };
  }
}
