/**
 * The state of a group as `.ctl/status.json` shows it: nested like `drbdsetup status --json`, with the same
 * words where the same thing is meant. Sizes are bytes, times are seconds unless the name says otherwise.
 * `.ctl/status` is printed from the same object (status-lines.ts), so the two never disagree.
 */
import type { Transport } from '../fuse/transport.js';
import type { LinkState, SiteSync } from '../slink/contract.js';
import type { VerifyState } from '../slink/verify.js';

export interface StatusJson {
  name: string;
  mountpoint: string;
  role: 'Primary';
  /** True while writes fail or wait: the log or the local images are in error. */
  suspended: boolean;
  /** Why, with the next step; null while nothing is wrong. */
  'suspended-reason': string | null;
  /** The sites that writers wait for just now: sync ones, and those beyond their fall-behind limits. */
  /** Slink 0's images fail and reads come from a site (`--on-local-error detach`); null while slink 0 is attached. */
  'local-detached': {
    /** Which image, and what failed. */
    reason: string;
    /** `site N`; null while no site can serve them. */
    'reads-from': string | null;
  } | null;
  'held-by': string[];
  'write-ordering': 'group';
  durability: 'flush' | 'write';
  version: string;
  pids: { keeper: number | null; daemon: number };
  /** How many daemons were started on this mount, this one included. */
  generation: number;
  /** Deaths of the daemon that the mount has survived. */
  'kills-survived': number;
  'uptime-seconds': number;
  transport: Transport;
  /** Why this transport, and how the tree was mounted. */
  'transport-reason': string;
  /** What this system does not permit reptool, and what that means. */
  notes: string[];
  /** Unanswered requests are sent once more after a crash of the daemon (Linux 6.9 and later). */
  'resend-support': boolean;
  reign: number;
  'reign-id': string;
  log: LogStatus;
  window: WindowStatus;
  statistics: StatisticsStatus;
  recovery: RecoveryStatus;
  devices: DeviceStatus[];
  /** One per site (slink 1 and up). */
  connections: SiteStatus[];
  /** Registered types by class, newest first. */
  types: Record<string, string[]>;
  /** What went wrong since the daemon started, newest last, at most 16. */
  failures: { at: string; what: string }[];
}

export interface LogStatus {
  path: string;
  /** `ok`, `full` (writers wait for the holder of the head), `error` (suspended). */
  state: 'ok' | 'full' | 'error';
  /** Bytes of the ring. */
  size: number;
  used: number;
  'segment-size': number;
  /** Everything before these is: durable in the log; no longer needed by anyone. Log positions. */
  'durable-position': number;
  'head-position': number;
  'durable-seq': number;
  /** Who keeps the head where it is: `site 1`, `slink 0`, or null where the log holds nothing. */
  'held-by': string | null;
  'bytes-per-second': number;
  /** How long the ring lasts at the present rate; null while nothing is written. */
  'minutes-covered': number | null;
  /** It is being given another size, bytes of its file or device; `reason` says what that waits for, if it does. */
  resize: {
    size: number;
    state: 'preparing' | 'waiting' | 'copying' | 'switching';
    'done-percent': number | null;
    reason: string;
  } | null;
}

export interface WindowStatus {
  size: number;
  /** Bytes of payload that it holds just now. */
  used: number;
  slots: number;
  'slots-used': number;
  'next-seq': number;
  'durable-seq': number;
  'applied-seq': number;
  'head-seq': number;
  /** Of its bytes or its slots, whichever is fuller. */
  'fill-percent': number;
  /** Requests parked for want of room. */
  parked: number;
}

export interface StatisticsStatus {
  /** The message `statistics off` stops all counting. */
  state: 'on' | 'off';
  /** Since when is counted: start of the daemon, or the last `statistics reset`. */
  since: string;
  /** Over the last seconds, all devices together; null while it is off or has just begun. */
  'read-iops': number | null;
  'write-iops': number | null;
  'read-bytes-per-second': number | null;
  'write-bytes-per-second': number | null;
}

export interface RecoveryStatus {
  /** `clean`: closed properly before. `replayed`: read from the log. `adopted`: the window outlived the daemon. */
  how: 'clean' | 'replayed' | 'adopted';
  at: string;
  records: number;
  bytes: number;
  milliseconds: number;
}

export interface DeviceStatus {
  volume: number;
  name: string;
  size: number;
  local: string;
  'disk-state': 'UpToDate' | 'Failed' | 'Diskless';
  /** KiB read and written by applications, as DRBD counts them. */
  read: number;
  written: number;
  /** Requests. */
  reads: number;
  writes: number;
  flushes: number;
  discards: number;
}

