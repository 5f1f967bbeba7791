/**
 * `.ctl/metrics`: the Prometheus text format, version 0.0.4. Every sample carries the group, by which several
 * mounts are told apart. Base units: seconds and bytes. Counters begin again at zero with the
 * daemon and with `statistics reset`; `reptool_daemon_restarts_total` outlives both. reptool-ctl(5) has the list.
 */
import { servedDevices } from './device-plan.js';
import { BOUNDS_US, KIND_NAMES, type Histogram } from '../replog/meters.js';
import { buildStatus, type GroupFacts } from './facts.js';
import type { StatusJson, VerifyStatus } from './status.js';

/** What one link has done since its thread began. */
export interface LinkCounts {
  nr: number;
  bytes: number;
  records: number;
  batches: number;
  failures: number;
  opens: number;
  /** Of its connections, 0 where a site has none. */
  connects: number;
  losses: number;
  garbage: number;
}

export interface ProcessFacts {
  name: 'daemon' | 'keeper';
  cpuSeconds: number;
  residentBytes: number;
}

export interface MetricFacts {
  group: GroupFacts;
  /** By kind, in the order of KIND_NAMES. */
  latency: readonly Histogram[];
  errors: readonly number[];
  syncs: Histogram;
  log: { bytes: number; batches: number; records: number; failures: number };
  links: readonly LinkCounts[];
  processes: readonly ProcessFacts[];
  messages: { ok: number; failed: number; invalid: number };
}

export type Labels = Readonly<Record<string, string>>;

interface Sample {
  labels?: Labels;
  value: number;
}

interface Series {
  labels?: Labels;
  histogram: Histogram;
}

interface Seen extends MetricFacts {
  status: StatusJson;
}

interface Family {
  name: string;
  help: string;
}

export type Metric =
  | (Family & { type: 'counter' | 'gauge'; of: (m: Seen) => Sample | readonly Sample[] })
  | (Family & { type: 'histogram'; of: (m: Seen) => readonly Series[] });

const SITE_STATES = ['connecting', 'connected', 'behind', 'paused', 'failed', 'resyncing'] as const;
const LOG_STATES = ['ok', 'full', 'error'] as const;

const perSite =
  (of: (site: StatusJson['connections'][number]) => number) =>
  (m: Seen): Sample[] =>
    m.status.connections.map((c) => ({ labels: { site: String(c['peer-node-id']) }, value: of(c) }));

/** Sites that were verified, where there is something to say. */
const perVerify =
  (of: (verify: VerifyStatus) => number | undefined) =>
  (m: Seen): Sample[] =>
    m.status.connections.flatMap((c) => {
      const value = c.verify === null ? undefined : of(c.verify);
      return value === undefined ? [] : [{ labels: { site: String(c['peer-node-id']) }, value }];
    });

const perLink =
  (of: (link: LinkCounts) => number) =>
  (m: Seen): Sample[] =>
    m.links.map((link) => ({ labels: { site: String(link.nr) }, value: of(link) }));

const perProcess =
  (of: (process: ProcessFacts) => number) =>
  (m: Seen): Sample[] =>
    m.processes.map((p) => ({ labels: { process: p.name }, value: of(p) }));

const perRequest =
  (of: 'requests' | 'bytes') =>
  (m: Seen): Sample[] =>
    servedDevices(m.group.config).flatMap((d) =>
      KIND_NAMES.filter((kind) => of === 'requests' || kind !== 'flush').map((kind) => ({
        labels: { device: d.name, op: kind },
        value: m.group.statistics.devices.get(d.nr)?.[kind][of] ?? 0,
      })),
    );

