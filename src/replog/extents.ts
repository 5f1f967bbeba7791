/**
 * Packed extent table of one closed segment: which device sectors its records cover, and where their data
 * stands in the log. Derived from the log and rebuilt from it when lost. Little-endian:
 *
 *    0  4  magic "RPX1"         8  4  short entries
 *    4  4  zero                12  4  long entries
 *   16 …  short entries, 20 bytes each, sorted by device, first sector, record
 *     … …  long entries, 24 bytes each, in the order of records
 *
 * short entry (at most 1 MiB)           long entry (a discard or zeroes of more)
 *    0  4  device                          0  4  device
 *    4  6  first sector                    4  6  first sector
 *   10  2  sectors, 1…2048                10  6  sectors
 *   12  4  place: payload in 512-byte     16  4  record, as in a short entry
 *          units from the segment's       20  4  kind
 *          start · 4 + kind
 *   16  4  record: seq - first seq
 *
 * kind: 0 data, 1 zeroes, 2 discard. As no short entry is longer than 1 MiB, a search need look back no
 * farther than that. Several entries may cover a sector: the one with the largest record is the newest.
 */
import { getU64 } from '../base/codec.js';
import { RepError } from '../base/errors.js';
import { SECTOR, type LogPos, type Sector, type Seq } from '../base/units.js';
import type { SegmentFact } from '../index/contract.js';
import {
  REC,
  R_DEVICE,
  R_LENGTH,
  R_OFFSET,
  R_SEQ,
  R_TIME,
  R_TYPE,
  RECORD_HEADER,
  payloadSpace,
  R_BYTES,
} from './format.js';
import type { LogFile } from './logfile.js';
import { LogReader, READ, type ReadLimit } from './reader.js';
import { SegmentFilling, type ClosedSegment } from './segments.js';

const MAGIC = 0x31585052;
const HEADER = 16;
const SHORT = 20;
const LONG = 24;
/** Sectors of the longest short entry. */
export const EXTENT_MAX = 2048;

export const EXTENT = { DATA: 0, ZEROES: 1, DISCARD: 2 } as const;
export type ExtentKind = (typeof EXTENT)[keyof typeof EXTENT];

function kindOf(type: number): ExtentKind | undefined {
  switch (type) {
    case REC.WRITE:
      return EXTENT.DATA;
    case REC.ZEROES:
      return EXTENT.ZEROES;
    case REC.DISCARD:
      return EXTENT.DISCARD;
    default:
      return undefined;
  }
}

/** Builds the table; records are whole sectors (the device layer lets nothing else through). */
export function encodeExtents(segment: ClosedSegment): Uint8Array {
  const view = new DataView(segment.headers.buffer, segment.headers.byteOffset, segment.headers.byteLength);
  const order: { record: number; device: number; first: number; sectors: number; place: number }[] = [];
  const long: { record: number; device: number; first: number; sectors: number; kind: ExtentKind }[] = [];
  for (let record = 0; record < segment.count; record++) {
    const at = record * RECORD_HEADER;
    const kind = kindOf(view.getUint8(at + R_TYPE));
    if (kind === undefined) continue;
    const device = view.getUint32(at + R_DEVICE, true);
    const first = Math.floor(getU64(view, at + R_OFFSET) / SECTOR);
    const sectors = Math.ceil(getU64(view, at + R_LENGTH) / SECTOR);
    if (sectors === 0) continue;
    if (sectors > EXTENT_MAX) {
      long.push({ record, device, first, sectors, kind });
      continue;
    }
    const units = (segment.payloads[record]! - segment.start) / SECTOR;
    order.push({ record, device, first, sectors, place: units * 4 + kind });
  }
  order.sort((a, b) => a.device - b.device || a.first - b.first || a.record - b.record);

  const out = new Uint8Array(HEADER + order.length * SHORT + long.length * LONG);
  const dv = new DataView(out.buffer);
  dv.setUint32(0, MAGIC, true);
  dv.setUint32(8, order.length, true);
  dv.setUint32(12, long.length, true);
  let at = HEADER;
  for (const e of order) {
    dv.setUint32(at, e.device, true);
    setU48(dv, at + 4, e.first);
    dv.setUint16(at + 10, e.sectors, true);
    dv.setUint32(at + 12, e.place, true);
    dv.setUint32(at + 16, e.record, true);
    at += SHORT;
  }
  for (const e of long) {
    dv.setUint32(at, e.device, true);
    setU48(dv, at + 4, e.first);
    setU48(dv, at + 10, e.sectors);
    dv.setUint32(at + 16, e.record, true);
    dv.setUint32(at + 20, e.kind, true);
    at += LONG;
  }
  return out;
}

