/**
 * A group while it is served: main's part of it. Hears the threads, keeps links and events, drives the
 * checkpointer, answers what is not a device's, and closes in the order in which nothing is lost.
 */
import * as fs from 'node:fs';
import { realClock } from '../base/clock.js';
import { RepError, errnoText, type ErrnoName } from '../base/errors.js';
import { DAEMON_FD, type DaemonConfig } from '../control/keeper-client.js';
import { MessageBoard } from '../control/messages.js';
import { groupFiles, siteStamp } from '../control/state.js';
import { takenPlaces } from '../control/taken.js';
import { ControlTree } from '../control/tree.js';
import { Checkpointer } from '../replog/checkpointer.js';
import type { RecordType } from '../replog/format.js';
import { SH } from '../replog/shared.js';
import { firstDevices, localImages, nextNumber, servedDevices } from '../control/device-plan.js';
import { closeGroup } from './close.js';
import { Leaving } from './dirt.js';
import { Detaching } from './detaching.js';
import { Devices } from './devices.js';
import { GroupHost } from './host.js';
import { LinkPolicies } from '../slink/policy.js';
import { Indexer } from './indexer.js';
import { holdsLog, linkFact, linkRules, makeLink, type Link } from './links.js';
import { durableEnd } from './ends.js';
import { assignPlaces } from './places.js';
import { HISTORY_LOST, byCopy, type OpenGroup } from './open.js';
import type { Around, Serving, Threads } from './parts.js';
import { Resizing } from './resizing.js';
import { SiteAdmin } from './site-admin.js';
import { checkSupported, resyncServed } from './supported.js';
import type { FromApply, FromCommit, FromShip } from './shell.js';
import type { FromData } from './threads.js';
import { Verifying } from './verifying.js';
import { View } from './view.js';
import { broken, log, within } from './workers.js';

const TICK_MS = 1000;
/** How long the thread of one link may take to load before the next one is made; plug-ins may take any time. */
const LOAD_MS = 1000;
/** How long devices that were begun may keep the others waiting; then they follow on their own. */
const CARRY_MS = 5000;

export class Group implements Serving {
  readonly opened: OpenGroup;
  readonly threads: Threads;
  readonly around: Around;
  readonly links: Link[];
  readonly checkpointer: Checkpointer;
  readonly policies: LinkPolicies;
  readonly groupDir: string;
  private readonly config: DaemonConfig;
  private readonly view: View;
  private readonly admin: SiteAdmin;
  private readonly host: GroupHost;
  private readonly tree: ControlTree;
  private readonly indexer: Indexer;
  private readonly devices: Devices;
  private readonly detaching: Detaching;
  /** Absent where links do not leave the ring. */
  private readonly leaving: Leaving | undefined;
  private readonly resizing: Resizing;
  private readonly verifying: Verifying;
  private readonly appends = new Map<number, (done: { seq: number; timeUs: number }) => void>();
  private nextAppend = 1;
  private pumpTimer: NodeJS.Timeout | undefined;
  private policyTimer: NodeJS.Timeout | undefined;
  private closing = false;

