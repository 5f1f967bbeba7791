import assert from 'node:assert/strict';
import { ERRNO } from '../../../src/base/errors.js';
import { Mem } from '../../../src/base/mem.js';
import { EventLog } from '../../../src/control/events.js';
import { MessageBoard, type MessageHost } from '../../../src/control/messages.js';
import { ControlTree } from '../../../src/control/tree.js';
import type { LoopSink } from '../../../src/fuse/loop.js';
import { NativeLoop, NativeReply } from '../../../src/fuse/native-loop.js';

const SIZE = 1 << 20;

/** Devices that note what they are asked for. */
class Sink implements LoopSink {
  readonly headMem = Mem.anon(4096);
  readonly bodyMem = Mem.anon(8192);
  readonly headAt = 0;
  readonly bodyAt = 64;
  readonly bodyMax = 4096;
  readonly firstDeviceNode = 1024;
  readonly awaitsResent = false;
  readonly readsInFlight = 0;
  hasRoom = true;
  calls: string[] = [];
  uniques: number[] = [];
  prepare = (): boolean => this.hasRoom;
  write(node: number, offset: number, size: number, flags: number, lo: number, hi: number): void {
    const text = this.bodyMem.u8.toString('utf8', this.bodyAt, this.bodyAt + size);
    this.calls.push(`write ${node} ${offset} ${text} ${flags} ${hi}`);
    this.uniques.push(lo);
  }
  read(node: number, offset: number, size: number, lo: number): void {
    this.calls.push(`read ${node} ${offset} ${size}`);
    this.uniques.push(lo);
  }
  fsync(node: number, lo: number): void {
    this.calls.push(`fsync ${node}`);
    this.uniques.push(lo);
  }
  fallocate(): void {}
  lseek(): void {}
  other(): void {}
  resentSeen(): void {}
  rang(): void {}
  resting(): void {}
  readsDone(): void {}
}

const host = {
  sites: () => [1],
  devices: () => ['disk0'],
  setPaused: () => Promise.resolve('paused'),
} as unknown as MessageHost;

