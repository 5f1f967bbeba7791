/**
 * The replog on disk, versions 1 and 2. All integers little-endian; see reptool-replog(5) for a worked example.
 *
 *   byte 0        superblock A        4096
 *   byte 4096     superblock B        4096   written in turn; the valid one with the larger serial counts
 *   byte 65536    segment 0           segment size each; together they are the ring
 *                 segment 1 …
 *
 * A log position P counts bytes since the log was made and only grows; it stands at file byte
 * 65536 + (P - base) mod ring. The base is a multiple of the segment size: 0 until the log is resized, then a place from
 * which on everything that was live stood at the same byte before and behind (resize.ts). The ring is filled with batches, each within one segment:
 *
 *   +----------------+----------------+----------------+---------+-----------------------------+--------+
 *   | batch header   | record 1       | record 2       | zeroes  | payload 1, payload 2, …     | zeroes |
 *   | 64             | 64             | 64             | to 4096 | each padded to 512          | to 4096|
 *   +----------------+----------------+----------------+---------+-----------------------------+--------+
 *
 * batch header                                   record header
 *    0  4  crc of bytes 4 … header bytes           0  4  sum: crc of bytes 4 … 55, then of the payload
 *    4  4  magic "RPBT"                            4  2  magic "Rr"
 *    8  2  version                                 6  1  type
 *   10  2  flags (1 = padding, no records)         7  1  flags (0)
 *   12  4  records                                 8  8  seq
 *   16  4  header bytes, multiple of 4096         16  8  time, microseconds since 1970, never decreasing
 *   20  4  payload bytes, multiple of 512         24  8  offset on the device, bytes
 *   24  4  batch bytes, multiple of 4096          32  8  length on the device, bytes
 *   28  4  zero                                   40  4  device number
 *   32  8  position P of this batch               44  4  reign
 *   40  8  seq of the first record                48  4  payload bytes (exact; padded to 512 in the log)
 *   48  8  chain before the first record          52  4  zero
 *   56  8  position known durable when written    56  8  chain after this record
 *
 * Zero is never valid: every header carries a magic. A batch is accepted only at the position it names, with
 * the expected seq and chain, so neither a batch of an earlier lap nor one left behind a torn tail is taken
 * for the present history.
 *
 * What is assumed of the disk: a sector (512 bytes) is written whole or not at all; what was written before
 * a successful fdatasync survives; anything later may be lost in any subset of sectors.
 */
import { crc32, getText, getU64, setText, setU64 } from '../base/codec.js';
import type { LogPos } from '../base/units.js';
import { shortCrc } from './headersum.js';

/** Version of batches, and of superblocks that say nothing an older program would not know. */
export const FORMAT_VERSION = 1;
/** Superblocks of a log that was resized: with a base, or with segments of another size than its own size asks for. */
export const RESIZED_VERSION = 2;

/** Alignment of batches and headers in the log. */
export const ALIGN = 4096;
/** Where the ring starts in the log's file. */
export const DATA_START = 65536;

export const BATCH_HEADER = 64;
export const RECORD_HEADER = 64;

// --- record header ---------------------------------------------------------------------------------------

export const R_SUM = 0;
export const R_MAGIC = 4;
export const R_TYPE = 6;
export const R_FLAGS = 7;
export const R_SEQ = 8;
export const R_TIME = 16;
export const R_OFFSET = 24;
export const R_LENGTH = 32;
export const R_DEVICE = 40;
export const R_REIGN = 44;
export const R_BYTES = 48;
export const R_ZERO = 52;
export const R_CHAIN = 56;

export const RECORD_MAGIC = 0x7252;

/**
 * Record types. Payloads: WRITE the data; TAG and SNAPSHOT a UTF-8 name; DEVICE_ADD `{"name","size"}` and
 * DEVICE_RESIZE `{"size"}` as JSON; REIGN 16 random bytes (its identity); the others none. DISCARD, ZEROES
 * and WRITE cover `length` bytes at `offset`; UNIT_BEGIN and UNIT_END bracket what sites must show whole.
 */
