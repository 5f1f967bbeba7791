/**
 * A log that changes its size while it is used. Log positions are absolute, so to resize is to let them stand elsewhere:
 * at byte DATA_START + (position - base) mod ring with another base and another ring. That is possible at a moment when
 * every live position, from the head to what the committer has written, stands at the same byte either way:
 *
 *   in one lap     base := start of that lap                            old  |........hhhhhhtt......|
 *                                                                       new  |........hhhhhhtt..............|
 *   wrapped        growth by as much as the wrapped part: it is copied  old  |ttt.........hhhhhhhhhh|
 *                  behind the old end; base := start of the lap before  new  |...........hhhhhhhhhhttt......|
 *   empty          shrink: base := start of the segment that is being filled; what is in it is copied to the front
 *
 * A growth for which none holds waits until the head comes into the lap of the tail; a shrink is refused.
 *
 * The order, and what a death between two steps leaves:
 *   1. the file is grown, zeroes, synced   a file that is longer than its superblock says: nobody looks there
 *   2. the committer holds                 nothing: the next daemon's does not
 *   3. what has to be copied is, synced    bytes that nobody looks at yet
 *   4. both superblocks                    either mapping, both right as nothing was written by the new one alone. What
 *                                          only one superblock says is written again before it is relied on
 *   5. MAP, LOG_RING, the committer goes on
 *   6. shrink: the file is cut             a file that is too long
 *
 * Readers (LogFile.read) look at MAP before and behind each read: what they read by the old mapping is right as long as
 * nobody could have written by the new one. Runs on main, which owns superblocks, LOG_HEAD and MAP.
 */
import type { Clock, Machine } from '../base/clock.js';
import { RepError, errnoText } from '../base/errors.js';
import { MIB, formatSize, type LogPos, type Seq } from '../base/units.js';
import { ALIGN, DATA_START, maxPayloadFor, worstLogBytes } from './format.js';
import { byteOf, minLogSize, resizedGeometry, type LogFile, type LogGeometry, type LogMapping } from './logfile.js';
import type { LogJob } from './logwork.js';
import { SH, type Shared } from './shared.js';
import { W, type Window } from './window.js';

/** Where positions are to stand, and which of them have to be copied there first. */
export interface MappingPlan extends LogMapping {
  /** Positions before it cannot be found any more. */
  oldest: LogPos;
  /** [from, to): log positions, in one piece under either mapping. */
  copy?: { from: LogPos; to: LogPos };
}

/** How [low, pos), the live part, comes under a ring of `ring` bytes; undefined where it cannot now. */
export function planMapping(
  old: LogMapping & { readonly oldest: LogPos },
  ring: number,
  segment: number,
  low: LogPos,
  pos: LogPos,
): MappingPlan | undefined {
  if (ring === old.ring) return { base: old.base, ring, oldest: old.oldest };
  const lap = low - ((low - old.base) % old.ring);
  const end = lap + old.ring;
  if (pos <= end && pos - lap <= ring) return { base: lap, ring, oldest: Math.max(lap, old.oldest) };
  if (pos > end && pos - lap <= ring)
    return { base: lap, ring, oldest: Math.max(low, old.oldest), copy: { from: end, to: pos } };
  if (low !== pos) return undefined;
  const base = pos - (pos % segment);
  return { base, ring, oldest: base, ...(base < pos && { copy: { from: base, to: pos } }) };
}

/** The geometry that a log is to have; throws EINVAL with the sizes that are possible. */
export function geometryFor(path: string, segment: number, size: number): LogGeometry {
  const geometry = resizedGeometry(size, segment);
  if (geometry !== undefined) return geometry;
  const least = minLogSize(segment);
  throw new RepError(
    'EINVAL',
    `${path}: a log with segments of ${formatSize(segment)} cannot have ${size} bytes; give a multiple of 512 from ` +
      `${least} (${formatSize(least)}) up`,
  );
}

/** The sentence that says what became of it. */
export function sizeSentence(size: number, ring: number): string {
  return `the log has ${formatSize(size)} now; its ring of whole segments has ${formatSize(ring)}`;
}

