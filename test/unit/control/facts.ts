/** A group's facts, healthy unless a test changes them. */
import { defaultConfig } from '../../../src/control/config.js';
import type { GroupFacts, SiteFacts } from '../../../src/control/facts.js';

export const NOW = Date.UTC(2026, 10, 20, 6, 0, 0);
export const MIB = 1024 * 1024;

export function facts(change: Partial<GroupFacts> = {}): GroupFacts {
  const config = defaultConfig('/var/lib/reptool/default', '00'.repeat(16));
  const site: SiteFacts = {
    config: config.sites[0]!,
    state: 'connected',
    reason: '',
    paused: false,
    needsFullResync: false,
    inconsistent: false,
    dirty: new Map(),
    resync: undefined,
    confirmed: 89,
    degraded: false,
    sync: false,
    waiting: 0,
    cursor: { pos: 40960, seq: 89, chainLo: 0, chainHi: 0, time: (NOW - 5000) * 1000 },
    window: null,
    unlooked: false,
    oldestUs: (NOW - 2500) * 1000,
    verify: undefined,
  };
  return {
    config,
    region: 8192,
    version: '0.1.0',
    mountpoint: '/mnt/rep',
    types: { slink: ['blockdev'] },
    keeper: 10,
    daemon: 11,
    generation: 2,
    bornMs: NOW - 60_000,
    nowMs: NOW,
    resend: true,
    ...{ transport: 'kernel', transportReason: 'mounted by mount(2)', notes: [] },
    reign: 3,
    reignId: 'ab'.repeat(16),
    window: {
      slots: 32768,
      ring: 64 * MIB,
      used: 8192,
      unapplied: 4096,
      undurable: 512,
      tail: 101,
      head: 90,
      durable: 100,
      applied: 99,
      parked: 0,
    },
    log: {
      ring: 1000 * MIB,
      segment: 16 * MIB,
      resize: undefined,
      durablePos: 81920,
      headPos: 40960,
      error: 0,
      full: false,
      holder: 1,
      bytesPerSecond: MIB,
    },
    localError: 0,
    localFile: '',
    detached: undefined,
    recovery: { how: 'clean', at: '2026-11-20T05:59:00.000Z', records: 0, bytes: 0, milliseconds: 3 },
    statistics: { on: true, sinceMs: NOW - 60_000, devices: new Map(), rates: undefined },
    sites: [site],
    failures: [],
    ...change,
  };
}

export const withSite = (change: Partial<SiteFacts>): GroupFacts => {
  const f = facts();
  return { ...f, sites: [{ ...f.sites[0]!, ...change }] };
};
