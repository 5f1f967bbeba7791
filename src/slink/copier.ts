/**
 * Makes ranges of a site equal to slink 0's images: compares where that pays, writes only what differs, in long runs, and
 * zeroes what reads as zeroes. It knows nothing of regions, records or time; whether what was read counts is said by
 * LocalSource, and asked here between the read and the first byte that is written.
 *
 * Comparing costs a read of the site to spare a write. Where nearly all differs (a new site, an exchanged image) that
 * is lost time: after SURE bytes in a row that differed the site is only written, and a piece now and then is compared.
 */
import { ERRNO } from '../base/errors.js';
import { Mem } from '../base/mem.js';
import { BLOCK, KIB, MIB } from '../base/units.js';
import type { Site, SiteCopy } from './contract.js';
import type { LocalSource } from './local-source.js';

/** What is read at most at once, here and there. */
export const PIECE = 4 * MIB;
/** Stretches of zeroes from this size on are zeroed, shorter ones are written with what is around them. */
const ZEROES = 64 * KIB;
/** Equal blocks between two that differ are written along, up to this size: one call costs more. */
const GAP = 16 * KIB;
/** First comparison of what is larger: most pieces are equal as a whole. */
const COARSE = 64 * KIB;
/** What was zeroed at once at most. */
const ZERO_PIECE = 64 * MIB;

/** Bytes in a row that differed, so that the next ones are taken to differ; then one piece of so many is compared. */
const SURE = 16 * MIB;
const LOOK_AGAIN = 8;

/** Why a range was not made equal. Errnos are negative. */
export const COPY = { DONE: 0, SITE: 1, LOCAL: 2, UNCOUNTED: 3 } as const;
export type CopyResult = (typeof COPY)[keyof typeof COPY];

export class Copier {
  /** Bytes written to the site and, of them, those that were only zeroed; bytes read here, and of the site. */
  written = 0;
  zeroed = 0;
  read = 0;
  readThere = 0;
  /** Of the last call that was not DONE. */
  errno = 0;

  private readonly local: LocalSource;
  private readonly site: Site;
  private ours: Mem | undefined;
  private theirs: Mem | undefined;
  /** Bytes in a row of which most differed; pieces since one was compared. */
  private different = 0;
  private unlooked = 0;

  constructor(local: LocalSource, site: Site) {
    this.local = local;
    this.site = site;
  }

  /** Bytes that went to the site or came from it. */
  get moved(): number {
    return this.readThere + this.written - this.zeroed;
  }

  private get copy(): SiteCopy {
    return this.site.copy!;
  }

  /**
   * Makes what it can of [from, end) equal, at most `piece` bytes that have to be read. The end of what is equal then
   * stands in `reached`, which lies behind `from` where it returns DONE.
   */
  some(nr: number, from: number, end: number, piece: number): CopyResult {
    const { local } = this;
    const data = local.nextData(nr, from, end);
    if (data < 0) return this.fail(COPY.LOCAL, data);
    // A hole is a matter of whole blocks, but for the end of the device.
    const hole = data === end ? end : Math.floor(data / BLOCK) * BLOCK;
    if (hole > from) return local.end() ? this.clear(nr, from, hole, piece) : COPY.UNCOUNTED;
    const length = Math.min(end - from, piece, PIECE);
    const ours = (this.ours ??= Mem.large(PIECE));
    const rc = local.read(nr, from, length, ours, 0);
    if (rc < 0) return this.fail(COPY.LOCAL, rc);
    if (!local.end()) return COPY.UNCOUNTED;
    this.read += length;
    this.reached = from + length;
    if (this.different >= SURE && ++this.unlooked % LOOK_AGAIN !== 0) return this.put(nr, from, 0, length);
    return this.compare(nr, from, length);
  }

  /** End of what the last `some` made equal. */
  reached = 0;

  /** A new site, or one that was opened again. */
  forget(): void {
    this.different = 0;
    this.unlooked = 0;
  }

  close(): void {
    this.ours?.unmap();
    this.theirs?.unmap();
    this.ours = this.theirs = undefined;
  }

