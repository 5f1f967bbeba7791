/**
 * The checkpointer: makes facts about the log durable, then gives its space back. Runs on main, the only owner
 * of the index, of the superblocks and of LOG_HEAD.
 *
 * The order, and what a crash between two steps leaves:
 *   1. marks on dirty logs' devices  more is marked there than the index says: it is copied for nothing
 *   2. index committed and flushed   it is one generation ahead of the superblock: newer facts, all of them true
 *   3. clears on those devices       marks of what was copied already: it is compared once more
 *   4. superblock durable            it names that generation, so an index that is lost or rolled back is noticed
 *   5. LOG_HEAD moved                only now may what lies before it be overwritten
 *
 * head = min(checkpoint, cursors of the links that hold). It is computed from what was committed, never from
 * what came in meanwhile. A link that leaves the ring has its cursor moved by the commit that holds its marks
 * (slink/dirt.ts, ARCHITECTURE 20), so what lies before it is confirmed there, or marked, before it can be overwritten.
 */
import type { Clock, Machine } from '../base/clock.js';
import { RepError, ioError } from '../base/errors.js';
import { MIB, type LogPos, type Seq } from '../base/units.js';
import type { Index, IndexChange, LinkFact, ReignFact, SegmentFact } from '../index/contract.js';
import { ALIGN, type LogPlace } from './format.js';
import type { LogFile } from './logfile.js';
import { indexIsLost, trustedLinks, type Recovered } from './recovery.js';
import type { Shared } from './shared.js';
import { W, type Window } from './window.js';

export interface CheckpointerParts {
  log: LogFile;
  index: Index;
  window: Window;
  shared: Shared;
  clock: Clock;
  /** What recovery found; without it (a daemon that adopts a window) superblock and index say the same. */
  recovered?: Recovered;
  dirt?: DirtPort;
  events: {
    /** A commit failed; it is tried again after the interval. Once until one succeeds. */
    checkpointFailed(reason: Error): void;
  };
}

/** Who knows what is dirty at the links that have left the ring (slink/dirt.ts). */
export interface DirtPort {
  /**
   * What the commit must say, whose checkpoint is at `synced`. Marks are on their devices when it returns. It gives no
   * less the next time, where the commit fails.
   */
  take(synced: Seq): Pick<IndexChange, 'dirty' | 'dropDirty'>;
  /** The index has it, durably. */
  committed(): void;
}

export interface CheckpointerOptions {
  intervalMs?: number;
}

interface Link {
  fact: LinkFact;
  holds: boolean;
  changed: boolean;
}

/** Log space that is spared when the head goes back: for the ends of segments, and a request that is on its way. */
const REWIND_SPARE = 4 * MIB;

/** Applied and synced bytes after which a checkpoint is made without waiting for its time. */
const CHECKPOINT_BYTES = 32 * MIB;

export class Checkpointer implements Machine {
  /** Absent where links that leave the ring are not resynced: then an inconsistent one holds nothing of the log. */
  readonly dirt: DirtPort | undefined;
  private readonly log: LogFile;
  private readonly index: Index;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly clock: Clock;
  private readonly events: CheckpointerParts['events'];
  private readonly intervalMs: number;

  private checkpoint: LogPlace;
  private readonly links = new Map<number, Link>();
  private dropped: number[] = [];
  private reigns: ReignFact[] = [];
  private segments: SegmentFact[] = [];
  /** First record of each segment that the index knows, and of those it is to know; made when somebody asks. */
  private firsts: Map<LogPos, Seq> | undefined;
  private changed = false;
  private asked = false;
  private failing = false;
  private lastTry = -Infinity;
  private closed = false;
  /** A full seq near DURABLE. */
  private near: Seq;