/** One piece of the answer to a lookup, cut to the range that was asked for. */
export interface ExtentHit {
  first: Sector;
  sectors: number;
  kind: ExtentKind;
  /** Log position of the data of `first`; 0 where there is none. */
  pos: LogPos;
  seq: Seq;
}

/**
 * Every version of [first, first + sectors) of `device` that the segment holds, oldest first. `start` and
 * `firstSeq` are the segment's.
 */
export function lookupExtents(
  table: Uint8Array,
  start: LogPos,
  firstSeq: Seq,
  device: number,
  first: Sector,
  sectors: number,
): ExtentHit[] {
  const dv = viewOf(table);
  const shorts = dv.getUint32(8, true);
  const longs = dv.getUint32(12, true);
  const end = first + sectors;
  const hits: ExtentHit[] = [];
  const take = (from: number, count: number, kind: ExtentKind, place: number, record: number): void => {
    const low = Math.max(from, first);
    const high = Math.min(from + count, end);
    if (low >= high) return;
    const pos = kind === EXTENT.DATA ? start + (place + low - from) * SECTOR : 0;
    hits.push({ first: low, sectors: high - low, kind, pos, seq: firstSeq + record });
  };

  // The first entry that could reach into the range.
  const earliest = Math.max(0, first - EXTENT_MAX + 1);
  let low = 0;
  let high = shorts;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = HEADER + middle * SHORT;
    const d = dv.getUint32(at, true);
    if (d < device || (d === device && getU48(dv, at + 4) < earliest)) low = middle + 1;
    else high = middle;
  }
  for (let i = low; i < shorts; i++) {
    const at = HEADER + i * SHORT;
    const from = getU48(dv, at + 4);
    if (dv.getUint32(at, true) !== device || from >= end) break;
    const place = dv.getUint32(at + 12, true);
    take(from, dv.getUint16(at + 10, true), (place & 3) as ExtentKind, place >>> 2, dv.getUint32(at + 16, true));
  }
  for (let i = 0; i < longs; i++) {
    const at = HEADER + shorts * SHORT + i * LONG;
    if (dv.getUint32(at, true) !== device) continue;
    const kind = dv.getUint32(at + 20, true) as ExtentKind;
    take(getU48(dv, at + 4), getU48(dv, at + 10), kind, 0, dv.getUint32(at + 16, true));
  }
  return hits.sort((a, b) => a.seq - b.seq);
}

/**
 * Shows what the records of a segment touched, in no particular order: data, zeroes and discards alike. `record` counts
 * from the segment's first.
 */
export function visitExtents(
  table: Uint8Array,
  visit: (device: number, first: Sector, sectors: number, record: number) => void,
): void {
  const dv = viewOf(table);
  const longs = HEADER + dv.getUint32(8, true) * SHORT;
  for (let at = HEADER; at < longs; at += SHORT)
    visit(dv.getUint32(at, true), getU48(dv, at + 4), dv.getUint16(at + 10, true), dv.getUint32(at + 16, true));
  const end = longs + dv.getUint32(12, true) * LONG;
  for (let at = longs; at < end; at += LONG)
    visit(dv.getUint32(at, true), getU48(dv, at + 4), getU48(dv, at + 10), dv.getUint32(at + 16, true));
}

