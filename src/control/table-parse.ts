/**
 * Tables: a group in the grammar of the `replicator` and `replicator-dev` targets; see reptool-tables(5).
 *
 *   [<group>: ]0 <len> replicator <replog type> <#params> <params>
 *           { <slink type> <#params> <slink nr> [<policy> [<fall-behind>…] [<key>=<value>…]] }{1..N}
 *   [<device>: ]0 <len> replicator-dev <replicator> <nr>
 *           { <slink nr> 1 <path> <dirty log> <#params> <params> }{1..N}
 *
 * Words only: whether what they name is there is for whoever uses them. Errors are RepErrors that name the line and
 * the word; a table is taken whole or not at all.
 */
import { RepError } from '../base/errors.js';
import { SECTOR } from '../base/units.js';
import { DIRTY_LOG } from '../dirtylog/types.js';
import type { Registry, TypeClass } from '../registry/registry.js';
import { REPLOG, type ReplogTable } from '../replog/types.js';
import { SLINK, type SlinkWords } from '../slink/types.js';
import {
  hasLimit,
  MAX_DEVICE,
  MAX_SITE,
  nameFault,
  plainDevice,
  plainSite,
  type DeviceConfig,
  type Durability,
  type OnLocalError,
  type SiteConfig,
} from './config.js';
import { isLimit, parseLimit, parseLimitWord, parsePolicy } from './policy-parse.js';
import { siteWords } from './table-site.js';
import { splitTable, Words, type TableLine } from './table-words.js';

export interface TableGroup {
  /** The group's name, where a line says it. */
  name: string | undefined;
  log: ReplogTable;
  durability: Durability;
  onLocalError: OnLocalError;
  devices: DeviceConfig[];
  sites: SiteConfig[];
}

/** A link as its tuple says it; where its devices are follows from their lines. */
interface TableLink {
  site: SiteConfig;
  /** Words that its type understands. */
  words: Record<string, string>;
  legs: { device: string; path: string }[];
  where: string;
}

interface Target {
  line: TableLine;
  label: string | undefined;
  /** Sectors. */
  length: number;
  words: Words;
}

/** `source` names the table in errors: a file. */
export function parseTable(text: string, types: Registry, source: string): TableGroup {
  const controls: Target[] = [];
  const disks: Target[] = [];
  for (const line of splitTable(text)) {
    const words = new Words(line.words, `${source}:${line.nr}`);
    const label = line.words[0]!.endsWith(':') ? words.next('').slice(0, -1) : undefined;
    const start = words.number('the start sector');
    if (start !== 0) throw words.fault('EINVAL', `start ${start}`, 'a target begins at sector 0');
    const length = words.number('the length in sectors');
    const target = words.next('the target');
    if (target === 'replicator') controls.push({ line, label, length, words });
    else if (target === 'replicator-dev') disks.push({ line, label, length, words });
    else throw words.fault('EINVAL', `target "${target}"`, 'replicator and replicator-dev are known');
  }
  const [control, another] = controls;
  if (another !== undefined)
    throw another.words.fault('EINVAL', 'a second replicator', 'a table holds one group; use a table for each');
  if (control === undefined)
    throw new RepError(disks.length > 0 ? 'ENOENT' : 'EINVAL', `${source}: no replicator: add its line`);
  return new Parser(types).group(control, disks, source);
}

/** What the lines call the group, as far as that can be told without the types they need. */
export function tableName(text: string): string | undefined {
  let said: string | undefined;
  for (const { words } of splitTable(text)) {
    const at = words[0]!.endsWith(':') ? 1 : 0;
    if (words[at + 2] === 'replicator' && at === 1) return words[0]!.slice(0, -1);
    const word = words[at + 2] === 'replicator-dev' ? words[at + 3] : undefined;
    said ??= word?.slice(word.lastIndexOf('/') + 1);
  }
  return said;
}

class Parser {
  private readonly types: Registry;
  private readonly links = new Map<number, TableLink>();
  /** Every path of the table, and what it is. */
  private readonly taken = new Map<string, string>();
  /** Sectors of a region, once a remote device has named them, and which one did. */
  private region: { sectors: number; by: string } | undefined;

  constructor(types: Registry) {
    this.types = types;
  }