  constructor(parts: CheckpointerParts, options: CheckpointerOptions = {}) {
    const { log, index, shared, recovered } = parts;
    this.log = log;
    this.index = index;
    this.window = parts.window;
    this.shared = shared;
    this.clock = parts.clock;
    this.events = parts.events;
    this.dirt = parts.dirt;
    this.intervalMs = options.intervalMs ?? 1000;
    const lost = recovered?.indexLost ?? indexIsLost(log.super, index);
    const indexed = lost ? undefined : index.checkpoint();
    this.checkpoint =
      recovered?.checkpoint ??
      (indexed !== undefined && indexed.pos > log.super.checkpoint.pos ? { ...indexed } : log.super.checkpoint);
    for (const fact of recovered?.links ?? trustedLinks(log.super, index))
      this.links.set(fact.nr, { fact, holds: this.holdsBy(fact), changed: lost });
    this.near = log.super.durable.seq;
    this.shared.logHead = log.super.head.pos;
    shared.logRing = log.ring;
    shared.map(log.mapping.base, log.ring);
    // The first commit into an index that is not the right one must say so of every link. And a daemon that died
    // between index and superblock left space that nobody else will report again: a full log would stay full.
    this.asked = lost;
    this.changed = lost || index.generation !== log.super.indexGeneration || this.head().pos > log.super.head.pos;
  }

  /** Slink 0's images hold, synced, everything before `place` (a batch boundary). */
  noteApplied(place: LogPlace): void {
    if (place.pos <= this.checkpoint.pos) return;
    this.checkpoint = { ...place };
    this.changed = true;
  }

  /**
   * For a link that is to begin with the history: puts the head back to the beginning of the log, where nothing
   * has been written over since. False, and nothing changed, where something has, or soon would be.
   */
  rewind(): boolean {
    const { shared, window, log } = this;
    const before = shared.logHead;
    if (before === 0) return true;
    // The data thread admits by this word: first it stops, then it is counted what it had admitted before.
    shared.logHead = 0;
    const { pos, seq } = this.durablePlace();
    const tail = window.seqOf(W.TAIL, seq);
    const bytes = tail === seq ? 0 : window.payloadEnd(window.slotAt(tail - 1)) - window.payloadPos(window.slotAt(seq));
    if (log.oldest(pos) === 0 && pos + bytes + (tail - seq) * 2 * ALIGN + REWIND_SPARE <= log.ring) return true;
    shared.logHead = before;
    return false;
  }

  /** A link's cursor or state; `holds` = what the log holds behind its cursor must be kept. */
  noteLink(fact: LinkFact, holds = fact.sync === 'in-order' || this.dirt !== undefined): void {
    if (holds && fact.cursor.pos < this.shared.logHead)
      throw new RepError(
        'EINVAL',
        `site ${fact.nr} is to go on at record ${fact.cursor.seq}, which the replog no longer holds; it needs a resync`,
      );
    this.links.set(fact.nr, { fact: { ...fact, cursor: { ...fact.cursor } }, holds, changed: true });
    this.changed = true;
  }

  /** A link is no more. */
  dropLink(nr: number): void {
    this.links.delete(nr);
    this.dropped.push(nr);
    this.changed = true;
  }

  noteReign(fact: ReignFact): void {
    this.reigns.push(fact);
    this.changed = true;
  }

  noteSegment(fact: SegmentFact): void {
    this.segments.push(fact);
    this.firsts?.set(fact.start, fact.firstSeq);
    this.changed = true;
  }

  /** Commit at the next step, whatever the interval. */
  ask(): void {
    this.asked = true;
    this.changed = true;
  }

  /** There is something to commit, in its time. */
  touch(): void {
    this.changed = true;
  }

  /** Everything below is on slink 0's images, synced. */
  get synced(): Seq {
    return this.checkpoint.seq;
  }

  /** Number of the first record of the closed segment at `start`, where it is known. */
  firstSeq(start: LogPos): Seq | undefined {
    this.firsts ??= new Map([...this.index.segments(), ...this.segments].map((s) => [s.start, s.firstSeq]));
    return this.firsts.get(start);
  }

  /** Extents of the closed segment at `start`, those included that the index has not got yet. */
  extents(start: LogPos): Uint8Array | undefined {
    return this.segments.find((segment) => segment.start === start)?.extents ?? this.index.extents(start);
  }

