/**
 * Where reads come from below what the window holds: slink 0's images, or, while slink 0 is detached, those of a site.
 * Owned by the data thread, which alone moves SOURCE and HEAD; so no record leaves the window between the look whether
 * some images hold everything below HEAD and the switch to them.
 *
 * A site's images may be taken from under a reader at any time: its shipper fails, opens the site again and redoes
 * its stage, oldest records first. IMAGES of its link is odd while they may be read and never has a value twice, so
 * a read counts only if the word is the same before and behind it (`mark`, `stands`).
 *
 *   invariant: the images that SOURCE names hold everything below HEAD, whether they can be read just now or not
 */
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';

/** What reads may come from instead; descriptors belong to the reader once it was taken. */
export interface SourceOffer {
  /** 0 = slink 0's images. */
  nr: number;
  /** Place of the site's link, and IMAGES when its images were opened for reading. */
  place: number;
  epoch: number;
}

/** `mark` of a read of slink 0's images. */
const LOCAL = -1;
const EPOCHS = 2 ** 32;

export class ReadSource {
  /** Nobody is expected to come: what needs images is answered with EIO instead of waiting. */
  lost = false;
  /** A request waits for another source, although there is one: it gives errors. */
  stuck = false;
  /** `mark` of the site whose images gave an error. */
  private erred = LOCAL;
  private readonly window: Window;
  private readonly shared: Shared;
  /** SOURCE. */
  private at: number;
  /** Of the site that may be read; -1 = none, also after a daemon's death, until main offers it again. */
  private place = -1;
  private epoch = 0;

  constructor(window: Window, shared: Shared) {
    this.window = window;
    this.shared = shared;
    this.at = window.load(W.SOURCE);
  }

  get nr(): number {
    return this.at;
  }

  /** True where there are images to read. */
  get present(): boolean {
    return this.at === 0 || (this.place >= 0 && this.shared.load(SH.IMAGES + this.place) === this.epoch);
  }

  /** Requests that need images are to wait. */
  get waits(): boolean {
    return !this.lost && (this.stuck || !this.present);
  }

  /** The images hold everything below it. `head`: HEAD, which it never is below once a site is the source. */
  held(near: number, head: number): number {
    if (this.at === 0) return this.window.seqOf(W.APPLIED, near);
    if (this.place < 0) return head;
    const seq = this.shared.heldSeq(this.place, near);
    // What was confirmed before a failure is in doubt behind it: the word is looked at last.
    return seq > head && this.present ? seq : head;
  }

  /** HEAD may go so far, as far as images are concerned. */
  limit(near: number, head: number): number {
    const held = this.held(near, head);
    if (this.at === 0 || this.window.load(W.AWAY) === 1) return held;
    const applied = this.window.seqOf(W.APPLIED, near);
    return applied < held ? applied : held;
  }

  /** Before a read: what `stands` is asked with behind it. */
  mark(): number {
    return this.at === 0 ? LOCAL : this.place * EPOCHS + (this.epoch >>> 0);
  }

  /** True where what was read since `mark` came from images that could be read all the time. */
  stands(mark: number): boolean {
    if (mark === LOCAL) return true;
    if (mark < 0) return false;
    const place = Math.floor(mark / EPOCHS);
    return this.shared.load(SH.IMAGES + place) >>> 0 === mark - place * EPOCHS;
  }

  /** Those who wait are answered with EIO, until there is a source. */
  giveUp(): void {
    this.lost = true;
  }

  /** The source gave an error. False where it is a site's that was tried again and gives errors still. */
  mayChange(): boolean {
    if (this.at === 0) return true;
    const before = this.erred;
    this.erred = this.mark();
    return before !== this.erred;
  }

  /** Whether the offered images hold everything that is not in the window. */
  fits(offer: SourceOffer, near: number, head: number): boolean {
    const { window, shared } = this;
    if (offer.nr === 0) return shared.load(SH.LOCAL_ERROR) === 0 && window.seqOf(W.APPLIED, near) >= head;
    const held = shared.heldSeq(offer.place, near);
    return held >= head && (offer.epoch & 1) === 1 && shared.load(SH.IMAGES + offer.place) === offer.epoch;
  }

  /** Reads come from there from now on. */
  take({ nr, place, epoch }: SourceOffer): void {
    this.at = nr;
    this.place = nr === 0 ? -1 : place;
    this.epoch = epoch;
    this.lost = this.stuck = false;
    this.window.store(W.SOURCE, nr);
  }
}
