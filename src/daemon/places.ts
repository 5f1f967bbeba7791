/**
 * Which place each link has: its words, its bell, its bit in a set of links. Kept in the window, since the bits
 * that stand with records there must mean the same links to the next daemon.
 */
import { RepError } from '../base/errors.js';
import { MAX_LINK_THREADS } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';

/** Gives each site its place: the one it had, else a free one. Places of sites that are no more become free. */
export function assignPlaces(window: Window, sites: readonly { nr: number }[]): number[] {
  for (let place = 0; place < MAX_LINK_THREADS; place++) {
    const nr = window.load(W.LINKS + place);
    if (nr !== 0 && !sites.some((site) => site.nr === nr)) freePlace(window, place);
  }
  return sites.map(({ nr }) => takePlace(window, nr));
}

/** The place of site `nr`, taken if it has none yet. Throws EBUSY where all are taken. */
export function takePlace(window: Window, nr: number): number {
  let free = -1;
  for (let place = MAX_LINK_THREADS - 1; place >= 0; place--) {
    const holder = window.load(W.LINKS + place);
    if (holder === nr) return place;
    if (holder === 0) free = place;
  }
  if (free < 0)
    throw new RepError('EBUSY', `site ${nr}: ${MAX_LINK_THREADS} sites are served at most; remove one first`);
  Atomics.store(window.words, W.LINKS + free, nr);
  return free;
}

export function freePlace(window: Window, place: number): void {
  Atomics.store(window.words, W.LINKS + place, 0);
}
