/**
 * What the order tests have in common: a group whose devices are written to by several processes, its daemons, and
 * its local disk. Runs in a process of its own (order-child): calls to the mount go through libuv's threads, so that
 * one that hangs does not keep this process from going on.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { MIB } from '../../src/base/units.js';
import { defaultConfig, plainDevice, type SiteConfig } from '../../src/control/config.js';
import { createGroup } from '../../src/control/create.js';
import { unlockGroup } from '../../src/control/lock.js';
import type { SiteStatus, StatusJson } from '../../src/control/status.js';
import type { Mounted } from './mounted.js';
import { BLOCK, Follower, OrderHistory, assertHolds, sumOf, type OrderShape, type Prefix } from './order-history.js';
import type { WriterTask } from './order-writer.js';
import { must, until, type Child } from './proc.js';

const WRITER = join(import.meta.dirname, 'order-writer.js');
/** Processes that write stream 0 in turn; every other stream has one. */
const RING = 3;
/** For whatever has to happen before it goes on: a loaded machine is slow, and a hang is one all the same. */
export const PATIENCE_MS = 60_000;
const OFTEN_MS = 5;

/** What only one may do at a time; the others wait in order. */
export class Turn {
  private last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.last.then(work);
    this.last = mine.catch(() => undefined);
    return mine;
  }
}

export class OrderGroup {
  readonly mounted: Mounted;
  readonly shape: OrderShape;
  readonly history: OrderHistory;
  /** What the devices showed when the group was mounted last. */
  localPrefix: Prefix;
  /** The daemon that was killed last. */
  private killed = 0;
  private readonly local: Follower;
  private writers: Child[] = [];
  private life = 0;
  private readonly daemonTurn = new Turn();
  /** Log records that are none of our writes: seq of a state less its writes, the same throughout a life. */
  private others: number | undefined;

  constructor(mounted: Mounted, shape: OrderShape) {
    const times = join(mounted.top, 'times');
    fs.mkdirSync(times);
    this.mounted = mounted;
    this.shape = shape;
    this.history = new OrderHistory(shape, times);
    this.local = new Follower(this.history, 'the local disk');
    this.localPrefix = new Array<number>(shape.streams).fill(0);
  }

  async make(sites: SiteConfig[]): Promise<void> {
    const { mounted: m, shape } = this;
    const config = defaultConfig(m.groupDir, randomBytes(16).toString('hex'));
    config.log.size = 48 * MIB;
    config.windowRing = 4 * MIB;
    config.devices = Array.from({ length: shape.devices }, (_, nr) =>
      plainDevice(nr, `disk${nr}`, shape.blocks * BLOCK, join(m.imageFolder, `disk${nr}`)),
    );
    config.sites = sites;
    unlockGroup(await createGroup(m.groupDir, config));
    await m.mount();
  }

  // --- writers ----------------------------------------------------------------------------------------------

  /** They write on behind what the devices show. */
  async startWriters(): Promise<void> {
    const { mounted: m, shape, localPrefix } = this;
    this.life++;
    this.others = undefined;
    this.history.beginLife(this.life, localPrefix);
    const fifos = Array.from({ length: RING }, (_, i) => join(m.top, `ring${i}`));
    for (const fifo of fifos) fs.rmSync(fifo, { force: true });
    await must('mkfifo', fifos);
    const task = (stream: number, ring?: readonly [string, string]): WriterTask => ({
      dir: m.dir,
      times: join(m.top, 'times'),
      shape,
      stream,
      from: localPrefix[stream]! + 1,
      life: this.life,
      pace: stream === 0 ? 2 : 4,
      ...(ring === undefined ? {} : { ring }),
    });
    const tasks = fifos.map((fifo, i) => task(0, [fifo, fifos[(i + 1) % RING]!]));
    for (let stream = 1; stream < shape.streams; stream++) tasks.push(task(stream));
    this.writers = tasks.map((t) => m.spawn(process.execPath, [WRITER, JSON.stringify(t)], { timeoutMs: 3_600_000 }));
    const first = Buffer.alloc(8);
    first.writeDoubleLE(localPrefix[0]! + 1, 0);
    const fd = fs.openSync(fifos[0]!, 'r+');
    fs.writeSync(fd, first);
    const write = (): boolean => {
      this.assertWriting();
      return this.history.times.every((t, i) => t.issuedAt(localPrefix[i]! + 1) > 0);
    };
    await until('the writers write', write, PATIENCE_MS);
    fs.closeSync(fd);
  }

