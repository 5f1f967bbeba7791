/** The size of the log of a group that is served: connects replog/resize.ts with threads, group.json and messages. */
import { ERRNO, RepError, errnoText, type ErrnoName } from '../base/errors.js';
import { realClock } from '../base/clock.js';
import { formatSize } from '../base/units.js';
import { holderName } from '../control/facts.js';
import { saveConfig, type GroupConfig } from '../control/config.js';
import type { ChangeHow } from '../control/device-changes.js';
import type { Checkpointer } from '../replog/checkpointer.js';
import type { LogFile } from '../replog/logfile.js';
import { LogWork, type LogJob } from '../replog/logwork.js';
import { LogResize, geometryFor, sizeSentence, type LogWorker, type ResizeFacts } from '../replog/resize.js';
import { SH } from '../replog/shared.js';
import { realIo } from '../base/io.js';
import type { FromHelper, ToHelper } from './helper.js';
import type { Around, Threads } from './parts.js';
import { Thread, log } from './workers.js';

export interface ResizingParts {
  dir: string;
  config: GroupConfig;
  log: LogFile;
  around: Around;
  threads: Threads;
  checkpointer: Checkpointer;
  /** Who may keep the head is asked to settle what it has. */
  hurry(): void;
  /** The log has another size, or keeps it: whoever waits for room looks again. */
  room(): void;
  event(keys: Record<string, string | number | boolean>, reason?: string): void;
  failed(what: string): void;
  /** There is something to do. */
  kick(): void;
}

interface Asked {
  size: number;
  resolve: (text: string) => void;
  reject: (error: RepError) => void;
}

export class Resizing {
  private readonly p: ResizingParts;
  private readonly machine: LogResize;
  private readonly worker = new HelperWorker(() => this.p.kick());
  private asked: Asked[] = [];

  constructor(parts: ResizingParts) {
    this.p = parts;
    const { config, around, threads, checkpointer } = parts;
    this.machine = new LogResize({
      ...{ log: parts.log, window: around.window, shared: around.shared, clock: realClock },
      worker: this.worker,
      committer: {
        hold: () => threads.commit.post({ t: 'hold' }),
        release: () => threads.commit.post({ t: 'release' }),
        suspend: (errno) => threads.commit.post({ t: 'suspend', errno }),
      },
      hurry: () => parts.hurry(),
      holder: () => holderName(checkpointer.holder().nr),
      events: {
        ended: (size, error) => this.ended(size, error),
        suspended: (reason) => parts.failed(`${reason}; it is tried again, and the log is suspended until then`),
        waits: (why) => this.waits(why),
      },
    });
    // The header wins: the daemon before died behind the superblock, or another group.json was put in place.
    const { size, resize } = config.log;
    if (resize === undefined ? size !== parts.log.size : resize <= parts.log.size) this.settle();
  }

  /** What an earlier daemon had begun goes on. */
  carryOn(): void {
    const { config, log: logFile } = this.p;
    const { resize } = config.log;
    if (this.machine.busy) return;
    if (resize === undefined) {
      const info = realIo.stat('REPLOG:STAT', logFile.path);
      if (typeof info !== 'number' && info.kind === 'file' && info.size > logFile.size) this.cut();
      return;
    }
    log(`goes on growing the log to ${resize} bytes`);
    this.machine.begin(resize);
  }

  /** The daemon before died before it had given the end of the file back, or while it was growing it. */
  private cut(): void {
    const { log: logFile } = this.p;
    const work = new LogWork(realIo, { do: 'cut', path: logFile.path, to: logFile.size });
    try {
      while (!work.done) work.step();
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.p.failed(error.message);
    }
  }

  facts(): ResizeFacts | undefined {
    return this.machine.facts();
  }

