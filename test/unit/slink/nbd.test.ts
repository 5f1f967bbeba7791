import assert from 'node:assert/strict';
import * as net from 'node:net';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Mem, IoVec } from '../../../src/base/mem.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { REC } from '../../../src/replog/format.js';
import { NbdLegs } from '../../../src/slink/nbd-legs.js';
import { parseNbdAddress, parseNbdOptions } from '../../../src/slink/nbd-options.js';
import { NbdWork, OP, type NbdConnected, type NbdPort } from '../../../src/slink/nbd-port.js';
import { NBD } from '../../../src/slink/nbd.js';
import { NbdSession } from '../../../src/slink/nbd-session.js';
import * as w from '../../../src/slink/nbd-wire.js';
import { RawSite } from '../../../src/slink/raw-site.js';
import { BATCH_HEADER } from '../../../src/replog/format.js';
import type { SiteOpen } from '../../../src/slink/contract.js';
import { realIo } from '../../../src/base/io.js';
import { TestClock, cleanUp, scratch } from '../replog/rig.js';
import { Copying } from './copying.js';
import { DISK, DISK1, History, how as plainHow } from './support.js';

const FLAGS = w.TX.HAS_FLAGS | w.TX.SEND_FLUSH | w.TX.SEND_FUA | w.TX.SEND_WRITE_ZEROES;

/** A server in memory that does what is in flight in the worst order there is, and forgets what was not flushed. */
class FakePort implements NbdPort {
  readonly work = new NbdWork();
  reason = '';
  readonly disks = new Map<string, Buffer>();
  readonly durable = new Map<string, Buffer>();
  flags = FLAGS;
  minimum = 1;
  maximum = 64 * KIB;
  /** The run that fails, and the request of it behind which nothing is done. */
  failAt: { run: number; op: number } | undefined;
  runs = 0;
  commands: number[] = [];
  private open: string[] = [];

  connect(exports: readonly string[]): NbdConnected {
    const missing = exports.find((name) => !this.disks.has(name));
    if (missing !== undefined) return { ok: false, refused: true, reason: `${missing}: no such export` };
    this.open = [...exports];
    const facts = { flags: this.flags, minimum: this.minimum, maximum: this.maximum, allocation: false };
    return { ok: true, exports: exports.map((name) => ({ size: this.disks.get(name)!.length, ...facts })) };
  }

  run(): number {
    this.runs++;
    const { work } = this;
    let group: number[] = [];
    for (let i = 0; i <= work.count; i++) {
      if (i < work.count && work.command(i) !== OP.BARRIER) {
        group.push(i);
        continue;
      }
      // A flush in flight with a write covers nothing of it.
      group.sort((a, b) => Number(work.command(b) === OP.FLUSH) - Number(work.command(a) === OP.FLUSH) || b - a);
      for (const nr of group) {
        if (this.failAt?.run === this.runs && this.failAt.op-- <= 0) {
          this.reason = 'the connection failed';
          return -104;
        }
        this.one(nr);
      }
      group = [];
    }
    return 0;
  }

  private one(nr: number): void {
    const { work } = this;
    const name = this.open[work.leg(nr)]!;
    const disk = this.disks.get(name)!;
    const [command, offset, length] = [work.command(nr), work.offset(nr), work.length(nr)];
    this.commands.push(command);
    assert.ok(command === OP.FLUSH || (length > 0 && length <= 32 * MIB && offset + length <= disk.length));
    let at = offset;
    for (let r = work.firstRange(nr); r < work.firstRange(nr) + work.rangesOf(nr); r++) {
      const memory = Mem.at(work.rangeAddr(r), work.rangeBytes(r)).u8;
      if (command === OP.READ) disk.copy(memory, 0, at, at + memory.length);
      else memory.copy(disk, at);
      at += memory.length;
    }
    if (command === OP.ZEROES || command === OP.ZEROES_FUA) disk.fill(0, offset, offset + length);
    else if (command !== OP.FLUSH) assert.equal(at - offset, length);
    if (command === OP.FLUSH || command === OP.WRITE_FUA || command === OP.ZEROES_FUA)
      this.durable.set(name, Buffer.from(disk));
  }

  zeroesAt = (): number => 0;
  close(): void {
    this.open = [];
  }
}