  group(control: Target, disks: readonly Target[], source: string): TableGroup {
    const log = this.replog(control.words);
    let durability: Durability = 'flush';
    let onLocalError: OnLocalError = 'suspend';
    for (let first = true; first || control.words.left > 0; first = false) {
      const link = this.link(control.words, first);
      if (first) ({ durability, onLocalError } = localLink(link, control.words));
    }
    let name = control.label;
    const devices: DeviceConfig[] = [];
    for (const disk of disks) {
      const device = this.device(disk, devices, (word) => {
        const said = word.slice(word.lastIndexOf('/') + 1);
        name ??= said;
        if (said !== name)
          throw disk.words.fault('ENOENT', `replicator "${word}"`, `the table is that of group ${name}`);
      });
      devices.push(device);
    }
    if (devices.length === 0)
      throw new RepError('EINVAL', `${source}: no replicator-dev: a group needs at least one device`);
    const names = devices.map((d) => d.name);
    const sites = [...this.links.values()].filter(({ site }) => site.nr !== 0).map((link) => this.place(link, names));
    return { name, log, durability, onLocalError, devices, sites };
  }

  private replog(words: Words): ReplogTable {
    const name = words.next('the replog type');
    const type = words.within(() => this.find(REPLOG, name));
    const params = words.take(words.number('the number of replog words'), `${name}: the number of words`);
    const log = words.within(() => type.parse(params));
    this.claim(log.path, 'the log', words);
    return log;
  }

  private link(words: Words, first: boolean): TableLink {
    const name = words.next('a site link: type, number of words, slink number');
    const type = words.within(() => this.find(SLINK, name));
    const count = words.number(`${name}: the number of words`);
    if (count < 1) throw words.fault('EINVAL', `${name} ${count}`, 'a link has at least its slink number');
    const tuple = new Words(words.take(count, `${name}: the number of words`), words.where);
    const nr = tuple.number('the slink number', MAX_SITE);
    if (first && nr !== 0) throw words.fault('EINVAL', `slink ${nr}`, 'the first link is slink 0, the local site');
    if (this.links.has(nr)) throw words.fault('EPERM', `slink ${nr}`, 'it is there already; give each its own number');
    const site = plainSite(nr, name, '');
    const link: TableLink = { site, words: {}, legs: [], where: `${words.where}: slink ${nr}` };
    if (tuple.left > 0)
      Object.assign(
        site,
        words.within(() => parsePolicy(tuple.next('the policy'))),
      );
    while (tuple.left > 0) this.setting(tuple, link);
    if (site.policy === 'sync' && hasLimit(site.fallBehind))
      throw words.fault('EINVAL', `slink ${nr}: sync with a fall-behind limit`, 'a sync site never falls behind');
    if (!type.acks.includes(site.ack))
      throw words.fault('EINVAL', `slink ${nr}: ack=${site.ack}`, `${name} knows ${type.acks.join(' and ')}`);
    this.links.set(nr, link);
    return link;
  }

  /** A fall-behind limit, a setting of ours, or one of the type's. */
  private setting(tuple: Words, link: TableLink): void {
    const { site } = link;
    const word = tuple.next('');
    const at = word.indexOf('=');
    const key = at < 0 ? word : word.slice(0, at);
    if (isLimit(key)) {
      const before = site.fallBehind;
      site.fallBehind = tuple.within(() =>
        at < 0 ? parseLimit(word, tuple.next(`the number of ${word}`), before) : parseLimitWord(word, before),
      );
      return;
    }
    if (at < 1)
      throw tuple.fault('EINVAL', `"${word}"`, 'behind the policy stand ios, size, timeout, or settings as key=value');
    const value = word.slice(at + 1);
    if (Object.hasOwn(siteWords, key)) tuple.within(() => siteWords[key]!.read(site, value));
    else link.words[key] = value;
  }

  private device(target: Target, before: readonly DeviceConfig[], replicator: (word: string) => void): DeviceConfig {
    const { words, length } = target;
    if (length === 0) throw words.fault('EINVAL', 'length 0', 'a device has at least one sector');
    if (!Number.isSafeInteger(length * SECTOR)) throw words.fault('EINVAL', `length ${length}`, 'that is too large');
    replicator(words.next('the replicator'));
    const nr = words.number('the device number', MAX_DEVICE);
    const name = target.label ?? `disk${nr}`;
    const fault = nameFault(name);
    if (fault !== undefined) throw words.fault('EINVAL', `"${name}"`, fault);
    if (before.some((d) => d.nr === nr)) throw words.fault('EBUSY', `device ${nr}`, 'it is there already');
    if (before.some((d) => d.name === name))
      throw words.fault('EBUSY', `device "${name}"`, 'the name is taken already');
    const device = plainDevice(nr, name, length * SECTOR, '');
    if (words.left === 0)
      throw words.fault('EINVAL', `device ${nr}: no legs`, 'write 0 1 PATH nolog 0, then the sites');
    const legs = new Set<number>();
    while (words.left > 0) {
      const slink = words.number('the slink number of a leg (or a trailing word)');
      if (legs.has(slink)) throw words.fault('EBUSY', `device ${nr}, slink ${slink}`, 'it has a leg there already');
      legs.add(slink);
      this.leg(words, device, slink);
    }
    if (!legs.has(0)) throw words.fault('ENODEV', `device ${nr}`, 'it has no leg on slink 0, the local device');
    return device;
  }

