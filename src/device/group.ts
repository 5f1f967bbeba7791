/**
 * What requests to the devices of a group mean: the data thread's machine. It owns the window's TAIL and HEAD,
 * the overlay and every record header, and does not know which transport it serves.
 *
 * A write: the request was read straight into the window (header in the next slot, payload at the ring's end);
 * it becomes a record when `seal` publishes TAIL, and is answered then (a disk with a volatile cache), or by
 * the committer where it must be durable first or be confirmed by links (see gates.ts).
 *
 * No room in the window or in the log: requests are read into the parking arena instead. Those that need no
 * room are served as ever, the others wait there in order; what does not fit is dropped and sent again by
 * the kernel (RESEND) once there is room.
 */
import { getU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import type { Mem } from '../base/mem.js';
import { SECTOR } from '../base/units.js';
import { Appender } from '../replog/appender.js';
import { R_TIME, REC, type RecordType } from '../replog/format.js';
import { KIND, RequestMeter, type Kind } from '../replog/meters.js';
import { SH, type Shared } from '../replog/shared.js';
import { S_ANSWER, S_LINKS, S_RECORD, S_UNIQUE, W, type Window } from '../replog/window.js';
import { Gates } from './gates.js';
import { KEEP, PUNCH, ZERO, type GroupOptions, type PendingControl } from './group-options.js';
import { UNSERVED, type DeviceReader, type OpenDevice } from './reader.js';
import { Overlay } from './overlay.js';
import { PARKED_HEAD, type ParkedKind, type Parking } from './parking.js';
import type { Reply } from './reply.js';
import { ResentRequests, isResent } from './resent.js';
import { ReadSource, type SourceOffer } from './source.js';

const O_DSYNC = 0x1000;
/** Unwoken payload at which the committer is woken although nobody waits for a flush. */
const KICK = 256 * 1024;
/** A write that is not whole sectors grows by less than a sector at each end. */
const EDGES = 2 * SECTOR;
/** A ragged discard becomes three records. */
const MOST_RECORDS = 3;

/** Places in the flush queue that are left to flushes: writes that must wait are parked before they are used up. */
const FLUSHES_ONLY = 1024;

export type { GroupOptions } from './group-options.js';

export class DeviceGroup {
  readonly firstDeviceNode = 1024;
  headMem: Mem;
  bodyMem: Mem;
  headAt = 0;
  bodyAt = 0;
  readonly bodyMax: number;

  onRing: () => void = () => undefined;
  readonly overlay: Overlay;
  readonly reader: DeviceReader;
  readonly appender: Appender;
  readonly source: ReadSource;
  private readonly o: GroupOptions;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly reply: Reply;
  private readonly parking: Parking;
  private readonly controls: PendingControl[] = [];
  private head: number;
  private unwoken = 0;
  /** Where `prepare` put the next request: in the window, to be parked, or only passing through. */
  private place: 'window' | 'parking' | 'passing' = 'window';
  private dropped = false;
  /**
   * Requests may be on their way here a second time: until they were seen, records stay in the window, because
   * only there they are recognised. The kernel sends them before all others.
   */
  awaitsResent: boolean;
  private jammed = false;
  /** In this jam, the owner was told that it is the log that has no room. */
  private toldFull = false;
  private writes = 0;
  private readonly resent: ResentRequests;
  private readonly meter: RequestMeter;
  private readonly gates: Gates;
  /** Oldest record whose request was attached again, and FLUSH_TAIL behind its entry; -1 = there is none. */
  private heldSeq = -1;
  private heldUntil = 0;

  constructor(options: GroupOptions) {
    this.o = options;
    this.window = options.window;
    this.reader = options.reader;
    this.shared = options.shared;
    this.reply = options.reply;
    this.appender = new Appender(options.window, options.clock, options.space);
    this.overlay = new Overlay(options.window);
    this.bodyMax = options.maxWrite + 4096;
    this.parking = options.parking;
    this.resent = new ResentRequests(options.window);
    this.meter = new RequestMeter(options.shared.meters, options.window, options.clock);
    this.source = new ReadSource(options.window, options.shared);
    options.reader.meter = this.meter;
    options.reader.source = this.source;
    options.reader.keep = (rc) => this.keep(rc);
    this.headMem = this.window.mem;
    this.bodyMem = this.window.mem;
    this.gates = new Gates(options.window, options.shared, options.clock);
    this.head = this.window.seqOf(W.HEAD, this.appender.seq);
    this.awaitsResent = options.resend !== undefined && this.head < this.appender.seq;
    this.adopt();
  }

  /** Puts the records that an earlier daemon left in the window back into the overlay. */
  private adopt(): void {
    const { window, overlay, appender } = this;
    for (let seq = this.head; seq < appender.seq; seq++) overlay.adopt(window.slotAt(seq), seq);
  }

  get readsInFlight(): number {
    return this.o.reader.inFlight;
  }

  /** A device of the group, by node. */
  device(node: number): OpenDevice | undefined {
    return this.o.reader.device(node - this.firstDeviceNode);
  }

  /** Appends a record without a request as soon as there is room; `done` hears its seq. */
  control(type: RecordType, device: number, payload: Uint8Array, done: PendingControl['done']): void {
    this.controls.push({ type, device, payload, reign: undefined, done });
    this.flushControls();
  }

  /** Begins reign `reign` with identity `id` (16 bytes); no write is taken before it stands in the log. */
  beginReign(reign: number, id: Uint8Array, done: PendingControl['done']): void {
    this.controls.push({ type: REC.REIGN, device: 0, payload: id, reign, done });
    this.flushControls();
  }

  /**
   * Reads come from these images from now on; false, and nothing changed, where they do not hold everything that has
   * left the window. The descriptors are the reader's, or closed.
   */
  turnTo(offer: SourceOffer, table: readonly OpenDevice[]): boolean {
    const { source, appender, reader } = this;
    const fits = source.fits(offer, appender.seq, this.head) && reader.fits(table);
    if (fits) {
      reader.exchange(table);
      source.take(offer);
    } else reader.discard(table);
    return fits;
  }

  // --- once per turn -------------------------------------------------------------------------------------

  prepare(): boolean {
    const { window, appender } = this;
    window.words[W.BEAT_DATA]!++;
    this.meter.lap();
    this.moveHead();
    if (this.controls.length > 0) this.flushControls();
    if (this.gates.beyond) this.gates.look(appender.seq, appender.payloadPos, this.head);
    if (this.parking.count > 0) this.unpark();
    if (this.parking.count === 0 && this.controls.length === 0 && this.room(this.bodyMax)) {
      if (this.dropped) this.fetchDropped();
      if (this.jammed) this.jam(false);
      this.place = 'window';
      this.headMem = this.bodyMem = window.mem;
      this.headAt = appender.slot();
      this.bodyAt = appender.payload();
      return true;
    }
    if (!this.jammed) this.jam(true);
    else this.tellFull();
    this.o.committer.ring();
    const at = this.dropped ? -1 : this.parking.next();
    // Without RESEND nothing may be dropped: requests stay in the kernel until there is room here.
    if (at < 0 && this.o.resend === undefined) return false;
    this.place = at < 0 ? 'passing' : 'parking';
    this.headMem = this.bodyMem = this.parking.mem;
    this.headAt = at < 0 ? this.parking.passing : at;
    this.bodyAt = this.headAt + PARKED_HEAD;
    return true;
  }

  /** A request came that was not sent before, or none is left: all that were sent again have been seen. */
  resentSeen(): void {
    this.awaitsResent = false;
  }

  /** Another thread rang: room may have come up (`prepare` looks), or there is a message for the owner. */
  rang(): void {
    this.onRing();
  }

  resting(): void {
    this.o.reader.submit();
  }

  readsDone(): void {
    this.o.reader.finish(this.overlay, this.appender.seq, this.reply);
  }

  private room(bytes: number): boolean {
    return (
      this.appender.hasRoom(bytes + EDGES, this.head, MOST_RECORDS) &&
      this.o.space.admits(bytes + EDGES) &&
      this.shared.flushRoom > FLUSHES_ONLY &&
      !this.source.waits
    );
  }

  /**
   * Only this thread moves the head, and it stops at what a read in flight may still want to paint: a record
   * never leaves before it is durable, in the images, answered and of no use to anyone here.
   */
  private moveHead(): void {
    if (this.awaitsResent) return;
    const { window, appender } = this;
    const near = appender.seq;
    const images = this.source.limit(near, this.head);
    const released = window.seqOf(W.RELEASED, near);
    let head = images < released ? images : released;
    if (this.o.reader.inFlight > 0) head = this.o.reader.leastFrom(head);
    if (this.heldSeq >= 0) {
      if (((this.shared.load(SH.FLUSH_HEAD) - this.heldUntil) | 0) >= 0) this.heldSeq = -1;
      else if (head > this.heldSeq) head = this.heldSeq;
    }
    if (head <= this.head) return;
    this.head = head;
    this.overlay.release(head);
    window.storeSeq(W.HEAD, head);
  }

  private jam(on: boolean): void {
    this.jammed = on;
    this.shared.store(SH.DATA_WAITS, on ? 1 : 0);
    if (!on) {
      this.toldFull = false;
      this.shared.store(SH.PARKED, 0);
      return;
    }
    // Room may have come up before the flag did.
    this.moveHead();
    this.tellFull();
  }

  /** What begins as a full window may go on as a full log: the owner has to hear of it then. */
  private tellFull(): void {
    if (this.toldFull || this.o.space.admits(this.bodyMax + EDGES)) return;
    this.toldFull = true;
    this.o.logFull();
  }

  // --- requests ------------------------------------------------------------------------------------------

  write(node: number, offset: number, size: number, flags: number, lo: number, hi: number): void {
    // Also for a device that has left since: what is in the log was written.
    if (isResent(hi) && this.reattach(KIND.WRITE, flags, lo, hi)) return;
    const device = this.device(node);
    if (device === undefined) return this.refuse(KIND.WRITE, -ERRNO.ENODEV, lo, hi);
    if (this.shared.words[SH.LOG_ERROR] !== 0) return this.refuse(KIND.WRITE, -ERRNO.EIO, lo, hi);
    if (offset >= device.size && size > 0) return this.refuse(KIND.WRITE, -ERRNO.ENOSPC, lo, hi);
    if (size === 0) return this.reply.wrote(lo, hi, 0);
    if (this.place !== 'window') return this.park('write', node, offset, size, flags, size, lo, hi);
    const taken = Math.min(size, device.size - offset);
    const durable = this.o.durableWrites || (flags & O_DSYNC) !== 0;
    if (((offset | taken) & (SECTOR - 1)) === 0) {
      this.append(device, offset, taken, taken, durable, lo, hi);
      return;
    }
    const rc = this.widen(device, offset, taken);
    if (rc < 0) return this.unserved(KIND.WRITE, rc, lo, hi);
    const start = offset - (offset % SECTOR);
    const end = Math.ceil((offset + taken) / SECTOR) * SECTOR;
    this.append(device, start, end - start, taken, durable, lo, hi);
  }

  read(node: number, offset: number, size: number, lo: number, hi: number): void {
    const device = this.device(node);
    if (device === undefined) return this.refuse(KIND.READ, -ERRNO.ENODEV, lo, hi);
    const applied = this.source.held(this.appender.seq, this.head);
    this.o.reader.read(device, offset, size, applied, this.appender.seq, this.overlay, this.reply, lo, hi);
  }

  fsync(node: number, lo: number, hi: number): void {
    const { seq } = this.appender;
    const durable = this.window.seqOf(W.DURABLE, seq) === seq;
    if (!durable && this.shared.words[SH.LOG_ERROR] !== 0) return this.refuse(KIND.FLUSH, -ERRNO.EIO, lo, hi);
    const { shared } = this;
    const done = durable && this.gates.confirmed(seq);
    // Links hold as many requests as there are places: it comes again when there are some, and the rest is served.
    if (!done && shared.flushRoom <= 0 && this.o.resend !== undefined) return void (this.dropped = true);
    this.meter.taken(KIND.FLUSH, node - this.firstDeviceNode, 0);
    if (done) {
      this.meter.answered(KIND.FLUSH);
      return this.reply.status(lo, hi, 0);
    }
    this.waitFor(KIND.FLUSH, seq, lo, hi, 0, shared.load(SH.SYNC), shared.load(SH.SYNC + 1));
    this.wake(0, true);
  }

  fallocate(node: number, offset: number, length: number, mode: number, lo: number, hi: number): void {
    if (isResent(hi) && this.reattach(KIND.DISCARD, 0, lo, hi)) return;
    const device = this.device(node);
    if (device === undefined) return this.refuse(KIND.DISCARD, -ERRNO.ENODEV, lo, hi);
    const kind = mode & ~KEEP;
    if (kind !== 0 && kind !== ZERO && mode !== (KEEP | PUNCH)) return this.reply.status(lo, hi, -ERRNO.EOPNOTSUPP);
    const past = offset + length > device.size;
    // A device has its size: what would grow it finds no space; what keeps the size ends at the end.
    if (past && (mode & KEEP) === 0) return this.reply.status(lo, hi, -ERRNO.ENOSPC);
    const end = Math.min(offset + length, device.size);
    if (kind === 0 || end <= offset) return this.reply.status(lo, hi, 0);
    if (this.shared.words[SH.LOG_ERROR] !== 0) return this.refuse(KIND.DISCARD, -ERRNO.EIO, lo, hi);
    if (this.place !== 'window') return this.park('fallocate', node, offset, length, mode, 0, lo, hi);
    const rc = this.clear(device, offset, end, kind === PUNCH ? REC.DISCARD : REC.ZEROES, lo, hi);
    if (rc < 0) this.unserved(KIND.DISCARD, rc, lo, hi);
    else this.meter.taken(KIND.DISCARD, device.nr, end - offset);
  }

  lseek(node: number, offset: number, whence: number, lo: number, hi: number): void {
    const device = this.device(node);
    if (device === undefined) return this.reply.status(lo, hi, -ERRNO.ENODEV);
    const { source, appender } = this;
    const idle = source.present && source.held(appender.seq, this.head) === appender.seq;
    const rc = this.o.reader.seek(device, offset, whence, idle);
    if (rc < 0) this.reply.status(lo, hi, rc);
    else this.reply.position(lo, hi, rc);
  }

  other(length: number): void {
    const head = Math.min(length, 80);
    const copy = new Uint8Array(length);
    copy.set(this.headMem.u8.subarray(this.headAt, this.headAt + head));
    if (length > head) copy.set(this.bodyMem.u8.subarray(this.bodyAt, this.bodyAt + length - head), head);
    this.o.other(copy);
  }

  /** Answers with an error (negative `rc`). */
  private refuse(kind: Kind, rc: number, lo: number, hi: number): void {
    this.meter.refused(kind);
    this.reply.status(lo, hi, rc);
  }

  /** A write whose ragged ends cannot be read now. */
  private unserved(kind: Kind, rc: number, lo: number, hi: number): void {
    if (!this.keep(rc)) this.refuse(kind, rc === UNSERVED ? -ERRNO.EIO : rc, lo, hi);
  }

  /**
   * True for a request whose images cannot be read while others may come: it stays unanswered and is sent again
   * then, so that the application sees a pause and no error.
   */
  private keep(rc: number): boolean {
    const { source } = this;
    const gone = rc === UNSERVED;
    if (source.lost || this.o.resend === undefined) return false;
    if (!gone && (this.o.detach !== true || !source.mayChange())) return false;
    this.dropped = true;
    if (source.stuck) return true;
    source.stuck = !gone || !source.present;
    this.o.starved?.(gone ? 0 : -rc);
    return true;
  }

  // --- records -------------------------------------------------------------------------------------------

  private append(
    device: OpenDevice,
    offset: number,
    length: number,
    answer: number,
    durable: boolean,
    lo: number,
    hi: number,
  ): void {
    const { appender } = this;
    const { seq } = appender;
    const payload = appender.payloadPos;
    const rested = this.window.seqOf(W.DURABLE, seq) === seq;
    const held = this.nameRequest(lo, hi) || durable;
    // Before seal: else the committer could release the record while nobody is known to wait for it.
    if (held) this.waitFor(KIND.WRITE, seq + 1, lo, hi, answer, this.gates.lo, this.gates.hi);
    else this.meter.answered(KIND.WRITE);
    this.meter.taken(KIND.WRITE, device.nr, answer);
    appender.seal(REC.WRITE, device.nr, offset, length, length, answer);
    this.overlay.add(device.nr, offset, length, payload, seq);
    if (this.o.dieEvery !== undefined && ++this.writes % this.o.dieEvery === 0) process.kill(process.pid, 'SIGKILL');
    if (!held) this.reply.wrote(lo, hi, answer);
    this.wake(length, held || rested);
  }

  /** A discard or zeroing: whole sectors as one record, the ragged ends as small writes before it. */
  private clear(device: OpenDevice, offset: number, end: number, type: RecordType, lo: number, hi: number): number {
    const { appender, overlay } = this;
    const first = Math.ceil(offset / SECTOR) * SECTOR;
    const last = Math.floor(end / SECTOR) * SECTOR;
    if (first >= last) return this.clearPart(device, offset, end, lo, hi, true);
    if (offset < first) {
      const rc = this.clearPart(device, offset, first, lo, hi, false);
      if (rc < 0) return rc;
    }
    if (last < end) {
      const rc = this.clearPart(device, last, end, lo, hi, false);
      if (rc < 0) return rc;
    }
    const held = this.nameRequest(lo, hi) || this.o.durableWrites;
    const { seq } = appender;
    if (held) this.waitFor(KIND.DISCARD, seq + 1, lo, hi, 0, this.gates.lo, this.gates.hi);
    else this.meter.answered(KIND.DISCARD);
    appender.seal(type, device.nr, first, last - first, 0, 0);
    overlay.addZeroes(device.nr, first, last - first, seq);
    if (!held) this.reply.status(lo, hi, 0);
    this.wake(0, true);
    return 0;
  }

  /** Zeroes [offset, end), which lies within one or two sectors, by writing them; answers where it is all. */
  private clearPart(device: OpenDevice, offset: number, end: number, lo: number, hi: number, whole: boolean): number {
    const { appender, overlay, window } = this;
    const start = offset - (offset % SECTOR);
    const stop = Math.ceil(end / SECTOR) * SECTOR;
    // Ends of one request: the room asked for in `prepare` covers a largest write, these few sectors included.
    const at = appender.payload();
    const rc = this.readNow(device, start, stop - start, window.mem, at);
    if (rc < 0) return rc;
    window.u8.fill(0, at + offset - start, at + end - start);
    const held = whole && (this.nameRequest(lo, hi) || this.o.durableWrites);
    if (!whole) appender.forgetRequest();
    const payload = appender.payloadPos;
    const { seq } = appender;
    if (held) this.waitFor(KIND.DISCARD, seq + 1, lo, hi, 0, this.gates.lo, this.gates.hi);
    else if (whole) this.meter.answered(KIND.DISCARD);
    appender.seal(REC.WRITE, device.nr, start, stop - start, stop - start, 0);
    overlay.add(device.nr, start, stop - start, payload, seq);
    if (whole && !held) this.reply.status(lo, hi, 0);
    this.wake(stop - start, true);
    return 0;
  }

  /** Turns `size` bytes at `offset` that stand at the next payload place into whole sectors around them. */
  private widen(device: OpenDevice, offset: number, size: number): number {
    const { window } = this;
    const at = this.appender.payload();
    const lead = offset % SECTOR;
    const end = offset + size;
    const stop = Math.ceil(end / SECTOR) * SECTOR;
    const start = offset - lead;
    if (lead !== 0) window.u8.copyWithin(at + lead, at, at + size);
    const scratch = this.o.reader.scratch;
    if (lead !== 0) {
      const rc = this.readNow(device, start, SECTOR, scratch, 0);
      if (rc < 0) return rc;
      scratch.u8.copy(window.u8, at, 0, lead);
    }
    if (end !== stop) {
      const rc = this.readNow(device, stop - SECTOR, SECTOR, scratch, 0);
      if (rc < 0) return rc;
      scratch.u8.copy(window.u8, at + (end - start), SECTOR - (stop - end), SECTOR);
    }
    return 0;
  }

  private readNow(device: OpenDevice, offset: number, length: number, to: Mem, toAt: number): number {
    const applied = this.source.held(this.appender.seq, this.head);
    return this.o.reader.readNow(device, offset, length, applied, this.appender.seq, this.overlay, to, toAt);
  }

  /**
   * Puts the request's unique into the next slot (where an earlier record of the same request took it), and the
   * links that its answer waits for; true where there are some.
   */
  private nameRequest(lo: number, hi: number): boolean {
    const { appender, gates } = this;
    const { dv } = this.window;
    const slot = appender.slot();
    gates.look(appender.seq, appender.payloadPos, this.head);
    dv.setUint32(slot + S_UNIQUE, lo, true);
    dv.setUint32(slot + S_UNIQUE + 4, hi, true);
    dv.setInt32(slot + S_LINKS, gates.lo, true);
    dv.setInt32(slot + S_LINKS + 4, gates.hi, true);
    return (gates.lo | gates.hi) !== 0;
  }

  /** The committer answers once everything below `below` is durable, and confirmed by the links. */
  private waitFor(
    kind: Kind,
    below: number,
    lo: number,
    hi: number,
    answer: number,
    linksLo: number,
    linksHi: number,
  ): void {
    const ticket = this.meter.ticket(kind);
    while (!this.shared.pushFlush(lo, hi, below, answer, ticket, linksLo, linksHi)) {
      // More flushes than places: the committer empties the queue with every sync, unless links hold it.
      this.o.committer.ring();
      Atomics.wait(this.shared.words, SH.FLUSH_HEAD, this.shared.load(SH.FLUSH_HEAD), 1);
    }
  }

  /** Wakes the committer lazily: for those who wait, for the first record after it rested, for a full batch. */
  private wake(bytes: number, now: boolean): void {
    this.unwoken += bytes;
    if (!now && this.unwoken < KICK) return;
    this.unwoken = 0;
    this.o.committer.ring();
  }

  // --- requests sent again -------------------------------------------------------------------------------

  /**
   * ! A request that is already in the log only gets its answer attached again: to the committer where it must
   * be durable or waits for links, for the same ones as before; at once where it need not.
   */
  private reattach(kind: Kind, flags: number, lo: number, hi: number): boolean {
    const seq = this.resent.find(lo, hi, this.head, this.appender.seq);
    if (seq === undefined) return false;
    const { window, shared } = this;
    const slot = window.slotAt(seq);
    const answer = window.dv.getUint32(slot + S_ANSWER, true);
    const linksLo = window.dv.getInt32(slot + S_LINKS, true) & shared.load(SH.GATES);
    const linksHi = window.dv.getInt32(slot + S_LINKS + 4, true) & shared.load(SH.GATES + 1);
    const held = (linksLo | linksHi) !== 0;
    const late = window.seqOf(W.DURABLE, this.appender.seq) <= seq;
    if (held || (late && (this.o.durableWrites || (flags & O_DSYNC) !== 0))) {
      if (late && shared.words[SH.LOG_ERROR] !== 0) this.refuse(kind, -ERRNO.EIO, lo, hi);
      else {
        this.waitFor(kind, seq + 1, lo, hi, answer, linksLo, linksHi);
        // The entry it had before may have been answered, for nobody, and its record released by that.
        this.heldSeq = this.heldSeq < 0 ? seq : Math.min(this.heldSeq, seq);
        this.heldUntil = shared.load(SH.FLUSH_TAIL);
        this.o.committer.ring();
      }
      return true;
    }
    this.meter.answered(kind);
    if (answer === 0) this.reply.status(lo, hi, 0);
    else this.reply.wrote(lo, hi, answer);
    return true;
  }

  // --- parked requests -----------------------------------------------------------------------------------

  private park(
    kind: ParkedKind,
    node: number,
    offset: number,
    length: number,
    flags: number,
    body: number,
    lo: number,
    hi: number,
  ): void {
    if (this.place === 'passing') {
      this.dropped = true;
      return;
    }
    this.parking.keep(this.headAt, kind, node, offset, length, flags, body, this.meter.mark, lo, hi);
    this.shared.store(SH.PARKED, this.parking.count);
  }

  private unpark(): void {
    const { parking, appender, window } = this;
    while (parking.count > 0) {
      const p = parking.first();
      // A failed log must not leave them waiting for room: they are answered with its error.
      const failed = this.shared.words[SH.LOG_ERROR] !== 0;
      if (!failed && !this.room(p.body)) return;
      if (!failed) parking.mem.u8.copy(window.u8, appender.payload(), p.bodyAt, p.bodyAt + p.body);
      parking.leave();
      this.place = 'window';
      this.meter.resume(p.mark);
      if (p.kind === 'write') this.write(p.node, p.offset, p.length, p.flags, p.lo, p.hi);
      else this.fallocate(p.node, p.offset, p.length, p.flags, p.lo, p.hi);
      this.meter.lap();
      this.moveHead();
    }
    this.shared.store(SH.PARKED, 0);
  }

  private fetchDropped(): void {
    this.dropped = false;
    this.resent.forget();
    this.awaitsResent = true;
    this.o.resend?.();
  }

  private flushControls(): void {
    while (this.controls.length > 0) {
      const next = this.controls[0]!;
      const bytes = next.payload.length;
      if (!this.appender.hasRoom(bytes, this.head) || !this.o.space.admitsControl(bytes)) return;
      this.controls.shift();
      // The first record of a reign carries its own reign.
      if (next.reign !== undefined) this.appender.reign = next.reign;
      const seq = this.appender.appendControl(next.type, next.device, next.payload);
      // ! Nothing is written to a device behind the record of its removal.
      if (next.type === REC.DEVICE_REMOVE) this.o.reader.remove(next.device);
      next.done(seq, getU64(this.window.dv, this.window.slotAt(seq) + S_RECORD + R_TIME));
      this.o.committer.ring();
    }
  }
}
