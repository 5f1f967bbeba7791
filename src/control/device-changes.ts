/**
 * Devices come, grow and go while the group is served. Each change is a row of durable steps, so that whoever
 * comes after a crash knows what was begun and carries it on:
 *
 *   create   intention in group.json → image made, synced → DEVICE_ADD durable in the log → group.json → shown
 *   resize   intention → image grown, synced → DEVICE_RESIZE durable → group.json → shown
 *   remove   intention, hidden → DEVICE_REMOVE durable, images synced → out of group.json; its image stays
 *
 * A record says how things are from there on, and may be written twice; so nobody has to find out after a crash
 * whether it had become durable. Nothing is written to a device before its DEVICE_ADD is durable and it is shown,
 * nor behind its DEVICE_REMOVE: the data thread refuses writes from the moment it appends that record.
 *
 * One change at a time, in the order in which they were asked for.
 */
import { RepError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { encodeDeviceAdd, encodeDeviceResize } from '../replog/device-records.js';
import { REC, type RecordType } from '../replog/format.js';
import type { ImageSpec } from '../slink/images.js';
import { saveConfig, type DeviceConfig, type GroupConfig } from './config.js';
import type { Before, ImageJob } from './device-image.js';
import {
  planCreate,
  planRemove,
  planResize,
  restored,
  settled,
  placesInUse,
  withDevice,
  withoutDevice,
  type NewDevice,
  type PlacesInUse,
} from './device-plan.js';

/** What a change does to files; on a thread that may wait for them. Each rejects with a RepError. */
export interface ImagePort {
  look(job: ImageJob, taken: PlacesInUse): Promise<Before>;
  make(job: ImageJob): Promise<void>;
  undo(job: ImageJob, before: Before): Promise<void>;
  grow(job: ImageJob, to: number): Promise<void>;
}

export interface LogPort {
  /** Appends a record; its number. From a DEVICE_REMOVE on, the device takes no writes. */
  append(type: RecordType, nr: number, payload: Uint8Array): Promise<number>;
  /** Resolves when record `seq` is durable, however long the log is suspended or full. */
  durable(seq: number): Promise<void>;
  /** Resolves when slink 0 has everything up to `seq` synced, or cannot for now. */
  applied(seq: number): Promise<void>;
  /** Why nothing can be appended just now. */
  suspended(): RepError | undefined;
}

/** The threads that write and read images. */
export interface ServePort {
  /** The applier takes the image; rejects with a RepError. */
  openImage(spec: ImageSpec): Promise<void>;
  growImage(nr: number, size: number): Promise<void>;
  /** The data thread takes the device; rejects with a RepError. */
  open(device: DeviceConfig): Promise<void>;
  resize(nr: number, size: number): void;
  close(nr: number): void;
}

export type ChangeVerb = 'create' | 'change' | 'destroy';

export interface ChangeParts {
  /** Folder of the group. */
  dir: string;
  io: Io;
  /** As it is now; replaced in place. */
  config: GroupConfig;
  mountpoint: string;
  images: ImagePort;
  log: LogPort;
  serve: ServePort;
  /** Tree, events and kernel hear of it; resolves when all of them did. */
  shown(verb: ChangeVerb, device: DeviceConfig): Promise<void>;
  failed(what: string): void;
  /** Who keeps a device from being removed. */
  holders(device: DeviceConfig): Held;
  /** Test knob: called behind each durable step. */
  passed?(step: string): void;
}

export interface Held {
  /** `is in use: …`; '' where nobody is in the way. */
  who: string;
  /** It may be over in a moment. */
  passing: boolean;
}

export interface ChangeHow {
  /** The message was sent to an earlier daemon, which may have carried it out. */
  resent: boolean;
  stop: AbortSignal;
}

/** How long an open that has just ended may still look like one. */
const CLOSING_MS = 500;
const LOOK_MS = 20;

export class DeviceChanges {
  private readonly p: ChangeParts;
  private last: Promise<unknown> = Promise.resolve();
  private stopped = false;

  constructor(parts: ChangeParts) {
    this.p = parts;
  }

  /**
   * Carries on what was begun before this daemon, once `ready`, before any message that comes meanwhile: one that
   * is sent again finds it done. Resolves when all of it is. Never rejects.
   */
  carryOn(ready: Promise<unknown>): Promise<void> {
    return this.inTurn(async () => {
      await ready;
      for (const device of this.p.config.devices.filter((d) => d.pending !== undefined)) await this.carry(device);
    });
  }

  create(request: NewDevice, how: ChangeHow): Promise<string> {
    return this.answered(how, () => this.createNow(request, how.resent));
  }

  resize(name: string, size: number, how: ChangeHow): Promise<string> {
    return this.answered(how, () => this.resizeNow(name, size));
  }

  remove(name: string, force: boolean, how: ChangeHow): Promise<string> {
    return this.answered(how, () => this.removeNow(name, force, how.resent));
  }

  /** The group is being closed: nothing is settled any more, the next mount carries on. */
  stop(): void {
    this.stopped = true;
  }

  // --- one at a time ---------------------------------------------------------------------------------------

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(work);
    this.last = turn.catch(() => undefined);
    return turn;
  }

  /** The answer may come before the change is done: who waits hears why, and the change goes on. */
  private async answered(how: ChangeHow, work: () => Promise<string>): Promise<string> {
    const suspended = this.p.log.suspended();
    if (suspended !== undefined) throw suspended;
    const turn = this.inTurn(work);
    let look: NodeJS.Timeout | undefined;
    let left: (() => void) | undefined;
    const given = new Promise<never>((_, reject) => {
      left = () => reject(new RepError('EINTR', 'waiting was interrupted; the change goes on, see device list'));
      how.stop.addEventListener('abort', left);
      if (how.stop.aborted) left();
      look = setInterval(() => {
        const error = this.p.log.suspended();
        if (error !== undefined)
          reject(new RepError(error.errno, `${error.message}; what was begun is completed when the log goes on`));
      }, LOOK_MS);
      look.unref();
    });
    try {
      return await Promise.race([turn, given]);
    } finally {
      clearInterval(look);
      if (left !== undefined) how.stop.removeEventListener('abort', left);
      turn.catch(() => undefined);
      given.catch(() => undefined);
    }
  }

  private save(config: GroupConfig, step: string): void {
    saveConfig(this.p.dir, config, this.p.io);
    Object.assign(this.p.config, config);
    for (const key of ['firstDevices', 'nextDevice'] as const) if (config[key] === undefined) delete this.p.config[key];
    this.p.passed?.(step);
  }

  // --- create ----------------------------------------------------------------------------------------------

  private async createNow(request: NewDevice, resent: boolean): Promise<string> {
    const { p } = this;
    const same = p.config.devices.find((d) => d.name === request.name && d.pending === undefined);
    if (resent && same !== undefined && same.size === request.size) return created(same);
    const device = planCreate(p.config, p.dir, request);
    const before = await p.images.look(this.jobOf(device), placesInUse(p.config, p.dir, p.mountpoint));
    const was = { ...p.config };
    this.save(withDevice(p.config, { ...device, pending: { op: 'create' } }), 'create:intention');
    try {
      await this.bringIn(device);
    } catch (error) {
      await p.images.undo(this.jobOf(device), before);
      this.save(restored(p.config, was), 'create:undone');
      throw error;
    }
    await this.announce(device);
    return created(device);
  }

  /** Its image is there, and the threads have it. */
  private async bringIn(device: DeviceConfig): Promise<void> {
    const { p } = this;
    await p.images.make(this.jobOf(device));
    p.passed?.('create:image');
    await p.serve.openImage({ nr: device.nr, file: device.local, size: device.size });
    await p.serve.open(device);
  }

  private async announce(device: DeviceConfig): Promise<void> {
    await this.record('create', REC.DEVICE_ADD, device.nr, encodeDeviceAdd(device));
    this.save(withDevice(this.p.config, settled(device)), 'create:settled');
    await this.p.shown('create', device);
  }

  private async record(what: string, type: RecordType, nr: number, payload: Uint8Array): Promise<number> {
    const { p } = this;
    const seq = await p.log.append(type, nr, payload);
    p.passed?.(`${what}:appended`);
    await p.log.durable(seq);
    p.passed?.(`${what}:durable`);
    if (this.stopped) await new Promise<never>(() => undefined);
    return seq;
  }

  // --- resize ----------------------------------------------------------------------------------------------

  private async resizeNow(name: string, size: number): Promise<string> {
    const { p } = this;
    const { device, done } = planResize(p.config, name, size);
    if (done) return `${name}: has ${formatSize(size)} already`;
    this.save(withDevice(p.config, { ...device, pending: { op: 'resize', size } }), 'resize:intention');
    try {
      await p.images.grow(this.jobOf(device), size);
    } catch (error) {
      this.save(withDevice(p.config, settled(device)), 'resize:undone');
      throw error;
    }
    await this.grown(device, size);
    return `${name}: has ${formatSize(size)} now; losetup -c tells a loop device, resize2fs a file system`;
  }

  private async grown(device: DeviceConfig, size: number): Promise<void> {
    const { p } = this;
    p.passed?.('resize:image');
    await p.serve.growImage(device.nr, size);
    await this.record('resize', REC.DEVICE_RESIZE, device.nr, encodeDeviceResize(size));
    const larger = { ...settled(device), size };
    this.save(withDevice(p.config, larger), 'resize:settled');
    p.serve.resize(device.nr, size);
    await p.shown('change', larger);
  }

  // --- remove ----------------------------------------------------------------------------------------------

  private async removeNow(name: string, force: boolean, resent: boolean): Promise<string> {
    const { p } = this;
    if (resent && !p.config.devices.some((d) => d.name === name)) return `${name}: removed`;
    const device = planRemove(p.config, name);
    if (!force) await this.waitUnheld(device);
    this.save(withDevice(p.config, { ...device, pending: { op: 'remove' } }), 'remove:intention');
    await this.leave(device);
    const kept = `its content is kept in ${device.local}`;
    return `${name}: removed; ${kept}, and in the folders of sites as ${name}.img.removed-${device.nr}`;
  }

  /** Looks and acts in one turn of the event loop, so that nobody can open it in between. */
  private async waitUnheld(device: DeviceConfig): Promise<void> {
    const until = performance.now() + CLOSING_MS;
    for (;;) {
      const { who, passing } = this.p.holders(device);
      if (who === '') return;
      if (!passing || performance.now() > until)
        throw new RepError('EBUSY', `${device.name}: ${who}; end that first, or remove it with force`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  private async leave(device: DeviceConfig): Promise<void> {
    const { p } = this;
    const seq = await this.record('remove', REC.DEVICE_REMOVE, device.nr, new Uint8Array(0));
    // The image that is kept shall hold everything written to it.
    await p.log.applied(seq);
    this.save(withoutDevice(p.config, device.nr), 'remove:settled');
    p.serve.close(device.nr);
    await p.shown('destroy', device);
  }

  // --- what an earlier daemon, or a command on the unmounted group, has begun -------------------------------

  private async carry(device: DeviceConfig): Promise<void> {
    const { p } = this;
    try {
      switch (device.pending?.op) {
        case 'create':
          return await this.carryCreate(device);
        case 'resize':
          await p.images.grow(this.jobOf(device), device.pending.size);
          return await this.grown(device, device.pending.size);
        case 'remove':
          return await this.leave(device);
        case undefined:
          return;
      }
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      p.failed(`${device.name}: ${device.pending!.op} was begun and cannot be completed: ${error.message}`);
      // Before its record was appended the image had grown for good: so it never was.
      if (device.pending!.op === 'resize') this.save(withDevice(p.config, settled(device)), 'resize:undone');
    }
  }

  private async carryCreate(device: DeviceConfig): Promise<void> {
    try {
      await this.bringIn(device);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.p.failed(`${device.name}: it was being made, and that cannot be completed: ${error.message}`);
      // Its record may be durable or not: a removal is right in both cases.
      this.save(withDevice(this.p.config, { ...device, pending: { op: 'remove' } }), 'create:given-up');
      return this.leave(device);
    }
    await this.announce(device);
  }

  private jobOf(device: DeviceConfig): ImageJob {
    const { nr, name, local, size } = device;
    return { nr, name, local, size, sparse: device.sparse === true, logId: this.p.config.id };
  }
}

function created(device: DeviceConfig): string {
  return `${device.name}: created as device ${device.nr}, ${formatSize(device.size)}, local image ${device.local}`;
}
