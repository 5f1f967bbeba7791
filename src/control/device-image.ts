/**
 * The local image of a device that comes or grows: looked at, made, made larger. These calls may take long, and may
 * wait for a file system that waits for this very daemon; so the daemon makes them on a thread of their own.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ERRNO, RepError, errnoText, ioError } from '../base/errors.js';
import type { FileInfo, Io } from '../base/io.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import { GIB, MIB, formatSize } from '../base/units.js';
import { createImage, growImage } from '../slink/images.js';
import { writeLocalMarks } from '../slink/local-marks.js';
import { isInside, type PlacesInUse } from './device-plan.js';

export interface ImageJob {
  nr: number;
  name: string;
  local: string;
  /** Bytes of the device, before it grows. */
  size: number;
  sparse: boolean;
  /** Identity of the log. */
  logId: string;
}

/** What stood at its place before. */
export type Before = 'nothing' | 'empty' | 'block';

const LOOK_BYTES = MIB;

/** Looks whether an image may be made at its place; changes nothing. Throws RepError. */
export function lookAtPlace(io: Io, job: ImageJob, taken: PlacesInUse): Before {
  const { local, size } = job;
  const real = realPlace(local);
  for (const folder of taken.folders)
    if (isInside(real, realOrSame(folder)))
      throw new RepError('EEXIST', `${local}: lies in ${folder}, which is used otherwise; name another place`);
  const info = io.stat('APPLY:STAT', local);
  if (info === -ERRNO.ENOENT) return 'nothing';
  if (typeof info === 'number') throw ioError(info, 'looking at it', local);
  refuseSame(io, job, info, taken.files);
  if (info.kind === 'block') {
    if (info.size < size)
      throw new RepError(
        'ENOSPC',
        `${local}: has ${formatSize(info.size)}, too small for a device of ${formatSize(size)}; name a larger one`,
      );
    refuseContent(io, job);
    return 'block';
  }
  if (info.kind !== 'file')
    throw new RepError(
      'EINVAL',
      `${local}: is ${info.kind === 'dir' ? 'a folder' : 'no file'}; name a file for the image`,
    );
  if (info.size > 0)
    throw new RepError(
      'EEXIST',
      `${local}: exists and holds ${formatSize(info.size)}; move it away, or name another place for the local image`,
    );
  return 'empty';
}

/** Its real path, as far as it exists: the last component may not. */
function realPlace(local: string): string {
  const parent = path.dirname(local);
  try {
    return path.join(fs.realpathSync(parent), path.basename(local));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new RepError('ENOENT', `${parent}: there is no such folder for the local image; make it first`, { cause });
    return local;
  }
}

function realOrSame(folder: string): string {
  try {
    return fs.realpathSync(folder);
  } catch {
    return folder;
  }
}

/** By another path, or by a second name, it may be what somebody else writes to. */
function refuseSame(io: Io, { local }: ImageJob, info: FileInfo, files: readonly string[]): void {
  for (const file of files) {
    const other = io.stat('APPLY:STAT', file);
    if (typeof other !== 'number' && other.id === info.id)
      throw new RepError('EEXIST', `${local}: is the same as ${file}, which is used already; name another place`);
  }
}

/** A block device has no name to tell whose it is: what holds anything at its ends is left alone. */
function refuseContent(io: Io, { local, size }: ImageJob): void {
  const fd = io.open('APPLY:OPEN', local, sys.O_RDONLY);
  if (fd < 0) throw ioError(fd, 'opening it', local);
  const mem = Mem.lazy(LOOK_BYTES);
  try {
    const len = Math.min(LOOK_BYTES, size);
    for (const at of [0, size - len]) {
      const r = io.pread('APPLY:READ', fd, mem, 0, len, at);
      if (r < 0) throw ioError(r, 'reading it', local);
      if (mem.u8.subarray(0, r).some((byte) => byte !== 0))
        throw new RepError(
          'EEXIST',
          `${local}: holds data, which would be lost; wipe it first (blkdiscard -z, wipefs -a), or name another one`,
        );
    }
  } finally {
    io.close('APPLY:CLOSE', fd);
    mem.unmap();
  }
}

/** Makes the image, full of zeroes, and marks it as this group's; again over one that was begun. Throws RepError. */
export function makeImage(io: Io, job: ImageJob): void {
  const { nr, local: file, size, sparse } = job;
  createImage(io, 'APPLY', { nr, file, size }, { sparse, overwrite: true });
  const info = io.stat('APPLY:STAT', file);
  if (typeof info !== 'number' && info.kind === 'block') zeroBlockDevice(io, job);
  writeLocalMarks(io, [job], job.logId, null);
}

/** History begins with zeroes everywhere, so the local image has to. */
function zeroBlockDevice(io: Io, { local, size }: ImageJob): void {
  const fd = io.open('APPLY:OPEN', local, sys.O_RDWR);
  if (fd < 0) throw ioError(fd, 'opening it', local);
  try {
    let rc = 0;
    for (let at = 0; rc >= 0 && at < size; at += GIB)
      rc = io.fallocate('APPLY:ZEROES', fd, 17, at, Math.min(GIB, size - at));
    if (rc >= 0) rc = io.fdatasync('APPLY:SYNC', fd);
    if (rc < 0)
      throw new RepError('EIO', `${local}: cannot be filled with zeroes: ${errnoText(rc)}; name another block device`);
  } finally {
    io.close('APPLY:CLOSE', fd);
  }
}

/** What was begun is taken away again; whatever goes wrong now changes nothing about the failure before. */
export function undoImage(io: Io, { local }: ImageJob, before: Before): void {
  if (before === 'nothing') {
    io.unlink('APPLY:CREATE', local);
    return;
  }
  if (before === 'block') return;
  const fd = io.open('APPLY:OPEN', local, sys.O_RDWR);
  if (fd < 0) return;
  io.ftruncate('APPLY:CREATE', fd, 0);
  io.close('APPLY:CLOSE', fd);
}

/** Makes the image larger, durably; throws RepError, and then it is as it was. */
export function growLocal(io: Io, job: ImageJob, to: number): void {
  const { nr, local: file, size, sparse } = job;
  growImage(io, 'APPLY', { nr, file, size }, to, { sparse });
}
