/**
 * Detaching slink 0 and attaching it again: main's machine. It decides where reads are to come from and offers that to
 * the data thread, which has the last word, since only it knows HEAD for certain (device/source.ts).
 *
 *   local images fail ─▶ a site whose images hold everything below HEAD ─▶ note durable ─▶ its descriptors ─▶ offer
 *   they work again and APPLIED has reached HEAD ─▶ offer ─▶ note gone
 *
 * A site that reads come from and that fails leaves requests waiting; it may be opened again, or another one may have
 * everything. Whoever waits longer than `graceMs` is answered with EIO.
 */
import type { Clock, Machine } from '../base/clock.js';
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { SiteReader } from './contract.js';
import type { Readers } from './shipper.js';

export interface DetachSite {
  nr: number;
  place: number;
  paused: boolean;
}

/** What the data thread is offered; without images slink 0's, which it opens itself. */
export interface SourceOffered {
  nr: number;
  place: number;
  epoch: number;
  images: SiteReader[] | undefined;
}

export interface DetachParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  sites(): readonly DetachSite[];
  /** Why slink 0 cannot be detached just now, or ''. */
  hindrance(): string;
  /** Keeps durably that slink 0 is detached, or that it is not any more; false where that failed. */
  note(detached: boolean): boolean;
  /** Asks a site's shipper for descriptors; `heard` gets its answer. */
  ask(nr: number): void;
  /** Its descriptors are not used any more. */
  leave(nr: number): void;
  /** Descriptors that came too late. */
  discard(images: readonly SiteReader[]): void;
  /** Offers to the data thread; `answered` gets its answer. */
  offer(offer: SourceOffered): void;
  /** The data thread answers those who wait for images with EIO. */
  giveUp(): void;
  /** Shippers and applier are to come as far as they can, soon. */
  hurry(): void;
  events: {
    detached(nr: number): void;
    attached(): void;
  };
}

export interface DetachOptions {
  /** The note was there when the daemon began. */
  noted: boolean;
  /** How long requests wait for images before they get EIO. Default 5000. */
  graceMs?: number;
  /** How often is looked again. Default 1000. */
  lookMs?: number;
}

/** A shipper that hangs in a call to its site does not answer. */
const ASK_MS = 2000;
/** How often images of slink 0 that are applied to and cannot be read are opened again. */
const REOPEN_MS = 15_000;

const LOCAL: SourceOffered = { nr: 0, place: -1, epoch: 0, images: undefined };

export class LocalDetach implements Machine {
  /** Why reads come from nowhere, or slink 0 is still attached although it fails; '' where neither is so. */
  reason = '';
  private readonly p: DetachParts;
  private readonly graceMs: number;
  private readonly lookMs: number;
  private noted: boolean;
  /** The site that was asked, and until when it is waited for. */
  private asked: { nr: number; place: number; until: number } | undefined;
  private offering: SourceOffered | undefined;
  /** What the data thread took last. */
  private given: SourceOffered | undefined;
  /** Sites that had nothing to offer this time, and why. */
  private readonly refused = new Map<number, string>();
  /** Errno (positive) that reads of slink 0 gave. */
  private readError = 0;
  private waitsSince = -1;
  private gaveUp = false;
  private lookAt = -Infinity;
  private openAt = -Infinity;

  constructor(parts: DetachParts, options: DetachOptions) {
    this.p = parts;
    this.noted = options.noted;
    this.graceMs = options.graceMs ?? 5000;
    this.lookMs = options.lookMs ?? 1000;
  }

  /** Number of the site that reads come from, 0 = slink 0's images, -1 = nobody yet. */
  get source(): number {
    return this.p.window.load(W.SOURCE);
  }

  /** True where slink 0 is detached, or should be: with a reason, it waits for a site. */
  get wanted(): boolean {
    return this.source !== 0 || this.fails;
  }

  /** Why reads are not served, or come from images that fail; '' where all is well. */
  get waits(): string {
    if (this.source !== 0 && this.present) return '';
    return this.reason === '' ? 'a site is being looked for' : this.reason;
  }

  /** The data thread: requests wait for images; the source gave `errno`, or is gone (0). */
  starved(errno: number): void {
    if (errno !== 0 && this.source === 0) this.readError = errno;
    else if (errno !== 0) {
      this.refused.set(this.source, 'its images cannot be read');
      this.given = undefined;
    }
    if (this.waitsSince < 0) this.waitsSince = this.p.clock.monoMs();
    this.lookAt = -Infinity;
  }

  /** Something has changed: look now. */
  news(): void {
    this.lookAt = -Infinity;
  }

  /** A shipper's answer. */
  heard(nr: number, answer: Readers | string): void {
    const { asked } = this;
    if (typeof answer === 'string') this.refused.set(nr, answer);
    if (asked?.nr !== nr) {
      if (typeof answer !== 'string') this.p.discard(answer.images);
      return;
    }
    this.asked = undefined;
    if (typeof answer === 'string') return this.news();
    this.offerNow({ nr, place: asked.place, epoch: answer.epoch, images: answer.images });
  }

  private offerNow(offer: SourceOffered): void {
    this.offering = offer;
    this.p.offer(offer);
  }

