/**
 * The shipper: carries durable records to one site, in order, on a thread of its own.
 *
 * Where from: out of the window while the records are there, else out of the log's file. The window belongs to
 * the data thread, which never waits for a site; so the shipper copies first and asks afterwards whether HEAD
 * has passed the first record it copied. If so, the copy may be of newer records, and the log is read instead.
 *
 * Where a cursor may stand: behind a batch of the log, where a reader can begin. In the window such places show
 * in S_LOG_END, which is the same in all slots of one log batch.
 *
 * How far: never beyond DURABLE. What a power cut here could take back must not be found at a site.
 *
 * When: it gathers for up to `rpoMs`, unless somebody waits for what it would send (WANTED), and never sends more
 * than the bandwidth allows, whoever waits. What is confirmed it publishes in the words of its place (LINK_SEQ).
 */
import type { Machine } from '../base/clock.js';
import { getU64 } from '../base/codec.js';
import { assert } from '../base/errors.js';
import { R_SEQ, RECORD_HEADER } from '../replog/format.js';
import { SH } from '../replog/shared.js';
import { W } from '../replog/window.js';
import { Bandwidth } from './bandwidth.js';
import { SHIP_BYTES, type ShipBatch } from './batch.js';
import type { LinkState, SiteCursor, SiteOpened, SiteResync } from './contract.js';
import { Deferral, type DeferOptions } from './deferral.js';
import type { ResyncOrder } from './resync-order.js';
import type { Readers, ShipperOptions, ShipperParts } from './ship-parts.js';
import { ShipBuffers } from './ship-buffers.js';
import { Judge } from './ship-judge.js';
import { LogView } from './ship-view.js';
import { LinkWords } from './ship-words.js';
import { Verifier } from './verifier.js';

export type { Readers, ShipperOptions, ShipperParts } from './ship-parts.js';

/** How often it is asked whether the turn for large buffers has come. */
const TURN_MS = 20;

/** How often it is asked whether slink 0 holds what is to be sent, while that bounds it. */
const LIMIT_MS = 2;

export class Shipper implements Machine {
  state: LinkState = 'connecting';
  reason = '';
  /** Everything before it is confirmed by the site. */
  readonly cursor: SiteCursor;

  private readonly parts: ShipperParts;
  private readonly options: Required<Omit<ShipperOptions, 'defer' | 'resync'>>;
  private readonly bandwidth: Bandwidth;
  private readonly batch: ShipBatch;
  private readonly buffers: ShipBuffers;
  private readonly view: LogView;
  private readonly words: LinkWords;
  private readonly judge: Judge;
  /** Compares the site with slink 0's images, beside shipping; reports come as events. */
  readonly verifier: Verifier;

  private opened = false;
  private paused: boolean;
  private fresh: boolean;
  /** The site is inconsistent: dirty regions are copied beside what is shipped. */
  private copying = false;
  /** Reads of the group come from the site's images: what it lacks is kept in the window. */
  private read = false;
  /** DURABLE as the last step found it. */
  private seen: number;
  private probeAt = 0;
  private lastWriteAt = 0;
  private readonly deferral: Deferral;
  /** Time of the first record behind the cursor, microseconds; 0 = not known. */
  private pendingUs = 0;
  /** A batch is with the site and not confirmed. */
  private sending = false;
  private asked: number;
  /** Ship and flush up to here without waiting. */
  private hurryTo = 0;

  constructor(parts: ShipperParts, options: ShipperOptions) {
    this.parts = parts;
    this.options = { paused: false, rpoMs: 100, probeMs: 15_000, idleMs: 1000, bandwidth: 0, ...options };
    this.bandwidth = new Bandwidth(parts.clock, this.options.bandwidth);
    this.cursor = { ...options.cursor };
    this.buffers = new ShipBuffers(parts.log, parts.shared, options.place, this.options.idleMs);
    this.batch = this.buffers.batch;
    this.view = new LogView(parts.window, options.cursor);
    this.words = new LinkWords(parts.shared, options.place, parts.events, options.cursor);
    this.judge = new Judge(options.identity.nr, this.view, this.buffers);
    this.verifier = new Verifier(parts, () => this.closed);
    this.deferral = new Deferral(this.options.rpoMs, parts.log, options.defer);
    this.paused = options.paused ?? false;
    this.fresh = options.fresh;
    this.seen = options.cursor.seq;
    this.asked = parts.shared.load(SH.SYNC_ASK);
    this.lookAtDurable();
    this.estimate();
    this.publish(0);
    this.noteSent();
    if (this.paused) this.setState('paused', '');
    if (options.resync !== undefined) this.resync(options.resync);
  }

