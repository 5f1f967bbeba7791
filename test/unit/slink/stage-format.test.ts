import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { firstPlace } from '../../../src/replog/format.js';
import {
  AREA_START,
  STAMP_ROOM,
  decodeStamp,
  encodeStamp,
  encodeStageBatch,
  stageBatchShape,
  stampBytes,
  type Stamp,
} from '../../../src/slink/stage-format.js';
import { History, DISK } from './support.js';

const STAMP: Stamp = {
  serial: 7,
  logId: '000102030405060708090a0b0c0d0e0f',
  group: 'default',
  nr: 1,
  base: { pos: 8192, seq: 3, chainLo: 0x9f02aa11, chainHi: 0x51c3e07d, time: 1_700_000_000_000_000, reign: 1 },
  area: 128 * 1024 * 1024,
  writtenUs: 1_700_000_001_000_000,
  inconsistent: false,
  fitting: false,
  usedBelow: 0,
  devices: [
    {
      nr: 0,
      name: 'disk0',
      size: 1073741824,
      making: false,
      coming: false,
      growing: false,
      xattr: true,
      xattrHigh: 7,
      xattrLow: 2,
      samples: [{ block: 2, digest: 'a'.repeat(32) }],
    },
    {
      nr: 9,
      name: 'ä'.repeat(40),
      size: 512,
      making: true,
      coming: false,
      growing: false,
      xattr: false,
      xattrHigh: 0,
      xattrLow: 0,
      samples: [],
    },
  ],
};

function encoded(stamp = STAMP): Buffer {
  const u8 = Buffer.alloc(STAMP_ROOM, 0xff);
  return u8.subarray(0, encodeStamp(u8, stamp));
}

describe('stage format', () => {
  it('a stamp comes back as it was written', () => {
    const u8 = encoded();
    assert.equal(u8.length, 4096);
    assert.deepEqual(decodeStamp(u8), { ok: true, value: STAMP });
  });

  it('a stamp that announces a device or its growth is of version 2, and comes back as well', () => {
    for (const flag of ['coming', 'growing'] as const) {
      const stamp = { ...STAMP, devices: STAMP.devices.map((device, i) => ({ ...device, [flag]: i === 1 })) };
      const u8 = encoded(stamp);
      assert.equal(u8.readUInt32LE(20), 2);
      assert.deepEqual(decodeStamp(u8), { ok: true, value: stamp });
    }
  });

  it('! a stamp that is inconsistent is of version 3, so that an older reptool refuses it; what left is in any', () => {
    for (const fitting of [false, true]) {
      const stamp = { ...STAMP, inconsistent: true, fitting, usedBelow: 12 };
      const u8 = encoded(stamp);
      assert.deepEqual([u8.readUInt32LE(20), u8.readUInt32LE(176), u8.readUInt32LE(180)], [3, fitting ? 3 : 1, 12]);
      assert.deepEqual(decodeStamp(u8), { ok: true, value: stamp });
    }
    const left = { ...STAMP, usedBelow: 12 };
    assert.equal(encoded(left).readUInt32LE(20), 1);
    assert.deepEqual(decodeStamp(encoded(left)), { ok: true, value: left });
  });

  it('has the fields where the drawing says', () => {
    const u8 = encoded();
    assert.equal(u8.toString('latin1', 0, 13), 'reptool stage');
    assert.equal(u8.readUInt32LE(20), 1);
    assert.equal(u8.readBigUInt64LE(24), 7n);
    assert.equal(u8.toString('hex', 32, 48), STAMP.logId);
    assert.deepEqual(
      [u8.readUInt32LE(48), u8.readUInt32LE(52), u8.readUInt32LE(56), u8.readUInt32LE(60)],
      [1, 2, 4096, 1],
    );
    assert.deepEqual([u8.readBigUInt64LE(64), u8.readBigUInt64LE(72)], [8192n, 3n]);
    assert.equal(u8.toString('hex', 80, 88), '11aa029f7de0c351');
    assert.equal(u8.readBigUInt64LE(96), 134217728n);
    assert.equal(u8.toString('latin1', 112, 119), 'default');
    assert.equal(u8.toString('latin1', 256 + 224, 256 + 229), 'disk0');
    assert.deepEqual([u8.readUInt16LE(260), u8[262], u8[263]], [5, 1, 2]);
    assert.equal(u8.readUInt32LE(256 + 224 + 32), 9);
  });

  it('every flipped bit is noticed', () => {
    const u8 = encoded();
    for (let i = 0; i < u8.length; i += 13) {
      u8[i]! ^= 0x10;
      assert.equal(decodeStamp(u8).ok, false, `byte ${i}`);
      u8[i]! ^= 0x10;
    }
    assert.equal(decodeStamp(u8).ok, true);
  });

  it('zeroes, and a stamp that is cut short, are none', () => {
    assert.deepEqual(decodeStamp(Buffer.alloc(4096)), { ok: false, reason: 'foreign' });
    const many = { ...STAMP, devices: Array.from({ length: 100 }, (_, nr) => ({ ...STAMP.devices[0]!, nr })) };
    assert.ok(stampBytes(many) > 4096);
    assert.deepEqual(decodeStamp(encoded(many).subarray(0, 4096)), { ok: false, reason: 'damaged' });
    assert.deepEqual(decodeStamp(encoded(many)), { ok: true, value: many });
  });

  it('thousands of devices fit, too many are refused', () => {
    const of = (n: number): Stamp => ({
      ...STAMP,
      devices: Array.from({ length: n }, (_, nr) => ({ ...STAMP.devices[0]!, nr })),
    });
    assert.equal(decodeStamp(encoded(of(3600))).ok, true);
    assert.throws(() => encoded(of(5000)), /too large/);
    assert.ok(AREA_START >= 2 * STAMP_ROOM);
  });

  it('a batch header says its sizes, and is refused where they contradict each other', () => {
    const batch = new History([DISK]).begin().fill(0, 1536).tag('x').end();
    const { u8, dv } = batch.mem;
    assert.equal(encodeStageBatch(u8, dv, batch.records, batch.bytes, batch.endPos, batch.before, 7), 4096);
    assert.equal(u8.toString('latin1', 4, 8), 'RPSB');
    assert.deepEqual(
      [dv.getUint32(12, true), dv.getUint32(16, true), dv.getUint32(20, true), dv.getUint32(24, true)],
      [2, 4096, 2048, 8192],
    );
    assert.equal(stageBatchShape(dv, 8192), true);
    assert.equal(stageBatchShape(dv, 8191), false);
    for (const at of [4, 8, 12, 16, 20, 24]) {
      const byte = dv.getUint8(at + 1);
      dv.setUint8(at + 1, byte ^ 0x7f);
      assert.equal(stageBatchShape(dv, 8192), false, `field ${at}`);
      dv.setUint8(at + 1, byte);
    }
  });
});

