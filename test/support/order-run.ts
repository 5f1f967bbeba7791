/**
 * The order test: three devices in one group, streams of numbered writes over all of them, and two sites whose disks
 * die and whose link is cut again and again. After each cut the site is looked at as it was left.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { realIo } from '../../src/base/io.js';
import { MIB } from '../../src/base/units.js';
import { defaultConfig, plainDevice, plainSite } from '../../src/control/config.js';
import { createGroup } from '../../src/control/create.js';
import { unlockGroup } from '../../src/control/lock.js';
import type { SiteStatus } from '../../src/control/status.js';
import { recoverFolder } from '../../src/slink/recover.js';
import { Mounted } from './mounted.js';
import { BLOCK, Follower, OrderHistory, assertHolds, sumOf, type OrderShape, type Prefix } from './order-history.js';
import { CUTS, Volume, type Cut } from './order-volume.js';
import type { WriterTask } from './order-writer.js';
import { describeOutcome, must, sleep, until, type Child } from './proc.js';
import { statusOf, untilSite } from './status.js';

const WRITER = join(import.meta.dirname, 'order-writer.js');
/** Processes that write stream 0 in turn. */
const RING = 3;
/** Streams that write by themselves, beside it. */
const FREE = 2;
const SHAPE: OrderShape = { devices: 3, blocks: 768, streams: 1 + FREE };
/** A file system in memory: the sites' volumes, and the copies that are looked at. */
const RAM = 'ram';
/** Every so many looks at a site the command line repairs the copy, not the function behind it. */
const BY_COMMAND = 40;

/** What only one may do at a time; the others wait in order. */
class Turn {
  private last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.last.then(work);
    this.last = mine.catch(() => undefined);
    return mine;
  }
}

/** A site and what is known of it. */
class OrderSite {
  readonly nr: number;
  readonly volume: Volume;
  readonly seen: Follower;
  /** What it held when it was looked at last. */
  prefix: Prefix = [];
  /** Held while it is away, or looked at. */
  readonly turn = new Turn();

  constructor(nr: number, top: string, history: OrderHistory) {
    this.nr = nr;
    this.volume = new Volume(join(top, RAM), `volume${nr}`);
    this.seen = new Follower(history, `site ${nr}`);
  }

  get folder(): string {
    return join(this.volume.dir, 'site');
  }
}

export class OrderRun {
  readonly mounted: Mounted;
  readonly counts = new Map<string, number>();
  private readonly random: (below: number) => number;
  private readonly history: OrderHistory;
  private readonly local: Follower;
  private readonly sites: OrderSite[];
  private writers: Child[] = [];
  private life = 0;
  private looks = 0;
  private readonly daemonTurn = new Turn();
  /** The daemon that was killed last. */
  private killed = 0;
  /** Log records that are none of our writes: seq of a state less its writes, the same throughout a life. */
  private others: number | undefined;
  private over = false;

  constructor(random: (below: number) => number) {
    this.random = random;
    this.mounted = new Mounted();
    const { top } = this.mounted;
    fs.mkdirSync(join(top, 'times'));
    this.history = new OrderHistory(SHAPE, join(top, 'times'));
    this.local = new Follower(this.history, 'the local disk');
    this.sites = [1, 2].map((nr) => new OrderSite(nr, top, this.history));
  }

  /** A group of three devices with two sites on volumes of their own, mounted. */
  async begin(): Promise<void> {
    const { mounted: m } = this;
    // What the sites lose is decided by their file systems; in memory it does not wait for the machine's disk.
    const ram = join(m.top, RAM);
    fs.mkdirSync(ram);
    await must('mount', ['-t', 'tmpfs', '-o', 'size=700m', 'none', ram]);
    for (const { volume } of this.sites) await volume.make(224 * MIB);
    const config = defaultConfig(m.groupDir, randomBytes(16).toString('hex'));
    config.log.size = 48 * MIB;
    config.windowRing = 4 * MIB;
    config.devices = Array.from({ length: SHAPE.devices }, (_, nr) =>
      plainDevice(nr, `disk${nr}`, SHAPE.blocks * BLOCK, join(m.imageFolder, `disk${nr}`)),
    );
    config.sites = this.sites.map(({ nr, folder }) => ({ ...plainSite(nr, 'blockdev', folder), rpoMs: 5 * (nr - 1) }));
    unlockGroup(await createGroup(m.groupDir, config));
    await m.mount();
  }

  /** One life of the group: `cuts` of them, then keeper and daemon die together, and the group is mounted again. */
  async live(cuts: number): Promise<void> {
    const { mounted: m } = this;
    await this.startWriters();
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
    for (const writer of this.writers)
      if (writer.ended) throw new Error(`a writer has ended: ${writer.stderr}\n${m.daemonLog}`);
    await m.killAll();
    for (const writer of this.writers) await writer.stop('SIGKILL', 5000);
    for (const site of this.sites) await this.look(site, site.folder, 0);
    this.count('keeper and daemon killed');
    await m.mount();
    await this.lookAtDevices();
    await this.message('resume');
  }