export const REC = {
  WRITE: 1,
  DISCARD: 2,
  ZEROES: 3,
  FLUSH: 4,
  TAG: 5,
  SNAPSHOT: 6,
  DEVICE_ADD: 7,
  DEVICE_REMOVE: 8,
  DEVICE_RESIZE: 9,
  REIGN: 10,
  UNIT_BEGIN: 11,
  UNIT_END: 12,
} as const;
export type RecordType = (typeof REC)[keyof typeof REC];

export const REC_NAME: readonly string[] = [
  'invalid',
  'write',
  'discard',
  'write-zeroes',
  'flush',
  'tag',
  'snapshot',
  'device-add',
  'device-remove',
  'device-resize',
  'reign',
  'unit-begin',
  'unit-end',
];

/** Payload bytes as they stand in the window and in the log. */
export function payloadSpace(bytes: number): number {
  return (bytes + 511) & ~511;
}

/** Checksum of the record header at `at` (bytes 4…55) and of its payload. */
export function recordSum(u8: Uint8Array, at: number, payload: Uint8Array | undefined): number {
  const header = shortCrc(u8, at + 4, at + 56);
  return payload === undefined ? header : crc32(payload, header);
}

/**
 * The chain: 64 bits in two lanes, a bijection of the previous chain for each (sum, seq), so that nothing that
 * distinguished two histories is ever forgotten. A reign mixes in its random identity as well.
 */
export class Chain {
  lo = 0;
  hi = 0;

  set(lo: number, hi: number): this {
    this.lo = lo >>> 0;
    this.hi = hi >>> 0;
    return this;
  }

  load(view: DataView, at: number): this {
    return this.set(view.getUint32(at, true), view.getUint32(at + 4, true));
  }

  store(view: DataView, at: number): void {
    view.setUint32(at, this.lo, true);
    view.setUint32(at + 4, this.hi, true);
  }

  equals(view: DataView, at: number): boolean {
    return view.getUint32(at, true) === this.lo && view.getUint32(at + 4, true) === this.hi;
  }

  mix(a: number, b: number): void {
    let h = Math.imul(this.lo ^ a, 0x85ebca6b);
    h ^= h >>> 13;
    h = Math.imul((h + this.hi) | 0, 0xc2b2ae35);
    h ^= h >>> 16;
    let g = Math.imul(this.hi ^ h ^ b, 0x27d4eb2f);
    g ^= g >>> 15;
    g = Math.imul(g, 0x165667b1);
    g ^= g >>> 13;
    this.lo = h >>> 0;
    this.hi = g >>> 0;
  }

  /** 16 hexadecimal digits, high lane first. */
  toString(): string {
    return this.hi.toString(16).padStart(8, '0') + this.lo.toString(16).padStart(8, '0');
  }
}

/**
 * Moves `chain` over the record whose header stands at `at`; its sum must be in place. `payloadAt` is where
 * the payload of a REIGN stands in the same view.
 */
export function advanceChain(chain: Chain, view: DataView, at: number, payloadAt: number): void {
  chain.mix(view.getUint32(at + R_SUM, true), view.getUint32(at + R_SEQ, true));
  if (view.getUint8(at + R_TYPE) === REC.REIGN)
    chain.mix(view.getUint32(payloadAt, true), view.getUint32(payloadAt + 4, true));
}

// --- batch header ----------------------------------------------------------------------------------------

export const B_CRC = 0;
export const B_MAGIC = 4;
export const B_VERSION = 8;
export const B_FLAGS = 10;
export const B_COUNT = 12;
export const B_HEADER = 16;
export const B_PAYLOAD = 20;
export const B_TOTAL = 24;
export const B_ZERO = 28;
export const B_POS = 32;
export const B_SEQ = 40;
export const B_CHAIN = 48;
export const B_DURABLE = 56;

