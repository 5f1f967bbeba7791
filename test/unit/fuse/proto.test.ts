import assert from 'node:assert/strict';
import { getU64 } from '../../../src/base/codec.js';
import * as P from '../../../src/fuse/proto.js';

/** 1 KiB of 0xAA, so that a field that is not written is seen. */
function page(): { view: DataView; bytes: Buffer } {
  const bytes = Buffer.alloc(1024, 0xaa);
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

const attr: P.Attr = {
  ino: 0x1_0000_0002,
  size: 0x3_0000_0004,
  blocks: 5,
  mode: 0o100600,
  nlink: 1,
  uid: 6,
  gid: 7,
  blksize: 4096,
  atimeMs: 1_700_000_000_250,
  mtimeMs: 1_700_000_001_500,
  ctimeMs: 1_700_000_002_000.125,
};

/** By hand from struct fuse_attr. */
const attrBytes = [
  '0200000001000000' + '0400000003000000' + '0500000000000000',
  '00f1536500000000' + '01f1536500000000' + '02f1536500000000',
  '80b2e60e' + '0065cd1d' + '48e80100',
  '80810000' + '01000000' + '06000000' + '07000000' + '00000000' + '00100000' + '00000000',
].join('');

describe('fuse/proto', () => {
  const cases: { name: string; put: (view: DataView, bytes: Buffer) => number; hex: string }[] = [
    {
      name: 'putHeader writes a refusal with the unique as it came, bit 63 too',
      put: (v) => P.putHeader(v, 0, 16, -5, 0x11223344, 0x80000001),
      hex: '10000000' + 'fbffffff' + '44332211' + '01000080',
    },
    { name: 'putAttr writes struct fuse_attr', put: (v) => (P.putAttr(v, 0, attr), P.ATTR_BYTES), hex: attrBytes },
    {
      name: 'putEntry writes node, times and attributes',
      put: (v) => P.putEntry(v, 0, 9, 1500, attr),
      hex: '0900000000000000' + '0000000000000000' + '0100000000000000'.repeat(2) + '0065cd1d'.repeat(2) + attrBytes,
    },
    {
      name: 'putNoEntry writes node 0 and nothing else',
      put: (v) => P.putNoEntry(v, 0, 2000),
      hex: '00'.repeat(16) + '0200000000000000'.repeat(2) + '00'.repeat(96),
    },
    {
      name: 'putAttrOut writes time and attributes',
      put: (v) => P.putAttrOut(v, 0, 250, attr),
      hex: '0000000000000000' + '80b2e60e' + '00000000' + attrBytes,
    },
    {
      name: 'putOpen writes handle and flags',
      put: (v) => P.putOpen(v, 0, 0x1_0000_0007, P.FOPEN.DIRECT_IO | P.FOPEN.PARALLEL_DIRECT_WRITES),
      hex: '0700000001000000' + '41000000' + '00000000',
    },
    { name: 'putWriteOut writes the size', put: (v) => P.putWriteOut(v, 0, 4096), hex: '0010000000000000' },
    { name: 'putLseekOut writes the offset', put: (v) => P.putLseekOut(v, 0, 2 ** 33), hex: '0000000002000000' },
    { name: 'putPollOut writes revents', put: (v) => P.putPollOut(v, 0, 5), hex: '0500000000000000' },
    {
      name: 'putStatfs writes struct fuse_kstatfs',
      put: (v) => P.putStatfs(v, 0, 4096, 100, 40, 3),
      hex:
        '6400000000000000' +
        '2800000000000000'.repeat(2) +
        '0300000000000000' +
        '00'.repeat(8) +
        '00100000' +
        'ff000000' +
        '00100000' +
        '00'.repeat(28),
    },
    {
      name: 'putResend writes 16, +7, 0',
      put: (v) => P.putResend(v, 0),
      hex: '10000000' + '07000000' + '00'.repeat(8),
    },
    {
      name: 'putInvalInode asks for attributes only',
      put: (v) => P.putInvalInode(v, 0, 3, false),
      hex: '28000000' + '02000000' + '00'.repeat(8) + '0300000000000000' + 'ff'.repeat(8) + '00'.repeat(8),
    },
    {
      name: 'putInvalInode drops pages where it is asked to',
      put: (v) => P.putInvalInode(v, 0, 3, true),
      hex: '28000000' + '02000000' + '00'.repeat(8) + '0300000000000000' + '00'.repeat(16),
    },
    {
      name: 'putInvalEntry names the entry and ends it with a zero',
      put: (v, b) => P.putInvalEntry(v, b, 0, 1, Buffer.from('ab')),
      hex: '23000000' + '03000000' + '00'.repeat(8) + '0100000000000000' + '02000000' + '00000000' + '616200',
    },
    {
      name: 'putPollWakeup carries the kernel handle',
      put: (v) => P.putPollWakeup(v, 0, 12),
      hex: '18000000' + '01000000' + '00'.repeat(8) + '0c00000000000000',
    },
    {
      name: 'putDirent pads to eight',
      put: (v, b) => P.putDirent(v, b, 0, 1024, 2, 1, P.DT_REG, Buffer.from('disk0')),
      hex: '0200000000000000' + '0100000000000000' + '05000000' + '08000000' + '6469736b30' + '000000',
    },
  ];
  for (const { name, put, hex } of cases)
    it(name, () => {
      const { view, bytes } = page();
      const length = put(view, bytes);
      assert.equal(bytes.toString('hex', 0, length), hex);
      assert.equal(bytes[length], 0xaa, 'wrote past its end');
    });

  it('putDirent leaves the buffer alone when the entry does not fit', () => {
    const { view, bytes } = page();
    assert.equal(P.putDirent(view, bytes, 64, 64 + 31, 2, 1, P.DT_REG, Buffer.from('disk0')), 64);
    assert.equal(bytes[64], 0xaa);
    assert.equal(P.putDirent(view, bytes, 64, 64 + 32, 2, 1, P.DT_REG, Buffer.from('disk0')), 96);
  });

  it('fields of a WRITE are read where the kernel puts them', () => {
    const { view, bytes } = page();
    // unique 7 resent, node 2, fh 3, offset 2^32 + 4096, size 512, flags O_RDWR | O_DSYNC
    const head = '52000000' + '10000000' + '0700000000000080' + '0200000000000000' + '00'.repeat(16);
    const body = '0300000000000000' + '0010000001000000' + '00020000' + '00'.repeat(12) + '02100000' + '00000000';
    bytes.write(head + body, 'hex');
    assert.equal(view.getUint32(P.IN_OPCODE, true), P.FUSE.WRITE);
    assert.equal(getU64(view, P.IN_NODEID), 2);
    assert.equal(getU64(view, P.WRITE_FH), 3);
    assert.equal(getU64(view, P.WRITE_OFFSET), 2 ** 32 + 4096);
    assert.equal(view.getUint32(P.WRITE_SIZE, true), 512);
    assert.notEqual(view.getUint32(P.WRITE_OPEN_FLAGS, true) & P.O_DSYNC, 0);
    const hi = view.getUint32(P.IN_UNIQUE + 4, true);
    assert.equal(P.isResent(hi), true);
    assert.equal(P.firstUniqueHi(hi), 0);
    assert.equal(P.isResent(1), false);
    assert.equal(P.WRITE_DATA, (head.length + body.length) / 2);
  });

  it('requestName ends at the zero or at the end of the request', () => {
    const bytes = Buffer.alloc(64);
    bytes.write('größe\0rest', 50);
    assert.equal(P.requestName(bytes, 10, 54), 'größe');
    assert.equal(P.requestName(bytes, 10, P.IN_HEADER + 2), 'gr');
  });

  it('wantsNoReply knows the three that get none', () => {
    const silent = Object.values(P.FUSE).filter((op) => P.wantsNoReply(op));
    assert.deepEqual(silent, [P.FUSE.FORGET, P.FUSE.INTERRUPT, P.FUSE.BATCH_FORGET]);
  });
});