  /** Answers when it is done, or when nothing but time is missing. */
  resize(size: number, { resent, stop }: ChangeHow): Promise<string> {
    const { config, log: logFile, around } = this.p;
    // Not a word of a new one before what was begun is known to be going on.
    if (config.log.resize !== undefined) this.carryOn();
    const facts = this.machine.facts();
    // Sent again by the kernel, which had no answer from the daemon before.
    if (facts?.size === size && resent) return this.answer(size, stop);
    if (facts === undefined) {
      geometryFor(logFile.path, logFile.segment, size);
      if (size === logFile.size) return Promise.resolve(`the log has ${formatSize(size)} already`);
      const errno = around.shared.load(SH.LOG_ERROR);
      if (errno !== 0)
        throw new RepError(
          errno === ERRNO.ENOSPC ? 'ENOSPC' : 'EIO',
          `${logFile.path}: the log is suspended: ${errnoText(errno)}; repair it, then resume`,
        );
      // The intention first: whoever dies from now on, the next daemon or the next mount goes on.
      if (size > logFile.size) this.save(config.log.size, size);
    }
    this.machine.begin(size);
    this.worker.prepare();
    this.p.kick();
    this.p.event({ resizing: size });
    return this.answer(size, stop);
  }

  private answer(size: number, stop: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      const asked = { size, resolve, reject };
      this.asked.push(asked);
      const left = (): void => {
        this.asked = this.asked.filter((one) => one !== asked);
        reject(new RepError('EINTR', 'the log goes on being resized; see status'));
      };
      stop.addEventListener('abort', left, { once: true });
    });
  }

  held(pos: number): void {
    this.machine.held(pos);
  }

  step(): number {
    return this.machine.step();
  }

  /** The group is closed: a growth goes on with the next mount. */
  stop(): void {
    this.machine.stop();
    for (const { reject } of this.asked.splice(0))
      reject(new RepError('EINTR', 'the group is being unmounted; a log that was to grow grows with the next mount'));
  }

  private ended(size: number, error: RepError | undefined): void {
    const { log: logFile } = this.p;
    this.worker.leave();
    this.settle();
    this.p.room();
    const asked = this.asked.splice(0);
    if (error !== undefined) {
      this.p.event({ size: logFile.ring }, error.message);
      if (asked.length === 0) this.p.failed(error.message);
      for (const { reject } of asked) reject(error);
      return;
    }
    log(`the log has ${size} bytes now`);
    this.p.event({ size: logFile.ring });
    for (const { resolve } of asked) resolve(sizeSentence(size, logFile.ring));
  }

  private waits(why: string): void {
    this.p.event({ resizing: this.machine.facts()?.size ?? 0 }, why);
    for (const { size, resolve } of this.asked.splice(0))
      resolve(`the log is to have ${formatSize(size)}, which waits: ${why}`);
  }

  /** group.json says what the log says. */
  private settle(): void {
    try {
      this.save(this.p.log.size);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      // The next daemon finds the two different, and settles it.
      this.p.failed(error.message);
    }
  }

  private save(size: number, resize?: number): void {
    const { dir, config } = this.p;
    const { path } = config.log;
    const changed = { path, size, ...(resize === undefined ? {} : { resize }) };
    saveConfig(dir, { ...config, log: changed });
    config.log = changed;
  }
}

/** A helper's thread for the time of a resize: one that zeroes an area may be busy for long, and devices have their own. */
class HelperWorker implements LogWorker {
  private helper: Thread<ToHelper, FromHelper> | undefined;
  private done: true | RepError | undefined;
  private bytes = 0;
  private total = 0;
  private readonly told: () => void;

  constructor(told: () => void) {
    this.told = told;
  }

  /** Makes the thread: the committer must not have to hold for as long as that takes. */
  prepare(): void {
    this.helper ??= new Thread<ToHelper, FromHelper>('log-helper', './helper.js', { fuseFd: -1 });
    this.helper.onMessage = (message) => this.heard(message);
  }

  start(job: LogJob): void {
    this.done = undefined;
    this.bytes = this.total = 0;
    this.prepare();
    this.helper!.post({ id: 0, do: 'log', job });
  }

  /** Nothing more comes. */
  leave(): void {
    void this.helper?.terminate();
    this.helper = undefined;
  }

  private heard(message: FromHelper): void {
    switch (message.t) {
      case 'up':
        return;
      case 'progress':
        this.bytes = message.bytes;
        this.total = message.total;
        return;
      case 'done':
        this.done = true;
        return this.told();
      case 'failed':
        this.done = new RepError(message.errno as ErrnoName, message.message);
        return this.told();
    }
  }

  result(): true | RepError | undefined {
    return this.done;
  }

  progress(): { bytes: number; total: number } {
    return { bytes: this.bytes, total: this.total };
  }
}
