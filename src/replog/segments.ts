/**
 * What the committer remembers of the segment it fills, so that main can build its extents off the hot thread.
 * A segment is handed over when all of its records are durable; after a failed sync what was not durable is
 * forgotten and comes again.
 */
import { Defect } from '../base/errors.js';
import type { LogPos, Seq } from '../base/units.js';
import { RECORD_HEADER } from './format.js';

export interface TagFact {
  name: string;
  seq: number;
  timeUs: number;
}

/** Records of one segment, all of them durable. Bytes only: it crosses to main by message, moved, not copied. */
export interface ClosedSegment {
  /** Log position of the segment's first byte. */
  start: number;
  count: number;
  /** `count` record headers of 64 bytes, as in the log. */
  headers: Uint8Array;
  /** Log position of each record's payload. */
  payloads: Float64Array;
  tags: TagFact[];
  /** False where the committer came in on the middle of the segment: read it from the log (readSegment). */
  complete: boolean;
}

/** A segment being filled. */
export class SegmentFilling {
  readonly start: LogPos;
  readonly complete: boolean;
  firstSeq: Seq = 0;
  count = 0;
  private headers = new Uint8Array(256 * RECORD_HEADER);
  private payloads = new Float64Array(256);
  private tags: TagFact[] = [];

  constructor(start: LogPos, complete: boolean) {
    this.start = start;
    this.complete = complete;
  }

  /** Behind the last record. */
  get endSeq(): Seq {
    return this.firstSeq + this.count;
  }

  /** Takes `count` record headers from `u8` at `at`; the caller sets their payload positions. */
  add(seq: Seq, count: number, u8: Uint8Array, at: number): void {
    if (this.count === 0) this.firstSeq = seq;
    else if (seq !== this.endSeq) throw new Defect(`segment goes on with record ${seq} instead of ${this.endSeq}`);
    const need = this.count + count;
    if (need > this.payloads.length) this.grow(need);
    this.headers.set(u8.subarray(at, at + count * RECORD_HEADER), this.count * RECORD_HEADER);
    this.count = need;
  }

  setPayload(seq: Seq, pos: LogPos): void {
    this.payloads[seq - this.firstSeq] = pos;
  }

  tag(fact: TagFact): void {
    this.tags.push(fact);
  }

  /** Forgets records from `seq` on. */
  cut(seq: Seq): void {
    if (this.count === 0 || seq >= this.endSeq) return;
    this.count = Math.max(0, seq - this.firstSeq);
    this.tags = this.tags.filter((tag) => tag.seq < seq);
  }

  close(): ClosedSegment {
    return {
      start: this.start,
      count: this.count,
      headers: this.headers.slice(0, this.count * RECORD_HEADER),
      payloads: this.payloads.slice(0, this.count),
      tags: this.tags,
      complete: this.complete,
    };
  }

  private grow(need: number): void {
    const room = Math.max(need, this.payloads.length * 2);
    const headers = new Uint8Array(room * RECORD_HEADER);
    headers.set(this.headers);
    const payloads = new Float64Array(room);
    payloads.set(this.payloads);
    this.headers = headers;
    this.payloads = payloads;
  }
}

/** The segments that are not handed over yet: full ones that wait for a sync, and the one being filled. */
export class SegmentCollector {
  private current: SegmentFilling | undefined;
  private readonly ended: SegmentFilling[] = [];
  private readonly segment: number;

  constructor(segment: number, pos: LogPos) {
    this.segment = segment;
    const start = pos - (pos % segment);
    if (start !== pos) this.current = new SegmentFilling(start, false);
  }

  /** The segment that holds `pos`, where the next batch is written. */
  at(pos: LogPos): SegmentFilling {
    this.current ??= new SegmentFilling(pos - (pos % this.segment), pos % this.segment === 0);
    return this.current;
  }

  /** The segment being filled takes no more. */
  end(): void {
    if (this.current === undefined) return;
    this.ended.push(this.current);
    this.current = undefined;
  }

  /** Hands over what is full and durable. */
  settle(durable: Seq, give: (segment: ClosedSegment) => void): void {
    while (this.ended.length > 0 && this.ended[0]!.endSeq <= durable) give(this.ended.shift()!.close());
  }

  /** Everything from record `durable` on will be written again, beginning at `pos`. */
  rewind(durable: Seq, pos: LogPos): void {
    const start = pos - (pos % this.segment);
    const all = [...this.ended.splice(0), ...(this.current === undefined ? [] : [this.current])];
    this.current = undefined;
    for (const filling of all) {
      if (filling.start > start || (filling.start === start && pos === start)) continue;
      filling.cut(durable);
      if (filling.start < start) this.ended.push(filling);
      else this.current = filling;
    }
  }
}
