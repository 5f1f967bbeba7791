/**
 * Looks whether devices read as zeroes where nothing was ever sent to them. Holes are passed over where the leg
 * can tell them; the rest is read. One step takes about a tenth of a second, so that pause and close are heard.
 */
import type { Clock } from '../base/clock.js';
import { Mem } from '../base/mem.js';
import { MIB } from '../base/units.js';
import type { Legs } from './legs.js';
import type { RawDevice } from './raw-stamp.js';

const CHUNK = 4 * MIB;
const STEP_MS = 100;

export class BlankCheck {
  /** Where something other than zero was found. */
  found: { device: RawDevice; pos: number } | undefined;
  private readonly legs: Legs;
  private readonly devices: readonly RawDevice[];
  private readonly starts = new Map<RawDevice, number>();
  private mem: Mem | undefined;

  constructor(legs: Legs, devices: readonly RawDevice[]) {
    this.legs = legs;
    this.devices = devices.filter((device) => device.making);
    for (const device of this.devices) this.starts.set(device, device.blank);
  }

  close(): void {
    this.mem?.unmap();
    this.mem = undefined;
  }

  /** Where this look at `device` began. */
  startOf(device: RawDevice): number {
    return this.starts.get(device) ?? 0;
  }

  get done(): boolean {
    return this.devices.every((device) => device.blank >= device.size);
  }

  /** The leg that is looked at just now. */
  get now(): string {
    return this.devices.find((device) => device.blank < device.size)?.target ?? '';
  }

  get percent(): number {
    const total = this.devices.reduce((sum, device) => sum + device.size, 0);
    const done = this.devices.reduce((sum, device) => sum + Math.min(device.blank, device.size), 0);
    return total === 0 ? 100 : Math.floor((100 * done) / total);
  }

  /** Goes on for a while; a negative errno where a leg cannot be read. */
  step(clock: Clock): number {
    const until = clock.monoMs() + STEP_MS;
    for (const device of this.devices) {
      while (device.blank < device.size) {
        const rc = this.chunk(device);
        if (rc < 0 || this.found !== undefined) return Math.min(rc, 0);
        if (clock.monoMs() >= until) return 0;
      }
    }
    return 0;
  }

  private chunk(device: RawDevice): number {
    const pos = this.legs.nextData(device.nr, device.blank, device.size);
    if (pos < 0) return pos;
    device.blank = Math.min(pos, device.size);
    const len = Math.min(CHUNK, device.size - device.blank);
    if (len === 0) return 0;
    this.mem ??= Mem.anon(2 * CHUNK);
    const rc = this.legs.read(device.nr, this.mem, 0, len, device.blank);
    if (rc < 0) return rc;
    // The second half is never written to.
    if (this.mem.u8.compare(this.mem.u8, CHUNK, CHUNK + len, 0, len) !== 0) {
      const at = this.mem.u8.subarray(0, len).findIndex((byte) => byte !== 0);
      this.found = { device, pos: device.blank + at };
      return 0;
    }
    device.blank += len;
    return 0;
  }
}
