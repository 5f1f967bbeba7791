/** What `.ctl` shows of a group that is served: status, table and events, and what they are made of. */
import { realClock } from '../base/clock.js';
import { buildStatus, holderName, type DirtyFacts, type GroupFacts } from '../control/facts.js';
import { servedDevices } from '../control/device-plan.js';
import { regionOf } from '../control/dirty-logs.js';
import { EventLog, type EventThing, type EventVerb } from '../control/events.js';
import { keeperRuns, readRun, type DaemonConfig } from '../control/keeper-client.js';
import { metricsText } from '../control/metrics.js';
import { statusLines } from '../control/status-lines.js';
import { policyWords } from '../control/policy-words.js';
import { tableLines } from '../control/table.js';
import { typeNames } from '../control/types.js';
import type { MessageCounts } from '../control/messages.js';
import type { MadeFile } from '../control/tree.js';
import type { Checkpointer } from '../replog/checkpointer.js';
import { SH } from '../replog/shared.js';
import type { LinkPolicies } from '../slink/policy.js';
import { tailOf } from './ends.js';
import { durablePos, gather } from './gather.js';
import type { Detaching } from './detaching.js';
import type { Leaving } from './dirt.js';
import type { Resizing } from './resizing.js';
import type { Link } from './links.js';
import type { OpenGroup } from './open.js';
import type { Around } from './parts.js';
import { Rate } from './rate.js';
import { Statistics } from './statistics.js';
import { Timeline } from './timeline.js';
import { log } from './workers.js';

const KEEP_FAILURES = 16;
/** A status text is made at most this often: GETATTR, open and read each ask for it. */
const STATUS_MS = 50;

const NOTHING: ReadonlyMap<number, DirtyFacts> = new Map();

export class View {
  readonly events: EventLog;
  readonly statistics: Statistics;
  /** Messages so far; set by whoever takes them. */
  messages: () => MessageCounts = () => ({ ok: 0, failed: 0, invalid: 0 });
  /** Set where links leave the ring. */
  leaving: Leaving | undefined;
  private readonly config: DaemonConfig;
  private readonly opened: OpenGroup;
  private readonly around: Around;
  private readonly links: readonly Link[];
  private readonly checkpointer: Checkpointer;
  private readonly policies: LinkPolicies;
  private readonly detaching: Detaching;
  private readonly resizing: Resizing;
  private readonly rate: Rate;
  private readonly timeline = new Timeline();
  private readonly failures: GroupFacts['failures'] = [];
  private readonly bornMs = Date.now();
  private isFull = false;
  /** Who held a full log when it was last told in events. */
  private toldHolder = '';
  private cached: { at: number; facts: GroupFacts } | undefined;

  constructor(
    config: DaemonConfig,
    opened: OpenGroup,
    around: Around,
    links: readonly Link[],
    checkpointer: Checkpointer,
    policies: LinkPolicies,
    detaching: Detaching,
    resizing: Resizing,
  ) {
    this.config = config;
    this.opened = opened;
    this.around = around;
    this.links = links;
    this.checkpointer = checkpointer;
    this.policies = policies;
    this.detaching = detaching;
    this.resizing = resizing;
    this.rate = new Rate(durablePos(around.window), Date.now());
    this.statistics = new Statistics(around.window, around.shared, Date.now());
    this.events = new EventLog(() => this.things());
  }

  text(file: MadeFile): string {
    switch (file) {
      case 'status':
        return statusLines(this.facts());
      case 'status.json':
        return `${JSON.stringify(buildStatus(this.facts()), null, 2)}\n`;
      case 'table':
        return tableLines(this.opened.config, this.opened.types);
      case 'metrics':
        return this.metrics();
    }
  }

  /** When the newest durable write was made, milliseconds since 1970. */
  writtenMs(): number {
    const { window } = this.around;
    return window.durablePlace(tailOf(window)).time / 1000;
  }

  /** Once a second: what can only be known by looking again. */
  tick(): void {
    const { window } = this.around;
    this.rate.note(durablePos(window), Date.now());
    this.timeline.note(tailOf(window), realClock.wallUs());
    this.statistics.tick(Date.now(), servedDevices(this.opened.config));
  }

  get full(): boolean {
    return this.isFull;
  }

  /** Writers wait for log space, or no longer; and who keeps it from them. */
  noteFull(full: boolean): void {
    const was = this.isFull;
    this.isFull = full;
    const holder = full ? holderName(this.checkpointer.holder().nr).replace(' ', '-') : '';
    if (was === full && holder === this.toldHolder) return;
    this.toldHolder = holder;
    this.logEvent(full ? { state: 'full', 'held-by': holder } : { state: 'ok' });
  }

  failed(what: string): void {
    log(what);
    this.failures.push({ at: new Date().toISOString(), what });
    if (this.failures.length > KEEP_FAILURES) this.failures.shift();
  }

