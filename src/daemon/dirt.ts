/**
 * Links that leave the ring, and come back: connects slink/dirt.ts and slink/leaving.ts with links, checkpointer and
 * shippers. Absent where resyncs are not served: then a full ring holds writers, and a site that cannot be continued stays as
 * it is.
 */
import { SECTOR, type LogPos } from '../base/units.js';
import { devicesAtSites, nextNumber } from '../control/device-plan.js';
import type { DirtyFacts } from '../control/facts.js';
import type { Checkpointer, DirtPort } from '../replog/checkpointer.js';
import { SH } from '../replog/shared.js';
import type { SiteCursor } from '../slink/contract.js';
import type { DirtyLog } from '../dirtylog/types.js';
import { Dirt } from '../slink/dirt.js';
import { FullWatch, judge, type Verdict } from '../slink/leaving.js';
import type { LinkPolicies } from '../slink/policy.js';
import type { ResyncOrder, ResyncProgress } from '../slink/resync.js';
import { DirtyLogs } from './dirty-logs.js';
import { durableEnd } from './ends.js';
import { holdsLog, linkFact, type Link } from './links.js';
import type { OpenGroup } from './open.js';
import type { Around } from './parts.js';
import type { FromShip } from './shell.js';

export interface LeavingParts {
  opened: OpenGroup;
  around: Around;
  links: readonly Link[];
  policies: () => LinkPolicies;
  checkpointer: () => Checkpointer;
  /** Site that reads come from while slink 0 is detached; 0 = slink 0. */
  source(): number;
  /** The checkpointer is to be stepped now. */
  pump(): void;
  /** Writers wait for log space. */
  full(): boolean;
  /** A link left the ring or is back in it: for events and those who wait. */
  told(link: Link, what: string): void;
  failed(what: string): void;
}

/** Main marks for so long at once; then it serves requests. */
const PIECE_MS = 4;
/** So long after space came free it is seen whether writers still wait. */
const LOOK_MS = 5;
/** How often it is seen whether a link that is not dropped holds writers still. */
const HELD_MS = 100;

export class Leaving {
  readonly dirt: Dirt;
  private readonly p: LeavingParts;
  private readonly logs: DirtyLogs;
  private readonly watch: FullWatch;
  private timer: NodeJS.Timeout | undefined;
  private marking: NodeJS.Immediate | undefined;
  private stopped = false;
  /** LOG_HEAD as of the last look: whoever waits is given the time to find what came free. */
  private seenHead = -1;
  /** Since when writers have waited without that any log space came free. */
  private waitedSince: number | undefined;

  constructor(parts: LeavingParts) {
    this.p = parts;
    const { opened, around } = parts;
    const { window, shared } = around;
    const { log, config } = opened;
    this.watch = new FullWatch(log);
    this.logs = new DirtyLogs(opened, (what) => parts.failed(what));
    this.dirt = new Dirt({
      log,
      tables: {
        firstSeq: (start: LogPos) => parts.checkpointer().firstSeq(start),
        extents: (start: LogPos) => parts.checkpointer().extents(start),
      },
      devices: () => devicesAtSites(config).map(({ nr, size }) => ({ nr, sectors: size / 512 })),
      region: this.logs.region,
      keep: (link, device, begins) => this.logs.open(link, device, begins),
      cursor: (nr) => this.link(nr)!.cursor,
      end: () => durableEnd(window),
      synced: () => parts.checkpointer().synced,
      doubts: () => shared.load(SH.DOUBTS),
      commit: (atOnce) => {
        const checkpointer = parts.checkpointer();
        if (!atOnce) return checkpointer.touch();
        checkpointer.ask();
        // Not within the turn that has only begun to change things.
        setImmediate(() => parts.pump());
      },
      hurry: () => {
        shared.bump(SH.SYNC_ASK);
        shared.bell(SH.BELL_APPLY).ring();
      },
      events: {
        dropped: (nr, to, regions) => this.dropped(nr, to, regions),
        ordered: (nr) => {
          const link = this.link(nr);
          if (link?.started === true) link.thread.post({ t: 'resync', order: this.order(link)! });
        },
        clean: (nr, epoch, wholeAt) => {
          const link = this.link(nr);
          if (link?.started === true) link.thread.post({ t: 'whole', epoch, wholeAt });
        },
        failed: (what) => parts.failed(what),
      },
    });
  }

