/**
 * Sites that are set, added and removed while the group is served. A change is in group.json, durably, before
 * it is answered; what cannot be done leaves everything as it was. One change at a time.
 *
 * A new site begins with the beginning of the log where that still holds all of history: its link holds the head from
 * the first moment. Where it does not, everything is copied (ARCHITECTURE 20), unless the operator says that the site
 * has it (`nosync`). Only when the site was made is it written into group.json, so that a
 * daemon that dies meanwhile leaves nothing but a folder, which the same command then takes.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { RepError, errnoText } from '../base/errors.js';
import { checkConfig, saveConfig, type GroupConfig, type SiteConfig } from '../control/config.js';
import { withSites } from '../control/dirty-logs.js';
import { policyWords } from '../control/policy-words.js';
import { newSite, withSettings } from '../control/site-settings.js';
import { groupFiles, siteStamp } from '../control/state.js';
import type { Checkpointer } from '../replog/checkpointer.js';
import { firstPlace } from '../replog/format.js';
import { E_LINKS, FLUSH_ENTRY, FLUSH_SLOTS, SH } from '../replog/shared.js';
import type { SiteCursor } from '../slink/contract.js';
import type { LinkPolicies } from '../slink/policy.js';
import type { Leaving } from './dirt.js';
import { durableEnd } from './ends.js';
import { holdsLog, linkFact, linkRules, makeLink, type Link } from './links.js';
import type { LinkStart, OpenGroup } from './open.js';
import type { Around, Threads } from './parts.js';
import { freePlace, takePlace } from './places.js';
import { log, within } from './workers.js';

export interface SiteAdminParts {
  groupDir: string;
  opened: OpenGroup;
  around: Around;
  threads: Threads;
  checkpointer: Checkpointer;
  policies: LinkPolicies;
  /** Changed in place: everybody looks at the same list. */
  links: Link[];
  /** Starts the shipper of a link. */
  start(link: Link): void;
  told(verb: 'create' | 'change' | 'destroy', link: Link): void;
  /** Log space may have come free. */
  room(): void;
  /** Absent where everything comes from the log. */
  leaving: Leaving | undefined;
  /** Refuses what this version does not serve. */
  check(config: GroupConfig, file: string): void;
}

/** How long the answer to `site add` waits for the site to be made. */
const MAKE_MS = 30_000;
const LEAVE_MS = 3000;
const LOOK_MS = 10;

export class SiteAdmin {
  private readonly p: SiteAdminParts;
  private last: Promise<unknown> = Promise.resolve();

  constructor(parts: SiteAdminParts) {
    this.p = parts;
  }

  set(nr: number, words: readonly string[]): Promise<string> {
    return this.inTurn(() => this.change(nr, words));
  }

  add(nr: string, where: string, words: readonly string[]): Promise<string> {
    return this.inTurn(() => this.create(nr, where, words));
  }

  remove(nr: number): Promise<string> {
    return this.inTurn(() => this.drop(nr));
  }

  /** Has those who wait for sites answered with EIO; how many there are. */
  failPending(): string {
    const { shared } = this.p.around;
    let waiting = 0;
    const tail = shared.load(SH.FLUSH_TAIL);
    for (let n = shared.load(SH.FLUSH_HEAD); n !== tail; n = (n + 1) | 0) {
      const at = (n & (FLUSH_SLOTS - 1)) * FLUSH_ENTRY + E_LINKS;
      const links = (shared.flush[at]! & shared.load(SH.GATES)) | (shared.flush[at + 1]! & shared.load(SH.GATES + 1));
      if (links !== 0) waiting++;
    }
    if (waiting === 0) return 'nobody waits for a site';
    shared.bump(SH.FAIL_ASK);
    shared.bell(SH.BELL_COMMIT).ring();
    log(`fail-pending: ${waiting} requests that wait for sites get EIO`);
    return `${waiting} waiting request${waiting === 1 ? ' was' : 's were'} answered with EIO; what they wrote stays in the log`;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.last.then(work, work);
    this.last = done.catch(() => undefined);
    return done;
  }

  private async change(nr: number, words: readonly string[]): Promise<string> {
    const { opened, policies, around } = this.p;
    const link = this.link(nr);
    const site = withSettings(link.config, words);
    this.save(opened.config.sites.map((s) => (s.nr === nr ? site : s)));
    link.config = site;
    policies.change(link.place, linkRules(site));
    if (link.stale === '') link.thread.post({ t: 'site', site });
    // What it was still gathering under its old settings it sends now.
    around.shared.bump(SH.SYNC_ASK);
    link.thread.wake();
    this.p.told('change', link);
    return `site ${nr}: ${policyWords(site)}${this.remark(link)}`;
  }

  private remark(link: Link): string {
    if (link.config.policy !== 'sync') return '';
    if (link.paused) return '; it is paused: writers wait until it is resumed';
    if (link.state === 'failed') return `; it is down (${link.reason}): writers wait until it is back`;
    return '; writes wait for it from now on';
  }

