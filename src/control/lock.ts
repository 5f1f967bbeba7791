/**
 * One process tree per group: flock on STATE/GROUP/lock. The lock belongs to the open file, so it lives as
 * long as any process that inherited the descriptor (keeper, daemons), whatever the order in which they end.
 * The pid inside is only for the human who is told that the group is in use.
 */
import * as fs from 'node:fs';
import { readText } from '../base/io.js';
import * as sys from '../base/sys.js';
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import { groupFiles } from './state.js';

/** Takes the lock of the group in `dir`, which must exist. Returns the descriptor; closing it lets go. */
export function lockGroup(dir: string): number {
  const file = groupFiles(dir).lock;
  for (;;) {
    let fd: number;
    try {
      // Not close-on-exec: Node closes what is not handed on explicitly, and the keeper gets it by number.
      fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? 'EIO';
      if (code === 'ENOENT') throw new RepError('ENOENT', `${dir}: no such state folder; "reptool mount" makes one`);
      throw new RepError('EACCES', `${file}: cannot be opened (${code}); run as the owner of the state folder`, {
        cause,
      });
    }
    const rc = sys.flock(fd, sys.LOCK_EX | sys.LOCK_NB);
    if (rc < 0) {
      const pid = readPid(file);
      fs.closeSync(fd);
      if (rc !== -ERRNO.EAGAIN) throw new RepError('EIO', `${file}: flock failed: ${errnoText(rc)}`);
      const by = pid === undefined ? 'another process' : `process ${pid}`;
      throw new RepError('EBUSY', `${dir}: in use by ${by}; unmount the group first, or name another with --group`);
    }
    // A creation that failed may have removed the file between open and flock: then this is the lock of nothing.
    if (sameFile(fd, file)) {
      noteLockOwner(fd, process.pid);
      return fd;
    }
    fs.closeSync(fd);
  }
}

/** Writes `pid` into a lock that is held; the keeper does so once it has inherited it. */
export function noteLockOwner(fd: number, pid: number): void {
  const text = Buffer.from(`${pid}\n`);
  fs.ftruncateSync(fd, 0);
  fs.writeSync(fd, text, 0, text.length, 0);
}

/** The pid that the lock of the group in `dir` names, or undefined while nobody holds it. */
export function lockHolder(dir: string): number | undefined {
  const file = groupFiles(dir).lock;
  let fd: number;
  try {
    fd = fs.openSync(file, 'r');
  } catch {
    return undefined;
  }
  try {
    if (sys.flock(fd, sys.LOCK_EX | sys.LOCK_NB) >= 0) return undefined;
    return readPid(file);
  } finally {
    fs.closeSync(fd);
  }
}

export function unlockGroup(fd: number): void {
  fs.closeSync(fd);
}

function readPid(file: string): number | undefined {
  try {
    const pid = Number.parseInt(readText(file), 10);
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function sameFile(fd: number, file: string): boolean {
  const held = fs.fstatSync(fd);
  const named = fs.statSync(file, { throwIfNoEntry: false });
  return named !== undefined && named.dev === held.dev && named.ino === held.ino;
}
