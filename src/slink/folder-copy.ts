/**
 * What a resync and a verify do with a folder site's images (SiteCopy). Copies go straight to the images, not through the
 * stage: they are no part of history.
 *
 * A crash while copying leaves the stamp *inconsistent*, its base, and staged batches that continue it; the next open
 * replays those over the images, and so over copies that are newer in parts. That does no harm. Say the base is B, the
 * site's cursor C, and a copy was read at some t2, which may be beyond C. Behind the replay, a sector holds
 *
 *   - the newest record of [B, C) that touches it, if one does; those of [C, t2) and beyond that touch it come again,
 *     since the shipper goes on at C, and the site counts as whole only once its cursor has passed t2;
 *   - else what was copied, which then holds only what is older than B or of [C, t2), and the latter comes again.
 *
 * So at a cursor beyond t2 each sector holds its newest record before the cursor, replayed or not, which is what whole
 * means. `settle` moves the base, like any other sync of the images that counts: then nothing is replayed over what was
 * settled at all, and the marks of the images tell one that was rolled back since.
 */
import { ERRNO } from '../base/errors.js';
import { IoVec, type Mem } from '../base/mem.js';
import type { SiteCopy } from './contract.js';
import type { ImageSet } from './images.js';

/** What the copies need of their site. */
export interface CopyHost {
  readonly folder: string;
  readonly isOpen: boolean;
  readonly inconsistent: boolean;
  /** Leaves a sentence about the site; returns `rc`. */
  cannot(rc: number, sentence: string): number;
  /** The same for the image that failed last. */
  imageFailed(rc: number): number;
  /** A block to sample later. */
  note(nr: number, offset: number): void;
  settleCopies(): number;
  becomeWhole(): number;
}

export class FolderCopy implements SiteCopy {
  private readonly host: CopyHost;
  private readonly images: ImageSet;
  private readonly vec = new IoVec(1);

  constructor(host: CopyHost, images: ImageSet) {
    this.host = host;
    this.images = images;
  }

  read(nr: number, offset: number, length: number, mem: Mem, at: number): number {
    const rc = this.ready(nr, offset, length);
    if (rc < 0) return rc;
    const got = this.images.readDisk(nr, mem, at, length, offset);
    return got < 0 ? this.host.imageFailed(got) : got;
  }

  nextData(nr: number, offset: number, end: number): number {
    const rc = this.ready(nr, offset, end - offset);
    return rc < 0 ? rc : this.images.nextData(nr, offset, end);
  }

  write(nr: number, offset: number, length: number, mem: Mem, at: number): number {
    const rc = this.mayChange(nr, offset, length);
    if (rc < 0) return rc;
    this.vec.clear();
    this.vec.add(mem, at, length);
    this.host.note(nr, offset);
    const done = this.images.write(nr, offset, this.vec);
    return done < 0 ? this.host.imageFailed(done) : 0;
  }

  zero(nr: number, offset: number, length: number): number {
    const rc = this.mayChange(nr, offset, length);
    if (rc < 0) return rc;
    this.host.note(nr, offset);
    const done = this.images.discard(nr, offset, length);
    return done < 0 ? this.host.imageFailed(done) : 0;
  }

  settle(): number {
    const rc = this.ready();
    return rc < 0 || !this.host.inconsistent ? rc : this.host.settleCopies();
  }

  whole(): number {
    const rc = this.ready();
    return rc < 0 || !this.host.inconsistent ? rc : this.host.becomeWhole();
  }

  private mayChange(nr: number, offset: number, length: number): number {
    if (this.host.isOpen && !this.host.inconsistent)
      return this.host.cannot(-ERRNO.EPERM, 'is in order: nothing may be copied into it');
    return this.ready(nr, offset, length);
  }

  private ready(nr = -1, offset = 0, length = 0): number {
    const { host } = this;
    if (!host.isOpen) return host.cannot(-ERRNO.ENOTCONN, 'is not open');
    if (nr < 0) return 0;
    const image = this.images.get(nr);
    if (image !== undefined && !image.retired && offset + length <= image.size) return 0;
    return host.cannot(-ERRNO.ENODEV, `has no device ${nr} of ${offset + length} bytes`);
  }
}
