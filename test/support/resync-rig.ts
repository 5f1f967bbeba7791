/**
 * A group with slink 0 (real images, real applier) and one link that has left the ring, driven by hand: data thread,
 * committer, applier, shipper with its resync, and main's part: which regions are dirty, and what may be cleared.
 */
import { join } from 'node:path';
import type { Clock } from '../../src/base/clock.js';
import { KIB, MIB, SECTOR } from '../../src/base/units.js';
import { realIo, type Io } from '../../src/base/io.js';
import type { Mem } from '../../src/base/mem.js';
import { DirtyBits } from '../../src/dirtylog/bits.js';
import { REC, type LogPlace } from '../../src/replog/format.js';
import { SH } from '../../src/replog/shared.js';
import { S_UNIQUE, W } from '../../src/replog/window.js';
import { Applier } from '../../src/slink/applier.js';
import type { LinkState, Site, SiteCursor, SiteDevice } from '../../src/slink/contract.js';
import { ImageSet, createImage } from '../../src/slink/images.js';
import { LocalSource } from '../../src/slink/local-source.js';
import { Resync, type CopiedReport, type InSyncReport, type ResyncOrder } from '../../src/slink/resync.js';
import { Shipper, type ShipperOptions } from '../../src/slink/shipper.js';
import { LOG_ID, Rig, scratch } from '../unit/replog/rig.js';
import { CopySite } from './copy-site.js';
import { FaultIo } from '../unit/slink/support.js';

export interface Change {
  seq: number;
  device: number;
  offset: number;
  length: number;
  /** Of a WRITE; 0 for what clears. */
  fill: number;
}

export interface ResyncRigOptions {
  devices?: SiteDevice[];
  regionSectors?: number;
  logSize?: number;
  ring?: number;
  direct?: boolean;
  sparse?: boolean;
  resyncRate?: number;
  latencyMs?: number;
  ship?: Partial<ShipperOptions>;
  /** Another site than the one that keeps the contract to the letter. */
  other?: (clock: Clock) => Site;
}

export class ResyncRig {
  readonly rig: Rig;
  readonly devices: SiteDevice[];
  readonly site: CopySite;
  readonly images: ImageSet;
  readonly applyIo = new FaultIo(undefined, true);
  readonly sourceIo = new FaultIo();
  readonly bits = new Map<number, DirtyBits>();
  readonly history: Change[] = [];
  readonly states: string[] = [];
  readonly copied: CopiedReport[] = [];
  readonly cursors: SiteCursor[] = [];
  readonly errors: string[] = [];
  applier: Applier;
  shipper: Shipper;
  resync: Resync;
  epoch = 0;
  wholeAt = 0;
  inSync: InSyncReport | undefined;
  /** Told when the site says that it is whole. */
  whole: ((report: InSyncReport) => void) | undefined;
  /** What slink 0's images hold for certain. */
  synced: LogPlace;
  /** Runs in the middle of each read of slink 0's images. */
  torn: (() => void) | undefined;
  private readonly waiting: CopiedReport[] = [];
  private readonly regionSectors: number;
  private readonly folder = scratch();
  private told = false;

  constructor(options: ResyncRigOptions = {}) {
    this.devices = options.devices ?? [{ nr: 0, name: 'disk0', size: MIB }];
    this.regionSectors = options.regionSectors ?? 128;
    this.rig = new Rig({ size: options.logSize ?? 32 * MIB, ring: options.ring ?? 4 * MIB });
    const { window, shared, clock, log } = this.rig;
    this.images = new ImageSet(this.applyIo.io, 'APPLY', { direct: options.direct ?? true });
    for (const { nr, size } of this.devices) {
      createImage(realIo, 'APPLY', { nr, size, file: this.localOf(nr) }, { sparse: options.sparse ?? false });
      this.images.open({ nr, size, file: this.localOf(nr) });
      this.bits.set(nr, new DirtyBits(this.regionSectors, size / SECTOR));
    }
    this.synced = { ...log.super.checkpoint };
    this.applier = new Applier(
      {
        ...{ window, shared, clock, log, images: this.images, reopen: () => undefined },
        events: {
          synced: (place) => void (this.synced = place),
          localError: (errno, file, during) => void this.errors.push(`${during} ${errno}`),
          localHealed: () => void this.errors.push('healed'),
        },
      },
      { synced: this.synced, gatherMs: 0, retryMs: 10 },
    );
    this.site = new CopySite(scratch());
    const site = options.other?.(clock) ?? this.site;
    this.resync = new Resync(
      {
        ...{ window, shared, clock, site },
        local: new LocalSource(this.reading(), window, shared),
        events: {
          copied: (report) => void (this.copied.push(report), this.waiting.push(report)),
          inSync: (report) => {
            this.inSync = report;
            this.whole?.(report);
          },
        },
      },
      { rate: options.resyncRate ?? 0, latencyMs: options.latencyMs ?? 0 },
    );
    this.shipper = new Shipper(
      {
        ...{ window, shared, clock, log, site, resync: this.resync },
        events: {
          cursor: (place) => void this.cursors.push(place),
          state: (state: LinkState, reason) => void this.states.push(reason === '' ? state : `${state}: ${reason}`),
        },
      },
      {
        identity: { logId: LOG_ID, group: 'default', nr: 1 },
        devices: this.devices,
        cursor: { ...log.super.checkpoint, reign: 0 },
        ...{ fresh: true, place: 0, rpoMs: 0, probeMs: 20 },
        ...options.ship,
      },
    );
  }

  localOf(nr: number): string {
    return join(this.folder, `disk${nr}.img`);
  }

