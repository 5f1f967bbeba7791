/**
 * What is dirty at the links that have left the ring: main's machine of ARCHITECTURE 20. It marks what a link lacks when
 * it is dropped, gives the shipper its bits, clears what was copied, and says when nothing is dirty any more. It has no
 * timers and knows no threads: daemon and simulator drive the same code.
 *
 * What it promises is one sentence: everything before a link's cursor is confirmed by its site, or lies in a region that
 * is marked. So marks, cursor and state of a link stand in one commit of the index (Checkpointer, which asks `take` for
 * the marks), and nothing leaves the log before that commit. Where the bits of a device last is its dirty log's matter
 * (dirtylog/keep.ts).
 *
 *   in order ── drop: Marking, step by step ──▶ `dropped` ── commit ──▶ `ordered` ─▶ shipper copies ─▶ copied ── commit
 *   ──▶ nothing dirty: `clean` ─▶ site's stamp says whole ─▶ inSync ── commit ──▶ in order
 *
 * Copies. A region is cleared once its copy is settled at the site, and slink 0's images were synced up to what was
 * durable behind the read (t2), no sync of them having failed since: until then the copy may be of a page that the kernel
 * gives up. Each drop begins a new epoch; what was copied in an older one is forgotten and copied again.
 */
import type { Machine } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import { SECTOR, type Seq } from '../base/units.js';
import { DirtyBits } from '../dirtylog/bits.js';
import type { DirtyKeep } from '../dirtylog/keep.js';
import type { IndexChange } from '../index/contract.js';
import type { LogFile } from '../replog/logfile.js';
import type { SiteCursor } from './contract.js';
import { Marking, type MarkDevice, type SegmentTables } from './marking.js';
import type { CopiedReport, ResyncOrder } from './resync.js';

/** What main's machine knows of an order; the rest is the configuration's. */
export type DirtOrder = Pick<ResyncOrder, 'epoch' | 'at' | 'wholeAt' | 'anew' | 'force' | 'bits'>;

/** What is dirty of a link at first: as its dirty logs know it (all of what they do not), all, or nothing. */
export type DirtStart = 'stored' | 'all' | 'none';

export interface DirtBegin {
  /** Dirty logs begin with it: their `sync` and `nosync` count. */
  begins?: boolean;
  anew?: boolean;
  force?: boolean;
  /** Its shipper runs already: it is ordered anew once the commit is made. */
  running?: boolean;
}

export interface DirtEvents {
  /** Its cursor is to be put to `to`, and its fact noted, before the next commit; `regions` are dirty now. */
  dropped(nr: number, to: SiteCursor, regions: number): void;
  /** Its shipper is to begin anew with `order(nr)`: what that rests on is in the index. */
  ordered(nr: number): void;
  /** Nothing is dirty in the index any more: the site is whole when it has reached `wholeAt`. */
  clean(nr: number, epoch: number, wholeAt: Seq): void;
  /** Something for the operator: a sentence. */
  failed(what: string): void;
}

export interface DirtParts {
  log: LogFile;
  tables: SegmentTables;
  /** The devices of the present, those on their way in included and those on their way out not. */
  devices(): readonly MarkDevice[];
  /** Sectors of a region, of all devices. */
  region: number;
  /** Opens the dirty log of a device at a link. */
  keep(link: number, device: MarkDevice, begins: boolean): DirtyKeep;
  /** Where the link stands as it was noted last. */
  cursor(link: number): SiteCursor;
  /** The durable end of the log. */
  end(): SiteCursor;
  /** Slink 0's images hold everything below it, synced. */
  synced(): Seq;
  /** SH.DOUBTS: syncs of slink 0's images that have failed. */
  doubts(): number;
  /** The checkpointer is to commit in its time, or at once. */
  commit(atOnce: boolean): void;
  /** Slink 0's images are to be synced soon. */
  hurry(): void;
  events: DirtEvents;
}

/** A link that is out of the ring. */
interface Gone {
  epoch: number;
  wholeAt: Seq;
  anew: boolean;
  force: boolean;
  readonly keeps: Map<number, DirtyKeep>;
  /** Settled at the site, and not cleared yet. */
  reports: CopiedReport[];
  /** Slink 0's images were asked to be synced, so that the reports can be taken. */
  hurried: boolean;
  /** Devices whose bits the next commit has to look at. */
  readonly changed: Set<number>;
  /** Devices whose dirty logs do not work. */
  readonly dead: Set<number>;
  /** The shipper hears of it once it is committed. */
  toOrder: boolean;
  toldClean: boolean;
}

