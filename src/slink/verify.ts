/**
 * Verify: compares a site with slink 0's images while both are written to, without a lock and without writing. A machine
 * of the shipper's thread, which it takes turns with: one piece is looked at, then a batch of records goes on its way.
 *
 *   first look    read both; sectors that differ are suspects; seen := DURABLE
 *   second look   once the site's cursor and APPLIED have passed `seen`: read both; seen := DURABLE
 *   verdict       once the site's cursor, and the last sync of slink 0's images, have passed this `seen`
 *
 * All along, sectors that a record writes on its way to the site are crossed out: both sides hold what it wrote once both
 * have it, whatever was there before. So a sector that is left at the verdict was touched by no record between the two
 * looks nor during them, and at the second look both sides had everything that was ever written to it: what differs then
 * has no business to.
 *
 * A page that the kernel could not write back may show what was there before, until a sync tells. Hence the wait for the
 * next sync of slink 0's images, a flush of the site, and a second look anew if a sync failed meanwhile (DOUBTS).
 *
 * It ends where the site fails, is paused or left behind: nothing is kept of it but what it has found so far.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { BLOCK, KIB, MIB, SECTOR, roundDown, roundUp } from '../base/units.js';
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { SiteCopy } from './contract.js';
import { Differences, type DifferentRange } from './differences.js';
import type { LocalSource } from './local-source.js';
import { CHUNK, Suspects, type Suspect } from './suspects.js';
import type { Throttle } from './throttle.js';

/** `waiting`: slink 0's images cannot be trusted just now. The last three are ends. */
export type VerifyState = 'running' | 'waiting' | 'done' | 'stopped' | 'failed';

export interface VerifyReport {
  state: VerifyState;
  /** Why it waits, or has ended without looking at everything; ''. */
  reason: string;
  /** Bytes of all devices, and how many of them were looked at. */
  total: number;
  compared: number;
  /** Bytes per second, over the last few; 0 = not known yet. */
  rate: number;
  /** Bytes that were seen to differ and are still to be judged. */
  suspected: number;
  /** Bytes that differ, and the ranges in which they lie (differences.ts). */
  different: number;
  grain: number;
  ranges: DifferentRange[];
}

export interface VerifyParts {
  window: Window;
  shared: Shared;
  clock: Clock;
  /** Slink 0's images of these devices. */
  local: LocalSource;
  /** The site, open. */
  site: { readonly copy: SiteCopy; readonly unflushed: boolean; flush(): number };
  throttle: Throttle;
  /** A few times a second, and at its end. */
  told(report: VerifyReport): void;
}

export interface VerifyOptions {
  devices: readonly { nr: number; size: number }[];
  /** Chunks that may be suspected at once; then the walk rests until some were judged. Default 4096. */
  mostSuspects?: number;
  /** Longest time that a piece should take, milliseconds: so long a record waits. Default 5. */
  pieceMs?: number;
}

const LARGEST = 4 * MIB;
const SMALLEST = 64 * KIB;
/** Nothing to be done but to wait for cursor, applier or sync. */
const LOOK_MS = 20;
/** Slink 0's images could not be trusted. */
const RETRY_MS = 200;
const TELL_MS = 250;
/** The rate is that of so many milliseconds. */
const RATE_MS = 5000;

export class Verify {
  private readonly p: VerifyParts;
  private readonly devices: readonly { nr: number; size: number }[];
  private readonly mostSuspects: number;
  private readonly pieceMs: number;
  /** Two pieces, side by side. */
  private readonly mem = Mem.large(2 * LARGEST);
  private readonly suspects = new Suspects();
  private readonly found: Differences;

  private state: VerifyState = 'running';
  private reason = '';
  /** Why slink 0's images could not be read in this step, ''. */
  private waits = '';
  /** DURABLE, a while ago: words of the window are told apart by it. */
  private last: number;
  /** Where the walk is. */
  private at = 0;
  private pos = 0;
  private piece = MIB;
  private compared = 0;
  /** Everything that was durable at the beginning: the site has to have all devices. */
  private readonly begin: number;
  /** Second looks so far, and how many of them are behind a flush of the site. */
  private looks = 0;
  private flushed = 0;
  private readonly moments: { ms: number; bytes: number }[] = [];
  private toldAt = -Infinity;

  constructor(parts: VerifyParts, options: VerifyOptions) {
    this.p = parts;
    this.devices = options.devices;
    this.mostSuspects = options.mostSuspects ?? 4096;
    this.pieceMs = options.pieceMs ?? 5;
    this.found = new Differences(options.devices);
    this.last = parts.window.tailSeq() ?? 0;
    this.begin = this.last = this.durable();
    this.tell(parts.clock.monoMs());
  }

  get over(): boolean {
    return this.state === 'done' || this.state === 'stopped' || this.state === 'failed';
  }