  step(): number {
    if (!this.changed || this.closed) return this.intervalMs;
    const now = this.clock.monoMs();
    const left = this.intervalMs - (now - this.lastTry);
    // After a failure only time helps; otherwise space that is wanted is given back at once.
    // Recovery reads and replays what lies behind the checkpoint, so that is bounded in bytes as well.
    const far = this.checkpoint.pos - this.log.super.checkpoint.pos >= CHECKPOINT_BYTES;
    const wanted = this.head().pos - this.shared.logHead >= this.log.ring / 16;
    const soon = !this.failing && (this.asked || far || wanted);
    if (left > 0 && !soon) return left;
    this.lastTry = now;
    try {
      this.commit(false);
      this.failing = false;
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      if (!this.failing) this.events.checkpointFailed(error);
      this.failing = true;
    }
    return this.intervalMs;
  }

  /** Who keeps the head where it is, where that is, and how many bytes behind the durable end. 0 = slink 0. */
  holder(): { nr: number; pos: LogPos; bytes: number } {
    const { nr, pos } = this.head();
    return { nr, pos, bytes: this.durablePlace().pos - pos };
  }

  /** Where link `nr` stands, if it is known. */
  link(nr: number): Readonly<LinkFact> | undefined {
    return this.links.get(nr)?.fact;
  }

  /**
   * Commits everything and marks the log cleanly closed. Throws EBUSY while the window holds what is not
   * durable: a log that says "clean" ends for certain at its durable point.
   */
  closeClean(): void {
    const durable = this.durablePlace();
    if (this.window.seqOf(W.TAIL, durable.seq) !== durable.seq)
      throw new RepError('EBUSY', `replog ${this.log.path}: records are not durable yet; sync before closing`);
    this.commit(true);
    this.closed = true;
  }

  private commit(clean: boolean): void {
    const head = this.head();
    const links = [...this.links.values()].filter((link) => link.changed);
    const { reigns, segments, dropped } = this;
    const below = head.pos - (head.pos % this.log.segment);
    const change: IndexChange = {
      checkpoint: this.checkpoint,
      dropSegmentsBelow: below,
      ...this.dirt?.take(this.checkpoint.seq),
      ...(links.length > 0 && { links: links.map((link) => link.fact) }),
      ...(dropped.length > 0 && { dropLinks: dropped }),
      ...(reigns.length > 0 && { reigns }),
      ...(segments.length > 0 && { segments }),
    };
    const indexGeneration = this.index.commit(change);
    for (const link of links) link.changed = false;
    this.dropped = [];
    this.reigns = [];
    this.segments = [];
    for (const start of this.firsts?.keys() ?? []) if (start < below) this.firsts!.delete(start);
    this.dirt?.committed();

    const durable = this.durablePlace();
    const r = this.log.writeSuper(
      {
        indexId: this.index.id,
        indexGeneration,
        clean,
        checkpoint: this.checkpoint,
        head: { pos: head.pos, seq: head.seq },
        durable: { pos: durable.pos, seq: durable.seq },
      },
      this.clock,
    );
    if (r < 0) throw ioError(r, 'writing its superblock', this.log.path);
    this.changed = this.asked = false;

    if (head.pos > this.shared.logHead) this.shared.logHead = head.pos;
  }

  /**
   * An inconsistent site that is not resynced gets nothing from the log. One that is goes on from its cursor, unless the
   * index that said so was lost, or the log has gone beyond it.
   */
  private holdsBy({ sync, cursor }: LinkFact): boolean {
    return sync === 'in-order' || (this.dirt !== undefined && cursor.pos >= this.log.super.head.pos);
  }

  private head(): { pos: LogPos; seq: Seq; nr: number } {
    let head = { pos: this.checkpoint.pos, seq: this.checkpoint.seq, nr: 0 };
    for (const { fact, holds } of this.links.values())
      if (holds && fact.cursor.pos < head.pos) head = { pos: fact.cursor.pos, seq: fact.cursor.seq, nr: fact.nr };
    return head;
  }

  private durablePlace(): LogPlace {
    const place = this.window.durablePlace(this.near);
    this.near = place.seq;
    return place;
  }
}
