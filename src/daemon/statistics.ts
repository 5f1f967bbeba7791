/** Main's part of the statistics: turns them on and off, reads what the threads count, and keeps the rates. */
import * as fs from 'node:fs';
import type { DeviceCounts, IoRates, StatisticsFacts } from '../control/facts.js';
import type { LinkCounts, MetricFacts, ProcessFacts } from '../control/metrics.js';
import { KIND, KIND_NAMES, LINK_METER, LOG_METER, MeterReader, type Kind } from '../replog/meters.js';
import type { Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';

/** IOPS are those of so many seconds. */
const RATE_SECONDS = 5;
/** Unit of times in /proc/PID/stat on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;
const PAGE = 4096;

interface Moment extends IoRates {
  ms: number;
}

export class Statistics {
  private readonly window: Window;
  private readonly meters: MeterReader;
  private sinceMs: number;
  /** Sums at the last ticks, oldest first. */
  private moments: Moment[] = [];

  constructor(window: Window, shared: Shared, nowMs: number) {
    this.window = window;
    this.meters = new MeterReader(shared.meters);
    this.sinceMs = nowMs;
  }

  get on(): boolean {
    return this.window.load(W.STATS_OFF) === 0;
  }

  /** What the message `statistics` does; returns what it answers. The state outlives this daemon, counts do not. */
  set(what: 'on' | 'off' | 'reset', nowMs: number): string {
    switch (what) {
      case 'reset':
        this.meters.reset();
        this.sinceMs = nowMs;
        this.moments = [];
        return 'statistics begin at zero';
      case 'on':
        if (this.on) return 'statistics were on';
        this.window.store(W.STATS_OFF, 0);
        return 'statistics are on';
      case 'off':
        if (!this.on) return 'statistics were off';
        this.window.store(W.STATS_OFF, 1);
        this.moments = [];
        return 'statistics are off; counts stand still';
    }
  }

  /** Once a second. */
  tick(nowMs: number, devices: readonly { nr: number }[]): void {
    if (!this.on) return;
    const sum = (kind: Kind, of: 'requests' | 'bytes'): number =>
      devices.reduce((total, { nr }) => total + this.meters.device(nr, kind)[of], 0);
    this.moments.push({
      ms: nowMs,
      reads: sum(KIND.READ, 'requests'),
      writes: sum(KIND.WRITE, 'requests'),
      readBytes: sum(KIND.READ, 'bytes'),
      writtenBytes: sum(KIND.WRITE, 'bytes'),
    });
    if (this.moments.length > RATE_SECONDS + 1) this.moments.shift();
  }

  facts(devices: readonly { nr: number }[]): StatisticsFacts {
    return {
      on: this.on,
      sinceMs: this.sinceMs,
      devices: new Map(devices.map(({ nr }) => [nr, this.counts(nr)])),
      rates: this.rates(),
    };
  }

  /** The part of the metrics that stands in nobody's status. */
  metrics(
    links: readonly { nr: number; place: number }[],
    pids: { keeper: number | null; daemon: number },
  ): Omit<MetricFacts, 'group' | 'messages'> {
    const { meters } = this;
    const kinds = Object.values(KIND);
    return {
      latency: kinds.map((kind) => meters.latency(kind)),
      errors: kinds.map((kind) => meters.errors(kind)),
      syncs: meters.syncs,
      log: {
        bytes: meters.log(LOG_METER.BYTES),
        batches: meters.log(LOG_METER.BATCHES),
        records: meters.log(LOG_METER.RECORDS),
        failures: meters.log(LOG_METER.FAILURES),
      },
      links: links.map(({ nr, place }): LinkCounts => ({
        nr,
        bytes: meters.link(place, LINK_METER.BYTES),
        records: meters.link(place, LINK_METER.RECORDS),
        batches: meters.link(place, LINK_METER.BATCHES),
        failures: meters.link(place, LINK_METER.FAILURES),
        opens: meters.link(place, LINK_METER.OPENS),
        connects: meters.link(place, LINK_METER.CONNECTS),
        losses: meters.link(place, LINK_METER.LOSSES),
        garbage: meters.link(place, LINK_METER.GARBAGE),
      })),
      processes: [processFacts('daemon', pids.daemon), processFacts('keeper', pids.keeper)].filter(
        (facts) => facts !== undefined,
      ),
    };
  }

  private counts(nr: number): DeviceCounts {
    const of = (kind: Kind) => [KIND_NAMES[kind], this.meters.device(nr, kind)] as const;
    return Object.fromEntries(Object.values(KIND).map(of)) as unknown as DeviceCounts;
  }

  private rates(): IoRates | undefined {
    const from = this.moments.at(0);
    const to = this.moments.at(-1);
    if (from === undefined || to === undefined || to.ms <= from.ms) return undefined;
    const perSecond = (of: keyof IoRates): number => ((to[of] - from[of]) * 1000) / (to.ms - from.ms);
    return {
      reads: perSecond('reads'),
      writes: perSecond('writes'),
      readBytes: perSecond('readBytes'),
      writtenBytes: perSecond('writtenBytes'),
    };
  }
}

/** CPU time and memory of a process of ours; undefined where it is gone. */
function processFacts(name: ProcessFacts['name'], pid: number | null): ProcessFacts | undefined {
  if (pid === null) return undefined;
  try {
    // The name, in brackets, may hold anything; what counts stands behind its last bracket.
    const stat = fs
      .readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    const [user, system, pages] = [stat[11], stat[12], stat[21]].map(Number) as [number, number, number];
    return { name, cpuSeconds: (user + system) / TICKS_PER_SECOND, residentBytes: pages * PAGE };
  } catch {
    return undefined;
  }
}