/** All metrics, in the order in which they are printed. */
export const METRICS: readonly Metric[] = [
  {
    name: 'reptool_info',
    type: 'gauge',
    help: 'Always 1; version and place of the group.',
    of: ({ group: g }) => ({
      labels: { version: g.version, mountpoint: g.mountpoint, durability: g.config.durability, reign_id: g.reignId },
      value: 1,
    }),
  },
  {
    name: 'reptool_suspended',
    type: 'gauge',
    help: '1 while the log or the local images are in error.',
    of: ({ status }) => ({ value: Number(status.suspended) }),
  },
  {
    name: 'reptool_generation',
    type: 'gauge',
    help: 'Number of the daemon that serves this mount, from 1.',
    of: ({ group }) => ({ value: group.generation }),
  },
  {
    name: 'reptool_daemon_restarts_total',
    type: 'counter',
    help: 'Deaths of the daemon that this mount has survived; outlives the daemon.',
    of: ({ status }) => ({ value: status['kills-survived'] }),
  },
  {
    name: 'reptool_keeper_up',
    type: 'gauge',
    help: '1 while a keeper would replace the daemon.',
    of: ({ status }) => ({ value: Number(status.pids.keeper !== null) }),
  },
  {
    name: 'reptool_daemon_start_time_seconds',
    type: 'gauge',
    help: 'When the present daemon took over, seconds since 1970.',
    of: ({ group }) => ({ value: group.bornMs / 1000 }),
  },
  {
    name: 'reptool_reign',
    type: 'gauge',
    help: 'Present reign of the log.',
    of: ({ group }) => ({ value: group.reign }),
  },
  {
    name: 'reptool_recovery_duration_seconds',
    type: 'gauge',
    help: 'How long the daemon needed to open the log or to adopt the window.',
    of: ({ status }) => ({ labels: { how: status.recovery.how }, value: status.recovery.milliseconds / 1000 }),
  },
  {
    name: 'reptool_process_cpu_seconds_total',
    type: 'counter',
    help: 'CPU time of a process, user and system.',
    of: perProcess((p) => p.cpuSeconds),
  },
  {
    name: 'reptool_process_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory of a process; the window, which both map, is counted in each.',
    of: perProcess((p) => p.residentBytes),
  },
  {
    name: 'reptool_statistics_enabled',
    type: 'gauge',
    help: '0 after the message "statistics off": counts and histograms of requests, log and sites stand still.',
    of: ({ group }) => ({ value: Number(group.statistics.on) }),
  },
  {
    name: 'reptool_device_size_bytes',
    type: 'gauge',
    help: 'Size of a device.',
    of: ({ group }) => servedDevices(group.config).map((d) => ({ labels: { device: d.name }, value: d.size })),
  },
  {
    name: 'reptool_device_requests_total',
    type: 'counter',
    help: 'Requests taken; op discard counts zeroing as well. Its rate is the IOPS.',
    of: perRequest('requests'),
  },
  {
    name: 'reptool_device_bytes_total',
    type: 'counter',
    help: 'Bytes of the requests taken.',
    of: perRequest('bytes'),
  },
  {
    name: 'reptool_request_duration_seconds',
    type: 'histogram',
    help: 'From the moment the data thread turned to a request to its answer, by whichever thread.',
    of: (m) => KIND_NAMES.map((op, i) => ({ labels: { op }, histogram: m.latency[i]! })),
  },
  {
    name: 'reptool_request_errors_total',
    type: 'counter',
    help: 'Requests that were answered with an error.',
    of: (m) => KIND_NAMES.map((op, i) => ({ labels: { op }, value: m.errors[i]! })),
  },
  {
    name: 'reptool_parked_requests',
    type: 'gauge',
    help: 'Requests that wait for room in the window.',
    of: ({ status }) => ({ value: status.window.parked }),
  },
  {
    name: 'reptool_window_size_bytes',
    type: 'gauge',
    help: 'Payload that the window can hold.',
    of: ({ status }) => ({ value: status.window.size }),
  },
  {
    name: 'reptool_window_used_bytes',
    type: 'gauge',
    help: 'Payload that the window holds.',
    of: ({ status }) => ({ value: status.window.used }),
  },
  {
    name: 'reptool_window_slots',
    type: 'gauge',
    help: 'Records that the window can hold.',
    of: ({ status }) => ({ value: status.window.slots }),
  },
  {
    name: 'reptool_window_used_slots',
    type: 'gauge',
    help: 'Records that the window holds.',
    of: ({ status }) => ({ value: status.window['slots-used'] }),
  },
  {
    name: 'reptool_next_seq',
    type: 'gauge',
    help: 'Number of the next record; everything before it is in the log or the window.',
    of: ({ status }) => ({ value: status.window['next-seq'] }),
  },
  {
    name: 'reptool_durable_seq',
    type: 'gauge',
    help: 'Every record before this number is durable in the log.',
    of: ({ status }) => ({ value: status.window['durable-seq'] }),
  },
  {
    name: 'reptool_applied_seq',
    type: 'gauge',
    help: 'Every record before this number is on the local images.',
    of: ({ status }) => ({ value: status.window['applied-seq'] }),
  },
  {
    name: 'reptool_log_size_bytes',
    type: 'gauge',
    help: 'Ring of the log.',
    of: ({ status }) => ({ value: status.log.size }),
  },
  {
    name: 'reptool_log_used_bytes',
    type: 'gauge',
    help: 'What a site, the local images or the index still need of the ring.',
    of: ({ status }) => ({ value: status.log.used }),
  },
  {
    name: 'reptool_log_state',
    type: 'gauge',
    help: '1 for the state that the log is in, 0 for the others.',
    of: ({ status }) => LOG_STATES.map((state) => ({ labels: { state }, value: Number(status.log.state === state) })),
  },
  {
    name: 'reptool_log_held_by',
    type: 'gauge',
    help: '1 for the link that keeps the head of the log; slink 0 are the local images. Absent while nothing does.',
    of: ({ group }) =>
      group.log.holder === undefined ? [] : [{ labels: { slink: String(group.log.holder) }, value: 1 }],
  },
  {
    name: 'reptool_log_covers_seconds',
    type: 'gauge',
    help: 'How long the ring lasts at the present rate; +Inf while nothing is written.',
    of: ({ group: { log } }) => ({ value: log.bytesPerSecond < 1 ? Infinity : log.ring / log.bytesPerSecond }),
  },
  {
    name: 'reptool_log_written_bytes_total',
    type: 'counter',
    help: 'Bytes written to the ring of the log, headers and padding included.',
    of: ({ log }) => ({ value: log.bytes }),
  },
  {
    name: 'reptool_log_batches_total',
    type: 'counter',
    help: 'Batches written to the log.',
    of: ({ log }) => ({ value: log.batches }),
  },
  {
    name: 'reptool_log_records_total',
    type: 'counter',
    help: 'Records written to the log.',
    of: ({ log }) => ({ value: log.records }),
  },
  {
    name: 'reptool_log_sync_duration_seconds',
    type: 'histogram',
    help: 'Syncs of the log: how many, how long.',
    of: ({ syncs }) => [{ histogram: syncs }],
  },
  {
    name: 'reptool_log_failures_total',
    type: 'counter',
    help: 'Writes and syncs of the log that failed and suspended it.',
    of: ({ log }) => ({ value: log.failures }),
  },
  {
    name: 'reptool_site_state',
    type: 'gauge',
    help: '1 for the state that a site is in, 0 for the others.',
    of: ({ status }) =>
      status.connections.flatMap((c) =>
        SITE_STATES.map((state) => ({
          labels: { site: String(c['peer-node-id']), state },
          value: Number(c.state === state),
        })),
      ),
  },
  {
    name: 'reptool_site_needs_full_resync',
    type: 'gauge',
    help: '1 where a site cannot go on from where it is.',
    of: perSite((c) => Number(c['needs-full-resync'])),
  },
  {
    name: 'reptool_site_synchronous',
    type: 'gauge',
    help: '1 while every write waits for the site: it is sync, or beyond its fall-behind limits.',
    of: perSite((c) => Number(c.mode === 'S')),
  },
  {
    name: 'reptool_site_degraded',
    type: 'gauge',
    help: '1 while writers go on without a sync site whose timeout is over.',
    of: perSite((c) => Number(c.degraded)),
  },
  {
    name: 'reptool_site_waiting_requests',
    type: 'gauge',
    help: 'Requests that wait for the site.',
    of: perSite((c) => c['waiting-writes']),
  },
  {
    name: 'reptool_site_cursor_seq',
    type: 'gauge',
    help: 'The site has confirmed every record before this number.',
    of: perSite((c) => c['cursor-seq']),
  },
  {
    name: 'reptool_site_lag_seconds',
    type: 'gauge',
    help: 'Age of the oldest write that the site has not confirmed.',
    of: perSite((c) => c['lag-seconds']),
  },
  {
    name: 'reptool_site_lag_bytes',
    type: 'gauge',
    help: 'Bytes of the log that the site has not confirmed.',
    of: perSite((c) => c['lag-bytes']),
  },
  {
    name: 'reptool_site_lag_writes',
    type: 'gauge',
    help: 'Records that the site has not confirmed.',
    of: perSite((c) => c['lag-writes']),
  },
  {
    name: 'reptool_site_inconsistent',
    type: 'gauge',
    help: '1 where the site is no prefix of the history.',
    of: perSite((c) => Number(c.sync === 'inconsistent')),
  },
  {
    name: 'reptool_site_dirty_bytes',
    type: 'gauge',
    help: 'How much of the devices has to be compared and copied before the site is in sync; 0 where nothing has.',
    of: perSite((c) => c.resync?.['bytes-left'] ?? 0),
  },
  {
    name: 'reptool_site_resynced_bytes',
    type: 'gauge',
    help: 'What was copied to the site since it left the ring, zeroes included; 0 while it is in sync.',
    of: perSite((c) => (c.resync === null ? 0 : c.resync['bytes-copied'] + c.resync['bytes-zeroed'])),
  },
  {
    name: 'reptool_site_verify_running',
    type: 'gauge',
    help: '1 while the site is compared with the local images.',
    of: perSite((c) => Number(c.verify !== null && c.verify.ended === null)),
  },
  {
    name: 'reptool_site_verify_compared_bytes',
    type: 'gauge',
    help: 'How much the verify that goes on, or the last one, has compared. Absent before the first.',
    of: perVerify((v) => v['bytes-compared']),
  },
  {
    name: 'reptool_site_verify_total_bytes',
    type: 'gauge',
    help: 'How much it has to compare.',
    of: perVerify((v) => v['bytes-total']),
  },
  {
    name: 'reptool_site_verify_different_bytes',
    type: 'gauge',
    help: 'How much of it differs.',
    of: perVerify((v) => v['different-bytes']),
  },
  {
    name: 'reptool_site_verify_end_time_seconds',
    type: 'gauge',
    help: 'When a verify last came to its end and had looked at everything, seconds since 1970.',
    of: perVerify((v) => (v.ended === null || v.state !== 'done' ? undefined : Date.parse(v.ended) / 1000)),
  },
  {
    name: 'reptool_site_sent_bytes_total',
    type: 'counter',
    help: 'Payload sent to the site and confirmed by it.',
    of: perLink((link) => link.bytes),
  },
  {
    name: 'reptool_site_sent_records_total',
    type: 'counter',
    help: 'Records sent to the site and confirmed by it.',
    of: perLink((link) => link.records),
  },
  {
    name: 'reptool_site_sent_batches_total',
    type: 'counter',
    help: 'Batches sent to the site and confirmed by it.',
    of: perLink((link) => link.batches),
  },
  {
    name: 'reptool_site_opens_total',
    type: 'counter',
    help: 'How often the site was opened; every time but the first is a reconnection.',
    of: perLink((link) => link.opens),
  },
  {
    name: 'reptool_site_failures_total',
    type: 'counter',
    help: 'How often the site failed, unsuccessful attempts to open it included.',
    of: perLink((link) => link.failures),
  },
  {
    name: 'reptool_site_connects_total',
    type: 'counter',
    help: 'How often the site was connected to its server; 0 for sites that have none.',
    of: perLink((link) => link.connects),
  },
  {
    name: 'reptool_site_connections_lost_total',
    type: 'counter',
    help: 'How often a connection to the server of the site was lost while it was in use, or given up after an error.',
    of: perLink((link) => link.losses),
  },
  {
    name: 'reptool_site_garbage_total',
    type: 'counter',
    help: 'How often a connection was closed because the server of the site sent garbage.',
    of: perLink((link) => link.garbage),
  },
  {
    name: 'reptool_messages_total',
    type: 'counter',
    help: 'Messages written to .ctl/messages: carried out, failed, or not understood.',
    of: ({ messages }) => Object.entries(messages).map(([result, value]) => ({ labels: { result }, value })),
  },
];

