/** The size of the log in the simulator: as daemon/resizing.ts connects it, and the operator who wants another one. */
import { RepError } from '../../src/base/errors.js';
import { LogWork, type LogJob } from '../../src/replog/logwork.js';
import { LogResize, type LogWorker } from '../../src/replog/resize.js';
import { SH } from '../../src/replog/shared.js';
import type { SimDaemon } from './sim-daemon.js';
import type { Coverage } from './sim-coverage.js';
import type { SimHost } from './sim-host.js';
import type { SimIo } from './sim-io.js';
import type { Rng } from './sim-random.js';

const MIB = 1 << 20;

/** Chance of each step that somebody wants another size. */
const RATE = 1 / 60;

/** A helper's thread: a piece of its job with each of its turns. */
class SimWorker implements LogWorker {
  private readonly io: SimIo;
  private work: LogWork | undefined;
  private done: true | RepError | undefined;

  constructor(io: SimIo) {
    this.io = io;
  }

  start(job: LogJob): void {
    this.work = new LogWork(this.io, job);
    this.done = undefined;
  }

  result(): true | RepError | undefined {
    return this.done;
  }

  progress(): { bytes: number; total: number } {
    return { bytes: this.work?.bytes ?? 0, total: this.work?.total ?? 0 };
  }

  step(): number {
    const { work } = this;
    if (work === undefined) return 10;
    try {
      work.step();
      if (!work.done) return 0;
      this.done = true;
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.done = error;
    }
    this.work = undefined;
    return 0;
  }
}

export class SimResize {
  readonly machine: LogResize;
  private readonly worker: SimWorker;
  private readonly daemon: SimDaemon;
  private readonly host: SimHost;
  /** Says something to main. */
  private readonly tell: (work: () => void) => void;
  private told = false;
  private toCommitter: (() => void)[] = [];

  constructor(daemon: SimDaemon, host: SimHost, tell: (work: () => void) => void) {
    this.daemon = daemon;
    this.host = host;
    this.tell = tell;
    const { committer, log, window, shared } = daemon;
    this.worker = new SimWorker(daemon.io);
    this.machine = new LogResize({
      ...{ log, window, shared, clock: host.clock, worker: this.worker },
      committer: {
        hold: () => {
          this.toCommitter.push(() => {
            this.told = false;
            committer.hold();
          });
        },
        release: () => void this.toCommitter.push(() => committer.release()),
        suspend: (errno) => void this.toCommitter.push(() => committer.suspend(errno)),
      },
      hurry: () => {
        shared.bump(SH.SYNC_ASK);
        daemon.checkpointer.ask();
      },
      holder: () => String(daemon.checkpointer.holder().nr),
      events: {
        ended: (size, error) => {
          host.resize = undefined;
          host.note(`the log ${error === undefined ? 'has' : 'is not to have'} ${size} bytes ${error?.message ?? ''}`);
          host.seen(error === undefined ? 'log resized' : `resize failed: ${error.errno}`);
        },
        suspended: (reason) => host.note(reason),
        waits: () => host.seen('resize waits for the head'),
      },
    });
    const { resize } = host;
    host.resize = undefined;
    if (resize !== undefined && resize > log.size) this.begin(resize);
  }

  begin(size: number): void {
    const { host, daemon } = this;
    // The intention is durable in group.json; a shrink has none.
    if (size > daemon.log.size) host.resize = size;
    host.note(`the log is to have ${size} bytes`);
    this.machine.begin(size);
  }

  /** Before and behind each of the committer's steps. */
  takeMail(): void {
    for (const work of this.toCommitter.splice(0)) work();
  }

  stepped(): void {
    const { committer } = this.daemon;
    if (committer.held === this.told) return;
    this.told = committer.held;
    const pos = committer.position;
    if (this.told) this.tell(() => this.held(pos));
  }

  private held(pos: number): void {
    const { mapping } = this.daemon.log;
    this.machine.held(pos);
    if (this.machine.facts()?.state === 'copying') this.host.seen('resize copies the part behind the wrap');
    if (this.daemon.log.mapping.base !== mapping.base) this.host.seen('log got another base');
  }

  work(): number {
    return this.worker.step();
  }
}

/** `reptool replog resize`. */
export class ResizeOperator {
  private readonly host: SimHost;
  private readonly rng: Rng;
  private readonly coverage: Coverage;

  constructor(host: SimHost, rng: Rng, coverage: Coverage) {
    this.host = host;
    this.rng = rng;
    this.coverage = coverage;
  }

  maybe(): void {
    const { rng, host } = this;
    const resizing = host.daemon?.resizing;
    if (!rng.chance(RATE) || resizing === undefined) return;
    const { size } = host.daemon!.log;
    const to = rng.pick([4, 4.5, 5, 6, 7, 9, 12]) * MIB + rng.pick([0, 512, 4096]);
    if (resizing.machine.busy) {
      try {
        resizing.machine.begin(to);
      } catch (error) {
        if (!(error instanceof RepError) || error.errno !== 'EPERM') throw error;
        this.coverage.hit('second resize refused');
      }
      return;
    }
    if (to === size) return;
    resizing.begin(to);
    this.coverage.hit(to > size ? 'log is to grow' : 'log is to shrink');
  }
}
