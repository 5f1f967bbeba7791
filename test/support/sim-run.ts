/**
 * A run from a seed: clients write, machines step in random order, things go wrong, and after each death and at
 * random moments in between the promises are looked at. At the end everything is let heal, and then all must be
 * everywhere.
 */
import { ERRNO, RepError } from '../../src/base/errors.js';
import { SH } from '../../src/replog/shared.js';
import { W } from '../../src/replog/window.js';
import { Alone } from './sim-alone.js';
import { checkHost, checkIndexLoss, checkLocal, checkSite } from './sim-checks.js';
import type { SimDaemon } from './sim-daemon.js';
import { Coverage } from './sim-coverage.js';
import { SimFaults, randomDeath, type Death } from './sim-faults.js';
import { Broken } from './sim-broken.js';
import { SimHost, type HostShape } from './sim-host.js';
import { SimKill } from './sim-io.js';
import { collect } from './sim-memory.js';
import { Rng, hashText } from './sim-random.js';
import { Operator } from './sim-operator.js';
import { BitRot } from './sim-rot.js';
import { ResizeOperator } from './sim-resize.js';
import { randomShape } from './sim-shape.js';
import { LocalTrouble } from './sim-local.js';
import { SiteTroubles } from './sim-troubles.js';

export class SimRun {
  readonly host: SimHost;
  readonly coverage = new Coverage();
  readonly faults: SimFaults;
  readonly troubles: SiteTroubles;
  readonly rot: BitRot;
  /** Where slink 0 is detached when its images fail. */
  private readonly local: LocalTrouble | undefined;
  step = 0;
  private readonly rng: Rng;
  private readonly checks: Rng;
  private readonly operator: Operator | undefined;
  private readonly resizes: ResizeOperator | undefined;
  /** Somebody asks for everything to be sent, now and then. */
  private readonly asks: Rng | undefined;
  private weights: Record<string, number> = {};
  private moodUntil = 0;
  /** No request was made since the last daemon began. */
  private early = false;
  private pace = 1;
  /** Everything goes wrong all the time, and passes soon. */
  private readonly rough: boolean;
  /** No dice of its own: no deaths while starting, no moods. */
  orderly = false;
  /** Some sites have no journal. */
  private readonly raw: boolean;
  private deaths = 0;
  private digest = 0;

  constructor(seed: number, shape?: HostShape, rough = false) {
    this.rough = rough;
    this.rng = new Rng(seed, 'run');
    this.checks = new Rng(seed, 'checks');
    this.host = new SimHost(seed, shape ?? randomShape(new Rng(seed, 'shape')));
    this.raw = this.host.shape.sites.some((site) => site.raw !== undefined);
    if (this.host.shape.sites.some(({ rules }) => rules !== undefined))
      this.operator = new Operator(this.host, new Rng(seed, 'operator'), this.coverage);
    this.host.tellFaults(this.coverage.fault);
    if (this.host.shape.resize === true)
      this.resizes = new ResizeOperator(this.host, new Rng(seed, 'resizes'), this.coverage);
    this.faults = new SimFaults(new Rng(seed, 'faults'), this.coverage);
    this.faults.peek = () => this.peek();
    this.faults.peekRate = 1 / 300;
    this.troubles = new SiteTroubles(this.host, new Rng(seed, 'sites'), this.coverage);
    this.faults.ofSites = this.troubles;
    this.troubles.rough = rough;
    if (this.operator !== undefined) this.operator.rough = rough;
    this.rot = new BitRot(this.host, new Rng(seed, 'rot'), this.coverage);
    if (this.host.shape.detach === true) {
      const local = (this.local = new LocalTrouble(new Rng(seed, 'local'), this.coverage));
      this.faults.ofSites = { decide: (facts) => local.decide(facts) ?? this.troubles.decide(facts) };
      this.host.detached = (nr) => this.coverage.hit(nr === 0 ? 'slink 0 attached' : 'slink 0 detached');
    }
    this.host.sawTornTail = () => this.coverage.hit('recovery cut a torn tail');
    this.host.seen = (what) => this.coverage.hit(what);
    if (this.host.deferrals.size > 0) this.asks = new Rng(seed, 'asks');
    this.host.degraded = (on) => this.coverage.hit(on ? 'link degraded' : 'link caught up again');
  }