export function metricsText(facts: MetricFacts): string {
  const seen: Seen = { ...facts, status: buildStatus(facts.group) };
  const group = { group: facts.group.config.name };
  const lines: string[] = [];
  for (const metric of METRICS) {
    const samples = metric.type === 'histogram' ? histogramLines(metric, seen, group) : plainLines(metric, seen, group);
    if (samples.length === 0) continue;
    lines.push(`# HELP ${metric.name} ${escapeHelp(metric.help)}`, `# TYPE ${metric.name} ${metric.type}`, ...samples);
  }
  return `${lines.join('\n')}\n`;
}

function plainLines(metric: Metric & { type: 'counter' | 'gauge' }, seen: Seen, group: Labels): string[] {
  return [metric.of(seen)].flat().map(({ labels, value }) => line(metric.name, { ...group, ...labels }, value));
}

function histogramLines(metric: Metric & { type: 'histogram' }, seen: Seen, group: Labels): string[] {
  return metric.of(seen).flatMap(({ labels, histogram }) => {
    const all = { ...group, ...labels };
    let sum = 0;
    const buckets = histogram.buckets.map((n, i) => {
      sum += n;
      const bound = BOUNDS_US[i];
      const le = bound === undefined ? '+Inf' : number(bound / 1e6);
      return line(`${metric.name}_bucket`, { ...all, le }, sum);
    });
    // Count is what the buckets hold: the two never disagree, although nobody stops the writer.
    return [...buckets, line(`${metric.name}_sum`, all, histogram.seconds), line(`${metric.name}_count`, all, sum)];
  });
}

function line(name: string, labels: Labels, value: number): string {
  const words = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
  return `${name}{${words.join(',')}} ${number(value)}`;
}

function number(value: number): string {
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}

function escapeLabel(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}

function escapeHelp(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n');
}