  /** Settings that may change while it runs. */
  configure(rpoMs: number, bandwidth: number, defer?: DeferOptions): void {
    this.options.rpoMs = rpoMs;
    this.deferral.configure(rpoMs, defer);
    if (bandwidth !== this.options.bandwidth) this.bandwidth.limit(bandwidth);
    this.options.bandwidth = bandwidth;
  }

  /** From the moment the state says so, nothing is under way, and the cursor is where it stays. */
  pause(): void {
    this.paused = true;
    this.verifier.end('stopped', 'the site was paused');
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.setState('paused', '');
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.probeAt = 0;
    if (this.opened) this.showOpen('connected');
    else this.setState('connecting', '');
  }

  /** The link has left the ring, or has left it once more: the site is opened anew and made equal by copying. */
  resync(order: ResyncOrder): void {
    const { resync, site } = this.parts;
    assert(resync !== undefined, 'what a resync needs is there');
    if (!resync.begin(order)) return;
    this.verifier.end('failed', 'the site has left the ring and is resynced');
    this.imagesHold(false);
    site.close();
    this.opened = false;
    this.copying = true;
    // What the site has confirmed beyond the drop is confirmed still, unless it begins there whatever it has.
    if (order.anew || order.at.seq > this.cursor.seq) this.jump(order.at);
    this.probeAt = 0;
    if (!this.paused) this.setState('connecting', '');
  }

  /** Main's word that no region is dirty in the index any more. */
  whole(epoch: number, wholeAt: number): void {
    this.parts.resync?.whole(epoch, wholeAt);
  }

  /** True while a step may take so long that messages are to be looked for behind each. */
  get heeds(): boolean {
    return this.copying || this.verifier.active;
  }

  /** Why the site's images cannot be compared with anything, ''. */
  private get closed(): string {
    if (this.copying) return 'it is being resynced';
    return this.paused ? 'it is paused' : this.opened ? '' : 'it is not open';
  }

  /** Tries a failed site at the next step: somebody says that it is back. */
  retry(): void {
    this.probeAt = 0;
  }

  /** Log bytes that are durable here and not confirmed there. */
  get lagBytes(): number {
    this.lookAtDurable();
    return Math.max(0, this.view.durablePos - this.cursor.pos);
  }

  /** Age of the oldest record that is durable here and not confirmed there; 0 where there is none. */
  get lagSeconds(): number {
    this.lookAtDurable();
    if (this.view.durable <= this.cursor.seq) return 0;
    const since = this.pendingUs > 0 ? this.pendingUs : this.cursor.time;
    return since > 0 ? Math.max(0, (this.parts.clock.wallUs() - since) / 1e6) : 0;
  }

  /** True where nothing has happened since the last step but time: what a thread asks before it sleeps. */
  get idle(): boolean {
    if (this.parts.shared.load(SH.SYNC_ASK) !== this.asked) return false;
    if (!this.opened || this.paused) return this.probeAt > 0 || this.paused;
    return this.parts.window.seqOf(W.DURABLE, this.seen) === this.seen;
  }

  /** True while it puts its work off and need not be woken for what becomes durable. */
  get dozes(): boolean {
    return this.opened && !this.paused && this.deferral.active;
  }

  step(): number {
    const { clock, shared, window } = this.parts;
    const now = clock.monoMs();
    this.lookAtDurable();
    this.seen = this.view.durable;
    const ask = shared.load(SH.SYNC_ASK);
    if (ask !== this.asked) {
      this.asked = ask;
      // Whoever asks means what is written, not only what is durable by now.
      this.hurryTo = window.seqOf(W.TAIL, this.view.durable) + 1;
    }
    if (this.paused) {
      this.tellCursor(now, true);
      this.giveBack();
      if (this.copying) this.parts.resync!.release();
      return this.options.probeMs;
    }
    if (!this.opened) {
      if (now < this.probeAt) return this.probeAt - now;
      return this.tryOpen(now);
    }
    if (this.copying) return this.shipAndCopy(now);
    const beside = this.verifier.step(this.cursor.seq);
    if (beside < 0) return this.fail(this.parts.site.reason);
    const { durable } = this.view;
    return Math.min(beside, durable > this.cursor.seq ? this.ship(now, durable) : this.rest(now));
  }

