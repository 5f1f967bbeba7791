/**
 * A daemon's threads as machines in one process, wired as the product wires them: each has its own view of the
 * log's file, and what one tells main arrives with main's next turn, or never where the daemon dies first.
 */
import type { Site, SiteCursor } from '../../src/slink/contract.js';
import { LocalSource } from '../../src/slink/local-source.js';
import { Resync } from '../../src/slink/resync.js';
import type { LinkFact } from '../../src/index/contract.js';
import { DeviceGroup } from '../../src/device/group.js';
import { Parking } from '../../src/device/parking.js';
import type { DeviceReader } from '../../src/device/reader.js';
import { Checkpointer } from '../../src/replog/checkpointer.js';
import { Committer } from '../../src/replog/committer.js';
import { readSegment, segmentFact } from '../../src/replog/extents.js';
import { firstPlace, type LogPlace } from '../../src/replog/format.js';
import { LogFile } from '../../src/replog/logfile.js';
import { recover, trustedLinks, type Recovered } from '../../src/replog/recovery.js';
import { openForAppend, settleTail } from '../../src/replog/settle.js';
import type { ClosedSegment } from '../../src/replog/segments.js';
import { MAX_LINK_THREADS, SH, Shared } from '../../src/replog/shared.js';
import { LogSpace } from '../../src/replog/space.js';
import { W, type Window } from '../../src/replog/window.js';
import { ERRNO, RepError } from '../../src/base/errors.js';
import { Applier, type OpenFailure } from '../../src/slink/applier.js';
import { LocalDetach } from '../../src/slink/detach.js';
import { FolderSite } from '../../src/slink/folder.js';
import { ImageSet } from '../../src/slink/images.js';
import { replayLocal } from '../../src/slink/replay.js';
import { LinkPolicies } from '../../src/slink/policy.js';
import { Shipper } from '../../src/slink/shipper.js';
import { assignPlaces, freePlace } from '../../src/daemon/places.js';
import { Broken } from './sim-broken.js';
import { GROUP, LOG_PATH, type SimHost } from './sim-host.js';
import type { SimIndex } from './sim-index.js';
import { SimIo, SimKill } from './sim-io.js';
import type { GroupConfig } from '../../src/control/config.js';
import { checkLocal, checkRefused } from './sim-checks.js';
import { SimChanges, openImages } from './sim-devices.js';
import { checkTaken, rawSite } from './sim-raw.js';
import { SimReader, type LocalImage } from './sim-reader.js';
import { Patience } from './sim-policy.js';
import { SimLeaving } from './sim-leaving.js';
import { SimResize } from './sim-resize.js';
import { witnessed, type SimSite } from './sim-site.js';

/** What main knows where the threads are started. */
interface Begin {
  io: SimIo;
  log: LogFile;
  index: SimIndex;
  images: ImageSet;
  recovered: Recovered | undefined;
  /** Everything before it is on the images, synced. */
  synced: LogPlace;
  reign: number;
  links: readonly LinkFact[];
  /** Where devices come and go. */
  config: GroupConfig | undefined;
  /** Slink 0 was noted as detached. */
  noted: boolean;
  unopened: OpenFailure | undefined;
}

/** What tells the next daemon, of whatever life, that slink 0 may lack more than the window holds. */
const DETACHED_NOTE = '/local/detached.json';

function localImages(host: SimHost): LocalImage[] {
  return host.shape.client.devices.map(({ nr, sectors }) => ({ nr, file: host.imagePath(nr), size: sectors * 512 }));
}

/** Opens slink 0's images, all or none. */
function openLocal(host: SimHost, images: ImageSet): OpenFailure | undefined {
  images.close();
  for (const spec of localImages(host)) {
    try {
      images.open(spec);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      images.close();
      return { errno: ERRNO[error.errno], file: spec.file };
    }
  }
  return undefined;
}

