/**
 * The order test over an NBD site, which is a prefix after replay: while its window is open, the exports hold all
 * records before the window, and of those behind it only such as the window names; when it is closed, they are exactly
 * what the site has confirmed. The line to the server is cut at random bytes, or falls silent; daemons are killed.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { plainSite } from '../../src/control/config.js';
import type { SiteStatus } from '../../src/control/status.js';
import { CuttingProxy, type LineCut } from './cutting-proxy.js';
import type { Mounted } from './mounted.js';
import { processesOf } from './nbd-servers.js';
import { OrderGroup, PATIENCE_MS } from './order-group.js';
import { BLOCK, Follower, assertHolds, type OrderShape } from './order-history.js';
import { describeOutcome, sleep } from './proc.js';

export interface NbdOrderTask {
  /** The server's, and a word on the command line of its processes. */
  address: string;
  word: string;
  /** The exports: files, by device. */
  files: readonly string[];
}

/** One stream: then a record's number tells which write it is, and a window which writes may be there. */
export const NBD_BLOCKS = 512;
export const NBD_EXPORT_BYTES = NBD_BLOCKS * BLOCK;
const TIMEOUT_MS = 1000;
const OPTIONS = { timeout: `${TIMEOUT_MS}ms`, 'reconnect-wait': '300ms' };

export class NbdOrderRun {
  readonly counts = new Map<string, number>();
  private readonly mounted: Mounted;
  private readonly task: NbdOrderTask;
  private readonly random: (below: number) => number;
  private readonly group: OrderGroup;
  private readonly seen: Follower;
  private proxy: CuttingProxy | undefined;
  private lastSeq = 0;
  private openLooks = 0;

  constructor(mounted: Mounted, task: NbdOrderTask, random: (below: number) => number) {
    const shape: OrderShape = { devices: task.files.length, blocks: NBD_BLOCKS, streams: 1 };
    this.mounted = mounted;
    this.task = task;
    this.random = random;
    this.group = new OrderGroup(mounted, shape);
    this.seen = new Follower(this.group.history, 'site 1');
  }

  async begin(): Promise<void> {
    const { address, word } = this.task;
    this.proxy = await CuttingProxy.before(address, () => processesOf(word));
    await this.group.make([{ ...plainSite(1, 'nbd', this.proxy.address), options: OPTIONS, rpoMs: 0 }]);
  }

  get total(): number {
    return [...this.counts.values()].reduce((sum, n) => sum + n, 0);
  }

  private count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  async live(cuts: number): Promise<void> {
    const { group, mounted: m } = this;
    await group.startWriters();
    await this.lookClosed();
    for (const to = this.total + cuts - 1; this.total < to;) {
      await sleep(this.random(40));
      group.assertWriting();
      const kind = this.random(20);
      if (kind === 0) await this.killDaemon();
      else if (kind === 1) await this.silence();
      else await this.cut();
      await this.lookClosed();
    }
    await m.killAll();
    await group.stopWriters();
    this.count('keeper and daemon killed');
    await m.mount();
    const prefix = await group.lookAtDevices();
    await group.untilSite(1, 'is connected', ({ state }) => state === 'connected');
    await this.caughtUp();
    assertHolds(this.look(), prefix, 'the site has everything');
  }

  private async caughtUp(): Promise<void> {
    const words = ['wait', this.mounted.dir, '--site', '1', '--timeout', `${PATIENCE_MS / 1000}s`];
    const outcome = await this.mounted.reptool(words, { timeoutMs: PATIENCE_MS + 10_000 });
    assert.equal(outcome.status, 0, describeOutcome('reptool wait --site 1', outcome));
  }

  async end(): Promise<void> {
    await this.mounted.umount();
    console.log(`      looked into an open window ${this.openLooks} times`);
    assert.deepEqual(this.look(), this.group.localPrefix, 'the site has confirmed everything');
  }

