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
import { assert, errnoText } from '../base/errors.js';
import { MIB } from '../base/units.js';
import { R_BYTES, R_CHAIN, R_SEQ, R_TIME, RECORD_HEADER, payloadSpace } from '../replog/format.js';
import { READ } from '../replog/reader.js';
import { SH, SHF, type Bell } from '../replog/shared.js';
import { S_RECORD, W } from '../replog/window.js';
import { Bandwidth } from './bandwidth.js';
import { SHIP_BYTES, SHIP_RECORDS, type ShipBatch } from './batch.js';
import type { LinkState, OpenWindow, SiteCursor, SiteOpen } from './contract.js';
import { Deferral, type DeferOptions } from './deferral.js';
import type { Readers, ShipperOptions, ShipperParts } from './ship-parts.js';
import { ShipBuffers } from './ship-buffers.js';

export type { Readers, ShipperOptions, ShipperParts } from './ship-parts.js';

/** The index hears of the cursor this often at most, and so long after data cease at the latest. */
const CURSOR_MS = 50;
const CURSOR_BYTES = 16 * MIB;

/** How often it is asked whether the turn for large buffers has come. */
const TURN_MS = 20;

export class Shipper implements Machine {
  state: LinkState = 'connecting';
  reason = '';
  /** Everything before it is confirmed by the site. */
  readonly cursor: SiteCursor;

  private readonly parts: ShipperParts;
  private readonly options: Required<Omit<ShipperOptions, 'defer'>>;
  private readonly bandwidth: Bandwidth;
  private readonly committer: Bell;
  private readonly batch: ShipBatch;
  private readonly buffers: ShipBuffers;

  private opened = false;
  private paused: boolean;
  private fresh: boolean;
  /** Reads of the group come from the site's images: what it lacks is kept in the window. */
  private read = false;
  private durable: number;
  private durablePos: number;
  /** DURABLE as the last step found it. */
  private seen: number;
  private probeAt = 0;
  private lastWriteAt = 0;
  private readonly deferral: Deferral;
  /** Time of the first record behind the cursor, microseconds; 0 = not known. */
  private pendingUs = 0;
  private told: { pos: number; at: number };
  /** A batch is with the site and not confirmed. */
  private sending = false;
  private readonly toldWindow = { open: false, known: false, at: -Infinity };
  private asked: number;
  /** Ship and flush up to here without waiting. */
  private hurryTo = 0;
  /** An acquire-release operation on a word of our own keeps the copy before the check behind it. */
  private readonly fence = new Int32Array(new SharedArrayBuffer(4));

  constructor(parts: ShipperParts, options: ShipperOptions) {
    this.parts = parts;
    this.options = { paused: false, rpoMs: 100, probeMs: 15_000, idleMs: 1000, bandwidth: 0, ...options };
    this.bandwidth = new Bandwidth(parts.clock, this.options.bandwidth);
    this.committer = parts.shared.bell(SH.BELL_COMMIT);
    this.cursor = { ...options.cursor };
    this.buffers = new ShipBuffers(parts.log, parts.shared, options.place, this.options.idleMs);
    this.batch = this.buffers.batch;
    this.deferral = new Deferral(this.options.rpoMs, parts.log.ring, options.defer);
    this.paused = options.paused ?? false;
    this.fresh = options.fresh;
    this.durable = parts.window.tailSeq() ?? options.cursor.seq;
    this.durablePos = options.cursor.pos;
    this.seen = options.cursor.seq;
    this.told = { pos: options.cursor.pos, at: -Infinity };
    this.asked = parts.shared.load(SH.SYNC_ASK);
    this.lookAtDurable();
    const behind = this.durablePos - this.cursor.pos;
    parts.shared.floatView[SHF.BYTES + this.options.place] = this.payloadBehind(this.durable) - behind;
    this.publish(0);
    this.noteSent();
    if (this.paused) this.setState('paused', '');
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
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.setState('paused', '');
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.probeAt = 0;
    if (this.opened) this.setState('connected', '');
    else this.setState('connecting', '');
  }