  begin(): void {
    const { sites, client } = this.host.shape;
    this.coverage.hit(`shape: ${client.devices.length} devices`);
    this.coverage.hit(`shape: ${sites.length} sites`);
    this.host.create();
    this.host.world.faults = this.faults;
    this.restart();
  }

  get daemon(): SimDaemon {
    return this.host.daemon!;
  }

  // --- one step ------------------------------------------------------------------------------------------

  async next(): Promise<void> {
    this.step++;
    this.troubles.tick(this.step);
    this.rot.tick(this.step);
    this.local?.tick(this.step);
    if (this.step >= this.moodUntil) this.changeMood();
    const event = this.rng.weighted(this.rough ? ROUGH_EVENTS : EVENTS);
    if (this.rough && this.step % 16 === 0) this.healHost();
    try {
      this.operator?.maybe();
      this.resizes?.maybe();
      this.ask();
      this.removeSpoilt();
      this.rot.maybe(this.step);
      if (event === 'machine') this.machine();
      else this[event]();
      if (this.host.shape.resync === true) this.host.dirt.look(this.checks);
    } catch (error) {
      if (!(error instanceof SimKill)) throw error;
      this.died(error);
    }
    // A machine may have caught the kill: dead is dead.
    if (this.host.daemon?.io.dead === true) this.died(new SimKill('noticed later'));
    const { world, history } = this.host;
    this.digest = hashText(`${this.digest} ${event} ${world.calls} ${history.tail} ${this.host.client.flushed}`);
    if (this.deaths >= 64) {
      this.deaths = 0;
      await collect();
    }
  }

  get fingerprint(): string {
    return this.digest.toString(16);
  }

  /** Somebody waits for the sites, or begins to close the group, which nothing is put off for any more. */
  private ask(): void {
    const { asks } = this;
    if (asks === undefined || !asks.chance(ASK_RATE)) return;
    const { shared } = this.daemon;
    if (asks.chance(0.1)) shared.store(SH.CLOSING, 1);
    else shared.bump(SH.SYNC_ASK);
  }

  /** Somebody notices what no site could, and gives these sites up. */
  private removeSpoilt(): void {
    for (const { nr, spoilt } of this.host.configured) {
      if (!spoilt) continue;
      new Operator(this.host, this.rng, this.coverage).remove(nr);
      this.coverage.hit('raw site exchanged, and nothing could tell');
    }
  }

  private machine(): void {
    const { rng, host } = this;
    for (let n = rng.between(1, 8); n > 0; n--) {
      this.daemon.step(rng.weighted(this.weights));
      if (rng.chance(0.3)) host.clock.advance(rng.pick([0.05, 0.5, 2, 10]) * this.pace);
    }
  }

