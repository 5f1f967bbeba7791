/** The site's side of nbd-worker: calls that wait. */
import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { ERRNO } from '../base/errors.js';
import { NbdWork, OP, type NbdConnected, type NbdPort } from '../slink/nbd-port.js';
import type { NbdAnswer, NbdWhere } from '../slink/nbd-session.js';
import { SMALL_HEAP } from './heap.js';
import type { NbdWorkerData, ToNbd } from './nbd-worker.js';

/** Beyond the site's own time-out: what a thread that is alive needs at most to notice it. */
const GRACE_MS = 5000;

export class NbdThread implements NbdPort {
  readonly work = new NbdWork();
  reason = '';
  private readonly where: NbdWhere;
  private worker: Worker | undefined;
  private port: MessagePort | undefined;

  constructor(where: NbdWhere) {
    this.where = where;
  }

  connect(exports: readonly string[], unsure: boolean): NbdConnected {
    // A thread that had to be given up may have left requests behind that nobody knows of.
    const lost = this.worker === undefined && this.reason !== '';
    const answer = this.call({ t: 'connect', exports, unsure: unsure || lost }) as NbdConnected | undefined;
    return answer ?? { ok: false, refused: false, reason: this.reason };
  }

  run(): number {
    const answer = this.call({ t: 'run' }) as NbdAnswer | undefined;
    if (answer === undefined) return -ERRNO.ETIMEDOUT;
    this.reason = answer.reason;
    return answer.errno;
  }

  zeroesAt(leg: number, offset: number, length: number): number {
    const { work } = this;
    work.clear();
    work.add(leg, OP.STATUS, offset, length);
    const answer = this.call({ t: 'run' }) as NbdAnswer | undefined;
    work.clear();
    if (answer === undefined) return -ERRNO.ETIMEDOUT;
    this.reason = answer.reason;
    return answer.errno < 0 ? answer.errno : answer.zeroes;
  }

  close(): void {
    if (this.worker !== undefined) this.call({ t: 'close' });
  }

  private start(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const workerData: NbdWorkerData = { where: this.where, work: this.work.buffer, port: port2 };
    this.worker = new Worker(new URL('./nbd-worker.js', import.meta.url), {
      workerData,
      transferList: [port2],
      resourceLimits: SMALL_HEAP,
    });
    return (this.port = port1);
  }

  /** The answer; undefined, with `reason`, where the thread gives none: then another is made for the next call. */
  private call(message: ToNbd): unknown {
    const port = this.port ?? this.start();
    const { words } = this.work;
    const seen = Atomics.load(words, 0);
    port.postMessage(message);
    for (;;) {
      const beats = Atomics.load(words, 3);
      // A connection is made within one time-out and greets within another.
      if (Atomics.wait(words, 0, seen, 2 * this.where.options.timeoutMs + GRACE_MS) !== 'timed-out') break;
      if (Atomics.load(words, 3) !== beats) continue;
      this.reason = `${this.where.address}: the thread of its sockets hangs; it is made anew`;
      void this.worker!.terminate();
      this.worker = undefined;
      this.port = undefined;
      return undefined;
    }
    return (receiveMessageOnPort(port) as { message: unknown }).message;
  }
}
