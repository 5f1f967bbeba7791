import type { LogPlace } from '../replog/format.js';

/** How far a site has come: a place in the log and the reign of the last record before it. */
export interface SiteCursor extends LogPlace {
  reign: number;
}
