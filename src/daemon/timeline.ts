/**
 * When records were written, for those that the window holds no more: the lag of a site that is far behind must
 * be told without reading the log. A sample (seq, time) says that everything from seq on was written after time.
 */
export class Timeline {
  private readonly seqs: number[] = [];
  private readonly times: number[] = [];
  private readonly limit: number;

  constructor(limit = 2048) {
    this.limit = limit;
  }

  /** `tail`: number of the next record, at wall time `us`. */
  note(tail: number, us: number): void {
    const last = this.seqs.length - 1;
    // While nothing is written the newest time is the best bound.
    if (last >= 0 && this.seqs[last] === tail) this.times[last] = us;
    else {
      this.seqs.push(tail);
      this.times.push(us);
      if (this.seqs.length > this.limit) this.thin();
    }
  }

  /** A time before which record `seq` was certainly not written; 0 where nothing is known. */
  notBefore(seq: number): number {
    let low = 0;
    let high = this.seqs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.seqs[middle]! <= seq) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? 0 : this.times[low - 1]!;
  }

  /** Every other sample goes, but neither the oldest nor the newest: hours fit, only coarser. */
  private thin(): void {
    const keep = (_: unknown, i: number): boolean => i % 2 === 0 || i === this.limit;
    this.seqs.splice(0, Infinity, ...this.seqs.filter(keep));
    this.times.splice(0, Infinity, ...this.times.filter(keep));
  }
}