  /** Who runs often and who starves, and what goes wrong all the time, for a while. */
  private changeMood(): void {
    const { rng, faults, host } = this;
    const { client } = host;
    // Reigns that have hardly begun when the next death comes are where old batches show.
    const mood = this.early && rng.chance(0.3) ? 'quiet' : rng.weighted(MOODS);
    this.early = false;
    this.coverage.hit(`mood: ${mood}`);
    this.moodUntil = this.step + rng.between(30, mood === 'mixed' ? 300 : 100);
    this.weights = Object.fromEntries(this.daemon.names.map((name) => [name, rng.pick([0.02, 0.5, 1, 1, 4])]));
    this.weights['client'] = rng.pick([0, 1, 4, 16]);
    this.daemon.restless = rng.pick([0, 0.02, 0.2]);
    this.pace = rng.pick([0.1, 1, 20]);
    faults.shortRate = rng.chance(0.2) ? 0.02 : 0;
    client.temper = 'mixed';
    if (mood !== 'mixed' || !rng.chance(0.3)) this.healHost();
    switch (mood) {
      case 'mixed':
        return;
      case 'index dies':
      case 'sites away':
        client.temper = 'flood';
        for (const name of this.daemon.names) this.weights[name] = rng.pick([1, 4]);
        this.weights['client'] = 4;
        this.pace = 20;
        if (mood === 'index dies')
          faults.episode = {
            area: rng.pick(['INDEX:', 'REPLOG:SUPER']),
            kinds: ['index', 'write', 'sync'],
            errno: ERRNO.EIO,
            left: 1e6,
            rate: 1,
          };
        else this.troubles.allAway(this.moodUntil);
        return;
      case 'trickle':
        client.temper = 'trickle';
        this.weights['client'] = 1;
        this.weights['committer'] = 4;
        this.pace = 1;
        if (rng.chance(0.7)) this.armAt(rng.between(5, 60), 'machine');
        return;
      case 'quiet':
        this.weights['client'] = 0;
        this.weights['committer'] = 4;
        this.moodUntil = this.step + rng.between(5, 20);
        this.armAt(rng.between(10, 60), 'machine');
    }
  }

  private armAt(calls: number, death: Death): void {
    this.faults.kill ??= {
      at: this.host.world.calls + calls,
      when: this.rng.pick(['before', 'during', 'after']),
      death,
    };
  }

  /** The operator puts right what is wrong. */
  private heal(): void {
    this.local?.heal();
    this.rot.heal();
    this.healHost();
    this.troubles.healAll();
  }

  /** The same on the machine itself; the sites' troubles pass when they pass. */
  private healHost(): void {
    const { host, faults } = this;
    faults.episode = undefined;
    if (host.daemon === undefined) return;
    const { shared } = host.daemon;
    if (shared.load(SH.LOG_ERROR) !== 0) shared.bump(SH.LOG_RETRY);
    if (shared.load(SH.LOCAL_ERROR) !== 0) shared.bump(SH.LOCAL_RETRY);
  }

  private site(): void {
    const { host, checks } = this;
    for (const nr of host.sites.keys()) {
      const how = checks.chance(0.8) ? 'crash' : 'live';
      const found = checkSite(host, nr, checks, how);
      if (found !== undefined) this.coverage.hit(`check: site (${how}${found.staged > 0 ? ', stage replayed' : ''})`);
    }
  }

  private crashImage(): void {
    try {
      checkHost(this.host, this.checks);
    } catch (error) {
      if (!this.rot.explains(error)) throw error;
    }
    this.coverage.hit('check: host (crash image)');
  }

  /** In the middle of a call: what would be found, had everything died there? */
  private peek(): void {
    if (this.checks.chance(0.5)) this.crashImage();
    else this.site();
  }

  private trouble(): void {
    this.troubles.strike(this.step);
  }

  private alone(): void {
    if (this.host.sites.size === 0) return;
    const heal = (): void => {
      this.local?.heal();
      this.rot.heal();
      this.healHost();
    };
    const { rough } = this.faults;
    this.faults.rough = false;
    this.coverage.hit(new Alone(this.host, this.rng, heal, this.operator).check());
    this.faults.rough = rough;
  }

  private episode(): void {
    this.faults.episode = SimFaults.randomEpisode(this.rng, this.raw ? ['STAMP:', 'STAMP:'] : []);
  }

  private arm(): void {
    const { rng } = this;
    this.armAt(rng.between(1, rng.pick([3, 30])), randomDeath(rng, this.rough));
  }

  private wallBack(): void {
    this.host.clock.stepWall(-this.rng.between(1, 100_000_000));
    this.coverage.hit('wall clock set back');
    this.coverage.fault('wall clock set back');
  }

  private sleep(): void {
    this.host.clock.advance(this.rng.pick([100, 1000, 20_000]));
  }

  // --- deaths --------------------------------------------------------------------------------------------

