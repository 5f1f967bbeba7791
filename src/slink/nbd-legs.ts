/**
 * Legs that are exports of an NBD server, one connection each. The protocol and the sockets are behind NbdPort;
 * here stands what a site needs of an export, and how history becomes requests.
 *
 * A server may carry out what is in flight in any order. The writes of one plan never overlap, so they are in
 * flight together; between plans, and around zeroed ranges, there is a barrier. A flush covers what was answered
 * before it was sent, so there is one before each flush too. A discard in the history means zeroes: TRIM does not
 * promise them, WRITE_ZEROES does, and may still make holes.
 */
import { ERRNO } from '../base/errors.js';
import { Mem, type IoVec } from '../base/mem.js';
import { KIB, MIB, SECTOR } from '../base/units.js';
import type { Connections, SiteDevice } from './contract.js';
import type { Legs, LegsOpened } from './legs.js';
import { OP, type NbdPort } from './nbd-port.js';
import { MAX_BLOCK, TX, type ExportFacts } from './nbd-wire.js';

/** After a lost connection: the first tries come soon, the later ones less so. */
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 15_000;
const ZERO_BYTES = MIB;
const ZERO_RANGE = 32 * MIB;
const READ_BYTES = 256 * KIB;

interface Leg {
  index: number;
  most: number;
  fua: boolean;
  zeroes: boolean;
  allocation: boolean;
  dirty: boolean;
}

export class NbdLegs implements Legs {
  reason = '';
  againMs: number | undefined;
  usedBelow = 0;
  private readonly port: NbdPort;
  private readonly address: string;
  private readonly map: Readonly<Record<string, string>>;
  private readonly legs = new Map<number, Leg>();
  private readonly gone = new Set<number>();
  /** Failures since the last call that went well. */
  private failures = 0;
  /** What stands at the end of the work just now. */
  private tail: 'nothing' | 'writes' | 'zeroes' = 'nothing';
  private readonly zeroMem = Mem.lazy(ZERO_BYTES);

  constructor(port: NbdPort, address: string, map: Readonly<Record<string, string>>) {
    this.port = port;
    this.address = address;
    this.map = map;
  }

  get connections(): Connections {
    return this.port.work.connections;
  }

  target(device: string): string {
    return `${this.address}/${this.exportOf(device)}`;
  }

  private exportOf(device: string): string {
    return Object.hasOwn(this.map, device) ? this.map[device]! : device;
  }

  open(devices: readonly SiteDevice[], unsure: boolean): LegsOpened {
    this.close();
    const names = devices.map((device) => this.exportOf(device.name));
    const twice = names.findIndex((name, i) => names.indexOf(name) !== i);
    if (twice >= 0)
      return refusal(`${this.target(devices[twice]!.name)}: is the leg of two devices; map one elsewhere`);
    const connected = this.port.connect(names, unsure);
    if (!connected.ok) {
      const { refused, reason } = connected;
      const againMs = connected.againMs ?? (refused ? undefined : this.backOff());
      return { ok: false, refused, reason, ...(againMs === undefined ? {} : { againMs }) };
    }
    for (const [i, device] of devices.entries()) {
      const facts = connected.exports[i]!;
      const wrong = unfit(facts, device);
      if (wrong !== '') {
        this.close();
        return refusal(`${this.target(device.name)}: ${wrong}`);
      }
      this.gone.delete(device.nr);
      this.legs.set(device.nr, {
        index: i,
        most: Math.floor(Math.min(facts.maximum, MAX_BLOCK) / SECTOR) * SECTOR,
        fua: (facts.flags & TX.SEND_FLUSH) === 0,
        zeroes: (facts.flags & TX.SEND_WRITE_ZEROES) !== 0,
        allocation: facts.allocation,
        dirty: true,
      });
    }
    return { ok: true };
  }

  knows(nr: number): boolean {
    return this.legs.has(nr) || this.isGone(nr);
  }

  forget(nr: number): void {
    this.legs.delete(nr);
    this.gone.add(nr);
  }

  write(nr: number, offset: number, vec: IoVec): number {
    const leg = this.legs.get(nr);
    if (leg === undefined) return this.absent(nr);
    const { work } = this.port;
    const pieces = Math.ceil(vec.total / leg.most);
    const rc = this.makeRoom(pieces, vec.count + pieces, 'writes');
    if (rc < 0) return rc;
    work.addVec(leg.index, leg.fua ? OP.WRITE_FUA : OP.WRITE, offset, vec, leg.most);
    leg.dirty = true;
    return 0;
  }

  discard(nr: number, offset: number, length: number): number {
    return this.zeroes(nr, offset, length);
  }

  zeroes(nr: number, offset: number, length: number): number {
    const leg = this.legs.get(nr);
    if (leg === undefined) return this.absent(nr);
    const { work } = this.port;
    leg.dirty = true;
    const step = leg.zeroes ? ZERO_RANGE : Math.min(leg.most, ZERO_BYTES);
    for (let done = 0; done < length;) {
      const bytes = Math.min(step, length - done);
      const rc = this.makeRoom(1, 1, 'zeroes');
      if (rc < 0) return rc;
      if (leg.zeroes) work.add(leg.index, leg.fua ? OP.ZEROES_FUA : OP.ZEROES, offset + done, bytes);
      else {
        work.add(leg.index, leg.fua ? OP.WRITE_FUA : OP.WRITE, offset + done, bytes);
        work.addRange(this.zeroMem.addr, bytes);
      }
      done += bytes;
    }
    return 0;
  }