export const BATCH_MAGIC = 0x54425052;
export const BATCH_PAD = 1;

/** Most bytes and records of one batch: what a reader must be able to hold. */
export const MAX_BATCH = 4 * 1024 * 1024;
export const MAX_BATCH_RECORDS = 1000;

/** Bytes of the header part of a batch of `count` records. */
export function batchHeaderBytes(count: number): number {
  return (BATCH_HEADER + count * RECORD_HEADER + ALIGN - 1) & ~(ALIGN - 1);
}

/** Most bytes that one record can take in the log, alone in a batch. */
export function worstLogBytes(payload: number): number {
  return ALIGN + ((payload + ALIGN - 1) & ~(ALIGN - 1));
}

// --- superblock ------------------------------------------------------------------------------------------

/**
 *    0 16  magic "reptool replog"              104  4  reign
 *   16  4  crc of all 4096 bytes, field zero   108  4  zero
 *   20  4  version, 1 or 2                     112 16  identity of the reign
 *   24  8  serial                              128  8  checkpoint: position
 *   32 16  identity of the log (its group)     136  8  checkpoint: next seq
 *   48 16  identity of its LMDB environment    144  8  checkpoint: chain
 *   64  8  last index generation (commit)      152  8  checkpoint: time of the last record before it
 *   72  8  bytes of file or device used        160  8  head: position (oldest byte any link needs)
 *   80  8  ring bytes                          168  8  head: next seq
 *   88  4  segment bytes                       176  8  durable: position (all before it is known durable)
 *   92  4  state (1 open, 2 closed cleanly)    184  8  durable: next seq
 *   96  8  written at, microseconds            192 64  group name
 *                                             256  8  base: position that stands at byte 65536 (version 1: zero)
 *                                             264  8  oldest: what was before was written over (version 1: zero)
 */
export const SUPER_SIZE = 4096;
export const SUPER_MAGIC = 'reptool replog';
export const SUPER_OPEN = 1;
export const SUPER_CLEAN = 2;

/** A place in the log: everything before `pos` is records with numbers below `seq`, ending in `chain`. */
export interface LogPlace {
  pos: number;
  seq: number;
  chainLo: number;
  chainHi: number;
  /** Time of the last record before it, microseconds. */
  time: number;
}

/**
 * Where a log begins. Its chain starts as half of the log's identity, so that no batch of another log that
 * stood in the same file before is ever taken for one of this.
 */
export function firstPlace(logId: string): LogPlace {
  const id = Buffer.from(logId, 'hex');
  return { pos: 0, seq: 1, chainLo: id.readUInt32LE(0), chainHi: id.readUInt32LE(4), time: 0 };
}

export interface Superblock {
  serial: number;
  /** 32 hexadecimal digits. */
  logId: string;
  indexId: string;
  indexGeneration: number;
  size: number;
  /** Positions stand at DATA_START + (position - base) mod ring. */
  ring: number;
  base: LogPos;
  /** Positions before were written over, whatever the ring says. */
  oldest: LogPos;
  segment: number;
  clean: boolean;
  writtenUs: number;
  reign: number;
  reignId: string;
  checkpoint: LogPlace;
  head: { pos: number; seq: number };
  durable: { pos: number; seq: number };
  group: string;
}

/** True where a program that knows version 1 only finds everything where it looks for it. */
function isPlain({ base, oldest, size, segment }: Superblock): boolean {
  return base === 0 && oldest === 0 && segment === segmentSizeFor(size - DATA_START);
}