describe('nbd site', () => {
  let port: FakePort;
  let history: History;
  let dir: string;
  beforeEach(() => {
    dir = scratch();
    port = new FakePort();
    history = new History([DISK, DISK1]);
    for (const { name, size } of [DISK, DISK1]) port.disks.set(name, Buffer.alloc(size));
  });
  afterEach(cleanUp);

  function site(map: Record<string, string> = {}): RawSite {
    const legs = new NbdLegs(port, 'host:1', map);
    return new RawSite(realIo, new TestClock(), { type: 'nbd', legs, stamp: join(dir, 's'), wipe: 'wipe it' });
  }
  function how(create = true): SiteOpen {
    const sentBehind: SiteOpen['sentBehind'] = (from, visit) => {
      if (from.seq < history.cursor.seq) visit(history.batch.mem, BATCH_HEADER, history.batch.records);
      return true;
    };
    return { ...plainHow([DISK, DISK1], create), sentBehind };
  }
  const images = (of = port.durable): Map<number, Buffer> =>
    new Map([DISK, DISK1].map((d) => [d.nr, of.get(d.name) ?? Buffer.alloc(d.size)]));

  const variants: { name: string; flags: number; maximum?: number }[] = [
    { name: 'everything', flags: FLAGS },
    { name: 'no WRITE_ZEROES', flags: w.TX.HAS_FLAGS | w.TX.SEND_FLUSH },
    { name: 'FUA but no flush', flags: w.TX.HAS_FLAGS | w.TX.SEND_FUA | w.TX.SEND_WRITE_ZEROES },
    { name: 'small requests only', flags: FLAGS, maximum: 4 * KIB },
  ];
  for (const { name, flags, maximum } of variants)
    it(`! whatever the order a server works in, what is confirmed is flushed history: ${name}`, () => {
      port.flags = flags;
      port.maximum = maximum ?? port.maximum;
      const s = site();
      assert.ok(s.open(how()).ok, s.reason);
      const batch = history
        .begin()
        .fill(0, 16 * KIB)
        .fill(4 * KIB, 8 * KIB)
        .zeroes(2 * KIB, 6 * KIB)
        .fill(3 * KIB, 512);
      batch
        .zeroes(3 * KIB, 512, 0, REC.DISCARD)
        .fill(0, 2 * KIB, 1)
        .zeroes(0, 1 * KIB, 1)
        .fill(512, 1024, 1);
      assert.equal(s.write(batch.end()), 0, s.reason);
      assert.equal(history.seqOf(images()), history.cursor.seq, 'durable there');
      assert.equal(s.flush(), 0);
      s.close();
      const again = site();
      assert.ok(again.open(how(false)).ok, again.reason);
    });

  for (const { name, flags, maximum } of variants)
    it(`! is made equal by copying beside records, whatever the order a server works in: ${name}`, () => {
      port.flags = flags;
      port.maximum = maximum ?? port.maximum;
      const s = site();
      assert.ok(s.open(how()).ok, s.reason);
      assert.equal(
        s.write(
          history
            .begin()
            .fill(0, 16 * KIB)
            .fill(0, 4 * KIB, 1)
            .end(),
        ),
        0,
      );
      s.close();
      history
        .begin()
        .fill(8 * KIB, 16 * KIB)
        .zeroes(0, 4 * KIB)
        .fill(512, 512, 1)
        .end();
      const copying = new Copying(history);
      copying.opened(s);
      assert.equal(s.readers, undefined);
      copying.copy(s, 0, 0, 3);
      // Over what was just copied.
      assert.equal(
        s.write(
          history
            .begin()
            .fill(4 * KIB, 8 * KIB)
            .zeroes(8 * KIB, 512)
            .end(),
        ),
        0,
        s.reason,
      );
      copying.copy(s, 0);
      copying.copy(s, 1);
      copying.settle(s);
      assert.equal(history.seqOf(images()), history.cursor.seq, 'durable there');
      copying.finish(s);
      s.close();
      assert.deepEqual(site().open(how(false)), { ok: true, cursor: history.cursor });
    });

  it('! a copy is done with its memory when it returns', () => {
    const s = site();
    const copying = new Copying(history);
    copying.anew = true;
    assert.ok(s.open({ ...how(), resync: copying.resync }).ok, s.reason);
    const mem = Mem.anon(8 * KIB);
    mem.u8.fill(1);
    assert.equal(s.copy.write(0, 0, 8 * KIB, mem, 0), 0);
    mem.u8.fill(2);
    assert.equal(s.copy.settle(), 0);
    assert.ok(
      port.durable
        .get('disk0')!
        .subarray(0, 8 * KIB)
        .every((byte) => byte === 1),
    );
    mem.unmap();
  });

  it('! fails at any request of a resync and is equal after what was not settled was copied again', () => {
    for (let at = 1; ; at++) {
      dir = scratch();
      port = new FakePort();
      history = new History([DISK, DISK1]);
      for (const { name, size } of [DISK, DISK1]) port.disks.set(name, Buffer.alloc(size));
      const s = site();
      assert.ok(s.open(how()).ok);
      assert.equal(
        s.write(
          history
            .begin()
            .fill(0, 8 * KIB)
            .fill(0, 4 * KIB, 1)
            .end(),
        ),
        0,
      );
      assert.equal(s.flush(), 0);
      s.close();
      history
        .begin()
        .fill(4 * KIB, 16 * KIB)
        .fill(512, 512, 1)
        .end();
      const copying = new Copying(history);
      copying.opened(s);
      port.failAt = { run: port.runs + at, op: at % 3 };
      let failed = false;
      try {
        copying.copy(s, 0);
        copying.settle(s);
        copying.copy(s, 1);
        copying.finish(s);
      } catch {
        failed = true;
        assert.equal(s.reason, 'the connection failed');
      }
      if (!failed && port.runs < port.failAt.run) break;
      port.failAt = undefined;
      s.close();
      copying.opened(s);
      copying.finish(s);
      s.close();
      assert.deepEqual(site().open(how(false)), { ok: true, cursor: history.cursor });
      assert.equal(history.seqOf(images()), history.cursor.seq);
    }
  });

  it('! fails at any request and is history again after the records were sent once more', () => {
    for (let op = 0; ; op++) {
      dir = scratch();
      port = new FakePort();
      history = new History([DISK, DISK1]);
      for (const { name, size } of [DISK, DISK1]) port.disks.set(name, Buffer.alloc(size));
      const s = site();
      assert.ok(s.open(how()).ok);
      const batch = history
        .begin()
        .fill(0, 16 * KIB)
        .zeroes(2 * KIB, 6 * KIB)
        .fill(3 * KIB, 512)
        .fill(0, KIB, 1)
        .end();
      port.failAt = { run: port.runs + 1, op };
      const rc = s.write(batch);
      if (rc === 0) break;
      assert.equal(s.reason, 'the connection failed');
      assert.equal(s.againMs, 250);
      assert.ok(s.window !== null);
      s.close();
      assert.ok(s.open(how(false)).ok, s.reason);
      assert.equal(s.write(batch), 0);
      assert.equal(history.seqOf(images()), history.cursor.seq);
    }
  });

  const unfit: { name: string; change: () => void; map?: Record<string, string>; reason: RegExp }[] = [
    { name: 'read-only', change: () => (port.flags |= w.TX.READ_ONLY), reason: /host:1\/disk0: is read-only/ },
    { name: 'too small', change: () => port.disks.set('disk0', Buffer.alloc(512)), reason: /disk0: is too small/ },
    { name: 'too large', change: () => port.disks.set('disk0', Buffer.alloc(MIB)), reason: /disk0: is too large/ },
    { name: 'without flush', change: () => (port.flags = w.TX.HAS_FLAGS), reason: /neither flush nor FUA/ },
    { name: 'of 4 KiB blocks', change: () => (port.minimum = 4096), reason: /in blocks of 4096 bytes only/ },
    { name: 'that is not there', change: () => port.disks.delete('disk1'), reason: /disk1: no such export/ },
    { name: 'used twice', change: () => {}, map: { disk1: 'disk0' }, reason: /is the leg of two devices/ },
    {
      name: 'that holds data',
      change: () => port.disks.get('disk1')!.fill(1, 513, 514),
      reason: /host:1\/disk1: holds data \(the first at byte 513\)/,
    },
  ];
  for (const { name, change, map, reason } of unfit)
    it(`! refuses an export ${name}, and writes nothing`, () => {
      change();
      const s = site(map);
      assert.equal(s.open(how()).ok, false);
      assert.match(s.reason, reason);
      assert.equal(s.refused, true);
      assert.ok(port.commands.every((command) => command === OP.READ));
    });

  it('NbdWork cuts a vector into requests', () => {
    const work = new NbdWork();
    const mem = Mem.anon(64 * KIB);
    const vec = new IoVec(8);
    vec.add(mem, 0, 1024);
    vec.add(mem, 8192, 2048);
    work.addVec(3, OP.WRITE, 4096, vec, 1536);
    assert.equal(work.count, 2);
    assert.deepEqual([work.offset(0), work.length(0), work.rangesOf(0)], [4096, 1536, 2]);
    assert.deepEqual([work.offset(1), work.length(1), work.rangesOf(1)], [5632, 1536, 1]);
    assert.deepEqual([work.rangeAddr(1) - mem.addr, work.rangeBytes(1)], [8192, 512]);
    assert.equal(work.rangeAddr(2) - mem.addr, 8704);
    mem.unmap();
  });
});