  /**
   * Descriptors of the site's images for reading, opened here since that may hang; or why there are none. They may be
   * read as long as IMAGES of this link is `epoch`, and hold everything below its HELD.
   */
  readers(): Readers | string {
    const { site, shared } = this.parts;
    if (site.readers === undefined) return `images of type ${site.type} cannot be read here`;
    if (!this.opened) return 'it is not open';
    if (this.copying) return 'it is being resynced';
    const images = site.readers();
    if (typeof images === 'string') return images;
    // From now on somebody may wait for every record: nothing is put off any more.
    this.read = true;
    return { images, epoch: shared.load(SH.IMAGES + this.options.place) };
  }

  /** Nobody reads them any more. */
  readersGone(): void {
    this.read = false;
  }

  /** Ends the work with the site; what is confirmed stays confirmed. */
  close(): void {
    this.verifier.end('stopped', 'the group is closed');
    this.imagesHold(false);
    if (this.opened && this.parts.site.unflushed) this.parts.site.flush();
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.parts.site.close();
    this.opened = false;
    this.parts.resync?.close();
    this.buffers.close();
  }

  // --- opening ---------------------------------------------------------------------------------------------

  private tryOpen(now: number): number {
    const { site, resync } = this.parts;
    this.imagesHold(false);
    let opened = this.openSite(now, this.copying ? resync!.how() : undefined);
    if (this.copying && opened.ok && this.judge.wrong(opened.cursor, this.cursor) !== '')
      if (resync!.mayStartOver(this.cursor)) opened = this.openSite(now, resync!.how(true));
    if (!opened.ok) return site.preparing === true ? this.prepare(now, opened.reason) : this.fail(opened.reason);
    const wrong = this.judge.wrong(opened.cursor, this.cursor);
    if (wrong !== '') return this.fail(wrong);
    const cannot = this.copying ? resync!.opened(opened.lost === true) : '';
    if (cannot !== '') return this.fail(`site ${this.options.identity.nr}: ${cannot}`);
    Object.assign(this.cursor, opened.cursor);
    this.opened = true;
    this.parts.meter?.opened();
    this.fresh = false;
    this.deferral.sent();
    this.pendingUs = 0;
    this.lookAtDurable();
    this.publish(0);
    // While it is inconsistent nobody may read from it.
    this.imagesHold(!this.copying);
    this.probeAt = now + this.options.probeMs;
    this.showOpen('connected');
    this.tellCursor(now, true);
    return 0;
  }

  private openSite(now: number, resync: SiteResync | undefined): SiteOpened {
    const { site } = this.parts;
    const { identity, devices } = this.options;
    const create = this.fresh ? { create: { ...this.cursor } } : {};
    const how = { identity, devices, ...create, sentBehind: this.judge.sentBehind };
    const opened = site.open(resync === undefined ? how : { ...how, resync });
    this.countConnections();
    this.noteSent();
    this.words.window(now, site.window);
    return opened;
  }

  /** The cursor is another one, without anything having been sent. */
  private jump(to: SiteCursor): void {
    Object.assign(this.cursor, to);
    this.pendingUs = 0;
    this.deferral.sent();
    this.lookAtDurable();
    this.estimate();
    this.publish(0);
    this.words.hasTold(to);
  }

  /** It is being made ready, step by step; between the steps messages are heard. */
  private prepare(now: number, reason: string): number {
    const wait = Math.max(this.parts.site.againMs ?? 0, 1);
    this.probeAt = now + wait;
    this.setState('connecting', reason);
    return wait;
  }

  private fail(reason: string): number {
    this.verifier.end('failed', `the site has failed: ${reason}`);
    this.imagesHold(false);
    // What was confirmed before stays confirmed.
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.parts.site.close();
    this.opened = false;
    this.giveBack();
    if (this.copying) this.parts.resync!.failed();
    const now = this.parts.clock.monoMs();
    const wait = Math.max(this.parts.site.againMs ?? this.options.probeMs, 1);
    this.probeAt = now + wait;
    this.parts.meter?.failed();
    this.countConnections();
    this.noteSent();
    this.words.window(now, this.parts.site.window);
    this.setState('failed', reason);
    return wait;
  }

