/**
 * The devices of a folder site: which there are is history too, told by the records DEVICE_ADD, DEVICE_RESIZE and
 * DEVICE_REMOVE at their place among the writes. What is known comes from the site's own stamp and those records,
 * never from how the group is at present, which may be far ahead.
 *
 *   <name>.img              a device of the base, or added by a record that was applied
 *   <name>.img.new-<nr>     made for a DEVICE_ADD that is announced and not applied
 *   <name>.img.removed-<nr> its device was removed; kept for the operator, no part of the site any more
 *
 * `prepare` is called before a batch is staged: it announces what the batch adds and grows in a durable stamp, then
 * makes it, so that a full disk shows before anything is confirmed. `apply` is called at the record's place; what
 * it does can be done again after any interruption:
 *
 *   DEVICE_ADD      <name>.img.new-<nr> is renamed to <name>.img, unless that was done before
 *   DEVICE_RESIZE   the file has the new size, the device gets it
 *   DEVICE_REMOVE   <name>.img is renamed to <name>.img.removed-<nr>, unless that was done before
 *
 * Numbers are never used again, so a file name with a number tells for certain how far a replay was.
 */
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { decodeDeviceAdd, decodeDeviceResize } from '../replog/device-records.js';
import { REC, R_BYTES, R_DEVICE, R_TYPE, payloadSpace, type RecordType } from '../replog/format.js';
import type { ShipBatch } from './batch.js';
import { createImage, growImage, type ImageSet, type ImageSpec } from './images.js';
import type { Marks } from './marks.js';
import type { StampDevice } from './stage-format.js';

/** Where a site keeps the image of a device. */
export function imagePath(folder: string, device: string): string {
  return `${folder}/${device}.img`;
}

/** Where the image of a device is made that has not come yet. */
export function comingPath(folder: string, device: string, nr: number): string {
  return `${imagePath(folder, device)}.new-${nr}`;
}

/** Where the image of a device stays that was removed. */
export function removedPath(folder: string, device: string, nr: number): string {
  return `${imagePath(folder, device)}.removed-${nr}`;
}

/** A device as it comes to a site. */
export function newStampDevice(device: { nr: number; name: string; size: number }): StampDevice {
  const { nr, name, size } = device;
  return {
    ...{ nr, name, size, making: true, coming: false, growing: false },
    ...{ xattr: false, xattrHigh: 0, xattrLow: 0, samples: [] },
  };
}

/** What a batch asks of the disk before it may be staged. */
interface Needs {
  coming: StampDevice[];
  /** By number: the size that the file must have. */
  growing: Map<number, number>;
  /** Numbers of devices that have no record of their coming. */
  unknown: Set<number>;
}

export class FolderDevices {
  /** As the next stamp has them. */
  list: StampDevice[];
  /** A name was changed in the folder since it was synced. */
  renamed = false;

  private readonly io: Io;
  private readonly folder: string;
  private readonly images: ImageSet;
  private readonly sparse: boolean;
  /** The site is inconsistent: an image that is being made may be whatever file stands there. */
  private readonly taking: boolean;
  private marks: Marks | undefined;

  constructor(
    io: Io,
    folder: string,
    images: ImageSet,
    stamped: readonly StampDevice[],
    sparse: boolean,
    taking = false,
  ) {
    this.io = io;
    this.folder = folder;
    this.images = images;
    this.sparse = sparse;
    this.taking = taking;
    this.list = stamped.map((device) => ({ ...device }));
  }

  /** Devices that come and go are marked and unmarked here from now on. */
  markWith(marks: Marks): void {
    this.marks = marks;
  }

  /** The devices of the base: those announced are none yet. */
  get present(): StampDevice[] {
    return this.list.filter((device) => !device.coming);
  }

  /** Where the image of a device of the base is just now. */
  fileOf({ nr, name }: StampDevice): string {
    // A removal that was applied, and whose record is still in the stage.
    const removed = removedPath(this.folder, name, nr);
    return this.exists(removed) ? removed : imagePath(this.folder, name);
  }

  /** Opens the image of a device of the base; throws RepError. */
  open(device: StampDevice): void {
    const { nr, size } = device;
    const spec: ImageSpec = { nr, size, file: this.fileOf(device) };
    // Nothing was ever sent to an image that is still being made.
    if (device.making) createImage(this.io, 'SITE', spec, { ...this.how, overwrite: true, fit: this.taking });
    this.images.open(device.growing ? { ...spec, grown: Number.MAX_SAFE_INTEGER } : spec);
  }