describe('nbd words', () => {
  it('parseNbdAddress takes names, numbers and brackets', () => {
    assert.deepEqual(parseNbdAddress('a.b:1'), { host: 'a.b', port: 1 });
    assert.deepEqual(parseNbdAddress('[::1]:65535'), { host: '::1', port: 65535 });
    assert.deepEqual(parseNbdAddress('10.0.0.1'), { host: '10.0.0.1', port: 10809 });
    for (const bad of ['', ':1', 'a:0', 'a:70000', '::1', 'a/b', 'a b:1', '[x'])
      assert.throws(() => parseNbdAddress(bad), { errno: 'EINVAL' }, bad);
  });

  const wrong: { options: Record<string, string>; message: RegExp }[] = [
    { options: { tile: '1' }, message: /option tile: is not known; an nbd site takes timeout, / },
    { options: { timeout: '1x' }, message: /option timeout: "1x" is not a time/ },
    { options: { tls: 'maybe' }, message: /option tls: "maybe" is not one of off, require, psk/ },
    { options: { 'tls-ca': '/x' }, message: /option tls-ca: goes with tls=require/ },
    { options: { tls: 'require', 'tls-cert': '/x' }, message: /tls-cert: goes with tls-key/ },
    { options: { tls: 'require', 'tls-ca': 'x' }, message: /"x" is not an absolute path/ },
    { options: { tls: 'psk' }, message: /tls-psk: is missing/ },
  ];
  for (const { options, message } of wrong)
    it(`parseNbdOptions refuses ${JSON.stringify(options)}`, () => {
      assert.throws(() => parseNbdOptions(options), { errno: 'EINVAL', message });
    });

  it('the words of a table bring a site back', () => {
    const plain = {
      nr: 1,
      address: '[::1]:10809',
      map: { b: 'x/y' },
      ack: 'durable' as const,
      options: { timeout: '5s' },
    };
    const { legs, words } = NBD.toTable(plain, ['a', 'b']);
    assert.deepEqual(legs, [
      { device: 'a', path: '[::1]:10809/a' },
      { device: 'b', path: '[::1]:10809/x/y' },
    ]);
    const { address, map, options } = plain;
    assert.deepEqual(NBD.fromTable({ legs, words, whole: true }), { address, map, options });
    const bad = (path: string, more: Record<string, string> = {}): void => {
      assert.throws(() => NBD.fromTable({ legs: [legs[0]!, { device: 'b', path }], words: more, whole: true }), {
        errno: 'EINVAL',
      });
    };
    bad('[::1]:10810/b');
    bad('[::1]:10809');
    bad('[::1]:10809/b', { timeout: '5s' });
    bad('[::1]:10809/b', { 'nbd-tile': '5s' });
  });

  it('parseNbdOptions fills in what is left out', () => {
    assert.deepEqual(parseNbdOptions({}), { timeoutMs: 30_000, reconnectWaitMs: 5000, tls: undefined });
    assert.equal(parseNbdOptions({ tls: 'psk', 'tls-psk': '/k' }).tls?.pskFile, '/k');
  });
});

