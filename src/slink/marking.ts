/**
 * Marks what the records between two places of the log touched: what a site that leaves the ring there has to be given
 * by copying (ARCHITECTURE 20). Data, zeroes and discards alike, since the copy is of what the image then holds.
 *
 * Closed segments are taken from their extent tables in the index: a table of 8 MiB of small writes is marked in well
 * under a millisecond, and nothing is read. What the index lacks (the segment that is being filled, one that nobody
 * has indexed yet, a damaged table) is read from the log, batch by batch. Each step is one table or one batch, so that
 * main goes on serving its requests between two of them.
 */
import type { Machine } from '../base/clock.js';
import { getU64 } from '../base/codec.js';
import { RepError } from '../base/errors.js';
import { SECTOR, type LogPos, type Seq } from '../base/units.js';
import { DirtyBits } from '../dirtylog/bits.js';
import { changesContent, visitExtents } from '../replog/extents.js';
import { R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, RECORD_HEADER, type LogPlace } from '../replog/format.js';
import type { LogFile } from '../replog/logfile.js';
import { LogReader, READ, type Batch } from '../replog/reader.js';

/** What the index knows of closed segments, those included that the next commit brings it. */
export interface SegmentTables {
  /** Number of the first record of the segment that begins at `start`; undefined where it is not known. */
  firstSeq(start: LogPos): Seq | undefined;
  extents(start: LogPos): Uint8Array | undefined;
}

/** A device that is marked. */
export interface MarkDevice {
  nr: number;
  sectors: number;
}

export interface MarkingParts {
  log: LogFile;
  tables: SegmentTables;
  /** Others are passed over: they have left, or have not come. */
  devices: readonly MarkDevice[];
  /** Sectors. */
  region: number;
}

export class Marking implements Machine {
  /** By device number; all devices, those included of which nothing is marked. */
  readonly bits = new Map<number, DirtyBits>();
  /** Before it everything is marked. */
  pos: LogPos;

  private readonly parts: MarkingParts;
  private readonly from: LogPlace;
  private readonly to: LogPlace;
  private reader: LogReader | undefined;
  /** Where the reader is to stop: the end of its segment, or `to`. */
  private readTo: LogPos = 0;

  /** Records [from.seq, to.seq). Both places are boundaries between batches, and what lies between is durable. */
  constructor(parts: MarkingParts, from: LogPlace, to: LogPlace) {
    this.parts = parts;
    this.from = { ...from };
    this.to = { ...to };
    this.pos = from.pos;
    for (const { nr, sectors } of parts.devices) this.bits.set(nr, new DirtyBits(parts.region, sectors));
  }

  get done(): boolean {
    return this.pos >= this.to.pos;
  }

  /** One table or one batch: 0 while there is more, 1 when all is marked. Throws EIO where neither can be had. */
  step(): number {
    if (this.done) return 1;
    if (this.reader !== undefined) this.takeBatch();
    else if (!this.takeTable()) this.beginReading();
    return this.done ? 1 : 0;
  }

  close(): void {
    this.reader?.close();
    this.reader = undefined;
  }

  /** Marks one range of one device; beyond its end there is nothing to copy. */
  private mark(device: number, first: number, sectors: number): void {
    const bits = this.bits.get(device);
    if (bits === undefined || first >= bits.deviceSectors) return;
    bits.mark(first, Math.min(sectors, bits.deviceSectors - first));
  }

  private get segment(): LogPos {
    return this.pos - (this.pos % this.parts.log.segment);
  }

  private takeTable(): boolean {
    const { tables, log } = this.parts;
    const start = this.segment;
    const firstSeq = tables.firstSeq(start);
    const table = firstSeq === undefined ? undefined : tables.extents(start);
    if (table === undefined) return false;
    const low = this.from.seq - firstSeq!;
    const high = this.to.seq - firstSeq!;
    try {
      visitExtents(table, (device, first, sectors, record) => {
        if (record >= low && record < high) this.mark(device, first, sectors);
      });
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      // The log tells the same.
      return false;
    }
    this.pos = start + log.segment;
    return true;
  }

  private beginReading(): void {
    const { log } = this.parts;
    this.reader = new LogReader(log);
    this.readTo = Math.min(this.segment + log.segment, this.to.pos);
    if (this.pos === this.from.pos) this.reader.seek(this.from);
    else this.reader.seekUnproven(this.pos);
  }

  private takeBatch(): void {
    const reader = this.reader!;
    const result = reader.next({ pos: this.readTo, seq: this.to.seq });
    if (result === READ.BATCH) {
      this.markBatch(reader.batch);
      return;
    }
    if (result === READ.BROKEN && reader.broken!.pos < this.readTo) {
      const { seq, byte } = reader.broken!;
      throw new RepError(
        'EIO',
        `replog ${this.parts.log.path}: record ${seq} at byte ${byte} is damaged; run replog check`,
      );
    }
    this.close();
    this.pos = this.readTo;
  }

  private markBatch({ mem, headers, count }: Batch): void {
    const { dv } = mem;
    for (let i = 0; i < count; i++) {
      const at = headers + i * RECORD_HEADER;
      if (!changesContent(dv.getUint8(at + R_TYPE))) continue;
      const offset = getU64(dv, at + R_OFFSET);
      const end = offset + getU64(dv, at + R_LENGTH);
      const first = Math.floor(offset / SECTOR);
      this.mark(dv.getUint32(at + R_DEVICE, true), first, Math.ceil(end / SECTOR) - first);
    }
  }
}