  constructor(config: DaemonConfig, opened: OpenGroup, threads: Threads, around: Around) {
    this.config = config;
    this.groupDir = config.groupDir;
    this.opened = opened;
    this.threads = threads;
    this.around = around;
    const { window, shared } = around;
    const places = assignPlaces(window, opened.config.sites);
    const links: Link[] = [];
    this.links = links;
    this.leaving = resyncServed() ? this.makeLeaving() : undefined;
    const checkpointer = new Checkpointer({
      ...{ log: opened.log, index: opened.index, window, shared, clock: realClock },
      ...(opened.recovered === undefined ? {} : { recovered: opened.recovered }),
      ...(this.leaving === undefined ? {} : { dirt: this.leaving.port }),
      events: { checkpointFailed: (reason) => this.view.failed(`checkpoint: ${reason.message}; it is tried again`) },
    });
    this.checkpointer = checkpointer;
    // What the log would keep for a site that is configured no more, nobody will ever fetch.
    for (const { nr } of opened.recovered?.links ?? opened.index.links())
      if (!opened.config.sites.some((site) => site.nr === nr)) checkpointer.dropLink(nr);
    opened.config.sites.forEach((site, i) => {
      const place = places[i]!;
      let start = opened.links[i]!;
      if (start.stale === undefined && start.cursor.pos < shared.logHead && !checkpointer.rewind())
        start =
          this.leaving === undefined
            ? { ...start, stale: HISTORY_LOST, fresh: false }
            : byCopy(start, durableEnd(window));
      const link = makeLink(site, place, start, (threads.ships[place] ??= threads.moreShips(place)));
      links.push(link);
      checkpointer.noteLink(linkFact(link), holdsLog(link));
    });
    // Before any request is served: from the first one on, writers are held by whom they should be.
    this.policies = new LinkPolicies(window, shared, realClock, {
      degraded: (place, on) => this.degraded(place, on),
      beyond: (place, on) => this.beyond(place, on),
    });
    for (const link of this.links)
      this.policies.add(link.place, linkRules(link.config), link.state, link.stale !== '', link.cursor.seq);
    for (const link of this.links) this.leaving?.begin(link);
    this.detaching = new Detaching({
      ...{ groupDir: config.groupDir, opened, around, threads, links: this.links },
      told: (site, reason) => this.readsFrom(site, reason),
      failed: (file, reason) => {
        this.view.failed(reason);
        this.view.groupEvent({ 'local-disk': 'Failed' }, reason);
      },
      healed: () => this.view.groupEvent({ 'local-disk': 'UpToDate' }),
    });
    this.resizing = new Resizing({
      ...{ dir: config.groupDir, config: opened.config, log: opened.log, around, threads, checkpointer },
      hurry: () => this.hurry(),
      room: () => this.roomChanged(),
      kick: () => this.pump(),
      event: (keys, reason) => {
        this.view.forget();
        this.view.logEvent(keys, reason);
      },
      failed: (what) => this.view.failed(what),
    });
    this.view = new View(
      config,
      opened,
      around,
      this.links,
      checkpointer,
      this.policies,
      this.detaching,
      this.resizing,
    );
    this.view.leaving = this.leaving;
    this.verifying = new Verifying({
      ...{ config: opened.config, links: this.links },
      hindrance: () => (this.detaching.wanted ? 'slink 0 is detached or failing; repair the local images first' : ''),
      told: (link, what) => this.view.verifyEvent(link, what),
    });
    this.indexer = new Indexer(opened.log, window, shared, checkpointer, (what) => this.view.failed(what));
    this.admin = new SiteAdmin({
      ...{ groupDir: config.groupDir, opened, around, threads, checkpointer },
      ...{ policies: this.policies, links: this.links, leaving: this.leaving },
      start: (link) => this.startLink(link),
      told: (verb, link) => {
        this.view.forget();
        if (verb !== 'destroy') this.view.linkEvent(link, '', undefined, verb);
        else this.view.events.add('destroy', 'site', `site${link.config.nr}`);
        this.host.moved();
      },
      room: () => this.roomMayCome(),
      check: (changed, file) => checkSupported(changed, opened.types, file),
    });
    this.host = new GroupHost({
      admin: this.admin,
      ...{ window, shared, checkpointer, links: this.links, logPath: opened.config.log.path },
      devices: () => servedDevices(opened.config).map((d) => d.name),
      changes: () => this.devices.changes,
      append: (type, payload) => this.append(type, 0, payload),
      ...{ detaching: this.detaching, resizing: this.resizing, verifying: this.verifying },
      statistics: (what) => {
        this.view.forget();
        return this.view.statistics.set(what, Date.now());
      },
    });
    const messages = new MessageBoard(() => this.host);
    this.view.messages = () => messages.counts;
    this.tree = new ControlTree({
      devices: () => servedDevices(opened.config),
      text: (file) => this.view.text(file),
      writtenMs: () => this.view.writtenMs(),
      reply: (bytes) => this.reply(bytes),
      events: this.view.events,
      messages,
    });
    this.devices = new Devices({
      ...{ dir: config.groupDir, config: opened.config, mountpoint: config.mountpoint, around, threads },
      append: (type, nr, payload) => this.append(type, nr, payload),
      opens: (nr) => this.tree.opensOf(nr),
      event: (verb, device) => this.view.deviceEvent(verb, device),
      failed: (what) => this.view.failed(what),
    });
  }

