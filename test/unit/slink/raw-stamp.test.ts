import assert from 'node:assert/strict';
import { join } from 'node:path';
import { realIo } from '../../../src/base/io.js';
import { crc32 } from '../../../src/base/codec.js';
import { MIB } from '../../../src/base/units.js';
import { RAW_SLOT, RawStampFile, decodeRawStamp, encodeRawStamp, type RawStamp } from '../../../src/slink/raw-stamp.js';
import { LOG_ID, cleanUp, scratch } from '../replog/rig.js';
import { FaultIo, put } from './support.js';

const STAMP: RawStamp = {
  serial: 7,
  logId: LOG_ID,
  group: 'default',
  nr: 3,
  cursor: { pos: 8192, seq: 40, chainLo: 1, chainHi: 0xffffffff, time: 1_700_000_000_000_000, reign: 2 },
  open: true,
  inconsistent: false,
  settled: false,
  usedBelow: 0,
  writtenUs: 1_700_000_000_000_001,
  devices: [
    {
      nr: 5,
      name: 'dätabase',
      size: 1 << 30,
      target: '/dev/disk/by-id/x',
      making: true,
      blank: 4 * MIB,
      samples: [{ block: 9, digest: '0123456789abcdef0123456789abcdef' }],
    },
    { nr: 6, name: 'b', size: 512, target: '[::1]:10809/b', making: false, blank: 0, samples: [] },
  ],
};

describe('raw stamp', () => {
  afterEach(cleanUp);
  const file = (io = realIo): RawStampFile => new RawStampFile(io, join(dir, 'site3.stamp'));
  let dir: string;
  beforeEach(() => void (dir = scratch()));

  it('decodeRawStamp reads what encodeRawStamp wrote', () => {
    const raw = Buffer.alloc(RAW_SLOT);
    const bytes = encodeRawStamp(raw, STAMP);
    assert.equal(bytes, 4096);
    assert.deepEqual(decodeRawStamp(raw.subarray(0, bytes)), { ok: true, value: STAMP });
  });

  it('encodeRawStamp lays the bytes out as drawn', () => {
    const raw = Buffer.alloc(RAW_SLOT);
    encodeRawStamp(raw, STAMP);
    assert.equal(raw.toString('latin1', 0, 16), 'reptool rawsite\0');
    assert.equal(raw.readUInt32LE(20), 1);
    assert.equal(raw.readBigUInt64LE(24), 7n);
    assert.equal(raw.toString('hex', 32, 48), LOG_ID);
    assert.deepEqual(
      [raw.readUInt32LE(48), raw.readUInt32LE(52), raw.readUInt32LE(56), raw.readUInt32LE(60)],
      [3, 2, 4096, 2],
    );
    assert.equal(raw.readBigUInt64LE(72), 40n);
    assert.equal(raw.readUInt32LE(96), 1);
    assert.equal(raw.toString('utf8', 112, 119), 'default');
    assert.equal(raw.readUInt32LE(256), 5);
    assert.equal(raw.readUInt8(256 + 7), 1);
    assert.equal(raw.readBigUInt64LE(256 + 16), BigInt(4 * MIB));
    assert.equal(raw.readBigUInt64LE(256 + 32), 9n);
    assert.equal(raw.toString('utf8', 256 + 224, 256 + 224 + 9), 'dätabase');
    assert.equal(raw.toString('utf8', 256 + 233, 256 + 233 + 17), '/dev/disk/by-id/x');
    assert.equal(raw.readUInt32LE(256 + 256), 6);
  });

  it('! a stamp that is inconsistent is of version 2, so that an older reptool refuses it; the rest is in any', () => {
    const raw = Buffer.alloc(RAW_SLOT);
    for (const [change, version, flags] of [
      [{ inconsistent: true, usedBelow: 9 }, 2, 3],
      [{ settled: true, usedBelow: 9 }, 1, 5],
    ] as const) {
      const stamp = { ...STAMP, ...change };
      const bytes = encodeRawStamp(raw, stamp);
      assert.deepEqual([raw.readUInt32LE(20), raw.readUInt32LE(96), raw.readUInt32LE(100)], [version, flags, 9]);
      assert.deepEqual(decodeRawStamp(raw.subarray(0, bytes)), { ok: true, value: stamp });
    }
  });

  const bad: { name: string; at: number; reason: string }[] = [
    { name: 'a foreign file', at: 0, reason: 'foreign' },
    { name: 'a flipped bit', at: 300, reason: 'damaged' },
    { name: 'a length that cannot be', at: 58, reason: 'damaged' },
  ];
  for (const { name, at, reason } of bad)
    it(`decodeRawStamp refuses ${name}`, () => {
      const raw = Buffer.alloc(8192);
      encodeRawStamp(raw, STAMP);
      raw[at]! ^= 0x40;
      assert.deepEqual(decodeRawStamp(raw), { ok: false, reason });
    });

  it('RawStampFile gives the newest, and the one before where that is torn', () => {
    const f = file();
    assert.equal(f.load(), 'none');
    assert.equal(f.create(), 0);
    const stamp = structuredClone(STAMP);
    for (let i = 0; i < 3; i++) assert.equal(f.write(stamp), 0);
    assert.equal(stamp.serial, 10);
    f.close();
    assert.deepEqual(file().load(), { ...STAMP, serial: 10 });
    // Serials 8, 9, 10 went to slots 0, 1, 0.
    put(join(dir, 'site3.stamp'), 100, Buffer.from([9]));
    assert.deepEqual(file().load(), { ...STAMP, serial: 9 });
  });

  it('RawStampFile.create forgets what was there', () => {
    const f = file();
    f.create();
    f.write(structuredClone({ ...STAMP, serial: 100 }));
    assert.equal(f.create(), 0);
    f.write(structuredClone({ ...STAMP, serial: 0 }));
    f.close();
    assert.deepEqual(file().load(), { ...STAMP, serial: 1 });
  });

  it('! RawStampFile writes over the same slot again after a failed sync', () => {
    const faults = new FaultIo();
    const f = file(faults.io);
    f.create();
    const stamp = structuredClone(STAMP);
    f.write(stamp);
    faults.rule = (call) => (call === 'STAMP:SYNC' ? { errno: 5 } : undefined);
    assert.equal(f.write(stamp), -5);
    assert.equal(stamp.serial, 8);
    faults.rule = undefined;
    stamp.open = false;
    assert.equal(f.write(stamp), 0);
    put(join(dir, 'site3.stamp'), RAW_SLOT + 100, Buffer.from([9]));
    assert.deepEqual(file().load(), { ...STAMP, serial: 8 }, 'the good slot was written over');
  });

  it('a stamp of a newer version is not passed over', () => {
    const f = file();
    f.create();
    f.write(structuredClone(STAMP));
    f.close();
    const raw = Buffer.alloc(4096);
    encodeRawStamp(raw, STAMP);
    raw.writeUInt32LE(3, 20);
    raw.writeUInt32LE(0, 16);
    raw.writeUInt32LE(crc32(raw), 16);
    put(join(dir, 'site3.stamp'), RAW_SLOT, raw);
    assert.equal(file().load(), 'version');
  });
});