  private leg(words: Words, device: DeviceConfig, slink: number): void {
    const link = this.links.get(slink);
    if (link === undefined) throw words.fault('ENOENT', `slink ${slink}`, 'the replicator has no such link');
    const count = words.number('the number of device words');
    if (count !== 1) throw words.fault('EINVAL', `slink ${slink}: ${count} device words`, 'it is 1: the path');
    const path = words.next('the path');
    this.dirtyLog(words, device, slink);
    if (slink === 0 || this.types.peek(SLINK, link.site.type)?.paths === true)
      this.claim(path, `slink ${slink} of ${device.name}`, words);
    if (slink !== 0) link.legs.push({ device: device.name, path });
    else if (path.startsWith('/')) device.local = path;
    else throw words.fault('EINVAL', `"${path}"`, 'a path in a table begins with a slash');
  }

  private dirtyLog(words: Words, device: DeviceConfig, slink: number): void {
    const said = words.next('the dirty log');
    const name = said === '-' ? 'nolog' : said;
    const type = words.within(() => this.find(DIRTY_LOG, name));
    const params = words.take(words.number(`${said}: the number of words`), `${said}: the number of words`);
    const log = words.within(() => type.parse(params));
    if (slink === 0) {
      if (name === 'nolog') return;
      throw words.fault('EINVAL', `slink 0: ${name}`, 'the local device has nolog');
    }
    device.dirtyLogs[String(slink)] = [name, ...params];
    if (log.device !== undefined) this.claim(log.device, `the dirty log of ${device.name}, slink ${slink}`, words);
    if (log.region === undefined) return;
    const by = `${name} ${params.join(' ')} (${device.name}, slink ${slink})`;
    this.region ??= { sectors: log.region, by };
    if (log.region !== this.region.sectors)
      throw words.fault('EINVAL', by, `all remote devices have one region size, that of ${this.region.by}`);
  }

  /** Where a site's devices are, once all of them are known. */
  private place(link: TableLink, devices: readonly string[]): SiteConfig {
    const { site, words, where } = link;
    const at = new Words([], where);
    const type = this.find(SLINK, site.type);
    const legs = link.legs.filter((leg) => leg.path !== '-');
    if (legs.length === 0) throw at.fault('EINVAL', 'no device has a leg there', 'add one, or leave the link out');
    const asked: SlinkWords = { legs, whole: legs.length === devices.length, words };
    return { ...site, ...at.within(() => structuredClone(type.fromTable(asked))) };
  }

  private claim(path: string, what: string, words: Words): void {
    if (path === '-') return;
    const before = this.taken.get(path);
    if (before !== undefined) throw words.fault('EBUSY', `${path} as ${what}`, `it is ${before} already`);
    this.taken.set(path, what);
  }

  private find<T>(type: TypeClass<T>, name: string): T {
    const found = this.types.peek(type, name);
    if (found !== undefined) return found;
    const known = this.types.list(type)?.join(', ') ?? 'none';
    throw new RepError('ENOENT', `type "${name}": not registered; there is ${known}`);
  }
}

/** Slink 0 has no site: its words are the group's. */
function localLink(link: TableLink, words: Words): { durability: Durability; onLocalError: OnLocalError } {
  const { site } = link;
  const { 'on-local-error': onLocalError = 'suspend', ...others } = link.words;
  if (site.type !== 'blockdev') throw words.fault('EINVAL', `slink 0: ${site.type}`, 'the local site is a blockdev');
  if (onLocalError !== 'suspend' && onLocalError !== 'detach')
    throw words.fault('EINVAL', `slink 0: on-local-error=${onLocalError}`, 'write suspend or detach');
  const usual = { ...plainSite(0, 'blockdev', ''), policy: site.policy };
  if (JSON.stringify(site) !== JSON.stringify(usual) || Object.keys(others).length > 0)
    throw words.fault('EINVAL', 'slink 0', 'the local site takes sync or async and on-local-error, nothing else');
  return { durability: site.policy === 'sync' ? 'write' : 'flush', onLocalError };
}
