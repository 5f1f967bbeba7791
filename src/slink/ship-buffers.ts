/**
 * What a shipper copies records into on their way: a batch, and a reader of the log where the window has lost them.
 * All of it is given back when nothing was sent for a while; what a burst needs, in turns with other links (turns.ts).
 */
import { errnoText } from '../base/errors.js';
import type { LogFile } from '../replog/logfile.js';
import { LogReader, READ, type ReadLimit } from '../replog/reader.js';
import type { Shared } from '../replog/shared.js';
import { SHIP_LARGE, ShipBatch } from './batch.js';
import type { SiteCursor } from './cursor.js';
import { Turns } from './turns.js';

export class ShipBuffers {
  readonly batch = new ShipBatch();

  private readonly log: LogFile;
  private readonly turns: Turns;
  /** Rest after which they are given back, milliseconds. */
  private readonly restMs: number;
  private kept: LogReader | undefined;
  /** Seq of the log batch that the reader gives next, or holds because it did not fit; -1 = nowhere. */
  private readerSeq = -1;
  private readerHolds = false;
  /** There may be something to give back. */
  private holds = true;
  private sentAt = 0;
  /** When so much was last sent that large buffers were needed. */
  private largeAt = 0;

  constructor(log: LogFile, shared: Shared, place: number, restMs: number) {
    this.log = log;
    this.turns = new Turns(shared, place);
    this.restMs = restMs;
  }

  /**
   * Whether `bytes` that wait to be sent may be begun with; `log`: they are to be read from the log. Whoever is waited
   * for (`wanted`) does not wait for others.
   */
  mayBegin(now: number, bytes: number, log: boolean, wanted: boolean): boolean {
    this.holds = true;
    return (bytes < SHIP_LARGE && !log) || this.turns.take(now, wanted);
  }

  /** The batch was sent. */
  sent(now: number): void {
    this.sentAt = now;
    if (this.batch.bytes >= SHIP_LARGE || this.kept !== undefined) this.largeAt = now;
    // A burst that has become a trickle needs no turn any more.
    if (this.turns.has && (now - this.largeAt > this.restMs || this.turns.wanted)) this.release();
  }

  /** At rest: milliseconds until it is time for `giveBack`; Infinity where there is nothing to give. */
  due(now: number): number {
    if (!this.holds) return Infinity;
    // What a trickle needs it may keep, what a burst needed it may not.
    return Math.max(0, (this.batch.large ? this.largeAt : this.sentAt) + this.restMs - now);
  }

  /** False where all was given back already. */
  giveBack(): boolean {
    const held = this.holds;
    if (held) this.release();
    this.holds = false;
    return held;
  }

  /** The reader, somewhere: what it gave before is forgotten. */
  reader(): LogReader {
    this.holds = true;
    this.readerSeq = -1;
    return (this.kept ??= new LogReader(this.log));
  }

  /**
   * Reads whole batches of the log, from `cursor` on and up to `most` bytes, of records below `below` where that is less
   * than all (then there may be none); '' or why that cannot be done.
   */
  readLog(cursor: SiteCursor, limit: ReadLimit, most: number, below = limit.seq): string {
    const { batch } = this;
    const reader = (this.kept ??= new LogReader(this.log));
    if (this.readerSeq !== cursor.seq) {
      reader.seek(cursor);
      this.readerSeq = cursor.seq;
      this.readerHolds = false;
    }
    batch.begin(cursor, limit.pos - cursor.pos);
    for (;;) {
      if (!this.readerHolds) {
        const result = reader.next(limit);
        if (result === READ.END) break;
        if (result === READ.BROKEN) {
          const { reason, pos, errno } = reader.broken!;
          this.readerSeq = -1;
          const why = reason === 'read' ? errnoText(errno) : `damaged (${reason})`;
          return `the log cannot be read at position ${pos}: ${why}; check the log's disk`;
        }
        this.readerHolds = true;
      }
      const b = reader.batch;
      if (!batch.fits(b.count, b.payloadBytes)) break;
      if (batch.records > 0 && batch.bytes >= most) break;
      if (b.seq + b.count > below) return '';
      batch.addAll(b.mem, b.headers, b.count, b.payloads, b.payloadBytes, b.end);
      this.readerHolds = false;
      this.readerSeq = b.seq + b.count;
    }
    return batch.records > 0 ? '' : `the log ends before record ${cursor.seq}; check the log`;
  }

  close(): void {
    this.release();
    this.batch.close();
  }

  private release(): void {
    this.batch.release();
    this.kept?.close();
    this.kept = undefined;
    this.readerSeq = -1;
    this.readerHolds = false;
    this.turns.leave();
  }
}
