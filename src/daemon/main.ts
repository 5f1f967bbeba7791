/**
 * The daemon: one process that serves one mounted group. Started by the keeper with the descriptors 3 /dev/fuse,
 * 4 window, 5 channel, 6 lock; as a warm spare it loads everything, starts its threads and waits for `go`.
 *
 *   loaded ──go──▶ opened ──threads started──▶ serving ──unmounted──▶ closing ──▶ exit 0
 *                    └─ refused: exit 1                └─ a thread died: exit 70, the keeper starts another
 */
import { MessageChannel, isMainThread, workerData, type MessagePort } from 'node:worker_threads';
import { RepError } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { loadConfig } from '../control/config.js';
import { DAEMON_FD, type DaemonConfig } from '../control/keeper-client.js';
import { daemonTypes } from '../control/plugins.js';
import { SH, Shared } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { Channel } from './channel.js';
import { Group } from './group.js';
import { SMALL_HEAP, allowTidying } from './heap.js';
import { openGroup } from './open.js';
import type { Threads } from './parts.js';
import type {
  ApplyStart,
  CommitStart,
  FromApply,
  FromCommit,
  FromShip,
  ShellWorkerData,
  ShipStart,
  ToShell,
} from './shell.js';
import { ringData } from './shell.js';
import type { DataWorkerData, FromData, NativeWorkerData, ToData, ToNative } from './threads.js';
import { PortPeer, Thread, broken, log } from './workers.js';

const BEAT_MS = 1000;

const config = JSON.parse(process.env['REPTOOL_DAEMON'] ?? '{}') as DaemonConfig;
/** Where the devices run on the main thread (native.ts), this file is a thread of that process. */
const native = workerData as NativeWorkerData | null;
process.on('uncaughtException', (error) => broken('main', error));
process.on('unhandledRejection', (error) => broken('main', error));
if (isMainThread) {
  process.title = `reptool ${config.group}`;
  // At shutdown everybody is told at once; it is the keeper who unmounts, and then this process drains and ends.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
    process.on(signal, () => log(`${signal} ignored: unmount ${config.mountpoint} to end this daemon`));
}

// Without CAP_SYS_PTRACE a new keeper could not take the descriptors over. Fails where there is no Yama.
if (process.getuid?.() !== 0) sys.allowTracers();

allowTidying();
const window = Window.map(DAEMON_FD.WINDOW, config.windowRing);
const shared = new Shared();
const bellFd = sys.eventfd();
const channel = new Channel(DAEMON_FD.CHANNEL);

function beat(): void {
  window.words[W.BEAT_MAIN]!++;
}

/** Plug-ins of the group: they change only while it is not mounted. */
function groupPlugins(): string[] {
  try {
    return loadConfig(config.groupDir).plugins;
  } catch {
    return [];
  }
}

/**
 * Threads of so many links are made early, so that a spare has them loaded; those of the others when they are
 * started, since a spare is to cost little whatever the number of sites.
 */
const EARLY_SHIPS = 4;

/** Links are counted when the threads are made; a spare finds out at `go` whether that still holds. */
function countSites(): number {
  try {
    return Math.min(loadConfig(config.groupDir).sites.length, EARLY_SHIPS);
  } catch {
    return 0;
  }
}

function startThreads(): Threads {
  const common = { shared: shared.buffer, windowAt: window.mem.addr, windowRing: config.windowRing };
  const fuseFd = DAEMON_FD.FUSE;
  const dataWith: DataWorkerData = { ...common, fuseFd, bellFd, maxWrite: config.negotiated.maxWrite };
  const plugins = groupPlugins();
  const shellWith = (link: number): ShellWorkerData => ({ ...common, fuseFd, bellFd, plugins, link });
  const ship = (i: number): Thread<ShipStart | ToShell, FromShip> =>
    new Thread(`ship ${i}`, './ship.js', shellWith(i), {
      bell: shared.bell(SH.BELL_LINKS + 2 * i),
      limits: SMALL_HEAP,
      later: i >= EARLY_SHIPS,
    });
  let data: Threads['data'];
  let answers: MessagePort | undefined;
  let answer: ((reply: Uint8Array) => void) | undefined;
  if (native === null) {
    data = new Thread<ToData, FromData>('data', './data.js', dataWith, {
      bell: { ring: () => ringData(bellFd) },
    });
  } else {
    const { port1, port2: answered } = new MessageChannel();
    answers = port1;
    const peer = new PortPeer<ToNative, FromData>(native.native, { t: 'stop' });
    peer.post({ t: 'born', data: dataWith, answers: answered }, [answered]);
    answer = (bytes) => peer.post({ t: 'answer', bytes });
    data = peer;
  }
  return {
    data,
    ...(answer === undefined ? {} : { answer }),
    commit: new Thread<CommitStart | ToShell, FromCommit>(
      'commit',
      './commit.js',
      answers === undefined ? shellWith(0) : { ...shellWith(0), answers },
      { bell: shared.bell(SH.BELL_COMMIT), transferList: answers === undefined ? [] : [answers] },
    ),
    apply: new Thread<ApplyStart | ToShell, FromApply>('apply', './apply.js', shellWith(0), {
      bell: shared.bell(SH.BELL_APPLY),
    }),
    ships: Array.from({ length: countSites() }, (_, i) => ship(i)),
    moreShips: ship,
  };
}

async function refuse(error: RepError): Promise<never> {
  log(`refused: ${error.message}`);
  await channel.send({ type: 'refused', errno: error.errno, message: error.message });
  process.exit(1);
}

async function main(): Promise<void> {
  let keeper: number | null = config.keeperPid;
  let unmounted = false;
  let group: Group | undefined;
  const go = new Promise<void>((resolve) => {
    if (!config.spare) resolve();
    channel.onLost = () => {
      keeper = null;
      // A spare without a keeper has nobody who could ever need it.
      if (config.spare && group === undefined) process.exit(0);
    };
    channel.onMessage = (message) => {
      if (message.type === 'go') {
        keeper = message.keeper;
        resolve();
      } else {
        unmounted = true;
        group?.close('unmounted');
      }
    };
  });

  const threads = startThreads();
  const types = await daemonTypes(groupPlugins(), log);
  if (config.spare) {
    await Promise.all([threads.data.up, threads.commit.up, threads.apply.up, ...threads.ships.map((s) => s?.up)]);
    await channel.send({ type: 'ready' });
    await go;
  }
  beat();
  setInterval(beat, BEAT_MS);
  const started = performance.now();
  try {
    const opened = openGroup(config.groupDir, types, window, { beat, say: log });
    for (const note of opened.notes) log(note);
    group = new Group(config, opened, threads, { window, shared, keeper: () => keeper, channel });
    await group.start();
  } catch (error) {
    if (error instanceof RepError) await refuse(error);
    throw error;
  }
  log(`serves ${config.mountpoint} after ${(performance.now() - started).toFixed(1)} ms`);
  await channel.send({ type: 'serving' });
  group.afterStart();
  if (unmounted) group.close('unmounted');
}

void main().catch((error: unknown) => broken('main', error));
