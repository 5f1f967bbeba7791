/**
 * What a verify has found to differ: ranges of each device, as exact as fits. So many of them are kept one by one; where
 * there are more, ranges grow to a coarser grain until they fit. They then hold all that differs, and more.
 */
import { ExtentMap } from '../base/extentmap.js';
import { SECTOR, roundDown } from '../base/units.js';

export interface DifferentRange {
  device: number;
  /** Bytes. */
  start: number;
  length: number;
}

/** Ranges that are told one by one. */
export const MOST_RANGES = 1024;

export class Differences {
  /** Bytes that differ, exactly: whole sectors. */
  bytes = 0;
  /** Bytes to which ranges were rounded. */
  grain = SECTOR;

  private readonly sizes: ReadonlyMap<number, number>;
  private readonly most: number;
  private readonly byDevice = new Map<number, ExtentMap>();

  constructor(devices: readonly { nr: number; size: number }[], most = MOST_RANGES) {
    this.sizes = new Map(devices.map(({ nr, size }) => [nr, size]));
    // Each device that differs needs one range, however coarse it is.
    this.most = Math.max(most, devices.length);
  }

  /** [start, end) of `device` differs; nothing is added twice. */
  add(device: number, start: number, end: number): void {
    this.bytes += end - start;
    this.put(device, start, end);
    while (this.count > this.most) this.coarsen();
  }

  /** By device and place. */
  get ranges(): DifferentRange[] {
    const list: DifferentRange[] = [];
    for (const device of [...this.byDevice.keys()].sort((a, b) => a - b)) {
      const size = this.sizes.get(device) ?? Infinity;
      this.byDevice.get(device)!.forEach((start, end) => {
        list.push({ device, start, length: Math.min(end, size) - start });
      });
    }
    return list;
  }

  private get count(): number {
    let count = 0;
    for (const map of this.byDevice.values()) count += map.count;
    return count;
  }

  private put(device: number, start: number, end: number): void {
    let map = this.byDevice.get(device);
    if (map === undefined) this.byDevice.set(device, (map = new ExtentMap()));
    const { grain } = this;
    map.insert(roundDown(start, grain), roundDown(end + grain - 1, grain));
  }

  private coarsen(): void {
    this.grain *= 2;
    for (const [device, map] of [...this.byDevice]) {
      const ranges: [number, number][] = [];
      map.forEach((start, end) => void ranges.push([start, end]));
      this.byDevice.delete(device);
      for (const [start, end] of ranges) this.put(device, start, end);
    }
  }
}