  /** Nothing is written any more: soon all copies are the same. */
  async end(): Promise<void> {
    const { mounted: m } = this;
    for (const { nr } of this.sites) {
      const words = ['wait', m.dir, '--site', String(nr), '--timeout', '60s'];
      const outcome = await m.reptool(words, { timeoutMs: 70_000 });
      assert.equal(outcome.status, 0, describeOutcome(`reptool wait --site ${nr}`, outcome));
    }
    await m.umount();
    for (const site of this.sites) {
      const prefix = await this.look(site, site.folder, 0);
      assert.deepEqual(prefix, this.localPrefix, `site ${site.nr} has confirmed everything`);
      await site.volume.remove();
    }
  }

  async cleanup(): Promise<void> {
    this.over = true;
    this.history.close();
    try {
      for (const writer of this.writers) if (!writer.ended) await writer.stop('SIGKILL', 3000);
      if (this.mounted.isMounted) await this.mounted.killAll();
    } finally {
      // Their files lie on a file system that goes before the harness could find the loop devices by them.
      for (const { volume } of this.sites) await volume.takeAway();
      await this.mounted.cleanup();
    }
  }

  // --- what is done -----------------------------------------------------------------------------------------

  /** Cuts of all kinds so far. */
  get total(): number {
    return [...this.counts].reduce((sum, [what, n]) => sum + (NO_CUT.has(what) ? 0 : n), 0);
  }

  private count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  private localPrefix: Prefix = new Array<number>(SHAPE.streams).fill(0);

  private async startWriters(): Promise<void> {
    const { mounted: m, localPrefix } = this;
    this.life++;
    this.others = undefined;
    this.history.beginLife(this.life, localPrefix);
    const fifos = Array.from({ length: RING }, (_, i) => join(m.top, `ring${i}`));
    for (const fifo of fifos) fs.rmSync(fifo, { force: true });
    await must('mkfifo', fifos);
    const task = (stream: number, ring?: readonly [string, string]): WriterTask => ({
      dir: m.dir,
      times: join(m.top, 'times'),
      shape: SHAPE,
      stream,
      from: localPrefix[stream]! + 1,
      life: this.life,
      pace: stream === 0 ? 2 : 4,
      ...(ring === undefined ? {} : { ring }),
    });
    const tasks = fifos.map((fifo, i) => task(0, [fifo, fifos[(i + 1) % RING]!]));
    for (let stream = 1; stream < SHAPE.streams; stream++) tasks.push(task(stream));
    this.writers = tasks.map((t) => m.spawn(process.execPath, [WRITER, JSON.stringify(t)], { timeoutMs: 600_000 }));
    const first = Buffer.alloc(8);
    first.writeDoubleLE(localPrefix[0]! + 1, 0);
    const fd = fs.openSync(fifos[0]!, 'r+');
    fs.writeSync(fd, first);
    await until('the writers write', () => this.history.times.every((t, i) => t.issuedAt(localPrefix[i]! + 1) > 0));
    fs.closeSync(fd);
  }

  private async message(text: string): Promise<void> {
    const line = 'echo "$0" > "$1"';
    await must('sh', ['-c', line, text, join(this.mounted.dir, '.ctl/messages')], { timeoutMs: 20_000 });
  }

  private async status(nr: number): Promise<SiteStatus> {
    const { connections } = await statusOf(this.mounted);
    return connections.find((c) => c['peer-node-id'] === nr)!;
  }

  private async confirmed(nr: number): Promise<number> {
    return (await this.status(nr))['cursor-seq'];
  }

  private async cutAgain(site: OrderSite, enough: () => boolean): Promise<void> {
    while (!enough()) {
      await sleep(this.random(120));
      await site.turn.take(() => (this.random(6) === 0 ? this.pauseAndLook(site) : this.cut(site)));
    }
  }

  /** The disk of a site dies under it; it is looked at as the cut left it, and given back. */
  private async cut(site: OrderSite): Promise<void> {
    const kinds = Object.keys(CUTS) as Cut[];
    const how = kinds[this.random(kinds.length)]!;
    // A site that is not open would not notice.
    const open = (c: SiteStatus): boolean => c.state === 'connected' || c.state === 'behind';
    await until(`site ${site.nr} is open`, async () => open(await this.status(site.nr)), 30_000, 5);
    await sleep(this.random(30));
    site.volume.shutDown(how);
    const confirmed = await this.confirmed(site.nr);
    await site.volume.unmount();
    await site.volume.mount(async (dir) => {
      await this.look(site, join(dir, 'site'), confirmed);
    });
    this.count(`the disk of a site is ${how}`);
    await this.message('resume');
  }

