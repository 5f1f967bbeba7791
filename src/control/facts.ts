/**
 * What is known of a running group at one moment, gathered by the daemon's main thread, and the status made of
 * it. Pure, so that every line of status can be tested without a mount.
 */
import type { Transport } from '../fuse/transport.js';
import type { LogPlace } from '../replog/format.js';
import type { ResizeFacts } from '../replog/resize.js';
import type { KIND_NAMES, RequestCount } from '../replog/meters.js';
import type { LinkState, OpenWindow } from '../slink/contract.js';
import type { VerifyReport } from '../slink/verify.js';
import { errnoText } from '../base/errors.js';
import type { GroupConfig, SiteConfig } from './config.js';
import { servedDevices } from './device-plan.js';
import { drbdWords } from './drbd-words.js';
import type {
  CountWord,
  DeviceStatus,
  LogStatus,
  ResyncStatus,
  RecoveryStatus,
  SiteStatus,
  StatisticsStatus,
  StatusJson,
  VerifyStatus,
} from './status.js';

export interface VerifyFacts {
  report: VerifyReport;
  startedMs: number;
  /** Undefined while it goes on. */
  endedMs: number | undefined;
}

/** What of a device a site lacks. */
export interface DirtyFacts {
  regions: number;
  dirty: number;
  /** Of the device, in dirty regions. */
  bytes: number;
}

export interface ResyncFacts {
  /** Bytes that are done with, and how many of them were written or zeroed, since the site left the ring. */
  looked: number;
  copied: number;
  zeroed: number;
  left: number;
  /** Bytes per second. */
  rate: number;
}

export interface SiteFacts {
  config: SiteConfig;
  state: LinkState;
  reason: string;
  paused: boolean;
  needsFullResync: boolean;
  /** It is out of the ring: no prefix of the history until what is dirty was copied. */
  inconsistent: boolean;
  /** By device number; devices that are not there are clean. */
  dirty: ReadonlyMap<number, DirtyFacts>;
  /** Undefined while nothing was copied yet. */
  resync: ResyncFacts | undefined;
  cursor: LogPlace;
  /** Everything below is confirmed; the cursor may lag a little. */
  confirmed: number;
  /** Its timeout has let writers go on without it. */
  degraded: boolean;
  /** Every write waits for it just now: it is sync, or beyond its fall-behind limits. */
  sync: boolean;
  /** Requests that wait for it. */
  waiting: number;
  /** What a site without a journal may hold beyond its cursor, in part; null where there is no such thing. */
  window: OpenWindow | null;
  /** Such a site, and this daemon has not looked yet whether there is. */
  unlooked: boolean;
  /** Time of the first record that it has not confirmed, microseconds; 0 where it has all. */
  oldestUs: number;
  /** The verify that goes on, or the last one; undefined where this daemon has made none. */
  verify: VerifyFacts | undefined;
}

export interface WindowFacts {
  slots: number;
  ring: number;
  /** Payload bytes from the head, and from the applied and durable seqs, to the tail. */
  used: number;
  unapplied: number;
  undurable: number;
  tail: number;
  head: number;
  durable: number;
  applied: number;
  parked: number;
}

export interface LogFacts {
  ring: number;
  segment: number;
  durablePos: number;
  headPos: number;
  /** Positive errno that suspended it, 0 = fine. */
  error: number;
  full: boolean;
  /** Link that keeps the head, undefined where nothing does. */
  holder: number | undefined;
  bytesPerSecond: number;
  /** It is being given another size. */
  resize: ResizeFacts | undefined;
}

/** Requests of one device. */
export type DeviceCounts = Record<(typeof KIND_NAMES)[number], RequestCount>;

/** Of all devices together; as rates, per second over the last few. */
export interface IoRates {
  reads: number;
  writes: number;
  readBytes: number;
  writtenBytes: number;
}

export interface StatisticsFacts {
  on: boolean;
  sinceMs: number;
  /** By device number. */
  devices: ReadonlyMap<number, DeviceCounts>;
  /** Undefined while they are off, or just begin. */
  rates: IoRates | undefined;
}

export interface DetachedFacts {
  /** What failed. */
  reason: string;
  /** Number of the site that reads come from; 0 = slink 0 still, -1 = nobody. */
  source: number;
  /** Why they come from nobody, or slink 0 is not detached although it fails; '' = reads are served. */
  waits: string;
}

export interface GroupFacts {
  config: GroupConfig;
  /** Sectors of a region of its dirty logs. */
  region: number;
  version: string;
  mountpoint: string;
  keeper: number | null;
  daemon: number;
  generation: number;
  bornMs: number;
  nowMs: number;
  resend: boolean;
  transport: Transport;
  transportReason: string;
  notes: string[];
  reign: number;
  reignId: string;
  window: WindowFacts;
  log: LogFacts;
  /** Positive errno that stopped slink 0's images, 0 = fine; and which image. */
  localError: number;
  localFile: string;
  /** With `--on-local-error detach`: slink 0 fails, or is detached. */
  detached: DetachedFacts | undefined;
  recovery: RecoveryStatus;
  statistics: StatisticsFacts;
  sites: SiteFacts[];
  failures: { at: string; what: string }[];
  /** Names of the registered types by class. */
  types: Record<string, string[]>;
}

