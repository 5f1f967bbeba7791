/**
 * The applications and the data thread in one: requests of a random mixture, put into the window through the
 * real appender, admission and overlay, and what came of each. It is the witness: whatever it was told is
 * durable must be there after every death.
 */
import type { Clock } from '../../src/base/clock.js';
import { Overlay } from '../../src/device/overlay.js';
import { Appender } from '../../src/replog/appender.js';
import { R_BYTES, R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, REC, type RecordType } from '../../src/replog/format.js';
import { SH, type Shared } from '../../src/replog/shared.js';
import type { LogSpace } from '../../src/replog/space.js';
import { S_RECORD, S_UNIQUE, SLOT, W, type Window } from '../../src/replog/window.js';
import { getU64 } from '../../src/base/codec.js';
import type { Mem } from '../../src/base/mem.js';
import { SECTOR } from './sim-disk.js';
import { fillPattern, readPattern, type History } from './sim-model.js';
import type { Rng } from './sim-random.js';

export type RequestKind = 'write' | 'discard' | 'zeroes' | 'flush' | 'tag';

export interface Request {
  unique: number;
  kind: RequestKind;
  device: number;
  /** Sectors. */
  at: number;
  count: number;
  /** O_DSYNC, or the group runs durability=write. */
  durable: boolean;
  /** Number of the write, for the model. */
  write: number;
  /** The record it became. */
  seq?: number;
}

export interface ClientShape {
  /** Device number and sectors. */
  devices: readonly { nr: number; sectors: number }[];
  /** Largest request in sectors. */
  largest: number;
  durableWrites: boolean;
  /** Most requests under way. */
  depth: number;
  weights: Record<RequestKind, number>;
  dsync: number;
}

/** The data thread's share of a daemon: dies with it. */
export interface DataParts {
  window: Window;
  shared: Shared;
  space: LogSpace;
  appender: Appender;
}

export class SimClient {
  readonly shape: ClientShape;
  readonly history: History;
  /** Everything below was acknowledged as durable: a death may take nothing below it. */
  flushed: number;
  /** Counters for the report. */
  readonly counts = { write: 0, discard: 0, zeroes: 0, flush: 0, tag: 0, dsync: 0, bytes: 0, blocked: 0, logFull: 0, failed: 0, resent: 0 };
  /** What requests look like just now. */
  temper: 'mixed' | 'flood' | 'trickle' = 'mixed';
  private readonly rng: Rng;
  private readonly waiting = new Map<number, Request>();
  /** Found no room yet. */
  private next: Request | undefined;
  private parts: DataParts | undefined;
  private overlay: Overlay | undefined;
  private head = 0;
  private nextUnique = 2;
  private readonly hot: { device: number; at: number; count: number }[] = [];

  constructor(rng: Rng, shape: ClientShape, history: History) {
    this.rng = rng;
    this.shape = shape;
    this.history = history;
    this.flushed = history.firstSeq;
    for (let i = 0; i < 3; i++) {
      const device = rng.pick(shape.devices);
      const count = Math.min(device.sectors, rng.between(8, 64));
      this.hot.push({ device: device.nr, at: rng.below(device.sectors - count + 1), count });
    }
  }

  /** Requests without an answer. */
  get outstanding(): number {
    return this.waiting.size + (this.next === undefined ? 0 : 1);
  }

  get blocked(): boolean {
    return this.next !== undefined;
  }

  /** A new daemon serves the window: records that stand there are shown again, unanswered requests sent again. */
  attach(parts: DataParts): void {
    this.parts = parts;
    const { window, appender } = parts;
    this.overlay = new Overlay(window);
    this.head = window.seqOf(W.HEAD, appender.seq);
    for (let seq = this.head; seq < appender.seq; seq++) this.show(seq);
  }

  /**
   * What the kernel does after RESEND. A request whose record is in the window only gets its answer attached
   * again; one whose record is lost is served anew.
   */
  resend(): void {
    const again = [...this.waiting.values()];
    this.waiting.clear();
    for (const request of again) {
      this.counts.resent++;
      this.wait(request);
      const seq = request.seq;
      if (request.kind === 'flush') this.flush(request);
      else if (seq !== undefined && this.isDurable(seq + 1)) this.answered(request.unique, 0);
      else if (seq !== undefined) this.push(request, seq + 1);
    }
  }

  detach(): void {
    this.parts = undefined;
    this.overlay = undefined;
  }

  /** The machine died: its applications with it. */
  machineDied(): void {
    this.waiting.clear();
    this.next = undefined;
  }

