/** Brings closed segments into the index: those that the committer hands over, and those that nobody heard of. */
import type { Checkpointer } from '../replog/checkpointer.js';
import { missingSegments, readSegment, segmentFact } from '../replog/extents.js';
import type { LogFile } from '../replog/logfile.js';
import type { ClosedSegment } from '../replog/segments.js';
import type { Shared } from '../replog/shared.js';
import type { Window } from '../replog/window.js';
import type { Index } from '../index/contract.js';
import { tailOf } from './ends.js';
import { durablePos } from './gather.js';

export class Indexer {
  private readonly log: LogFile;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly checkpointer: Checkpointer;
  private readonly failed: (what: string) => void;
  private missing: number[] = [];

  constructor(
    log: LogFile,
    window: Window,
    shared: Shared,
    checkpointer: Checkpointer,
    failed: (what: string) => void,
  ) {
    this.log = log;
    this.window = window;
    this.shared = shared;
    this.checkpointer = checkpointer;
    this.failed = failed;
  }

  /** Finds out which segments closed while no daemon could hear of it. */
  look(index: Index): void {
    const known = index.segments().map((segment) => segment.start);
    this.missing = missingSegments(this.log, this.shared.logHead, durablePos(this.window), known);
  }

  /** One of them at a time, since main waits for the read. */
  step(): void {
    const start = this.missing.shift();
    if (start !== undefined) this.read(start);
  }

  closed(segment: ClosedSegment): void {
    if (segment.complete) this.note(segment);
    else this.read(segment.start);
  }

  private read(start: number): void {
    // Its place may have been used again by now.
    if (start < this.shared.logHead) return;
    try {
      this.note(readSegment(this.log, start, this.window.durablePlace(tailOf(this.window))));
    } catch (error) {
      this.failed(`indexing the segment at position ${start}: ${(error as Error).message}`);
    }
  }

  private note(segment: ClosedSegment): void {
    const fact = segmentFact(segment);
    if (fact !== undefined) this.checkpointer.noteSegment(fact);
  }
}
