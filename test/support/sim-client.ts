/**
 * The applications and the kernel of a simulated machine: requests of a random mixture, handed to the product's
 * own device code as /dev/fuse would, sent again after a daemon's death or when it asks for them. It is the
 * witness: whatever it was told is durable must be there after every death, and every read must show what was
 * written.
 */
import { getU64, setU64 } from '../../src/base/codec.js';
import type { Mem } from '../../src/base/mem.js';
import type { DeviceGroup } from '../../src/device/group.js';
import type { Reply } from '../../src/device/reply.js';
import { decodeDeviceResize } from '../../src/replog/device-records.js';
import { R_BYTES, R_DEVICE, R_LENGTH, R_OFFSET, R_TIME, R_TYPE, REC, REC_NAME } from '../../src/replog/format.js';
import { SH, type Shared } from '../../src/replog/shared.js';
import { S_RECORD, S_UNIQUE, type Window } from '../../src/replog/window.js';
import { SECTOR } from './sim-disk.js';
import { Broken } from './sim-broken.js';
import { fillPattern, readPattern, type History } from './sim-model.js';
import type { Debt, PolicyModel } from './sim-policy.js';
import type { Rng } from './sim-random.js';

export type RequestKind = 'write' | 'discard' | 'zeroes' | 'flush' | 'tag' | 'read';

export interface Request {
  unique: number;
  kind: RequestKind;
  device: number;
  /** Sectors. */
  at: number;
  count: number;
  dsync: boolean;
  /** Number of the write, for the model. */
  write: number;
  /** The record that it became. */
  seq?: number;
  /** A flush answers for everything below; what was acknowledged when it was sent first. */
  covers?: number;
  /** A read may show, per sector, any of these states. */
  allowed?: Uint32Array[];
  /** How often it was sent. */
  sent: number;
  /** Sites that must have it before it is answered. */
  debts?: Debt[];
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

/** A range of a device, in sectors. */
interface Span {
  device: number;
  at: number;
  count: number;
}

/** The data thread's share of a daemon: dies with it. */
export interface DataParts {
  window: Window;
  shared: Shared;
  group: DeviceGroup;
}

const RESENT = 0x80000000;
const O_DSYNC = 0x1000;

export class SimClient implements Reply {
  readonly shape: ClientShape;
  readonly history: History;
  /** Everything below was acknowledged as durable: a death may take nothing below it. */
  flushed: number;
  /** Counters for the report. */
  readonly counts = {
    ...{ write: 0, discard: 0, zeroes: 0, flush: 0, tag: 0, read: 0, dsync: 0 },
    ...{ bytes: 0, blocked: 0, failed: 0, resent: 0, reads: 0, readsElsewhere: 0, twice: 0, lostAnswers: 0 },
  };
  /** What requests look like just now. */
  temper: 'mixed' | 'flood' | 'trickle' = 'mixed';
  /** Told of every answer: the request's unique, and the errno, positive. */
  told: (unique: number, errno: number) => void = () => {};
  /** Applications make requests by themselves. */
  asks = true;
  private readonly rng: Rng;
  private readonly policies: PolicyModel;
  /** Sent and not answered, in the order of their uniques. */
  private readonly waiting = new Map<number, Request>();
  /** To be sent (again). */
  private queue: Request[] = [];
  private parts: DataParts | undefined;
  private nextUnique = 2;
  private readonly hot: Span[] = [];
  private last: Span | undefined;

  constructor(rng: Rng, shape: ClientShape, history: History, policies: PolicyModel) {
    this.rng = rng;
    this.policies = policies;
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
    return this.waiting.size;
  }

  /** Unique of the newest request. */
  get newest(): number {
    return this.nextUnique;
  }

  /** It was not answered yet. */
  waits(unique: number): boolean {
    return this.waiting.has(unique);
  }

  /** Requests that became records, or flushes, and are without an answer. */
  *beingServed(): Iterable<Request> {
    for (const request of this.waiting.values())
      if (request.sent > 0 && (request.seq !== undefined || request.kind === 'flush') && !this.queue.includes(request))
        yield request;
  }

  /** The requests without an answer, for a report. */
  get unanswered(): string {
    return [...this.waiting.values()]
      .map(
        (r) =>
          `${r.kind} ${r.unique} sent ${r.sent}x, record ${r.seq}, ${this.queue.includes(r) ? 'to be sent' : 'being served'}`,
      )
      .join(', ');
  }