  /** The data thread's answer to an offer. */
  answered(nr: number, taken: boolean, why: string): void {
    const { offering } = this;
    if (offering?.nr === nr) this.offering = undefined;
    if (!taken) {
      if (nr === 0) return;
      this.refused.set(nr, why);
      if (this.given?.nr !== nr) this.p.leave(nr);
      return this.news();
    }
    this.news();
    const before = this.given;
    this.given = offering;
    this.waitsSince = -1;
    this.gaveUp = false;
    this.readError = 0;
    this.reason = '';
    this.refused.clear();
    if (before !== undefined && before.nr > 0 && before.nr !== nr) this.p.leave(before.nr);
    if (nr > 0) return this.p.events.detached(nr);
    if (!this.noted) return;
    if (this.p.note(false)) this.noted = false;
    this.p.events.attached();
  }

  step(): number {
    const now = this.p.clock.monoMs();
    this.bound(now);
    if (this.asked !== undefined && now >= this.asked.until) {
      this.refused.set(this.asked.nr, 'it does not answer');
      this.asked = undefined;
    }
    if (this.asked !== undefined || this.offering !== undefined) return this.lookMs;
    if (now < this.lookAt) return this.lookAt - now;
    this.lookAt = now + this.lookMs;
    if (this.source === 0) this.lookAttached();
    else if (!this.back() && !this.present) this.findSite();
    return this.lookMs;
  }

  /** Who waits is not left without an answer. */
  private bound(now: number): void {
    if (this.source !== 0 && !this.present && this.waitsSince < 0) this.waitsSince = now;
    if (this.waitsSince < 0 || this.gaveUp || now - this.waitsSince < this.graceMs) return;
    this.gaveUp = true;
    this.p.giveUp();
  }

  private get present(): boolean {
    const { given, p } = this;
    return given !== undefined && given.nr === this.source && p.shared.load(SH.IMAGES + given.place) === given.epoch;
  }

  private get fails(): boolean {
    return this.p.shared.load(SH.LOCAL_ERROR) !== 0 || this.readError !== 0;
  }

  private lookAttached(): void {
    if (this.fails) {
      this.findSite();
      return this.openAgain();
    }
    this.reason = '';
    this.waitsSince = -1;
    // A daemon before may have died between the switch back and this.
    if (this.noted && this.p.note(false)) this.noted = false;
  }

  /** Only reads fail, and no site can serve them: perhaps because the images are others than those that were opened. */
  private openAgain(): void {
    const now = this.p.clock.monoMs();
    if (this.asked !== undefined || this.reason === '' || now < this.openAt) return;
    if (this.p.shared.load(SH.LOCAL_ERROR) !== 0) return;
    this.openAt = now + REOPEN_MS;
    this.offerNow(LOCAL);
  }

  /** Slink 0 works again and lacks nothing but what is in the window: true where it was offered. */
  private back(): boolean {
    const { window, shared } = this.p;
    if (window.load(W.AWAY) === 0 || shared.load(SH.LOCAL_ERROR) !== 0) return false;
    const head = window.load(W.HEAD);
    if (((window.load(W.APPLIED) - head) | 0) < 0) return false;
    this.offerNow(LOCAL);
    return true;
  }

  private findSite(): void {
    const { p } = this;
    const hindrance = p.hindrance();
    if (hindrance !== '') {
      this.reason = hindrance;
      return;
    }
    const site = this.choose();
    if (site === undefined) {
      this.refused.clear();
      return p.hurry();
    }
    // ! Before the first record can leave the window that slink 0 lacks: a mount that finds it broken then must know.
    if (!this.noted && !(this.noted = p.note(true))) {
      this.reason = 'that slink 0 is detached cannot be noted in the state folder';
      return;
    }
    this.asked = { nr: site.nr, place: site.place, until: p.clock.monoMs() + ASK_MS };
    p.ask(site.nr);
  }

  /** The site that has most of those that may serve; where there is none, `reason` says why. */
  private choose(): DetachSite | undefined {
    const { window, shared } = this.p;
    const head = window.load(W.HEAD);
    const ahead = (site: DetachSite): number => (shared.load(SH.HELD + site.place) - head) | 0;
    const open = (site: DetachSite): boolean => (shared.load(SH.IMAGES + site.place) & 1) === 1;
    const why: string[] = [];
    let best: DetachSite | undefined;
    for (const site of this.p.sites()) {
      const refused = this.refused.get(site.nr);
      if (refused !== undefined) why.push(`site ${site.nr}: ${refused}`);
      else if (!open(site)) why.push(`site ${site.nr} is not open`);
      else if (ahead(site) < 0) why.push(`site ${site.nr} lacks ${-ahead(site)} writes`);
      else if (best === undefined || rank(site, ahead(site)) > rank(best, ahead(best))) best = site;
    }
    this.reason = best !== undefined ? '' : why.length === 0 ? 'there is no site' : why.join(', ');
    return best;
  }
}

/** A paused site keeps nobody waiting that another one would not. */
function rank(site: DetachSite, ahead: number): number {
  return site.paused ? ahead - 2 ** 31 : ahead;
}