/** Does the jobs, one at a time, where nobody waits for them. */
export interface LogWorker {
  start(job: LogJob): void;
  /** Undefined while it is under way. */
  result(): true | RepError | undefined;
  /** Bytes done of those to be done. */
  progress(): { bytes: number; total: number };
}

export interface ResizeParts {
  log: LogFile;
  window: Window;
  shared: Shared;
  clock: Clock;
  worker: LogWorker;
  /** The committer, which says `held` some time after `hold`. */
  committer: { hold(): void; release(): void; suspend(errno: number): void };
  /** Asks everybody who may keep the head to settle what he has. */
  hurry(): void;
  /** Who keeps the head, for a sentence. */
  holder(): string;
  events: {
    /** It is done, or it failed and everything is as it was. */
    ended(size: number, error?: RepError): void;
    /** The superblocks could not be written: the log is suspended until they are. */
    suspended(reason: string): void;
    /** Growing the file is over; if it has to wait for the head, `why` says so. */
    waits(why: string): void;
  };
}

const PHASE = { NONE: 0, GROW: 1, WAIT: 2, COPY: 3, HOLD: 4, LAST: 5, WRITE: 6, CUT: 7 } as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

export interface ResizeFacts {
  size: number;
  state: 'preparing' | 'waiting' | 'copying' | 'switching';
  /** Parts of what is being written now, bytes. */
  bytes: number;
  total: number;
  /** What it waits for; '' while it goes on. */
  reason: string;
}

const LOOK_MS = 20;
/** A growth that waits for the head looks so often, and so often asks those who may keep it. */
const WAIT_MS = 200;
const HURRY_MS = 5000;
const RETRY_MS = 1000;
const FOREVER = 1000;
/** A shrink waits so long for a head that is only about to move. */
const SHRINK_MS = 3000;
/** Copied while the committer holds; more is copied before. */
const LAST_COPY = 4 * MIB;

export class LogResize implements Machine {
  private readonly p: ResizeParts;
  private phase: Phase = PHASE.NONE;
  private target: LogGeometry = { size: 0, segment: 0, ring: 0 };
  private shrinks = false;
  private until = 0;
  private notBefore = 0;
  private hurried = -Infinity;
  private told = '';
  /** Copied ahead, for a mapping that begins at `copyBase`: positions up to `copied`. */
  private copyBase: LogPos = -1;
  private copied: LogPos = 0;
  private copyTo: LogPos = 0;
  private plan: MappingPlan | undefined;
  private suspended = false;
  private near: Seq;

  constructor(parts: ResizeParts) {
    this.p = parts;
    this.near = parts.log.super.durable.seq;
  }

  get busy(): boolean {
    return this.phase !== PHASE.NONE;
  }

  facts(): ResizeFacts | undefined {
    const { phase, target } = this;
    if (phase === PHASE.NONE) return undefined;
    const works = phase === PHASE.GROW || phase === PHASE.COPY || phase === PHASE.LAST;
    const { bytes, total } = works ? this.p.worker.progress() : { bytes: 0, total: 0 };
    const state =
      phase === PHASE.GROW
        ? 'preparing'
        : phase === PHASE.WAIT
          ? 'waiting'
          : phase === PHASE.COPY || phase === PHASE.LAST
            ? 'copying'
            : 'switching';
    return { size: target.size, state, bytes, total, reason: phase === PHASE.WAIT ? this.told : '' };
  }

  /** Begins; the events say how it ends. Throws EINVAL, or EPERM while another one is under way. */
  begin(size: number): void {
    const { log } = this.p;
    if (this.busy)
      throw new RepError(
        'EPERM',
        `${log.path}: is being resized to ${formatSize(this.target.size)} already; wait until status shows it done`,
      );
    this.target = geometryFor(log.path, log.segment, size);
    this.shrinks = size < log.size;
    this.until = this.p.clock.monoMs() + SHRINK_MS;
    this.told = '';
    this.copyBase = -1;
    this.hurried = -Infinity;
    this.notBefore = 0;
    if (this.shrinks) {
      this.phase = PHASE.WAIT;
      return;
    }
    const [start, end] = [DATA_START + log.ring, DATA_START + this.target.ring];
    this.p.worker.start({ do: 'grow', path: log.path, from: log.size, to: size, start, end });
    this.phase = PHASE.GROW;
  }

