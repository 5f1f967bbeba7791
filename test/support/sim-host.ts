/**
 * One simulated machine with a group on it, and its sites: disks, index, window, and at most one daemon. What survives which
 * death is decided here:
 *
 *   process killed      window, page caches, index stay; descriptors and everything in the daemon go
 *   machine dies        the window goes too, and of each disk what was not synced, in any subset
 *   a site's disk dies  the same for that disk only; its descriptors are stale, it may be away for a while
 */
import { LogCreator, planLog } from '../../src/replog/logcreate.js';
import { createImage } from '../../src/slink/images.js';
import { SimClient, type ClientShape } from './sim-client.js';
import { SimClock } from './sim-clock.js';
import type { FaultSink } from './sim-coverage.js';
import { SimDaemon } from './sim-daemon.js';
import { DeferModel } from './sim-defer.js';
import { writeFirstConfig, type Wish } from './sim-devices.js';
import { DirtModel } from './sim-dirt.js';
import { SimDisk, type CrashOptions } from './sim-disk.js';
import { SimIndexStore } from './sim-index.js';
import { SimIo, SimKill, SimWorld } from './sim-io.js';
import { WindowMemory } from './sim-memory.js';
import { History } from './sim-model.js';
import { ASYNC, LinkModel, PolicyModel } from './sim-policy.js';
import { Rng } from './sim-random.js';
import { plugInLegs } from './sim-raw.js';
import { SimSite, type SiteShape } from './sim-site.js';

export const LOG_PATH = '/local/replog';
export const GROUP = 'sim';

export interface HostShape {
  logBytes: number;
  windowRing: number;
  client: ClientShape;
  sites: readonly SiteShape[];
  /** Devices that come later, with their largest size; only where given the group has a group.json. */
  late?: readonly { nr: number; sectors: number }[];
  /** Slink 0 is detached where its images fail (`--on-local-error detach`). */
  detach?: boolean;
  /** Links may leave the ring, and are resynced. */
  resync?: boolean;
  /** An operator gives the log another size now and then. */
  resize?: boolean;
  /** Bytes after which the applier syncs the images; the product's default is far beyond these devices. */
  syncBytes: number;
}

export class SimHost {
  readonly shape: HostShape;
  readonly rng: Rng;
  readonly world: SimWorld;
  readonly clock = new SimClock();
  readonly local: SimDisk;
  readonly sites = new Map<number, SimSite>();
  readonly store: SimIndexStore;
  readonly memory: WindowMemory;
  readonly client: SimClient;
  readonly policies: PolicyModel;
  readonly dirt: DirtModel;
  /** The index was really lost, or set back: the next daemon has to notice. */
  indexGone = false;
  /** What shippers owe that may put their work off, by site. */
  readonly deferrals = new Map<number, DeferModel>();
  readonly logId: string;
  daemon: SimDaemon | undefined;
  /** Stands in the window of the product: the reign that its first record is to begin, if it has not yet. */
  pendingReign: { reign: number; id: Uint8Array } | undefined;
  /** The log was closed cleanly and not opened since. */
  closed = false;
  /** Changes of devices that an operator asked for and that are not done. */
  readonly wishes: Wish[] = [];
  /** Stands in group.json: the size that the log is to grow to. */
  resize: number | undefined;
  /** Told where reads come from: 0 = slink 0's images. */
  detached: (nr: number) => void = () => {};
  /** Told of each recovery that cut a torn tail. */
  sawTornTail: () => void = () => {};
  /** Told what a model has met. */
  seen: (what: string) => void = () => {};
  /** Told where writers need not wait for a link any more, or have to again. */
  degraded: (on: boolean) => void = () => {};

  constructor(seed: number, shape: HostShape) {
    this.shape = shape;
    this.rng = new Rng(seed, 'host');
    this.world = new SimWorld(new Rng(seed, 'world'));
    this.local = new SimDisk('local', 1, this.rng.chance(0.5));
    this.local.nowMs = () => this.clock.monoMs();
    this.world.mount('/local', this.local);
    for (const siteShape of shape.sites) {
      const site = new SimSite(siteShape, this.clock, this.rng.chance(0.5));
      this.sites.set(site.nr, site);
      this.world.mount(site.folder, site.disk);
      plugInLegs(site, shape.client.devices);
    }
    this.store = new SimIndexStore(new Rng(seed, 'index'));
    this.memory = WindowMemory.take(shape.windowRing);
    this.logId = this.bytes(16).toString('hex');
    const sizes = new Map([...shape.client.devices, ...(shape.late ?? [])].map(({ nr, sectors }) => [nr, sectors]));
    const history = new History(sizes);
    this.policies = new PolicyModel(history.firstSeq);
    for (const { nr, rules = ASYNC } of shape.sites)
      this.policies.links.set(nr, new LinkModel(nr, rules, this.clock, history.firstSeq));
    for (const { nr, rpoMs, defer } of shape.sites)
      if (defer !== undefined)
        this.deferrals.set(nr, new DeferModel(rpoMs, defer, this.clock, (what) => this.seen(what)));
    this.dirt = new DirtModel(this);
    this.client = new SimClient(new Rng(seed, 'client'), shape.client, history, this.policies);
  }