export function encodeSuperblock(u8: Buffer, s: Superblock): void {
  const dv = new DataView(u8.buffer, u8.byteOffset, SUPER_SIZE);
  u8.fill(0, 0, SUPER_SIZE);
  setText(u8, 0, 16, SUPER_MAGIC);
  dv.setUint32(20, isPlain(s) ? FORMAT_VERSION : RESIZED_VERSION, true);
  setU64(dv, 24, s.serial);
  u8.write(s.logId, 32, 'hex');
  u8.write(s.indexId, 48, 'hex');
  setU64(dv, 64, s.indexGeneration);
  setU64(dv, 72, s.size);
  setU64(dv, 80, s.ring);
  dv.setUint32(88, s.segment, true);
  dv.setUint32(92, s.clean ? SUPER_CLEAN : SUPER_OPEN, true);
  setU64(dv, 96, s.writtenUs);
  dv.setUint32(104, s.reign, true);
  u8.write(s.reignId, 112, 'hex');
  setU64(dv, 128, s.checkpoint.pos);
  setU64(dv, 136, s.checkpoint.seq);
  dv.setUint32(144, s.checkpoint.chainLo, true);
  dv.setUint32(148, s.checkpoint.chainHi, true);
  setU64(dv, 152, s.checkpoint.time);
  setU64(dv, 160, s.head.pos);
  setU64(dv, 168, s.head.seq);
  setU64(dv, 176, s.durable.pos);
  setU64(dv, 184, s.durable.seq);
  setText(u8, 192, 64, s.group);
  setU64(dv, 256, s.base);
  setU64(dv, 264, s.oldest);
  dv.setUint32(16, crc32(u8.subarray(0, SUPER_SIZE)), true);
}

export type SuperblockRead =
  { ok: true; value: Superblock } | { ok: false; reason: 'foreign' | 'damaged' | 'version'; version?: number };

export function decodeSuperblock(raw: Buffer): SuperblockRead {
  const u8 = Buffer.from(raw.subarray(0, SUPER_SIZE));
  const dv = new DataView(u8.buffer, u8.byteOffset, SUPER_SIZE);
  if (getText(u8, 0, 16) !== SUPER_MAGIC) return { ok: false, reason: 'foreign' };
  const crc = dv.getUint32(16, true);
  dv.setUint32(16, 0, true);
  if (crc32(u8) !== crc) return { ok: false, reason: 'damaged' };
  const version = dv.getUint32(20, true);
  if (version !== FORMAT_VERSION && version !== RESIZED_VERSION) return { ok: false, reason: 'version', version };
  return {
    ok: true,
    value: {
      serial: getU64(dv, 24),
      logId: u8.toString('hex', 32, 48),
      indexId: u8.toString('hex', 48, 64),
      indexGeneration: getU64(dv, 64),
      size: getU64(dv, 72),
      ring: getU64(dv, 80),
      segment: dv.getUint32(88, true),
      clean: dv.getUint32(92, true) === SUPER_CLEAN,
      writtenUs: getU64(dv, 96),
      reign: dv.getUint32(104, true),
      reignId: u8.toString('hex', 112, 128),
      checkpoint: {
        pos: getU64(dv, 128),
        seq: getU64(dv, 136),
        chainLo: dv.getUint32(144, true),
        chainHi: dv.getUint32(148, true),
        time: getU64(dv, 152),
      },
      head: { pos: getU64(dv, 160), seq: getU64(dv, 168) },
      durable: { pos: getU64(dv, 176), seq: getU64(dv, 184) },
      base: version === FORMAT_VERSION ? 0 : getU64(dv, 256),
      oldest: version === FORMAT_VERSION ? 0 : getU64(dv, 264),
      group: getText(u8, 192, 64),
    },
  };
}

/** Segment size for a ring area of `bytes`: a power of two, so that there are at least seven of them. */
export function segmentSizeFor(bytes: number): number {
  let size = 512 * 1024;
  while (size < 16 * 1024 * 1024 && bytes / (size * 2) >= 32) size *= 2;
  return size;
}

/** Largest payload of one record: half a segment less its header, at most 1 MiB. Sets FUSE's max_write. */
export function maxPayloadFor(segment: number): number {
  return Math.min(1024 * 1024, segment / 2);
}
