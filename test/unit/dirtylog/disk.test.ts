/** dirty logs on a device, byte by byte, and what is found on one. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realIo } from '../../../src/base/io.js';
import { DirtyBits } from '../../../src/dirtylog/bits.js';
import { DISK_MAGIC, decodeHead, diskBytes, encodeHead } from '../../../src/dirtylog/format.js';
import type { DirtyLog, DirtyLogNeeds } from '../../../src/dirtylog/types.js';
import { CORE, DISK, NOLOG } from '../../../src/dirtylog/words.js';
import { FaultIo } from '../../support/fault-io.js';
import { attach, detach } from '../../support/loop.js';
import { needsLoop } from '../../support/skip.js';

const LOG_ID = '00112233445566778899aabbccddeeff';
/** 35 regions, the last one shorter. */
const SECTORS = 34 * 128 + 1;

/** As it stands in dirtylog/format.ts, written down by hand: regions 0 and 33 of 35 are dirty. */
const BY_HAND = Buffer.alloc(1536);
BY_HAND.set(Buffer.from('7252694D 02000000 2300000000000000'.replaceAll(' ', ''), 'hex'), 0);
BY_HAND.set(Buffer.from('FEFFFFFF 05000000'.replace(' ', ''), 'hex'), 1024);

/** … and whose log it is. */
const NOTE = Buffer.alloc(512);
NOTE.set(Buffer.from('reptool dirtylog', 'latin1'), 0);
NOTE.set(Buffer.from('80000000 07000000 02000000'.replaceAll(' ', ''), 'hex'), 20);
NOTE.set(Buffer.from(LOG_ID, 'hex'), 32);

