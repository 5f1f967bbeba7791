import type { HostShape } from './sim-host.js';
import type { Rng } from './sim-random.js';

const KIB64 = 64 * 1024;

/** A group's shape from a seed: one to four small devices, up to three sites, a log that is soon full. */
export function randomShape(rng: Rng): HostShape {
  const devices = Array.from({ length: rng.between(1, 4) }, (_, nr) => ({
    nr,
    sectors: rng.pick([512, 1024, 2048, 4096]),
  }));
  return {
    logBytes: 4 * 1024 * 1024,
    windowRing: 1024 * 1024,
    syncBytes: rng.pick([KIB64, 4 * KIB64, 1 << 20, 64 << 20]),
    sites: Array.from({ length: rng.pick([0, 1, 1, 1, 2, 2, 3]) }, (_, i) => ({
      nr: i + 1,
      area: rng.pick([1 << 20, 2 << 20, 4 << 20]),
      rpoMs: rng.pick([0, 10, 100]),
      direct: rng.chance(0.4),
    })),
    client: {
      devices,
      largest: 512,
      durableWrites: rng.chance(0.15),
      depth: rng.pick([1, 4, 16]),
      weights: {
        write: 100,
        discard: rng.pick([0, 3, 15]),
        zeroes: rng.pick([0, 3, 15]),
        flush: rng.pick([2, 10, 60]),
        tag: rng.pick([0, 1, 5]),
        read: rng.pick([5, 30]),
      },
      dsync: rng.pick([0, 0.05, 0.3]),
    },
  };
}
