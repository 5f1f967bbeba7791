import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { VerifyFacts } from '../../../src/control/facts.js';
import { BUCKETS, type Histogram } from '../../../src/replog/meters.js';
import { METRICS, metricsText, type MetricFacts } from '../../../src/control/metrics.js';
import { parseMetrics, valueOf } from '../../support/prometheus.js';
import { TOP } from '../cli/support.js';
import { MIB, NOW, facts, withSite } from './facts.js';

const histogram = (first: number, last = 0): Histogram => {
  const buckets = new Array<number>(BUCKETS).fill(0);
  buckets[0] = first;
  buckets[BUCKETS - 1] = last;
  return { buckets, count: first + last, seconds: 0.5 };
};

function metricFacts(change: Partial<MetricFacts> = {}): MetricFacts {
  return {
    group: facts(),
    latency: [histogram(5), histogram(7, 2), histogram(0), histogram(0)],
    errors: [0, 1, 0, 0],
    syncs: histogram(9),
    log: { bytes: 40960, batches: 3, records: 20, failures: 0 },
    links: [{ nr: 1, bytes: 512, records: 1, batches: 1, failures: 2, opens: 3, connects: 4, losses: 5, garbage: 6 }],
    processes: [{ name: 'daemon', cpuSeconds: 1.25, residentBytes: 1 << 20 }],
    messages: { ok: 1, failed: 0, invalid: 4 },
    ...change,
  };
}

/** `.TP` items of the section METRICS of reptool-ctl(5): name and labels. */
function documented(): string[] {
  const page = readFileSync(join(TOP, 'man/reptool-ctl.5'), 'utf8');
  const body = /^\.SH METRICS\n([^]*?)(?=^\.SH )/m.exec(page)?.[1] ?? '';
  return [...body.matchAll(/^\.TP\n\.(?:BR?|BI) (reptool_\w+)(?: .*)?$/gm)].map((hit) => hit[1]!);
}

const VERIFIED: VerifyFacts = {
  startedMs: NOW - 9000,
  endedMs: NOW - 4000,
  report: {
    ...{ state: 'done', reason: '', total: MIB, compared: MIB, rate: 0, suspected: 0, different: 512, grain: 512 },
    ranges: [{ device: 0, start: 4096, length: 512 }],
  },
};

describe('control/metrics', () => {
  it('metricsText tells of a verify, and of its end only when it has looked at everything', () => {
    const of = (verify: VerifyFacts) => parseMetrics(metricsText(metricFacts({ group: withSite({ verify }) })));
    const done = of(VERIFIED);
    assert.equal(valueOf(done, 'reptool_site_verify_running', { site: '1' }), 0);
    assert.equal(valueOf(done, 'reptool_site_verify_different_bytes', { site: '1' }), 512);
    assert.equal(valueOf(done, 'reptool_site_verify_end_time_seconds', { site: '1' }), (NOW - 4000) / 1000);
    const stopped = of({ ...VERIFIED, report: { ...VERIFIED.report, state: 'stopped', reason: 'by an operator' } });
    assert.equal(stopped.has('reptool_site_verify_end_time_seconds'), false);
    assert.equal(valueOf(of({ ...VERIFIED, endedMs: undefined }), 'reptool_site_verify_running', { site: '1' }), 1);
  });

  it('metricsText is valid by the exposition format and has every metric', () => {
    const families = parseMetrics(metricsText(metricFacts({ group: withSite({ verify: VERIFIED }) })));
    assert.deepEqual(
      [...families.keys()],
      METRICS.map((m) => m.name),
    );
    for (const family of families.values())
      for (const { name, labels } of family.samples) assert.equal(labels['group'], 'default', name);
  });

  it('metricsText prints buckets cumulatively, in seconds', () => {
    const families = parseMetrics(metricsText(metricFacts()));
    const of = (le: string): number =>
      valueOf(families, 'reptool_request_duration_seconds_bucket', { op: 'write', le });
    assert.equal(of('0.000008'), 7);
    assert.equal(of('16.777216'), 7);
    assert.equal(of('+Inf'), 9);
    assert.equal(valueOf(families, 'reptool_request_duration_seconds_sum', { op: 'write' }), 0.5);
  });

  it('metricsText escapes what names and paths may hold', () => {
    const mountpoint = '/mnt/a "b"\\c\nd';
    const families = parseMetrics(metricsText(metricFacts({ group: facts({ mountpoint }) })));
    assert.equal(families.get('reptool_info')!.samples[0]!.labels['mountpoint'], mountpoint);
  });

  it('metricsText gives states as one of several, and no line for what is not there', () => {
    const families = parseMetrics(metricsText(metricFacts({ group: withSite({ state: 'paused', paused: true }) })));
    assert.equal(valueOf(families, 'reptool_site_state', { site: '1', state: 'paused' }), 1);
    assert.equal(valueOf(families, 'reptool_site_state', { site: '1', state: 'connected' }), 0);
    assert.equal(valueOf(families, 'reptool_log_state', { state: 'ok' }), 1);
    assert.equal(valueOf(families, 'reptool_log_held_by', { slink: '1' }), 1);
    const alone = facts();
    const none = { ...alone, sites: [], log: { ...alone.log, holder: undefined, bytesPerSecond: 0 } };
    const text = metricsText(metricFacts({ group: none, links: [], processes: [] }));
    const fewer = parseMetrics(text);
    assert.equal(fewer.has('reptool_log_held_by'), false);
    assert.equal(fewer.has('reptool_site_state'), false);
    assert.equal(valueOf(fewer, 'reptool_log_covers_seconds'), Infinity);
  });

  it('counts, restarts and recovery are told', () => {
    const devices = new Map([
      [0, { read: c(3, 12288), write: c(2, 8192), flush: c(1, 0), discard: c(1, 65536) }] as const,
    ]);
    const group = facts({ statistics: { on: true, sinceMs: 0, devices, rates: undefined }, generation: 4 });
    const families = parseMetrics(metricsText(metricFacts({ group })));
    const of = (name: string, labels = {}): number => valueOf(families, name, labels);
    assert.equal(of('reptool_device_requests_total', { device: 'disk0', op: 'flush' }), 1);
    assert.equal(of('reptool_device_bytes_total', { device: 'disk0', op: 'discard' }), 65536);
    assert.equal(of('reptool_daemon_restarts_total'), 3);
    assert.equal(of('reptool_recovery_duration_seconds', { how: 'clean' }), 0.003);
    assert.equal(of('reptool_process_cpu_seconds_total', { process: 'daemon' }), 1.25);
    assert.equal(of('reptool_messages_total', { result: 'invalid' }), 4);
    assert.equal(of('reptool_site_failures_total', { site: '1' }), 2);
    assert.equal(of('reptool_site_connects_total', { site: '1' }), 4);
    assert.equal(of('reptool_site_connections_lost_total', { site: '1' }), 5);
    assert.equal(of('reptool_site_garbage_total', { site: '1' }), 6);
  });

  it('reptool-ctl(5) lists every metric, in order, and no other', () => {
    assert.deepEqual(
      documented(),
      METRICS.map((m) => m.name),
    );
  });
});

function c(requests: number, bytes: number): { requests: number; bytes: number } {
  return { requests, bytes };
}
