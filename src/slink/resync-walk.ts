/**
 * Which range of which device is to be copied next: dirty regions, ascending, without those that were copied in this
 * epoch. Bits are main's; which regions were copied is known here only, in bits of the same shape.
 */
import { DirtyBits } from '../dirtylog/bits.js';
import { SECTOR } from '../base/units.js';
import type { CopiedReport, SharedBits } from './resync-order.js';

/** A stretch of dirty regions is looked at in pieces of so many bytes. */
const STRETCH = 2 ** 30;

interface WalkDevice {
  nr: number;
  dirty: DirtyBits;
  /** Copied in this epoch: settled or not. */
  done: DirtyBits;
  regionBytes: number;
  /** Of the device. */
  bytes: number;
  /** It, or its image, was not there when it was last asked for. */
  absent: boolean;
}

/** Regions of a device that were copied and are not settled. */
export type Copied = Pick<CopiedReport, 'device' | 'first' | 'regions' | 't2'>;

export class Walk {
  /** What is to be done next: set by `find`. */
  nr = 0;
  offset = 0;
  end = 0;
  /** Bytes of regions that were copied, settled or not, and of those that are still to be. */
  looked = 0;
  left = 0;

  private readonly devices: WalkDevice[];
  private at = 0;
  /** Part of the region at `offset` was copied; t2 of that part. */
  private begun = false;
  private t2 = 0;
  private unsettled: Copied[] = [];

  constructor(bits: readonly SharedBits[]) {
    this.devices = bits
      .map(({ nr, regionSectors, sectors, buffer }) => ({
        nr,
        dirty: new DirtyBits(regionSectors, sectors, buffer),
        done: new DirtyBits(regionSectors, sectors),
        regionBytes: regionSectors * SECTOR,
        bytes: sectors * SECTOR,
        absent: false,
      }))
      .sort((a, b) => a.nr - b.nr);
    this.recount();
  }

  /** True where all regions of all devices are dirty. */
  get allDirty(): boolean {
    return this.devices.every(({ dirty }) => dirty.count === dirty.regions);
  }

  /** What was copied and is not settled yet. */
  get pending(): readonly Copied[] {
    return this.unsettled;
  }

  /** True where devices were passed over. */
  get passedOver(): boolean {
    return this.devices.some(({ absent, dirty }) => absent && dirty.next(0) >= 0);
  }

  /** Finds the next range to be copied; false where there is none, but for devices that were passed over. */
  find(): boolean {
    if (this.begun) {
      const device = this.devices[this.at]!;
      if (device.dirty.has(Math.floor(this.offset / device.regionBytes))) return this.stretch(device);
      // Main has cleared it: its device leaves.
      this.begun = false;
    }
    for (let n = 0; n <= this.devices.length; n++) {
      const device = this.devices[this.at];
      const region = device === undefined || device.absent ? -1 : this.next(device, this.offset / device.regionBytes);
      if (region >= 0) {
        this.nr = device!.nr;
        this.offset = region * device!.regionBytes;
        this.t2 = 0;
        return this.stretch(device!);
      }
      // From the beginning again: what was skipped, or is to be copied once more, may lie before.
      this.at = (this.at + 1) % Math.max(1, this.devices.length);
      this.offset = 0;
    }
    return false;
  }

  /** [offset, to) is equal now, and holds nothing newer than `t2`. */
  reached(to: number, t2: number): void {
    const device = this.devices[this.at]!;
    const { regionBytes } = device;
    const first = Math.floor(this.offset / regionBytes);
    const behind = to >= device.bytes ? device.dirty.regions : Math.floor(to / regionBytes);
    this.t2 = Math.max(this.t2, t2);
    if (behind > first) {
      device.done.mark(
        first * device.dirty.regionSectors,
        sectorsTo(device, behind) - first * device.dirty.regionSectors,
      );
      this.note(device, first, behind - first, this.t2);
    }
    this.offset = behind === device.dirty.regions ? device.bytes : to;
    this.begun = this.offset < device.bytes && this.offset % regionBytes !== 0;
    if (!this.begun) this.t2 = 0;
  }

  /** The device, or its image, is not there: it comes or goes. */
  passOver(): void {
    this.devices[this.at]!.absent = true;
    this.begun = false;
  }

  /** Devices that were passed over are looked for again. */
  lookAgain(): void {
    for (const device of this.devices) device.absent = false;
  }

  settled(): void {
    this.unsettled = [];
  }

  /** What was not settled is to be copied again, and the region that was begun. */
  unsettle(): void {
    for (const { device: nr, first, regions } of this.unsettled) {
      const { done } = this.devices.find((device) => device.nr === nr)!;
      for (let region = first; region < first + regions; region++) done.clear(region);
    }
    this.unsettled = [];
    this.again();
  }

  /** All that is dirty is to be copied again. */
  restart(): void {
    this.unsettled = [];
    for (const device of this.devices) {
      const { dirty } = device;
      device.done = new DirtyBits(dirty.regionSectors, dirty.deviceSectors);
    }
    this.again();
  }

  /** Counts what is left; main clears bits without saying so. */
  recount(): void {
    this.left = 0;
    for (const device of this.devices)
      for (let region = this.next(device, 0); region >= 0; region = this.next(device, region + 1))
        this.left += regionEnd(device, region) - region * device.regionBytes;
  }

  private again(): void {
    this.begun = false;
    this.at = 0;
    this.offset = 0;
    this.recount();
  }

  /** The first region at or behind `from` that is dirty and was not copied. */
  private next({ dirty, done }: WalkDevice, from: number): number {
    let region = dirty.next(Math.ceil(from));
    while (region >= 0 && done.has(region)) region = dirty.next(region + 1);
    return region;
  }

  private stretch(device: WalkDevice): true {
    const { dirty, done, regionBytes } = device;
    let region = Math.floor(this.offset / regionBytes);
    do region++;
    while (region * regionBytes - this.offset < STRETCH && dirty.has(region) && !done.has(region));
    this.end = Math.min(region * regionBytes, device.bytes);
    return true;
  }

  private note(device: WalkDevice, first: number, regions: number, t2: number): void {
    const bytes = regionEnd(device, first + regions - 1) - first * device.regionBytes;
    this.looked += bytes;
    this.left = Math.max(0, this.left - bytes);
    const last = this.unsettled[this.unsettled.length - 1];
    if (last?.device === device.nr && last.first + last.regions === first) {
      last.regions += regions;
      last.t2 = Math.max(last.t2, t2);
    } else this.unsettled.push({ device: device.nr, first, regions, t2 });
  }
}

function regionEnd(device: WalkDevice, region: number): number {
  return Math.min((region + 1) * device.regionBytes, device.bytes);
}

function sectorsTo(device: WalkDevice, region: number): number {
  return Math.min(region * device.dirty.regionSectors, device.dirty.deviceSectors);
}
