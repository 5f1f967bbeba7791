/** Files of images: making one, making one larger, and what one has to be like. */
import { ERRNO, RepError, ioError } from '../base/errors.js';
import { writeFull, type FileInfo, type Io, type IoCall } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { O_CREAT, O_RDWR } from '../base/sys.js';
import { MIB, formatSize } from '../base/units.js';

/** First word of the names of I/O calls: `APPLY` for slink 0, `SITE` for a folder site. */
export type ImageArea = 'APPLY' | 'SITE';

export const CALLS = {
  APPLY: callsOf('APPLY'),
  SITE: callsOf('SITE'),
} as const;

export interface Calls {
  open: IoCall;
  close: IoCall;
  create: IoCall;
  write: IoCall;
  direct: IoCall;
  discard: IoCall;
  zeroes: IoCall;
  sync: IoCall;
  read: IoCall;
  xattr: IoCall;
  holes: IoCall;
}

function callsOf(area: ImageArea): Calls {
  return {
    open: `${area}:OPEN`,
    close: `${area}:CLOSE`,
    create: `${area}:CREATE`,
    write: `${area}:WRITE`,
    direct: `${area}:DIRECT`,
    discard: `${area}:DISCARD`,
    zeroes: `${area}:ZEROES`,
    sync: `${area}:SYNC`,
    read: `${area}:READ`,
    xattr: `${area}:XATTR`,
    holes: `${area}:HOLES`,
  };
}

export interface ImageSpec {
  nr: number;
  file: string;
  /** Bytes of the device. */
  size: number;
  /** The device is about to grow up to so many bytes: the file may have grown before it. */
  grown?: number;
  /** A block device that nobody else may mount or claim meanwhile (zeroing ranges also needs the claim itself). */
  exclusive?: boolean;
}

export interface ImageCreate {
  /** Leaves holes: writes may later find the file system full. */
  sparse?: boolean;
  /** Takes a file that is there and not empty (it then must have the device's size; its content stays). */
  overwrite?: boolean;
  /** With `overwrite`: one of another size is cut, or grown, to the device's. */
  fit?: boolean;
}

/** Makes the file of an image at its device's full size, durably; throws RepError. */
export function createImage(io: Io, area: ImageArea, spec: ImageSpec, how: ImageCreate = {}): void {
  const calls = CALLS[area];
  const fd = io.open(calls.create, spec.file, O_RDWR | O_CREAT, 0o600);
  if (fd < 0) throw ioError(fd, 'making the image', spec.file);
  try {
    const info = io.info(calls.create, fd);
    if (typeof info === 'number') throw ioError(info, 'reading its size', spec.file);
    if (info.kind === 'block') {
      if (how.overwrite !== true)
        throw new RepError('EEXIST', `${spec.file}: is a block device, whose content would be lost; say so to use it`);
    } else if (info.kind !== 'file') {
      throw mismatch(spec, info)!;
    } else if (info.size > 0 && how.overwrite !== true) {
      throw new RepError(
        'EEXIST',
        `${spec.file}: exists and holds ${formatSize(info.size)}; remove it, or say that it may be taken over`,
      );
    }
    if (info.kind === 'file') {
      const wrong = info.size > 0 && how.fit !== true ? mismatch(spec, info) : undefined;
      if (wrong !== undefined) throw wrong;
      let rc = info.size === spec.size ? 0 : io.ftruncate(calls.create, fd, spec.size);
      if (rc >= 0 && how.sparse !== true) rc = allocate(io, calls, fd, spec.size, info);
      if (rc < 0) throw ioError(rc, `allocating ${formatSize(spec.size)}`, spec.file);
    }
    const rc = io.fdatasync(calls.create, fd);
    if (rc < 0) throw ioError(rc, 'syncing the new image', spec.file);
  } finally {
    io.close(calls.close, fd);
  }
  const rc = io.syncDir(calls.create, dirOf(spec.file));
  if (rc < 0) throw ioError(rc, 'syncing the folder of the image', spec.file);
}

function allocate(io: Io, calls: Calls, fd: number, size: number, before: FileInfo): number {
  const rc = io.fallocate(calls.create, fd, 0, 0, size);
  // A file system without fallocate: only bytes written are bytes owned. Never over what is there already.
  if (rc !== -ERRNO.EOPNOTSUPP || before.size > 0) return rc === -ERRNO.EOPNOTSUPP ? 0 : rc;
  return writeZeroes(io, calls.create, fd, 0, size);
}

/**
 * Makes the file of an image larger, durably; throws RepError, and then it is as large as before. A block device
 * only has to be large enough.
 */
export function growImage(io: Io, area: ImageArea, spec: ImageSpec, to: number, how: ImageCreate = {}): void {
  const calls = CALLS[area];
  const fd = io.open(calls.open, spec.file, O_RDWR);
  if (fd < 0) throw ioError(fd, 'opening the image', spec.file);
  try {
    const info = io.info(calls.open, fd);
    if (typeof info === 'number') throw ioError(info, 'reading its size', spec.file);
    const grown = Math.max(to, spec.grown ?? 0);
    const wrong = mismatch(info.kind === 'block' ? { ...spec, size: to } : { ...spec, grown }, info);
    if (wrong !== undefined) throw wrong;
    if (info.kind === 'block') return;
    const from = Math.min(info.size, spec.size);
    let rc = info.size >= to ? 0 : io.ftruncate(calls.create, fd, to);
    if (rc >= 0 && how.sparse !== true) {
      rc = io.fallocate(calls.create, fd, 0, from, to - from);
      if (rc === -ERRNO.EOPNOTSUPP) rc = writeZeroes(io, calls.create, fd, from, to - from);
    }
    if (rc >= 0) rc = io.fdatasync(calls.create, fd);
    if (rc >= 0) return;
    io.ftruncate(calls.create, fd, from);
    throw ioError(rc, `growing it to ${formatSize(to)}`, spec.file);
  } finally {
    io.close(calls.close, fd);
  }
}

function dirOf(file: string): string {
  const cut = file.lastIndexOf('/');
  return cut < 0 ? '.' : file.slice(0, Math.max(cut, 1));
}

let zeroPages: Mem | undefined;

/** Writes zeroes: 0 or the negative errno. */
export function writeZeroes(io: Io, call: IoCall, fd: number, pos: number, len: number): number {
  zeroPages ??= Mem.lazy(MIB);
  for (let done = 0; done < len; done += MIB) {
    const rc = writeFull(io, call, fd, zeroPages, 0, Math.min(MIB, len - done), pos + done);
    if (rc < 0) return rc;
  }
  return 0;
}

/** Why what stands there cannot be the image of `spec`. */
export function mismatch(spec: ImageSpec, info: FileInfo): RepError | undefined {
  const { file, size, grown = size } = spec;
  if (info.kind !== 'file' && info.kind !== 'block')
    return new RepError('EINVAL', `${file}: is a ${info.kind}; an image is a file or a block device`);
  const sizes = `the image has ${info.size} bytes, its device ${size}`;
  if (info.size < size)
    return new RepError('EINVAL', `${file}: is too small: ${sizes}; enlarge it, or name another one`);
  if (info.kind === 'file' && info.size > grown)
    return new RepError('EINVAL', `${file}: is too large: ${sizes}; it is not the image of this device`);
  return undefined;
}