  /** Tries a failed site at the next step: somebody says that it is back. */
  retry(): void {
    this.probeAt = 0;
  }

  /** Log bytes that are durable here and not confirmed there. */
  get lagBytes(): number {
    this.lookAtDurable();
    return Math.max(0, this.durablePos - this.cursor.pos);
  }

  /** Age of the oldest record that is durable here and not confirmed there; 0 where there is none. */
  get lagSeconds(): number {
    this.lookAtDurable();
    if (this.durable <= this.cursor.seq) return 0;
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
    this.seen = this.durable;
    const ask = shared.load(SH.SYNC_ASK);
    if (ask !== this.asked) {
      this.asked = ask;
      // Whoever asks means what is written, not only what is durable by now.
      this.hurryTo = window.seqOf(W.TAIL, this.durable) + 1;
    }
    if (this.paused) {
      this.tellCursor(now, true);
      this.giveBack();
      return this.options.probeMs;
    }
    if (!this.opened) {
      if (now < this.probeAt) return this.probeAt - now;
      return this.tryOpen(now);
    }
    if (this.durable > this.cursor.seq) return this.ship(now);
    return this.rest(now);
  }

  /**
   * Descriptors of the site's images for reading, opened here since that may hang; or why there are none. They may be
   * read as long as IMAGES of this link is `epoch`, and hold everything below its HELD.
   */
  readers(): Readers | string {
    const { site, shared } = this.parts;
    if (site.readers === undefined) return `images of type ${site.type} cannot be read here`;
    if (!this.opened) return 'it is not open';
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
    this.imagesHold(false);
    if (this.opened && this.parts.site.unflushed) this.parts.site.flush();
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.parts.site.close();
    this.opened = false;
    this.buffers.close();
  }

  // --- opening ---------------------------------------------------------------------------------------------

  private tryOpen(now: number): number {
    const { site } = this.parts;
    const { identity, devices } = this.options;
    this.imagesHold(false);
    const create = this.fresh ? { create: { ...this.cursor } } : {};
    const opened = site.open({ identity, devices, ...create, sentBehind: this.sentBehind });
    this.countConnections();
    this.noteSent();
    this.tellWindow(now, site.window);
    if (!opened.ok) return site.preparing === true ? this.prepare(now, opened.reason) : this.fail(opened.reason);
    const wrong = this.judge(opened.cursor);
    if (wrong !== '') return this.fail(wrong);
    Object.assign(this.cursor, opened.cursor);
    this.opened = true;
    this.parts.meter?.opened();
    this.fresh = false;
    this.deferral.sent();
    this.pendingUs = 0;
    this.lookAtDurable();
    this.publish(0);
    this.imagesHold(true);
    this.probeAt = now + this.options.probeMs;
    this.setState('connected', '');
    this.tellCursor(now, true);
    return 0;
  }

  /** It is being made ready, step by step; between the steps messages are heard. */
  private prepare(now: number, reason: string): number {
    const wait = Math.max(this.parts.site.againMs ?? 0, 1);
    this.probeAt = now + wait;
    this.setState('connecting', reason);
    return wait;
  }

  /** One call of `write` takes at most a batch: so much behind a confirmed place may be there, no more. */
  private readonly sentBehind: NonNullable<SiteOpen['sentBehind']> = (from, visit) => {
    const reader = this.buffers.reader();
    reader.seek(from);
    const limit = { pos: this.durablePos, seq: this.durable };
    for (let records = 0, bytes = 0; records < SHIP_RECORDS && bytes < SHIP_BYTES;) {
      const result = reader.next(limit);
      if (result === READ.END) return true;
      if (result === READ.BROKEN) return false;
      const { mem, headers, count, payloadBytes } = reader.batch;
      visit(mem, headers, count);
      records += count;
      bytes += payloadBytes;
    }
    return true;
  };