  /** The group is closed: what is not done now is not done. */
  stop(): void {
    if (this.phase === PHASE.HOLD || this.phase === PHASE.LAST) this.p.committer.release();
    if (this.phase !== PHASE.WRITE) this.phase = PHASE.NONE;
  }

  step(): number {
    switch (this.phase) {
      case PHASE.NONE:
        return FOREVER;
      case PHASE.GROW:
        return this.worked(() => (this.phase = PHASE.WAIT));
      case PHASE.WAIT:
        return this.wait();
      case PHASE.COPY:
        return this.worked(() => {
          this.copied = this.copyTo;
          this.phase = PHASE.WAIT;
        });
      case PHASE.HOLD:
        return LOOK_MS;
      case PHASE.LAST:
        return this.worked(() => this.write());
      case PHASE.WRITE:
        this.write();
        return RETRY_MS;
      case PHASE.CUT:
        // Where it fails, the file is longer than it need be.
        return this.worked(() => this.end(), true);
    }
  }

  private worked(then: () => void, whatever = false): number {
    const result = this.p.worker.result();
    if (result === undefined) return LOOK_MS;
    if (result === true || whatever) then();
    else this.end(result);
    return 0;
  }

  /** The live part as main sees it just now: the committer may be ahead. */
  private live(): { low: LogPos; pos: LogPos } {
    const place = this.p.window.durablePlace(this.near);
    this.near = place.seq;
    return { low: this.low(), pos: place.pos };
  }

  /** What is before it was given up in the superblock, and may be written over. */
  private low(): LogPos {
    const { log, shared } = this.p;
    return Math.min(shared.logHead, log.super.head.pos);
  }

  private planFor(low: LogPos, pos: LogPos): MappingPlan | undefined {
    const { log } = this.p;
    return planMapping({ ...log.mapping, oldest: log.super.oldest }, this.target.ring, log.segment, low, pos);
  }

  private wait(): number {
    const { shared, clock, committer, worker, log } = this.p;
    const now = clock.monoMs();
    if (now < this.notBefore) return this.notBefore - now;
    const { low, pos } = this.live();
    const plan = this.planFor(low, pos);
    const suspended = shared.load(SH.LOG_ERROR) !== 0;
    const fits = plan !== undefined && !suspended && this.admitted(low, pos);
    if (!fits) {
      if (this.shrinks && now >= this.until) {
        this.end(this.refusal(low, pos, suspended));
        return 0;
      }
      if (!this.shrinks) this.tell(suspended ? 'the log is suspended' : this.why(low, pos));
      const every = this.shrinks ? RETRY_MS : HURRY_MS;
      if (now - this.hurried >= every) {
        this.hurried = now;
        this.p.hurry();
      }
      return this.shrinks ? LOOK_MS : WAIT_MS;
    }
    // ! Ahead only where nobody writes yet: behind the old end. The front may be written to while it is not held.
    if (plan.copy !== undefined && !this.shrinks) {
      if (this.copyBase !== plan.base) {
        this.copyBase = plan.base;
        this.copied = plan.copy.from;
      }
      if (plan.copy.to - this.copied > LAST_COPY) {
        this.copyTo = plan.copy.to;
        worker.start(this.copyJob(log.mapping, plan));
        this.phase = PHASE.COPY;
        return LOOK_MS;
      }
    }
    this.phase = PHASE.HOLD;
    committer.hold();
    return LOOK_MS;
  }

  private tell(why: string): void {
    const first = this.told === '';
    this.told = why;
    if (first) this.p.events.waits(why);
  }

