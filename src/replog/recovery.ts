/**
 * Recovery: where the log ends, and whether anything that was known durable is missing. It reads from the
 * checkpoint to the end, never the whole ring, and writes nothing.
 *
 * The end is where the chain breaks, and not where checksums do: a batch that was left behind a torn tail by an
 * earlier crash may be whole, at the right position and with the expected seq, and still be of another history.
 *
 * What lies behind the break decides what the break is. Behind the known durable point it is a torn tail:
 * nobody was promised those records, they are cut. Before it, a disk has lost what it had confirmed: the log
 * is not opened, and nothing on it is changed. The known durable point is the largest of the superblock's, the
 * checkpoint, the links' cursors, and what the headers of whole batches behind the break say was durable when
 * they were written (true for batches of cut tails as well: what is durable is never cut).
 */
import { crc32, getU64 } from '../base/codec.js';
import { RepError } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { MIB, type LogPos, type Seq } from '../base/units.js';
import type { Index, LinkFact } from '../index/contract.js';
import {
  ALIGN,
  BATCH_MAGIC,
  B_CRC,
  B_DURABLE,
  B_HEADER,
  B_MAGIC,
  B_POS,
  B_TOTAL,
  MAX_BATCH_RECORDS,
  REC,
  R_BYTES,
  R_REIGN,
  R_TYPE,
  RECORD_HEADER,
  batchHeaderBytes,
  payloadSpace,
  type LogPlace,
  type Superblock,
} from './format.js';
import type { LogFile } from './logfile.js';
import { LogReader, READ, type Break } from './reader.js';

export interface Recovered {
  /** Behind the last record: where the log goes on. */
  place: LogPlace;
  clean: boolean;
  /** True where the next record must begin a reign. */
  newReign: boolean;
  /** Largest reign known, and its identity. */
  reign: number;
  reignId: string;
  /** Everything before is on slink 0's images; replay starts here. */
  checkpoint: LogPlace;
  /** Links as the index knows them; all inconsistent where it was lost. */
  links: LinkFact[];
  indexLost: boolean;
  /** Everything before is known durable; from here to the end it may be in a cache only (settleTail). */
  durablePos: LogPos;
  /** True once settleTail has made everything up to the end durable. */
  settled: boolean;
  /** Bytes of the tail that was cut, as far as can be seen. */
  tornBytes: number;
  /** Records between the checkpoint and the end. */
  records: number;
  /** Bytes of the log that were looked at. */
  readBytes: number;
  /** A sentence each for the log file, where something was cut or lost. */
  notes: string[];
}

export interface RecoveryOptions {
  /** How far behind a break to look for a batch that says the break was durable: what is written between two syncs. */
  scanBytes?: number;
}

export const SCAN_BYTES = 40 * MIB;

/**
 * True where the index is not the one that the superblock was written with, or older: then cursors and dirty
 * regions in it say less than what happened, and no site may be called clean.
 */
export function indexIsLost(s: Superblock, index: Index): boolean {
  return index.id !== s.indexId || index.generation < s.indexGeneration;
}

/** The links of the index; where it was lost, all of them are inconsistent, and it is not known what they lack. */
export function trustedLinks(s: Superblock, index: Index): LinkFact[] {
  const lost = indexIsLost(s, index);
  return index.links().map((link) => (lost ? unknown(link) : link));
}

/** Its cursor, and what is said to be dirty there, mean nothing. */
function unknown({ wholeAt: _, ...link }: LinkFact): LinkFact {
  return { ...link, sync: 'inconsistent' };
}

/** Its cursor is a place of this log: by confirming, or by marking what lies before it. */
function isPlaced(link: LinkFact): boolean {
  return link.sync === 'in-order' || link.wholeAt !== undefined;
}

/** Finds the end of the log. Throws RepError EIO where records that were durable are damaged. */
export function recover(log: LogFile, index: Index, options: RecoveryOptions = {}): Recovered {
  const s = log.super;
  // Where the other superblock is damaged, it may be the one of the opening that followed: then the log goes on.
  const clean = s.clean && !log.superDamaged;
  const indexLost = indexIsLost(s, index);
  const links = trustedLinks(s, index);
  const indexed = indexLost ? undefined : index.checkpoint();
  // The index is committed first, so it may be one checkpoint ahead of the superblock.
  const checkpoint: LogPlace = {
    ...(indexed !== undefined && indexed.pos > s.checkpoint.pos ? indexed : s.checkpoint),
  };
  const notes: string[] = [];
  if (indexLost)
    notes.push(
      index.id === s.indexId
        ? `the index is older (commit ${index.generation}) than the replog (${s.indexGeneration}): every site needs a resync`
        : 'the index is not the one of this replog: every site needs a resync',
    );

  const known = durableSoFar(s, checkpoint, indexLost ? [] : links);
  const reader = new LogReader(log);
  try {
    const walk = walkToEnd(log, reader, clean, checkpoint, links, notes);
    const end = { ...reader.place };
    let tornBytes = 0;
    if (walk.broken !== undefined) {
      const scan = Math.min(options.scanBytes ?? SCAN_BYTES, log.ring);
      tornBytes = scanBehind(log, end.pos, scan, known);
      walk.readBytes += scan;
      if (known.pos > end.pos) throw corruption(log, walk.broken, known.seq, indexLost ? [] : links);
      if (tornBytes > 0)
        notes.push(`cut a torn tail of ${tornBytes} bytes behind record ${end.seq - 1} (${walk.broken.reason})`);
    }
    if (walk.reign < s.reign) {
      walk.reign = s.reign;
      walk.reignId = s.reignId;
    }
    return {
      durablePos: Math.max(known.pos, walk.durablePos),
      settled: clean,
      place: end,
      clean,
      newReign: !clean || s.reign === 0,
      reign: walk.reign,
      reignId: walk.reignId,
      checkpoint,
      links,
      indexLost,
      tornBytes,
      records: end.seq - checkpoint.seq,
      readBytes: walk.readBytes,
      notes,
    };
  } finally {
    reader.close();
  }
}