  /** What reads slink 0's images: one read in two halves where `torn` is set. */
  private reading(): Io {
    const { io } = this.sourceIo;
    const pread = io.pread.bind(io);
    io.pread = (call, fd, mem: Mem, off, len, pos) => {
      if (this.torn === undefined || len < 8192) return pread(call, fd, mem, off, len, pos);
      const half = Math.floor(len / 8192) * 4096;
      const first = pread(call, fd, mem, off, half, pos);
      if (first < half) return first;
      this.torn();
      const rest = pread(call, fd, mem, off + half, len - half, pos + half);
      return rest < 0 ? rest : first + rest;
    };
    return io;
  }

  // --- the group -------------------------------------------------------------------------------------------

  write(offset: number, length: number, fill: number, device = 0): void {
    const seq = this.rig.write(length, fill, offset, device);
    this.history.push({ seq, device, offset, length, fill });
  }

  clear(offset: number, length: number, device = 0): void {
    const { appender, window } = this.rig;
    window.u8.fill(0, appender.slot(), appender.slot() + 80);
    window.dv.setUint32(appender.slot() + S_UNIQUE, 1, true);
    const seq = appender.seal(REC.DISCARD, device, offset, length, 0, 0);
    this.history.push({ seq, device, offset, length, fill: 0 });
  }

  /** True while another record of 64 KiB fits without anybody's waiting. */
  get room(): boolean {
    const { window, appender } = this.rig;
    const head = window.seqOf(W.HEAD, appender.seq);
    const bytes = appender.payloadPos - window.payloadPos(window.slotAt(head));
    return appender.seq - head < window.shape.slots - 8 && bytes < window.shape.ring - 256 * KIB;
  }

  /** What the data thread and the checkpointer do: window and log let go of what nobody needs. */
  moveHead(): void {
    const { window, appender, shared } = this.rig;
    const applied = window.seqOf(W.APPLIED, appender.seq);
    window.storeSeq(W.HEAD, applied);
    shared.logHead = Math.min(this.synced.pos, this.shipper.cursor.pos);
  }

  step(machine: { step(): number }, most = 1000): number {
    for (let i = 0; i < most; i++) {
      const ms = machine.step();
      if (ms > 0) return ms;
    }
    return 0;
  }

  /** Device `nr` as history has it before record `seq`. */
  at(seq: number, nr = 0): Buffer {
    const bytes = Buffer.alloc(this.devices.find((d) => d.nr === nr)!.size);
    for (const change of this.history)
      if (change.seq < seq && change.device === nr)
        bytes.fill(change.fill, change.offset, change.offset + change.length);
    return bytes;
  }

  // --- main ------------------------------------------------------------------------------------------------

  order(more: Partial<ResyncOrder> = {}): ResyncOrder {
    this.told = false;
    this.waiting.length = 0;
    this.inSync = undefined;
    return {
      epoch: ++this.epoch,
      at: { ...this.shipper.cursor },
      wholeAt: this.wholeAt,
      devices: this.devices,
      nextDevice: Math.max(...this.devices.map(({ nr }) => nr)) + 1,
      ...{ anew: false, force: false },
      locals: this.devices.map(({ nr, size }) => ({ nr, size, path: this.localOf(nr) })),
      bits: this.devices.map(({ nr, size }) => ({
        nr,
        regionSectors: this.regionSectors,
        sectors: size / SECTOR,
        buffer: this.bits.get(nr)!.buffer,
      })),
      ...more,
    };
  }

  /** Everything is dirty, and the site begins at the durable end, whatever it holds. */
  orderAll(): void {
    for (const bits of this.bits.values()) bits.fill();
    this.shipper.resync(this.order({ anew: true, at: this.end() }));
  }

  end(): SiteCursor {
    const { window } = this.rig;
    return { ...window.durablePlace(this.rig.durable), reign: 1 };
  }

  /** The link leaves the ring (again): what it lacks up to the durable end is marked. */
  drop(): void {
    const to = this.end();
    for (const { seq, device, offset, length } of this.history)
      if (seq >= this.shipper.cursor.seq && seq < to.seq) this.bits.get(device)!.mark(offset / SECTOR, length / SECTOR);
    this.wholeAt = Math.max(this.wholeAt, to.seq);
    this.shipper.resync(this.order({ at: to }));
  }

  get dirty(): number {
    return [...this.bits.values()].reduce((sum, { count }) => sum + count, 0);
  }

  /** Clears what is certain, and says when nothing is left. */
  main(): void {
    const doubts = this.rig.shared.load(SH.DOUBTS);
    for (const report of this.waiting.splice(0)) {
      if (report.epoch !== this.epoch || report.doubts !== doubts) continue;
      if (report.t2 > this.synced.seq) {
        this.waiting.push(report);
        continue;
      }
      this.wholeAt = Math.max(this.wholeAt, report.t2);
      for (let i = 0; i < report.regions; i++) this.bits.get(report.device)!.clear(report.first + i);
    }
    if (this.dirty > 0 || this.told || this.epoch === 0) return;
    this.told = true;
    this.shipper.whole(this.epoch, this.wholeAt);
  }

  /** All machines, until the site is whole; false where that does not come. */
  finish(turns = 2000): boolean {
    for (let i = 0; i < turns; i++) {
      this.rig.settle();
      this.step(this.applier);
      this.moveHead();
      this.shipper.step();
      this.main();
      if (this.inSync?.epoch === this.epoch) return true;
      this.rig.clock.ms += 5;
      // An idle applier syncs after a second.
      if (i % 50 === 49) this.rig.shared.bump(SH.SYNC_ASK);
    }
    return false;
  }

  close(): void {
    this.shipper.close();
    this.applier.close();
    this.images.close();
    this.site.end();
  }
}