describe('nbd wire', () => {
  it('bytes are those of the fixture', () => {
    const request = Buffer.alloc(28);
    w.putRequest(request, 0, 1, w.CMD.WRITE, 7, 9, 2 ** 40 + 512, 4096);
    const lines = [
      `go ${w.encodeGo('disk0').toString('hex')}`,
      `meta ${w.encodeSetMeta('a', w.ALLOCATION).toString('hex')}`,
      `starttls ${w.encodeOption(w.OPT.STARTTLS).toString('hex')}`,
      `write ${request.toString('hex')}`,
    ];
    const fixture = join(import.meta.dirname, '../../../../test/fixtures/nbd/wire.txt');
    assert.equal(`${lines.join('\n')}\n`, readFileSync(fixture, 'utf8'));
  });

  it('decoders refuse what cannot be', () => {
    assert.equal(w.decodeHello(Buffer.alloc(18)), undefined);
    assert.equal(w.decodeOptionReply(Buffer.alloc(20)), undefined);
    const facts = { size: 0, flags: 0, minimum: 1, maximum: 1 };
    assert.equal(w.takeInfo(facts, Buffer.alloc(12)), false, 'no flags');
    assert.equal(w.takeInfo(facts, Buffer.from('000300000003000010000000ffff', 'hex')), false, 'minimum 3');
    assert.equal(w.takeInfo(facts, Buffer.from('00', 'hex')), false);
    assert.equal(w.takeInfo(facts, Buffer.from('0000ffffffffffffffff0001', 'hex')), false, 'a size beyond all');
  });
});

