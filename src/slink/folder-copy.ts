/**
 * What a resync and a verify do with a folder site's images. Copies go straight to the images, not through the
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
import type { CopyTarget } from './copies.js';
import type { ImageSet } from './images.js';

/** What of it is the site's. */
export type FolderCopyHost = Pick<CopyTarget, 'isOpen' | 'inconsistent' | 'cannot' | 'change' | 'settle' | 'whole'> & {
  /** Leaves a sentence about the image that failed last; returns `rc`. */
  imageFailed(rc: number): number;
};

export function folderCopies(host: FolderCopyHost, images: ImageSet): CopyTarget {
  const done = (rc: number): number => (rc < 0 ? host.imageFailed(rc) : rc);
  return {
    get isOpen() {
      return host.isOpen;
    },
    get inconsistent() {
      return host.inconsistent;
    },
    cannot: (rc, sentence) => host.cannot(rc, sentence),
    sizeOf: (nr) => {
      const image = images.get(nr);
      return image?.retired === false ? image.size : undefined;
    },
    read: (nr, mem, at, length, offset) => done(images.readDisk(nr, mem, at, length, offset)),
    nextData: (nr, offset, end) => images.nextData(nr, offset, end),
    change: (nr, offset, length) => host.change(nr, offset, length),
    write: (nr, offset, vec) => done(images.write(nr, offset, vec)),
    zero: (nr, offset, length) => done(images.discard(nr, offset, length)),
    settle: () => host.settle(),
    whole: () => host.whole(),
  };
}