  /** Here all is zero; there, what is not becomes so. */
  private clear(nr: number, from: number, end: number, piece: number): CopyResult {
    const { copy } = this;
    if (copy.nextData === undefined) return this.clearByReading(nr, from, Math.min(end, from + Math.min(piece, PIECE)));
    const data = copy.nextData(nr, from, end);
    if (data < 0) return this.fail(COPY.SITE, data);
    this.reached = end;
    if (data >= end) return COPY.DONE;
    const at = Math.max(from, Math.floor(data / BLOCK) * BLOCK);
    this.reached = Math.min(end, at + ZERO_PIECE);
    return this.zero(nr, at, this.reached - at);
  }

  private clearByReading(nr: number, from: number, end: number): CopyResult {
    const length = end - from;
    const rc = this.readSite(nr, from, length);
    if (rc < 0) return this.fail(COPY.SITE, rc);
    this.reached = end;
    return isZero(this.theirs!, 0, length) ? COPY.DONE : this.zero(nr, from, length);
  }

  private compare(nr: number, from: number, length: number): CopyResult {
    const rc = this.readSite(nr, from, length);
    if (rc < 0) return this.fail(COPY.SITE, rc);
    const before = this.written;
    const result = this.putDifferent(nr, from, length);
    this.different = (this.written - before) * 4 >= length * 3 ? this.different + length : 0;
    return result;
  }

  private putDifferent(nr: number, from: number, length: number): CopyResult {
    /** Of the run that is growing; -1 = none. */
    let start = -1;
    let stop = 0;
    for (let at = 0; at < length; at += COARSE) {
      const coarse = Math.min(at + COARSE, length);
      if (this.same(at, coarse)) continue;
      for (let block = at; block < coarse; block += BLOCK) {
        const to = Math.min(block + BLOCK, coarse);
        if (this.same(block, to)) continue;
        if (start >= 0 && block - stop > GAP) {
          const result = this.put(nr, from, start, stop);
          if (result !== COPY.DONE) return result;
          start = -1;
        }
        if (start < 0) start = block;
        stop = to;
      }
    }
    return start < 0 ? COPY.DONE : this.put(nr, from, start, stop);
  }

  private same(from: number, to: number): boolean {
    return this.ours!.u8.compare(this.theirs!.u8, from, to, from, to) === 0;
  }

  /** Writes [start, stop) of what was read at `from`; long stretches of zeroes in it are zeroed. */
  private put(nr: number, from: number, start: number, stop: number): CopyResult {
    const ours = this.ours!;
    for (let at = start; at < stop;) {
      let end = at;
      while (end < stop && isZero(ours, end, Math.min(ZEROES, stop - end))) end = Math.min(end + ZEROES, stop);
      if (end - at >= ZEROES) {
        const result = this.zero(nr, from + at, end - at);
        if (result !== COPY.DONE) return result;
        at = end;
        continue;
      }
      end = Math.min(at + ZEROES, stop);
      while (end < stop && !(stop - end >= ZEROES && isZero(ours, end, ZEROES))) end = Math.min(end + ZEROES, stop);
      const rc = this.copy.write(nr, from + at, end - at, ours, at);
      if (rc < 0) return this.fail(COPY.SITE, rc);
      this.written += end - at;
      at = end;
    }
    return COPY.DONE;
  }

  private zero(nr: number, offset: number, length: number): CopyResult {
    const rc = this.copy.zero(nr, offset, length);
    if (rc < 0) return this.fail(COPY.SITE, rc);
    this.written += length;
    this.zeroed += length;
    return COPY.DONE;
  }

  private readSite(nr: number, from: number, length: number): number {
    const theirs = (this.theirs ??= Mem.large(PIECE));
    for (let done = 0; done < length; done += MIB) {
      const some = Math.min(MIB, length - done);
      const rc = this.copy.read(nr, from + done, some, theirs, done);
      if (rc < some) return rc < 0 ? rc : -ERRNO.EIO;
    }
    this.readThere += length;
    return 0;
  }

  private fail(result: CopyResult, errno: number): CopyResult {
    this.errno = errno;
    return result;
  }
}

/** Eight bytes of zeroes, and all that follows is like what stands eight bytes before it. */
function isZero(mem: Mem, at: number, length: number): boolean {
  if (mem.dv.getUint32(at, true) !== 0 || mem.dv.getUint32(at + 4, true) !== 0) return false;
  return mem.u8.compare(mem.u8, at, at + length - 8, at + 8, at + length) === 0;
}
