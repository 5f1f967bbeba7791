/** The daemon's threads as main sees them: started early, told to begin later, never outlived. */
import * as fs from 'node:fs';
import { Worker, type MessagePort, type ResourceLimits, type TransferListItem } from 'node:worker_threads';

/** One line in the group's daemon.log; written at once, since the next thing may be the process's end. */
export function log(text: string): void {
  try {
    fs.writeSync(2, `${new Date().toISOString()} daemon[${process.pid}] ${text}\n`);
  } catch {
    // A full disk must not end the daemon.
  }
}

/** Exit status that makes the keeper start another daemon. */
const EXIT_BROKEN = 70;

/** A thread died of a defect. What is in the window is safe there; a new daemon starts from it. */
export function broken(what: string, error: unknown): never {
  log(`${what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  process.exit(EXIT_BROKEN);
}

/** What wakes a thread: a Bell, or the eventfd of the data thread. */
export interface Ringing {
  ring(): void;
}

/** A thread, wherever it runs. */
export interface Peer<To, From extends { t: string }> {
  /** Resolves when it has loaded. */
  readonly up: Promise<void>;
  /** Resolves when it has ended by itself. */
  readonly ended: Promise<void>;
  onMessage: (message: From) => void;
  /** Sends a message and wakes it. */
  post(message: To): void;
  wake(): void;
  /** Ends it wherever it stands. */
  terminate(): Promise<unknown>;
}

/** Somebody at the other end of a port: the main thread, where the devices run there (fuse-native). */
export class PortPeer<To, From extends { t: string }> implements Peer<To, From> {
  readonly up: Promise<void>;
  readonly ended: Promise<void>;
  onMessage: (message: From) => void = () => undefined;
  private readonly port: MessagePort;
  private readonly stop: To;

  /** `stop` asks it to end; it answers with a message `end`. */
  constructor(port: MessagePort, stop: To) {
    this.port = port;
    this.stop = stop;
    let isUp: () => void;
    let hasEnded: () => void;
    this.up = new Promise((resolve) => (isUp = resolve));
    this.ended = new Promise((resolve) => (hasEnded = resolve));
    port.on('message', (message: From) => {
      if (message.t === 'up') isUp();
      this.onMessage(message);
      if (message.t === 'end') hasEnded();
    });
  }

  post(message: To, move: readonly TransferListItem[] = []): void {
    this.port.postMessage(message, move);
  }

  wake(): void {
    // A message is enough to wake it, and it looks around every second.
  }

  terminate(): Promise<void> {
    this.post(this.stop);
    return this.ended;
  }
}

export interface ThreadOptions {
  /** Rung with every message. */
  bell?: Ringing;
  transferList?: readonly TransferListItem[];
  limits?: ResourceLimits;
  /** Made with `begin` or its first message: until then it costs nothing. */
  later?: boolean;
}

export class Thread<To, From extends { t: string }> implements Peer<To, From> {
  readonly name: string;
  /** Resolves when the thread has loaded. */
  readonly up: Promise<void>;
  /** Resolves when the thread has ended by itself. */
  readonly ended: Promise<void>;
  onMessage: (message: From) => void = () => undefined;
  private readonly make: () => Worker;
  private worker: Worker | undefined;
  private readonly bell: Ringing | undefined;
  private isUp!: () => void;
  private hasEnded!: () => void;
  private leaving = false;

  constructor(name: string, file: string, workerData: object, options: ThreadOptions = {}) {
    this.name = name;
    this.bell = options.bell;
    const { transferList = [], limits } = options;
    this.make = () =>
      new Worker(new URL(file, import.meta.url), {
        workerData,
        transferList: [...transferList],
        ...(limits === undefined ? {} : { resourceLimits: limits }),
      });
    this.up = new Promise((resolve) => (this.isUp = resolve));
    this.ended = new Promise((resolve) => (this.hasEnded = resolve));
    if (options.later !== true) this.begin();
  }

  /** Makes the thread, if it is not made yet. */
  begin(): Worker {
    if (this.worker !== undefined) return this.worker;
    const worker = (this.worker = this.make());
    worker.on('message', (message: From) => {
      if (message.t === 'up') this.isUp();
      this.onMessage(message);
    });
    worker.on('error', (error) => broken(`thread ${this.name}`, error));
    worker.on('exit', (code) => {
      if (code !== 0 && !this.leaving) broken(`thread ${this.name}`, `exit status ${code}`);
      this.hasEnded();
    });
    return worker;
  }

  /** Sends a message and wakes the thread, which may be asleep in its own loop. */
  post(message: To): void {
    this.begin().postMessage(message);
    this.bell?.ring();
  }

  /** Makes it look around without a message. */
  wake(): void {
    this.bell?.ring();
  }

  /** Ends it wherever it stands; a call that is blocked in the kernel ends when that does. */
  terminate(): Promise<number> {
    this.leaving = true;
    if (this.worker !== undefined) return this.worker.terminate();
    this.hasEnded();
    return Promise.resolve(0);
  }
}

/** Waits for `work`, at most `ms`; true where it was done by then. */
export function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ms);
    void work.then(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}