  /** True while requests wait for room. */
  get jammed(): boolean {
    return this.parts?.shared.load(SH.DATA_WAITS) === 1;
  }

  /** A new daemon serves. */
  attach(parts: DataParts): void {
    this.parts = parts;
  }

  detach(): void {
    this.parts = undefined;
  }

  /** What the kernel does on RESEND: every request without an answer comes once more, in no particular order. */
  resend(): void {
    const fresh = this.queue.filter((request) => request.sent === 0);
    const again = [...this.waiting.values()].filter((request) => request.sent > 0);
    for (let i = again.length - 1; i > 0; i--) {
      const k = this.rng.below(i + 1);
      [again[i], again[k]] = [again[k]!, again[i]!];
    }
    this.queue = [...again, ...fresh];
    this.counts.resent += again.length;
  }

  /** The machine died: its applications with it. */
  machineDied(): void {
    this.waiting.clear();
    this.queue = [];
  }

  /** Recovery says that records from `seq` on are lost. */
  lose(seq: number): void {
    this.history.truncate(seq);
    this.policies.lose(seq);
  }

  // --- the loop of the data thread -----------------------------------------------------------------------

  /** One turn of the loop: bookkeeping, then one request. False where nothing was done. */
  step(mayAsk = true): boolean {
    if (this.parts === undefined) return false;
    const { group } = this.parts;
    const ready = group.prepare();
    this.recordNew();
    if (group.readsInFlight > 0 && this.rng.chance(0.3)) group.readsDone();
    if (!ready) return false;
    if (this.jammed) this.counts.blocked++;
    if (this.queue.length === 0 && mayAsk && this.asks && this.waiting.size < this.shape.depth) this.ask(this.make());
    const request = this.queue.shift();
    // As the loop over /dev/fuse does: what was sent again comes before all others.
    if (request === undefined || request.sent === 0) group.resentSeen();
    if (request === undefined) return false;
    this.deliver(request);
    return true;
  }

  private ask(request: Request): Request {
    this.counts[request.kind]++;
    if (request.dsync) this.counts.dsync++;
    this.waiting.set(request.unique, request);
    this.queue.push(request);
    return request;
  }

  /** The request as the kernel would have written it to where the device code wants it. */
  private deliver(request: Request): void {
    const { group } = this.parts!;
    const { headMem, headAt, bodyMem, bodyAt } = group;
    const lo = request.unique >>> 0;
    const hi = request.sent++ > 0 ? RESENT : 0;
    const node = group.firstDeviceNode + request.device;
    const offset = request.at * SECTOR;
    const bytes = request.count * SECTOR;
    headMem.u8.fill(0, headAt, headAt + 80);
    headMem.dv.setUint32(headAt + 8, lo, true);
    headMem.dv.setUint32(headAt + 12, hi, true);
    setU64(headMem.dv, headAt + 16, node);
    switch (request.kind) {
      case 'write':
        fillPattern(bodyMem.u8, bodyAt, request.device, request.at, request.count, request.write);
        group.write(node, offset, bytes, request.dsync ? O_DSYNC : 0, lo, hi);
        break;
      case 'discard':
      case 'zeroes':
        group.fallocate(node, offset, bytes, request.kind === 'discard' ? 3 : 17, lo, hi);
        break;
      case 'flush':
        request.covers ??= this.history.tail;
        // One that is sent again means what is there by then.
        request.debts = [...(request.debts ?? []), ...this.policies.flush(this.history.tail)];
        group.fsync(node, lo, hi);
        break;
      case 'read':
        request.allowed ??= [this.stateOf(request)];
        group.read(node, offset, bytes, lo, hi);
        break;
      case 'tag':
        this.waiting.delete(request.unique);
        group.control(REC.TAG, 0, Buffer.from(`tag-${request.unique}`), () => undefined);
    }
    this.recordNew();
  }

