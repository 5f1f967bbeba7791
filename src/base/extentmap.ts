/**
 * The extent map: sorted ranges [start, end) that never overlap, each with a value. Two ranges of one value
 * that touch are always one range. Units are the caller's (bytes, sectors, chunks); all are plain numbers.
 *
 * Ranges live in leaves of three packed arrays, and the leaves in one sorted list, so that a lookup is two
 * binary searches and an insertion moves at most one leaf: a million ranges cost what a thousand do, and
 * nothing is allocated but a leaf per few hundred ranges. One thread owns a map.
 *
 * The cursor (`seek`, `next`, then `start`, `end`, `value`) is part of the map, so that looking allocates
 * nothing; any change of the map ends it.
 */

const LEAF = 256;

class Leaf {
  n = 0;
  readonly start = new Float64Array(LEAF);
  readonly end = new Float64Array(LEAF);
  readonly value = new Float64Array(LEAF);

  /** First slot whose range ends behind `pos`, or n. */
  find(pos: number): number {
    let lo = 0;
    let hi = this.n;
    while (lo < hi) {
      const mid = (lo + hi) >>> 1;
      if (this.end[mid]! > pos) hi = mid;
      else lo = mid + 1;
    }
    return lo;
  }

  put(at: number, start: number, end: number, value: number): void {
    if (at < this.n) this.move(at + 1, at, this.n);
    this.start[at] = start;
    this.end[at] = end;
    this.value[at] = value;
    this.n++;
  }

  /** Takes out the slots [from, to). */
  cut(from: number, to: number): void {
    this.move(from, to, this.n);
    this.n -= to - from;
  }

  private move(target: number, from: number, to: number): void {
    this.start.copyWithin(target, from, to);
    this.end.copyWithin(target, from, to);
    this.value.copyWithin(target, from, to);
  }
}

export class ExtentMap {
  /** Number of ranges. */
  count = 0;
  /** Sum of their lengths. */
  total = 0;
  /** What the cursor stands on, valid after `seek` or `next` returned true. */
  start = 0;
  end = 0;
  value = 0;

  /** Never an empty leaf in it. */
  private readonly leaves: Leaf[] = [];
  private leafAt = 0;
  private slotAt = 0;

  get empty(): boolean {
    return this.count === 0;
  }

  clear(): void {
    this.leaves.length = 0;
    this.count = 0;
    this.total = 0;
    this.leafAt = 0;
    this.slotAt = 0;
  }

  /** Sets [start, end) to `value`, whatever was there. */
  insert(start: number, end: number, value = 0): void {
    if (end <= start) return;
    this.remove(start, end);
    let to = end;
    // Behind the removal nothing lies in [start, end): a neighbour can only touch it, from either side.
    if (this.locate(end) && this.leaves[this.leafAt]!.start[this.slotAt] === end) {
      const leaf = this.leaves[this.leafAt]!;
      if (leaf.value[this.slotAt] === value) {
        to = leaf.end[this.slotAt]!;
        this.dropAt(this.leafAt, this.slotAt);
      }
    }
    if (this.previous(start)) {
      const leaf = this.leaves[this.leafAt]!;
      if (leaf.end[this.slotAt] === start && leaf.value[this.slotAt] === value) {
        leaf.end[this.slotAt] = to;
        this.total += to - start;
        return;
      }
    }
    this.putNew(start, to, value);
  }

  /** Takes [start, end) out; ranges that reach beyond it keep what lies outside. */
  remove(start: number, end: number): void {
    if (end <= start || !this.locate(start)) return;
    let li = this.leafAt;
    let leaf = this.leaves[li]!;
    let i = this.slotAt;
    if (leaf.start[i]! < start) {
      const oldEnd = leaf.end[i]!;
      leaf.end[i] = start;
      if (oldEnd > end) {
        this.total -= oldEnd - start;
        this.putNew(end, oldEnd, leaf.value[i]!);
        return;
      }
      this.total -= oldEnd - start;
      i++;
    }
    for (;;) {
      if (i >= leaf.n) {
        if (++li >= this.leaves.length) return;
        leaf = this.leaves[li]!;
        i = 0;
      }
      let j = i;
      while (j < leaf.n && leaf.end[j]! <= end) {
        this.total -= leaf.end[j]! - leaf.start[j]!;
        j++;
      }
      const more = j >= leaf.n;
      if (!more && leaf.start[j]! < end) {
        this.total -= end - leaf.start[j]!;
        leaf.start[j] = end;
      }
      if (j > i) {
        this.count -= j - i;
        leaf.cut(i, j);
        if (leaf.n === 0) {
          this.leaves.splice(li, 1);
          if (li >= this.leaves.length) return;
          leaf = this.leaves[li]!;
          i = 0;
        }
      }
      if (!more) return;
    }
  }