  private countConnections(): void {
    const { connections } = this.parts.site;
    if (connections !== undefined)
      this.parts.meter?.connections(connections.made, connections.lost, connections.garbage);
  }

  private setState(state: LinkState, reason: string): void {
    if (state === this.state && reason === this.reason) return;
    this.state = state;
    this.reason = reason;
    this.parts.events.state(state, reason);
  }

  /** It is open: `kept` where nothing is copied. */
  private showOpen(kept: LinkState): void {
    if (this.copying) this.setState('resyncing', this.parts.resync!.reason);
    else this.setState(kept, '');
  }

  // --- shipping --------------------------------------------------------------------------------------------

  /** Turn about: what there is to be shipped, up to a batch, and some copying. */
  private shipAndCopy(now: number): number {
    const { cursor, view, bandwidth } = this;
    const { shared, site } = this.parts;
    const resync = this.parts.resync!;
    const limit = resync.limit(view.durable);
    this.hurryTo = Math.max(this.hurryTo, resync.hurryTo);
    const shipped = limit > cursor.seq ? this.ship(now, limit) : this.rest(now);
    if (!this.opened || shared.load(SH.CLOSING) !== 0) return shipped;
    const wait = view.durable > cursor.seq ? Math.min(shipped, LIMIT_MS) : shipped;
    const owed = bandwidth.wait();
    if (owed > 0) return Math.min(wait, owed);
    const before = resync.sent;
    const copied = resync.step(cursor, bandwidth.batchBytes);
    bandwidth.spent(resync.sent - before);
    if (copied < 0) return this.fail(site.reason);
    if (!resync.active) {
      this.copying = false;
      this.imagesHold(true);
      this.tellCursor(now, true);
    }
    this.showOpen('connected');
    return Math.min(wait, copied);
  }

  /** Sends a batch of records below `limit`, if it is time. */
  private ship(now: number, limit: number): number {
    const { cursor, deferral } = this;
    const { durablePos } = this.view;
    const { shared } = this.parts;
    const hurried = Math.max(this.hurryTo, this.verifier.wants) > cursor.seq;
    if (hurried || this.wanted || this.read || shared.load(SH.CLOSING) !== 0) deferral.stop();
    else {
      const wait = deferral.wait(now, durablePos, durablePos - cursor.pos, durablePos - shared.logHead);
      if (wait > 0) return wait;
    }
    const owed = this.bandwidth.wait();
    if (owed > 0) return owed;
    const fromLog = this.view.head() > cursor.seq;
    if (!this.buffers.mayBegin(now, durablePos - cursor.pos, fromLog, this.wanted)) return TURN_MS;
    const near = this.view.copy(this.batch, cursor, limit, Math.min(SHIP_BYTES, this.bandwidth.batchBytes));
    if (!near) {
      // Only whole batches of the log are sent, and none is below the limit yet.
      if (limit < this.view.durable && this.view.head() <= cursor.seq) return LIMIT_MS;
      const broken = this.fromLog(limit);
      if (broken !== '') return this.fail(broken);
      if (this.batch.records === 0) return LIMIT_MS;
    }
    const rc = this.send(now);
    // One batch out of the log is no news; the next one then is.
    if (this.opened)
      this.showOpen(!near && this.view.durablePos - this.cursor.pos > SHIP_BYTES ? 'behind' : 'connected');
    return rc;
  }

  private send(now: number): number {
    const { batch, cursor } = this;
    const { site } = this.parts;
    this.verifier.sent(batch.mem, batch.recordAt(0), batch.records);
    assert(batch.records > 0, 'there is something to send');
    const last = batch.recordAt(batch.records - 1);
    assert(getU64(batch.mem.dv, last + R_SEQ) === cursor.seq + batch.records - 1, 'records are copied without a gap');
    if (site.window !== undefined) {
      const to = cursor.seq + batch.records;
      this.noteSent(to);
      this.words.window(now, { from: cursor.seq, to, bytes: batch.bytes });
    }
    this.sending = true;
    const rc = site.write(batch, this.confirm);
    if (rc < 0) return this.fail(site.reason);
    this.confirm();
    if (!this.copying) this.imagesHold(true);
    this.noteSent();
    this.tellCursor(this.lastWriteAt, false);
    // While there is more to send, the next batch opens it again at once.
    if (this.view.durable === cursor.seq) this.words.window(this.lastWriteAt, site.window);
    this.buffers.sent(this.lastWriteAt);
    return 0;
  }

