/**
 * `.ctl/table`: the group as table lines, in the grammar of the `replicator` and `replicator-dev` targets.
 * What was `auto` or `create` when the log was made is `open` now, so that the lines can be used again as they
 * stand. A blank in a path is written as `\ `, as dmsetup does.
 *
 *   0 1 replicator ringbuffer 4 <log> 0 open <sectors> {blockdev <2…> <slink> <policy> [<limit> <value>]…}
 *   [<name>: ]0 <sectors> replicator-dev <group> <nr> {<slink> 1 <path> nolog 0}
 */
import { SECTOR } from '../base/units.js';
import { imagePath } from '../slink/folder-devices.js';
import type { GroupConfig, SiteConfig } from './config.js';
import { limitWords, policyWords } from './policy-words.js';
import { namePrefix } from './status-lines.js';

export function tableLines(config: GroupConfig): string {
  const local = config.durability === 'write' ? 'sync' : 'async';
  const log = `ringbuffer 4 ${word(config.log.path)} 0 open ${config.log.size / SECTOR}`;
  const links = [`blockdev 2 0 ${local}`, ...config.sites.map(linkWords)];
  const lines = [`0 1 replicator ${log} ${links.join(' ')}`];
  for (const d of config.devices) {
    const legs = [
      `0 1 ${word(d.local)} nolog 0`,
      ...config.sites.map((site) => `${site.nr} 1 ${word(legOf(site, d.name))} nolog 0`),
    ];
    lines.push(`${namePrefix(d)}0 ${d.size / SECTOR} replicator-dev ${config.name} ${d.nr} ${legs.join(' ')}`);
  }
  return `${lines.join('\n')}\n`;
}

function linkWords(site: SiteConfig): string {
  const words = [site.nr, policyWords(site), ...limitWords(site)];
  return `${site.type} ${words.length} ${words.join(' ')}`;
}

/** Where a site keeps a device, as one word: a path. `-` where its map lacks the device. */
export function legOf(site: SiteConfig, device: string): string {
  if (site.address !== '') return imagePath(site.address, device);
  return Object.hasOwn(site.map, device) ? site.map[device]! : '-';
}

function word(text: string): string {
  return text.replace(/[\\ \t]/g, (ch) => `\\${ch}`);
}
