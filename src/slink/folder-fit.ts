/**
 * Brings the devices of a folder site to those that a resync begins with: what is before its place in the log is never
 * sent, so the records DEVICE_ADD, _RESIZE and _REMOVE in there have to be made up for.
 *
 *   stamp: inconsistent, being fitted; new devices being made, larger ones growing
 *   → images of devices that have left renamed to <name>.img.removed-<nr>, folder synced
 *   → stamp without those (only where there are such: a new device may have the name of one of them)
 *   → images made and grown, synced → stamp: fitted
 *
 * Every step can be done again: a site that died in between says so in its stamp and is fitted anew by the next open.
 * Devices with numbers from `nextDevice` on came by records behind that place, and stay.
 */
import { ERRNO, RepError, errnoText, ioError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { mayTake, type SiteDevice, type SiteResync } from './contract.js';
import { comingPath, imagePath, newStampDevice, removedPath, type FolderDevices } from './folder-devices.js';
import type { StampDevice } from './stage-format.js';

export class FolderFit {
  private readonly io: Io;
  private readonly folder: string;
  private readonly devices: FolderDevices;
  private readonly resync: SiteResync;
  /** Of what the site has, those that stay, that leave, and the files of those that were only announced. */
  private readonly kept: StampDevice[] = [];
  private readonly leaving: StampDevice[] = [];
  private readonly dropped: StampDevice[] = [];
  private readonly fresh: StampDevice[] = [];

  /** `sound` is false where nothing that the images hold is known: then all of them are taken as if they were new. */
  constructor(io: Io, folder: string, devices: FolderDevices, resync: SiteResync, sound: boolean) {
    this.io = io;
    this.folder = folder;
    this.devices = devices;
    this.resync = resync;
    for (const device of devices.list) {
      const wanted = this.wanted(device.nr) !== undefined;
      const later = device.nr >= resync.nextDevice;
      if (sound && later) this.kept.push(device);
      else if (device.coming) this.dropped.push(device);
      else if (!wanted) this.leaving.push(device);
      else if (sound) this.kept.push(device);
    }
    for (const device of resync.devices)
      if (!this.kept.some(({ nr }) => nr === device.nr)) this.fresh.push(newStampDevice(device));
  }

  private wanted(nr: number): SiteDevice | undefined {
    return this.resync.devices.find((device) => device.nr === nr);
  }

  /** Throws RepError where something stands in the way. Changes nothing. */
  check(): void {
    const { folder } = this;
    for (const device of this.fresh) {
      const file = imagePath(folder, device.name);
      const moved = removedPath(folder, device.name, device.nr);
      if (this.look(moved) !== undefined)
        throw new RepError('EEXIST', `${moved}: stands where the image of a removed device is kept; move it away`);
      const info = this.look(file);
      if (info === undefined || (info.kind === 'file' && info.size === 0)) continue;
      if (this.leaving.some((other) => this.devices.fileOf(other) === file)) continue;
      const usable = info.kind === 'file' || (info.kind === 'block' && info.size >= device.size);
      if (!usable || !mayTake(this.resync))
        throw new RepError(
          'EEXIST',
          `${file}: is there already (${info.kind === 'file' ? formatSize(info.size) : info.kind}) and no image of this ` +
            `site, and device "${device.name}" needs its place; move it away`,
        );
    }
  }

  /** Puts what is going to be done into the list of devices, for the stamp that announces it. */
  announce(): void {
    for (const device of this.kept) if ((this.wanted(device.nr)?.size ?? 0) > device.size) device.growing = true;
    const free = this.fresh.filter((device) => !this.leaving.some(({ name }) => name === device.name));
    this.devices.list = [...this.kept, ...this.leaving, ...free];
  }

  /** Behind that stamp: true where another one is needed before images are made. */
  clearNames(): boolean {
    const { io, folder, leaving, dropped } = this;
    for (const device of leaving) {
      const from = this.devices.fileOf(device);
      const to = removedPath(folder, device.name, device.nr);
      const rc = from === to ? 0 : io.rename('SITE:CREATE', from, to);
      // One that is lost is none to be kept.
      if (rc < 0 && rc !== -ERRNO.ENOENT) throw ioError(rc, 'renaming the image', from);
      this.devices.drop(device.nr);
    }
    for (const device of dropped) io.unlink('SITE:CREATE', comingPath(folder, device.name, device.nr));
    const moved = leaving.length + dropped.length > 0;
    if (moved) this.devices.renamed = true;
    this.devices.list = [...this.kept, ...this.fresh];
    return moved;
  }

  /** Makes, grows and opens images; throws RepError. */
  make(): void {
    for (const device of this.fresh) this.devices.take(device);
    for (const device of this.kept) {
      const size = this.wanted(device.nr)?.size ?? 0;
      if (size > device.size) this.devices.enlarge(device, size);
    }
  }

  private look(file: string): { kind: string; size: number } | undefined {
    const info = this.io.stat('SITE:FOLDER', file);
    if (info === -ERRNO.ENOENT) return undefined;
    if (typeof info === 'number') throw new RepError('EIO', `${file}: cannot be looked at: ${errnoText(info)}`);
    return info;
  }
}