  /** Recovery says that records from `seq` on are lost. */
  lose(seq: number): void {
    this.history.truncate(seq);
  }

  /** One request, or one more try to find room for the last one. False where nothing could be done. */
  step(): boolean {
    if (this.parts === undefined) return false;
    this.moveHead();
    if (this.next === undefined) {
      if (this.waiting.size >= this.shape.depth) return false;
      this.next = this.make();
    }
    const request = this.next;
    if (this.parts.shared.load(SH.LOG_ERROR) !== 0) {
      // Answered with EIO.
      this.next = undefined;
      this.counts.failed++;
      return true;
    }
    if (request.kind !== 'flush' && !this.room(request)) {
      this.counts.blocked++;
      if (!this.parts.space.admits(this.shape.largest * SECTOR)) this.counts.logFull++;
      this.parts.shared.store(SH.DATA_WAITS, 1);
      return false;
    }
    this.next = undefined;
    this.serve(request);
    return true;
  }

  /** A flush of everything so far; its unique. */
  flushNow(): number {
    const request = this.request('flush');
    this.serve(request);
    return request.unique;
  }

  isAnswered(unique: number): boolean {
    return !this.waiting.has(unique) && this.next?.unique !== unique;
  }

  writeNow(device: number, at: number, count: number, durable = false): Request | undefined {
    const request = { ...this.request('write'), device, at, count, durable, write: this.history.newWrite() };
    this.moveHead();
    if (!this.room(request)) return undefined;
    this.serve(request);
    return request;
  }

  /** The committer's answer. */
  answer(uniqueLo: number, uniqueHi: number, bytes: number, errno: number): void {
    const unique = uniqueHi * 4294967296 + (uniqueLo >>> 0);
    const request = this.waiting.get(unique);
    if (request === undefined) throw new Error(`request ${unique} was answered twice, or never asked`);
    const wants = request.kind === 'write' ? request.count * SECTOR : 0;
    if (errno === 0 && bytes !== wants) throw new Error(`request ${unique} was answered with ${bytes} bytes, not ${wants}`);
    this.answered(unique, errno);
  }

  private answered(unique: number, errno: number): void {
    const request = this.waiting.get(unique)!;
    this.waiting.delete(unique);
    if (errno !== 0) {
      this.counts.failed++;
      return;
    }
    if (request.kind === 'flush') this.flushed = Math.max(this.flushed, request.seq!);
    else if (request.durable) this.flushed = Math.max(this.flushed, request.seq! + 1);
  }

  private isDurable(below: number): boolean {
    const { window, appender } = this.parts!;
    return window.seqOf(W.DURABLE, appender.seq) >= below;
  }

  // --- requests ------------------------------------------------------------------------------------------

  private request(kind: RequestKind): Request {
    return { unique: this.nextUnique++ * 2, kind, device: 0, at: 0, count: 0, durable: false, write: 0 };
  }

  private make(): Request {
    const { rng, shape } = this;
    const kind = this.temper === 'mixed' ? rng.weighted(shape.weights) : rng.chance(0.97) ? 'write' : 'flush';
    const request = this.request(kind);
    if (kind === 'flush' || kind === 'tag') return request;
    const span = this.temper === 'flood' || rng.chance(0.5) ? this.anywhere() : rng.pick(this.hot);
    const count = rng.between(1, Math.min(span.count, this.largest()));
    return {
      ...request,
      device: span.device,
      at: span.at + rng.below(span.count - count + 1),
      count,
      durable: shape.durableWrites || (kind === 'write' && this.temper === 'mixed' && rng.chance(shape.dsync)),
      write: kind === 'write' ? this.history.newWrite() : 0,
    };
  }

  private largest(): number {
    if (this.temper === 'trickle') return 8;
    if (this.temper === 'flood') return this.shape.largest;
    return this.rng.chance(0.1) ? this.shape.largest : this.rng.pick([1, 2, 8, 8, 8, 16, 64]);
  }

  private anywhere(): { device: number; at: number; count: number } {
    const device = this.rng.pick(this.shape.devices);
    return { device: device.nr, at: 0, count: device.sectors };
  }

  private room(request: Request): boolean {
    const { appender, space } = this.parts!;
    const bytes = request.kind === 'write' ? request.count * SECTOR : request.kind === 'tag' ? 16 : 0;
    return appender.hasRoom(bytes, this.head) && space.admits(bytes);
  }