interface Known {
  pos: LogPos;
  seq: Seq;
}

function durableSoFar(s: Superblock, checkpoint: LogPlace, links: LinkFact[]): Known {
  let known: Known = s.durable;
  for (const place of [checkpoint, ...links.filter(isPlaced).map((link) => link.cursor)])
    if (place.pos > known.pos) known = place;
  return { pos: known.pos, seq: known.seq };
}

interface Walk {
  broken: Break | undefined;
  reign: number;
  reignId: string;
  readBytes: number;
  /** Largest position that a batch on the way calls durable. */
  durablePos: LogPos;
}

/** Reads from the checkpoint to the end; a log that was closed cleanly ends where its superblock says. */
function walkToEnd(
  log: LogFile,
  reader: LogReader,
  clean: boolean,
  checkpoint: LogPlace,
  links: LinkFact[],
  notes: string[],
): Walk {
  const s = log.super;
  const walk: Walk = { broken: undefined, reign: 0, reignId: '', readBytes: 0, durablePos: 0 };
  reader.seek(checkpoint);
  checkCursors(links, reader.place, notes);
  for (;;) {
    const r = clean ? reader.next(s.durable) : reader.next();
    if (r === READ.END) break;
    if (r === READ.BROKEN) {
      walk.broken = reader.broken;
      break;
    }
    const { batch } = reader;
    walk.readBytes = batch.end - checkpoint.pos;
    walk.durablePos = Math.max(walk.durablePos, batch.durable);
    noteReign(walk, batch.mem, batch.headers, batch.payloads, batch.count);
    checkCursors(links, reader.place, notes);
  }
  return walk;
}

function noteReign(walk: Walk, mem: Mem, headers: number, payloads: number, count: number): void {
  let payload = payloads;
  for (let i = 0; i < count; i++) {
    const at = headers + i * RECORD_HEADER;
    if (mem.dv.getUint8(at + R_TYPE) === REC.REIGN) {
      walk.reign = mem.dv.getUint32(at + R_REIGN, true);
      walk.reignId = mem.u8.toString('hex', payload, payload + 16);
    }
    payload += payloadSpace(mem.dv.getUint32(at + R_BYTES, true));
  }
}

/** A cursor whose chain is not this log's stands in another history: that site cannot go on from there. */
function checkCursors(links: LinkFact[], place: LogPlace, notes: string[]): void {
  for (const link of links) {
    const { cursor } = link;
    if (cursor.seq !== place.seq || !isPlaced(link)) continue;
    if (cursor.chainLo === place.chainLo && cursor.chainHi === place.chainHi) continue;
    link.sync = 'inconsistent';
    delete link.wholeAt;
    notes.push(`site ${link.nr} holds another history up to record ${cursor.seq - 1}: it needs a resync`);
  }
}

/**
 * Looks for batches of this lap behind the break, for what they say was durable. Returns how far behind the
 * break the last one reaches.
 */
export function scanBehind(log: LogFile, from: LogPos, bytes: number, known: Known): number {
  const piece = Math.min(4 * MIB, log.segment);
  const mem = Mem.lazy(piece);
  let last = 0;
  try {
    for (let pos = from; pos < from + bytes;) {
      const len = Math.min(piece, log.rest(pos), from + bytes - pos);
      if (log.read('REPLOG:SCAN', mem, 0, len, pos) === len) {
        const seen = scanPiece(mem, len, pos, known);
        if (seen > 0) last = seen - from;
        // A header part across the end of this piece is whole in the next one, which begins before it.
        pos += len === piece && len < log.rest(pos) ? len - HEADER_REACH : len;
      } else {
        // What cannot be read says nothing; a torn write may have left a sector unreadable.
        pos += ALIGN;
      }
    }
  } finally {
    mem.unmap();
  }
  return last;
}

/** Most bytes of a batch's header part. */
const HEADER_REACH = batchHeaderBytes(MAX_BATCH_RECORDS);

/** Looks at every place in `len` bytes at log position `pos` where a batch could begin; the end of the last. */
function scanPiece(mem: Mem, len: number, pos: LogPos, known: Known): LogPos {
  const { dv, u8 } = mem;
  let last = 0;
  for (let at = 0; at < len; at += ALIGN) {
    if (dv.getUint32(at + B_MAGIC, true) !== BATCH_MAGIC || getU64(dv, at + B_POS) !== pos + at) continue;
    const header = dv.getUint32(at + B_HEADER, true);
    if (header < ALIGN || header > HEADER_REACH || at + header > len) continue;
    if (crc32(u8.subarray(at + 4, at + header)) !== dv.getUint32(at + B_CRC, true)) continue;
    last = pos + at + dv.getUint32(at + B_TOTAL, true);
    known.pos = Math.max(known.pos, getU64(dv, at + B_DURABLE));
  }
  return last;
}

function corruption(log: LogFile, broken: Break, durableSeq: Seq, links: LinkFact[]): RepError {
  const holders = links.filter((link) => link.sync === 'in-order' && link.cursor.seq > broken.seq);
  const sites = holders.length === 0 ? 'none known' : holders.map((link) => `${link.nr}`).join(', ');
  return new RepError(
    'EIO',
    `replog ${log.path}: record ${broken.seq} at byte ${broken.byte} is damaged, before the durable point ` +
      `(seq ${Math.max(durableSeq, broken.seq + 1)}); sites that still hold the data: ${sites}. Nothing was changed; ` +
      'promote such a site, or restore the file',
  );
}
