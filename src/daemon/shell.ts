/**
 * What the threads of committer, applier and shippers have in common. Each is a shell around one machine: it
 * loads, says `up`, waits for `start` (a warm spare waits there), then steps and sleeps until it is done. From
 * then on its event loop never turns again, so messages are fetched by hand and nothing may await.
 */
import * as fs from 'node:fs';
import { parentPort, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import type { Machine } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { SH, type Bell, type Shared } from '../replog/shared.js';
import type { SiteConfig } from '../control/config.js';
import type { LogPlace } from '../replog/format.js';
import type { ClosedSegment } from '../replog/segments.js';
import type { GroupIdentity, LinkState, OpenWindow, SiteCursor, SiteDevice } from '../slink/contract.js';
import type { ImageSpec, LocalSpec } from '../slink/images.js';
import type {
  CopiedReport,
  InSyncReport,
  LocalCopySource,
  ResyncOrder,
  ResyncProgress,
} from '../slink/resync-order.js';
import type { Readers } from '../slink/shipper.js';
import type { VerifyReport } from '../slink/verify.js';
import type { SlinkAround } from '../slink/types.js';
import type { WorkerBase } from './threads.js';

export interface ShellWorkerData extends WorkerBase {
  fuseFd: number;
  /** eventfd of the data thread: rung where room was made while it waits for some. */
  bellFd: number;
  /** Of the group, for those who make sites. */
  plugins: readonly string[];
  /** Place of a shipper among the links; picks its bell. */
  link: number;
  /** Where the committer's answers go instead of to the kernel (fuse-native). */
  answers?: MessagePort;
}

export interface CommitStart {
  t: 'start';
  logPath: string;
}

export interface ApplyStart {
  t: 'start';
  logPath: string;
  /** `optional`: of a device that leaves; passed over where it is not there. */
  images: LocalSpec[];
  /** Smaller numbers were used: where such a device has no image, it has left the group. */
  usedBelow: number;
  synced: LogPlace;
  /** The window was adopted: what the daemon before wrote and never synced is written again. */
  redo: boolean;
  /** Images that cannot be opened are tried again, as those that fail. */
  detach: boolean;
  /** Whose images they are. */
  logId: string;
}

export interface ShipStart {
  t: 'start';
  logPath: string;
  site: SiteConfig;
  around: Omit<SlinkAround, 'nbd'>;
  identity: GroupIdentity;
  devices: SiteDevice[];
  cursor: SiteCursor;
  fresh: boolean;
  paused: boolean;
  /** The link is inconsistent. */
  resync?: ResyncOrder;
}

/** To a shell that runs. `stop`: end at once, whatever is left to do. */
export type ToShell =
  | { t: 'pause' }
  | { t: 'resume' }
  | { t: 'retry' }
  | { t: 'site'; site: SiteConfig }
  | { t: 'stop' }
  /** To the applier: a device comes, or may be written to up to `size`; answered by `device`. */
  | { t: 'image'; id: number; spec: ImageSpec }
  | { t: 'grow'; id: number; nr: number; size: number }
  /** To the applier: the images as they are to be opened anew while slink 0 is detached. */
  | { t: 'images'; images: ApplyStart['images'] }
  /** To the committer: nothing is to be written from now on (answered by `held`), or again; the log is suspended. */
  | { t: 'hold' }
  | { t: 'release' }
  | { t: 'suspend'; errno: number }
  /** To a shipper: open the site's images for reading (answered by `readers`); they are not read any more. */
  | { t: 'readers' }
  | { t: 'readersGone' }
  /** To a shipper: the link was dropped to its dirty logs, or dropped again. */
  | { t: 'resync'; order: ResyncOrder }
  /** To a shipper: the index holds no dirty region of this epoch any more. */
  | { t: 'whole'; epoch: number; wholeAt: number }
  /** To a shipper: compare the site with these images of slink 0 (reports are marked with `id`); end that. */
  | { t: 'verify'; id: number; locals: LocalCopySource[] }
  | { t: 'verifyStop' };

export type FromShell =
  | { t: 'up' }
  | { t: 'running' }
  /** It could not begin: the thing, the reason, the next step. */
  | { t: 'failed'; errno: string; message: string }
  | { t: 'ended' };

export type FromCommit =
  | FromShell
  | { t: 'logError'; errno: number; call: string }
  | { t: 'logHealed' }
  /** As main wished: what is before this log position is written and synced, nothing else. */
  | { t: 'held'; pos: number }
  | { t: 'segment'; segment: ClosedSegment };

export type FromApply =
  | FromShell
  | { t: 'synced'; place: LogPlace }
  | { t: 'localError'; errno: number; file: string; during: string }
  | { t: 'localHealed' }
  | { t: 'device'; id: number; errno?: string; message?: string };

export type FromShip =
  | FromShell
  /** `epoch` of the order under which it was confirmed, 0 = none: one of an earlier epoch may be behind the drop. */
  | { t: 'cursor'; place: SiteCursor; epoch: number }
  | { t: 'state'; state: LinkState; reason: string }
  | { t: 'readers'; found: Readers | string }
  | { t: 'window'; window: OpenWindow | null }
  | ({ t: 'copied' } & CopiedReport)
  /** What the site had confirmed may be gone: everything is to be marked, and a new epoch begins. */
  | { t: 'lost'; epoch: number }
  | ({ t: 'insync' } & InSyncReport)
  | ({ t: 'progress' } & ResyncProgress)
  | { t: 'verify'; id: number; report: VerifyReport };

/** A machine that is ready to run, and what the shell asks it. */
export interface Runner {
  machine: Machine;
  bell: Bell;
  /** True where a step would find nothing to do. */
  idle(): boolean;
  /** True where what becomes durable is no news to it: it then looks around by itself every few milliseconds. */
  dozes?(): boolean;
  /** True where a step may take so long that messages are to be looked for behind each one. */
  heeds?(): boolean;
  /** Asked while it is at rest: true = its work is done for good. */
  finished(): boolean;
  /** After every step. */
  stepped?(): void;
  /** Before a rest of `ms`: how long it may be at most. */
  rest?(ms: number): number;
  /** Longest sleep, milliseconds: many threads that look around each second keep an idle machine from sleeping. */
  longest?(): number;
  take(message: ToShell): void;
  close(): void;
}

/** Longest sleep where the runner does not say otherwise: bounds what a lost wake-up could cost. */
const LONGEST_SLEEP_MS = 1000;

/** How long news of other kinds may wait for a machine that dozes. */
const DOZE_MS = 20;

/** Steps without rest after which messages are looked for. */
const LOOK_EVERY = 64;

export function post(message: object, move: readonly ArrayBuffer[] = []): void {
  parentPort!.postMessage(message, move);
}

/** Waits for `start`, builds the machine with it and runs it to its end. */
export function runShell<S extends { t: 'start' }>(
  name: string,
  data: ShellWorkerData,
  shared: Shared,
  build: (start: S) => Runner,
): void {
  sys.setThreadName(name);
  // An operator's message may come before `start`, while a daemon is only just taking over.
  const early: ToShell[] = [];
  const first = (start: S | ToShell): void => {
    if (start.t !== 'start') {
      early.push(start);
      return;
    }
    parentPort!.off('message', first);
    let runner: Runner;
    try {
      runner = build(start);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      post({ t: 'failed', errno: error.errno, message: error.message });
      return;
    }
    post({ t: 'running' });
    if (!early.some((message) => message.t === 'stop')) {
      for (const message of early) runner.take(message);
      loop(runner, data, shared);
    }
    runner.close();
    post({ t: 'ended' });
  };
  parentPort!.on('message', first);
  post({ t: 'up' });
}

function loop(runner: Runner, data: ShellWorkerData, shared: Shared): void {
  const { machine, bell } = runner;
  let stopped = false;
  const fetch = (): boolean => {
    let any = false;
    for (;;) {
      const received = receiveMessageOnPort(parentPort!) as { message: ToShell } | undefined;
      if (received === undefined) return any;
      any = true;
      if (received.message.t === 'stop') stopped = true;
      else runner.take(received.message);
    }
  };
  for (let n = 1; ; n++) {
    const ms = machine.step();
    runner.stepped?.();
    if (shared.load(SH.DATA_WAITS) === 1) ringData(data.bellFd);
    if (ms <= 0 && n % LOOK_EVERY !== 0 && runner.heeds?.() !== true) continue;
    const news = fetch();
    if (stopped) return;
    if (ms <= 0 || news) continue;
    if (runner.finished()) return;
    // Messages are looked for once more behind the raised flag: a ring that came before it wakes nobody.
    const rest = Math.min(runner.rest?.(ms) ?? ms, runner.longest?.() ?? LONGEST_SLEEP_MS);
    if (runner.dozes?.() === true) bell.doze(Math.min(rest, DOZE_MS));
    else bell.sleep(() => !fetch() && !stopped && runner.idle(), rest);
  }
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer);

/** Makes the data thread look around. */
export function ringData(bellFd: number): void {
  try {
    fs.writeSync(bellFd, one);
  } catch {
    // EAGAIN: the counter is full, so that it is awake anyway.
  }
}
