import assert from 'node:assert/strict';
import { crc32 } from '../../../src/base/codec.js';
import {
  ALIGN,
  BATCH_HEADER,
  Chain,
  DATA_START,
  MAX_BATCH_RECORDS,
  RECORD_HEADER,
  batchHeaderBytes,
  decodeSuperblock,
  encodeSuperblock,
  firstPlace,
  maxPayloadFor,
  payloadSpace,
  recordSum,
  segmentSizeFor,
  worstLogBytes,
  type Superblock,
} from '../../../src/replog/format.js';
import { shortCrc } from '../../../src/replog/headersum.js';

const SUPER: Superblock = {
  serial: 7,
  logId: '01'.repeat(16),
  indexId: '02'.repeat(16),
  indexGeneration: 2 ** 40,
  size: 4 << 20,
  ring: 3_670_016,
  base: 0,
  oldest: 0,
  segment: 524_288,
  clean: true,
  writtenUs: 1_700_000_000_123_456,
  reign: 4,
  reignId: '03'.repeat(16),
  checkpoint: { pos: 2 ** 45, seq: 2 ** 41, chainLo: 0xfffffffe, chainHi: 3, time: 9 },
  head: { pos: 4096, seq: 5 },
  durable: { pos: 2 ** 45 + 4096, seq: 2 ** 41 + 1 },
  group: 'größe',
};

describe('shortCrc', () => {
  it('gives what zlib gives, for every length', () => {
    const bytes = Uint8Array.from({ length: 80 }, (_, i) => (i * 167 + 13) & 255);
    for (let at = 0; at < 9; at++)
      for (let end = at; end <= 80; end++) assert.equal(shortCrc(bytes, at, end), crc32(bytes.subarray(at, end)));
  });

  it('recordSum covers header bytes 4 to 55 and the payload, nothing else', () => {
    const header = Buffer.alloc(64, 7);
    const payload = Buffer.from('payload');
    const sum = recordSum(header, 0, payload);
    for (let i = 0; i < 64; i++) {
      const changed = Buffer.from(header);
      changed[i]! ^= 1;
      assert.equal(recordSum(changed, 0, payload) === sum, i < 4 || i >= 56, `byte ${i}`);
    }
    assert.notEqual(recordSum(header, 0, Buffer.from('payloae')), sum);
    assert.equal(recordSum(header, 0, undefined), recordSum(header, 0, new Uint8Array(0)));
  });
});

describe('superblock', () => {
  const block = Buffer.alloc(4096);
  beforeEach(() => encodeSuperblock(block, SUPER));

  it('survives a round trip with large numbers', () => {
    assert.deepEqual(decodeSuperblock(block), { ok: true, value: SUPER });
  });

  it('is refused whatever byte is changed', () => {
    for (let at = 16; at < 4096; at += at < 300 ? 1 : 97) {
      const changed = Buffer.from(block);
      changed[at]! ^= 0x10;
      assert.deepEqual(decodeSuperblock(changed), { ok: false, reason: 'damaged' }, `byte ${at}`);
    }
    block[3]! ^= 1;
    assert.deepEqual(decodeSuperblock(block), { ok: false, reason: 'foreign' });
    assert.deepEqual(decodeSuperblock(Buffer.alloc(4096)), { ok: false, reason: 'foreign' });
  });

  it('refuses a group name that does not fit', () => {
    assert.throws(() => encodeSuperblock(block, { ...SUPER, group: 'x'.repeat(65) }), RangeError);
  });
});

describe('Chain', () => {
  it('mix is a bijection of what came before', () => {
    const seen = new Set<string>();
    for (let i = 0; i < 20_000; i++) {
      const chain = new Chain().set(i * 2_654_435_761, i >> 3);
      chain.mix(123, 456);
      seen.add(chain.toString());
    }
    assert.equal(seen.size, 20_000);
  });

  it('of a new log comes from its identity', () => {
    assert.notDeepEqual(firstPlace('00'.repeat(16)), firstPlace(`01${'00'.repeat(15)}`));
    assert.deepEqual(firstPlace('00'.repeat(16)), { pos: 0, seq: 1, chainLo: 0, chainHi: 0, time: 0 });
  });
});

describe('sizes', () => {
  it('relate as everything else assumes', () => {
    assert.equal(DATA_START % ALIGN, 0);
    assert.ok(BATCH_HEADER + MAX_BATCH_RECORDS * RECORD_HEADER <= 65_536);
    for (let size = 4 << 20; size < 2 ** 36; size *= 1.7) {
      const segment = segmentSizeFor(size - DATA_START);
      assert.ok((size - DATA_START) / segment >= 7);
      // A record always fits into an empty segment, and two of them leave waste for admission to bound.
      assert.ok(worstLogBytes(maxPayloadFor(segment)) < segment);
    }
  });

  for (let count = 1; count < 200; count += 7)
    it(`a batch of ${count} takes no more than its records alone`, () => {
      assert.ok(batchHeaderBytes(count) <= count * ALIGN);
      assert.equal(batchHeaderBytes(count) % ALIGN, 0);
    });

  it('payloadSpace pads to sectors', () => {
    assert.deepEqual([0, 1, 511, 512, 513].map(payloadSpace), [0, 512, 512, 512, 1024]);
  });
});