function viewOf(table: Uint8Array): DataView {
  const dv = new DataView(table.buffer, table.byteOffset, table.byteLength);
  if (
    table.length < HEADER ||
    dv.getUint32(0, true) !== MAGIC ||
    table.length !== HEADER + dv.getUint32(8, true) * SHORT + dv.getUint32(12, true) * LONG
  )
    throw new RepError('EIO', 'the extent table of a segment is damaged; it can be rebuilt from the log');
  return dv;
}

/** True for records that change what a device holds. */
export function changesContent(type: number): boolean {
  return kindOf(type) !== undefined;
}

/** Builds the fact that the index keeps of a closed segment; undefined for one without records. */
export function segmentFact(segment: ClosedSegment): SegmentFact | undefined {
  if (segment.count === 0) return undefined;
  const view = new DataView(segment.headers.buffer, segment.headers.byteOffset, segment.headers.byteLength);
  const last = (segment.count - 1) * RECORD_HEADER;
  return {
    start: segment.start,
    firstSeq: getU64(view, R_SEQ),
    lastSeq: getU64(view, last + R_SEQ),
    firstTimeUs: getU64(view, R_TIME),
    lastTimeUs: getU64(view, last + R_TIME),
    tags: segment.tags,
    extents: encodeExtents(segment),
  };
}

/**
 * Reads a closed segment from the log, as the committer would have handed it over. `limit` is the durable end.
 * Throws EIO where it is damaged.
 */
export function readSegment(log: LogFile, start: LogPos, limit: ReadLimit): ClosedSegment {
  const reader = new LogReader(log);
  try {
    reader.seekUnproven(start);
    const filling = new SegmentFilling(start, true);
    const end = Math.min(start + log.segment, limit.pos);
    for (;;) {
      const r = reader.next({ pos: end, seq: limit.seq });
      if (r === READ.END) break;
      if (r === READ.BROKEN) {
        // Only padding, or nothing, is left of it.
        if (reader.broken!.pos >= end) break;
        const { seq, byte } = reader.broken!;
        throw new RepError('EIO', `replog ${log.path}: record ${seq} at byte ${byte} is damaged; run replog check`);
      }
      const { batch } = reader;
      filling.add(batch.seq, batch.count, batch.mem.u8, batch.headers);
      let payload = 0;
      for (let i = 0; i < batch.count; i++) {
        const at = batch.headers + i * RECORD_HEADER;
        const bytes = batch.mem.dv.getUint32(at + R_BYTES, true);
        filling.setPayload(batch.seq + i, batch.payloadPos + payload);
        if (batch.mem.dv.getUint8(at + R_TYPE) === REC.TAG) {
          const from = batch.payloads + payload;
          const name = batch.mem.u8.toString('utf8', from, from + bytes);
          filling.tag({ name, seq: batch.seq + i, timeUs: getU64(batch.mem.dv, at + R_TIME) });
        }
        payload += payloadSpace(bytes);
      }
    }
    return filling.close();
  } finally {
    reader.close();
  }
}

/** Starts of the closed segments between `from` and `end` that `known` lacks. */
export function missingSegments(log: LogFile, from: LogPos, end: LogPos, known: Iterable<LogPos>): LogPos[] {
  const have = new Set(known);
  const missing: LogPos[] = [];
  // A segment is whole in the ring only while its first byte is.
  for (let start = Math.ceil(from / log.segment) * log.segment; start + log.segment <= end; start += log.segment)
    if (!have.has(start)) missing.push(start);
  return missing;
}

function getU48(view: DataView, at: number): number {
  return view.getUint16(at + 4, true) * 4294967296 + view.getUint32(at, true);
}

function setU48(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint16(at + 4, Math.floor(value / 4294967296), true);
}
