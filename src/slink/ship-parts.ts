/** What a shipper is made with, and what it gives to those who read its site's images. */
import type { Clock } from '../base/clock.js';
import type { LogFile } from '../replog/logfile.js';
import type { LinkMeter } from '../replog/meters.js';
import type { Shared } from '../replog/shared.js';
import type { Window } from '../replog/window.js';
import type { GroupIdentity, LinkState, OpenWindow, Site, SiteCursor, SiteDevice, SiteReader } from './contract.js';
import type { DeferOptions } from './deferral.js';
import type { Resync } from './resync.js';
import type { ResyncOrder } from './resync-order.js';
import type { VerifierParts } from './verifier.js';
import type { VerifyReport } from './verify.js';

export interface ShipperEvents {
  /** The site has confirmed everything before `place`, a batch boundary of the log (Checkpointer.noteLink). */
  cursor(place: SiteCursor): void;
  /** The state or its reason changed. */
  state(state: LinkState, reason: string): void;
  /**
   * A site that can have an open window was looked at, or sends: now and then, for how much is on its way. What the
   * window is at any moment stands in the words LINK_SEQ and SENT.
   */
  window?(window: OpenWindow | null): void;
  /** It has been at rest for a while, after being opened or having sent something. */
  rests?(): void;
  /** How far the verify is that was ordered as `id`. */
  verify?(id: number, report: VerifyReport): void;
}

export interface ShipperParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  log: LogFile;
  site: Site;
  events: ShipperEvents;
  /** Counts for metrics. */
  meter?: LinkMeter;
  /** Copies where the link has left the ring; left out: it never does. */
  resync?: Resync;
  /** Slink 0's images for a verify; left out: there is none. */
  locals?: VerifierParts['locals'];
}

export interface ShipperOptions {
  identity: GroupIdentity;
  /** What a site that is made starts with: the devices at the beginning of history; the log tells the rest. */
  devices: readonly SiteDevice[];
  /** What the index knows of the link; the site may be ahead of it, never behind. */
  cursor: SiteCursor;
  /** True for a link that has never been open: the site may be made at `cursor`. */
  fresh: boolean;
  /** Place of the link among those that are served: which words are its own. */
  place: number;
  paused?: boolean;
  /** How long an async site may wait for a larger batch; 0 sends at once. Default 100. */
  rpoMs?: number;
  /** Lets the site lag beyond `rpoMs` while the group is busy and the log has room; left out: never. */
  defer?: DeferOptions;
  /** How often a site that failed is tried again, and one that is open is looked at. Default 15 000. */
  probeMs?: number;
  /** Idle time after which the site is flushed. Default 1000. */
  idleMs?: number;
  /** Bytes per second that are sent at most; 0 = unlimited, the default. */
  bandwidth?: number;
  /** The link is out of the ring from the start. */
  resync?: ResyncOrder;
}

/** Descriptors of a site's images. */
export interface Readers {
  images: SiteReader[];
  epoch: number;
}