  /** Starts the threads; resolves when devices are served. */
  async start(): Promise<void> {
    const { opened, threads, config } = this;
    const { config: group, log: logFile } = opened;
    const started = [
      this.begun(threads.commit, (m) => this.fromCommit(m)),
      this.begun(threads.apply, (m) => this.fromApply(m)),
      new Promise<void>((resolve, reject) => (threads.data.onMessage = (m) => this.fromData(m, resolve, reject))),
    ];
    const ready = Promise.all(started);
    const begun = group.devices.some((d) => d.pending !== undefined);
    const carried = this.devices.changes.carryOn(ready.catch(() => undefined));
    threads.commit.post({ t: 'start', logPath: group.log.path });
    threads.apply.post({
      t: 'start',
      logPath: group.log.path,
      images: localImages(group),
      usedBelow: nextNumber(group),
      synced: opened.synced,
      redo: opened.recovered === undefined,
      detach: group.onLocalError === 'detach',
      logId: group.id,
    });
    threads.data.post({
      t: 'start',
      devices: servedDevices(group).map(({ nr, size, local }) => ({ nr, size, local })),
      durability: group.durability,
      reign: opened.reign,
      ...(opened.newReign === undefined ? {} : { newReign: opened.newReign }),
      resend: config.negotiated.resend,
      detach: group.onLocalError === 'detach',
      logSegment: logFile.segment,
    });
    await ready;
    // What was begun on the unmounted group, or by the daemon before, is there when the group is.
    if (begun) await within(CARRY_MS, carried);
  }

  /** What can wait until applications are served again. */
  afterStart(): void {
    const { opened } = this;
    void this.startLinks();
    this.checkpointer.noteApplied(opened.synced);
    this.indexer.look(opened.index);
    this.resizing.carryOn();
    setInterval(() => this.tick(), TICK_MS);
    this.tick();
    this.pump();
    this.watchPolicies();
    this.detaching.start();
  }

