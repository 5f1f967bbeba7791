/**
 * What a shipper tells: the words of its link, which other threads look at (replog/shared), and what main hears of its
 * cursor and of its open window, no oftener than it can use.
 */
import { SH, SHF, type Bell, type Shared } from '../replog/shared.js';
import { MIB } from '../base/units.js';
import type { OpenWindow, SiteCursor } from './contract.js';
import type { ShipperEvents } from './ship-parts.js';

/** The index hears of the cursor this often at most, and so long after data cease at the latest. */
export const CURSOR_MS = 50;
const CURSOR_BYTES = 16 * MIB;

export class LinkWords {
  private readonly shared: Shared;
  private readonly place: number;
  private readonly events: ShipperEvents;
  private readonly committer: Bell;
  private readonly told: { pos: number; at: number };
  private readonly toldWindow = { open: false, known: false, at: -Infinity };

  constructor(shared: Shared, place: number, events: ShipperEvents, cursor: SiteCursor) {
    this.shared = shared;
    this.place = place;
    this.events = events;
    this.committer = shared.bell(SH.BELL_COMMIT);
    this.told = { pos: cursor.pos, at: -Infinity };
  }

  /** Somebody waits for a record that the site has not confirmed. */
  wanted(cursor: SiteCursor): boolean {
    return this.shared.floatView[SHF.WANTED + this.place]! > cursor.seq;
  }

  /** BYTES where the window does not say: an estimate from log positions. */
  estimate(bytes: number): void {
    this.shared.floatView[SHF.BYTES + this.place] = bytes;
  }

  /**
   * The cursor has moved on by `bytes` of payload, up to payload position `exact` (-1 = not known); nothing behind it is
   * older than `oldestUs`. Who waits for it is told.
   */
  publish(cursor: SiteCursor, bytes: number, exact: number, oldestUs: number): void {
    const { shared, place } = this;
    const { floatView } = shared;
    if (exact >= 0) floatView[SHF.BYTES + place] = exact;
    else floatView[SHF.BYTES + place]! += bytes;
    floatView[SHF.OLDEST + place] = oldestUs;
    const near = cursor.seq;
    const before = shared.linkSeq(place, near);
    shared.store(SH.LINK_SEQ + place, near | 0);
    if (floatView[SHF.WANTED + place]! > before) this.committer.ring();
  }

  oldest(us: number): void {
    this.shared.floatView[SHF.OLDEST + this.place] = us;
  }

  /** IMAGES and HELD: odd while the site is open. Even before anything may be written to it that is not new. */
  imagesHold(hold: boolean, cursor: SiteCursor): void {
    const { shared } = this;
    const word = SH.IMAGES + this.place;
    const now = shared.load(word);
    // Behind what was staged and is not in the images the old place stands until the site was opened again.
    if (hold) shared.store(SH.HELD + this.place, cursor.seq | 0);
    if (((now & 1) === 1) !== hold) shared.store(word, (now + 1) | 0);
  }

  /** Up to where the site may hold records. */
  sent(to: number): void {
    this.shared.floatView[SHF.SENT + this.place] = to;
  }

  /** True where main has heard of `cursor`. */
  knows(cursor: SiteCursor): boolean {
    return this.told.pos === cursor.pos;
  }

  /** Main has it from elsewhere. */
  hasTold(cursor: SiteCursor): void {
    this.told.pos = cursor.pos;
  }

  /** When main may hear of the next cursor. */
  get due(): number {
    return this.told.at + CURSOR_MS;
  }

  cursor(now: number, cursor: SiteCursor, atOnce: boolean): void {
    const { told } = this;
    if (told.pos === cursor.pos && told.at > -Infinity) return;
    if (!atOnce && now - told.at < CURSOR_MS && cursor.pos - told.pos < CURSOR_BYTES) return;
    told.pos = cursor.pos;
    told.at = now;
    this.events.cursor({ ...cursor });
  }

  /** Main hears at once that a window opens or closes, and now and then how it moves. */
  window(now: number, window: OpenWindow | null | undefined): void {
    if (window === undefined) return;
    const { toldWindow } = this;
    const open = window !== null;
    const same = toldWindow.known && toldWindow.open === open;
    if (same && (!open || now - toldWindow.at < CURSOR_MS)) return;
    Object.assign(toldWindow, { open, known: true, at: now });
    this.events.window?.(window);
  }
}
