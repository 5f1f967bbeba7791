/**
 * The folder of a folder site and its stage, until it is certain whose they are: nothing is made or written here but
 * what a new site needs.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { mayTake, type SiteCursor, type SiteOpen } from './contract.js';
import { imagePath, newStampDevice } from './folder-devices.js';
import { STAGE_FILE, type Stamp } from './stage-format.js';
import { Stage } from './stage.js';

/** A reason not to open: thrown inside, never out of the site. */
export class Refusal extends Error {
  readonly wrong: boolean;
  constructor(wrong: boolean, message: string) {
    super(message);
    this.wrong = wrong;
  }
}

/** It cannot be reached just now. */
export function unreachable(message: string): Refusal {
  return new Refusal(false, message);
}

/** It is there and not what it should be. */
export function wrongOne(message: string): Refusal {
  return new Refusal(true, message);
}

export class FolderPlace {
  /** Identity of the folder as it was found. */
  id = '';

  private readonly io: Io;
  private readonly clock: Clock;
  private readonly folder: string;
  private readonly area: number;
  private readonly makeFolder: boolean;

  /** `area` and `makeFolder` as in FolderOptions. */
  constructor(io: Io, clock: Clock, folder: string, area: number, makeFolder: boolean) {
    this.io = io;
    this.clock = clock;
    this.folder = folder;
    this.area = area;
    this.makeFolder = makeFolder;
  }

  /** Throws where there is no such folder; makes it where that is allowed. */
  find(how: SiteOpen): void {
    const { io, folder } = this;
    let info = io.stat('SITE:FOLDER', folder);
    if (info === -ERRNO.ENOENT && how.create !== undefined && this.makeFolder) {
      const parent = folder.slice(0, Math.max(folder.lastIndexOf('/'), 1));
      // Only the last component: a parent that is missing is a file system that is not mounted.
      if (typeof io.stat('SITE:FOLDER', parent) !== 'number' && io.mkdir('SITE:FOLDER', folder) >= 0) {
        io.syncDir('SITE:FOLDER', parent);
        info = io.stat('SITE:FOLDER', folder);
      }
    }
    if (typeof info === 'number')
      throw unreachable(`${folder}: the site's folder cannot be reached: ${errnoText(info)}; mount or make it`);
    if (info.kind !== 'dir') throw wrongOne(`${folder}: is not a folder; name the folder that is to hold the images`);
    this.id = info.id;
  }

  /** Opens the stage with its newest stamp adopted; makes it where that is allowed. */
  openStage(how: SiteOpen): Stage {
    const { folder } = this;
    const path = `${folder}/${STAGE_FILE}`;
    // By force also where a site was and is no more.
    const place = how.create ?? (mayTake(how.resync) ? how.resync!.at : undefined);
    let stage = Stage.open(this.io, path);
    if (stage === -ERRNO.ENOENT) {
      if (place === undefined)
        throw unreachable(`${folder}: holds no ${STAGE_FILE}, so it is not (or no longer) this site; is it mounted?`);
      this.checkVacant(how);
      stage = Stage.open(this.io, path, { create: true });
    }
    if (typeof stage === 'number') throw unreachable(`${path}: cannot be opened: ${errnoText(stage)}`);
    try {
      this.adoptStamp(stage, how, place);
      return stage;
    } catch (error) {
      stage.close();
      throw error;
    }
  }

  private adoptStamp(stage: Stage, how: SiteOpen, place: SiteCursor | undefined): void {
    const { path } = stage;
    const read = stage.readStamps();
    if (typeof read === 'number') throw unreachable(`${path}: cannot be read: ${errnoText(read)}`);
    switch (read.kind) {
      case 'version':
        throw wrongOne(`${path}: was written by a newer reptool; use that one`);
      case 'none':
        // Either made just now, or its making was cut off before the first stamp was whole: no image yet.
        if (place === undefined)
          throw wrongOne(`${path}: holds no valid stamp; use "reptool site recover" to see what is left`);
        this.checkVacant(how);
        return this.makeStage(stage, how, place);
      case 'stamp':
        return stage.adopt(read.value, read.slot);
    }
  }

  private makeStage(stage: Stage, how: SiteOpen, start: SiteCursor): void {
    const { identity, resync } = how;
    let rc = stage.reserve(this.area);
    // With a resync there are none yet: they are made when the stamp says what the site is.
    const devices = resync === undefined ? how.devices.map(newStampDevice) : [];
    const base = { ...(resync?.at ?? start) };
    const inconsistent = resync !== undefined;
    const stamp: Stamp = {
      ...{ serial: 1, logId: identity.logId, group: identity.group, nr: identity.nr },
      ...{ base, area: this.area, writtenUs: this.clock.wallUs(), devices },
      ...{ inconsistent, fitting: inconsistent, usedBelow: resync?.nextDevice ?? 0 },
    };
    if (rc >= 0) rc = stage.writeStamp(stamp);
    if (rc >= 0) rc = this.io.syncDir('SITE:FOLDER', this.folder);
    if (rc < 0) throw unreachable(`${stage.path}: cannot be made: ${errnoText(rc)}`);
  }

  /** A folder that holds images already belongs to someone. */
  private checkVacant({ devices, resync }: SiteOpen): void {
    if (mayTake(resync)) return;
    for (const device of resync?.devices ?? devices) {
      const file = imagePath(this.folder, device.name);
      const info = this.io.stat('SITE:FOLDER', file);
      if (typeof info !== 'number' && (info.kind !== 'file' || info.size > 0))
        throw wrongOne(
          `${file}: is there already (${formatSize(info.size)}) and no site of this group; remove it or name an empty folder`,
        );
      if (typeof info === 'number' && info !== -ERRNO.ENOENT)
        throw unreachable(`${file}: cannot be looked at: ${errnoText(info)}`);
    }
  }

  /** Throws where the stamp is not this site's. */
  checkIdentity(stamp: Stamp, { identity }: SiteOpen): void {
    const { folder } = this;
    if (stamp.logId !== identity.logId)
      throw wrongOne(
        `${folder}: belongs to another group ("${stamp.group}", log ${stamp.logId}); name another folder for "${identity.group}"`,
      );
    if (stamp.nr !== identity.nr)
      throw wrongOne(`${folder}: is site ${stamp.nr} of this group, not site ${identity.nr}; name another folder`);
  }
}