describe('dirty log on a device', () => {
  let dir: string;
  let file: string;
  const open: DirtyLog[] = [];

  beforeEach(() => {
    dir = fs.mkdtempSync(join(tmpdir(), 'reptool-dirtylog-'));
    file = join(dir, 'dlog');
    fs.writeFileSync(file, '');
  });
  afterEach(() => {
    for (const log of open.splice(0)) log.close();
    fs.rmSync(dir, { recursive: true, force: true });
  });

  function needs(change: Partial<DirtyLogNeeds> = {}, words: string[] = []): DirtyLogNeeds {
    return {
      io: realIo,
      leg: { logId: LOG_ID, link: 7, device: 2, name: 'disk2 at site 7' },
      table: DISK.parse([file, '128', ...words]),
      region: 128,
      sectors: SECTORS,
      begins: false,
      fact: undefined,
      taken: () => '',
      ...change,
    };
  }

  function made(change: Partial<DirtyLogNeeds> = {}, words: string[] = []): DirtyLog {
    const log = DISK.make(needs(change, words));
    open.push(log);
    return log;
  }

  function dirty(bits: Uint8Array | undefined, sectors = SECTORS): number[] | undefined {
    if (bits === undefined) return undefined;
    const all = DirtyBits.from(bits, 128, sectors);
    return Array.from({ length: all.regions }, (_, r) => r).filter((r) => all.has(r));
  }

  const bitsOf = (sectors: number, ...regions: number[]): Uint8Array => {
    const bits = new DirtyBits(128, sectors);
    for (const r of regions) bits.mark(r * 128, 1);
    return bits.bytes();
  };
  const ALL = Array.from({ length: 35 }, (_, r) => r);
  const isAll = (log: DirtyLog): void => {
    assert.equal(log.load(), undefined, 'it knows nothing: every region counts as dirty');
    assert.deepEqual([log.state, log.reason], ['A', '']);
  };

  it('R-19 writes its format byte for byte', () => {
    const log = made();
    isAll(log);
    assert.equal(log.store(bitsOf(SECTORS, 0, 33), 35), 0);
    const bytes = fs.readFileSync(file);
    assert.equal(bytes.length, 1536);
    assert.deepEqual(bytes.subarray(0, 512), BY_HAND.subarray(0, 512));
    assert.deepEqual(bytes.subarray(1024), BY_HAND.subarray(1024));
    const note = Buffer.from(bytes.subarray(512, 1024));
    assert.notEqual(note.readUInt32LE(16), 0, 'its crc');
    note.writeUInt32LE(0, 16);
    assert.deepEqual(note, NOTE);
  });

  it('R-19 reads the format as it was written by hand, and resumes from it', () => {
    fs.writeFileSync(file, BY_HAND);
    assert.deepEqual(dirty(made().load()), [0, 33]);
    assert.deepEqual(fs.readFileSync(file), BY_HAND, 'reading changes nothing');
    assert.deepEqual(dirty(made({ begins: true }).load()), [0, 33], 'a log of the kernel says what differs');
  });

  it('R-19 resumes from what it stored', () => {
    const log = made();
    log.load();
    for (const regions of [[1, 2, 34], [34], []]) {
      assert.equal(log.store(bitsOf(SECTORS, ...regions), 35), 0);
      const again = made();
      assert.deepEqual(dirty(again.load()), regions);
      again.close();
    }
    // Words of the beginning mean nothing any more.
    assert.deepEqual(dirty(made({}, ['sync']).load()), []);
    log.store(bitsOf(SECTORS, 5), 35);
    assert.deepEqual(dirty(made({}, ['nosync']).load()), [5]);
  });

  it('R-19 sync begins with all regions dirty, nosync with none, whatever is stored', () => {
    for (const [word, is] of [
      ['sync', ALL],
      ['nosync', []],
    ] as const) {
      fs.writeFileSync(file, BY_HAND);
      const log = made({ begins: true }, [word]);
      assert.deepEqual(dirty(log.load() ?? new Uint8Array(5).fill(255)), is);
      const again = made();
      assert.deepEqual(dirty(again.load()), is, 'and it says so itself');
      log.close();
      again.close();
    }
  });

  it('R-19 of a grown device the new area is dirty, or clean with nosync; surplus bits go', () => {
    fs.writeFileSync(file, BY_HAND);
    const sectors = 40 * 128;
    assert.deepEqual(dirty(made({ sectors }).load(), sectors), [0, 33, 35, 36, 37, 38, 39]);
    assert.deepEqual(dirty(made({ sectors }, ['nosync']).load(), sectors), [0, 33]);
    const smaller = made({ sectors: 33 * 128 });
    assert.deepEqual(dirty(smaller.load(), 33 * 128), [0]);
    assert.equal(smaller.store(bitsOf(33 * 128, 1), 33), 0);
    const bytes = fs.readFileSync(file);
    assert.deepEqual([...bytes.subarray(1024, 1032)], [0xfd, 0xff, 0xff, 0xff, 0x01, 0, 0, 0]);
    assert.equal(bytes.readUInt32LE(8), 33);
  });

  it('R-19 a device that grows while it is used has its log grow, too', () => {
    const log = made();
    log.load();
    log.store(bitsOf(SECTORS, 3), 35);
    const sectors = 10_000 * 128;
    assert.equal(log.store(bitsOf(sectors, 3, 9999), 10_000), 0);
    assert.deepEqual(dirty(made({ sectors }).load(), sectors), [3, 9999]);
    assert.equal(fs.statSync(file).size, diskBytes(10_000));
  });

  it('regions of another size are those of the log: what they cover is dirty', () => {
    const log = made();
    log.load();
    log.store(bitsOf(SECTORS, 5), 35);
    const larger = made({ region: 256 }).load()!;
    assert.deepEqual([...larger], [0b100, 0, 0]);
  });

  const refused: { name: string; bytes: () => Uint8Array; says: RegExp }[] = [
    {
      name: 'something else',
      bytes: () => Buffer.alloc(4096, 'x'),
      says: /something that is no dirty log \(magic 0x78787878\)/,
    },
    {
      name: 'a file system, whose first sectors are free',
      bytes: () => Buffer.concat([Buffer.alloc(1080), Buffer.from([0x53, 0xef]), Buffer.alloc(9000)]),
      says: /it holds something that is no dirty log;/,
    },
    {
      name: 'another version',
      bytes: () => Buffer.concat([BY_HAND.subarray(0, 4), Buffer.from([3]), BY_HAND.subarray(5)]),
      says: /a dirty log of version 3, 2 is known/,
    },
    {
      name: 'one that was cut short',
      bytes: () => BY_HAND.subarray(0, 1026),
      says: /a dirty log cut short: 35 regions in 1026 bytes/,
    },
    {
      name: 'one that was cut within its head',
      bytes: () => BY_HAND.subarray(0, 12),
      says: /something that is no dirty log/,
    },
    {
      name: 'the log of another leg',
      bytes: () => headOf({ logId: LOG_ID, link: 3, device: 2, region: 128 }),
      says: /the dirty log of device 2 at site 3/,
    },
    {
      name: 'the log of another group',
      bytes: () => headOf({ logId: 'f'.repeat(32), link: 7, device: 2, region: 128 }),
      says: /the dirty log of another group \(f{32}\)/,
    },
    {
      name: 'a damaged note',
      bytes: () => {
        const bytes = headOf({ logId: LOG_ID, link: 7, device: 2, region: 128 });
        bytes[540]! ^= 1;
        return bytes;
      },
      says: /a dirty log whose head is damaged/,
    },
  ];
  function headOf(note: Parameters<typeof encodeHead>[2]): Buffer {
    const bytes = Buffer.from(BY_HAND);
    encodeHead(bytes, 35, note);
    return bytes;
  }
  for (const { name, bytes, says } of refused)
    it(`! ${name} is refused by name, and overwritten only where the table says sync or nosync`, () => {
      const before = Buffer.from(bytes());
      fs.writeFileSync(file, before);
      const log = made();
      assert.equal(log.load(), undefined);
      assert.equal(log.state, 'D');
      assert.match(log.reason, says);
      assert.ok(log.reason.startsWith(`${file}, the dirty log of disk2 at site 7: it holds `), log.reason);
      assert.match(log.reason, /; name another device, or write sync or nosync to have it overwritten$/);
      assert.ok(log.store(bitsOf(SECTORS), 35) < 0);
      assert.deepEqual(fs.readFileSync(file), before, 'not a byte was written');

      const anew = made({}, ['nosync']);
      assert.equal(anew.load(), undefined, 'nosync of the beginning does not make what is unknown clean');
      assert.equal(anew.state, 'A');
      assert.deepEqual(dirty(made().load()), ALL);
    });

  it('! the log of a leg before this one is not resumed where the leg begins', () => {
    const log = made();
    log.load();
    log.store(bitsOf(SECTORS), 35);
    isAll(made({ begins: true }));
  });

  it('what is empty or zero is new: all regions dirty', () => {
    for (const bytes of [0, 1, 512, 5000, 2 * 1024 * 1024]) {
      fs.writeFileSync(file, Buffer.alloc(bytes));
      isAll(made());
      const again = made();
      assert.deepEqual(dirty(again.load()), ALL);
      assert.ok(fs.statSync(file).size >= 1536);
    }
  });

  const dead: { name: string; make: () => Partial<DirtyLogNeeds>; says: RegExp }[] = [
    {
      name: 'that is not there',
      make: () => (fs.rmSync(file), {}),
      says: /it cannot be had: it does not exist \(ENOENT\); make it, or correct the name$/,
    },
    {
      name: 'that is a folder',
      make: () => (fs.rmSync(file), fs.mkdirSync(file), {}),
      says: /it is a folder; name a file or a block device$/,
    },
    {
      name: 'that is something of the group',
      make: () => ({ taken: () => 'the local image of disk0' }),
      says: /it is the local image of disk0 already; name another device$/,
    },
  ];
  for (const { name, make, says } of dead)
    it(`a device ${name} is dead, and says so`, () => {
      const log = made(make());
      assert.equal(log.load(), undefined);
      assert.equal(log.state, 'D');
      assert.match(log.reason, says);
      assert.ok(log.store(bitsOf(SECTORS), 35) < 0);
    });

  const faults: { call: string; errno: number; state: string; says: RegExp }[] = [
    { call: 'DIRTYLOG:WRITE', errno: 5, state: 'D', says: /writing it failed: input\/output error \(EIO\)/ },
    { call: 'DIRTYLOG:SYNC', errno: 5, state: 'F', says: /flushing it failed: input\/output error \(EIO\)/ },
  ];
  for (const { call, errno, state, says } of faults)
    it(`after a failed ${call} its state is ${state}, and the next store writes all that may be lost`, () => {
      const io = new FaultIo(realIo);
      const log = made({ io });
      log.load();
      assert.equal(log.store(bitsOf(SECTORS, 1), 35), 0);
      io.arm({ call, nth: 1, errno });
      assert.equal(log.store(bitsOf(SECTORS, 1, 2), 35), -errno);
      assert.equal(log.state, state);
      assert.match(log.reason, says);
      const writes = io.count('DIRTYLOG:WRITE');
      assert.equal(log.store(bitsOf(SECTORS, 1, 2), 35), 0, 'the same bits again');
      assert.equal(io.count('DIRTYLOG:WRITE'), writes + 1, 'are written again');
      assert.deepEqual([log.state, log.reason], ['A', '']);
      assert.deepEqual(dirty(made().load()), [1, 2]);
    });

  it('each call that fails while a log is opened makes it dead, and the next store tries again', () => {
    for (const call of ['DIRTYLOG:STAT', 'DIRTYLOG:OPEN', 'DIRTYLOG:INFO', 'DIRTYLOG:READ']) {
      fs.writeFileSync(file, BY_HAND);
      const io = new FaultIo(realIo).arm({ call, nth: 1, errno: 5 });
      const log = made({ io });
      assert.equal(log.load(), undefined, call);
      assert.equal(log.state, 'D', call);
      assert.match(log.reason, /failed|cannot be had/, call);
      assert.equal(log.store(bitsOf(SECTORS, 4), 35), 0, call);
      assert.equal(log.state, 'A', call);
      log.close();
    }
  });

  it('writes only what differs, and syncs each time', () => {
    const io = new FaultIo(realIo);
    const sectors = 128 * 32_768;
    const written: [number, number][] = [];
    const pwrite = io.pwrite;
    io.pwrite = (call, fd, mem, off, len, pos) => {
      written.push([pos, len]);
      return pwrite(call, fd, mem, off, len, pos);
    };
    const log = made({ io, sectors });
    log.load();
    written.length = 0;
    const syncs = io.count('DIRTYLOG:SYNC');
    log.store(bitsOf(sectors), 32_768);
    log.store(bitsOf(sectors, 5), 32_768);
    log.store(bitsOf(sectors, 5, 4096 + 1, 2 * 4096 + 1), 32_768);
    log.store(bitsOf(sectors, 5, 4096 + 1, 2 * 4096 + 1), 32_768);
    assert.deepEqual(written, [
      [1024, 4096],
      [1024, 512],
      [1536, 1024],
    ]);
    assert.equal(io.count('DIRTYLOG:SYNC'), syncs + 3);
  });

  it('what the index holds while the device did not flush is dirty, too', () => {
    fs.writeFileSync(file, BY_HAND);
    const fact = { link: 7, device: 2, region: 128, regions: 35, bits: bitsOf(SECTORS, 7) };
    assert.deepEqual(dirty(made({ fact }).load()), [0, 7, 33]);
    fs.rmSync(file);
    assert.deepEqual(dirty(made({ fact }).load()), [7], 'a device that is gone is not needed then');
    assert.equal(made({ fact, begins: true }).load(), undefined);
  });

  it('a block device must be large enough for its regions, and nobody else may use it', async function () {
    needsLoop(this);
    fs.truncateSync(file, 1024);
    const small = await attach(file);
    try {
      const log = made({ table: DISK.parse([small, '128']) });
      assert.equal(log.load(), undefined);
      assert.equal(log.state, 'D');
      assert.match(log.reason, /it has 2 sectors, and 35 regions need 3; name a larger device, or larger regions$/);
    } finally {
      await detach(small);
    }
    fs.truncateSync(file, 4096);
    const loop = await attach(file);
    try {
      const table = DISK.parse([loop, '128']);
      const log = made({ table });
      isAll(log);
      const second = made({ table });
      assert.equal(second.load(), undefined);
      assert.match(second.reason, /opening it failed: it is in use \(EBUSY\); free it, or name another device$/);
      assert.equal(log.store(bitsOf(SECTORS, 9), 35), 0);
      assert.ok(log.store(bitsOf(1_000_000 * 128), 1_000_000) < 0, 'a grown device may need more than it has');
      assert.match(log.reason, /it has 8 sectors, and 1000000 regions need/);
      log.close();
      assert.deepEqual(dirty(made({ table }).load()), [9]);
    } finally {
      for (const log of open.splice(0)) log.close();
      await detach(loop);
    }
  });

  it('decodeHead tells what is no log of ours', () => {
    const bytes = Buffer.alloc(1024);
    assert.deepEqual(decodeHead(bytes), { kind: 'foreign', magic: 0 });
    bytes.writeUInt32LE(DISK_MAGIC, 0);
    assert.deepEqual(decodeHead(bytes), { kind: 'version', version: 0 });
  });
});