  async cleanup(): Promise<void> {
    this.proxy?.close();
    await this.group.cleanup();
  }

  // --- what is done -----------------------------------------------------------------------------------------

  private async cut(): Promise<void> {
    const { random } = this;
    const way = random(3) === 0 ? 'down' : 'up';
    const few = random(4) === 0;
    const cut: LineCut = {
      way,
      // Few: in the handshake, or in the first request.
      bytes: random(few ? 600 : way === 'up' ? 128 * 1024 : 1000),
      server: random(2) === 0 ? 'reset' : 'end',
      client: random(2) === 0 ? 'reset' : 'end',
      all: random(2) === 0,
      down: random(2) === 0,
    };
    await this.proxy!.cut(cut, 300);
    if (cut.down) await this.lookWhileDown();
    this.proxy!.up();
    this.count(`${cut.client === 'reset' ? 'RST' : 'FIN'} on the way ${cut.way}${cut.all ? ', all connections' : ''}`);
  }

  private async silence(): Promise<void> {
    const long = this.random(3) === 0;
    await this.proxy!.silence(long ? TIMEOUT_MS + 500 : this.random(TIMEOUT_MS / 2));
    this.count(long ? 'silent until it is given up' : 'silent for a moment');
  }

  private async killDaemon(): Promise<void> {
    await sleep(this.random(30));
    await this.group.still('SIGKILL', () => Promise.resolve());
    this.count('the daemon is killed');
  }

  // --- what is looked at ------------------------------------------------------------------------------------

  /** Nobody writes to the exports: status names what they may hold. */
  private async lookWhileDown(): Promise<void> {
    const site = await this.group.untilSite(1, 'has noticed', ({ state }) => state === 'failed');
    this.lookWithin(site);
  }

  private lookWithin(site: SiteStatus): void {
    const { group } = this;
    const window = site['open-window'] ?? { 'from-seq': site['cursor-seq'], 'to-seq': site['cursor-seq'] };
    assert.ok(window['from-seq'] >= site['cursor-seq']);
    const from = group.writesBefore(window['from-seq']);
    const to = group.writesBefore(window['to-seq']);
    assert.ok(from !== undefined && to !== undefined, 'a state of this life was seen before');
    this.seen.lookWithin(this.images(), from, to);
    if (site['open-window'] !== null) this.openLooks++;
  }

  /** The site gets through and is stopped behind a batch: its exports are what it has confirmed. */
  private async lookClosed(): Promise<void> {
    const { group } = this;
    if (this.random(3) > 0) await group.message('resume');
    for (;;) {
      await group.untilSite(1, 'is connected', ({ state }) => state === 'connected' || state === 'behind');
      await group.message('site 1 pause');
      const site = await group.untilSite(1, 'is paused', ({ state }) => state === 'paused');
      if (site['open-window'] === null) {
        this.lookExactly(site['cursor-seq']);
        await group.message('site 1 resume');
        return;
      }
      // It had connected again, and not yet sent again what may be there already.
      if (group.writesBefore(0) !== undefined) this.lookWithin(site);
      await group.message('site 1 resume');
    }
  }

  private lookExactly(seq: number): void {
    const prefix = this.look();
    assert.ok(seq >= this.lastSeq, `the site ends at record ${seq}, and was at ${this.lastSeq} before`);
    this.lastSeq = seq;
    this.group.assertCounted('site 1', seq, prefix);
  }

  private look(): readonly number[] {
    return this.seen.look(this.images());
  }

  private images(): Buffer[] {
    return this.task.files.map((file) => fs.readFileSync(file));
  }
}

/** Blank exports for `devices` devices, in a folder. */
export function blankExports(folder: string, devices: number): string[] {
  fs.mkdirSync(folder);
  return Array.from({ length: devices }, (_, i) => {
    const file = join(folder, `disk${i}`);
    fs.writeFileSync(file, '');
    fs.truncateSync(file, NBD_EXPORT_BYTES);
    return file;
  });
}
