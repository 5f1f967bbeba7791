/** SiteCopy for sites of this house: what is asked of them is checked here, the rest is each site's own. */
import { ERRNO } from '../base/errors.js';
import { IoVec, type Mem } from '../base/mem.js';
import type { SiteCopy } from './contract.js';

/** A site as copies need it. Calls return 0 (`read`: the bytes) or a negative errno, with the site's sentence left behind. */
export interface CopyTarget {
  readonly isOpen: boolean;
  readonly inconsistent: boolean;
  /** Leaves a sentence about the site; returns `rc`. */
  cannot(rc: number, sentence: string): number;
  /** Bytes of the device; undefined where the site has none such. */
  sizeOf(nr: number): number | undefined;
  read(nr: number, mem: Mem, at: number, length: number, offset: number): number;
  nextData(nr: number, offset: number, end: number): number;
  /** The range is about to be changed. */
  change(nr: number, offset: number, length: number): number;
  /** `vec` stays as it is during the call only. */
  write(nr: number, offset: number, vec: IoVec): number;
  zero(nr: number, offset: number, length: number): number;
  settle(): number;
  whole(): number;
}

export class Copies implements SiteCopy {
  private readonly target: CopyTarget;
  private readonly vec = new IoVec(1);

  constructor(target: CopyTarget) {
    this.target = target;
  }

  read(nr: number, offset: number, length: number, mem: Mem, at: number): number {
    const rc = this.ready(nr, offset, length);
    return rc < 0 ? rc : this.target.read(nr, mem, at, length, offset);
  }

  nextData(nr: number, offset: number, end: number): number {
    const rc = this.ready(nr, offset, end - offset);
    return rc < 0 ? rc : this.target.nextData(nr, offset, end);
  }

  write(nr: number, offset: number, length: number, mem: Mem, at: number): number {
    const rc = this.mayChange(nr, offset, length);
    if (rc < 0) return rc;
    this.vec.clear();
    this.vec.add(mem, at, length);
    return this.target.write(nr, offset, this.vec);
  }

  zero(nr: number, offset: number, length: number): number {
    const rc = this.mayChange(nr, offset, length);
    return rc < 0 ? rc : this.target.zero(nr, offset, length);
  }

  settle(): number {
    return this.whileInconsistent(() => this.target.settle());
  }

  whole(): number {
    return this.whileInconsistent(() => this.target.whole());
  }

  private whileInconsistent(work: () => number): number {
    const rc = this.ready();
    return rc < 0 || !this.target.inconsistent ? rc : work();
  }

  private mayChange(nr: number, offset: number, length: number): number {
    const { target } = this;
    if (target.isOpen && !target.inconsistent)
      return target.cannot(-ERRNO.EPERM, 'is in order: nothing may be copied into it');
    const rc = this.ready(nr, offset, length);
    return rc < 0 ? rc : target.change(nr, offset, length);
  }

  private ready(nr = -1, offset = 0, length = 0): number {
    const { target } = this;
    if (!target.isOpen) return target.cannot(-ERRNO.ENOTCONN, 'is not open');
    if (nr < 0 || offset + length <= (target.sizeOf(nr) ?? -1)) return 0;
    return target.cannot(-ERRNO.ENODEV, `has no device ${nr} of ${offset + length} bytes`);
  }
}
