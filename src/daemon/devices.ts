/** The devices of a group that is served: connects device-changes.ts with the threads, the tree and the kernel. */
import * as fs from 'node:fs';
import { ERRNO, RepError, errnoText, type ErrnoName } from '../base/errors.js';
import { realIo } from '../base/io.js';
import type { DeviceConfig, GroupConfig } from '../control/config.js';
import { DeviceChanges, type ChangeVerb, type Held } from '../control/device-changes.js';
import type { Before } from '../control/device-image.js';
import { describeHolders, holdersOf } from '../control/holders.js';
import { DAEMON_FD } from '../control/keeper-client.js';
import { ROOT_NODE, deviceNode } from '../control/nodes.js';
import { putInvalInode } from '../fuse/proto.js';
import type { RecordType } from '../replog/format.js';
import { SH } from '../replog/shared.js';
import { W } from '../replog/window.js';
import { tailOf } from './ends.js';
import type { FromHelper, HelperJob, ToHelper } from './helper.js';
import type { Around, Threads } from './parts.js';
import { Thread } from './workers.js';

/** The answer of a thread to something main asked of it. */
export interface Answered {
  id: number;
  /** Where it failed. */
  errno?: string;
  message?: string;
  before?: Before;
}

export interface DeviceParts {
  dir: string;
  config: GroupConfig;
  mountpoint: string;
  around: Around;
  threads: Threads;
  append(type: RecordType, nr: number, payload: Uint8Array): Promise<{ seq: number }>;
  /** Opens of a device that main has answered and not seen released. */
  opens(nr: number): number;
  event(verb: ChangeVerb, device: DeviceConfig): void;
  failed(what: string): void;
}

const LOOK_MS = 5;
/** How long a removal waits for slink 0 to have everything on disk. */
const APPLIED_MS = 10_000;
/** How long one waits for the kernel to let go of a name: it takes a lock that a program may hold. */
const FORGET_MS = 1000;

export class Devices {
  readonly changes: DeviceChanges;
  /** Slink 0 has everything below it synced. */
  synced = 0;
  /** A descriptor of the mount's connection, to tell the kernel what it is to forget. */
  connection: number = DAEMON_FD.FUSE;
  private readonly p: DeviceParts;
  private helper: Thread<ToHelper, FromHelper> | undefined;
  private readonly asked = new Map<number, { resolve: (a: Answered) => void; reject: (error: RepError) => void }>();
  private nextId = 1;

  constructor(parts: DeviceParts) {
    this.p = parts;
    const { dir, config, mountpoint, threads } = parts;
    this.changes = new DeviceChanges({
      ...{ dir, config, mountpoint, io: realIo },
      images: {
        look: async (job, taken) => (await this.help({ do: 'look', job, taken })).before ?? 'nothing',
        make: async (job) => void (await this.help({ do: 'make', job })),
        undo: async (job, before) => void (await this.help({ do: 'undo', job, before })),
        grow: async (job, to) => void (await this.help({ do: 'grow', job, to })),
      },
      log: {
        append: async (type, nr, payload) => (await parts.append(type, nr, payload)).seq,
        durable: (seq) => this.durable(seq),
        applied: (seq) => this.applied(seq),
        suspended: () => this.suspended(),
      },
      serve: {
        openImage: async (spec) => void (await this.ask((id) => threads.apply.post({ t: 'image', id, spec }))),
        growImage: async (nr, size) => void (await this.ask((id) => threads.apply.post({ t: 'grow', id, nr, size }))),
        open: async ({ nr, size, local }) =>
          void (await this.ask((id) => threads.data.post({ t: 'open', id, device: { nr, size, local } }))),
        resize: (nr, size) => threads.data.post({ t: 'resize', nr, size }),
        close: (nr) => threads.data.post({ t: 'close', nr }),
      },
      shown: (verb, device) => this.shown(verb, device),
      failed: (what) => parts.failed(what),
      holders: (device) => this.holders(device),
      passed: dieWhere,
    });
  }

  /** A thread has answered. */
  heard(answer: Answered): void {
    const waiting = this.asked.get(answer.id);
    this.asked.delete(answer.id);
    if (answer.errno === undefined) waiting?.resolve(answer);
    else waiting?.reject(new RepError(answer.errno as ErrnoName, answer.message ?? ''));
  }