export function buildStatus(f: GroupFacts): StatusJson {
  const { config, window, log } = f;
  const reason = suspendedReason(f);
  // Bytes that will stand in the log but do not yet are counted by their payload.
  const used = log.durablePos - log.headPos + window.undurable;
  return {
    name: config.name,
    mountpoint: f.mountpoint,
    role: 'Primary',
    suspended: reason !== null,
    'suspended-reason': reason,
    'local-detached': localDetached(f),
    'held-by': f.sites.filter((site) => site.waiting > 0).map((site) => holderName(site.config.nr)),
    'write-ordering': 'group',
    durability: config.durability,
    version: f.version,
    pids: { keeper: f.keeper, daemon: f.daemon },
    generation: f.generation,
    'kills-survived': Math.max(0, f.generation - 1),
    'uptime-seconds': Math.max(0, Math.floor((f.nowMs - f.bornMs) / 1000)),
    transport: f.transport,
    'transport-reason': f.transportReason,
    notes: f.notes,
    'resend-support': f.resend,
    reign: f.reign,
    'reign-id': f.reignId,
    log: {
      path: config.log.path,
      state: log.error !== 0 ? 'error' : log.full ? 'full' : 'ok',
      size: log.ring,
      used: Math.min(used, log.ring),
      'segment-size': log.segment,
      'durable-position': log.durablePos,
      'head-position': log.headPos,
      'durable-seq': window.durable,
      'held-by': log.holder === undefined ? null : holderName(log.holder),
      'bytes-per-second': Math.round(log.bytesPerSecond),
      'minutes-covered': log.bytesPerSecond < 1 ? null : round(log.ring / log.bytesPerSecond / 60, 2),
      resize: resizeStatus(log.resize),
    },
    window: {
      size: window.ring,
      used: window.used,
      slots: window.slots,
      'slots-used': window.tail - window.head,
      'next-seq': window.tail,
      'durable-seq': window.durable,
      'applied-seq': window.applied,
      'head-seq': window.head,
      'fill-percent': round(100 * Math.max(window.used / window.ring, (window.tail - window.head) / window.slots), 1),
      parked: window.parked,
    },
    statistics: statisticsStatus(f.statistics),
    recovery: f.recovery,
    devices: servedDevices(config).map((d) => ({
      volume: d.nr,
      name: d.name,
      size: d.size,
      local: d.local,
      'disk-state': (f.detached?.source ?? 0) !== 0 ? 'Diskless' : f.localError === 0 ? 'UpToDate' : 'Failed',
      ...deviceCounts(f.statistics.devices.get(d.nr)),
    })),
    connections: f.sites.map((site) => siteStatus(f, site)),
    types: f.types,
    failures: f.failures,
  };
}

function statisticsStatus({ on, sinceMs, rates }: StatisticsFacts): StatisticsStatus {
  return {
    state: on ? 'on' : 'off',
    since: new Date(sinceMs).toISOString(),
    'read-iops': rates === undefined ? null : round(rates.reads, 1),
    'write-iops': rates === undefined ? null : round(rates.writes, 1),
    'read-bytes-per-second': rates === undefined ? null : Math.round(rates.readBytes),
    'write-bytes-per-second': rates === undefined ? null : Math.round(rates.writtenBytes),
  };
}

function deviceCounts(counts: DeviceCounts | undefined): Pick<DeviceStatus, keyof DeviceStatus & CountWord> {
  return {
    read: Math.floor((counts?.read.bytes ?? 0) / 1024),
    written: Math.floor((counts?.write.bytes ?? 0) / 1024),
    reads: counts?.read.requests ?? 0,
    writes: counts?.write.requests ?? 0,
    flushes: counts?.flush.requests ?? 0,
    discards: counts?.discard.requests ?? 0,
  };
}

function resizeStatus(r: ResizeFacts | undefined): LogStatus['resize'] {
  if (r === undefined) return null;
  const percent = r.total === 0 ? null : round((100 * r.bytes) / r.total, 1);
  return { size: r.size, state: r.state, 'done-percent': percent, reason: r.reason };
}

export function holderName(nr: number): string {
  return nr === 0 ? 'slink 0' : `site ${nr}`;
}

function suspendedReason(f: GroupFacts): string | null {
  if (f.log.error !== 0)
    return `${f.config.log.path}: writing the log failed: ${errnoText(f.log.error)}; repair it, then write "resume" to .ctl/messages`;
  const { detached } = f;
  if (detached !== undefined) {
    if (detached.waits === '') return null;
    return `slink 0: ${detached.reason}; reads and writes wait for a site that can serve reads: ${detached.waits}`;
  }
  if (f.localError !== 0) {
    const file = f.localFile === '' ? 'the local images' : f.localFile;
    return `${file}: applying failed: ${errnoText(f.localError)}; repair it, then write "resume" to .ctl/messages`;
  }
  return null;
}