  /** Makes and opens the image of a device that a resync begins with, of whatever stands in its place; throws RepError. */
  take(device: StampDevice): void {
    const { nr, name, size } = device;
    const spec: ImageSpec = { nr, size, file: imagePath(this.folder, name) };
    createImage(this.io, 'SITE', spec, { ...this.how, overwrite: true, fit: true });
    this.images.open(spec);
    this.marks?.add(device);
  }

  /** A device has another size without a record of it; throws RepError. */
  enlarge(device: StampDevice, size: number): void {
    this.grow(device.nr, size);
    device.size = size;
    device.growing = false;
    this.images.resize(device.nr, size);
  }

  /** A device has left without a record of it: its image is none any more. */
  drop(nr: number): void {
    this.images.forget(nr);
    this.marks?.remove(nr);
    this.list = this.list.filter((device) => device.nr !== nr);
  }

  /**
   * Makes room for what the devices of `batch` need, before it is staged; `announce` makes the present list durable
   * in a stamp. 0 or a negative errno, with the sentence in `reason` or, where it is empty, with whoever failed.
   */
  prepare(batch: ShipBatch, announce: () => number): number {
    this.reason = '';
    const needs = this.needs(batch);
    if (needs.unknown.size > 0) {
      const [nr] = needs.unknown;
      this.reason = `${this.folder}: the log has writes to device ${nr}, and no record of its coming; resync the site`;
      return -ERRNO.ENODEV;
    }
    if (needs.coming.length === 0 && needs.growing.size === 0) return 0;
    try {
      return this.makeRoom(needs, announce);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.reason = error.message;
      return error.code;
    }
  }

  private makeRoom({ coming, growing }: Needs, announce: () => number): number {
    let news = false;
    for (const device of coming) {
      const known = this.list.find((d) => d.nr === device.nr);
      if (known !== undefined) continue;
      this.refuseTaken(device);
      this.list.push(device);
      news = true;
    }
    for (const nr of growing.keys()) {
      const device = this.list.find((d) => d.nr === nr)!;
      if (!device.growing) news = true;
      device.growing = true;
    }
    if (news) {
      const rc = announce();
      if (rc < 0) return rc;
    }
    for (const device of coming) this.make(device);
    for (const [nr, size] of growing) this.grow(nr, size);
    return 0;
  }

  /** A device record at its place in the order: 0 or a negative errno. */
  readonly apply = (type: RecordType, nr: number, payload: Uint8Array): number => {
    this.reason = '';
    const device = this.list.find((d) => d.nr === nr);
    // Gone already, or never come: the record was written twice.
    if (device === undefined || (device.coming && type !== REC.DEVICE_ADD)) return 0;
    try {
      if (type === REC.DEVICE_REMOVE) return this.remove(device);
      if (type === REC.DEVICE_ADD && device.coming) this.add(device);
      const size = decodeDeviceResize(payload);
      if (size !== undefined && size > device.size) {
        this.grow(nr, size);
        device.size = size;
        device.growing = false;
        this.images.resize(nr, size);
      }
      return 0;
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.reason = error.message;
      return error.code;
    }
  };

  /** Why the last call failed, a sentence; '' where none did, or where images or stage say it. */
  reason = '';

  /** After a replay: what was grown for a record that was never staged is cut off again. 0 or a negative errno. */
  settleGrowth(): number {
    for (const device of this.list) {
      if (!device.growing || device.coming) continue;
      const rc = this.images.cut(device.nr);
      if (rc < 0) return rc;
      device.growing = false;
    }
    return 0;
  }

  /** Before a stamp: the names it takes for granted are durable. 0 or a negative errno. */
  settleNames(): number {
    if (!this.renamed) return 0;
    const rc = this.io.syncDir('SITE:FOLDER', this.folder);
    if (rc >= 0) this.renamed = false;
    return rc;
  }

  // --- looking ahead ---------------------------------------------------------------------------------------