/** What statistics count of a device. */
export type CountWord = 'read' | 'written' | 'reads' | 'writes' | 'flushes' | 'discards';

/** States of a link; see slink/contract. */
export type SiteState = LinkState;

export interface SiteStatus {
  'peer-node-id': number;
  name: string;
  type: string;
  address: string;
  /** By device name: the path or export that is its leg, where the address does not say it. */
  map: Record<string, string>;
  policy: 'sync' | 'async';
  ack: 'durable' | 'received';
  stall: boolean;
  /** Limits beyond which an async site makes writers wait; 0 = none. Writes, bytes, milliseconds. */
  'fall-behind': { ios: number; size: number; 'timeout-ms': number };
  /** For how long writers wait for the site at most; 0 = for ever. */
  'sync-timeout-ms': number;
  /** Bytes per second that are sent at most; 0 = unlimited. */
  bandwidth: number;
  'rpo-ms': number;
  /** Bytes per second that a verify looks at, at most; 0 = unlimited. And what requests may take meanwhile; 0 = automatic. */
  'resync-rate': number;
  'resync-latency-ms': number;
  /** `S`: every write waits for the site just now (it is sync, or beyond its limits); `A`: none does. */
  mode: 'A' | 'S';
  /** Its timeout is over: writers go on without it until it has caught up. */
  degraded: boolean;
  /** Requests that wait for it. */
  'waiting-writes': number;
  state: SiteState;
  /** Why it is in that state; null where there is nothing to say. */
  reason: string | null;
  paused: boolean;
  /** `inconsistent`: no prefix of the history, until it was resynced. */
  sync: SiteSync;
  'needs-full-resync': boolean;
  /** Everything below is confirmed by the site. */
  'cursor-seq': number;
  'cursor-position': number;
  /** Age of the oldest write that the site has not confirmed. */
  'lag-seconds': number;
  'lag-bytes': number;
  'lag-writes': number;
  /**
   * Sites without a journal: records [from-seq, to-seq) were sent or are being sent and are not confirmed, so any
   * part of them may be there. Null while there are none, and for sites that never have any. bytes 0 = not known.
   */
  'open-window': { 'from-seq': number; 'to-seq': number; bytes: number } | null;
  /** The site shows the group's history up to here. */
  'recoverable-to': string | null;
  /** What is to be copied to it; null for a site that is in sync, or cannot be resynced. */
  resync: ResyncStatus | null;
  /** The verify that goes on, or the last one since the daemon started. */
  verify: VerifyStatus | null;
  peer_devices: PeerDeviceStatus[];
}

/** In DRBD's words; see drbd-words. */
export type ReplicationState = 'Off' | 'Established' | 'Behind' | 'SyncSource' | 'VerifyS';

export interface PeerDeviceStatus {
  volume: number;
  'replication-state': ReplicationState;
  'peer-disk-state': 'UpToDate' | 'Consistent' | 'Inconsistent' | 'DUnknown';
  /** KiB that have to be copied, as DRBD counts them. */
  'out-of-sync': number;
}

/** How far the resync of a site is. */
export interface ResyncStatus {
  /** `waiting`: the site is paused or cannot be reached. */
  state: 'running' | 'waiting';
  /** In regions that are marked. */
  'bytes-left': number;
  /** Since the site left the ring, or since this daemon copies. */
  'bytes-compared': number;
  'bytes-copied': number;
  'bytes-zeroed': number;
  'bytes-per-second': number;
  'seconds-left': number | null;
}

/** What a verify of a site has come to. */
export interface VerifyStatus {
  /** `waiting`: the local images cannot be trusted just now. `done`, `stopped` and `failed` are ends. */
  state: VerifyState;
  /** Why it waits, or ended early. */
  reason: string | null;
  started: string;
  ended: string | null;
  'bytes-total': number;
  'bytes-compared': number;
  /** Over the last seconds; behind the end, over all of it. */
  'bytes-per-second': number;
  /** Null while it is not known, and behind the end. */
  'seconds-left': number | null;
  /** Seen to differ, and not judged yet: writes may be on their way. */
  'suspected-bytes': number;
  'different-bytes': number;
  /** Ranges were widened to multiples of so many bytes, since there are too many; 512: they are exact. */
  'range-grain': number;
  different: { volume: number; device: string; start: number; length: number }[];
}