function localDetached({ detached }: GroupFacts): StatusJson['local-detached'] {
  if (detached === undefined || detached.source === 0) return null;
  return {
    reason: detached.reason,
    'reads-from': detached.source > 0 && detached.waits === '' ? `site ${detached.source}` : null,
  };
}

function siteStatus(f: GroupFacts, site: SiteFacts): SiteStatus {
  const { window, log } = f;
  const { cursor, config } = site;
  const behind = Math.max(0, window.tail - Math.max(site.confirmed, cursor.seq));
  const lagBytes = behind === 0 ? 0 : Math.max(0, log.durablePos - cursor.pos) + window.undurable;
  const lagMs = behind === 0 || site.oldestUs === 0 ? 0 : Math.max(0, f.nowMs - site.oldestUs / 1000);
  const open = site.window;
  const inSync = !site.needsFullResync && !site.inconsistent;
  const whole = inSync && open === null;
  const disk = !whole
    ? 'Inconsistent'
    : site.state === 'failed' || site.unlooked
      ? 'DUnknown'
      : behind === 0
        ? 'UpToDate'
        : 'Consistent';
  const verify = verifyStatus(f, site.verify);
  const { replication } = drbdWords({ state: site.state, verify });
  return {
    'peer-node-id': config.nr,
    name: `site${config.nr}`,
    type: config.type,
    address: config.address,
    map: config.map,
    policy: config.policy,
    ack: config.ack,
    stall: config.stall,
    'fall-behind': {
      ios: config.fallBehind.ios,
      size: config.fallBehind.size,
      'timeout-ms': config.fallBehind.timeoutMs,
    },
    'sync-timeout-ms': config.syncTimeoutMs,
    bandwidth: config.bandwidth,
    'rpo-ms': config.rpoMs,
    'resync-rate': config.resyncRate,
    'resync-latency-ms': config.resyncLatencyMs,
    mode: site.sync ? 'S' : 'A',
    degraded: site.degraded,
    'waiting-writes': site.waiting,
    state: site.state,
    reason: site.reason === '' ? null : site.reason,
    paused: site.paused,
    sync: inSync ? 'in-sync' : 'inconsistent',
    'needs-full-resync': site.needsFullResync,
    'cursor-seq': cursor.seq,
    'cursor-position': cursor.pos,
    'lag-seconds': round(lagMs / 1000, 3),
    'lag-bytes': lagBytes,
    'lag-writes': behind,
    'open-window':
      open === null
        ? null
        : { 'from-seq': open.from, 'to-seq': Math.min(open.to, Math.max(window.tail, open.from)), bytes: open.bytes },
    'recoverable-to': whole && cursor.time > 0 ? new Date(cursor.time / 1000).toISOString() : null,
    resync: resyncStatus(site),
    verify,
    peer_devices: servedDevices(f.config).map((d) => ({
      volume: d.nr,
      'replication-state': replication,
      'peer-disk-state': disk,
      'out-of-sync': Math.ceil((site.needsFullResync ? d.size : (site.dirty.get(d.nr)?.bytes ?? 0)) / 1024),
    })),
  };
}

/** Bytes that the site lacks. */
export function dirtyBytes(site: SiteFacts): number {
  let bytes = 0;
  for (const device of site.dirty.values()) bytes += device.bytes;
  return bytes;
}

function resyncStatus(site: SiteFacts): ResyncStatus | null {
  if (!site.inconsistent) return null;
  const { looked, copied, zeroed, rate } = site.resync ?? { looked: 0, copied: 0, zeroed: 0, rate: 0 };
  const active = site.state === 'resyncing';
  const left = dirtyBytes(site);
  return {
    state: active ? 'running' : 'waiting',
    'bytes-left': left,
    'bytes-compared': looked,
    'bytes-copied': copied,
    'bytes-zeroed': zeroed,
    'bytes-per-second': active ? Math.round(rate) : 0,
    'seconds-left': active && rate >= 1 ? round(left / rate, 1) : null,
  };
}

function verifyStatus(f: GroupFacts, verify: VerifyFacts | undefined): VerifyStatus | null {
  if (verify === undefined) return null;
  const { report, startedMs, endedMs } = verify;
  const { compared, total } = report;
  const all = ((endedMs ?? f.nowMs) - startedMs) / 1000;
  const rate = endedMs === undefined ? report.rate : all > 0 ? compared / all : 0;
  const names = new Map(f.config.devices.map(({ nr, name }) => [nr, name]));
  return {
    state: report.state,
    reason: report.reason === '' ? null : report.reason,
    started: new Date(startedMs).toISOString(),
    ended: endedMs === undefined ? null : new Date(endedMs).toISOString(),
    'bytes-total': total,
    'bytes-compared': compared,
    'bytes-per-second': Math.round(rate),
    'seconds-left': endedMs === undefined && rate >= 1 ? round((total - compared) / rate, 1) : null,
    'suspected-bytes': report.suspected,
    'different-bytes': report.different,
    'range-grain': report.grain,
    different: report.ranges.map(({ device, start, length }) => ({
      ...{ volume: device, device: names.get(device) ?? `device ${device}` },
      ...{ start, length },
    })),
  };
}

function round(n: number, digits: number): number {
  return Number(n.toFixed(digits));
}