  /** It cannot go on before the site has confirmed everything below; 0 where it can. */
  get wants(): number {
    if (this.over) return 0;
    const suspect = this.mayWalk ? undefined : (this.suspects.oldest(2) ?? this.suspects.oldest(1));
    return Math.max(this.begin, suspect?.seen ?? 0);
  }

  /** Records go to the site, just now or within this turn. */
  sent(mem: Mem, headers: number, count: number): void {
    this.suspects.crossOut(mem, headers, count);
  }

  /**
   * Goes on by one piece. `cursor`: everything below is in the site. Returns when to come again (0 = at once, Infinity =
   * it is over), or the negative errno of the site, which has said why.
   */
  step(cursor: number): number {
    if (this.over) return Infinity;
    const { clock } = this.p;
    const now = clock.monoMs();
    this.note(now);
    if (cursor < this.begin) return LOOK_MS;
    const owed = this.p.throttle.wait();
    if (owed > 0) return owed;
    this.last = this.durable();
    this.waits = '';
    const rc = this.work(cursor);
    if (this.over) this.tell(clock.monoMs());
    else this.setState(this.waits === '' ? 'running' : 'waiting', this.waits);
    return rc;
  }

  /** Ends it: an operator's wish, or something that makes it pointless. */
  end(state: 'stopped' | 'failed', reason: string): void {
    if (this.over) return;
    this.setState(state, reason);
    this.tell(this.p.clock.monoMs());
  }

  close(): void {
    this.suspects.clear();
    this.mem.unmap();
  }

  // --- what is next ----------------------------------------------------------------------------------------

  private get walked(): boolean {
    return this.at >= this.devices.length;
  }

  /** A chunk is walked to its end in any case: before that it is not looked at again. */
  private get mayWalk(): boolean {
    return !this.walked && (this.suspects.size < this.mostSuspects || this.pos % CHUNK !== 0);
  }

  private work(cursor: number): number {
    const judged = this.suspects.oldest(2);
    if (judged !== undefined && this.mayJudge(judged, cursor)) return this.judge(judged);
    const seen = this.suspects.oldest(1);
    if (seen !== undefined && this.mayLook(seen, cursor)) return this.lookAgain(seen);
    if (this.mayWalk) return this.walk();
    if (!this.walked || this.suspects.size > 0) return LOOK_MS;
    this.setState('done', '');
    return Infinity;
  }

  // --- the first look --------------------------------------------------------------------------------------

  private walk(): number {
    const device = this.devices[this.at]!;
    const { nr, size } = device;
    if (this.pos >= size) return this.nextDevice(0);
    const { clock } = this.p;
    const skipped = this.skipHoles(nr, size);
    if (skipped < 0) return skipped;
    if (this.pos >= size) return this.nextDevice(0);
    const piece = this.p.throttle.piece(this.piece);
    const length = Math.min(size - this.pos, piece - (this.pos % piece));
    const began = clock.monoMs();
    const rc = this.readBoth(nr, this.pos, length);
    if (rc !== 0) return rc === -ERRNO.ENODEV ? this.nextDevice(size - this.pos) : rc;
    this.compare(nr, this.pos, length);
    this.pos += length;
    this.compared += length;
    const ms = clock.monoMs() - began;
    this.p.throttle.worked(ms, length);
    if (ms > this.pieceMs) this.piece = Math.max(SMALLEST, this.piece / 2);
    else if (ms < this.pieceMs / 3) this.piece = Math.min(LARGEST, this.piece * 2);
    return 0;
  }

  private nextDevice(left: number): number {
    this.compared += left;
    this.at++;
    this.pos = 0;
    return 0;
  }

  /** Where both sides say that there is nothing, there is nothing to read. 0, or the negative errno of the site. */
  private skipHoles(nr: number, size: number): number {
    const { local, site } = this.p;
    if (site.copy.nextData === undefined || !local.usable) return 0;
    const here = local.nextData(nr, this.pos, size);
    // Why it cannot be read is found out by reading.
    if (here <= this.pos) return 0;
    const there = site.copy.nextData(nr, this.pos, size);
    if (there < 0 && there !== -ERRNO.ENODEV) return there;
    const to = Math.min(here, there, size);
    const skip = (to >= size ? size : roundDown(to, BLOCK)) - this.pos;
    if (skip <= 0) return 0;
    this.pos += skip;
    this.compared += skip;
    return 0;
  }

  /** Marks the sectors of the piece that differ. */
  private compare(nr: number, pos: number, length: number): void {
    if (this.same(0, length)) return;
    const seen = this.durable();
    for (let at = 0; at < length; at += BLOCK) {
      const end = Math.min(at + BLOCK, length);
      if (this.same(at, end)) continue;
      for (let sector = at; sector < end; sector += SECTOR)
        if (!this.same(sector, sector + SECTOR)) this.suspects.mark(nr, pos + sector, seen);
    }
  }

