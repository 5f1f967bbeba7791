/**
 * What main and a shipper's thread say to each other while a site is made equal by copying (ARCHITECTURE 20): main owns
 * the bits and says what is to be done (ResyncOrder), the thread copies and reports.
 */
import type { SiteCursor, SiteDevice } from './contract.js';

/** Begin, or begin anew: the link was dropped (again), so that what was copied before does not count. */
export interface ResyncOrder {
  /** Grows with every drop; reports of another epoch are of no account. */
  epoch: number;
  /** The link's cursor: everything before it is confirmed by the site or marked; records follow from here on. */
  at: SiteCursor;
  /** In order again only where the cursor has reached it: the largest t2 of what was copied in earlier lives. */
  wholeAt: number;
  /** The devices of the present, and the first number that none had yet (SiteResync). */
  devices: SiteDevice[];
  nextDevice: number;
  /**
   * The site begins at `at` whatever it says of itself; true only where everything is marked, since what it holds besides
   * is not known. Counts for the first successful `open` of the epoch.
   */
  anew: boolean;
  force: boolean;
  /** Images of slink 0; `size` of the device, bytes. */
  locals: LocalCopySource[];
  bits: SharedBits[];
}

export interface LocalCopySource {
  nr: number;
  path: string;
  size: number;
}

/**
 * Bits of a device at this site (dirtylog/bits): set = dirty. Main alone writes them; those of a device that leaves are
 * cleared by main, so that nobody waits for it.
 */
export interface SharedBits {
  nr: number;
  regionSectors: number;
  /** Of the device. */
  sectors: number;
  buffer: SharedArrayBuffer;
}

/**
 * Regions that were copied and settled at the site. They are clean once the checkpoint has passed `t2`, provided that no
 * newer epoch has begun and that SH.DOUBTS still is `doubts`: a sync of slink 0's images that failed meanwhile may have
 * taken back what was read of them, and then they stay dirty and are copied again.
 */
export interface CopiedReport {
  epoch: number;
  device: number;
  /** First region, and how many. */
  first: number;
  regions: number;
  /** Nothing newer than the records below it was copied. */
  t2: number;
  doubts: number;
}

/** The site's stamp says that it is a prefix of history at `place`. */
export interface InSyncReport {
  epoch: number;
  place: SiteCursor;
}

/** A few times a second at most. Bytes since the epoch began. */
export interface ResyncProgress {
  epoch: number;
  /** Of regions that are done: compared or copied, holes included. */
  looked: number;
  /** Written to the site, and how much of it was zeroed only. */
  copied: number;
  zeroed: number;
  /** Of regions that are still to be done. */
  left: number;
  /** Bytes per second by which `left` fell lately. */
  rate: number;
}
