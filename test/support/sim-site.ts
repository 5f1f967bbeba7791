/**
 * One site of a simulated group: a disk of its own, a wall clock of its own, and what it has promised. It lives and
 * dies by itself: what happens to one site is nothing to the others, nor to the machine whose history it keeps.
 */
import type { Clock } from '../../src/base/clock.js';
import type { Site } from '../../src/slink/contract.js';
import type { DeferOptions } from '../../src/slink/deferral.js';
import type { LinkRules } from '../../src/slink/policy.js';
import { SimDisk } from './sim-disk.js';

export interface SiteShape {
  nr: number;
  /** Bytes of the stage's area. */
  area: number;
  rpoMs: number;
  /** Long runs go past the page cache. */
  direct?: boolean;
  /** Whom it holds; left out: nobody. */
  rules?: LinkRules;
  /** Place of its link in a window that is new; left out: the first that is free. */
  place?: number;
  /** Bytes per second; left out: as many as go. */
  bandwidth?: number;
  /** Its shipper may put its work off. */
  defer?: Required<DeferOptions>;
  /** It has no journal: a block device or file for each device; left out: a folder. */
  raw?: RawShape;
}

export interface RawShape {
  legs: 'block' | 'file';
  /** Bytes that a block device has beyond its leg. */
  spare: number;
  /** Its stamp is closed after so long without data. */
  idleMs: number;
}

/** The machine's clock as one site's thread sees it: the wall may be wrong, the monotonic part is the same. */
class SkewedClock implements Clock {
  skewUs = 0;
  private readonly machine: Clock;

  constructor(machine: Clock) {
    this.machine = machine;
  }

  wallUs(): number {
    return this.machine.wallUs() + this.skewUs;
  }

  monoMs(): number {
    return this.machine.monoMs();
  }
}

/** Told what a site answers, and what it is given. */
export interface Witness {
  /** Everything below `seq` is there, it says. */
  has(seq: number): void;
  /** It is being sent what is below `seq`. */
  gets(seq: number): void;
  /** It has opened what stands in its place. */
  opened(): void;
}

export function witnessed(site: Site, { has, gets, opened: isOpen }: Witness): Site {
  const open = site.open.bind(site);
  const write = site.write.bind(site);
  site.open = (how) => {
    const opened = open(how);
    if (opened.ok) isOpen();
    if (opened.ok && how.resync === undefined) has(opened.cursor.seq);
    return opened;
  };
  site.write = (batch, confirmed) => {
    gets(batch.before.seq + batch.records);
    // What is sent to one that is not whole is confirmed, and no prefix for all that.
    const all = (): void => {
      if (site.inconsistent !== true) has(batch.before.seq + batch.records);
    };
    const rc = write(batch, () => {
      all();
      confirmed?.();
    });
    if (rc === 0) all();
    return rc;
  };
  return site;
}

export function folderOf(nr: number): string {
  return `/site${nr}/group`;
}

/** What the images of a site are named. */
export function siteImage(nr: number, device: number): string {
  return `${folderOf(nr)}/disk${device}.img`;
}

export class SimSite {
  readonly shape: SiteShape;
  readonly disk: SimDisk;
  readonly clock: SkewedClock;
  /** Seq below which it has confirmed everything, as its shipper reported it. */
  confirmed = 0;
  /** Seq below which it may have been sent records, by this daemon or one before. */
  sent = 0;
  /** It was open once: from then on it exists. */
  made = false;
  /** An operator paused it. */
  paused = false;
  /** An operator removed it: no daemon knows it any more. */
  removed = false;
  /** The site whose disk stands in this one's place. */
  exchanged: SimSite | undefined;
  /** It was open while exchanged, and nothing could have told it: what its disk holds is nobody's promise any more. */
  spoilt = false;

  constructor(shape: SiteShape, machine: Clock, generous: boolean) {
    this.shape = shape;
    this.clock = new SkewedClock(machine);
    this.disk = new SimDisk(`site${shape.nr}`, 100 + shape.nr, generous);
    this.disk.nowMs = () => machine.monoMs();
  }

  get nr(): number {
    return this.shape.nr;
  }

  get folder(): string {
    return folderOf(this.nr);
  }

  /** Somebody mounts this site's disk and another's in each other's place; done again, it is undone. */
  exchange(other: SimSite): void {
    this.disk.exchange(other.disk, this.folder, other.folder);
    const apart = this.exchanged === undefined;
    this.exchanged = apart ? other : undefined;
    other.exchanged = apart ? this : undefined;
  }
}