/** The example of the manual, made by the code. */
describe('reptool-site(5)', () => {
  /** `address  bytes` as hexdump prints them; addresses are those in the stage. */
  function dump(u8: Buffer, from: number, to: number, address: number): string[] {
    const lines: string[] = [];
    for (let at = from; at < to; at += 16) {
      const hex = [...u8.subarray(at, at + 16)].map((byte) => byte.toString(16).padStart(2, '0'));
      const where = (address + at).toString(16).padStart(8, '0');
      lines.push(`${where}  ${hex.slice(0, 8).join(' ')}  ${hex.slice(8).join(' ')}`);
    }
    return lines;
  }

  it('shows what the code writes', () => {
    const logId = '0123456789abcdeffedcba9876543210';
    const history = new History([DISK], { ...firstPlace(logId), reign: 0 });
    const stamp: Stamp = {
      ...STAMP,
      serial: 2,
      logId,
      base: { ...history.cursor },
      devices: [{ ...STAMP.devices[0]!, size: DISK.size, xattrHigh: 2, xattrLow: 0, samples: [] }],
    };
    const stampBlock = encoded(stamp);
    const batch = history.begin().write(4096, Buffer.alloc(512, 0x41)).tag('noon').end();
    batch.endPos = 8192;
    const { u8, dv } = batch.mem;
    encodeStageBatch(u8, dv, batch.records, batch.bytes, batch.endPos, batch.before, stamp.serial);
    const lines = [
      ...dump(stampBlock, 0, 0x80, 0x100000),
      ...dump(stampBlock, 0x100, 0x120, 0x100000),
      ...dump(stampBlock, 0x1e0, 0x1f0, 0x100000),
      ...dump(u8, 0, 0xc0, AREA_START),
      ...dump(u8.subarray(batch.payloadAt), 0, 16, AREA_START + 4096),
      ...dump(u8.subarray(batch.payloadAt), 0x200, 0x210, AREA_START + 4096),
    ];
    if (process.env['PRINT_EXAMPLE'] !== undefined) console.log(lines.join('\n'));
    let top = import.meta.dirname;
    while (!existsSync(join(top, 'man', 'reptool-site.5'))) top = dirname(top);
    const manual = readFileSync(join(top, 'man', 'reptool-site.5'), 'utf8');
    assert.deepEqual(
      lines.filter((line) => !manual.includes(line)),
      [],
    );
  });
});