  private async create(word: string, where: string, words: readonly string[]): Promise<string> {
    const { opened, around, threads, checkpointer, policies, links, leaving } = this.p;
    const { sync, settings } = this.startWords(words);
    const site = newSite(word, where, settings);
    const { nr } = site;
    if (links.some((link) => link.config.nr === nr))
      throw new RepError('EEXIST', `site ${nr}: exists already; choose another number, or remove it first`);
    const sites = [...opened.config.sites, site].sort((a, b) => a.nr - b.nr);
    this.check(sites);
    const copies = sync === 'nosync' || !checkpointer.rewind();
    if (copies && leaving === undefined)
      throw new RepError(
        'EOPNOTSUPP',
        `site ${nr}: the log no longer holds the whole history, and this version makes no full copy of a group; ` +
          'make a new group with this site',
      );
    const made = makeFolder(site);
    let link: Link | undefined;
    try {
      const place = takePlace(around.window, nr);
      const cursor = { ...firstPlace(opened.config.id), reign: 0 };
      const begin = { nr, cursor, fresh: true, paused: false, stale: undefined };
      const start = copies ? beginsAt(begin, durableEnd(around.window), sync) : begin;
      link = makeLink(site, place, start, (threads.ships[place] ??= threads.moreShips(place)));
      checkpointer.noteLink(linkFact(link), holdsLog(link));
      policies.add(place, linkRules(site), link.state, false, start.cursor.seq, true);
      links.push(link);
      leaving?.begin(link);
      this.p.start(link);
      await this.isMade(link);
      this.save(sites);
    } catch (error) {
      if (link !== undefined) await this.leave(link);
      if (made) removeFolder(site.address);
      throw error;
    }
    checkpointer.ask();
    checkpointer.step();
    this.p.told('create', link);
    const later = site.policy === 'sync' ? '; writes wait for it once it has caught up' : '';
    const resync =
      link.inconsistent && sync !== 'nosync' ? '; everything is copied to it, status shows how far that is' : '';
    return `site ${nr} added: ${policyWords(site)}${resync}${later}`;
  }

  /** `sync` or `nosync` among the words: whether a site that cannot begin with the beginning of the log is copied to. */
  private startWords(words: readonly string[]): { sync: 'sync' | 'nosync' | undefined; settings: string[] } {
    if (this.p.leaving === undefined) return { sync: undefined, settings: [...words] };
    const isStart = (word: string): word is 'sync' | 'nosync' => word === 'sync' || word === 'nosync';
    const [sync, more] = words.filter(isStart);
    if (more !== undefined) throw new RepError('EINVAL', `"${sync}" and "${more}": write sync or nosync, once`);
    return { sync, settings: words.filter((word) => !isStart(word)) };
  }

  private async isMade(link: Link): Promise<void> {
    const until = Date.now() + MAKE_MS;
    while (link.state === 'connecting' && Date.now() < until)
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    if (link.state === 'failed') throw new RepError('EIO', `site ${link.config.nr} was not added: ${link.reason}`);
  }

  private async drop(nr: number): Promise<string> {
    const { opened } = this.p;
    const link = this.link(nr);
    this.save(opened.config.sites.filter((site) => site.nr !== nr));
    await this.leave(link);
    // A later site of the same number must not be measured by what this one held.
    fs.rmSync(siteStamp(this.p.groupDir, nr), { force: true });
    this.p.told('destroy', link);
    this.p.room();
    return `site ${nr} removed; its data stay where they are`;
  }

  /** Takes a link out of everything. A thread that hangs in a call to its site keeps its place until the daemon ends. */
  private async leave(link: Link): Promise<void> {
    const { links, threads, checkpointer, policies, around, leaving } = this.p;
    const { place, thread } = link;
    policies.remove(place);
    links.splice(links.indexOf(link), 1);
    leaving?.forget(link);
    checkpointer.dropLink(link.config.nr);
    checkpointer.ask();
    checkpointer.step();
    thread.onMessage = () => undefined;
    if (!link.started) await thread.terminate();
    else {
      thread.post({ t: 'stop' });
      if (!(await within(LEAVE_MS, thread.ended))) {
        log(`site ${link.config.nr}: its thread hangs in a call and is left behind`);
        return;
      }
    }
    threads.ships[place] = undefined;
    freePlace(around.window, place);
  }

  private check(sites: SiteConfig[]): GroupConfig {
    const { groupDir, opened } = this.p;
    const { config: file } = groupFiles(groupDir);
    const config = checkConfig(withSites(opened.config, sites), file);
    this.p.check(config, file);
    return config;
  }

  private save(sites: SiteConfig[]): void {
    const { groupDir, opened } = this.p;
    const config = this.check(sites);
    saveConfig(groupDir, config);
    opened.config.sites = sites;
    opened.config.devices.forEach((device, i) => (device.dirtyLogs = config.devices[i]!.dirtyLogs));
  }

  private link(nr: number): Link {
    const link = this.p.links.find((l) => l.config.nr === nr);
    if (link === undefined) throw new RepError('ENOENT', `site ${nr}: no such site`);
    return link;
  }
}

/** Everything before `end` is copied to it; of what, its dirty logs may say otherwise, and the operator. */
function beginsAt(start: LinkStart, end: SiteCursor, sync: 'sync' | 'nosync' | undefined): LinkStart {
  const how = sync === undefined ? 'stored' : sync === 'sync' ? 'all' : 'none';
  return { ...start, cursor: end, resync: { how, begins: true } };
}

/** Makes the last component of a site's folder, where it is missing; true where it did. */
export function makeFolder(site: SiteConfig): boolean {
  if (site.type !== 'blockdev' || site.address === '' || fs.existsSync(site.address)) return false;
  try {
    fs.mkdirSync(site.address, { mode: 0o700 });
    return true;
  } catch (cause) {
    const { errno = -5, code } = cause as NodeJS.ErrnoException;
    const next = code === 'ENOENT' ? `make or mount ${path.dirname(site.address)} first` : 'check the path';
    throw new RepError('EIO', `${site.address}: the site's folder cannot be made: ${errnoText(errno)}; ${next}`, {
      cause,
    });
  }
}

function removeFolder(folder: string): void {
  fs.rmSync(folder, { recursive: true, force: true });
}