  settle(): number {
    return this.barrier();
  }

  finish(): number {
    return this.run();
  }

  sync(): number {
    const rc = this.barrier();
    if (rc < 0) return rc;
    for (const leg of this.legs.values()) {
      if (!leg.dirty) continue;
      if (!this.port.work.room(1, 0)) {
        const early = this.run();
        if (early < 0) return early;
      }
      if (!leg.fua) this.port.work.add(leg.index, OP.FLUSH, 0, 0);
    }
    const ran = this.run();
    if (ran >= 0) for (const leg of this.legs.values()) leg.dirty = false;
    return ran;
  }

  read(nr: number, mem: Mem, off: number, len: number, pos: number): number {
    const leg = this.legs.get(nr);
    if (leg === undefined) return this.absent(nr);
    const rc = this.barrier();
    if (rc < 0) return rc;
    for (let done = 0; done < len;) {
      // Several in flight together: a server reads one while it sends another.
      const bytes = Math.min(leg.most, READ_BYTES, len - done);
      if (!this.port.work.room(1, 1)) {
        const early = this.run();
        if (early < 0) return early;
      }
      this.port.work.add(leg.index, OP.READ, pos + done, bytes);
      this.port.work.addRange(mem.addr + off + done, bytes);
      done += bytes;
    }
    const ran = this.run();
    return ran < 0 ? ran : len;
  }

  nextData(nr: number, pos: number, size: number): number {
    const leg = this.legs.get(nr);
    if (leg === undefined || !leg.allocation) return pos;
    for (let at = pos; at < size;) {
      const zeroes = this.port.zeroesAt(leg.index, at, Math.min(size - at, ZERO_RANGE * 32));
      if (zeroes < 0) return this.failed(zeroes);
      if (zeroes === 0) return at;
      at += zeroes;
    }
    return size;
  }

  /** A flush goes there and back. */
  probe(): number {
    for (const leg of this.legs.values()) leg.dirty = true;
    return this.sync();
  }

  close(): void {
    this.port.work.clear();
    this.tail = 'nothing';
    this.port.close();
    this.legs.clear();
  }

  /** Room for more, and a barrier where what comes must not overtake what is there. */
  private makeRoom(ops: number, ranges: number, what: 'writes' | 'zeroes'): number {
    const { work } = this.port;
    if (this.tail !== 'nothing' && this.tail !== what) {
      const rc = this.barrier();
      if (rc < 0) return rc;
    }
    if (!work.room(ops + 1, ranges)) {
      const rc = this.run();
      if (rc < 0) return rc;
    }
    this.tail = what;
    return 0;
  }

  private barrier(): number {
    if (this.tail === 'nothing') return 0;
    this.tail = 'nothing';
    const { work } = this.port;
    if (!work.room(1, 0)) return this.run();
    work.add(0, OP.BARRIER, 0, 0);
    return 0;
  }

  private run(): number {
    const { work } = this.port;
    if (work.count === 0) return 0;
    const rc = this.port.run();
    work.clear();
    this.tail = 'nothing';
    if (rc < 0) return this.failed(rc);
    this.failures = 0;
    this.againMs = undefined;
    return 0;
  }

  private failed(rc: number): number {
    this.reason = this.port.reason;
    this.againMs = this.backOff();
    return rc;
  }

  private backOff(): number {
    return Math.min(FIRST_RETRY_MS * 2 ** this.failures++, LAST_RETRY_MS);
  }

  private isGone(nr: number): boolean {
    return nr < this.usedBelow || this.gone.has(nr);
  }

  private absent(nr: number): number {
    if (this.isGone(nr)) return 0;
    this.reason = `${this.address}: no export is open for device ${nr}`;
    return -ERRNO.ENODEV;
  }
}

/** Why an export cannot be the leg of a device, or ''. */
function unfit(facts: ExportFacts, device: SiteDevice): string {
  if ((facts.flags & TX.READ_ONLY) !== 0) return 'is read-only; export it writable';
  if (facts.size !== device.size) {
    const sizes = `the export has ${facts.size} bytes, ${device.name} ${device.size}`;
    return facts.size < device.size
      ? `is too small: ${sizes}; enlarge it`
      : `is too large: ${sizes}; export one of that size`;
  }
  if ((facts.flags & (TX.SEND_FLUSH | TX.SEND_FUA)) === 0)
    return 'the server offers neither flush nor FUA, so nothing there is ever sure to be on its disk; use another server';
  if (facts.minimum > SECTOR)
    return `takes requests in blocks of ${facts.minimum} bytes only, and devices are written in sectors of ${SECTOR}; use another server`;
  if (facts.maximum < 4096) return `takes ${facts.maximum} bytes at once at most, which is too little`;
  return '';
}

function refusal(reason: string): LegsOpened {
  return { ok: false, refused: true, reason };
}
