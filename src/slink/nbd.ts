/** Slink type `nbd`: the exports of an NBD server, the device's name or what the map says instead. */
import { RepError } from '../base/errors.js';
import { NbdLegs } from './nbd-legs.js';
import { parseNbdAddress, parseNbdOptions } from './nbd-options.js';
import { RawSite } from './raw-site.js';
import type { SlinkSite, SlinkType } from './types.js';

/** In a table, where `timeout` alone is a fall-behind limit. */
const PREFIX = 'nbd-';

export const NBD: SlinkType = {
  summary: 'the exports of an NBD server, with or without TLS',
  acks: ['durable'],
  paths: false,
  check: (site) => {
    try {
      parseNbdAddress(site.address);
      parseNbdOptions(site.options);
      return '';
    } catch (error) {
      if (error instanceof RepError) return error.message;
      throw error;
    }
  },
  toTable: (site, devices) => ({
    legs: devices.map((device) => ({ device, path: `${site.address}/${exportOf(site, device)}` })),
    words: Object.fromEntries(Object.entries(site.options).map(([word, value]) => [`${PREFIX}${word}`, value])),
  }),
  fromTable: ({ legs, words }) => {
    const options: Record<string, string> = {};
    for (const [word, value] of Object.entries(words)) {
      if (!word.startsWith(PREFIX))
        throw new RepError(
          'EINVAL',
          `nbd: ${word}=${value}: is not known; options of an nbd site begin with ${PREFIX}`,
        );
      options[word.slice(PREFIX.length)] = value;
    }
    parseNbdOptions(options);
    const map: Record<string, string> = {};
    let address: string | undefined;
    for (const { device, path } of legs) {
      const cut = path.indexOf('/');
      if (cut < 0) throw new RepError('EINVAL', `nbd: ${path}: is not HOST:PORT/EXPORT`);
      const host = path.slice(0, cut);
      parseNbdAddress(host);
      if (address !== undefined && address !== host)
        throw new RepError(
          'EINVAL',
          `nbd: ${path}: the legs of a site are exports of one server; this one is not on ${address}`,
        );
      address = host;
      if (path.slice(cut + 1) !== device) map[device] = path.slice(cut + 1);
    }
    if (address === undefined) throw new RepError('EINVAL', 'nbd: a site needs a leg, HOST:PORT/EXPORT');
    return { address, map, options };
  },
  make: (site, io, clock, { stamp, nbd }) => {
    const port = nbd({ address: site.address, options: parseNbdOptions(site.options) });
    const legs = new NbdLegs(port, site.address, site.map);
    return new RawSite(io, clock, { type: 'nbd', legs, stamp, wipe: 'name a new, empty export, or wipe this one' });
  },
};

function exportOf(site: SlinkSite, device: string): string {
  return Object.hasOwn(site.map, device) ? site.map[device]! : device;
}