  /** Puts the cursor on the first range that ends behind `pos` (it may hold `pos`); false where there is none. */
  seek(pos: number): boolean {
    return this.locate(pos) && this.show();
  }

  /** Moves the cursor on by one range. */
  next(): boolean {
    if (this.leafAt >= this.leaves.length) return false;
    if (++this.slotAt >= this.leaves[this.leafAt]!.n) {
      this.leafAt++;
      this.slotAt = 0;
    }
    return this.leafAt < this.leaves.length && this.show();
  }

  /** True where `pos` lies in a range; the cursor then stands on it. */
  has(pos: number): boolean {
    return this.seek(pos) && this.start <= pos;
  }

  get(pos: number): number | undefined {
    return this.has(pos) ? this.value : undefined;
  }

  /** How much of [start, end) is covered. */
  covered(start: number, end: number): number {
    let sum = 0;
    for (let on = this.seek(start); on && this.start < end; on = this.next())
      sum += Math.min(this.end, end) - Math.max(this.start, start);
    return sum;
  }

  /** Calls `visit` for each range that meets [start, end), clipped to it. The map must not change meanwhile. */
  forEach(visit: (start: number, end: number, value: number) => void, start = -Infinity, end = Infinity): void {
    for (let on = this.seek(start); on && this.start < end; on = this.next())
      visit(Math.max(this.start, start), Math.min(this.end, end), this.value);
  }

  private show(): boolean {
    const leaf = this.leaves[this.leafAt]!;
    this.start = leaf.start[this.slotAt]!;
    this.end = leaf.end[this.slotAt]!;
    this.value = leaf.value[this.slotAt]!;
    return true;
  }

  /** Finds the first range that ends behind `pos`. */
  private locate(pos: number): boolean {
    let lo = 0;
    let hi = this.leaves.length;
    while (lo < hi) {
      const mid = (lo + hi) >>> 1;
      const leaf = this.leaves[mid]!;
      if (leaf.end[leaf.n - 1]! > pos) hi = mid;
      else lo = mid + 1;
    }
    this.leafAt = lo;
    if (lo >= this.leaves.length) return false;
    this.slotAt = this.leaves[lo]!.find(pos);
    return true;
  }

  /** Finds the last range that starts before `pos`, which lies in none. */
  private previous(pos: number): boolean {
    if (this.locate(pos)) {
      if (--this.slotAt >= 0) return true;
      if (--this.leafAt < 0) return false;
    } else {
      this.leafAt = this.leaves.length - 1;
      if (this.leafAt < 0) return false;
    }
    this.slotAt = this.leaves[this.leafAt]!.n - 1;
    return true;
  }

  private dropAt(li: number, i: number): void {
    const leaf = this.leaves[li]!;
    this.total -= leaf.end[i]! - leaf.start[i]!;
    this.count--;
    leaf.cut(i, i + 1);
    if (leaf.n === 0) this.leaves.splice(li, 1);
  }

  /** Puts a range where nothing is and no neighbour is to be joined. */
  private putNew(start: number, end: number, value: number): void {
    this.count++;
    this.total += end - start;
    if (!this.locate(start)) {
      // Behind everything: appending in order fills each leaf to the brim.
      let leaf = this.leaves[this.leaves.length - 1];
      if (leaf === undefined || leaf.n === LEAF) this.leaves.push((leaf = new Leaf()));
      leaf.put(leaf.n, start, end, value);
      return;
    }
    let leaf = this.leaves[this.leafAt]!;
    if (leaf.n === LEAF) {
      const half = LEAF / 2;
      const right = new Leaf();
      right.start.set(leaf.start.subarray(half));
      right.end.set(leaf.end.subarray(half));
      right.value.set(leaf.value.subarray(half));
      right.n = LEAF - half;
      leaf.n = half;
      this.leaves.splice(this.leafAt + 1, 0, right);
      if (this.slotAt > half) {
        leaf = right;
        this.slotAt -= half;
      }
    }
    leaf.put(this.slotAt, start, end, value);
  }
}