  /** Why a site at `at` cannot be continued from this log, or ''. */
  private judge(at: SiteCursor): string {
    const { cursor } = this;
    const whose = `site ${this.options.identity.nr}`;
    if (at.seq > this.durable)
      return `${whose}: belongs to another history: it holds records up to ${at.seq - 1}, this log ends at ${this.durable - 1}; resync it`;
    if (at.seq < cursor.seq)
      return `${whose}: was rolled back: it had confirmed record ${cursor.seq - 1} and now ends at ${at.seq - 1}; put the newer state back or resync it`;
    const known = this.chainAt(at);
    if (typeof known === 'string') return `${whose}: ${known}`;
    return known
      ? ''
      : `${whose}: belongs to another history: record ${at.seq - 1} is not the one in this log; resync it`;
  }

  /** Whether the record before `at` is the one in this log; a sentence where that cannot be read. */
  private chainAt(at: SiteCursor): boolean | string {
    const { cursor } = this;
    const { window } = this.parts;
    if (at.seq === cursor.seq) return at.chainLo === cursor.chainLo && at.chainHi === cursor.chainHi;
    // The slot before HEAD is intact, so this decides for the durable end in any case.
    if (this.head() <= at.seq) {
      const slot = window.slotAt(at.seq - 1);
      const pos = window.logEnd(slot);
      const lo = window.dv.getUint32(slot + S_RECORD + R_CHAIN, true);
      const hi = window.dv.getUint32(slot + S_RECORD + R_CHAIN + 4, true);
      this.settle();
      if (this.head() <= at.seq) return pos === at.pos && lo === at.chainLo && hi === at.chainHi;
    }
    // A batch that names this place as its beginning proves it: position, seq and chain stand in its header. HEAD has
    // passed the place, so DURABLE has too; the one that was known before the site was opened may still be at it.
    this.lookAtDurable();
    const reader = this.buffers.reader();
    reader.seek(at);
    const result = reader.next({ pos: this.durablePos, seq: this.durable });
    if (result === READ.BATCH) return true;
    if (result === READ.BROKEN && reader.broken!.reason === 'read')
      return `the log cannot be read at ${at.pos}: ${errnoText(reader.broken!.errno)}`;
    return false;
  }

