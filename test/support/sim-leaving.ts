/**
 * Links that leave the ring and are resynced, in a simulated group: what daemon/dirt.ts and daemon/open.ts connect with
 * timers and messages, driven by main's turns. What a shipper tells arrives with main's next turn, and the other way
 * round with the shipper's.
 */
import type { DirtPort } from '../../src/replog/checkpointer.js';
import { firstPlace } from '../../src/replog/format.js';
import { SH } from '../../src/replog/shared.js';
import type { LinkFact } from '../../src/index/contract.js';
import { durableEnd } from '../../src/daemon/ends.js';
import { DirtyKeep } from '../../src/dirtylog/keep.js';
import { DISK } from '../../src/dirtylog/words.js';
import type { SiteCursor } from '../../src/slink/contract.js';
import { Dirt, type DirtStart } from '../../src/slink/dirt.js';
import { FullWatch, judge, type Verdict } from '../../src/slink/leaving.js';
import type { CopiedReport, InSyncReport, ResyncOrder } from '../../src/slink/resync.js';
import { Broken } from './sim-broken.js';
import type { SimDaemon } from './sim-daemon.js';
import type { SimHost } from './sim-host.js';
import type { SimIndex } from './sim-index.js';

/** Small ones, so that a device has some. */
export const REGION = 128;
const FULL_WAIT_MS = 1000;

/** A link as main keeps it. */
interface Kept {
  cursor: SiteCursor;
  fresh: boolean;
  inconsistent: boolean;
  wholeAt: number;
}

/** How a link begins. */
export interface LinkBegin {
  cursor: SiteCursor;
  fresh: boolean;
  order: ResyncOrder | undefined;
}

export class SimLeaving {
  readonly dirt: Dirt;
  private readonly daemon: SimDaemon;
  private readonly host: SimHost;
  private readonly watch: FullWatch;
  private readonly links = new Map<number, Kept>();
  private seenHead = -1;
  /** The data thread has said that writers wait for log space. */
  full = false;
  /** As of the last look at a full ring. */
  verdict = '';

  constructor(daemon: SimDaemon, host: SimHost, index: SimIndex) {
    this.daemon = daemon;
    this.host = host;
    const { log, window, shared, io } = daemon;
    this.watch = new FullWatch(log);
    const sizes = host.shape.client.devices.map(({ nr, sectors }) => ({ nr, sectors }));
    this.dirt = new Dirt({
      log,
      tables: {
        firstSeq: (start) => daemon.checkpointer.firstSeq(start),
        extents: (start) => daemon.checkpointer.extents(start),
      },
      devices: () => sizes,
      region: REGION,
      keep: (link, { nr: device, sectors }, begins) => {
        const table = DISK.parse([String(REGION)]);
        const leg = { logId: host.logId, link, device, name: `disk${device} at site ${link}` };
        const fact = index.dirty(link).find((f) => f.device === device);
        const needs = { io, leg, table, region: REGION, sectors, begins, fact };
        return new DirtyKeep(DISK.make({ ...needs, taken: () => '' }), needs);
      },
      cursor: (nr) => this.links.get(nr)!.cursor,
      end: () => durableEnd(window),
      synced: () => daemon.checkpointer.synced,
      doubts: () => shared.load(SH.DOUBTS),
      commit: (atOnce) => (atOnce ? daemon.checkpointer.ask() : daemon.checkpointer.touch()),
      hurry: () => void shared.bump(SH.SYNC_ASK),
      events: {
        dropped: (nr, to, regions) => this.dropped(nr, to, regions),
        ordered: (nr) => daemon.toShipper(nr, (shipper) => shipper.resync(this.order(nr)!)),
        clean: (nr, epoch, wholeAt) => daemon.toShipper(nr, (shipper) => shipper.whole(epoch, wholeAt)),
        failed: (what) => host.note(what),
      },
    });
  }

  get port(): DirtPort {
    return this.dirt;
  }

  /** As daemon/open.ts judges what the index says of a link. */
  begin(nr: number, fact: LinkFact | undefined, indexLost: boolean): LinkBegin {
    const { daemon, host } = this;
    const { log, window } = daemon;
    const first: SiteCursor = { ...firstPlace(host.logId), reign: 0 };
    const end = durableEnd(window);
    let how: DirtStart | undefined;
    let begins = false;
    let cursor = fact === undefined ? first : { ...fact.cursor, reign: fact.reign };
    let fresh = fact === undefined ? !indexLost : fact.fresh === true || cursor.seq === first.seq;
    if (fact === undefined) {
      if (indexLost || log.oldest(log.super.durable.pos) !== 0) [how, begins] = ['all', !indexLost];
    } else {
      const gone = fact.cursor.pos < log.super.head.pos;
      if (fact.sync === 'inconsistent' && fact.wholeAt !== undefined && !gone) how = 'stored';
      else if (fact.sync === 'inconsistent' || gone) how = 'all';
      if (gone && fact.sync === 'in-order')
        throw new Broken(
          `site ${nr} needs the log from ${fact.cursor.pos} on, and its head is at ${log.super.head.pos}`,
        );
      if (how === 'all') fresh = fact.fresh === true;
    }
    if (how === 'all') cursor = end;
    const kept = { cursor, fresh, inconsistent: how !== undefined, wholeAt: 0 };
    this.links.set(nr, kept);
    if (how === undefined) {
      if (fact === undefined) this.note(nr);
      return { cursor, fresh, order: undefined };
    }
    this.host.note(`site ${nr} begins out of the ring at ${cursor.seq} (${how})`);
    host.dirt.began(nr);
    this.dirt.begin(nr, how, { begins, anew: how === 'all' });
    const order = this.order(nr)!;
    kept.wholeAt = order.wholeAt;
    this.note(nr);
    return { cursor, fresh, order };
  }