describe('dirty logs without a device', () => {
  const needs = (words: string[], change: Partial<DirtyLogNeeds> = {}): DirtyLogNeeds => ({
    io: realIo,
    leg: { logId: LOG_ID, link: 7, device: 2, name: 'disk2 at site 7' },
    table: CORE.parse(['128', ...words]),
    region: 128,
    sectors: SECTORS,
    begins: false,
    fact: undefined,
    taken: () => '',
    ...change,
  });
  const fact = { link: 7, device: 2, region: 128, regions: 35, bits: Uint8Array.of(1, 0, 0, 0, 2) };

  it('nolog keeps nothing', () => {
    const log = NOLOG.make(needs([]));
    assert.deepEqual([log.type, log.keeps, log.state, log.load()], ['nolog', 'nothing', 'A', undefined]);
  });

  it('R-19 core begins all dirty, or with nosync all clean', () => {
    assert.equal(CORE.make(needs([], { begins: true })).load(), undefined);
    assert.equal(CORE.make(needs(['sync'], { begins: true })).load(), undefined);
    assert.deepEqual(CORE.make(needs(['nosync'], { begins: true })).load(), new Uint8Array(5));
    assert.equal(CORE.make(needs([])).keeps, 'memory');
  });

  it('! core knows nothing after a restart, whatever its leg began with', () => {
    for (const words of [[], ['sync'], ['nosync']]) assert.equal(CORE.make(needs(words)).load(), undefined);
  });

  it('R-19 disk without a device resumes from the index; sync and nosync count where the leg begins', () => {
    const disk = (words: string[], change: Partial<DirtyLogNeeds> = {}): DirtyLog =>
      DISK.make(needs([], { table: DISK.parse(['128', ...words]), ...change }));
    assert.equal(disk([]).keeps, 'index');
    assert.equal(disk([]).load(), undefined, 'what the index does not know is dirty');
    assert.deepEqual(disk([], { fact }).load(), fact.bits);
    for (const word of ['sync', 'nosync']) assert.deepEqual(disk([word], { fact }).load(), fact.bits);
    assert.equal(disk(['sync'], { fact, begins: true }).load(), undefined);
    assert.deepEqual(disk(['nosync'], { fact, begins: true }).load(), new Uint8Array(5));
    // Regions of another size, and a device that has grown.
    assert.deepEqual(disk([], { fact, region: 256, sectors: 70 * 128 }).load(), Uint8Array.of(1, 0, 1, 0, 0));
  });
});
