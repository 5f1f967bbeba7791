/**
 * Devices that come, grow and go in a simulated group: the durable steps of control/device-changes.ts over the
 * product's own configuration, images and records, one at each turn of main.
 */
import {
  defaultConfig,
  loadConfig,
  saveConfig,
  type DeviceConfig,
  type GroupConfig,
} from '../../src/control/config.js';
import { localImages, nextNumber, settled, withDevice, withoutDevice } from '../../src/control/device-plan.js';
import { encodeDeviceAdd, encodeDeviceResize } from '../../src/replog/device-records.js';
import { REC, type RecordType } from '../../src/replog/format.js';
import { SH } from '../../src/replog/shared.js';
import { W } from '../../src/replog/window.js';
import { createImage, growImage, openLocalImages, type ImageSet } from '../../src/slink/images.js';
import type { SimDaemon } from './sim-daemon.js';
import { GROUP, LOG_PATH, type SimHost } from './sim-host.js';
import type { SimIo } from './sim-io.js';

const DIR = '/local';

/** What an operator asks for; `sectors` is the size of one that comes or grows. */
export interface Wish {
  op: 'create' | 'resize' | 'remove';
  nr: number;
  sectors: number;
}

/** group.json as the group is made. */
export function writeFirstConfig(host: SimHost, io: SimIo): void {
  const config = defaultConfig(DIR, host.logId, GROUP);
  config.log.path = LOG_PATH;
  config.sites = [];
  config.devices = host.shape.client.devices.map(({ nr, sectors }) => deviceOf(host, nr, sectors));
  saveConfig(DIR, { ...config, nextDevice: nextNumber(config) }, io);
}

function deviceOf(host: SimHost, nr: number, sectors: number): DeviceConfig {
  return { nr, name: `disk${nr}`, size: sectors * 512, local: host.imagePath(nr), dirtyLogs: {} };
}

/** Opens slink 0's images as group.json on the disk behind `io` says. */
export function openImages(io: SimIo, images: ImageSet): GroupConfig {
  const config = loadConfig(DIR, io);
  openLocalImages(images, localImages(config), nextNumber(config));
  return config;
}

type Stage = 'image' | 'append' | 'appending' | 'durable';

/** Main's part of a daemon: dies with it. */
export class SimChanges {
  private readonly daemon: SimDaemon;
  private readonly host: SimHost;
  private config: GroupConfig;
  private doing: { device: DeviceConfig; stage: Stage; seq: number } | undefined;

  constructor(daemon: SimDaemon, host: SimHost, config: GroupConfig) {
    this.daemon = daemon;
    this.host = host;
    this.config = config;
  }

  get busy(): boolean {
    return this.doing !== undefined || this.config.devices.some((d) => d.pending !== undefined);
  }

  step(): void {
    this.doing ??= this.next();
    const { doing } = this;
    if (doing === undefined) return;
    const { pending } = doing.device;
    switch (doing.stage) {
      case 'image':
        if (pending!.op !== 'remove') this.makeImage(doing.device);
        doing.stage = 'append';
        return;
      case 'append':
        doing.stage = 'appending';
        this.daemon.onData(() => this.append(doing.device, (seq) => Object.assign(doing, { seq, stage: 'durable' })));
        return;
      case 'appending':
        return;
      case 'durable':
        if (this.isDurable(doing.seq, pending!.op === 'remove')) this.settle(doing.device);
    }
  }

  /** What an earlier daemon has begun comes first; the intention of a wish is durable before anything else. */
  private next(): { device: DeviceConfig; stage: Stage; seq: number } | undefined {
    const begun = this.config.devices.find((d) => d.pending !== undefined);
    if (begun !== undefined) return { device: begun, stage: 'image', seq: 0 };
    const wish = this.host.wishes[0];
    if (wish === undefined) return undefined;
    const known = this.config.devices.find((d) => d.nr === wish.nr);
    const done = wish.op === 'create' ? wish.nr < nextNumber(this.config) : known === undefined;
    if (done || (wish.op === 'resize' && known!.size >= wish.sectors * 512)) {
      this.host.wishes.shift();
      return undefined;
    }
    const size = wish.sectors * 512;
    const pending = wish.op === 'resize' ? { op: wish.op, size } : { op: wish.op };
    const device: DeviceConfig = { ...(known ?? deviceOf(this.host, wish.nr, wish.sectors)), pending };
    this.save(withDevice(this.config, device));
    return { device, stage: 'image', seq: 0 };
  }

  private makeImage(device: DeviceConfig): void {
    const { nr, local: file, size } = device;
    const pending = device.pending!;
    const { io, images } = this.daemon;
    if (pending.op === 'resize') {
      growImage(io, 'APPLY', { nr, file, size }, pending.size);
      images.resize(nr, pending.size);
    } else {
      createImage(io, 'APPLY', { nr, file, size }, { overwrite: true });
      images.open({ nr, file, size });
    }
  }

  private append(device: DeviceConfig, done: (seq: number) => void): void {
    const { nr } = device;
    const pending = device.pending!;
    const [type, payload]: [RecordType, Uint8Array] =
      pending.op === 'create'
        ? [REC.DEVICE_ADD, encodeDeviceAdd(device)]
        : pending.op === 'resize'
          ? [REC.DEVICE_RESIZE, encodeDeviceResize(pending.size)]
          : [REC.DEVICE_REMOVE, new Uint8Array(0)];
    this.daemon.group.control(type, nr, payload, done);
  }

  private isDurable(seq: number, synced: boolean): boolean {
    const { window, shared, applier, tail } = this.daemon;
    if (window.seqOf(W.DURABLE, tail) > seq && (!synced || applier.synced.seq > seq)) return true;
    shared.bump(SH.SYNC_ASK);
    return false;
  }

  private settle(device: DeviceConfig): void {
    const { pending } = device;
    if (pending!.op === 'remove') this.save(withoutDevice(this.config, device.nr));
    else {
      const size = pending!.op === 'resize' ? pending!.size : device.size;
      this.save(withDevice(this.config, { ...settled(device), size }));
    }
    this.doing = undefined;
  }

  private save(config: GroupConfig): void {
    saveConfig(DIR, config, this.daemon.io);
    this.config = config;
  }
}
