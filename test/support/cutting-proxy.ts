/**
 * A line between a site and its server that is cut at a byte: in the middle of a request or a reply, by RST or FIN,
 * or that falls silent for a while.
 *
 * It cuts the way two machines' kernels tell each other, not the way a box between them may lie: the site hears of the
 * end of a connection only when the server's process has let go of it, and with it of all that it was carrying out. The
 * other order is a documented limit of sites without a journal.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import * as net from 'node:net';
import { until } from './proc.js';

/** From the site to the server, or back. */
export type Way = 'up' | 'down';
type End = 'reset' | 'end';

export interface LineCut {
  /** Behind how many more bytes on which way. */
  way: Way;
  bytes: number;
  /** What each side sees of it. */
  server: End;
  client: End;
  /** All connections, or the one that carried the byte. */
  all: boolean;
  /** The line stays dead behind it, until `up`. */
  down: boolean;
}

interface Pair {
  here: net.Socket;
  there: net.Socket;
  /** Nothing is passed on any more. */
  cut: boolean;
}

interface Armed {
  cut: LineCut;
  left: number;
  done: () => void;
}

export class CuttingProxy {
  readonly address: string;
  private readonly server: net.Server;
  private readonly target: net.NetConnectOpts;
  private readonly processes: () => readonly number[];
  private readonly pairs = new Set<Pair>();
  private armed: Armed | undefined;
  private down = false;
  /** Sockets whose data wait for the end of a silence. */
  private silent: Set<net.Socket> | undefined;

  private constructor(server: net.Server, target: net.NetConnectOpts, processes: () => readonly number[]) {
    this.server = server;
    this.target = target;
    this.processes = processes;
    this.address = `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
    server.on('connection', (here) => this.join(here));
  }

  /** `processes`: those of the server, to see when they let go of a connection. */
  static async before(address: string, processes: () => readonly number[]): Promise<CuttingProxy> {
    const [host, port] = address.split(':');
    const server = net.createServer({ allowHalfOpen: true, noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new CuttingProxy(server, { host: host!, port: Number(port), allowHalfOpen: true, noDelay: true }, processes);
  }

  /** Waits for the byte, at most `ms`: then the cut comes wherever things stand. Resolves when both sides know. */
  async cut(cut: LineCut, ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.armed = { cut, left: cut.bytes, done: resolve };
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    if (this.armed !== undefined) this.fire(undefined);
    await this.cutting;
  }

  /** Nothing gets through for a while, and nothing is lost, unless a side gives up meanwhile. */
  async silence(ms: number): Promise<void> {
    this.silent = new Set();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const held = this.silent;
    this.silent = undefined;
    for (const socket of held) socket.resume();
  }

  up(): void {
    this.down = false;
  }

  close(): void {
    for (const { here, there } of this.pairs) for (const socket of [here, there]) socket.destroy();
    this.server.close();
  }

  private join(here: net.Socket): void {
    here.on('error', () => {});
    if (this.down) {
      here.resetAndDestroy();
      return;
    }
    const there = net.connect(this.target);
    there.on('error', () => {});
    const pair = { here, there, cut: false };
    this.pairs.add(pair);
    this.pass(pair, 'up', here, there);
    this.pass(pair, 'down', there, here);
  }

  private pass(pair: Pair, way: Way, from: net.Socket, to: net.Socket): void {
    from.on('data', (bytes: Buffer) => {
      if (pair.cut) return;
      if (this.silent !== undefined) {
        from.pause();
        from.unshift(bytes);
        this.silent.add(from);
        return;
      }
      const { armed } = this;
      if (armed?.cut.way === way && bytes.length >= armed.left) {
        to.write(bytes.subarray(0, armed.left));
        this.fire(pair);
        return;
      }
      if (armed?.cut.way === way) armed.left -= bytes.length;
      if (to.write(bytes)) return;
      from.pause();
      to.once('drain', () => from.resume());
    });
    from.on('end', () => {
      if (!pair.cut) to.end();
    });
    from.on('close', (failed) => {
      this.pairs.delete(pair);
      if (pair.cut) return;
      if (failed) to.resetAndDestroy();
      else to.destroySoon();
    });
  }

  private cutting: Promise<unknown> = Promise.resolve();

  private fire(carrier: Pair | undefined): void {
    const { cut, done } = this.armed!;
    this.armed = undefined;
    this.down = cut.down;
    const pairs = cut.all || carrier === undefined ? [...this.pairs] : [carrier];
    for (const pair of pairs) pair.cut = true;
    this.cutting = Promise.all(pairs.map((pair) => this.end(pair, cut)));
    done();
  }

  private async end({ here, there }: Pair, { server, client }: LineCut): Promise<void> {
    const inode = inodeOf(there);
    for (const socket of [here, there]) socket.resume();
    if (server === 'reset') there.resetAndDestroy();
    else there.end();
    const held = (): boolean => this.processes().some((pid) => holds(pid, inode));
    if (inode > 0) await until('the server has let go of a connection', () => !held(), 60_000, 2);
    there.destroy();
    if (client === 'reset') here.resetAndDestroy();
    else here.end();
  }
}

/** The socket at the other end of a connection on this machine; 0 where nobody has taken it yet. */
function inodeOf(socket: net.Socket): number {
  const port = (n: number | undefined): string => `:${(n ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
  const [local, remote] = [port(socket.remotePort), port(socket.localPort)];
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n')) {
    const words = line.trim().split(/\s+/);
    if (words[1]?.endsWith(local) === true && words[2]?.endsWith(remote) === true) return Number(words[9]);
  }
  return 0;
}

function holds(pid: number, inode: number): boolean {
  const is = (fd: string): boolean => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`;
    } catch {
      return false;
    }
  };
  try {
    return readdirSync(`/proc/${pid}/fd`).some(is);
  } catch {
    return false;
  }
}