  groupEvent(keys: Record<string, string | number | boolean>, reason?: string): void {
    this.events.add('change', 'group', this.opened.config.name, keys, reason);
  }

  deviceEvent(
    verb: 'create' | 'change' | 'destroy',
    { nr, name, size }: { nr: number; name: string; size: number },
  ): void {
    this.forget();
    this.events.add(verb, 'device', name, verb === 'destroy' ? { nr } : { nr, size });
  }

  logEvent(keys: Record<string, string | number | boolean>, reason?: string): void {
    this.events.add('change', 'log', this.opened.config.log.path, keys, reason);
  }

  /** `why` instead of the link's own reason; `mode` where it is the news and may have changed again since. */
  linkEvent(link: Link, why = link.reason, mode?: 'A' | 'S', verb: EventVerb = 'change'): void {
    const keys = { ...this.linkKeys(link), ...(mode === undefined ? {} : { mode }) };
    this.events.add(verb, 'site', `site${link.config.nr}`, keys, why === '' ? undefined : why);
    if (link.state === 'failed') log(`site ${link.config.nr} failed: ${link.reason}`);
  }

  /** A verify of the site has begun or ended. */
  verifyEvent(link: Link, what: 'start' | 'end'): void {
    this.forget();
    const { report } = link.verify!;
    const end = what === 'end' ? { result: report.state, different: report.different } : {};
    const why = report.reason === '' ? undefined : report.reason;
    this.events.add('change', 'site', `site${link.config.nr}`, { nr: link.config.nr, verify: what, ...end }, why);
    if (report.different > 0) this.failed(`site ${link.config.nr}: a verify found ${report.different} bytes to differ`);
  }

  private facts(): GroupFacts {
    const now = Date.now();
    if (this.cached !== undefined && now - this.cached.at <= STATUS_MS) return this.cached.facts;
    const { opened, around, config } = this;
    const facts = gather({
      ...{ config: opened.config, mountpoint: config.mountpoint, resend: config.negotiated.resend },
      ...{ transport: config.transport, transportReason: config.transportReason, notes: config.notes },
      ...{ window: around.window, shared: around.shared, log: opened.log, checkpointer: this.checkpointer },
      ...{
        links: this.links,
        policies: this.policies,
        timeline: this.timeline,
        recovery: opened.recovery,
        bornMs: this.bornMs,
      },
      ...{ reign: opened.reign, reignId: opened.reignId, keeper: this.keeperPid(), full: this.isFull },
      ...{
        bytesPerSecond: this.rate.bytesPerSecond,
        localFile: this.detaching.file,
        detached: this.detaching.facts(),
        resize: this.resizing.facts(),
        failures: [...this.failures],
        types: typeNames(opened.types),
        dirty: (nr) => this.leaving?.dirty(nr) ?? NOTHING,
        region: this.leaving?.region ?? regionOf(opened.config),
      },
      statistics: this.statistics.facts(servedDevices(opened.config)),
    });
    this.cached = { at: now, facts };
    return facts;
  }

  private metrics(): string {
    const group = this.facts();
    const pids = { keeper: group.keeper, daemon: process.pid };
    const links = this.links.map((link) => ({ nr: link.config.nr, place: link.place }));
    return metricsText({ group, ...this.statistics.metrics(links, pids), messages: this.messages() });
  }

  /** A status that was made before a change is not shown after it. */
  forget(): void {
    this.cached = undefined;
  }

  /** A keeper that adopted us has no channel to say so, but it writes run.json. */
  private keeperPid(): number | null {
    const pid = this.around.keeper();
    if (pid !== null) return pid;
    try {
      const run = readRun(this.config.groupDir);
      return run !== undefined && keeperRuns(run) ? run.keeper : null;
    } catch {
      return null;
    }
  }

  private things(): EventThing[] {
    const { config, reign, log: logFile } = this.opened;
    const state = this.around.shared.load(SH.LOG_ERROR) !== 0 ? 'error' : this.isFull ? 'full' : 'ok';
    return [
      { object: 'group', name: config.name, keys: { role: 'Primary', reign, daemon: process.pid } },
      { object: 'log', name: config.log.path, keys: { state, size: logFile.ring } },
      ...servedDevices(config).map(({ nr, name, size }): EventThing => ({
        object: 'device',
        name,
        keys: { nr, size },
      })),
      ...this.links.map((l): EventThing => ({ object: 'site', name: `site${l.config.nr}`, keys: this.linkKeys(l) })),
    ];
  }

  private linkKeys(link: Link): Record<string, string | number | boolean> {
    return {
      nr: link.config.nr,
      type: link.config.type,
      policy: policyWords(link.config),
      mode: this.policies.isSync(link.place) ? 'S' : 'A',
      state: link.state,
      seq: link.cursor.seq,
      paused: link.paused,
      degraded: this.policies.isDegraded(link.place),
      sync: link.stale === '' && !link.inconsistent ? 'in-sync' : 'inconsistent',
      'needs-full-resync': link.stale !== '',
    };
  }
}