/** A server that says what a test wants. */
class Scripted {
  readonly server: net.Server;
  readonly sockets: net.Socket[] = [];
  constructor(behind: (socket: net.Socket, request: Buffer) => void) {
    this.server = net.createServer((socket) => {
      this.sockets.push(socket);
      socket.on('error', () => {});
      const hello = Buffer.alloc(18);
      hello.writeBigUInt64BE(w.HELLO_MAGIC, 0);
      hello.writeBigUInt64BE(w.OPTION_MAGIC, 8);
      hello.writeUInt16BE(3, 16);
      socket.write(hello);
      let ready = false;
      let first = true;
      socket.on('data', (data) => {
        if (ready) return behind(socket, data);
        for (let at = first ? 4 : 0; at < data.length; at += 16 + data.readUInt32BE(at + 12)) {
          const option = data.readUInt32BE(at + 8);
          if (option === w.OPT.GO) {
            const info = Buffer.alloc(12);
            info.writeBigUInt64BE(1048576n, 2);
            info.writeUInt16BE(FLAGS, 10);
            socket.write(reply(option, w.REP.INFO, info));
            socket.write(reply(option, w.REP.ACK));
            ready = true;
          } else socket.write(reply(option, w.REP.ERR_UNSUP));
        }
        first = false;
      });
    });
  }
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `127.0.0.1:${(this.server.address() as net.AddressInfo).port}`;
  }
  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }
}

