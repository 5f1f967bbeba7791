/**
 * Whether two paths lead to the same storage: the same file (hard links, symbolic links), the same block device,
 * a loop device and the file behind it, a partition and its disk, a mapped device and what it is made of.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Io } from '../base/io.js';

/** A path that something of the group occupies already. */
export interface Taken {
  path: string;
  /** What is there, for messages: `the local image of disk0`. */
  what: string;
  /** It is a folder, and everything in it is taken. */
  folder?: boolean;
}

/** What `file` is and everything it stands on, by identity (see FileInfo.id); empty where it is not there. */
export function storageOf(io: Io, file: string, sys = '/sys'): Set<string> {
  const found = new Set<string>();
  const info = io.stat('SITE:SAME', file);
  if (typeof info === 'number') return found;
  const queue = [info.id];
  while (queue.length > 0) {
    const id = queue.pop()!;
    if (found.has(id)) continue;
    found.add(id);
    if (id.startsWith('blk:')) queue.push(...belowBlock(io, Number(id.slice(4)), sys));
  }
  return found;
}

function belowBlock(io: Io, rdev: number, sys: string): string[] {
  // As in the kernel's new_decode_dev, for the 32 bits that Node shows.
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  const folder = `${sys}/dev/block/${major}:${minor}`;
  const below: string[] = [];
  const backing = text(`${folder}/loop/backing_file`);
  if (backing !== undefined) {
    const info = io.stat('SITE:SAME', backing);
    if (typeof info !== 'number') below.push(info.id);
  }
  const numbers: string[] = [];
  if (text(`${folder}/partition`) !== undefined) {
    const disk = real(folder);
    const dev = disk === undefined ? undefined : text(`${path.dirname(disk)}/dev`);
    if (dev !== undefined) numbers.push(dev);
  }
  for (const slave of list(`${folder}/slaves`)) {
    const dev = text(`${folder}/slaves/${slave}/dev`);
    if (dev !== undefined) numbers.push(dev);
  }
  for (const number of numbers) {
    const [hi, lo] = number.split(':').map(Number);
    if (hi !== undefined && lo !== undefined)
      below.push(`blk:${((hi & 0xfff) << 8) | (lo & 0xff) | ((lo & 0xfff00) << 12)}`);
  }
  return below;
}

/** Why `file` cannot be a site's, or ''. */
export function takenBy(io: Io, file: string, taken: readonly Taken[], sys = '/sys'): string {
  const mine = storageOf(io, file, sys);
  const [me] = mine;
  if (me === undefined) return '';
  const where = real(file) ?? file;
  for (const other of taken) {
    if (other.folder === true) {
      const folder = real(other.path) ?? other.path;
      if (where === folder || where.startsWith(`${folder}/`)) return other.what;
      continue;
    }
    const theirs = storageOf(io, other.path, sys);
    const [it] = theirs;
    // One stands on the other. That both stand on one disk, as two partitions of it, is no harm.
    if (it !== undefined && (mine.has(it) || theirs.has(me))) return other.what;
  }
  return '';
}

function text(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function list(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

function real(file: string): string | undefined {
  try {
    return fs.realpathSync(file);
  } catch {
    return undefined;
  }
}