  /**
   * A log that is to shrink takes no more from now on than the smaller one can hold; true where all that was taken
   * before has its place there too. As for LogSpace, one request may be on its way.
   */
  private admitted(low: LogPos, pos: LogPos): boolean {
    const { log, shared, window } = this.p;
    const { ring } = this.target;
    if (!this.shrinks || ring === log.ring) return true;
    shared.logRing = Math.min(ring, shared.logRing);
    const seq = this.near;
    const tail = window.seqOf(W.TAIL, seq);
    const bytes = tail === seq ? 0 : window.payloadEnd(window.slotAt(tail - 1)) - window.payloadPos(window.slotAt(seq));
    const worst = worstLogBytes(maxPayloadFor(log.segment));
    const pending = bytes + (tail - seq) * 2 * ALIGN;
    const waste = worst * (3 + Math.floor(pending / (log.segment - worst)));
    return pos + pending + waste <= low + ring;
  }

  /** Main: the committer holds, everything before `pos` is in the file, synced, and nothing behind it. */
  held(pos: LogPos): void {
    if (this.phase !== PHASE.HOLD) return;
    const { committer, worker, clock, log } = this.p;
    const low = this.low();
    this.live();
    const plan = this.planFor(low, pos);
    if (plan === undefined || !this.admitted(low, pos)) {
      committer.release();
      this.notBefore = clock.monoMs() + LOOK_MS;
      this.phase = PHASE.WAIT;
      return;
    }
    this.plan = plan;
    if (plan.copy !== undefined) {
      if (this.shrinks || this.copyBase !== plan.base) this.copied = plan.copy.from;
      if (this.copied < pos) {
        this.copyTo = pos;
        worker.start(this.copyJob(log.mapping, plan));
        this.phase = PHASE.LAST;
        return;
      }
    }
    this.write();
  }

  private copyJob(old: LogMapping, plan: MappingPlan): LogJob {
    const { copied: from, copyTo } = this;
    return {
      do: 'copy',
      path: this.p.log.path,
      from: byteOf(old, from),
      to: byteOf(plan, from),
      bytes: copyTo - from,
    };
  }

  /** Both superblocks, then everybody. */
  private write(): void {
    const { log, shared, clock, committer, worker, events } = this.p;
    const { size, ring } = this.target;
    const plan = this.plan!;
    this.phase = PHASE.WRITE;
    const rc = log.remap(size, plan, clock);
    if (rc < 0) {
      if (!this.suspended) {
        events.suspended(`${log.path}: its superblock cannot be written: ${errnoText(rc)}`);
        committer.suspend(-rc);
      }
      this.suspended = true;
      return;
    }
    shared.map(plan.base, ring);
    shared.logRing = ring;
    committer.release();
    this.suspended = false;
    if (!this.shrinks) return this.end();
    worker.start({ do: 'cut', path: log.path, to: size });
    this.phase = PHASE.CUT;
  }

  private end(error?: RepError): void {
    const { log, shared, committer, events } = this.p;
    if (this.phase === PHASE.LAST) committer.release();
    this.phase = PHASE.NONE;
    shared.logRing = log.ring;
    events.ended(this.target.size, error);
  }

  private why(low: LogPos, pos: LogPos): string {
    const { log, holder } = this.p;
    const { base, ring } = log.mapping;
    const lap = low - ((low - base) % ring);
    const atOnce = log.size + pos - (lap + ring) + MIB;
    return (
      `the log has wrapped, and it grows when the part before the wrap is not needed any more (held by ${holder()}); ` +
      `a growth to ${formatSize(atOnce)} or more would need no waiting`
    );
  }

  private refusal(low: LogPos, pos: LogPos, suspended: boolean): RepError {
    const { log, holder } = this.p;
    const { base, ring } = log.mapping;
    const to = formatSize(this.target.size);
    if (suspended)
      return new RepError('EBUSY', `${log.path}: the log is suspended; repair it and resume, then shrink it`);
    const wraps = pos > low - ((low - base) % ring) + ring;
    const what = wraps ? 'what it holds goes around its end' : 'what it holds lies beyond the new end';
    return new RepError(
      'EBUSY',
      `${log.path}: cannot shrink to ${to} now: ${formatSize(pos - low)} in it are still needed by ${holder()}, and ${what}; ` +
        'wait until the sites have everything (reptool wait), then shrink it again',
    );
  }
}