  private serve(request: Request): void {
    this.counts[request.kind]++;
    if (request.kind === 'flush') {
      this.wait(request);
      this.flush(request);
      return;
    }
    const { window, appender } = this.parts!;
    const slot = appender.slot();
    window.u8.fill(0, slot, slot + SLOT);
    window.dv.setUint32(slot + S_UNIQUE, request.unique >>> 0, true);
    const at = appender.payload();
    let bytes = 0;
    if (request.kind === 'write') {
      bytes = request.count * SECTOR;
      fillPattern(window.u8, at, request.device, request.at, request.count, request.write);
    } else if (request.kind === 'tag') {
      bytes = window.u8.write(`tag-${request.unique}`, at);
    }
    if (request.durable) {
      this.counts.dsync++;
      request.seq = appender.seq;
      this.wait(request);
      this.push(request, appender.seq + 1);
    }
    this.counts.bytes += bytes;
    const tag = request.kind === 'tag';
    const seq = appender.seal(
      TYPE[request.kind],
      request.device,
      tag ? 0 : request.at * SECTOR,
      tag ? 0 : request.count * SECTOR,
      bytes,
      request.kind === 'write' ? bytes : 0,
    );
    this.record(seq, request);
  }

  private record(seq: number, request: Request): void {
    if (request.kind === 'tag') this.history.add(seq, 'tag');
    else
      this.history.add(seq, `${request.kind} ${request.device}:${request.at}+${request.count}${request.durable ? ' dsync' : ''}`, {
        device: request.device,
        at: request.at,
        count: request.count,
        write: request.write,
      });
    this.show(seq);
  }

  /** A record of the daemon's own (a reign) was appended. */
  control(seq: number, what: string): void {
    this.history.add(seq, what);
  }

  private flush(request: Request): void {
    const { appender } = this.parts!;
    request.seq = appender.seq;
    if (this.isDurable(appender.seq)) this.answered(request.unique, 0);
    else this.push(request, appender.seq);
  }

  private wait(request: Request): void {
    this.waiting.set(request.unique, request);
  }

  private push(request: Request, below: number): void {
    const { shared } = this.parts!;
    const answer = request.kind === 'write' ? request.count * SECTOR : 0;
    if (!shared.pushFlush(request.unique | 0, 0, below, answer)) throw new Error('the flush queue is full');
  }

  // --- the data thread's other work ----------------------------------------------------------------------

  moveHead(): void {
    const { window, appender } = this.parts!;
    const head = Math.min(window.seqOf(W.APPLIED, appender.seq), window.seqOf(W.RELEASED, appender.seq));
    if (head <= this.head) return;
    this.head = head;
    this.overlay!.release(head);
    window.storeSeq(W.HEAD, head);
  }

  private show(seq: number): void {
    const { window } = this.parts!;
    const { dv } = window;
    const slot = window.slotAt(seq);
    const at = slot + S_RECORD;
    const type = dv.getUint8(at + R_TYPE);
    const device = dv.getUint32(at + R_DEVICE, true);
    const offset = getU64(dv, at + R_OFFSET);
    if (type === REC.WRITE) this.overlay!.add(device, offset, dv.getUint32(at + R_BYTES, true), window.payloadPos(slot), seq);
    else if (type === REC.DISCARD || type === REC.ZEROES)
      this.overlay!.addZeroes(device, offset, getU64(dv, at + R_LENGTH), seq);
  }

  /**
   * A read as the data thread does it: the image, then what is newer in the window over it. `image` fills `to`.
   * Returns what is wrong, or undefined.
   */
  checkRead(to: Mem, image: (device: number, offset: number, length: number) => number): string | undefined {
    const { rng } = this;
    const { window, appender } = this.parts!;
    const device = rng.pick(this.shape.devices);
    const count = Math.min(device.sectors, rng.pick([1, 8, 32, 128]));
    const at = rng.below(device.sectors - count + 1);
    const applied = window.seqOf(W.APPLIED, appender.seq);
    const rc = image(device.nr, at * SECTOR, count * SECTOR);
    if (rc < 0) return undefined;
    this.overlay!.paint(device.nr, at * SECTOR, (at + count) * SECTOR, applied, to, 0);
    const want = this.history.now.get(device.nr)!;
    for (let s = 0; s < count; s++) {
      const got = readPattern(to.u8, s * SECTOR, device.nr, at + s);
      if (got !== want[at + s])
        return `a read of device ${device.nr} sector ${at + s} shows write ${got}, not ${want[at + s]} (applied ${applied})`;
    }
    return undefined;
  }
}

const TYPE: Record<Exclude<RequestKind, 'flush'>, RecordType> = {
  write: REC.WRITE,
  discard: REC.DISCARD,
  zeroes: REC.ZEROES,
  tag: REC.TAG,
};