export class SimDaemon {
  readonly io: SimIo;
  readonly host: SimHost;
  readonly shared = new Shared();
  readonly window: Window;
  readonly committer: Committer;
  readonly applier: Applier;
  readonly checkpointer: Checkpointer;
  readonly shippers = new Map<number, Shipper>();
  readonly policies: LinkPolicies;
  private readonly patience: Patience;
  readonly images: ImageSet;
  readonly group: DeviceGroup;
  readonly log: LogFile;
  /** Link states as main was told last. */
  readonly linkStates = new Map<number, string>();
  /** Devices that come, grow and go, where the group has such. */
  readonly changes: SimChanges | undefined;
  /** Where slink 0 may be detached. */
  readonly detach: LocalDetach | undefined;
  /** Where links may leave the ring. */
  readonly leaving: SimLeaving | undefined;
  /** Where the log may get another size. */
  readonly resizing: SimResize | undefined;
  /** What a shipper is asked for at its next turn, by site. */
  private readonly asks = new Map<number, () => void>();
  private readonly shipMail = new Map<number, ((shipper: Shipper) => void)[]>();
  private mail: (() => void)[] = [];
  private dataMail: (() => void)[] = [];
  /** The machines that are in a call right now, innermost last. */
  private readonly busy: string[] = [];

  static start(host: SimHost): SimDaemon {
    const io = new SimIo(host.world);
    const log = LogFile.open(io, LOG_PATH);
    const index = host.store.open(io);
    const images = new ImageSet(io, 'APPLY');
    const config = host.shape.late === undefined ? undefined : openImages(io, images);
    const detach = host.shape.detach === true;
    const noted = detach && typeof io.stat('CONFIG:NOTE', DETACHED_NOTE) !== 'number';
    const unopened = config === undefined ? openLocal(host, images) : undefined;
    const { window } = host.memory;
    if (unopened !== undefined && !(detach && (noted || window.ready)))
      throw new RepError('EIO', `${unopened.file}: cannot be opened`);
    if (window.ready) {
      const tail = window.tailSeq();
      if (tail !== host.history.tail)
        throw new Broken(
          `the window that outlived the daemon ends at ${tail}, acknowledged was up to ${host.history.tail}`,
        );
      const s = log.super;
      const indexed = index.checkpoint();
      // As daemon/open.ts does it: only what both superblocks say is relied on.
      if (log.superAlone && log.writeSuper({}, host.clock) < 0) throw new SimKill('the superblock cannot be written');
      const synced = indexed !== undefined && indexed.pos > s.checkpoint.pos ? indexed : s.checkpoint;
      const links = trustedLinks(s, index);
      return new SimDaemon(host, {
        io,
        log,
        index,
        images,
        recovered: undefined,
        synced: { ...synced },
        reign: s.reign,
        links,
        config,
        noted,
        unopened,
      });
    }
    const recovered = recover(log, index);
    host.note(`recovered to ${recovered.place.seq}, flushed were ${host.client.flushed}, written ${host.history.tail}`);
    if (recovered.place.seq < host.client.flushed)
      throw new Broken(
        `recovery ends at record ${recovered.place.seq}, but everything below ${host.client.flushed} was acknowledged as flushed`,
      );
    if (recovered.place.seq > host.history.tail)
      throw new Broken(
        `recovery ends at record ${recovered.place.seq}, which was never written (tail ${host.history.tail})`,
      );
    host.indexGone &&= log.super.indexId !== index.id;
    if (recovered.indexLost !== host.indexGone)
      throw new Broken(`recovery says that the index is ${recovered.indexLost ? '' : 'not '}lost`);
    if (host.closed && (!recovered.clean || recovered.newReign || recovered.place.seq !== host.history.tail))
      throw new Broken(
        `the log was closed cleanly at ${host.history.tail}, and recovery finds ${JSON.stringify(recovered)}`,
      );
    host.closed = false;
    if (recovered.tornBytes > 0) host.sawTornTail();
    host.client.lose(recovered.place.seq);
    // As daemon/open.ts does it. The log first: images must never be ahead of what the log is sure to keep.
    settleTail(log, recovered);
    const { checkpoint } = recovered;
    let synced = recovered.place;
    try {
      if (unopened !== undefined) throw new RepError('EIO', `${unopened.file}: cannot be opened`);
      replayLocal(log, images, checkpoint, recovered.place);
      checkLocal(host, host.local, recovered.place.seq);
    } catch (error) {
      if (!(error instanceof RepError) || !noted) throw error;
      host.note(`slink 0 stays detached: ${error.message}`);
      synced = checkpoint;
    }
    const { reign, id } = openForAppend(log, recovered, host.clock, (n) => host.bytes(n));
    window.format(recovered.place, synced.seq);
    host.pendingReign = id === undefined ? undefined : { reign, id };
    return new SimDaemon(host, {
      ...{ io, log, index, images, recovered, synced, reign, links: recovered.links, config, noted, unopened },
    });
  }