  /** For the checkpointer, which is made before there are links. */
  get port(): DirtPort {
    return this.dirt;
  }

  /** A link that cannot be continued by records alone begins; its cursor is set. Nothing is done with any other one. */
  begin(link: Link): void {
    const { resync, place } = link;
    if (resync === undefined) return;
    const { how, begins } = resync;
    this.dirt.begin(link.config.nr, how, { begins });
    this.p.policies().setOut(place, true);
  }

  /**
   * An operator's wish: all of the site is compared and made equal, whatever it says of itself; with `force` also one, or an
   * image, that is another's.
   */
  resync(link: Link, force: boolean): void {
    const { nr } = link.config;
    link.cursor = durableEnd(this.p.around.window);
    this.dirt.begin(nr, 'all', { anew: true, force, running: true });
    this.isOut(link);
    this.p.told(link, 'all of it is resynced');
    this.p.checkpointer().ask();
    this.p.pump();
  }

  /** What a verify found to differ is made equal. */
  repair(link: Link, ranges: readonly { device: number; first: number; sectors: number }[]): void {
    this.dirt.mark(link.config.nr, ranges);
  }

  /** For status: what is dirty, and the dirty logs of its devices (`A`, `D`, `F`). */
  facts({
    config: { nr },
  }: Link): { regions: number; bytes: number; states: Map<number, DirtyLog['state']> } | undefined {
    const { dirt } = this;
    if (!dirt.isOut(nr)) return undefined;
    const states = new Map([...dirt.logs(nr)].map(([device, { log }]) => [device, log.state]));
    return { regions: dirt.regions(nr), bytes: dirt.bytes(nr), states };
  }

  /** Sectors of a region. */
  get region(): number {
    return this.logs.region;
  }

  /** What a link lacks, by device number. */
  dirty(nr: number): ReadonlyMap<number, DirtyFacts> {
    return new Map(
      [...this.dirt.logs(nr)].map(([device, { bits }]) => {
        const { regions, count: dirty, regionSectors, deviceSectors } = bits;
        return [device, { regions, dirty, bytes: Math.min(dirty * regionSectors, deviceSectors) * SECTOR }];
      }),
    );
  }

  /** What the shipper of an inconsistent link begins with. */
  order(link: Link): ResyncOrder | undefined {
    const { nr } = link.config;
    if (!this.dirt.isOut(nr)) return undefined;
    const { config } = this.p.opened;
    const devices = devicesAtSites(config);
    return {
      ...this.dirt.order(nr),
      devices: devices.map(({ nr, name, size }) => ({ nr, name, size })),
      nextDevice: nextNumber(config),
      locals: devices.map(({ nr, local, size }) => ({ nr, path: local, size })),
    };
  }

  /** Its thread has been told to begin. */
  begun(link: Link): void {
    const clean = this.dirt.clean(link.config.nr);
    if (clean !== undefined) link.thread.post({ t: 'whole', ...clean });
  }

  /** The link is no more. */
  forget(link: Link): void {
    this.dirt.forget(link.config.nr);
  }

  /** A cursor that a thread tells: false where the link has been dropped since. */
  mayMove(link: Link, epoch: number, place: SiteCursor): boolean {
    return (!link.inconsistent || epoch === this.dirt.epoch(link.config.nr)) && place.seq >= link.cursor.seq;
  }

  heard(link: Link, message: FromShip & { t: 'copied' | 'lost' | 'insync' | 'progress' }): void {
    const { nr } = link.config;
    switch (message.t) {
      case 'copied':
        return this.dirt.copied(nr, message);
      case 'lost':
        return this.dirt.lost(nr, message.epoch);
      case 'progress':
        if (message.epoch === this.dirt.epoch(nr)) link.progress = progressOf(message);
        return;
      case 'insync': {
        if (!this.dirt.inSync(nr, message.epoch, message.place.seq)) return;
        if (message.place.seq > link.cursor.seq) link.cursor = message.place;
        Object.assign(link, { inconsistent: false, progress: undefined });
        this.p.policies().setOut(link.place, false);
        this.note(link);
        return this.p.told(link, 'everything that was missed was resynced; it is in order again');
      }
    }
  }