  private needs(batch: ShipBatch): Needs {
    const { dv, u8 } = batch.mem;
    const needs: Needs = { coming: [], growing: new Map(), unknown: new Set() };
    const known = (nr: number): StampDevice | undefined => {
      const listed = this.list.find((d) => d.nr === nr && !d.coming);
      return listed ?? needs.coming.find((d) => d.nr === nr);
    };
    let payload = batch.payloadAt;
    let last = -1;
    for (let i = 0; i < batch.records; i++) {
      const at = batch.recordAt(i);
      const bytes = dv.getUint32(at + R_BYTES, true);
      const nr = dv.getUint32(at + R_DEVICE, true);
      switch (dv.getUint8(at + R_TYPE)) {
        case REC.WRITE:
        case REC.DISCARD:
        case REC.ZEROES:
          if (nr === last || this.images.knows(nr) || known(nr) !== undefined) last = nr;
          else needs.unknown.add(nr);
          break;
        case REC.DEVICE_ADD: {
          const added = decodeDeviceAdd(u8.subarray(payload, payload + bytes));
          if (added === undefined) break;
          const device = known(nr);
          if (device === undefined) {
            const announced = this.list.find((d) => d.nr === nr);
            // It had left before the resync of this site began.
            if (announced === undefined && nr < this.images.usedBelow) break;
            needs.coming.push(announced ?? { ...newStampDevice({ nr, ...added }), making: false, coming: true });
          } else if (added.size > device.size) needs.growing.set(nr, added.size);
          break;
        }
        case REC.DEVICE_RESIZE: {
          const size = decodeDeviceResize(u8.subarray(payload, payload + bytes));
          const device = known(nr);
          if (device !== undefined && size !== undefined && size > Math.max(device.size, needs.growing.get(nr) ?? 0))
            needs.growing.set(nr, size);
        }
      }
      payload += payloadSpace(bytes);
    }
    return needs;
  }

  /** A file that stands where an image is to be, and is no image of ours. */
  private refuseTaken(device: StampDevice): void {
    const { folder } = this;
    const files = [comingPath(folder, device.name, device.nr)];
    // The image of a device that leaves before this one comes is out of the way by then.
    if (!this.list.some((d) => d.name === device.name)) files.push(imagePath(folder, device.name));
    for (const file of files) {
      const info = this.io.stat('SITE:FOLDER', file);
      if (info === -ERRNO.ENOENT) continue;
      if (typeof info === 'number') throw new RepError('EIO', `${file}: cannot be looked at: ${errnoText(info)}`);
      throw new RepError(
        'EEXIST',
        `${file}: is there already (${formatSize(info.size)}) and no image of this site, and device "${device.name}" ` +
          'needs its place; move it away',
      );
    }
  }

  /** The file of a device that is announced; on a full disk nothing of it stays. */
  private make(device: StampDevice): void {
    const file = comingPath(this.folder, device.name, device.nr);
    const { nr, size } = device;
    try {
      createImage(
        this.io,
        'SITE',
        { nr, file, size, grown: Number.MAX_SAFE_INTEGER },
        { ...this.how, overwrite: true },
      );
    } catch (error) {
      if (error instanceof RepError) this.io.unlink('SITE:CREATE', file);
      throw error;
    }
  }

  private get how(): { sparse: boolean } {
    return { sparse: this.sparse };
  }

  // --- at their place --------------------------------------------------------------------------------------

  private add(device: StampDevice): void {
    const { nr, name, size } = device;
    const coming = comingPath(this.folder, name, nr);
    const file = imagePath(this.folder, name);
    if (this.exists(coming)) {
      // Its name may be that of one that left just now: never both under one name, whatever a crash keeps.
      const synced = this.settleNames();
      if (synced < 0) throw new RepError('EIO', `${this.folder}: syncing it failed: ${errnoText(synced)}`);
      const rc = this.io.rename('SITE:CREATE', coming, file);
      if (rc < 0) throw new RepError('EIO', `${file}: the new image cannot be put there: ${errnoText(rc)}`);
    }
    // Renamed just now, or by one who died before a stamp took the name for granted.
    this.renamed = true;
    this.images.open({ nr, size, file: this.fileOf(device), grown: Number.MAX_SAFE_INTEGER });
    device.coming = false;
    this.marks?.add(device);
  }

  private grow(nr: number, size: number): void {
    const device = this.list.find((d) => d.nr === nr)!;
    const coming = comingPath(this.folder, device.name, nr);
    const file = device.coming && this.exists(coming) ? coming : (this.images.get(nr)?.file ?? coming);
    // Larger already where one batch grows it several times: it was made for the last of them.
    growImage(this.io, 'SITE', { nr, file, size: device.size, grown: Number.MAX_SAFE_INTEGER }, size, this.how);
  }

  private remove(device: StampDevice): number {
    const { nr, name } = device;
    const image = this.images.get(nr);
    const removed = removedPath(this.folder, name, nr);
    if (image !== undefined && image.file !== removed) {
      const rc = this.images.rename(nr, removed);
      if (rc < 0) return rc;
    }
    this.renamed = true;
    this.images.retire(nr);
    this.marks?.remove(nr);
    this.list = this.list.filter((d) => d.nr !== nr);
    return 0;
  }

  private exists(file: string): boolean {
    return typeof this.io.stat('SITE:FOLDER', file) !== 'number';
  }
}
