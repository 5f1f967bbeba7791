/** The third promise: a machine whose sites are all away goes on, without an error, while its log has room. */
import { SH } from '../../src/replog/shared.js';
import { LogSpace } from '../../src/replog/space.js';
import { Broken } from './sim-broken.js';
import type { SimDaemon } from './sim-daemon.js';
import type { SimHost } from './sim-host.js';
import type { Operator } from './sim-operator.js';
import { ASYNC, type LinkModel } from './sim-policy.js';
import type { Rng } from './sim-random.js';

const FULL = 'check: stands still, as its log is full';

/** What the data thread wants room for beside the largest write: its ragged ends. */
const EDGES = 2 * 4096;

export class Alone {
  private readonly host: SimHost;
  private readonly daemon: SimDaemon;
  private readonly rng: Rng;
  private readonly heal: () => void;
  private readonly operator: Operator | undefined;

  /** `heal`: the operator puts the machine right, not its sites; `operator`: lets go who waits for those. */
  constructor(host: SimHost, rng: Rng, heal: () => void, operator?: Operator) {
    this.host = host;
    this.daemon = host.daemon!;
    this.rng = rng;
    this.heal = heal;
    this.operator = operator;
  }

  /**
   * The sites are cut off, or their threads do not move at all; a write and a flush must be answered, and be on the
   * local images soon, unless the log is full or a site's policy says that they wait for it; then they are when an
   * operator lets them go. Says how it went.
   */
  check(): string {
    const { host, daemon, rng } = this;
    host.client.asks = false;
    this.warmUp();
    const cut = rng.chance(0.5) ? [...host.sites.values()].filter(({ disk }) => !disk.unreachable) : [];
    const local = ['client', 'committer', 'applier', 'main', ...(daemon.resizing === undefined ? [] : ['helper'])];
    const names = cut.length > 0 ? daemon.names : local;
    const { restless } = daemon;
    // What runs in between might be a thread of a site.
    if (cut.length === 0) daemon.restless = 0;
    for (const { disk } of cut) disk.unreachable = true;
    if (cut.length > 0) host.world.seen('link cut', cut.length);
    try {
      return this.goOn(names);
    } finally {
      for (const { disk } of cut) disk.unreachable = false;
      host.client.asks = true;
      daemon.restless = restless;
    }
  }

  private goOn(names: readonly string[]): string {
    const { counts } = this.host.client;
    const { failed } = counts;
    // Beyond every limit in records, where it may be one that should not count.
    for (let n = this.operator === undefined ? 1 : this.rng.pick([1, 25]); n > 0; n--) this.writeAndFlush();
    let went = this.pump(names, 2000);
    if (counts.failed > failed) throw new Broken('the sites are away, and the local disk gives errors');
    if (went) return 'check: goes on without its sites';
    if (!this.logHasRoom()) return this.full();
    const { holders } = this.host.policies;
    if (holders.length === 0)
      throw new Broken(`the sites are away, and the local disk stands still: ${this.host.client.unanswered}`);
    const how = this.letGo(holders);
    for (let tries = 0; !went && tries < 20; tries++) {
      if (how === 'fail-pending') this.operator!.failPending();
      went = this.pump(names, 200);
    }
    if (!went && this.logHasRoom())
      throw new Broken(`who waited for sites was let go (${how}), and still waits: ${this.host.client.unanswered}`);
    return went ? `check: let go (${how})` : FULL;
  }

  /** An operator does not want to wait for these any more. */
  private letGo(holders: readonly LinkModel[]): string {
    const how = this.rng.weighted({ 'fail-pending': 3, 'policy async': 3, removal: 1 });
    for (const { nr } of holders) {
      if (how === 'policy async') this.operator!.change(nr, ASYNC);
      if (how === 'removal') this.operator!.remove(nr);
    }
    return how;
  }

  /** Faults of the machine itself have passed and been told: a disk that failed may tell so more than once. */
  private warmUp(): void {
    const { client } = this.host;
    const { shared } = this.daemon;
    const broken = (): boolean => shared.load(SH.LOG_ERROR) !== 0 || shared.load(SH.LOCAL_ERROR) !== 0;
    for (let tries = 0; tries < 5; tries++) {
      this.heal();
      if (!broken()) this.writeAndFlush();
      const { failed } = client.counts;
      if (this.pump(this.daemon.names, 400) && !broken() && client.counts.failed === failed) return;
    }
  }

  private writeAndFlush(): void {
    const { host, rng } = this;
    host.client.now('write', { device: rng.pick(host.shape.client.devices).nr, at: rng.below(500), count: 8 });
    host.client.now('flush');
  }

  /** Lets these run until all is answered and applied; false where the rounds or the log's room end before. */
  private pump(names: readonly string[], rounds: number): boolean {
    const { host, daemon, rng } = this;
    for (let i = 1; host.client.outstanding > 0 || daemon.applied < daemon.tail; i++) {
      // A link that may be dropped is, in a moment.
      const patient = daemon.leaving !== undefined;
      if (i === rounds || (!patient && i % 50 === 0 && !this.logHasRoom())) return false;
      for (const name of names) daemon.step(name);
      host.clock.advance(rng.pick([0.5, 2, 10]));
    }
    return true;
  }

  /** Nobody may hold a full log but slink 0, and who is to. */
  private full(): string {
    const { leaving, checkpointer, policies } = this.daemon;
    const { nr } = checkpointer.holder();
    if (leaving === undefined || nr === 0) return FULL;
    const { rules } = this.host.policies.link(nr);
    if (!rules.stall && !policies.isSync(this.daemon.placeOf(nr)))
      throw new Broken(`the log is full, and site ${nr}, which may leave it, holds writers: ${leaving.verdict}`);
    return FULL;
  }

  private logHasRoom(): boolean {
    const { window, shared, log } = this.daemon;
    const most = this.host.shape.client.largest * 512 + EDGES;
    return new LogSpace(window, shared, log.segment).admits(most);
  }
}