function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(w.OPTION_REPLY_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

function answer(request: Buffer, error = 0): Buffer {
  const out = Buffer.alloc(16);
  out.writeUInt32BE(w.SIMPLE_MAGIC, 0);
  out.writeUInt32BE(error, 4);
  request.copy(out, 8, 8, 16);
  return out;
}

describe('NbdSession', () => {
  let server: Scripted;
  let session: NbdSession;
  let work: NbdWork;
  afterEach(() => {
    session.close();
    server.close();
  });

  async function start(behind: (socket: net.Socket, request: Buffer) => void, wait = '300ms'): Promise<NbdConnected> {
    server = new Scripted(behind);
    const address = await server.listen();
    work = new NbdWork();
    session = new NbdSession({ address, options: parseNbdOptions({ timeout: '500ms', 'reconnect-wait': wait }) }, work);
    return session.connect(['disk0'], false);
  }

  function flush(): Promise<{ errno: number; reason: string }> {
    work.clear();
    work.add(0, OP.FLUSH, 0, 0);
    return session.run();
  }

  it('connects, and a request is answered', async () => {
    const connected = await start((socket, request) => void socket.write(answer(request)));
    assert.ok(connected.ok);
    assert.deepEqual(connected.exports[0], {
      size: MIB,
      flags: FLAGS,
      minimum: 1,
      maximum: w.MAX_BLOCK,
      allocation: false,
    });
    assert.equal((await flush()).errno, 0);
  });

  const bad: { name: string; behind: (socket: net.Socket, request: Buffer) => void; errno: number; reason: RegExp }[] =
    [
      {
        name: 'a reply with a wrong magic',
        behind: (s) => void s.write(Buffer.alloc(16, 1)),
        errno: -71,
        reason: /garbage \(no reply\)/,
      },
      {
        name: 'a reply to nothing',
        behind: (s, r) => (r.writeUInt32BE(99, 12), s.write(answer(r))),
        errno: -71,
        reason: /garbage \(a reply to nothing\)/,
      },
      {
        name: 'an error',
        behind: (s, r) => void s.write(answer(r, 28)),
        errno: -28,
        reason: /no space left.*see to the server's disk/,
      },
      { name: 'silence', behind: () => {}, errno: -110, reason: /no answer for 0.5 s/ },
      {
        name: 'a closed connection',
        behind: (s) => void s.end(),
        errno: -104,
        reason: /the server closed the connection/,
      },
      {
        name: 'half a reply and the end',
        behind: (s, r) => void s.end(answer(r).subarray(0, 9)),
        errno: -104,
        reason: /closed/,
      },
      {
        name: 'a structured reply that was not agreed on',
        behind: (s, r) => {
          const out = Buffer.alloc(20);
          out.writeUInt32BE(w.STRUCTURED_MAGIC, 0);
          r.copy(out, 8, 8, 16);
          s.write(out);
        },
        errno: -71,
        reason: /garbage/,
      },
    ];
  for (const { name, behind, errno, reason } of bad)
    it(`ends on ${name}`, async () => {
      assert.ok((await start(behind)).ok);
      const result = await flush();
      assert.equal(result.errno, errno, result.reason);
      assert.match(result.reason, reason);
      const garbage = errno === -71 ? 1 : 0;
      assert.deepEqual(work.connections, { made: 1, lost: 1, garbage });
    });

  it('! connects again at once where the server has closed, and waits where that is not known', async () => {
    let closes = true;
    assert.ok((await start((socket) => void (closes && socket.destroy()), '400ms')).ok);
    assert.equal((await flush()).errno, -104);
    assert.ok((await session.connect(['disk0'], false)).ok, 'the server has let go');
    closes = false;
    // A server that hangs does not close either.
    for (const socket of server.sockets) socket.on('end', () => {}).allowHalfOpen = true;
    const since = performance.now();
    assert.equal((await flush()).errno, -110);
    const first = await session.connect(['disk0'], false);
    assert.equal(first.ok, false);
    assert.match(first.ok ? '' : first.reason, /waits until the server has let go of the connection before/);
    let again: NbdConnected;
    do {
      await new Promise((resolve) => setTimeout(resolve, 20));
      again = await session.connect(['disk0'], false);
    } while (!again.ok && performance.now() - since < 5000);
    assert.ok(again.ok);
    assert.ok(performance.now() - since >= 500 + 400 - 60, 'it did not wait');
  });

  it('! waits where a process before may have left requests behind', async () => {
    assert.ok((await start(() => {}, '300ms')).ok);
    session.close();
    const since = performance.now();
    const late = new NbdSession(
      { address: await server.listen().catch(() => ''), options: parseNbdOptions({ 'reconnect-wait': '300ms' }) },
      work,
    );
    assert.equal((await late.connect(['disk0'], true)).ok, false);
    assert.ok(performance.now() - since < 200);
    late.close();
  });

  it('is refused where nobody listens, and by what is no NBD server', async () => {
    assert.ok((await start(() => {})).ok);
    const deaf = new NbdSession({ address: '127.0.0.1:1', options: parseNbdOptions({}) }, work);
    const none = await deaf.connect(['x'], false);
    assert.equal(none.ok, false);
    assert.match(none.ok ? '' : none.reason, /127\.0\.0\.1:1\/x: cannot be reached/);
    const web = net.createServer((socket) => socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    const address = `127.0.0.1:${(web.address() as net.AddressInfo).port}`;
    const other = await new NbdSession({ address, options: parseNbdOptions({}) }, work).connect(['x'], false);
    web.close();
    assert.equal(!other.ok && other.refused, true);
    assert.match(other.ok ? '' : other.reason, /is no NBD server/);
  });
});
