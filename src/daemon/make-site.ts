/** From a site as it is configured to the one that does the work. */
import type { Clock } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import type { Registry } from '../registry/registry.js';
import type { Site } from '../slink/contract.js';
import { SLINK, type SlinkAround, type SlinkSite } from '../slink/types.js';

export interface MadeSite {
  site: Site;
  /** Ends the use of the type; after the site is closed. */
  put(): void;
}

/** Throws ENOENT for a type that is not registered, EINVAL for a site that the type cannot make. */
export function makeSite(
  types: Registry,
  config: SlinkSite & { type: string },
  io: Io,
  clock: Clock,
  around: SlinkAround,
): MadeSite {
  const type = types.get(SLINK, config.type);
  const put = (): void => types.put(SLINK, config.type);
  try {
    const fault = type.check(config);
    if (fault !== '') throw new RepError('EINVAL', `site ${config.nr}: ${fault}`);
    return { site: type.make(config, io, clock, around), put };
  } catch (error) {
    put();
    throw error;
  }
}