  private constructor(host: SimHost, begin: Begin) {
    const { io, log, index, images, recovered } = begin;
    const { clock } = host;
    const { window } = host.memory;
    const { shared } = this;
    this.host = host;
    this.io = io;
    this.window = window;
    this.images = images;
    this.log = log;
    shared.logHead = log.super.head.pos;
    shared.logRing = log.ring;

    const detach = host.shape.detach === true;
    const reader = new SimReader(io, images, host.world.rng, detach ? localImages(host) : []);
    for (const { nr, pending } of begin.config?.devices ?? []) if (pending?.op === 'remove') reader.remove(nr);
    const maxWrite = host.shape.client.largest * 512;
    this.group = new DeviceGroup({
      window,
      shared,
      space: new LogSpace(window, shared, log.segment),
      clock,
      reply: host.client,
      reader: reader as unknown as DeviceReader,
      committer: shared.bell(SH.BELL_COMMIT),
      maxWrite,
      durableWrites: host.shape.client.durableWrites,
      resend: () => host.client.resend(),
      other: () => undefined,
      logFull: () =>
        this.post(() => {
          shared.bump(SH.SYNC_ASK);
          if (this.leaving !== undefined) this.leaving.full = true;
        }),
      parking: new Parking(0, maxWrite + 4096),
      ...(detach ? { detach, starved: (errno: number) => this.post(() => this.detach?.starved(errno)) } : {}),
    });
    this.group.appender.reign = begin.reign;
    host.client.attach({ window, shared, group: this.group });

    this.leaving = host.shape.resync === true ? new SimLeaving(this, host, index) : undefined;
    this.checkpointer = new Checkpointer({
      ...(this.leaving === undefined ? {} : { dirt: this.leaving.port }),
      log,
      index,
      window,
      shared,
      clock,
      ...(recovered === undefined ? {} : { recovered }),
      events: { checkpointFailed: (reason) => host.note(`checkpoint failed: ${reason.message}`) },
    });
    if (recovered !== undefined) this.checkpointer.noteApplied(begin.synced);
    this.committer = new Committer({
      log: LogFile.open(io, LOG_PATH).follow(shared),
      window,
      shared,
      clock,
      answer: { answer: (lo, hi, bytes, errno) => host.client.answer(lo, hi, bytes, errno) },
      events: {
        logError: (errno, call) => host.note(`the log is suspended: ${call} gave ${errno}`),
        logHealed: () => host.note('the log is healed'),
        segmentClosed: (segment) => this.post(() => this.noteSegment(segment)),
      },
    });
    this.applier = new Applier(
      {
        window,
        shared,
        clock,
        images,
        log: LogFile.open(io, LOG_PATH, { readOnly: true }).follow(shared),
        reopen: () => openLocal(host, images),
        events: {
          synced: (place) => {
            const copy = { ...place };
            this.post(() => this.checkpointer.noteApplied(copy));
          },
          localError: (errno, file, during) => host.note(`slink 0 stops: ${during} of ${file} gave ${errno}`),
          localHealed: () => host.note('slink 0 goes on'),
        },
      },
      {
        synced: begin.synced,
        redo: recovered === undefined,
        syncBytes: host.shape.syncBytes,
        probeMs: 2000,
        ...(begin.unopened === undefined ? {} : { unopened: begin.unopened }),
      },
    );
    for (const { nr } of begin.links) if (host.sites.get(nr)?.removed === true) this.checkpointer.dropLink(nr);
    this.policies = new LinkPolicies(window, shared, clock, {
      degraded: (place, on) => {
        const nr = window.load(W.LINKS + place);
        host.note(`site ${nr} is ${on ? 'degraded' : 'no longer degraded'}`);
        host.degraded(on);
        host.policies.link(nr).tellDegraded(on, shared.linkSeq(place, this.tail));
      },
      beyond: (place, on) =>
        host.note(`site ${window.load(W.LINKS + place)} is ${on ? 'beyond' : 'within'} its limits`),
    });
    this.patience = new Patience(clock);
    this.startLinks(begin.links);
    this.detach = detach ? this.startDetach(begin.noted) : undefined;

    if (host.pendingReign !== undefined) {
      const { reign, id } = host.pendingReign;
      this.group.beginReign(reign, id, (seq) => {
        host.pendingReign = undefined;
        const start = window.placeBefore(seq);
        this.post(() =>
          this.checkpointer.noteReign({ reign, id: Buffer.from(id).toString('hex'), start, wallUs: clock.wallUs() }),
        );
      });
    }
    host.client.recordNew();
    host.client.resend();
    this.changes = begin.config === undefined ? undefined : new SimChanges(this, host, begin.config);
    this.resizing = host.shape.resize === true ? new SimResize(this, host, (work) => this.post(work)) : undefined;
    // From now on other threads run while one is in a call.
    host.world.between = () => this.interleave();
  }