  /** Takes the records that came into being since into the history, after a look whether they are what was asked for. */
  recordNew(): void {
    const { window, group } = this.parts!;
    const { dv } = window;
    for (let seq = this.history.tail; seq < group.appender.seq; seq++) {
      const slot = window.slotAt(seq);
      const at = slot + S_RECORD;
      const type = dv.getUint8(at + R_TYPE);
      const name = REC_NAME[type]!;
      const waits = type === REC.WRITE || type === REC.DISCARD || type === REC.ZEROES;
      const debts = this.policies.record(seq, getU64(dv, at + R_TIME), dv.getUint32(at + R_BYTES, true), waits);
      if (type === REC.TAG || type === REC.REIGN) {
        this.history.add(seq, name);
        continue;
      }
      if (type === REC.DEVICE_ADD || type === REC.DEVICE_RESIZE || type === REC.DEVICE_REMOVE) {
        const payload = window.payloadAt(window.payloadPos(slot));
        const bytes = decodeDeviceResize(window.u8.subarray(payload, payload + dv.getUint32(at + R_BYTES, true)));
        this.history.add(seq, `${name} ${dv.getUint32(at + R_DEVICE, true)} ${bytes ?? 0}`);
        continue;
      }
      const request = this.waiting.get(dv.getUint32(slot + S_UNIQUE, true));
      if (request === undefined)
        throw new Broken(`record ${seq} (${name}) is of a request that was answered, or never made`);
      const { device, at: first, count } = request;
      const right =
        type === TYPE[request.kind] &&
        dv.getUint32(at + R_DEVICE, true) === device &&
        getU64(dv, at + R_OFFSET) === first * SECTOR &&
        getU64(dv, at + R_LENGTH) === count * SECTOR &&
        dv.getUint32(at + R_BYTES, true) === (type === REC.WRITE ? count * SECTOR : 0);
      if (!right) throw new Broken(`record ${seq} (${name}) is not what request ${request.unique} asked for`);
      if (request.seq !== undefined)
        throw new Broken(`request ${request.unique} became record ${request.seq} and, sent again, record ${seq}`);
      request.seq = seq;
      request.debts = debts;
      this.counts.bytes += type === REC.WRITE ? count * SECTOR : 0;
      const write = type === REC.WRITE ? request.write : 0;
      this.history.add(seq, `${name} ${device}:${first}+${count}`, { device, at: first, count, write });
      for (const other of this.waiting.values())
        if (
          other.allowed !== undefined &&
          other.device === device &&
          other.at < first + count &&
          other.at + other.count > first
        )
          other.allowed.push(this.stateOf(other));
    }
  }

  private stateOf({ device, at, count }: Request): Uint32Array {
    return this.history.now.get(device)!.slice(at, at + count);
  }

  // --- answers -------------------------------------------------------------------------------------------

  /** The committer's answer: `errno` positive. */
  answer(lo: number, hi: number, bytes: number, errno: number): void {
    this.done(lo, hi, errno, bytes);
  }

  wrote(lo: number, hi: number, bytes: number): void {
    this.done(lo, hi, 0, bytes);
  }

  status(lo: number, hi: number, rc: number): void {
    this.done(lo, hi, -rc, 0);
  }

  position(): void {
    throw new Error('nobody asked for a position');
  }

  data(lo: number, hi: number, mem: Mem, off: number, len: number): void {
    const request = this.waiting.get(lo >>> 0);
    if (request?.kind === 'read') this.compare(request, mem, off, len);
    this.done(lo, hi, 0, len);
  }

  private compare({ device, at, count, allowed, unique }: Request, mem: Mem, off: number, len: number): void {
    if (len !== count * SECTOR) throw new Broken(`read ${unique} got ${len} bytes instead of ${count * SECTOR}`);
    this.counts.reads++;
    if (this.parts!.group.source.nr > 0) this.counts.readsElsewhere++;
    for (let s = 0; s < count; s++) {
      const got = readPattern(mem.u8, off + s * SECTOR, device, at + s);
      if (!allowed!.some((state) => state[s] === got)) {
        const wants = [...new Set(allowed!.map((state) => state[s]!))].join(' or ');
        throw new Broken(`read ${unique} of device ${device} sector ${at + s} shows write ${got} instead of ${wants}`);
      }
    }
  }

