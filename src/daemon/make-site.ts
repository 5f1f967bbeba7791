/** From a site as it is configured to the one that does the work. */
import type { Clock } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import type { SiteConfig } from '../control/config.js';
import type { Site } from '../slink/contract.js';
import { FolderSite } from '../slink/folder.js';

/** Throws ENOENT for a type that is not registered. */
export function makeSite(site: SiteConfig, io: Io, clock: Clock): Site {
  if (site.type === 'blockdev' && site.address !== '') return new FolderSite(io, clock, site.address);
  throw new RepError('ENOENT', `site ${site.nr}: unknown type "${site.type}"; correct group.json`);
}
