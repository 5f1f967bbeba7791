/** Prints a log that is not mounted: superblocks, batches and records, one line each. */
import { getU64 } from '../base/codec.js';
import { check } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { Mem } from '../base/mem.js';
import {
  Chain,
  REC,
  REC_NAME,
  RECORD_HEADER,
  R_BYTES,
  R_CHAIN,
  R_DEVICE,
  R_LENGTH,
  R_OFFSET,
  R_REIGN,
  R_SEQ,
  R_SUM,
  R_TIME,
  R_TYPE,
  SUPER_SIZE,
  decodeSuperblock,
  payloadSpace,
  type LogPlace,
} from './format.js';
import { LogFile } from './logfile.js';
import { LogReader, READ, type Batch, type Break } from './reader.js';

export interface DumpOptions {
  /** One JSON object per line. */
  json?: boolean;
  /** First record to print. */
  from?: number;
  /** Most records to print. */
  limit?: number;
}

type Fact = Record<string, string | number | boolean>;
type Print = (kind: string, fact: Fact) => void;

/** Prints a line for each fact; throws RepError where `path` is no log that this program knows. */
export function dumpLog(path: string, write: (line: string) => void, options: DumpOptions = {}): void {
  const log = LogFile.open(realIo, path, { readOnly: true });
  const reader = new LogReader(log);
  const print: Print = (kind, fact) => {
    write(options.json ? JSON.stringify({ kind, ...fact }) : `${kind} ${words(fact)}`);
  };
  try {
    printSuperblocks(log, print);
    printBatches(log, reader, options.from ?? 0, options.limit ?? Infinity, print);
  } finally {
    reader.close();
    log.close();
  }
}

function printBatches(log: LogFile, reader: LogReader, from: number, most: number, print: Print): void {
  let left = most;
  let padding = 0;
  reader.seekUnproven(log.super.head.pos);
  for (;;) {
    const r = left > 0 ? reader.next() : READ.END;
    if (reader.padding > padding && reader.place.seq >= from) print('padding', { bytes: reader.padding - padding });
    padding = reader.padding;
    if (r !== READ.BATCH) {
      print('end', endFact(log, reader.place, reader.broken));
      return;
    }
    const { batch } = reader;
    if (batch.seq + batch.count <= from) continue;
    print('batch', {
      pos: batch.pos,
      byte: log.fileOffset(batch.pos),
      records: batch.count,
      bytes: batch.end - batch.pos,
      seq: batch.seq,
      payload: batch.payloadBytes,
      durable: batch.durable,
    });
    left -= printRecords(batch, from, left, print);
  }
}

function printRecords(batch: Batch, from: number, most: number, print: Print): number {
  const { dv, u8 } = batch.mem;
  const chain = new Chain();
  let payload = batch.payloads;
  let printed = 0;
  for (let i = 0; i < batch.count && printed < most; i++) {
    const at = batch.headers + i * RECORD_HEADER;
    const type = dv.getUint8(at + R_TYPE);
    const bytes = dv.getUint32(at + R_BYTES, true);
    if (batch.seq + i >= from) {
      print('record', {
        seq: getU64(dv, at + R_SEQ),
        type: REC_NAME[type] ?? `type-${type}`,
        device: dv.getUint32(at + R_DEVICE, true),
        offset: getU64(dv, at + R_OFFSET),
        length: getU64(dv, at + R_LENGTH),
        payload: bytes,
        time: timeText(getU64(dv, at + R_TIME)),
        reign: dv.getUint32(at + R_REIGN, true),
        sum: dv
          .getUint32(at + R_SUM, true)
          .toString(16)
          .padStart(8, '0'),
        chain: chain.load(dv, at + R_CHAIN).toString(),
        ...payloadText(type, u8.subarray(payload, payload + bytes)),
      });
      printed++;
    }
    payload += payloadSpace(bytes);
  }
  return printed;
}

/** What a payload says, where it is not data. */
function payloadText(type: number, payload: Buffer): Fact {
  switch (type) {
    case REC.TAG:
    case REC.SNAPSHOT:
      return { name: payload.toString('utf8') };
    case REC.DEVICE_ADD:
    case REC.DEVICE_RESIZE:
      return { says: payload.toString('utf8') };
    case REC.REIGN:
      return { id: payload.toString('hex') };
    default:
      return {};
  }
}

function printSuperblocks(log: LogFile, print: Print): void {
  const mem = Mem.anon(2 * SUPER_SIZE);
  try {
    check(realIo.pread('REPLOG:SUPER-READ', log.fd, mem, 0, 2 * SUPER_SIZE, 0), 'reading its superblocks', log.path);
    for (const i of [0, 1]) {
      const read = decodeSuperblock(mem.u8.subarray(i * SUPER_SIZE, (i + 1) * SUPER_SIZE));
      const place = { which: i === 0 ? 'A' : 'B' };
      if (!read.ok) {
        const blank = mem.u8.subarray(i * SUPER_SIZE, (i + 1) * SUPER_SIZE).every((byte) => byte === 0);
        print('superblock', { ...place, valid: false, reason: blank ? 'never written' : read.reason });
        continue;
      }
      const s = read.value;
      print('superblock', {
        ...place,
        valid: true,
        serial: s.serial,
        state: s.clean ? 'clean' : 'open',
        group: s.group,
        written: timeText(s.writtenUs),
        log: s.logId,
        index: s.indexId,
        generation: s.indexGeneration,
        size: s.size,
        ring: s.ring,
        base: s.base,
        oldest: s.oldest,
        segment: s.segment,
        reign: s.reign,
        'reign-id': s.reignId,
        'checkpoint-pos': s.checkpoint.pos,
        'checkpoint-seq': s.checkpoint.seq,
        'checkpoint-chain': new Chain().set(s.checkpoint.chainLo, s.checkpoint.chainHi).toString(),
        'head-pos': s.head.pos,
        'head-seq': s.head.seq,
        'durable-pos': s.durable.pos,
        'durable-seq': s.durable.seq,
      });
    }
  } finally {
    mem.unmap();
  }
}

function endFact(log: LogFile, place: LogPlace, broken: Break | undefined): Fact {
  const { durable } = log.super;
  return {
    pos: place.pos,
    seq: place.seq,
    byte: log.fileOffset(place.pos),
    why: broken === undefined ? 'limit' : broken.reason,
    // Before the durable point an end is not a torn tail but damage.
    damaged: place.pos < durable.pos,
  };
}

/** ISO 8601 with microseconds; `never` for 0. */
export function timeText(us: number): string {
  if (us === 0) return 'never';
  return new Date(Math.floor(us / 1000)).toISOString().replace('Z', `${String(us % 1000).padStart(3, '0')}Z`);
}

function words(fact: Fact): string {
  return Object.entries(fact)
    .map(
      ([key, value]) =>
        `${key}=${typeof value === 'string' && /[\s"=]|^$/.test(value) ? JSON.stringify(value) : value}`,
    )
    .join(' ');
}