  /** `seen` hears of every fault that a disk or a call meets. */
  tellFaults(seen: FaultSink): void {
    this.world.seen = seen;
    for (const disk of [this.local, ...[...this.sites.values()].map((site) => site.disk)]) disk.seen = seen;
  }

  get history(): History {
    return this.client.history;
  }

  site(nr: number): SimSite {
    const site = this.sites.get(nr);
    if (site === undefined) throw new Error(`there is no site ${nr}`);
    return site;
  }

  /** The sites that the group has, those left out that were removed. */
  get configured(): SimSite[] {
    return [...this.sites.values()].filter((site) => !site.removed);
  }

  /** The site whose folder a path leads into. */
  siteAt(path: string): SimSite | undefined {
    for (const site of this.sites.values()) if (path.startsWith(site.folder)) return site;
    return undefined;
  }

  bytes(n: number): Buffer {
    return Buffer.from(Array.from({ length: n }, () => this.rng.below(256)));
  }

  note(text: string): void {
    this.world.note(`${this.clock.monoMs().toFixed(0)} ms  ${text}`);
  }

  imagePath(device: number): string {
    return `/local/disk${device}.img`;
  }

  /** Makes log and images, as `reptool mount` does the first time. */
  create(): void {
    const io = new SimIo(this.world);
    const index = this.store.open(io);
    const made = planLog(
      io,
      LOG_PATH,
      'create',
      {
        size: this.shape.logBytes,
        logId: this.logId,
        indexId: index.id,
        indexGeneration: index.generation,
        group: GROUP,
      },
      this.clock,
    );
    if (!(made instanceof LogCreator)) throw new Error('a log was there already');
    while (!made.done) made.step();
    for (const { nr, sectors } of this.shape.client.devices)
      createImage(io, 'APPLY', { nr, file: this.imagePath(nr), size: sectors * 512 }, {});
    this.local.syncDir('/local');
    if (this.shape.late !== undefined) writeFirstConfig(this, io);
  }

  /** Starts a daemon: it adopts the window where there is one, else recovers. False where it was killed on the way. */
  start(): boolean {
    const adopting = this.memory.window.ready;
    this.note(adopting ? 'a daemon adopts the window' : 'a daemon recovers the log');
    try {
      this.daemon = SimDaemon.start(this);
      return true;
    } catch (error) {
      if (!(error instanceof SimKill)) throw error;
      this.note(`${error.message} while starting`);
      this.client.detach();
      this.daemon = undefined;
      return false;
    }
  }

  /** The daemon's process is gone. */
  killDaemon(): void {
    this.note('the daemon is killed');
    if (this.daemon !== undefined) this.daemon.io.dead = true;
    this.daemon = undefined;
    this.client.detach();
  }

  /** Keeper and daemon are gone, and with them the window; the machine goes on, page caches and all. */
  killKeeper(): void {
    this.note('keeper and daemon are killed');
    this.killDaemon();
    this.client.machineDied();
    this.memory.wipe();
    this.pendingReign = undefined;
  }

  /** Power fails: processes, window and what was not synced are gone. */
  killMachine(options: CrashOptions = {}): number {
    this.note('the machine loses power');
    if (this.daemon !== undefined) this.daemon.io.dead = true;
    this.daemon = undefined;
    this.client.detach();
    this.client.machineDied();
    this.memory.wipe();
    this.pendingReign = undefined;
    let flipped = this.local.crash(this.rng, options);
    for (const { disk } of this.sites.values()) flipped += disk.crash(this.rng, options);
    return flipped;
  }

  /** A site's machine or disk dies: what was not synced is gone, and every descriptor is stale. */
  killSite(nr: number, options: CrashOptions = {}): void {
    this.note(`the disk of site ${nr} dies`);
    this.site(nr).disk.crash(this.rng, options);
  }

  /** Everything is let go; the mapping of the window is used by the next host. */
  end(): void {
    if (this.daemon !== undefined) this.daemon.io.dead = true;
    this.daemon = undefined;
    this.memory.giveBack();
  }
}