  /** Its shipper stands. */
  begun(nr: number): void {
    if (!this.isOut(nr)) return;
    this.daemon.policies.setOut(this.daemon.placeOf(nr), true);
    const clean = this.dirt.clean(nr);
    if (clean !== undefined) this.daemon.toShipper(nr, (shipper) => shipper.whole(clean.epoch, clean.wholeAt));
  }

  isOut(nr: number): boolean {
    return this.links.get(nr)?.inconsistent === true;
  }

  forget(nr: number): void {
    this.dirt.forget(nr);
    this.links.delete(nr);
  }

  private order(nr: number): ResyncOrder | undefined {
    if (!this.dirt.isOut(nr)) return undefined;
    const { devices } = this.host.shape.client;
    return {
      ...this.dirt.order(nr),
      devices: devices.map(({ nr: device, sectors }) => ({ nr: device, name: `disk${device}`, size: sectors * 512 })),
      nextDevice: Math.max(...devices.map((device) => device.nr)) + 1,
      locals: devices.map(({ nr: device, sectors }) => ({
        nr: device,
        path: this.host.imagePath(device),
        size: sectors * 512,
      })),
    };
  }

  // --- what shippers tell ----------------------------------------------------------------------------------

  moved(nr: number, epoch: number, place: SiteCursor): void {
    const link = this.links.get(nr);
    if (link === undefined) return;
    if ((link.inconsistent && epoch !== this.dirt.epoch(nr)) || place.seq < link.cursor.seq) return;
    Object.assign(link, { cursor: place, fresh: false });
    this.note(nr);
  }

  copied(nr: number, report: CopiedReport): void {
    this.host.seen('resync: regions copied');
    this.dirt.copied(nr, report);
  }

  inSync(nr: number, { epoch, place }: InSyncReport): void {
    const link = this.links.get(nr);
    if (link === undefined || !this.dirt.inSync(nr, epoch, place.seq)) return;
    if (place.seq > link.cursor.seq) link.cursor = place;
    link.inconsistent = false;
    this.daemon.policies.setOut(this.daemon.placeOf(nr), false);
    this.host.note(`site ${nr} is in order again at ${place.seq}`);
    this.host.dirt.inOrder(nr, place.seq);
    this.note(nr);
  }

  /** What the site had confirmed may be gone: nobody knows what it lacks. */
  lost(nr: number, epoch: number): void {
    const link = this.links.get(nr);
    if (link === undefined || epoch !== this.dirt.epoch(nr)) return;
    this.host.note(`site ${nr} has lost what it had: all is dirty`);
    link.cursor = durableEnd(this.daemon.window);
    this.dirt.begin(nr, 'all', { anew: true, running: true });
    this.note(nr);
  }

  // --- the full ring ---------------------------------------------------------------------------------------

  /** Main's turn. */
  step(): void {
    const { shared } = this.daemon;
    if (shared.load(SH.LOG_FULL) !== 0 || (this.full && shared.load(SH.DATA_WAITS) !== 0)) this.look();
    else this.full = false;
    for (let n = 0; n < 4 && this.dirt.step() === 0; n++);
  }

  private look(): void {
    const { verdict, nr } = this.judge();
    this.host.seen(`full ring: ${verdict}`);
    this.verdict = `${verdict} (site ${nr})`;
    if (verdict !== 'drop' || this.dirt.isLeaving(nr)) return;
    const link = this.host.policies.link(nr);
    if (link.rules.stall) throw new Broken(`site ${nr} is to stall, and leaves the ring`);
    this.dirt.drop(nr);
  }

  private judge(): { verdict: Verdict; nr: number } {
    const { checkpointer, shared, policies, source } = this.daemon;
    const { nr, pos } = checkpointer.holder();
    const { logHead } = shared;
    if (pos > logHead || logHead !== this.seenHead) {
      this.seenHead = logHead;
      return { verdict: 'wait', nr };
    }
    if (!this.links.has(nr)) return { verdict: 'local-disk', nr };
    const place = this.daemon.placeOf(nr);
    const againMs = this.watch.held(this.host.clock.monoMs(), nr, pos, FULL_WAIT_MS);
    const away = this.host.site(nr).paused || policies.isDown(place);
    const { stall } = this.host.policies.link(nr).rules;
    const holder = { nr, away, stall, gates: policies.isSync(place), dirtyLogs: true, serves: source === nr };
    return { verdict: judge(holder, againMs <= 0), nr };
  }

  private dropped(nr: number, to: SiteCursor, regions: number): void {
    const link = this.links.get(nr);
    if (link === undefined) return;
    this.host.note(`site ${nr} leaves the ring at ${to.seq}: ${regions} regions`);
    this.host.seen('link left the ring');
    this.host.dirt.left(nr);
    Object.assign(link, { cursor: { ...to }, inconsistent: true, wholeAt: this.dirt.wholeAt(nr) });
    this.daemon.policies.setOut(this.daemon.placeOf(nr), true);
    this.note(nr);
  }

  private note(nr: number): void {
    const { cursor, fresh, inconsistent, wholeAt } = this.links.get(nr)!;
    const { pos, seq, chainLo, chainHi, time, reign } = cursor;
    this.daemon.checkpointer.noteLink(
      {
        nr,
        cursor: { pos, seq, chainLo, chainHi, time },
        reign,
        sync: inconsistent ? 'inconsistent' : 'in-order',
        paused: this.host.site(nr).paused,
        ...(inconsistent && { wholeAt, ...(fresh && { fresh }) }),
      },
      true,
    );
  }
}