describe('fuse/native-loop', () => {
  let sink: Sink;
  let reply: NativeReply;
  let loop: NativeLoop;
  let tree: ControlTree;

  beforeEach(() => {
    sink = new Sink();
    reply = new NativeReply();
    tree = new ControlTree({
      devices: () => [{ nr: 0, name: 'disk0', size: SIZE }],
      text: (file) => `text of ${file}\n`,
      writtenMs: () => 0,
      reply: (bytes) => loop.replied(Buffer.from(bytes)),
      events: new EventLog(() => []),
      messages: new MessageBoard(() => host),
    });
    loop = new NativeLoop(sink, reply, (request) => tree.serve(request));
  });

  /** Calls an operation; resolves with what it was answered. */
  function ask<T extends unknown[]>(call: (done: (...answer: T) => void) => void): Promise<T> {
    return new Promise((resolve) => call((...answer) => resolve(answer)));
  }

  const open = async (path: string, flags = 2): Promise<number> => {
    const [rc, fh] = await ask<[number, number?]>((done) => loop.open(path, flags, done));
    assert.equal(rc, 0, path);
    return fh!;
  };

  it('finds paths as the tree does', async () => {
    const [rc, stat] = await ask<[number, { mode: number; size: number }?]>((d) => loop.getattr('/disk0', d));
    assert.deepEqual([rc, stat?.mode, stat?.size], [0, 0o100600, SIZE]);
    assert.deepEqual(await ask((done) => loop.getattr('/none', done)), [-ERRNO.ENOENT]);
    assert.deepEqual(await ask((done) => loop.getattr('/disk0/x', done)), [-ERRNO.ENOTDIR]);
    const [, names] = await ask<[number, string[]?]>((done) => loop.readdir('/', done));
    assert.deepEqual(names, ['.', '..', '.ctl', 'disk0']);
    const [, inside] = await ask<[number, string[]?]>((done) => loop.readdir('/.ctl', done));
    assert.ok(inside!.includes('status.json') && inside!.includes('messages'));
  });

  const REFUSED: { name: string; rc: number; call: (done: (rc: number) => void) => void }[] = [
    { name: 'create', rc: -ERRNO.EPERM, call: (d) => loop.create('/new', 0o600, d) },
    { name: 'mkdir', rc: -ERRNO.EPERM, call: (d) => loop.mkdir('/new', 0o700, d) },
    { name: 'unlink', rc: -ERRNO.EPERM, call: (d) => loop.unlink('/disk0', d) },
    { name: 'unlink of nothing', rc: -ERRNO.ENOENT, call: (d) => loop.unlink('/none', d) },
    { name: 'rename', rc: -ERRNO.EPERM, call: (d) => loop.rename('/disk0', '/other', d) },
    { name: 'rename of nothing', rc: -ERRNO.ENOENT, call: (d) => loop.rename('/none', '/other', d) },
    { name: 'chmod', rc: -ERRNO.EPERM, call: (d) => loop.chmod('/disk0', 0o777, d) },
    { name: 'chown', rc: -ERRNO.EPERM, call: (d) => loop.chown('/disk0', 1, 1, d) },
    { name: 'truncate to another size', rc: -ERRNO.EPERM, call: (d) => loop.truncate('/disk0', 512, d) },
    { name: 'truncate to the same size', rc: 0, call: (d) => loop.truncate('/disk0', SIZE, d) },
    { name: 'O_TRUNC', rc: 0, call: (d) => loop.truncate('/disk0', 0, d) },
    { name: 'touch', rc: 0, call: (d) => loop.utimens('/disk0', 0, 0, d) },
  ];
  for (const { name, rc, call } of REFUSED)
    it(`${name} gives ${rc}`, async () => assert.deepEqual(await ask(call), [rc]));

  it('device operations reach the devices, and answers find their callbacks', async () => {
    const fh = await open('/disk0');
    const into = Buffer.alloc(4);
    const answers = [
      ask<[number]>((done) => loop.write('/disk0', fh, Buffer.from('data'), 4, 512, done)),
      ask<[number]>((done) => loop.read('/disk0', fh, into, 4, 1024, done)),
      ask<[number]>((done) => loop.fsync('/disk0', 1, fh, done)),
    ];
    assert.deepEqual(sink.calls, ['write 1024 512 data 0 0', 'read 1024 1024 4', 'fsync 1024']);
    const [write, read, fsync] = sink.uniques as [number, number, number];
    assert.ok(write > 0 && new Set(sink.uniques).size === 3);
    reply.status(fsync, 0, -ERRNO.EIO);
    sink.bodyMem.u8.write('seen', 100);
    reply.data(read, 0, sink.bodyMem, 100, 4);
    reply.wrote(write, 0, 4);
    assert.deepEqual(await Promise.all(answers), [[4], [4], [-ERRNO.EIO]]);
    assert.equal(into.toString(), 'seen');
    assert.equal(reply.open, 0);
    reply.wrote(write, 0, 4); // A second answer finds nobody.
  });

  it('a device is open in the tree until it is released', async () => {
    const fh = await open('/disk0');
    assert.equal(tree.opensOf(0), 1);
    assert.deepEqual(await ask((done) => loop.release('/disk0', fh, done)), [0]);
    assert.equal(tree.opensOf(0), 0);
  });

  it('writes without room wait in order, reads and flushes go on', async () => {
    const fh = await open('/disk0');
    sink.hasRoom = false;
    const done: number[] = [];
    for (const [i, text] of ['a', 'b'].entries())
      loop.write('/disk0', fh, Buffer.from(text), 1, i, (rc) => done.push(rc));
    loop.read('/disk0', fh, Buffer.alloc(1), 1, 0, () => undefined);
    loop.fsync('/disk0', 0, fh, () => undefined);
    assert.deepEqual(sink.calls, ['read 1024 0 1', 'fsync 1024']);
    loop.turn();
    assert.equal(sink.calls.length, 2);
    sink.hasRoom = true;
    loop.turn();
    assert.deepEqual(sink.calls.slice(2), ['write 1024 0 a 0 0', 'write 1024 1 b 0 0']);
    sink.hasRoom = false;
    loop.write('/disk0', fh, Buffer.from('c'), 1, 2, (rc) => done.push(rc));
    loop.stop();
    assert.deepEqual(done, [-ERRNO.EIO]);
  });

  it('a status file is 0 by name and as long as its text by handle', async () => {
    const fh = await open('/.ctl/status', 0);
    const text = 'text of status\n';
    const [, byName] = await ask<[number, { size: number }?]>((d) => loop.getattr('/.ctl/status', d));
    const [, byHandle] = await ask<[number, { size: number }?]>((d) => loop.fgetattr('/.ctl/status', fh, d));
    assert.deepEqual([byName?.size, byHandle?.size], [0, text.length]);
    const into = Buffer.alloc(100);
    assert.deepEqual(await ask((done) => loop.read('', fh, into, 100, 0, done)), [text.length]);
    assert.equal(into.toString('utf8', 0, text.length), text);
    assert.deepEqual(await ask((done) => loop.release('', fh, done)), [0]);
    assert.deepEqual(await ask((done) => loop.read('', fh, into, 1, 0, done)), [-ERRNO.EIO]);
  });

  it('a message is answered through its handle', async () => {
    const fh = await open('/.ctl/messages');
    const message = Buffer.from('site 1 pause\n');
    assert.deepEqual(await ask((done) => loop.write('', fh, message, message.length, 0, done)), [message.length]);
    const into = Buffer.alloc(200);
    const [length] = await ask<[number]>((done) => loop.read('', fh, into, 200, 0, done));
    assert.match(into.toString('utf8', 0, length), /site 1 pause\tpaused\n$/);
    const [, stat] = await ask<[number, { size: number }?]>((done) => loop.fgetattr('', fh, done));
    assert.equal(stat?.size, length);
  });
});
