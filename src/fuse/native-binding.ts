/**
 * The package fuse-native (2.2.6, over libfuse 2.9): what is used of it, loaded only when it is. The binding
 * runs on the main loop of its process and nowhere else: pool threads of libfuse wait there for each answer.
 *
 *   kernel ─▶ libfuse's threads ─uv_async─▶ main loop: an operation and its callback ─semaphore─▶ thread answers
 *
 * What it costs: each thread of libfuse that ever ran leaves a few hundred bytes behind; writes have 128 KiB at
 * most; direct writes by libaio follow each other; there is no FALLOCATE, no LSEEK, no sending again. Never mount it
 * with direct_io: then the kernel would ask for no FSYNC after an O_DSYNC write, and the binding hides the flag.
 */
import { createRequire } from 'node:module';
import * as path from 'node:path';
import { RepError } from '../base/errors.js';
import { loadGlobally } from '../base/sys.js';
import { SUBTYPE } from './mount.js';
import type { Attr } from './proto.js';

/** Largest write that libfuse 2 takes. */
export const NATIVE_MAX_WRITE = 128 * 1024;
/** The binding copies mount point and options into buffers of this size, unchecked. */
const LONGEST = 1000;

export type Done = (rc: number) => void;
type Path = string;

/** Operations as the binding calls them; `rc` is 0 or more, or a negative errno. */
export interface NativeOps {
  getattr(at: Path, done: (rc: number, stat?: NativeStat) => void): void;
  /** Attributes through a handle; 0 where the kernel names none. */
  fgetattr(at: Path, fh: number, done: (rc: number, stat?: NativeStat) => void): void;
  readdir(at: Path, done: (rc: number, names?: string[]) => void): void;
  statfs(at: Path, done: (rc: number, statfs?: Record<string, number>) => void): void;
  open(at: Path, flags: number, done: (rc: number, fh?: number) => void): void;
  release(at: Path, fh: number, done: Done): void;
  read(at: Path, fh: number, into: Buffer, size: number, offset: number, done: Done): void;
  write(at: Path, fh: number, data: Buffer, size: number, offset: number, done: Done): void;
  fsync(at: Path, dataOnly: number, fh: number, done: Done): void;
  truncate(at: Path, size: number, done: Done): void;
  ftruncate(at: Path, fh: number, size: number, done: Done): void;
  utimens(at: Path, atime: number, mtime: number, done: Done): void;
  chmod(at: Path, mode: number, done: Done): void;
  chown(at: Path, uid: number, gid: number, done: Done): void;
  create(at: Path, mode: number, done: Done): void;
  mknod(at: Path, mode: number, device: number, done: Done): void;
  mkdir(at: Path, mode: number, done: Done): void;
  symlink(from: Path, to: Path, done: Done): void;
  link(from: Path, to: Path, done: Done): void;
  unlink(at: Path, done: Done): void;
  rmdir(at: Path, done: Done): void;
  rename(from: Path, to: Path, done: Done): void;
}

export interface NativeStat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  nlink: number;
  ino: number;
  blksize: number;
  blocks: number;
  atime: number;
  mtime: number;
  ctime: number;
}

/** The binding counts times in milliseconds. */
export function nativeStat(attr: Attr): NativeStat {
  const { mode, uid, gid, size, nlink, ino, blksize, blocks } = attr;
  const [atime, mtime, ctime] = [attr.atimeMs, attr.mtimeMs, attr.ctimeMs].map(Math.floor) as [number, number, number];
  return { mode, uid, gid, size, nlink, ino, blksize, blocks, atime, mtime, ctime };
}

type Signal = (rc: number, ...more: unknown[]) => void;

interface FuseInstance {
  open(done: (error: Error | null) => void): void;
  _op_getattr(signal: Signal, at: Path): void;
}

type FuseClass = new (mountpoint: string, ops: object, options: object) => FuseInstance;

/** Loads the binding, and libfuse 2 from the package where the system has none. */
function load(): FuseClass {
  const require = createRequire(import.meta.url);
  const what = 'the fuse-native transport';
  let folder: string;
  try {
    folder = path.dirname(require.resolve('fuse-native/package.json'));
  } catch (cause) {
    throw new RepError('ENOENT', `${what}: the package fuse-native is not installed; run npm ci`, { cause });
  }
  const own = path.join(folder, 'prebuilds', `${process.platform}-${process.arch}`, 'libfuse.so');
  if (!loadGlobally('libfuse.so.2') && !loadGlobally(own))
    throw new RepError(
      'ENOENT',
      `${what}: neither the system nor the package has libfuse.so.2 for ${process.arch}; ` +
        'install it (on Debian the package libfuse2), or use the kernel transport',
    );
  try {
    return require('fuse-native') as FuseClass;
  } catch (cause) {
    throw new RepError('ENOENT', `${what}: it does not load: ${(cause as Error).message}; use the kernel transport`, {
      cause,
    });
  }
}

export interface NativeMount {
  source: string;
  mountpoint: string;
  allowOther: boolean;
}

/** Mounts; resolves when the kernel has shaken hands with libfuse. */
export async function mountNative(mount: NativeMount, ops: NativeOps): Promise<void> {
  const Fuse = load();
  const options = [
    ...[`fsname=${mount.source.replace(/[\\,]/g, '\\$&')}`, `subtype=${SUBTYPE}`, 'default_permissions', 'big_writes'],
    // Control files change by themselves; devices are asked for rarely.
    ...['attr_timeout=0', 'entry_timeout=1'],
    ...(mount.allowOther ? ['allow_other'] : []),
  ].join(',');
  if (Buffer.byteLength(mount.mountpoint) > LONGEST || Buffer.byteLength(options) > LONGEST)
    throw new RepError(
      'ENAMETOOLONG',
      `${mount.mountpoint}: the fuse-native transport takes names of up to ${LONGEST} bytes; use shorter ones`,
    );
  /** The binding answers fgetattr from the path and drops the handle, which knows the size of what it reads. */
  class WithHandles extends Fuse {
    _op_fgetattr(signal: Signal, at: Path, fh: number): void {
      ops.fgetattr(at, fh, (rc, stat) => {
        // The binding's own getattr packs the numbers.
        WithHandles.prototype._op_getattr.call(
          { ops: { getattr: (_at: Path, done: (rc: number, stat?: NativeStat) => void) => done(rc, stat) } },
          signal,
          at,
        );
      });
    }
  }
  const fuse = new WithHandles(mount.mountpoint, ops, { timeout: false, fsname: `${options.slice('fsname='.length)}` });
  return new Promise((resolve, reject) =>
    fuse.open((error) => {
      if (error === null) resolve();
      else
        reject(
          new RepError('EIO', `${mount.mountpoint}: libfuse does not mount it (${error.message}); see daemon.log`, {
            cause: error,
          }),
        );
    }),
  );
}
