/**
 * The connections of one site to its server, on the thread that has the sockets: one per export.
 *
 * A connection that ends with requests in flight may still have them carried out there, after newer ones that come by
 * another way. So nobody connects again before the server is known to have let go of it (its FIN or RST came back),
 * or `reconnect-wait` has passed since; and after an unclean death of a process before this one, before that time
 * has passed since this one began.
 */
import { NbdConnection, NbdFault } from './nbd-connection.js';
import { parseNbdAddress, type NbdOptions } from './nbd-options.js';
import { OP, type NbdConnected, type NbdWork } from './nbd-port.js';

export interface NbdWhere {
  /** HOST:PORT. */
  address: string;
  options: NbdOptions;
}

export interface NbdAnswer {
  /** 0, or the negative errno of what failed first. */
  errno: number;
  reason: string;
  /** Of a STATUS request. */
  zeroes: number;
}

/** How often it is looked whether anything moves, milliseconds. */
const LOOK_MS = 250;
/** How soon a site looks again whether it need not wait any longer. */
const AGAIN_MS = 100;

export class NbdSession {
  private readonly where: NbdWhere;
  private readonly work: NbdWork;
  private readonly bornMs = performance.now();
  private connections: NbdConnection[] = [];
  private readonly lingering = new Set<NbdConnection>();
  /** Called while something moves. */
  private readonly beat: () => void;

  constructor(where: NbdWhere, work: NbdWork, beat: () => void = () => {}) {
    this.where = where;
    this.work = work;
    this.beat = beat;
  }

  async connect(exports: readonly string[], unsure: boolean): Promise<NbdConnected> {
    this.close();
    const { address, options } = this.where;
    // One that is closed already is known to be by then.
    if (this.lingering.size > 0) await new Promise((resolve) => setImmediate(resolve));
    const rest = unsure ? this.bornMs + options.reconnectWaitMs - performance.now() : 0;
    if (rest > 0 || this.lingering.size > 0) {
      const reason = `${address}: waits until the server has let go of the connection before`;
      return { ok: false, refused: false, reason, againMs: AGAIN_MS };
    }
    const target = parseNbdAddress(address);
    const opened = await Promise.allSettled(
      exports.map((name) => NbdConnection.open(target, name, `${address}/${name}`, options)),
    );
    let fault: NbdFault | undefined;
    for (const one of opened) {
      if (one.status === 'fulfilled') this.connections.push(one.value);
      else if (one.reason instanceof NbdFault) fault ??= one.reason;
      else throw one.reason;
    }
    if (fault === undefined) {
      this.work.counted('made');
      return { ok: true, exports: this.connections.map((c) => c.facts) };
    }
    this.close();
    return { ok: false, refused: fault.refused, reason: this.tell(fault) };
  }

  async run(): Promise<NbdAnswer> {
    const { work, connections } = this;
    let before = -1;
    let sinceMs = performance.now();
    const watch = setInterval(() => {
      const moved = connections.reduce((sum, c) => sum + c.moved, 0);
      const now = performance.now();
      this.beat();
      if (moved !== before) sinceMs = now;
      else if (now - sinceMs >= this.where.options.timeoutMs) for (const c of connections) if (c.busy) c.timedOut();
      before = moved;
    }, LOOK_MS);
    try {
      for (const c of connections) c.begin(work);
      const lists: number[][] = connections.map(() => []);
      for (let i = 0; i <= work.count; i++) {
        if (i < work.count && work.command(i) !== OP.BARRIER) {
          lists[work.leg(i)]!.push(i);
          continue;
        }
        await Promise.all(connections.map((c, leg) => c.send(lists[leg]!)));
        await Promise.all(connections.map((c) => c.answered()));
        for (const list of lists) list.length = 0;
      }
      const zeroes = work.count > 0 ? connections[work.leg(0)]!.zeroes : 0;
      return { errno: 0, reason: '', zeroes };
    } catch (error) {
      if (!(error instanceof NbdFault)) throw error;
      if (connections.length > 0) this.work.counted('lost');
      const reason = this.tell(error);
      this.close();
      return { errno: error.errno, reason, zeroes: 0 };
    } finally {
      clearInterval(watch);
    }
  }

  close(): void {
    for (const c of this.connections.splice(0)) {
      const { busy } = c;
      c.end();
      if (!busy) continue;
      this.lingering.add(c);
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(() => (c.destroy(), resolve()), this.where.options.reconnectWaitMs);
      });
      void Promise.race([c.dropped, late]).then(() => {
        clearTimeout(timer);
        this.lingering.delete(c);
      });
    }
  }

  private tell(fault: NbdFault): string {
    if (!fault.garbage) return fault.message;
    this.work.counted('garbage');
    const { garbage } = this.work.connections;
    return garbage === 1 ? fault.message : `${fault.message} (${garbage} times so far)`;
  }
}
