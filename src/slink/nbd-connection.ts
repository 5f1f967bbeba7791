/**
 * One connection to an export, on a thread with an event loop: handshake (fixed newstyle, STARTTLS, GO), then
 * requests in flight together. Every byte of the server's is checked before it is believed; what does not fit
 * ends the connection and changes nothing.
 */
import { readFileSync } from 'node:fs';
import * as net from 'node:net';
import * as tls from 'node:tls';
import { errnoText } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import type { NbdAddress, NbdTls } from './nbd-options.js';
import { OP, type NbdWork } from './nbd-port.js';
import * as w from './nbd-wire.js';

/** Why a connection did not come about, or ended. */
export class NbdFault extends Error {
  /** It is there and will not do. */
  readonly refused: boolean;
  /** Negative. */
  readonly errno: number;
  /** The server sent what no server may send. */
  readonly garbage: boolean;
  constructor(message: string, how: { refused?: boolean; errno?: number; garbage?: boolean } = {}) {
    super(message);
    this.refused = how.refused ?? false;
    this.garbage = how.garbage ?? false;
    this.errno = how.errno ?? -104;
  }
}

const SEND_CHUNK = 256 * 1024;
/** Bytes handed to the socket and not yet taken by the kernel, at most. */
const QUEUED = 4 * 1024 * 1024;

interface Flight {
  nr: number;
  command: number;
}

export class NbdConnection {
  readonly name: string;
  readonly facts: w.ExportFacts & { allocation: boolean } = {
    size: -1,
    flags: 0,
    minimum: 1,
    maximum: w.MAX_BLOCK,
    allocation: false,
  };
  /** The server's side of the connection is known to be closed. */
  readonly dropped: Promise<void>;
  private drop!: () => void;
  /** Grows with everything that moves: what a time-out watches. */
  moved = 0;
  fault: NbdFault | undefined;

  private readonly exportName: string;
  private readonly raw: net.Socket;
  private stream: net.Socket;
  private readonly timeoutMs: number;
  private inbox: Buffer[] = [];
  private inboxBytes = 0;
  private wake: (() => void) | undefined;
  /** TLS is being agreed on. */
  private securing = false;
  private structured = false;
  private generation = 0;
  private work: NbdWork | undefined;
  private readonly flights = new Map<number, Flight>();
  private onDone: (() => void) | undefined;
  private onFault: (() => void) | undefined;
  /** What arrives into the memory of a read: request, place in it, bytes left. */
  private sink: { nr: number; at: number; left: number; end: boolean } | undefined;
  private zeroRun = 0;
  private out = Buffer.allocUnsafeSlow(SEND_CHUNK);
  private used = 0;

  private constructor(address: NbdAddress, name: string, title: string, timeoutMs: number) {
    this.name = title;
    this.timeoutMs = timeoutMs;
    this.exportName = name;
    this.raw = net.connect({ host: address.host, port: address.port, noDelay: true });
    this.stream = this.raw;
    this.dropped = new Promise((resolve) => (this.drop = resolve));
    this.listen(this.raw);
  }

  /** Rejects with an NbdFault; the connection is closed then. */
  static async open(
    address: NbdAddress,
    name: string,
    title: string,
    options: { timeoutMs: number; tls: NbdTls | undefined },
  ): Promise<NbdConnection> {
    const c = new NbdConnection(address, name, title, options.timeoutMs);
    try {
      await c.within('connecting', new Promise<void>((resolve) => c.raw.once('connect', resolve)));
      await c.within('the handshake', c.handshake(address, options.tls));
      return c;
    } catch (error) {
      const fault = error instanceof NbdFault ? error : new NbdFault(`${title}: ${(error as Error).message}`);
      c.fail(fault);
      c.destroy();
      throw fault;
    }
  }

