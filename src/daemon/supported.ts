/** Settings that group.json can hold and that this version does not serve yet: refused, never passed over. */
import { RepError } from '../base/errors.js';
import type { GroupConfig } from '../control/config.js';
import { dirtyLogFault } from '../control/dirty-logs.js';
import type { Registry } from '../registry/registry.js';
import { RESYNC_SERVED } from '../slink/resync.js';
import { SLINK } from '../slink/types.js';

/** Whether links may leave the ring and be resynced; tests turn it on. */
export function resyncServed(): boolean {
  return RESYNC_SERVED || process.env['REPTOOL_TEST_RESYNC'] === '1';
}

/** Throws EINVAL naming the first setting that is not served. */
export function checkSupported(config: GroupConfig, types: Registry, file: string): void {
  const refuse = (word: string): never => {
    throw new RepError('EINVAL', `${file}: ${word}: not served by this version; remove it or use a newer reptool`);
  };
  const dirtyLogs = dirtyLogFault(config, types);
  if (dirtyLogs !== '') throw new RepError('EINVAL', `${file}: ${dirtyLogs}`);
  config.sites.forEach((site, i) => {
    const type = types.peek(SLINK, site.type);
    // It may be that of a plug-in which failed to load: then the site fails, and the disks are served.
    if (type === undefined && config.plugins.length > 0) return;
    if (type === undefined) return refuse(`sites[${i}].type "${site.type}"`);
    const fault = type.check(site);
    if (fault !== '') throw new RepError('EINVAL', `${file}: sites[${i}]: ${fault}`);
    // Only a hub keeps what it has received where the death of its process does not reach it.
    if (site.ack !== 'durable') refuse(`sites[${i}].ack "${site.ack}" for a site of type ${site.type}`);
  });
}
