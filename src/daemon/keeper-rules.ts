/**
 * The keeper's decisions, free of processes and timers: when a daemon counts as hung, and how long to wait
 * before the next one, if there is to be one. All limits can be set by environment, for tests and for odd
 * machines.
 */

export interface KeeperLimits {
  /** REPTOOL_WATCHDOG_MS: both heartbeats must move within this time. */
  watchdogMs: number;
  /** REPTOOL_QUICK_MS: a daemon that dies earlier than this after `serving` died quickly. */
  quickMs: number;
  /** REPTOOL_QUICK_DEATHS: so many quick deaths within REPTOOL_QUICK_SPAN_MS are borne, one more is not. */
  quickDeaths: number;
  quickSpanMs: number;
  /** REPTOOL_SPARE_MS: a spare is started so long after its predecessor went into service. */
  spareMs: number;
  /** REPTOOL_MOUNT_POLL_MS: how often mountinfo is looked into. */
  mountPollMs: number;
}

export function limitsFrom(env: NodeJS.ProcessEnv): KeeperLimits {
  const number = (name: string, otherwise: number): number => {
    const n = Number(env[name]);
    return env[name] !== undefined && Number.isFinite(n) && n >= 0 ? n : otherwise;
  };
  return {
    watchdogMs: number('REPTOOL_WATCHDOG_MS', 10_000),
    quickMs: number('REPTOOL_QUICK_MS', 2000),
    quickDeaths: number('REPTOOL_QUICK_DEATHS', 5),
    quickSpanMs: number('REPTOOL_QUICK_SPAN_MS', 30_000),
    spareMs: number('REPTOOL_SPARE_MS', 10),
    mountPollMs: number('REPTOOL_MOUNT_POLL_MS', 1000),
  };
}

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5000;

/** How a daemon ended. */
export interface Death {
  at: number;
  /** When it had begun to serve; undefined = never. */
  servingAt: number | undefined;
  /** By SIGKILL from outside. */
  killed: boolean;
}

/**
 * Quick deaths in a row mean that the daemon dies of what it finds (a broken log, a poisonous request), and
 * that the next one will too. A daemon that served and was then killed by SIGKILL died of somebody's will:
 * it is replaced at once, however often that happens.
 */
export class Deaths {
  private quick: number[] = [];
  private readonly limits: KeeperLimits;

  constructor(limits: KeeperLimits) {
    this.limits = limits;
  }

  /** Milliseconds to wait before the next daemon, or undefined: no further one. */
  note(death: Death): number | undefined {
    if (death.servingAt !== undefined) {
      if (death.killed) return 0;
      if (death.at - death.servingAt >= this.limits.quickMs) {
        this.quick = [];
        return 0;
      }
    }
    this.quick = this.quick.filter((at) => death.at - at < this.limits.quickSpanMs);
    this.quick.push(death.at);
    const n = this.quick.length;
    // Somebody kills them: no reason to give up, only to be less eager.
    if (n > this.limits.quickDeaths && !death.killed) return undefined;
    return n === 1 ? 0 : Math.min(FIRST_DELAY_MS * 2 ** (n - 2), LONGEST_DELAY_MS);
  }

  get count(): number {
    return this.quick.length;
  }
}

/** Recovery of a large log takes its time, but shows a heartbeat of main; this bounds one that shows none. */
const START_FACTOR = 30;

/** Watches two counters for progress. A daemon that is stopped, or waits for itself, has none. */
export class Watchdog {
  private readonly limitMs: number;
  private readonly checkMs: number;
  private checkedAt = 0;
  private data = 0;
  private main = 0;
  private dataAt = 0;
  private mainAt = 0;
  private since = 0;

  constructor(limitMs: number) {
    this.limitMs = limitMs;
    this.checkMs = Math.max(10, limitMs / 4);
  }

  /** How often `late` wants to be asked. */
  get everyMs(): number {
    return this.checkMs;
  }

  /** A new daemon is in charge. */
  restart(now: number): void {
    this.checkedAt = this.since = this.dataAt = this.mainAt = now;
  }

  /** True where a heartbeat has stood still for too long. */
  late(now: number, data: number, main: number, serving: boolean): boolean {
    // Nobody asked for long: this process was stopped itself, or the machine slept. Nobody is to blame.
    if (now - this.checkedAt > this.limitMs) this.restart(now);
    this.checkedAt = now;
    if (data !== this.data) this.dataAt = now;
    if (main !== this.main) this.mainAt = now;
    this.data = data;
    this.main = main;
    // Until it serves, main alone shows life, and data's clock starts when it does.
    if (!serving) {
      this.dataAt = now;
      return now - Math.max(this.mainAt, this.since) > this.limitMs * START_FACTOR;
    }
    return now - this.dataAt > this.limitMs || now - this.mainAt > this.limitMs;
  }
}