  /** Settles with `what`, or rejects when the connection fails or time runs out. */
  private async within<T>(what: string, work: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<never>((_resolve, reject) => {
      this.onFault = () => reject(this.fault!);
      if (this.fault !== undefined) this.onFault();
      timer = setTimeout(
        () =>
          reject(new NbdFault(`${this.name}: ${what} took longer than ${this.timeoutMs / 1000} s`, { errno: -110 })),
        this.timeoutMs,
      );
    });
    try {
      return await Promise.race([work, limit]);
    } finally {
      clearTimeout(timer);
      this.onFault = undefined;
    }
  }

  private listen(stream: net.Socket): void {
    stream.on('data', (bytes: Buffer) => this.arrived(bytes));
    stream.on('end', () => {
      this.drop();
      this.fail(new NbdFault(`${this.name}: the server closed the connection`));
    });
    stream.on('close', () => this.fail(new NbdFault(`${this.name}: the connection was closed`)));
    stream.on('error', (error: NodeJS.ErrnoException) => {
      // Answers of a kernel whose process no longer has the connection.
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE' || error.code === 'ECONNREFUSED') this.drop();
      if (this.securing && error.syscall === undefined)
        return this.fail(new NbdFault(`${this.name}: TLS failed: ${error.message}`, { refused: true }));
      const why = typeof error.errno === 'number' && error.errno > -4000 ? errnoText(error.errno) : error.message;
      this.fail(
        new NbdFault(
          `${this.name}: ${error.syscall === 'connect' ? 'cannot be reached' : 'the connection failed'}: ${why}`,
        ),
      );
    });
  }

  private garbage(what: string): NbdFault {
    return new NbdFault(`${this.name}: the server sent garbage (${what}); the connection was closed`, {
      errno: -71,
      garbage: true,
    });
  }

  private fail(fault: NbdFault): void {
    if (this.fault !== undefined) return;
    this.fault = fault;
    this.onFault?.();
    this.wake?.();
    this.onDone?.();
  }

  // --- handshake -------------------------------------------------------------------------------------------