  private async pauseAndLook(site: OrderSite): Promise<void> {
    await this.message(`site ${site.nr} pause`);
    const paused = (c: SiteStatus): boolean => c['peer-node-id'] === site.nr && c.state === 'paused';
    await untilSite(this.mounted, `site ${site.nr} is paused`, paused);
    await sleep(this.random(50));
    const confirmed = await this.confirmed(site.nr);
    await this.still('SIGCONT', () => this.look(site, site.folder, confirmed));
    this.count('the link is paused');
    await this.message(`site ${site.nr} resume`);
  }

  /** The daemon, and with it every shipper, is stopped in whatever it does; then the sites are looked at. */
  private async killAgain(enough: () => boolean): Promise<void> {
    const { mounted: m } = this;
    for (let pid = 0; !enough();) {
      pid = await m.serving(pid);
      await sleep(20 + this.random(150));
      if (enough()) return;
      const site = this.sites[this.random(this.sites.length)]!;
      await site.turn.take(async () => {
        const confirmed = await this.confirmed(site.nr);
        pid = await this.still('SIGKILL', () => this.look(site, site.folder, confirmed));
        this.count('the daemon is killed');
      });
    }
  }

  /**
   * No thread of the daemon moves, and no call of it is under way while `look` looks: what the sites hold stays as it
   * is. Then it goes on, or is killed. Its pid.
   */
  private still(then: 'SIGCONT' | 'SIGKILL', look: () => Promise<unknown>): Promise<number> {
    return this.daemonTurn.take(async () => {
      const pid = await this.mounted.serving(this.killed);
      process.kill(pid, 'SIGSTOP');
      try {
        await until('the daemon stands still', () => standsStill(pid), 10_000, 1);
        await look();
      } finally {
        process.kill(pid, then);
        if (then === 'SIGKILL') this.killed = pid;
      }
      return pid;
    });
  }

  // --- what is looked at ------------------------------------------------------------------------------------

  /** A copy of a site's folder, repaired: a prefix, and at least what it has confirmed. */
  private async look(site: OrderSite, folder: string, confirmed: number): Promise<Prefix> {
    const copy = join(this.mounted.top, RAM, `copy${site.nr}`);
    fs.rmSync(copy, { recursive: true, force: true });
    await must('cp', ['-a', '--sparse=always', folder, copy], { timeoutMs: 30_000 });
    const report = recoverFolder(realIo, copy, { write: this.looks++ % BY_COMMAND !== 0 });
    for (const { name, state } of report.images) assert.equal(state, 'ok', `${name} of site ${site.nr}`);
    if (!report.written) {
      const outcome = await this.mounted.reptool(['site', 'recover', copy]);
      assert.equal(outcome.status, 0, describeOutcome('reptool site recover', outcome));
    }
    const prefix = site.seen.look(this.images((i) => join(copy, `disk${i}.img`)));
    assert.ok(
      report.seq >= confirmed,
      `site ${site.nr} ends at record ${report.seq}, and status said that it has confirmed all below ${confirmed}`,
    );
    this.assertCounted(site, report.seq, prefix);
    assertHolds(prefix, site.prefix, `site ${site.nr}`);
    site.prefix = prefix;
    return prefix;
  }

  /** Every record of a life but its first is a write of ours: so a seq says how many of them a state holds. */
  private assertCounted(site: OrderSite, seq: number, prefix: Prefix): void {
    const others = seq - sumOf(prefix);
    // What was confirmed before this life began may lack its first record.
    if (sumOf(prefix) <= sumOf(this.localPrefix)) return;
    this.others ??= others;
    assert.equal(others, this.others, `site ${site.nr} ends at record ${seq} and holds ${sumOf(prefix)} writes`);
  }

  private images(path: (device: number) => string): Buffer[] {
    return Array.from({ length: SHAPE.devices }, (_, i) => fs.readFileSync(path(i)));
  }

  /** What the devices show after all has died: a prefix that holds all that was flushed, and all that is on a site. */
  private async lookAtDevices(): Promise<void> {
    const { mounted: m } = this;
    const copy = (i: number): string => join(m.top, `device${i}`);
    for (let i = 0; i < SHAPE.devices; i++)
      await must('dd', [`if=${join(m.dir, `disk${i}`)}`, `of=${copy(i)}`, 'bs=1M', 'status=none']);
    const prefix = this.local.look(this.images(copy));
    assertHolds(
      prefix,
      this.history.times.map((times) => times.flushedTo),
      'what was flushed is on the local disk',
    );
    for (const { nr, prefix: site } of this.sites)
      assertHolds(prefix, site, `what site ${nr} has is on the local disk`);
    this.localPrefix = prefix;
  }
}

const NO_CUT = new Set(['the link is paused']);

/** Every thread of a process is stopped: no call of it is under way any more. */
function standsStill(pid: number): boolean {
  return fs.readdirSync(`/proc/${pid}/task`).every((task) => {
    const stat = fs.readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
    return /\) [TZXt] /.test(stat);
  });
}