  /** As daemon/detaching.ts connects it: what one thread says to another arrives with the other's next turn. */
  private startDetach(noted: boolean): LocalDetach {
    const { host, io, shared, window } = this;
    const answer = (nr: number, taken: boolean): void =>
      this.post(() => this.detach!.answered(nr, taken, taken ? '' : 'it lacks something'));
    return new LocalDetach(
      {
        ...{ window, shared, clock: host.clock },
        sites: () => [...host.sites.values()].map(({ nr, paused }) => ({ nr, place: this.placeOf(nr), paused })),
        hindrance: () => '',
        note: (detached) => {
          const rc = detached
            ? io.replaceFile('CONFIG:NOTE', DETACHED_NOTE, '{}')
            : Math.max(io.unlink('CONFIG:NOTE', DETACHED_NOTE), io.syncDir('CONFIG:NOTE', '/local'));
          return rc >= 0;
        },
        ask: (nr) =>
          this.asks.set(nr, () => {
            const found = this.shippers.get(nr)!.readers();
            this.post(() => this.detach!.heard(nr, found));
          }),
        leave: (nr) => this.asks.set(nr, () => this.shippers.get(nr)!.readersGone()),
        discard: (found) => {
          for (const { fd, direct } of found) for (const n of [fd, direct]) if (n >= 0) io.close('DEVICE:CLOSE', n);
        },
        offer: (offer) =>
          this.onData(() => {
            const table = offer.images ?? SimReader.open(io, localImages(host));
            answer(offer.nr, table !== undefined && this.group.turnTo(offer, table));
          }),
        giveUp: () => this.onData(() => this.group.source.giveUp()),
        hurry: () => shared.bump(SH.SYNC_ASK),
        events: {
          detached: (nr) => host.detached(nr),
          attached: () => host.detached(0),
        },
      },
      { noted, graceMs: 3000 },
    );
  }

  private startLinks(known: readonly LinkFact[]): void {
    const { host, window } = this;
    const sites = host.configured;
    if (sites.every(({ nr, shape }) => shape.place === undefined || window.load(W.LINKS + shape.place) !== nr))
      for (const { nr, shape } of sites) if (shape.place !== undefined) window.words[W.LINKS + shape.place] = nr;
    const places = assignPlaces(window, sites);
    sites.forEach((site, i) => {
      const model = host.policies.link(site.nr);
      model.started(site.paused);
      const fact = known.find((link) => link.nr === site.nr);
      const seq = fact?.cursor.seq ?? firstPlace(host.logId).seq;
      this.policies.add(places[i]!, model.rules, site.paused ? 'paused' : 'connecting', false, seq);
      this.shippers.set(site.nr, this.startShipper(site, places[i]!, known));
      this.leaving?.begun(site.nr);
    });
  }

  /** The place of a site's link. */
  placeOf(nr: number): number {
    return this.window.words.subarray(W.LINKS, W.LINKS + MAX_LINK_THREADS).indexOf(nr);
  }

  /** As daemon/site-admin does it, group.json being written already. */
  removeSite(nr: number): void {
    const place = this.placeOf(nr);
    this.policies.remove(place);
    this.checkpointer.dropLink(nr);
    this.checkpointer.ask();
    const shipper = this.shippers.get(nr)!;
    this.shippers.delete(nr);
    this.leaving?.forget(nr);
    shipper.close();
    freePlace(this.window, place);
  }