  private done(lo: number, hi: number, errno: number, bytes: number): void {
    // An answer may come from within the call that made the record.
    this.recordNew();
    const request = this.waiting.get(lo >>> 0);
    if ((hi & ~RESENT) !== 0) throw new Error(`an answer for unique ${hi}:${lo}`);
    if (request === undefined) {
      // A request that was sent again may be answered twice; the kernel takes the first.
      this.counts.twice++;
      return;
    }
    if (request.sent > 0 && this.queue.includes(request)) {
      // The kernel is about to send it again, and does not know it as being served: the answer is lost (ENOENT).
      this.counts.lostAnswers++;
      return;
    }
    this.waiting.delete(request.unique);
    this.told(request.unique, errno);
    if (errno !== 0) {
      this.counts.failed++;
      return;
    }
    const { kind, unique, seq } = request;
    const wants = kind === 'write' || kind === 'read' ? request.count * SECTOR : 0;
    if (bytes !== wants) throw new Broken(`request ${unique} (${kind}) was answered with ${bytes} bytes, not ${wants}`);
    if (kind === 'read') return;
    const below = kind === 'flush' ? request.covers! : (seq ?? 0) + 1;
    const owed = this.policies.answered(request.debts ?? [], below, `${kind} ${unique}`);
    if (kind === 'flush') {
      this.flushed = Math.max(this.flushed, request.covers!);
      return;
    }
    if (seq === undefined) throw new Broken(`request ${unique} (${kind}) was acknowledged and is no record`);
    if (request.dsync || this.shape.durableWrites || owed) this.flushed = Math.max(this.flushed, seq + 1);
  }

  // --- requests ------------------------------------------------------------------------------------------

  private request(kind: RequestKind): Request {
    return { unique: (this.nextUnique += 2), kind, device: 0, at: 0, count: 0, dsync: false, write: 0, sent: 0 };
  }

  private make(): Request {
    const { rng, shape, temper } = this;
    const kind = temper === 'mixed' ? rng.weighted(shape.weights) : rng.chance(0.97) ? 'write' : 'flush';
    const request = this.request(kind);
    if (kind === 'flush' || kind === 'tag') return request;
    const beside = this.last !== undefined && temper === 'mixed' && rng.chance(0.15);
    if (beside) return this.besides(request, this.last!);
    const span = temper === 'flood' || rng.chance(0.5) ? this.anywhere() : rng.pick(this.hot);
    let count = rng.between(1, Math.min(span.count, this.largest()));
    let at = span.at + rng.below(span.count - count + 1);
    if (rng.chance(0.4)) {
      // Whole blocks: only those can go past the page cache.
      at -= at % 8;
      count = Math.max(count - (count % 8), Math.min(count, 8));
    }
    return this.placed(request, { device: span.device, at, count });
  }

  /** As who stripes or mirrors over the devices: where the last request was on one, or behind it, on another one. */
  private besides(request: Request, { device, at, count }: Span): Request {
    const other = this.rng.pick(this.shape.devices);
    const next = this.rng.chance(0.5) ? at + count : at;
    const free = other.sectors - next;
    return this.placed(
      request,
      free < 1 ? { device, at, count } : { device: other.nr, at: next, count: Math.min(count, free) },
    );
  }

  private placed(request: Request, span: Span): Request {
    const { rng, shape, temper } = this;
    const write = request.kind === 'write';
    this.last = span;
    return {
      ...request,
      ...span,
      dsync: write && temper === 'mixed' && rng.chance(shape.dsync),
      write: write ? this.history.newWrite() : 0,
    };
  }

  private largest(): number {
    if (this.temper === 'trickle') return 8;
    if (this.temper === 'flood') return this.shape.largest;
    return this.rng.chance(0.1) ? this.shape.largest : this.rng.pick([1, 2, 8, 8, 8, 16, 64]);
  }

  private anywhere(): Span {
    const device = this.rng.pick(this.shape.devices);
    return { device: device.nr, at: 0, count: device.sectors };
  }

  /** One request of a script, sent at once; false where it had to be parked. */
  now(kind: RequestKind, where: { device?: number; at?: number; count?: number; dsync?: boolean } = {}): boolean {
    const request = this.ask({
      ...this.request(kind),
      ...where,
      write: kind === 'write' ? this.history.newWrite() : 0,
    });
    this.step(false);
    return request.seq !== undefined || kind === 'flush';
  }
}

const TYPE: Record<RequestKind, number> = {
  write: REC.WRITE,
  discard: REC.DISCARD,
  zeroes: REC.ZEROES,
  tag: REC.TAG,
  flush: -1,
  read: -1,
};
