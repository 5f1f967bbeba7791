/**
 * The order test over folder sites: three devices in one group, streams of numbered writes over all of them, and two
 * sites whose disks die and whose link is cut again and again. After each cut the site is looked at as it was left.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { realIo } from '../../src/base/io.js';
import { plainSite } from '../../src/control/config.js';
import { recoverFolder, type FolderReport } from '../../src/slink/recover.js';
import { CopyIo } from './copy-io.js';
import { PATIENCE_MS, OrderGroup, Turn } from './order-group.js';
import { Follower, assertHolds, type OrderShape, type Prefix } from './order-history.js';
import { CUTS, Volume, type Cut } from './order-volume.js';
import type { Mounted } from './mounted.js';
import { describeOutcome, must, sleep, until } from './proc.js';

/** Stream 0 is carried by three processes in turn; the others write by themselves, beside it. */
const SHAPE: OrderShape = { devices: 3, blocks: 384, streams: 3 };
/** Every so many looks at a site the command line repairs the copy, not the function behind it. */
const BY_COMMAND = 40;
/** A daemon is killed behind every so many cuts of other kinds (on the average): the next one costs a second of CPU. */
const KILL_EVERY = 10;
const PAUSED = 'the link is paused (not counted)';

/** A site and what is known of it. */
class OrderSite {
  readonly nr: number;
  readonly volume: Volume;
  readonly seen: Follower;
  /** What it held when it was looked at last. */
  prefix: Prefix = [];
  /** Held while it is away, or looked at. */
  readonly turn = new Turn();

  constructor(nr: number, volume: Volume, seen: Follower) {
    this.nr = nr;
    this.volume = volume;
    this.seen = seen;
  }

  get folder(): string {
    return join(this.volume.dir, 'site');
  }
}

export class OrderRun {
  readonly counts = new Map<string, number>();
  private readonly mounted: Mounted;
  private readonly ram: string;
  private readonly random: (below: number) => number;
  private readonly group: OrderGroup;
  private readonly sites: OrderSite[];
  private looks = 0;
  private over = false;

  /** `devices`: file systems for the sites. `ram`: a place in memory for the copies that are looked at. */
  constructor(mounted: Mounted, devices: readonly string[], ram: string, random: (below: number) => number) {
    this.random = random;
    this.mounted = mounted;
    this.ram = ram;
    this.group = new OrderGroup(mounted, SHAPE);
    this.sites = devices.map((device, i) => {
      const volume = new Volume(ram, `volume${i + 1}`, device);
      return new OrderSite(i + 1, volume, new Follower(this.group.history, `site ${i + 1}`));
    });
  }

  begin(): Promise<void> {
    const site = ({ nr, folder }: OrderSite) => ({ ...plainSite(nr, 'blockdev', folder), rpoMs: 5 * (nr - 1) });
    return this.group.make(this.sites.map(site));
  }

  /** One life of the group: `cuts` of them, then keeper and daemon die together, and the group is mounted again. */
  async live(cuts: number): Promise<void> {
    const { group, mounted: m } = this;
    await group.startWriters();
    this.over = false;
    const until = this.total + cuts;
    const enough = (): boolean => this.over || this.total >= until;
    const failed = (error: unknown): never => {
      this.over = true;
      throw error;
    };
    const loops = [...this.sites.map((site) => this.cutAgain(site, enough)), this.killAgain(enough)];
    const ends = await Promise.allSettled(loops.map((loop) => loop.catch(failed)));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    group.assertWriting();
    await m.killAll();
    await group.stopWriters();
    for (const site of this.sites) await this.look(site, site.folder, 0);
    this.count('keeper and daemon killed');
    await m.mount();
    const prefix = await group.lookAtDevices();
    for (const site of this.sites) assertHolds(prefix, site.prefix, `what site ${site.nr} has is on the local disk`);
    await group.message('resume');
  }

  /** Nothing is written any more: soon all copies are the same. */
  async end(): Promise<void> {
    const { group, mounted: m } = this;
    for (const { nr } of this.sites) {
      const words = ['wait', m.dir, '--site', String(nr), '--timeout', `${PATIENCE_MS / 1000}s`];
      const outcome = await m.reptool(words, { timeoutMs: PATIENCE_MS + 10_000 });
      assert.equal(outcome.status, 0, describeOutcome(`reptool wait --site ${nr}`, outcome));
    }
    await m.umount();
    for (const site of this.sites) {
      const prefix = await this.look(site, site.folder, 0);
      assert.deepEqual(prefix, group.localPrefix, `site ${site.nr} has confirmed everything`);
      await site.volume.unmount();
    }
  }