  private startShipper(site: SimSite, at: number, known: readonly LinkFact[]): Shipper {
    const { host, io, shared, window } = this;
    const { clock, shape } = site;
    const fact = known.find((link) => link.nr === site.nr);
    const begin = this.leaving?.begin(site.nr, fact, host.indexGone);
    if (begin === undefined && fact?.sync === 'inconsistent')
      throw new Broken(`site ${site.nr} is inconsistent, and nothing happened to the index`);
    const first = firstPlace(host.logId);
    if (begin === undefined && fact === undefined && this.log.super.head.pos !== 0)
      throw new Broken(`site ${site.nr} is new, and the log has lost its beginning`);
    if (begin === undefined && fact !== undefined && fact.cursor.pos < this.log.super.head.pos)
      throw new Broken(
        `site ${site.nr} needs the log from ${fact.cursor.pos} on, and its head is at ${this.log.super.head.pos}`,
      );
    const cursor: SiteCursor =
      begin !== undefined
        ? begin.cursor
        : fact === undefined
          ? { ...first, reign: 0 }
          : { ...fact.cursor, reign: fact.reign };
    const note = (place: SiteCursor): void => {
      if (site.removed) return;
      const { reign, ...rest } = place;
      this.checkpointer.noteLink({
        nr: site.nr,
        cursor: rest,
        reign,
        sync: 'in-order',
        paused: site.paused,
      });
    };
    if (begin === undefined && fact === undefined) note(cursor);
    const model = host.policies.link(site.nr);
    const facing = witnessed(
      shape.raw === undefined
        ? new FolderSite(io, clock, site.folder, {
            area: shape.area,
            makeFolder: true,
            direct: shape.direct === true,
          })
        : rawSite(io, clock, site.nr, host.shape.client.devices),
      {
        has: (seq) => (model.reached = Math.max(model.reached, seq)),
        gets: (seq) => (site.sent = Math.max(site.sent, seq)),
        opened: () => {
          if (site.exchanged !== undefined && shape.raw !== undefined) checkTaken(host.local, host.history, site);
        },
      },
    );
    const resync = this.leaving === undefined ? undefined : this.makeResync(site.nr, facing);
    return new Shipper(
      {
        window,
        shared,
        clock,
        log: LogFile.open(io, LOG_PATH, { readOnly: true }).follow(shared),
        site: facing,
        ...(resync === undefined ? {} : { resync }),
        events: {
          cursor: (place) => {
            const copy = { ...place };
            if (copy.seq < site.confirmed && resync?.active !== true)
              throw new Broken(`site ${site.nr} confirmed up to ${site.confirmed}, and now only ${copy.seq}`);
            site.made = true;
            if (resync?.active !== true) site.confirmed = copy.seq;
            const epoch = resync?.epoch ?? 0;
            this.post(() => (this.leaving === undefined ? note(copy) : this.leaving.moved(site.nr, epoch, copy)));
          },
          state: (state, reason) => {
            host.note(`site ${site.nr} is ${state} ${reason}`);
            if (reason.includes('so it was exchanged')) checkRefused(host, site);
            this.linkStates.set(site.nr, state);
            this.post(() => {
              if (site.removed) return;
              this.policies.note(at, state);
              model.told(state);
            });
          },
        },
      },
      {
        identity: { logId: host.logId, group: GROUP, nr: site.nr },
        devices: host.shape.client.devices.map(({ nr, sectors }) => ({ nr, name: `disk${nr}`, size: sectors * 512 })),
        cursor,
        fresh: begin?.fresh ?? cursor.seq === first.seq,
        ...(begin?.order === undefined ? {} : { resync: begin.order }),
        paused: site.paused,
        place: at,
        rpoMs: shape.rpoMs,
        bandwidth: shape.bandwidth ?? 0,
        ...(shape.defer === undefined ? {} : { defer: shape.defer }),
        ...(shape.raw === undefined ? {} : { idleMs: shape.raw.idleMs }),
        probeMs: 2000,
      },
    );
  }

