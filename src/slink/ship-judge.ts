/**
 * Where a site may go on: whether the place that it names from its own memory lies in this log, at or behind what it had
 * confirmed. And for a site without a journal, what it may have been sent behind a place.
 */
import { errnoText } from '../base/errors.js';
import { READ } from '../replog/reader.js';
import { SHIP_BYTES, SHIP_RECORDS } from './batch.js';
import type { SiteCursor, SiteOpen } from './contract.js';
import type { ShipBuffers } from './ship-buffers.js';
import type { LogView } from './ship-view.js';

export class Judge {
  private readonly nr: number;
  private readonly view: LogView;
  private readonly buffers: ShipBuffers;

  constructor(nr: number, view: LogView, buffers: ShipBuffers) {
    this.nr = nr;
    this.view = view;
    this.buffers = buffers;
  }

  /** One call of `write` takes at most a batch: so much behind a confirmed place may be there, no more. */
  readonly sentBehind: NonNullable<SiteOpen['sentBehind']> = (from, visit) => {
    const reader = this.buffers.reader();
    reader.seek(from);
    const limit = { pos: this.view.durablePos, seq: this.view.durable };
    for (let records = 0, bytes = 0; records < SHIP_RECORDS && bytes < SHIP_BYTES;) {
      const result = reader.next(limit);
      if (result === READ.END) return true;
      if (result === READ.BROKEN) return false;
      const { mem, headers, count, payloadBytes } = reader.batch;
      visit(mem, headers, count);
      records += count;
      bytes += payloadBytes;
    }
    return true;
  };

  /** Why a site at `at` cannot be continued from this log, or ''; it has confirmed everything before `cursor`. */
  wrong(at: SiteCursor, cursor: SiteCursor): string {
    const { durable } = this.view;
    const whose = `site ${this.nr}`;
    if (at.seq > durable)
      return `${whose}: belongs to another history: it holds records up to ${at.seq - 1}, this log ends at ${durable - 1}; resync it`;
    if (at.seq < cursor.seq)
      return `${whose}: was rolled back: it had confirmed record ${cursor.seq - 1} and now ends at ${at.seq - 1}; put the newer state back or resync it`;
    const known = this.chainAt(at, cursor);
    if (typeof known === 'string') return `${whose}: ${known}`;
    return known
      ? ''
      : `${whose}: belongs to another history: record ${at.seq - 1} is not the one in this log; resync it`;
  }

  /** Whether the record before `at` is the one in this log; a sentence where that cannot be read. */
  private chainAt(at: SiteCursor, cursor: SiteCursor): boolean | string {
    const { view } = this;
    if (at.seq === cursor.seq) return at.chainLo === cursor.chainLo && at.chainHi === cursor.chainHi;
    const near = view.hasBefore(at);
    if (near !== undefined) return near;
    // A batch that names this place as its beginning proves it: position, seq and chain stand in its header. HEAD has
    // passed the place, so DURABLE has too; the one that was known before the site was opened may still be at it.
    view.look();
    const reader = this.buffers.reader();
    reader.seek(at);
    const result = reader.next({ pos: view.durablePos, seq: view.durable });
    if (result === READ.BATCH) return true;
    if (result === READ.BROKEN && reader.broken!.reason === 'read')
      return `the log cannot be read at ${at.pos}: ${errnoText(reader.broken!.errno)}`;
    return false;
  }
}