  private async take(bytes: number): Promise<Buffer> {
    while (this.inboxBytes < bytes) {
      if (this.fault !== undefined) throw this.fault;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const all = this.inbox.length === 1 ? this.inbox[0]! : Buffer.concat(this.inbox);
    this.inbox = [all.subarray(bytes)];
    this.inboxBytes -= bytes;
    return all.subarray(0, bytes);
  }

  private async handshake(address: NbdAddress, how: NbdTls | undefined): Promise<void> {
    const flags = w.decodeHello(await this.take(w.HELLO_BYTES));
    if (flags === undefined)
      throw new NbdFault(`${this.name}: is no NBD server that speaks fixed newstyle`, {
        refused: true,
        errno: -71,
        garbage: true,
      });
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(w.HANDSHAKE.FIXED | (flags & w.HANDSHAKE.NO_ZEROES), 0);
    this.stream.write(answer);
    if (how !== undefined) await this.startTls(address, how);
    this.structured = await this.ask(w.encodeOption(w.OPT.STRUCTURED_REPLY), w.OPT.STRUCTURED_REPLY);
    if (this.structured) this.facts.allocation = await this.setMeta();
    await this.go();
  }

  /** The next reply to `option`. */
  private async reply(option: number): Promise<{ type: number; data: Buffer }> {
    const head = w.decodeOptionReply(await this.take(w.OPTION_REPLY_BYTES));
    if (head === undefined || head.option !== option) throw this.garbage('a reply to no option of ours');
    return { type: head.type, data: await this.take(head.length) };
  }

  private async ask(request: Buffer, option: number): Promise<boolean> {
    this.stream.write(request);
    const { type } = await this.reply(option);
    if (type === w.REP.ERR_TLS_REQD) throw this.tlsWanted();
    return type === w.REP.ACK;
  }

  private tlsWanted(): NbdFault {
    return new NbdFault(`${this.name}: the server wants TLS; set the site's option tls`, { refused: true });
  }

  private async setMeta(): Promise<boolean> {
    this.stream.write(w.encodeSetMeta(this.exportName, w.ALLOCATION));
    let known = false;
    for (let i = 0; i < 16; i++) {
      const { type } = await this.reply(w.OPT.SET_META_CONTEXT);
      if (type === w.REP.META_CONTEXT) known = true;
      else return known && type === w.REP.ACK;
    }
    throw this.garbage('meta contexts without end');
  }

  private async go(): Promise<void> {
    this.stream.write(w.encodeGo(this.exportName));
    for (let i = 0; i < 64; i++) {
      const { type, data } = await this.reply(w.OPT.GO);
      if (type === w.REP.INFO) {
        if (!w.takeInfo(this.facts, data)) throw this.garbage('facts of the export that cannot be');
      } else if (type === w.REP.ACK) {
        if (this.facts.size < 0) throw this.garbage('no size of the export');
        return;
      } else {
        if (type === w.REP.ERR_TLS_REQD) throw this.tlsWanted();
        const text = data
          .toString('utf8')
          .replace(/[^\x20-\x7e]/g, '?')
          .slice(0, 200);
        const why = text === '' ? `error ${type & 0xffff}` : text;
        const refused = type !== w.REP.ERR_SHUTDOWN;
        throw new NbdFault(`${this.name}: the server does not give this export: ${why}`, { refused });
      }
    }
    throw this.garbage('facts without end');
  }

  private async startTls(address: NbdAddress, how: NbdTls): Promise<void> {
    if (!(await this.ask(w.encodeOption(w.OPT.STARTTLS), w.OPT.STARTTLS)))
      throw new NbdFault(`${this.name}: the server does not offer TLS, which the site requires`, { refused: true });
    if (this.inboxBytes > 0) throw this.garbage('bytes before TLS began');
    this.raw.removeAllListeners('data');
    const secure = tls.connect({ socket: this.raw, ...secrets(address, how) });
    this.stream = secure;
    this.securing = true;
    this.listen(secure);
    await new Promise<void>((resolve) => secure.once('secureConnect', resolve));
    this.securing = false;
  }

  // --- requests --------------------------------------------------------------------------------------------

  get busy(): boolean {
    return this.flights.size > 0;
  }

  begin(work: NbdWork): void {
    this.work = work;
    this.generation = (this.generation + 1) >>> 0;
  }

  /**
   * Sends the requests `list` of the work; waits only where the socket does not take more. All is copied: what is
   * still queued when a connection fails must not change under the kernel's hands.
   */
  async send(list: readonly number[]): Promise<void> {
    const work = this.work!;
    for (const nr of list) {
      const command = work.command(nr);
      const length = work.length(nr);
      this.flights.set(nr, { nr, command });
      if (this.used + w.REQUEST_BYTES > SEND_CHUNK) this.push();
      w.putRequest(
        this.out,
        this.used,
        flagsOf(command),
        typeOf(command),
        this.generation,
        nr,
        work.offset(nr),
        length,
      );
      this.used += w.REQUEST_BYTES;
      if (command === OP.WRITE || command === OP.WRITE_FUA) this.copyPayload(nr);
      if (this.stream.writableLength > QUEUED) await this.drained();
      if (this.fault !== undefined) throw this.fault;
    }
    this.push();
  }

  private copyPayload(nr: number): void {
    const work = this.work!;
    const first = work.firstRange(nr);
    for (let r = first; r < first + work.rangesOf(nr); r++) {
      const from = memoryAt(work.rangeAddr(r), work.rangeBytes(r));
      for (let done = 0; done < from.length;) {
        if (this.used === SEND_CHUNK) this.push();
        const n = from.copy(this.out, this.used, done);
        this.used += n;
        done += n;
      }
    }
  }

  private push(): void {
    if (this.used > 0) this.stream.write(this.out.subarray(0, this.used));
    this.out = Buffer.allocUnsafeSlow(SEND_CHUNK);
    this.used = 0;
  }

  private drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.moved++;
        resolve();
      };
      if (this.stream.writableNeedDrain) this.stream.once('drain', done);
      else done();
      this.onDone = resolve;
    });
  }

  /** Resolves when everything in flight was answered, rejects where the connection failed or an answer was an error. */
  async answered(): Promise<void> {
    while (this.flights.size > 0 && this.fault === undefined)
      await new Promise<void>((resolve) => (this.onDone = resolve));
    if (this.fault !== undefined) throw this.fault;
  }

  /** Result of a STATUS request. */
  get zeroes(): number {
    return this.zeroRun;
  }

  // --- replies ---------------------------------------------------------------------------------------------

  private arrived(bytes: Buffer): void {
    this.moved++;
    if (this.fault !== undefined) return;
    if (this.work === undefined) {
      this.inbox.push(bytes);
      this.inboxBytes += bytes.length;
      // More than any handshake: nobody asked for it.
      if (this.inboxBytes > 4 * w.MAX_OPTION_REPLY) this.fail(this.garbage('more than was asked for'));
      this.wake?.();
      return;
    }
    try {
      this.parse(bytes);
    } catch (error) {
      if (!(error instanceof NbdFault)) throw error;
      this.fail(error);
    }
  }

  private parse(fresh: Buffer): void {
    let bytes = this.inboxBytes > 0 ? Buffer.concat([...this.inbox, fresh]) : fresh;
    while (bytes.length > 0) {
      if (this.sink !== undefined) {
        const n = Math.min(this.sink.left, bytes.length);
        this.deliver(bytes.subarray(0, n));
        bytes = bytes.subarray(n);
        continue;
      }
      if (bytes.length < 4) break;
      const magic = bytes.readUInt32BE(0);
      const used = magic === w.SIMPLE_MAGIC ? this.simple(bytes) : this.chunk(bytes, magic);
      if (used === 0) break;
      bytes = bytes.subarray(used);
    }
    this.inbox = bytes.length > 0 ? [Buffer.from(bytes)] : [];
    this.inboxBytes = bytes.length;
    if (this.flights.size === 0) this.onDone?.();
  }

  private flight(bytes: Buffer): Flight {
    const flight = this.flights.get(bytes.readUInt32BE(12));
    if (bytes.readUInt32BE(8) !== this.generation || flight === undefined) throw this.garbage('a reply to nothing');
    return flight;
  }

  private simple(bytes: Buffer): number {
    if (bytes.length < w.SIMPLE_BYTES) return 0;
    const flight = this.flight(bytes);
    const error = bytes.readUInt32BE(4);
    if (error !== 0) throw this.denied(flight, error, '');
    if (flight.command === OP.READ) {
      // With structured replies agreed on, data never come this way.
      if (this.structured) throw this.garbage('data without a chunk');
      this.sink = { nr: flight.nr, at: 0, left: this.work!.length(flight.nr), end: true };
    } else if (flight.command === OP.STATUS) throw this.garbage('a status without one');
    else this.flights.delete(flight.nr);
    return w.SIMPLE_BYTES;
  }

  private chunk(bytes: Buffer, magic: number): number {
    if (magic !== w.STRUCTURED_MAGIC || !this.structured) throw this.garbage('no reply');
    if (bytes.length < w.STRUCTURED_BYTES) return 0;
    const last = (bytes.readUInt16BE(4) & w.CHUNK_DONE) !== 0;
    const type = bytes.readUInt16BE(6);
    const length = bytes.readUInt32BE(16);
    const flight = this.flight(bytes);
    const body = w.STRUCTURED_BYTES;
    if (type === w.CHUNK.OFFSET_DATA) {
      if (flight.command !== OP.READ || length < 9) throw this.garbage('data that nobody asked for');
      if (bytes.length < body + 8) return 0;
      const at = this.placeIn(flight, bytes.readBigUInt64BE(body), length - 8);
      this.sink = { nr: flight.nr, at, left: length - 8, end: last };
      return body + 8;
    }
    if (length > w.MAX_OPTION_REPLY) throw this.garbage('a chunk that is too long');
    if (bytes.length < body + length) return 0;
    if ((type & w.CHUNK.ERROR_BIT) !== 0) {
      if (length < 6) throw this.garbage('an error without one');
      const text = bytes.subarray(body + 6, body + Math.min(length, 6 + bytes.readUInt16BE(body + 4))).toString('utf8');
      throw this.denied(flight, bytes.readUInt32BE(body), text);
    }
    if (type === w.CHUNK.OFFSET_HOLE) {
      if (flight.command !== OP.READ || length !== 12) throw this.garbage('a hole that nobody asked for');
      const hole = bytes.readUInt32BE(body + 8);
      this.sink = { nr: flight.nr, at: this.placeIn(flight, bytes.readBigUInt64BE(body), hole), left: hole, end: last };
      for (const zero = Buffer.alloc(65_536); this.sink !== undefined;)
        this.deliver(zero.subarray(0, Math.min(zero.length, this.sink.left)));
    } else if (type === w.CHUNK.BLOCK_STATUS) {
      if (flight.command !== OP.STATUS || length < 12) throw this.garbage('a status that nobody asked for');
      const isZero = (bytes.readUInt32BE(body + 8) & w.STATE_ZERO) !== 0;
      this.zeroRun = isZero ? Math.min(bytes.readUInt32BE(body + 4), this.work!.length(flight.nr)) : 0;
      if (last) this.flights.delete(flight.nr);
    } else if (type === w.CHUNK.NONE && length === 0 && last) {
      this.ended(flight);
    } else throw this.garbage(`a chunk of type ${type}`);
    return body + length;
  }

  /** Bytes of each read that came, since a server may leave some out. */
  private readonly came = new Map<number, number>();

  private placeIn(flight: Flight, offset: bigint, bytes: number): number {
    const at = Number(offset) - this.work!.offset(flight.nr);
    if (at < 0 || bytes <= 0 || at + bytes > this.work!.length(flight.nr)) throw this.garbage('data of another place');
    return at;
  }

  private deliver(bytes: Buffer): void {
    const sink = this.sink!;
    const work = this.work!;
    let at = sink.at;
    let done = 0;
    const first = work.firstRange(sink.nr);
    for (let r = first, start = 0; r < first + work.rangesOf(sink.nr) && done < bytes.length; r++) {
      const size = work.rangeBytes(r);
      if (at < start + size) {
        const to = memoryAt(work.rangeAddr(r), size);
        const n = bytes.copy(to, at - start, done);
        done += n;
        at += n;
      }
      start += size;
    }
    sink.at = at;
    sink.left -= bytes.length;
    this.came.set(sink.nr, (this.came.get(sink.nr) ?? 0) + bytes.length);
    if (sink.left > 0) return;
    this.sink = undefined;
    if (sink.end) this.ended({ nr: sink.nr, command: OP.READ });
  }

  private ended(flight: Flight): void {
    const came = this.came.get(flight.nr) ?? 0;
    this.came.delete(flight.nr);
    if (flight.command === OP.READ && came !== this.work!.length(flight.nr)) throw this.garbage('a read with gaps');
    this.flights.delete(flight.nr);
  }

  private denied(flight: Flight, error: number, text: string): NbdFault {
    const errno = -w.wireErrno(error);
    const words = text === '' ? '' : ` (${text.replace(/[^\x20-\x7e]/g, '?').slice(0, 200)})`;
    const what = flight.command === OP.READ ? 'reading' : flight.command === OP.FLUSH ? 'flushing' : 'writing';
    return new NbdFault(`${this.name}: ${what} failed there: ${errnoText(errno)}${words}; see to the server's disk`, {
      errno,
    });
  }

  /** Nothing has moved for too long. */
  timedOut(): void {
    const seconds = this.timeoutMs / 1000;
    this.fail(
      new NbdFault(`${this.name}: no answer for ${seconds} s; see to the network and the server`, { errno: -110 }),
    );
  }

  // --- the end ---------------------------------------------------------------------------------------------

  /** Says goodbye; `dropped` tells when the server has closed its side, and with it all that was in flight. */
  end(): void {
    this.fail(new NbdFault(`${this.name}: closed`));
    if (this.stream.destroyed) return;
    if (this.raw.connecting) return this.destroy();
    // Not in the middle of a request, where it would be taken for data.
    if (this.flights.size === 0 && this.work !== undefined && this.stream.writableLength === 0) {
      const bye = Buffer.alloc(w.REQUEST_BYTES);
      w.putRequest(bye, 0, 0, w.CMD.DISC, 0, 0, 0, 0);
      this.stream.write(bye);
    }
    this.stream.end();
    this.stream.resume();
  }

  /** Nothing more leaves from here, not even what the kernel has queued. */
  destroy(): void {
    if (this.raw.connecting) this.raw.destroy();
    else this.raw.resetAndDestroy();
  }
}