interface Leaving {
  marking: Marking;
  to: SiteCursor;
}

export class Dirt implements Machine {
  private readonly p: DirtParts;
  private readonly gone = new Map<number, Gone>();
  private readonly leaving = new Map<number, Leaving>();
  /** What is to be taken out of the index. */
  private dropped: { link: number; device?: number }[] = [];
  private lastEpoch = 0;

  constructor(parts: DirtParts) {
    this.p = parts;
  }

  // --- leaving the ring ------------------------------------------------------------------------------------

  /** It is out of the ring: its shipper gets `order(nr)`. */
  isOut(nr: number): boolean {
    return this.gone.has(nr);
  }

  isLeaving(nr: number): boolean {
    return this.leaving.has(nr);
  }

  /** Drops a link, in the ring or out of it: marks from its cursor to `to`, step by step; then `dropped` is told. */
  drop(nr: number, to: SiteCursor = this.p.end()): void {
    this.stopLeaving(nr);
    const { log, tables, region } = this.p;
    const parts = { log, tables, devices: this.p.devices(), region };
    this.leaving.set(nr, { marking: new Marking(parts, this.p.cursor(nr), to), to: { ...to } });
  }

  /** Takes a link for out of the ring from now on. Its cursor is the caller's, who notes its fact before the next commit. */
  begin(nr: number, how: DirtStart, options: DirtBegin = {}): void {
    this.forget(nr);
    const gone = this.fresh();
    gone.toOrder = options.running ?? false;
    gone.force = options.force ?? false;
    for (const device of this.p.devices()) {
      const keep = this.p.keep(nr, device, options.begins ?? false);
      if (how !== 'stored') keep.bits = new DirtyBits(this.p.region, device.sectors);
      if (how === 'all') keep.bits.fill();
      gone.keeps.set(device.nr, keep);
      gone.changed.add(device.nr);
    }
    // What a site holds besides is not known then; with some of it marked only, that would never be copied.
    gone.anew = (options.anew ?? false) && this.allDirty(gone);
    this.gone.set(nr, gone);
    this.p.commit(false);
  }

  /** What a verify found to differ: marked, whether the link was in order or not. `dropped` is told before it returns. */
  mark(nr: number, ranges: readonly { device: number; first: number; sectors: number }[]): void {
    const marks = new Map(this.p.devices().map((d) => [d.nr, new DirtyBits(this.p.region, d.sectors)]));
    for (const { device, first, sectors } of ranges) {
      const bits = marks.get(device);
      if (bits !== undefined && first < bits.deviceSectors)
        bits.mark(first, Math.min(sectors, bits.deviceSectors - first));
    }
    this.add(nr, marks, this.p.cursor(nr));
  }

  /** The site may lack what it had confirmed in this epoch: all of it is dirty. */
  lost(nr: number, epoch: number): void {
    const gone = this.gone.get(nr);
    if (gone === undefined || gone.epoch !== epoch) return;
    const all = new Map(this.p.devices().map((d) => [d.nr, new DirtyBits(this.p.region, d.sectors)]));
    for (const bits of all.values()) bits.fill();
    this.add(nr, all, this.p.cursor(nr));
  }

  /** The link is no more, or begins again. */
  forget(nr: number): void {
    this.stopLeaving(nr);
    for (const keep of this.gone.get(nr)?.keeps.values() ?? []) keep.close();
    this.gone.delete(nr);
    this.dropped = this.dropped.filter(({ link }) => link !== nr);
  }

  // --- what is known ---------------------------------------------------------------------------------------

  /** What its shipper has to know. */
  order(nr: number): DirtOrder {
    const gone = this.gone.get(nr)!;
    const { epoch, anew, force } = gone;
    // What the site was sent before is in its images, however far its cursor is put back.
    gone.wholeAt = Math.max(gone.wholeAt, this.p.end().seq);
    const bits = [...gone.keeps].map(([device, keep]) => {
      const { regionSectors, deviceSectors: sectors, buffer } = keep.bits;
      return { nr: device, regionSectors, sectors, buffer };
    });
    return { epoch, at: { ...this.p.cursor(nr) }, wholeAt: gone.wholeAt, anew, force, bits };
  }

  /** 0 for a link in the ring. */
  epoch(nr: number): number {
    return this.gone.get(nr)?.epoch ?? 0;
  }

  wholeAt(nr: number): Seq | undefined {
    return this.gone.get(nr)?.wholeAt;
  }