  /** Resolves when the shell runs its machine; rejects with what it could not begin with. */
  private begun<From extends { t: string }>(
    thread: { onMessage: (message: From) => void },
    hear: (message: From) => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      thread.onMessage = (message) => {
        if (message.t === 'running') resolve();
        else if (message.t === 'failed') {
          const { errno, message: text } = message as unknown as { errno: ErrnoName; message: string };
          reject(new RepError(errno, text));
        } else hear(message);
      };
    });
  }

  /**
   * Threads that are still to be made are made one behind the other: each takes about 0.1 s of a core, which
   * applications would miss. Sites that writers wait for come first.
   */
  private async startLinks(): Promise<void> {
    const rank = ({ config }: Link): number => (config.policy === 'sync' || config.stall ? 0 : 1);
    for (const link of [...this.links].sort((a, b) => rank(a) - rank(b))) {
      // It may have been removed meanwhile.
      if (this.closing || !this.links.includes(link)) continue;
      this.startLink(link);
      if (link.started) await within(LOAD_MS, link.thread.up);
    }
  }

  private startLink(link: Link): void {
    const { opened } = this;
    link.thread.onMessage = (message) => this.fromShip(link, message);
    // A site that needs a full resync is left as it is.
    if (link.stale !== '') return;
    link.started = true;
    const resync = this.leaving?.order(link);
    link.thread.post({
      t: 'start',
      logPath: opened.config.log.path,
      site: link.config,
      around: {
        stamp: siteStamp(this.config.groupDir, link.config.nr),
        taken: takenPlaces(opened.config, link.config.nr, [
          groupFiles(this.config.groupDir).dir,
          this.config.mountpoint,
        ]),
      },
      identity: { logId: opened.config.id, group: opened.config.name, nr: link.config.nr },
      devices: firstDevices(opened.config),
      cursor: link.cursor,
      fresh: link.fresh,
      paused: link.paused,
      ...(resync === undefined ? {} : { resync }),
    });
    this.leaving?.begun(link);
  }

  // --- what threads say ------------------------------------------------------------------------------------

  private fromData(message: FromData, serving: () => void, refused: (error: RepError) => void): void {
    switch (message.t) {
      case 'serving':
        if (message.connection !== undefined) this.devices.connection = message.connection;
        return serving();
      case 'failed':
        return refused(new RepError(message.errno, message.message));
      case 'req':
        return this.tree.serve(message.bytes);
      case 'appended':
        this.appends.get(message.id)?.(message);
        this.appends.delete(message.id);
        return;
      case 'device':
        return this.devices.heard(message);
      case 'source':
      case 'starved':
        return this.detaching.fromData(message);
      case 'reign':
        return this.reignBegun(message.reign, message.seq, message.timeUs);
      case 'logfull':
        return this.logFull();
      case 'end':
        return this.close(`the data thread ended (${message.errno === 0 ? 'ENODEV' : errnoText(message.errno)})`);
      case 'up':
        return;
    }
  }

  private fromCommit(message: FromCommit): void {
    const { view } = this;
    switch (message.t) {
      case 'logError': {
        const reason = `${this.opened.config.log.path}: ${message.call} failed: ${errnoText(message.errno)}`;
        view.failed(reason);
        return view.logEvent({ state: 'error', suspended: true }, reason);
      }
      case 'logHealed':
        return view.logEvent({ state: 'ok', suspended: false });
      case 'held':
        this.resizing.held(message.pos);
        return this.pump();
      case 'segment':
        return this.indexer.closed(message.segment);
      default:
        return;
    }
  }

  private fromApply(message: FromApply): void {
    switch (message.t) {
      case 'device':
        return this.devices.heard(message);
      case 'synced':
        this.devices.synced = message.place.seq;
        this.checkpointer.noteApplied(message.place);
        this.pump();
        return this.roomMayCome();
      case 'localError':
      case 'localHealed':
        return this.detaching.fromApply(message);
      default:
        return;
    }
  }

  private fromShip(link: Link, message: FromShip): void {
    switch (message.t) {
      case 'cursor':
        if (this.leaving?.mayMove(link, message.epoch, message.place) === false) return;
        link.cursor = message.place;
        link.fresh = false;
        this.checkpointer.noteLink(linkFact(link), holdsLog(link));
        this.host.moved();
        this.detaching.news();
        return this.roomMayCome();
      case 'readers':
        return this.detaching.fromShip(link, message);
      case 'copied':
      case 'lost':
      case 'insync':
      case 'progress':
        return this.leaving?.heard(link, message);
      case 'state':
        if (link.state === message.state && link.reason === message.reason) return;
        link.state = message.state;
        link.reason = message.reason;
        this.linkChanged(link);
        this.detaching.news();
        return this.host.moved();
      case 'window':
        link.window = message.window;
        return;
      case 'verify':
        return this.verifying.heard(link, message.id, message.report);
      case 'failed':
        link.state = 'failed';
        link.reason = message.message;
        return this.linkChanged(link);
      default:
        return;
    }
  }

  /** Events and log of a slink 0 that is detached or attached again. */
  private readsFrom(site: number, reason: string): void {
    const { view } = this;
    view.forget();
    if (site === 0) {
      log('slink 0 is attached again');
      return view.groupEvent({ 'local-disk': 'UpToDate', 'reads-from': 'local' });
    }
    view.failed(
      site < 0
        ? `slink 0 is detached and no site can serve reads: ${reason}`
        : `slink 0 is detached: ${reason}; reads from site ${site}`,
    );
    view.groupEvent({ 'local-disk': 'Diskless', 'reads-from': site < 0 ? 'none' : `site${site}` }, reason);
  }

  private linkChanged(link: Link): void {
    this.policies.note(link.place, link.state);
    this.view.linkEvent(link);
    if (this.view.full) this.leaving?.look();
  }

  private makeLeaving(): Leaving {
    return new Leaving({
      ...{ opened: this.opened, around: this.around, links: this.links },
      policies: () => this.policies,
      checkpointer: () => this.checkpointer,
      source: () => this.detaching.source,
      pump: () => this.pump(),
      full: () => this.isFull(),
      told: (link, what) => {
        this.view.failed(`site ${link.config.nr}: ${what}`);
        this.view.forget();
        this.view.linkEvent(link, what);
        this.host.moved();
        this.detaching.news();
      },
      failed: (what) => this.view.failed(what),
    });
  }

  private degraded(place: number, on: boolean): void {
    const link = this.links.find((l) => l.place === place)!;
    const { nr, syncTimeoutMs } = link.config;
    const why = on
      ? `writers waited ${syncTimeoutMs / 1000} s for site ${nr} and go on without it until it has caught up`
      : `site ${nr} has caught up; writes wait for it again`;
    if (on) this.view.failed(why);
    this.view.linkEvent(link, why);
  }

  private beyond(place: number, on: boolean): void {
    const link = this.links.find((l) => l.place === place);
    if (link === undefined) return;
    const why = on ? 'beyond its fall-behind limit; writes wait for it' : 'back within its fall-behind limit';
    this.view.linkEvent(link, why, on ? 'S' : 'A');
  }

  private watchPolicies(): void {
    clearTimeout(this.policyTimer);
    if (!this.closing) this.policyTimer = setTimeout(() => this.watchPolicies(), this.policies.step());
  }

  /** The reign's first record is the first record of this window: the place before it was known at the start. */
  private reignBegun(reign: number, seq: number, timeUs: number): void {
    const { reignId, reignStart: start } = this.opened;
    if (start !== undefined) this.checkpointer.noteReign({ reign, id: reignId, start, wallUs: timeUs });
    this.view.groupEvent({ reign, seq });
  }

  // --- main's own work -------------------------------------------------------------------------------------

  append(type: RecordType, device: number, payload: Uint8Array): Promise<{ seq: number; timeUs: number }> {
    const id = this.nextAppend++;
    return new Promise((resolve) => {
      this.appends.set(id, resolve);
      this.threads.data.post({ t: 'append', id, type, device, payload });
    });
  }

  private pump(): void {
    clearTimeout(this.pumpTimer);
    if (this.closing) return;
    const { shared } = this.around;
    const before = shared.logHead;
    const next = this.checkpointer.step();
    if (shared.logHead !== before) this.roomChanged();
    // Right behind: the live part of the log has just become shorter.
    const ms = Math.min(next, this.resizing.step());
    this.pumpTimer = setTimeout(() => this.pump(), Math.min(Math.max(ms, 5), TICK_MS));
  }

  /** There is more or less room in the log than there was. */
  private roomChanged(): void {
    const { shared } = this.around;
    shared.bell(SH.BELL_COMMIT).ring();
    if (shared.load(SH.DATA_WAITS) === 1) this.threads.data.wake();
  }

  /** Writers wait for log space and something has just moved that may have held it. */
  private roomMayCome(): void {
    if (!this.view.full) return;
    this.checkpointer.ask();
    this.pump();
  }

  /** Everyone who may hold the head is asked to settle what it has. */
  private hurry(): void {
    const { shared } = this.around;
    shared.bump(SH.SYNC_ASK);
    for (const bell of [SH.BELL_APPLY, ...this.links.map((link) => SH.BELL_LINKS + 2 * link.place)])
      shared.bell(bell).ring();
    this.checkpointer.ask();
  }

  private logFull(): void {
    this.hurry();
    this.view.noteFull(true);
    this.roomMayCome();
    this.leaving?.look();
  }

  private isFull(): boolean {
    const { shared } = this.around;
    return shared.load(SH.LOG_FULL) !== 0 || (this.view.full && shared.load(SH.DATA_WAITS) !== 0);
  }

  private tick(): void {
    this.view.tick();
    if (this.isFull()) this.logFull();
    else {
      this.view.noteFull(false);
      this.leaving?.calm();
    }
    if (!this.closing) this.indexer.step();
  }

  private reply(bytes: Buffer): void {
    if (this.threads.answer !== undefined) return this.threads.answer(bytes);
    try {
      fs.writeSync(DAEMON_FD.FUSE, bytes);
    } catch {
      // ENOENT: nobody waits any more, or it is being sent again. ENODEV: unmounted, the data thread says so.
    }
  }

  // --- the end ---------------------------------------------------------------------------------------------

  /** Brings everything to disk and ends the process. */
  close(why: string): void {
    if (this.closing) return;
    this.closing = true;
    this.devices.changes.stop();
    clearTimeout(this.pumpTimer);
    clearTimeout(this.policyTimer);
    this.detaching.stop();
    this.leaving?.stop();
    this.resizing.stop();
    log(`closes: ${why}`);
    this.tree.close();
    void closeGroup(this).catch((error: unknown) => broken('closing', error));
  }
}