/** Views are as large as this, begin at multiples of half of it, and are kept: a site has few pieces of memory. */
const VIEW = 128 * 1024 * 1024;
const views = new Map<number, Buffer>();

/** Memory of this process, at most half a VIEW of it. */
function memoryAt(addr: number, bytes: number): Buffer {
  const base = Math.floor(addr / (VIEW / 2)) * (VIEW / 2);
  let view = views.get(base);
  if (view === undefined) views.set(base, (view = Mem.at(base, VIEW).u8));
  return view.subarray(addr - base, addr - base + bytes);
}

function typeOf(command: number): number {
  switch (command) {
    case OP.READ:
      return w.CMD.READ;
    case OP.FLUSH:
      return w.CMD.FLUSH;
    case OP.ZEROES:
    case OP.ZEROES_FUA:
      return w.CMD.WRITE_ZEROES;
    case OP.STATUS:
      return w.CMD.BLOCK_STATUS;
    default:
      return w.CMD.WRITE;
  }
}

function flagsOf(command: number): number {
  if (command === OP.WRITE_FUA || command === OP.ZEROES_FUA) return w.CMD_FLAG.FUA;
  return command === OP.STATUS ? w.CMD_FLAG.REQ_ONE : 0;
}

function secrets(address: NbdAddress, how: NbdTls): tls.ConnectionOptions {
  const read = (file: string): Buffer => {
    try {
      return readFileSync(file);
    } catch (cause) {
      throw new NbdFault(
        `${file}: cannot be read: ${errnoText((cause as NodeJS.ErrnoException).errno ?? 5)}; name the right file`,
        {
          refused: true,
        },
      );
    }
  };
  if (how.how === 'psk') {
    const lines = read(how.pskFile)
      .toString('utf8')
      .split('\n')
      .filter((line) => line.includes(':'));
    const line = how.pskUser === '' ? lines[0] : lines.find((l) => l.startsWith(`${how.pskUser}:`));
    const m = /^([^:]+):((?:[0-9a-fA-F]{2})+)\s*$/.exec(line ?? '');
    if (m === null)
      throw new NbdFault(
        `${how.pskFile}: holds no line USER:HEXKEY${how.pskUser === '' ? '' : ` of "${how.pskUser}"`}`,
        { refused: true },
      );
    const secret = { identity: m[1]!, psk: Buffer.from(m[2]!, 'hex') };
    // Node offers a key of ours only with a suite of this hash.
    return {
      ciphers: 'TLS_AES_128_GCM_SHA256',
      minVersion: 'TLSv1.3',
      pskCallback: () => secret,
      checkServerIdentity: () => undefined,
    };
  }
  const host = how.hostname === '' ? address.host : how.hostname;
  return {
    minVersion: 'TLSv1.2',
    ...(net.isIP(host) === 0 ? { servername: host } : {}),
    checkServerIdentity: (_name, cert) => tls.checkServerIdentity(host, cert),
    ...(how.ca === '' ? {} : { ca: read(how.ca) }),
    ...(how.cert === '' ? {} : { cert: read(how.cert), key: read(how.key) }),
  };
}