  private makeResync(nr: number, site: Site): Resync {
    const { host, window, shared } = this;
    return new Resync({
      ...{ window, shared, site },
      clock: host.clock,
      local: new LocalSource(this.io, window, shared),
      events: {
        copied: (report) => this.post(() => this.leaving!.copied(nr, report)),
        inSync: (report) => this.post(() => this.leaving!.inSync(nr, report)),
        lost: (epoch) => this.post(() => this.leaving!.lost(nr, epoch)),
      },
    });
  }

  private noteSegment(segment: ClosedSegment): void {
    const limit = { pos: this.committer.durablePos, seq: this.committer.durable };
    try {
      const fact = segmentFact(segment.complete ? segment : readSegment(this.log, segment.start, limit));
      if (fact !== undefined) this.checkpointer.noteSegment(fact);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.host.note(`indexing a segment: ${error.message}`);
    }
  }

  private post(work: () => void): void {
    this.mail.push(work);
  }

  get names(): string[] {
    const helper = this.resizing === undefined ? [] : ['helper'];
    return [
      'client',
      'committer',
      'applier',
      'main',
      ...helper,
      ...[...this.shippers.keys()].map((nr) => `shipper${nr}`),
    ];
  }

  /** One step of one machine; the milliseconds that it wants to be left alone. */
  step(name: string): number {
    // `drain` is the client's thread too.
    const thread = name === 'drain' ? 'client' : name;
    if (this.busy.includes(thread)) return 1;
    this.busy.push(thread);
    try {
      switch (name) {
        case 'client':
          this.takeDataMail();
          return this.host.client.step() ? 0 : 1;
        case 'drain':
          this.takeDataMail();
          return this.host.client.step(false) ? 0 : 1;
        case 'committer': {
          this.resizing?.takeMail();
          const ms = this.committer.step();
          this.resizing?.stepped();
          return ms;
        }
        case 'helper':
          return this.resizing!.work();
        case 'applier':
          return this.applier.step();
        case 'main':
          return this.main();
        default: {
          const nr = Number(name.slice('shipper'.length));
          const shipper = this.shippers.get(nr);
          if (shipper !== undefined) for (const work of this.shipMail.get(nr)?.splice(0) ?? []) work(shipper);
          const asked = this.asks.get(nr);
          this.asks.delete(nr);
          asked?.();
          // One whose site was removed has nothing left to do.
          return this.ship(nr);
        }
      }
    } finally {
      this.busy.pop();
    }
  }

  private ship(nr: number): number {
    const shipper = this.shippers.get(nr);
    if (shipper === undefined) return 1;
    return this.host.deferrals.get(nr)?.step(this, shipper) ?? shipper.step();
  }

  private main(): number {
    const mail = this.mail;
    this.mail = [];
    for (const work of mail) work();
    this.changes?.step();
    this.policies.step();
    this.patience.look(this.host.client.beingServed());
    this.detach?.step();
    this.leaving?.step();
    const ms = this.checkpointer.step();
    return Math.min(ms, this.resizing?.machine.step() ?? ms);
  }

  /** Something for a shipper's thread, which it does at its next turn. */
  toShipper(nr: number, work: (shipper: Shipper) => void): void {
    const mail = this.shipMail.get(nr);
    if (mail === undefined) this.shipMail.set(nr, [work]);
    else mail.push(work);
  }

  /** Something for the data thread, which it does at its next turn. */
  onData(work: () => void): void {
    this.dataMail.push(work);
  }

  private takeDataMail(): void {
    if (this.dataMail.length === 0) return;
    const mail = this.dataMail;
    this.dataMail = [];
    for (const work of mail) work();
    this.host.client.recordNew();
  }

  /** Chance of another thread's step at each call. */
  restless = 0;

  private interleave(): void {
    if (this.host.world.rng.chance(this.restless)) this.others();
  }

  /** While a thread is in a call, some of the others run. */
  others(): void {
    const { world } = this.host;
    if (this.busy.length === 0 || this.busy.length > 2) return;
    for (let n = world.rng.between(1, 4); n > 0; n--) this.step(world.rng.pick(this.names));
  }

  /** Whose images are read. */
  get source(): number {
    return this.window.load(W.SOURCE);
  }

  get tail(): number {
    return this.window.tailSeq()!;
  }

  get applied(): number {
    return this.window.seqOf(W.APPLIED, this.tail);
  }
}