  private fail(reason: string): number {
    this.imagesHold(false);
    // What was confirmed before stays confirmed.
    this.tellCursor(this.parts.clock.monoMs(), true);
    this.parts.site.close();
    this.opened = false;
    this.giveBack();
    const now = this.parts.clock.monoMs();
    const wait = Math.max(this.parts.site.againMs ?? this.options.probeMs, 1);
    this.probeAt = now + wait;
    this.parts.meter?.failed();
    this.countConnections();
    this.noteSent();
    this.tellWindow(now, this.parts.site.window);
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

  // --- shipping --------------------------------------------------------------------------------------------

  private ship(now: number): number {
    const { durablePos, cursor, deferral } = this;
    const { shared } = this.parts;
    if (this.hurryTo > cursor.seq || this.wanted || this.read || shared.load(SH.CLOSING) !== 0) deferral.stop();
    else {
      const wait = deferral.wait(now, durablePos, durablePos - cursor.pos, durablePos - shared.logHead);
      if (wait > 0) return wait;
    }
    const owed = this.bandwidth.wait();
    if (owed > 0) return owed;
    const fromLog = this.head() > cursor.seq;
    if (!this.buffers.mayBegin(now, durablePos - cursor.pos, fromLog, this.wanted)) return TURN_MS;
    const near = this.fromWindow();
    if (!near) {
      const broken = this.fromLog();
      if (broken !== '') return this.fail(broken);
    }
    const rc = this.send(now);
    // One batch out of the log is no news; the next one then is.
    if (this.opened)
      this.setState(!near && this.durablePos - this.cursor.pos > SHIP_BYTES ? 'behind' : 'connected', '');
    return rc;
  }

  private send(now: number): number {
    const { batch, cursor } = this;
    const { site } = this.parts;
    assert(batch.records > 0, 'there is something to send');
    const last = batch.recordAt(batch.records - 1);
    assert(getU64(batch.mem.dv, last + R_SEQ) === cursor.seq + batch.records - 1, 'records are copied without a gap');
    if (site.window !== undefined) {
      const to = cursor.seq + batch.records;
      this.noteSent(to);
      this.tellWindow(now, { from: cursor.seq, to, bytes: batch.bytes });
    }
    this.sending = true;
    const rc = site.write(batch, this.confirm);
    if (rc < 0) return this.fail(site.reason);
    this.confirm();
    this.imagesHold(true);
    this.noteSent();
    this.tellCursor(this.lastWriteAt, false);
    // While there is more to send, the next batch opens it again at once.
    if (this.durable === cursor.seq) this.tellWindow(this.lastWriteAt, site.window);
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

  /** Somebody waits for a record that the site has not confirmed. */
  private get wanted(): boolean {
    return this.parts.shared.floatView[SHF.WANTED + this.options.place]! > this.cursor.seq;
  }

  /** The cursor has moved on by `bytes` of payload: says so in the link's words, and to who waits for it. */
  private publish(bytes: number): void {
    const { shared } = this.parts;
    const { place } = this.options;
    const { floatView } = shared;
    const exact = this.payloadBehind(this.cursor.seq);
    if (exact >= 0) floatView[SHF.BYTES + place] = exact;
    else floatView[SHF.BYTES + place]! += bytes;
    floatView[SHF.OLDEST + place] = this.pendingUs > 0 ? this.pendingUs : this.cursor.time;
    const near = this.cursor.seq;
    const before = shared.linkSeq(place, near);
    shared.store(SH.LINK_SEQ + place, near | 0);
    if (floatView[SHF.WANTED + place]! > before) this.committer.ring();
  }

  /** IMAGES and HELD: odd while the site is open. Even before anything may be written to it that is not new. */
  private imagesHold(hold: boolean): void {
    const { shared } = this.parts;
    const word = SH.IMAGES + this.options.place;
    const now = shared.load(word);
    // Behind what was staged and is not in the images the old place stands until the site was opened again.
    if (hold) shared.store(SH.HELD + this.options.place, this.cursor.seq | 0);
    if (((now & 1) === 1) !== hold) shared.store(word, (now + 1) | 0);
  }

  /** Payload position behind record `seq - 1`; -1 where that has left the window. */
  private payloadBehind(seq: number): number {
    const { window } = this.parts;
    if (this.head() > seq) return -1;
    const end = window.payloadEnd(window.slotAt(seq - 1));
    this.settle();
    return this.head() <= seq ? end : -1;
  }

  /** Copies a batch out of the window; false where the first record has left it, before or meanwhile. */
  private fromWindow(): boolean {
    const { batch, cursor, durable } = this;
    const { window } = this.parts;
    const first = cursor.seq;
    const most = Math.min(SHIP_BYTES, this.bandwidth.batchBytes);
    if (this.head() > first) return false;
    batch.begin(cursor, this.durablePos - cursor.pos);
    const { dv, mem } = window;
    let taken = 0;
    let bytes = 0;
    /** Payloads from here on are still to be copied; they are dense but for a restart of the daemon. */
    let run = window.payloadPos(window.slotAt(first));
    let runBytes = 0;
    let slot = window.slotAt(first);
    let end = window.logEnd(slot);
    for (let seq = first; seq < durable; seq++) {
      const space = payloadSpace(dv.getUint32(slot + S_RECORD + R_BYTES, true));
      const payload = window.payloadPos(slot);
      // Full: there is a boundary behind us then, unless what we read was overtaken.
      if (taken >= SHIP_RECORDS || bytes + space > SHIP_BYTES) break;
      if (batch.records > 0 && bytes >= most) break;
      if (payload !== run + runBytes) {
        if (runBytes > 0) batch.addPayload(mem, window.payloadAt(run), runBytes);
        run = payload;
        runBytes = 0;
      }
      batch.putHeader(mem, slot + S_RECORD, taken++);
      runBytes += space;
      bytes += space;
      const next = window.slotAt(seq + 1);
      const nextEnd = seq + 1 === durable ? -1 : window.logEnd(next);
      if (nextEnd !== end) {
        // Behind a batch of the log.
        if (runBytes > 0) batch.addPayload(mem, window.payloadAt(run), runBytes);
        run += runBytes;
        runBytes = 0;
        batch.records = taken;
        batch.endPos = end;
      }
      slot = next;
      end = nextEnd;
    }
    this.settle();
    return batch.records > 0 && this.head() <= first;
  }

  /** Reads a batch from the log's file; '' or why that cannot be done. */
  private fromLog(): string {
    const limit = { pos: this.durablePos, seq: this.durable };
    const broken = this.buffers.readLog(this.cursor, limit, this.bandwidth.batchBytes);
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
    this.setState('connected', '');
    let wait = this.probeAt - now;
    // Under a sync site every single write comes to rest: each would wake main.
    if (this.told.pos !== this.cursor.pos) wait = Math.min(wait, this.told.at + CURSOR_MS - now);
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
    const { cursor, told } = this;
    if (told.pos === cursor.pos && told.at > -Infinity) return;
    if (!this.opened) return;
    if (!atOnce && now - told.at < CURSOR_MS && cursor.pos - told.pos < CURSOR_BYTES) return;
    told.pos = cursor.pos;
    told.at = now;
    this.parts.events.cursor({ ...cursor });
  }

  /** Says up to where the site may hold records, in any case those before `to`. */
  private noteSent(to = 0): void {
    const { shared, site } = this.parts;
    shared.floatView[SHF.SENT + this.options.place] = Math.max(to, site.window?.to ?? 0);
  }

  /** Main hears at once that a window opens or closes, and now and then how it moves. */
  private tellWindow(now: number, window: OpenWindow | null | undefined): void {
    if (window === undefined) return;
    const { toldWindow } = this;
    const open = window !== null;
    const same = toldWindow.known && toldWindow.open === open;
    if (same && (!open || now - toldWindow.at < CURSOR_MS)) return;
    Object.assign(toldWindow, { open, known: true, at: now });
    this.parts.events.window?.(window);
  }

  // --- the window, which moves while we look ---------------------------------------------------------------

  private head(): number {
    return this.parts.window.seqOf(W.HEAD, this.durable);
  }

  private settle(): void {
    Atomics.add(this.fence, 0, 1);
  }

  /** Takes over DURABLE with its log position, and the time of the first record behind the cursor. */
  private lookAtDurable(): void {
    const { window } = this.parts;
    for (;;) {
      const seq = window.seqOf(W.DURABLE, this.durable);
      const pos = window.logEnd(window.slotAt(seq - 1));
      this.settle();
      // The slot before HEAD is intact: only if HEAD went beyond may another record have taken its place.
      if (window.seqOf(W.HEAD, seq) > seq) continue;
      this.durable = seq;
      this.durablePos = pos;
      break;
    }
    if (this.pendingUs !== 0 || this.durable <= this.cursor.seq || this.head() > this.cursor.seq) return;
    const us = getU64(window.dv, window.slotAt(this.cursor.seq) + S_RECORD + R_TIME);
    this.settle();
    if (this.head() > this.cursor.seq) return;
    this.pendingUs = us;
    this.parts.shared.floatView[SHF.OLDEST + this.options.place] = us;
  }
}