  // --- the full ring ---------------------------------------------------------------------------------------

  /** Writers wait for log space: whoever holds the head is dropped, or looked at again. */
  look(): void {
    clearTimeout(this.timer);
    if (this.stopped) return;
    const { verdict, nr, againMs } = this.judge();
    if (verdict === 'drop') this.drop(nr);
    // Slink 0 holds the head for a moment only, until its images are synced; others until somebody acts.
    const ms = verdict === 'wait' ? againMs : verdict === 'local-disk' ? LOOK_MS : HELD_MS;
    this.timer = setTimeout(() => this.again(), Math.max(1, ms));
  }

  /** Nobody waits for log space. */
  calm(): void {
    this.waitedSince = undefined;
  }

  private again(): void {
    this.p.pump();
    if (this.p.full()) this.look();
    else this.calm();
  }

  /** Who holds the log's head, and what is to become of it. */
  private judge(): { verdict: Verdict; nr: number; againMs: number } {
    const { around, links, policies, checkpointer } = this.p;
    const { nr, pos } = checkpointer().holder();
    const { logHead } = around.shared;
    // What is free already has to be committed only, and what was committed just now may be enough.
    this.waitedSince ??= performance.now();
    if (pos > logHead || logHead !== this.seenHead) {
      this.seenHead = logHead;
      this.waitedSince = performance.now();
      return { verdict: 'wait', nr, againMs: LOOK_MS };
    }
    const link = links.find((l) => l.config.nr === nr);
    if (link === undefined) return { verdict: 'local-disk', nr, againMs: 0 };
    const { config, place, paused } = link;
    const againMs = this.watch.held(performance.now(), nr, pos, config.fullWaitMs);
    const verdict = judge(
      {
        nr,
        away: paused || policies().isDown(place),
        stall: config.stall,
        gates: policies().isSync(place),
        dirtyLogs: this.logs.all(nr),
        serves: this.p.source() === nr,
      },
      againMs <= 0,
    );
    return { verdict, nr, againMs };
  }

  private drop(nr: number): void {
    if (!this.dirt.isLeaving(nr)) this.dirt.drop(nr);
    this.marking ??= setImmediate(() => this.mark());
  }

  private mark(): void {
    this.marking = undefined;
    if (this.stopped) return;
    const until = performance.now() + PIECE_MS;
    while (this.dirt.step() === 0) {
      if (performance.now() < until) continue;
      this.marking = setImmediate(() => this.mark());
      return;
    }
  }

  private dropped(nr: number, to: SiteCursor, regions: number): void {
    const link = this.link(nr);
    if (link === undefined) return;
    link.cursor = { ...to };
    this.isOut(link);
    const marked = `${regions} region${regions === 1 ? ' is' : 's are'} marked and will be resynced`;
    const { waitedSince } = this;
    this.waitedSince = undefined;
    if (waitedSince === undefined) return this.p.told(link, marked);
    const ms = Math.round(performance.now() - waitedSince);
    this.p.told(link, `left the ring, for which writers had waited ${ms} ms: ${marked}`);
  }

  // --- the rest --------------------------------------------------------------------------------------------

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    clearImmediate(this.marking);
    this.dirt.stop();
  }

  private isOut(link: Link): void {
    const wholeAt = this.dirt.wholeAt(link.config.nr) ?? 0;
    Object.assign(link, { inconsistent: true, wholeAt, progress: undefined });
    this.p.policies().setOut(link.place, true);
    this.note(link);
  }

  private note(link: Link): void {
    this.p.checkpointer().noteLink(linkFact(link), holdsLog(link));
  }

  private link(nr: number): Link | undefined {
    return this.p.links.find((l) => l.config.nr === nr);
  }
}

function progressOf({ looked, copied, zeroed, left, rate }: ResyncProgress): NonNullable<Link['progress']> {
  return { looked, copied, zeroed, left, rate };
}