  /** The site has confirmed the batch, though it may still be busy with it: who waits for that is told. */
  private readonly confirm = (): void => {
    if (!this.sending) return;
    this.sending = false;
    const { batch } = this;
    this.parts.meter?.sent(batch.bytes, batch.records);
    batch.end(this.cursor);
    this.bandwidth.spent(batch.bytes + batch.records * RECORD_HEADER);
    this.lastWriteAt = this.parts.clock.monoMs();
    this.deferral.sent();
    this.pendingUs = 0;
    this.lookAtDurable();
    this.publish(batch.bytes);
  };

  private get wanted(): boolean {
    return this.words.wanted(this.cursor);
  }

  /** The cursor has moved on by `bytes` of payload: says so in the link's words, and to who waits for it. */
  private publish(bytes: number): void {
    const { cursor, view } = this;
    const oldest = this.pendingUs > 0 ? this.pendingUs : cursor.time;
    this.words.publish(cursor, bytes, view.payloadBehind(cursor.seq), oldest);
  }

  private imagesHold(hold: boolean): void {
    this.words.imagesHold(hold, this.cursor);
  }

  /** BYTES, where the window does not say. */
  private estimate(): void {
    const { view } = this;
    this.words.estimate(view.payloadBehind(view.durable) - (view.durablePos - this.cursor.pos));
  }

  /** Reads a batch from the log's file; '' or why that cannot be done. */
  private fromLog(below: number): string {
    const limit = { pos: this.view.durablePos, seq: this.view.durable };
    const broken = this.buffers.readLog(this.cursor, limit, this.bandwidth.batchBytes, below);
    return broken === '' ? '' : `site ${this.options.identity.nr}: ${broken}`;
  }

  /** Nothing was to be sent for a while, or nothing can be: buffers are given back. */
  private giveBack(): void {
    if (!this.buffers.giveBack()) return;
    this.parts.site.rest?.();
    this.parts.events.rests?.();
  }

  /** All is confirmed: tells the index, flushes the site, looks whether it is still there. */
  private rest(now: number): number {
    const { site } = this.parts;
    this.deferral.sent();
    this.tellCursor(now, this.hurryTo > 0 || this.parts.shared.load(SH.CLOSING) !== 0);
    this.showOpen('connected');
    let wait = this.probeAt - now;
    // Under a sync site every single write comes to rest: each would wake main.
    if (!this.words.knows(this.cursor)) wait = Math.min(wait, this.words.due - now);
    if (site.unflushed) {
      const due = this.lastWriteAt + this.options.idleMs - now;
      if (due <= 0 || this.hurryTo > 0) {
        if (site.flush() < 0) return this.fail(site.reason);
      } else wait = Math.min(wait, due);
    }
    const due = this.buffers.due(now);
    if (due <= 0) this.giveBack();
    else wait = Math.min(wait, due);
    if (this.hurryTo <= this.cursor.seq + 1) this.hurryTo = 0;
    if (now >= this.probeAt) {
      if (site.probe() < 0) return this.fail(site.reason);
      this.probeAt = now + this.options.probeMs;
      wait = this.options.probeMs;
    }
    return Math.max(wait, 1);
  }

  private tellCursor(now: number, atOnce: boolean): void {
    if (this.opened) this.words.cursor(now, this.cursor, atOnce);
  }

  /** Says up to where the site may hold records, in any case those before `to`. */
  private noteSent(to = 0): void {
    this.words.sent(Math.max(to, this.parts.site.window?.to ?? 0));
  }

  /** Takes over DURABLE, and the time of the first record behind the cursor. */
  private lookAtDurable(): void {
    const { view } = this;
    view.look();
    if (this.pendingUs !== 0 || view.durable <= this.cursor.seq) return;
    this.pendingUs = view.timeOf(this.cursor.seq);
    if (this.pendingUs > 0) this.words.oldest(this.pendingUs);
  }
}
