/** What a resync and a verify do with the legs of a site without a journal. */
import type { CopyTarget } from './copies.js';
import type { Legs } from './legs.js';

/** What of it is the site's. */
export type RawCopyHost = Omit<CopyTarget, 'read' | 'nextData' | 'write' | 'zero'> & {
  /** Leaves the sentence of the leg that failed; returns `rc`. */
  legsFailed(rc: number): number;
};

export function rawCopies(host: RawCopyHost, legs: Legs): CopyTarget {
  const done = (rc: number): number => (rc < 0 ? host.legsFailed(rc) : rc);
  // What is only begun reads memory that is the caller's; and a record that follows must not overtake it.
  const ended = (rc: number): number => done(rc < 0 ? rc : (legs.finish?.() ?? 0));
  return {
    get isOpen() {
      return host.isOpen;
    },
    get inconsistent() {
      return host.inconsistent;
    },
    cannot: (rc, sentence) => host.cannot(rc, sentence),
    sizeOf: (nr) => host.sizeOf(nr),
    change: (nr, offset, length) => host.change(nr, offset, length),
    settle: () => host.settle(),
    whole: () => host.whole(),
    read: (nr, mem, at, length, offset) => done(legs.read(nr, mem, at, length, offset)),
    nextData: (nr, offset, end) => done(legs.nextData(nr, offset, end)),
    write: (nr, offset, vec) => ended(legs.write(nr, offset, vec)),
    zero: (nr, offset, length) => ended(legs.discard(nr, offset, length)),
  };
}