  private same(from: number, to: number): boolean {
    const { u8 } = this.mem;
    return u8.compare(u8, LARGEST + from, LARGEST + to, from, to) === 0;
  }

  // --- the second look, and the verdict --------------------------------------------------------------------

  private mayLook(suspect: Suspect, cursor: number): boolean {
    // The walk may still add to it.
    const passed = this.walked || this.devices[this.at]!.nr !== suspect.device || this.pos >= suspect.start + CHUNK;
    return passed && cursor >= suspect.seen && this.applied() >= suspect.seen;
  }

  private lookAgain(suspect: Suspect): number {
    const { clock } = this.p;
    // Whole blocks, which can be read past the cache.
    const { size } = this.devices.find(({ nr }) => nr === suspect.device)!;
    const pos = suspect.start + roundDown(suspect.next(0) * SECTOR, BLOCK);
    const length = Math.min(roundUp(suspect.start + suspect.end * SECTOR, BLOCK), size) - pos;
    const began = clock.monoMs();
    const rc = this.readBoth(suspect.device, pos, length);
    if (rc === -ERRNO.ENODEV) {
      this.suspects.drop(suspect);
      return 0;
    }
    if (rc !== 0) return rc;
    suspect.forEach((start, end) => {
      for (let at = start; at < end; at += SECTOR)
        if (this.same(at - pos, at - pos + SECTOR)) suspect.clear((at - suspect.start) / SECTOR);
    });
    if (suspect.left === 0) this.suspects.drop(suspect);
    else this.suspects.looked(suspect, ++this.looks, this.durable(), this.p.local.doubts);
    this.p.throttle.worked(clock.monoMs() - began, length);
    return 0;
  }

  private mayJudge(suspect: Suspect, cursor: number): boolean {
    return cursor >= suspect.seen && this.synced() >= suspect.seen && this.p.window.load(W.DOUBT) === 0;
  }

  private judge(suspect: Suspect): number {
    const { shared, site } = this.p;
    if (shared.load(SH.DOUBTS) !== suspect.doubts) {
      this.suspects.again(suspect, suspect.seen);
      return 0;
    }
    if (suspect.look > this.flushed) {
      const rc = site.unflushed ? site.flush() : 0;
      if (rc < 0) return rc;
      this.flushed = this.looks;
    }
    suspect.forEach((start, end) => this.found.add(suspect.device, start, end));
    this.suspects.drop(suspect);
    return 0;
  }

  // --- reading ---------------------------------------------------------------------------------------------

  /** Local image at 0, site at LARGEST: 0, ENODEV, or what `step` returns. */
  private readBoth(nr: number, pos: number, length: number): number {
    const { local, site } = this.p;
    if (!local.begin(this.last)) return this.localWaits();
    const here = local.read(nr, pos, length, this.mem, 0);
    if (here < 0) {
      if (local.troubled()) return this.localWaits();
      this.setState('failed', local.reason);
      return Infinity;
    }
    const there = site.copy.read(nr, pos, length, this.mem, LARGEST);
    if (there < 0) return there;
    return local.end() ? 0 : this.localWaits();
  }

  /** What was read of slink 0's images, if anything was, does not count. */
  private localWaits(): number {
    if (this.p.local.troubled()) this.waits = this.p.local.reason;
    return RETRY_MS;
  }

  private durable(): number {
    return this.p.window.seqOf(W.DURABLE, this.last);
  }

  private applied(): number {
    return this.p.window.seqOf(W.APPLIED, this.last);
  }

  /** Everything below is in slink 0's images, synced. */
  private synced(): number {
    return this.last + ((this.p.shared.load(SH.SYNCED) - this.last) | 0);
  }

  // --- telling ---------------------------------------------------------------------------------------------

  get report(): VerifyReport {
    const { state, reason, compared, found } = this;
    return {
      ...{ state, reason, compared },
      total: this.devices.reduce((sum, { size }) => sum + size, 0),
      rate: this.rate(),
      suspected: this.suspects.bytes,
      different: found.bytes,
      grain: found.grain,
      ranges: found.ranges,
    };
  }

  private setState(state: VerifyState, reason: string): void {
    if (state === this.state && reason === this.reason) return;
    this.state = state;
    this.reason = reason;
    this.toldAt = -Infinity;
  }

  private note(now: number): void {
    if (now - this.toldAt < TELL_MS) return;
    this.moments.push({ ms: now, bytes: this.compared });
    while (this.moments.length > 2 && now - this.moments[0]!.ms > RATE_MS) this.moments.shift();
    this.tell(now);
  }

  private tell(now: number): void {
    this.toldAt = now;
    this.p.told(this.report);
  }

  private rate(): number {
    const from = this.moments.at(0);
    const to = this.moments.at(-1);
    if (from === undefined || to === undefined || to.ms <= from.ms) return 0;
    return ((to.bytes - from.bytes) * 1000) / (to.ms - from.ms);
  }
}
