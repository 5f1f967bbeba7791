/**
 * One device at one site that is to be made equal: its bits, the log that keeps them, and the order of both around a
 * commit of the index, which moves the link's cursor:
 *
 *   before   the log's own device holds what it held *and* what is dirty now, synced: should the commit not happen, that
 *            is too much, and nothing is lost
 *   commit   cursor, wholeAt; the bits of a log that the index keeps, and of one whose device did not take them
 *   behind   the log's own device holds what is dirty now: what was cleared goes
 *
 * A device that is dead or does not flush holds nobody up: the index keeps its bits until it works again.
 */
import type { DirtyFact, IndexChange } from '../index/contract.js';
import { DirtyBits } from './bits.js';
import type { DirtyLog, DirtyLogNeeds } from './types.js';

export class DirtyKeep {
  readonly log: DirtyLog;
  bits: DirtyBits;
  private readonly link: number;
  private readonly device: number;
  /** What lasts of it as far as is known: bits that only this has are not cleared before a commit. */
  private kept: DirtyFact;
  /** The index holds `kept`. */
  private inIndex = false;
  /** The index holds a fact of it, that or another one. */
  private anyInIndex: boolean;
  /** What the commit holds that is being made, and whether in the index. */
  private asked: { fact: DirtyFact; inIndex: boolean } | undefined;

  /** Loads: what the log knows nothing of is dirty. */
  constructor(log: DirtyLog, needs: Pick<DirtyLogNeeds, 'leg' | 'region' | 'sectors' | 'fact'>) {
    this.log = log;
    this.link = needs.leg.link;
    this.device = needs.leg.device;
    const held = log.load();
    if (held !== undefined) {
      this.bits = DirtyBits.from(held, needs.region, needs.sectors);
    } else {
      this.bits = new DirtyBits(needs.region, needs.sectors);
      this.bits.fill();
    }
    this.kept = this.fact();
    this.anyInIndex = needs.fact !== undefined;
    this.inIndex = needs.fact !== undefined && equal(needs.fact, this.kept);
  }

  /** First step: adds to `change` what the commit has to hold. */
  before(change: Pick<IndexChange, 'dirty' | 'dropDirty'>): void {
    const { log } = this;
    const fact = this.fact();
    const inIndex = log.keeps === 'index' || (log.keeps === 'device' && this.mark(fact) < 0);
    this.asked = { fact, inIndex };
    if (inIndex) {
      if (!this.inIndex || !equal(this.kept, fact)) (change.dirty ??= []).push(fact);
    } else if (this.anyInIndex) {
      (change.dropDirty ??= []).push({ link: this.link, device: this.device });
    }
  }

  /** Second step, behind the commit. Not called where that failed. */
  behind(): void {
    if (this.asked === undefined) return;
    const { fact, inIndex } = this.asked;
    this.asked = undefined;
    this.kept = fact;
    this.inIndex = inIndex;
    this.anyInIndex = inIndex;
    // Where this fails the device holds too much, and the next commit takes the bits into the index.
    if (this.log.keeps === 'device' && this.log.state === 'A') this.log.store(fact.bits, fact.regions);
  }

  /**
   * Tries a device again that is dead or did not flush. True where a commit is wanted: it works again, so that the index
   * need not keep its bits, or it does not, and the index has them not yet.
   */
  retry(): boolean {
    if (this.log.keeps !== 'device' || this.log.state === 'A') return false;
    return this.mark(this.fact()) === 0 || !this.inIndex;
  }

  /** The device has grown. */
  resize(sectors: number): void {
    this.bits = this.bits.resized(sectors);
  }

  close(): void {
    this.log.close();
  }

  /** On the log's own device: what it is to hold before the commit. 0, or the negative errno. */
  private mark(fact: DirtyFact): number {
    const both = fact.bits.slice();
    const { bits } = this.kept;
    const common = Math.min(both.length, bits.length);
    for (let i = 0; i < common; i++) both[i]! |= bits[i]!;
    return this.log.store(both, fact.regions);
  }

  private fact(): DirtyFact {
    const { regionSectors: region, regions } = this.bits;
    return { link: this.link, device: this.device, region, regions, bits: this.bits.bytes() };
  }
}

function equal(a: DirtyFact, b: DirtyFact): boolean {
  return a.region === b.region && a.regions === b.regions && Buffer.compare(a.bits, b.bits) === 0;
}
