/** Real NBD servers on loopback, each over one file, that can be killed and started again at the same port. */
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import * as net from 'node:net';
import { join } from 'node:path';
import type { Mounted } from './mounted.js';
import { until, type Child } from './proc.js';

export type ServerKind = 'nbd-server' | 'qemu-nbd' | 'nbdkit';
export const SERVERS: readonly ServerKind[] = ['nbd-server', 'qemu-nbd', 'nbdkit'];

export async function freePort(): Promise<number> {
  const probe = net.createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as net.AddressInfo;
  await new Promise<void>((resolve) => probe.close(() => resolve()));
  return port;
}

export class NbdServer {
  readonly address: string;
  child: Child | undefined;
  private readonly m: Mounted;
  private readonly kind: ServerKind;
  private readonly file: string;
  private readonly port: number;
  private readonly extra: readonly string[];

  private constructor(m: Mounted, kind: ServerKind, file: string, port: number, extra: readonly string[]) {
    this.m = m;
    this.kind = kind;
    this.file = file;
    this.port = port;
    this.extra = extra;
    this.address = `127.0.0.1:${port}`;
  }

  /**
   * Serves `file` as export `disk0`, or all files of a folder under their names (not qemu-nbd). `extra` goes to the
   * server's command line.
   */
  static async start(m: Mounted, kind: ServerKind, file: string, extra: readonly string[] = []): Promise<NbdServer> {
    const server = new NbdServer(m, kind, file, await freePort(), extra);
    await server.start();
    return server;
  }

  async start(): Promise<void> {
    // Without the harness's mark: it is no process of reptool.
    const child = this.m.spawn(this.kind, this.words(), {
      env: { ...process.env },
      timeoutMs: 3_600_000,
    });
    this.child = child;
    // nbd-server goes into the background by itself: with -d it would serve a single connection.
    const lives = (): boolean => this.kind === 'nbd-server' || !child.ended;
    await until(`${this.kind} listens`, async () => !lives() || (await this.answers()), 10_000, 20);
    if (!lives()) throw new Error(`${this.kind} ended: ${(await child.done).stderr}`);
  }

  private words(): string[] {
    const { kind, file, port, extra } = this;
    switch (kind) {
      case 'nbd-server': {
        const section = (name: string, path: string): string =>
          `[${name}]\nexportname = ${path}\nfilesize = ${statSync(path).size}\nflush = true\nfua = true\ntrim = true\n`;
        const sections = this.folder
          ? readdirSync(file).map((name) => section(name, join(file, name)))
          : [section('disk0', file)];
        const words = `[generic]\nlistenaddr = 127.0.0.1\nport = ${port}\n${sections.join('')}`;
        writeFileSync(this.config, `${words}${extra.join('\n')}\n`);
        return ['-C', this.config];
      }
      case 'qemu-nbd':
        return ['-f', 'raw', '-x', 'disk0', '-b', '127.0.0.1', '-p', `${port}`, '-t', '-e', '8', ...extra, file];
      case 'nbdkit':
        // Options of the program come before the plug-in's name, those of filters behind it.
        return [
          ...['-f', '-i', '127.0.0.1', '-p', `${port}`, ...extra.filter((word) => word.startsWith('-'))],
          ...['file', this.folder ? `dir=${file}` : file, ...extra.filter((word) => !word.startsWith('-'))],
        ];
    }
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = net.connect(this.port, '127.0.0.1');
      socket.on('connect', () => (socket.destroy(), resolve(true)));
      socket.on('error', () => resolve(false));
    });
  }

  async kill(): Promise<void> {
    this.child?.kill();
    await this.child?.done;
    const left = (): number[] => (this.kind === 'nbd-server' ? processesOf(this.config) : []);
    // One process per connection, and one that listens.
    await until(
      'no nbd-server is left',
      () => {
        for (const pid of left()) kill(pid);
        return left().length === 0;
      },
      5000,
      10,
    );
  }

  private get folder(): boolean {
    return statSync(this.file).isDirectory();
  }

  /** On the command line of its processes, and of no other. */
  get word(): string {
    if (this.kind === 'nbd-server') return this.config;
    return this.folder ? `dir=${this.file}` : this.file;
  }

  private get config(): string {
    return join(this.m.top, `nbd-${this.port}.conf`);
  }
}

/** Processes with `word` on their command line: a path that only this harness knows. */
export function processesOf(word: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && textOf(`/proc/${name}/cmdline`).split('\0').includes(word))
    .map(Number)
    .filter((pid) => !/^State:\s+Z/m.test(textOf(`/proc/${pid}/status`)));
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