  async cleanup(): Promise<void> {
    this.over = true;
    await this.group.cleanup();
  }

  // --- what is done -----------------------------------------------------------------------------------------

  /** Cuts of all kinds so far. */
  get total(): number {
    return [...this.counts].reduce((sum, [what, n]) => sum + (what === PAUSED ? 0 : n), 0);
  }

  private count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  private async cutAgain(site: OrderSite, enough: () => boolean): Promise<void> {
    while (!enough()) {
      await sleep(this.random(60));
      this.group.assertWriting();
      await site.turn.take(() => (this.random(10) === 0 ? this.pauseAndLook(site) : this.cut(site)));
    }
  }

  /** The disk of a site dies under it; it is looked at as the cut left it, and given back. */
  private async cut(site: OrderSite): Promise<void> {
    const { group } = this;
    const kinds = Object.keys(CUTS) as Cut[];
    const how = kinds[this.random(kinds.length)]!;
    // A site that is not open would not notice.
    await group.untilSite(site.nr, 'is open', ({ state }) => state === 'connected' || state === 'behind');
    await sleep(this.random(30));
    site.volume.shutDown(how);
    const confirmed = await group.confirmed(site.nr);
    await site.volume.unmount(() => `\n${this.mounted.daemonLog}`);
    await site.volume.mount(async (dir) => {
      await this.look(site, join(dir, 'site'), confirmed);
    });
    this.count(`the disk of a site is ${how}`);
    await group.message('resume');
  }

  private async pauseAndLook(site: OrderSite): Promise<void> {
    const { group } = this;
    await group.message(`site ${site.nr} pause`);
    await group.untilSite(site.nr, 'is paused', ({ state }) => state === 'paused');
    await sleep(this.random(50));
    const confirmed = await group.confirmed(site.nr);
    await group.still('SIGCONT', () => this.look(site, site.folder, confirmed));
    this.count(PAUSED);
    await group.message(`site ${site.nr} resume`);
  }

  /** The daemon, and with it every shipper, is stopped in whatever it does; then a site is looked at. */
  private async killAgain(enough: () => boolean): Promise<void> {
    const { group } = this;
    while (!enough()) {
      const at = this.total + 1 + this.random(2 * KILL_EVERY - 1);
      await until('it is time for a kill', () => enough() || this.total >= at, 600_000, 5);
      if (enough()) return;
      const site = this.sites[this.random(this.sites.length)]!;
      await site.turn.take(async () => {
        const confirmed = await group.confirmed(site.nr);
        await group.still('SIGKILL', () => this.look(site, site.folder, confirmed));
        this.count('the daemon is killed');
      });
    }
  }

  // --- what is looked at ------------------------------------------------------------------------------------

  /** A copy of a site's folder, repaired: a prefix, and at least what it has confirmed. */
  private async look(site: OrderSite, folder: string, confirmed: number): Promise<Prefix> {
    const { group } = this;
    const [report, images] =
      this.looks++ % BY_COMMAND === 0 ? await this.repairByCommand(site, folder) : this.repair(folder);
    for (const { name, state } of report.images) assert.equal(state, 'ok', `${name} of site ${site.nr}`);
    const prefix = site.seen.look(images);
    assert.ok(
      report.seq >= confirmed,
      `site ${site.nr} ends at record ${report.seq}, and status said that it has confirmed all below ${confirmed}`,
    );
    group.assertCounted(`site ${site.nr}`, report.seq, prefix);
    assertHolds(prefix, site.prefix, `site ${site.nr}`);
    return (site.prefix = prefix);
  }

  private repair(folder: string): [FolderReport, Buffer[]] {
    const io = new CopyIo();
    const report = recoverFolder(io, folder, { write: true });
    return [report, report.images.map(({ file }) => io.images.get(file)!)];
  }

  private async repairByCommand(site: OrderSite, folder: string): Promise<[FolderReport, Buffer[]]> {
    const copy = join(this.ram, `copy${site.nr}`);
    fs.rmSync(copy, { recursive: true, force: true });
    await must('cp', ['-a', '--sparse=always', folder, copy], { timeoutMs: PATIENCE_MS });
    const report = recoverFolder(realIo, copy, { write: false });
    const outcome = await this.mounted.reptool(['site', 'recover', copy], { timeoutMs: PATIENCE_MS });
    assert.equal(outcome.status, 0, describeOutcome('reptool site recover', outcome));
    return [report, this.group.images((i) => join(copy, `disk${i}.img`))];
  }
}
