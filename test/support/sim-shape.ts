import type { LinkRules } from '../../src/slink/policy.js';
import type { HostShape } from './sim-host.js';
import { ASYNC } from './sim-policy.js';
import type { Rng } from './sim-random.js';
import type { SiteShape } from './sim-site.js';

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

const PLACES = [0, 1, 2, 31, 32, 33, 63];

/** The same with policies: at least one site, each with rules, a bandwidth and a place of its own. */
export function withPolicies(shape: HostShape, rng: Rng): HostShape {
  const first = { nr: 1, area: 1 << 20, rpoMs: 10 };
  const free = [...PLACES];
  const sites = (shape.sites.length > 0 ? shape.sites : [first]).map((site) => ({
    ...site,
    rules: randomRules(rng),
    bandwidth: rng.pick([0, 0, 0, 200_000, 2_000_000]),
    place: free.splice(rng.below(free.length), 1)[0]!,
  }));
  return { ...shape, sites };
}

/** The same with shippers that put their work off while the group is busy. */
export function withDeferral(shape: HostShape, rng: Rng): HostShape {
  const first = { nr: 1, area: 1 << 20, rpoMs: 10 };
  const sites = (shape.sites.length > 0 ? shape.sites : [first]).map((site) => ({
    ...site,
    rpoMs: rng.pick([10, 100]),
    defer: {
      ms: rng.pick([50, 500, 5000]),
      share: rng.pick([0.1, 0.2, 0.5]),
      batch: rng.pick([4096, KIB64, 4 * KIB64]),
    },
  }));
  return { ...shape, sites };
}

/** The same with sites that have no journal. */
export function withRaw(shape: HostShape, rng: Rng): HostShape {
  const site = (nr: number): SiteShape => ({ nr, area: 1 << 20, rpoMs: rng.pick([0, 10, 100]) });
  const sites = [...shape.sites];
  // Two, so that their disks can be exchanged.
  for (const least = rng.pick([1, 2, 2]); sites.length < least;) sites.push(site(sites.length + 1));
  return {
    ...shape,
    sites: sites.map((one, i) => {
      if (i > 0 && rng.chance(0.25)) return one;
      const legs = rng.pick(['block', 'block', 'file'] as const);
      return { ...one, raw: { legs, spare: rng.pick([0, 4096, 1 << 20]), idleMs: rng.pick([5, 50, 1000]) } };
    }),
  };
}

/** The same with links that may leave the ring; some of them are to stall, or have other rules. */
export function withResync(shape: HostShape, rng: Rng): HostShape {
  const first = { nr: 1, area: 1 << 20, rpoMs: 10 };
  const sites = (shape.sites.length > 0 ? shape.sites : [first]).map((site) => ({
    ...site,
    rules: rng.chance(0.2) ? randomRules(rng) : { ...ASYNC, stall: rng.chance(0.1) },
  }));
  return { ...shape, resync: true, sites };
}

export function randomRules(rng: Rng): LinkRules {
  const holdMs = rng.pick([0, 0, 100, 1000]);
  const stall = rng.chance(0.3);
  const kind = rng.weighted({ async: 2, sync: 6, ios: 4, bytes: 2, time: 2, two: 1 });
  switch (kind) {
    case 'async':
      return { ...ASYNC, stall };
    case 'sync':
      return { ...ASYNC, sync: true, holdMs };
    case 'ios':
      return { ...ASYNC, ios: rng.pick([1, 3, 20]), stall, holdMs };
    case 'bytes':
      return { ...ASYNC, bytes: rng.pick([4096, KIB64, 4 * KIB64]), stall, holdMs };
    case 'time':
      return { ...ASYNC, timeoutMs: rng.pick([20, 500, 5000]), stall, holdMs };
    case 'two':
      return { ...ASYNC, ios: 20, bytes: KIB64, stall, holdMs };
  }
}
