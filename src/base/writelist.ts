/**
 * Writes that may be under way at the same time: fill it, hand it to `Io.pwriteMany`, look at the results. Their
 * order is nobody's to say, so no two of them may overlap. Reused for ever.
 */
import { IoVec } from './mem.js';

/** Ranges of one write; what has more goes on its own. */
const RANGES = 256;

export class WriteList {
  readonly max: number;
  readonly fds: Int32Array;
  readonly positions: Float64Array;
  /** Made when they are first needed: a site that only ever gets short runs has none. */
  readonly vecs: IoVec[] = [];
  /** Of each write, when `pwriteMany` has returned: bytes written, or the negative errno. */
  readonly results: Float64Array;
  count = 0;

  constructor(max: number) {
    this.max = max;
    this.fds = new Int32Array(max);
    this.positions = new Float64Array(max);
    this.results = new Float64Array(max);
  }

  clear(): void {
    this.count = 0;
  }

  /** True where a write of so many ranges can be added. */
  takes(ranges: number): boolean {
    return this.count < this.max && ranges <= RANGES;
  }

  /** Adds a copy of `vec`; the memory it names must stay as it is until the writes are done. Returns its place. */
  add(fd: number, position: number, vec: IoVec): number {
    const i = this.count++;
    this.fds[i] = fd;
    this.positions[i] = position;
    const own = (this.vecs[i] ??= new IoVec(RANGES));
    own.clear();
    for (let k = 0; k < vec.count; k++) own.add(vec.mems[k]!, vec.offs[k]!, vec.lens[k]!);
    return i;
  }

  free(): void {
    for (const vec of this.vecs) vec.table.unmap();
  }
}
