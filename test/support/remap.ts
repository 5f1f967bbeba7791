/** A group that was never mounted, so that its site can be set up before anything was sent to it. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultConfig, plainSite, type SiteConfig } from '../../src/control/config.js';
import { createGroup } from '../../src/control/create.js';
import { unlockGroup } from '../../src/control/lock.js';
import { Mounted, type MountOptions } from './mounted.js';

const MIB = 1024 * 1024;

export class Remapped extends Mounted {
  /** Puts `site` in place of site 1 in group.json; the group is not mounted. */
  configureSite(site: Pick<SiteConfig, 'type' | 'address'> & Partial<SiteConfig>): void {
    const file = join(this.groupDir, 'group.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { sites: SiteConfig[] };
    config.sites = [{ ...plainSite(site.nr ?? 1, site.type, site.address), ...site }];
    writeFileSync(file, JSON.stringify(config));
  }
}

/** disk0 of 32 MiB (or `size` MiB), a log of 64 MiB (or `log`), no site. */
export async function remapped(options: MountOptions & { mib?: number; log?: number } = {}): Promise<Remapped> {
  const m = new Remapped(options);
  try {
    const config = defaultConfig(m.groupDir, randomBytes(16).toString('hex'));
    config.sites = [];
    config.devices[0]!.size = (options.mib ?? 32) * MIB;
    config.log.size = (options.log ?? 64) * MIB;
    unlockGroup(await createGroup(m.groupDir, config, { sparse: new Set([0]) }));
    return m;
  } catch (error) {
    await m.cleanup();
    throw error;
  }
}