  /** Nothing is dirty in the index: what the shipper was told, or is to be told when it begins. */
  clean(nr: number): { epoch: number; wholeAt: Seq } | undefined {
    const gone = this.gone.get(nr);
    return gone?.toldClean === true ? { epoch: gone.epoch, wholeAt: gone.wholeAt } : undefined;
  }

  /** Regions that are dirty at the link. */
  regions(nr: number): number {
    let regions = 0;
    for (const { bits } of this.gone.get(nr)?.keeps.values() ?? []) regions += bits.count;
    return regions;
  }

  /** Bytes of the devices that lie in them; a little more where a device ends within one. */
  bytes(nr: number): number {
    let sectors = 0;
    for (const { bits } of this.gone.get(nr)?.keeps.values() ?? [])
      sectors += Math.min(bits.count * bits.regionSectors, bits.deviceSectors);
    return sectors * SECTOR;
  }

  /** The dirty logs of a link that is out of the ring, by device. */
  logs(nr: number): ReadonlyMap<number, DirtyKeep> {
    return this.gone.get(nr)?.keeps ?? new Map<number, DirtyKeep>();
  }

  // --- news ------------------------------------------------------------------------------------------------

  /** The site has settled copies. */
  copied(nr: number, report: CopiedReport): void {
    const gone = this.gone.get(nr);
    if (gone === undefined || report.epoch !== gone.epoch) return;
    gone.reports.push({ ...report });
    if (report.t2 <= this.p.synced()) return this.p.commit(false);
    // Only the sync of slink 0's images is waited for: asked for once, however many reports come meanwhile.
    if (gone.hurried || gone.reports.reduce((sum, { regions }) => sum + regions, 0) < this.regions(nr)) return;
    gone.hurried = true;
    this.p.hurry();
  }

  /** The site says that it is whole at `seq`. True where it is: its link is in order, and its fact is to be noted. */
  inSync(nr: number, epoch: number, seq: Seq): boolean {
    const gone = this.gone.get(nr);
    if (gone === undefined || gone.epoch !== epoch || !gone.toldClean || seq < gone.wholeAt || this.leaving.has(nr))
      return false;
    this.forget(nr);
    this.dropped.push({ link: nr });
    this.p.commit(true);
    return true;
  }

  /** Marks a piece (a table or a batch of the log); 0 while a link is on its way out of the ring. */
  step(): number {
    for (const [nr, { marking, to }] of this.leaving) {
      // It has come that far by itself.
      if (this.p.cursor(nr).seq >= to.seq) {
        this.stopLeaving(nr);
        continue;
      }
      try {
        if (marking.step() === 0) return 0;
      } catch (error) {
        if (!(error instanceof RepError)) throw error;
        this.p.events.failed(`site ${nr}: what it lacks cannot be read: ${error.message}; all of it is resynced`);
        for (const bits of marking.bits.values()) bits.fill();
      }
      this.stopLeaving(nr);
      this.add(nr, marking.bits, to);
    }
    return this.leaving.size > 0 ? 0 : 1000;
  }

  /** Nothing is marked any more; what is known goes on into commits. */
  stop(): void {
    for (const nr of [...this.leaving.keys()]) this.stopLeaving(nr);
  }

  close(): void {
    this.stop();
    for (const { keeps } of this.gone.values()) for (const keep of keeps.values()) keep.close();
  }

  // --- what a commit holds (Checkpointer) ------------------------------------------------------------------

  /** See DirtPort. */
  take(synced: Seq): Pick<IndexChange, 'dirty' | 'dropDirty'> {
    const change: Pick<IndexChange, 'dirty' | 'dropDirty'> = {};
    for (const [nr, gone] of this.gone) this.fitDevices(nr, gone);
    if (this.dropped.length > 0) change.dropDirty = [...this.dropped];
    for (const [nr, gone] of this.gone) {
      this.clear(gone, synced);
      for (const [device, keep] of gone.keeps) {
        if (!gone.changed.has(device) && keep.retry()) gone.changed.add(device);
        if (!gone.changed.has(device)) continue;
        keep.before(change);
        this.tellDead(nr, device, gone);
      }
    }
    return change;
  }

  /** See DirtPort. */
  committed(): void {
    this.dropped = [];
    for (const [nr, gone] of this.gone) {
      for (const device of gone.changed) {
        gone.keeps.get(device)!.behind();
        this.tellDead(nr, device, gone);
      }
      gone.changed.clear();
      if (gone.toOrder) {
        gone.toOrder = false;
        this.p.events.ordered(nr);
      }
      if (gone.toldClean || this.regions(nr) > 0) continue;
      gone.toldClean = true;
      // Wherever its cursor was put back from: the site may have what was durable until now, and nothing newer.
      gone.wholeAt = Math.max(gone.wholeAt, this.p.end().seq);
      this.p.events.clean(nr, gone.epoch, gone.wholeAt);
    }
  }