  private ask(post: (id: number) => void): Promise<Answered> {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.asked.set(id, { resolve, reject });
      post(id);
    });
  }

  private help(job: HelperJob): Promise<Answered> {
    this.helper ??= this.startHelper();
    const { helper } = this;
    return this.ask((id) => helper.post({ ...job, id }));
  }

  /** It is needed for a moment in months, so no daemon is born with it. */
  private startHelper(): Thread<ToHelper, FromHelper> {
    const helper = new Thread<ToHelper, FromHelper>('helper', './helper.js', { fuseFd: this.connection });
    helper.onMessage = (message) => {
      if (message.t === 'done' || message.t === 'failed') this.heard(message);
    };
    return helper;
  }

  // --- the log ---------------------------------------------------------------------------------------------

  private durable(seq: number): Promise<void> {
    const { window, shared } = this.p.around;
    return this.look(() => {
      const tail = tailOf(window);
      if (window.seqOf(W.DURABLE, tail) > seq) return true;
      // Nobody waits for it with a flush, so it would take its time.
      shared.bump(SH.SYNC_ASK);
      shared.bell(SH.BELL_COMMIT).ring();
      return false;
    });
  }

  private applied(seq: number): Promise<void> {
    const { shared } = this.p.around;
    const until = performance.now() + APPLIED_MS;
    shared.bump(SH.SYNC_ASK);
    shared.bell(SH.BELL_APPLY).ring();
    return this.look(() => this.synced > seq || shared.load(SH.LOCAL_ERROR) !== 0 || performance.now() > until);
  }

  private look(done: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const again = (): void => {
        if (done()) resolve();
        else setTimeout(again, LOOK_MS);
      };
      again();
    });
  }

  private suspended(): RepError | undefined {
    const errno = this.p.around.shared.load(SH.LOG_ERROR);
    if (errno === 0) return undefined;
    const text = `${this.p.config.log.path}: the log is suspended: ${errnoText(errno)}; repair it, then resume`;
    return new RepError(errno === ERRNO.ENOSPC ? 'ENOSPC' : 'EIO', text);
  }

  // --- who sees it -----------------------------------------------------------------------------------------

  /** Resolves when the kernel shows it, too, or takes too long. */
  private async shown(verb: ChangeVerb, device: DeviceConfig): Promise<void> {
    this.p.event(verb, device);
    // libfuse numbers nodes in its own way, and its kernel keeps names for a while but no attributes.
    if (this.p.threads.answer === undefined) {
      this.askAgain(ROOT_NODE);
      if (verb !== 'create') this.askAgain(deviceNode(device.nr));
    }
    if (verb !== 'destroy') return;
    const limit = new Promise((resolve) => setTimeout(resolve, FORGET_MS).unref());
    await Promise.race([this.help({ do: 'forget', name: device.name }), limit]);
  }

  /** The kernel is to ask for the attributes of a node again. */
  private askAgain(node: number): void {
    const bytes = new Uint8Array(64);
    const length = putInvalInode(new DataView(bytes.buffer), 0, node, false);
    try {
      fs.writeSync(this.connection, bytes, 0, length);
    } catch {
      // Nobody has looked at it yet, or it is unmounted.
    }
  }

  private holders({ nr, name }: DeviceConfig): Held {
    const found = holdersOf(`${this.p.mountpoint}/${name}`);
    if (found.length > 0) return { who: `is in use: ${describeHolders(found)}`, passing: false };
    if (this.p.opens(nr) === 0) return { who: '', passing: false };
    // A process of another namespace, or one that is just closing it.
    return { who: 'is held open by a process that cannot be seen from here', passing: true };
  }
}

/** Test knob: the process kills itself behind the step that this file names, once: it takes the file away before. */
function dieWhere(step: string): void {
  const file = process.env['REPTOOL_TEST_DEVICE_DIE'];
  if (file === undefined) return;
  try {
    if (fs.readFileSync(file, 'utf8') !== step) return;
    fs.unlinkSync(file);
  } catch {
    return;
  }
  process.kill(process.pid, 'SIGKILL');
}