  /** Nothing that dies or is cut may show in a write. */
  assertWriting(): void {
    for (const writer of this.writers)
      if (writer.ended) throw new Error(`a writer has ended: ${writer.stderr}\n${this.mounted.daemonLog}`);
  }

  async stopWriters(): Promise<void> {
    for (const writer of this.writers) await writer.stop('SIGKILL', 5000);
  }

  // --- the daemon -------------------------------------------------------------------------------------------

  async message(text: string): Promise<void> {
    await writeFile(join(this.mounted.dir, '.ctl/messages'), `${text}\n`);
  }

  async status(nr: number): Promise<SiteStatus> {
    const json = JSON.parse(await readFile(join(this.mounted.dir, '.ctl/status.json'), 'utf8')) as StatusJson;
    return json.connections.find((c) => c['peer-node-id'] === nr)!;
  }

  async confirmed(nr: number): Promise<number> {
    return (await this.status(nr))['cursor-seq'];
  }

  async untilSite(nr: number, what: string, wanted: (site: SiteStatus) => boolean): Promise<SiteStatus> {
    let last: SiteStatus | undefined;
    const probe = async (): Promise<SiteStatus | undefined> => {
      last = await this.status(nr);
      return wanted(last) ? last : undefined;
    };
    const told = (): string => `\nlast status: ${JSON.stringify(last)}\n${this.mounted.daemonLog}`;
    return until(`site ${nr} ${what}`, probe, PATIENCE_MS, OFTEN_MS, told);
  }

  /**
   * No thread of the daemon moves, and no call of it is under way while `look` looks: what the sites hold stays as it
   * is. Then it goes on, or is killed.
   */
  still(then: 'SIGCONT' | 'SIGKILL', look: () => Promise<unknown>): Promise<void> {
    return this.daemonTurn.take(async () => {
      const pid = await this.mounted.serving(this.killed);
      process.kill(pid, 'SIGSTOP');
      try {
        await until('the daemon stands still', () => standsStill(pid), PATIENCE_MS, 1);
        await look();
      } finally {
        process.kill(pid, then);
        if (then === 'SIGKILL') this.killed = pid;
      }
    });
  }

  // --- what is looked at ------------------------------------------------------------------------------------

  images(path: (device: number) => string): Buffer[] {
    return Array.from({ length: this.shape.devices }, (_, i) => fs.readFileSync(path(i)));
  }

  /**
   * Every record of a life but its first is a write of ours: so a seq says how many of them a state holds. Returns
   * the records that are none.
   */
  assertCounted(what: string, seq: number, prefix: Prefix): void {
    const others = seq - sumOf(prefix);
    // What was confirmed before this life began may lack its first record.
    if (sumOf(prefix) <= sumOf(this.localPrefix)) return;
    this.others ??= others;
    assert.equal(others, this.others, `${what} ends at record ${seq} and holds ${sumOf(prefix)} writes`);
  }

  /** Writes of ours before record `seq` of this life; undefined until a state of it was seen. */
  writesBefore(seq: number): number | undefined {
    return this.others === undefined ? undefined : Math.max(seq - this.others, 0);
  }

  /** What the devices show after all has died: a prefix that holds all that was flushed. */
  async lookAtDevices(): Promise<Prefix> {
    const { mounted: m } = this;
    const copy = (i: number): string => join(m.top, `device${i}`);
    for (let i = 0; i < this.shape.devices; i++)
      await must('dd', [`if=${join(m.dir, `disk${i}`)}`, `of=${copy(i)}`, 'bs=1M', 'status=none']);
    const prefix = this.local.look(this.images(copy));
    const flushed = this.history.times.map((times) => times.flushedTo);
    assertHolds(prefix, flushed, 'what was flushed is on the local disk');
    return (this.localPrefix = prefix);
  }

  async cleanup(): Promise<void> {
    this.history.close();
    await this.stopWriters();
  }
}

/** Every thread of a process is stopped: no call of it is under way any more. */
function standsStill(pid: number): boolean {
  return fs.readdirSync(`/proc/${pid}/task`).every((task) => {
    const stat = fs.readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
    return /\) [TZXt] /.test(stat);
  });
}