  // --- inside ----------------------------------------------------------------------------------------------

  private fresh(): Gone {
    return {
      epoch: ++this.lastEpoch,
      ...{ wholeAt: 0, anew: false, force: false, hurried: false, toOrder: false, toldClean: false },
      ...{ keeps: new Map<number, DirtyKeep>(), reports: [], changed: new Set<number>(), dead: new Set<number>() },
    };
  }

  private allDirty({ keeps }: Gone): boolean {
    return [...keeps.values()].every(({ bits }) => bits.count === bits.regions);
  }

  private emptyKeep(nr: number, device: MarkDevice): DirtyKeep {
    const keep = this.p.keep(nr, device, false);
    // Nothing was dirty there until now, whatever its dirty log was left with.
    keep.bits = new DirtyBits(this.p.region, device.sectors);
    return keep;
  }

  /**
   * Devices may have come and gone. A new one is clean: its DEVICE_ADD and all that is written to it follow in the log, or
   * are before a later drop, which marks; and so is what was added to one. Nobody is to wait for one that left.
   */
  private fitDevices(nr: number, { keeps, changed }: Gone): void {
    const devices = this.p.devices();
    for (const device of devices) {
      if (keeps.has(device.nr)) continue;
      keeps.set(device.nr, this.emptyKeep(nr, device));
      changed.add(device.nr);
    }
    for (const [device, keep] of [...keeps]) {
      if (devices.some((d) => d.nr === device)) continue;
      for (let region = keep.bits.next(0); region >= 0; region = keep.bits.next(region + 1)) keep.bits.clear(region);
      keep.close();
      keeps.delete(device);
      changed.delete(device);
      this.dropped.push({ link: nr, device });
    }
  }

  /** The link is out of the ring with these marks and those it had, and its cursor at `to`; a new epoch begins. */
  private add(nr: number, marks: ReadonlyMap<number, DirtyBits>, to: SiteCursor): void {
    const gone = this.gone.get(nr) ?? this.fresh();
    for (const [device, bits] of marks) {
      const keep = gone.keeps.get(device) ?? this.emptyKeep(nr, { nr: device, sectors: bits.deviceSectors });
      // The shipper gets other bits, of the size of the present, with the order of the new epoch.
      if (keep.bits.deviceSectors !== bits.deviceSectors) keep.bits = keep.bits.resized(bits.deviceSectors);
      keep.bits.or(bits);
      gone.keeps.set(device, keep);
      gone.changed.add(device);
    }
    Object.assign(gone, { epoch: ++this.lastEpoch, reports: [], hurried: false, toldClean: false, toOrder: true });
    // Of what the site holds besides, more is known now than that all of it is to be copied.
    gone.anew = gone.anew && this.allDirty(gone);
    gone.wholeAt = Math.max(gone.wholeAt, to.seq);
    this.gone.set(nr, gone);
    this.p.events.dropped(nr, { ...to }, this.regions(nr));
    this.p.commit(true);
  }

  private stopLeaving(nr: number): void {
    this.leaving.get(nr)?.marking.close();
    this.leaving.delete(nr);
  }

  /** Takes what was copied off the bits, as far as it cannot be taken back any more. */
  private clear(gone: Gone, synced: Seq): void {
    const doubts = this.p.doubts();
    gone.reports = gone.reports.filter((report) => {
      if (report.doubts !== doubts) return false;
      if (report.t2 > synced) return true;
      const { device, first, regions, t2 } = report;
      gone.wholeAt = Math.max(gone.wholeAt, t2);
      gone.hurried = false;
      const keep = gone.keeps.get(device);
      if (keep === undefined) return false;
      for (let region = first; region < first + regions; region++) keep.bits.clear(region);
      gone.changed.add(device);
      return false;
    });
  }

  /** Once, until it works again. */
  private tellDead(nr: number, device: number, { keeps, dead }: Gone): void {
    const { state, reason } = keeps.get(device)!.log;
    if (state === 'A') dead.delete(device);
    else if (!dead.has(device)) {
      dead.add(device);
      this.p.events.failed(`site ${nr}: ${reason}; the index keeps its marks until that works again`);
    }
  }
}