  died(kill: SimKill): void {
    const { host, faults } = this;
    const death = faults.kill?.death ?? 'daemon';
    faults.kill = undefined;
    host.note(kill.message);
    this.coverage.hit(`death: ${death}`);
    this.deaths++;
    this.bury(death);
    this.site();
    if (this.raw && this.checks.chance(0.15)) this.troubles.exchangeUnseen(this.step);
    this.restart();
  }

  private bury(death: Death): void {
    const { host, rng } = this;
    if (death === 'daemon') return host.killDaemon();
    if (death === 'keeper') return host.killKeeper();
    const flipped = host.killMachine({ flips: rng.chance(0.2) ? 0.02 : 0 });
    if (flipped > 0) this.coverage.hit('bit flips in unsynced sectors', flipped);
  }

  /** Starts daemons until one lives. */
  restart(): void {
    const { host, faults, rng, coverage } = this;
    host.world.between = undefined;
    host.client.asks = true;
    faults.shortRate = 0;
    faults.rough = false;
    for (let tries = 0; ; tries++) {
      faults.episode = undefined;
      if (!this.orderly && tries < 4 && rng.chance(0.25)) {
        const death = randomDeath(rng, this.rough);
        faults.kill = {
          at: host.world.calls + rng.between(1, 80),
          when: rng.pick(['before', 'during', 'after']),
          death,
        };
      }
      coverage.hit(host.memory.window.ready ? 'start: adopts the window' : 'start: recovers the log');
      if (this.startOnce()) break;
      const death = faults.kill?.death ?? 'daemon';
      coverage.hit(`death: ${death}, while starting`);
      this.deaths++;
      faults.kill = undefined;
      this.bury(death);
    }
    this.moodUntil = 0;
    this.early = true;
    faults.rough = this.rough;
  }

  /** One that finds the local images broken and was not detached says so: the operator repairs them. */
  private startOnce(): boolean {
    const { host, coverage } = this;
    try {
      return host.start();
    } catch (error) {
      if (this.rot.explains(error)) {
        this.rot.heal();
        return this.startOnce();
      }
      if (!(error instanceof RepError) || this.local === undefined) throw error;
      host.note(`refused: ${error.message}`);
      coverage.hit('start: refused, as the local images fail');
      this.local.heal();
      return host.start();
    }
  }

  /** Closes cleanly and opens again: nothing is lost, no reign begins. */
  reopen(): void {
    this.settle();
    this.closeClean();
    this.coverage.hit('clean close');
    if (this.host.shape.resync === true && this.rng.chance(0.5)) {
      this.host.store.lose(this.rng);
      this.host.indexGone = true;
    }
    this.restart();
  }

  private closeClean(): void {
    const { host } = this;
    try {
      this.daemon.checkpointer.closeClean();
    } catch (error) {
      // Main hears now of a sync that had failed under the committer; it is told once.
      if (!(error instanceof RepError)) throw error;
      host.note(`closing: ${error.message}`);
      this.daemon.checkpointer.closeClean();
    }
    this.calm();
    // What is closed cleanly is on the disk, and needs neither window nor page cache.
    host.killMachine({ style: 'none' });
    host.closed = true;
    host.client.flushed = host.history.tail;
  }

  /** Everything heals and nobody writes: soon all is durable, applied and confirmed everywhere. */
  settle(): void {
    const { client } = this.host;
    client.asks = false;
    try {
      this.calm();
      this.settleAll();
    } finally {
      client.asks = true;
    }
  }

  private settleAll(): void {
    const { host, rng } = this;
    const { names } = this.daemon;
    const machines = names.filter((name) => name !== 'client');
    for (let i = 0; i < 40_000; i++) {
      if (i % 64 === 0) this.heal();
      this.removeSpoilt();
      this.daemon.step('drain');
      if (this.settled()) return this.checkSettled();
      this.daemon.step(rng.pick(machines));
      host.clock.advance(rng.pick([0.5, 5, 50]));
      if (i % 500 === 499) host.clock.advance(20_000);
    }
    throw new Broken(`everything was healed, and still it does not settle: ${this.state()}`);
  }

  /** Nothing new goes wrong; where all is scripted, the one kill stays armed. */
  private calm(): void {
    const { kill } = this.faults;
    this.faults.clear();
    if (this.orderly) this.faults.kill = kill;
  }

  private state(): string {
    const { host, daemon } = this;
    const sites = [...daemon.shippers].map(([nr, s]) => {
      const { degraded, rules } = host.policies.link(nr);
      return `site ${nr} ${s.state} at ${s.cursor.seq} (${s.reason})${degraded ? ', degraded' : ''} ${JSON.stringify(rules)}`;
    });
    const { committer } = daemon;
    return [
      `tail ${daemon.tail}, written ${committer.written}, durable ${committer.durable}, applied ${daemon.applied}`,
      `images synced ${daemon.applier.synced.seq}, log error ${daemon.shared.load(SH.LOG_ERROR)}`,
      `reads from ${daemon.source}, away ${daemon.window.load(W.AWAY)}, ${daemon.detach?.reason}`,
      `local error ${daemon.shared.load(SH.LOCAL_ERROR)}, unanswered: ${host.client.unanswered}`,
      ...sites,
    ].join('; ');
  }

  private settled(): boolean {
    const { host, daemon } = this;
    const { tail } = host.history;
    return (
      host.client.outstanding === 0 &&
      daemon.committer.durable === tail &&
      daemon.applied === tail &&
      daemon.source === 0 &&
      daemon.applier.synced.seq === tail &&
      [...host.policies.links.values()].every((link) => link.gone || (!link.degraded && !link.out)) &&
      [...daemon.shippers.values()].every((shipper) => shipper.cursor.seq === tail)
    );
  }

  private checkSettled(): void {
    const { host, checks } = this;
    checkLocal(host, host.local.settledImage(), host.history.tail);
    for (const nr of host.sites.keys()) {
      const found = checkSite(host, nr, checks, 'crash');
      if (found?.seq !== host.history.tail && !host.site(nr).removed)
        throw new Broken(
          `site ${nr} has everything confirmed, and after its death it reaches ${found?.seq}, not ${host.history.tail}`,
        );
    }
    this.coverage.hit('check: all settled');
  }

  /** The end of a run: all heals, all is everywhere; then the index is lost or set back, which must be noticed. */
  end(): void {
    try {
      this.settle();
      checkHost(this.host, this.checks);
      this.loseIndex();
      this.closeClean();
      this.faults.clear();
      if (!this.host.start()) throw new Error('killed without a fault');
    } finally {
      this.host.end();
    }
  }

  private loseIndex(): void {
    const { host, checks } = this;
    for (let by = 1; by <= 4; by++) {
      const older = host.store.copy();
      if (!older.rollBack(by)) break;
      checkIndexLoss(host, older);
      this.coverage.hit('check: index set back');
      this.coverage.fault('index set back');
    }
    const lost = host.store.copy();
    lost.lose(checks);
    checkIndexLoss(host, lost);
    this.coverage.hit('check: index lost');
    this.coverage.fault('index lost');
  }
}

/** Chance of each step that somebody waits for the sites. */
const ASK_RATE = 1 / 100;

const MOODS = { mixed: 60, trickle: 15, quiet: 3, 'index dies': 11, 'sites away': 11 } as const;

type Event =
  ('machine' | 'site' | 'crashImage' | 'trouble' | 'alone') | ('episode' | 'arm' | 'wallBack' | 'sleep' | 'reopen');

const EVENTS: Record<Event, number> = {
  machine: 900,
  site: 6,
  crashImage: 4,
  trouble: 8,
  alone: 3,
  episode: 3,
  arm: 6,
  wallBack: 2,
  sleep: 10,
  reopen: 1,
};

const ROUGH_EVENTS: Record<Event, number> = {
  ...EVENTS,
  ...{ machine: 700, trouble: 220, alone: 6, episode: 10, arm: 80, wallBack: 70, reopen: 0.2 },
};
