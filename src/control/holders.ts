/**
 * Who keeps a mount busy. Only links under /proc and /sys are read, never the mounted tree itself: asking a
 * tree whose daemon hangs would hang as well.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { sentenceList } from '../base/words.js';

export interface Holder {
  readonly kind: 'process' | 'loop' | 'mount' | 'swap';
  /** Process id, or the loop device, or the mount point. */
  readonly id: string;
  /** Name of the program; empty for what is no process. */
  readonly name: string;
  /** What it does with the tree: `works in`, `has open`, `maps`, `is backed by`, `is mounted on`. */
  readonly how: string;
  /** The path below the mount point (or the mount point itself). */
  readonly file: string;
  /** What has to be typed first. */
  readonly release: string;
}

/** The kernel appends this to links of files that were unlinked. */
const DELETED = / \(deleted\)$/;

/** Everything that uses something at or below `dir`, an absolute path. */
export function holdersOf(dir: string, proc = '/proc', sys = '/sys'): Holder[] {
  const inside = (file: string): boolean => file === dir || file.startsWith(dir.endsWith('/') ? dir : `${dir}/`);
  const mounts = readMounts(path.join(proc, 'self/mountinfo'));
  const found: Holder[] = [];
  for (const loop of list(path.join(sys, 'block')).filter((name) => name.startsWith('loop'))) {
    const file = text(path.join(sys, 'block', loop, 'loop/backing_file'))
      .trim()
      .replace(DELETED, '');
    if (!inside(file)) continue;
    const device = `/dev/${loop}`;
    const on = mounts.find((mount) => mount.source === device || mount.source.startsWith(`${device}p`));
    // What `mount -o loop` made goes with its mount.
    const clears = text(path.join(sys, 'block', loop, 'loop/autoclear')).trim() === '1';
    const steps = [
      on === undefined ? '' : `umount ${on.point}`,
      on !== undefined && clears ? '' : `losetup -d ${device}`,
    ];
    const release = steps.filter((step) => step !== '').join(' && ');
    found.push({ kind: 'loop', id: device, name: '', how: 'is backed by', file, release });
  }
  for (const { point } of mounts) {
    if (point === dir || !inside(point)) continue;
    found.push({ kind: 'mount', id: point, name: '', how: 'is mounted on', file: point, release: `umount ${point}` });
  }
  for (const line of text(path.join(proc, 'swaps')).split('\n').slice(1)) {
    const file = unescape(line.split(/\s+/)[0] ?? '');
    if (file !== '' && inside(file))
      found.push({ kind: 'swap', id: file, name: '', how: 'swaps to', file, release: `swapoff ${file}` });
  }
  for (const pid of list(proc).filter((name) => /^\d+$/.test(name))) {
    const holder = processHolding(path.join(proc, pid), inside);
    if (holder !== undefined) found.push({ kind: 'process', id: pid, ...holder });
  }
  return found;
}

/** `process 4711 (bash) works in /mnt/rep` for each. */
export function describeHolders(holders: readonly Holder[]): string {
  return sentenceList(holders.map(describe));
}

/** What to type, for those where something can be typed. */
export function releaseHint(holders: readonly Holder[]): string {
  const commands = holders.filter((holder) => holder.kind !== 'process').map((holder) => holder.release);
  const processes = holders.filter((holder) => holder.kind === 'process').map((holder) => holder.id);
  const parts = commands.map((command) => `run \`${command}\``);
  if (processes.length > 0)
    parts.push(`end ${processes.length === 1 ? 'process' : 'processes'} ${sentenceList(processes)}`);
  return sentenceList(parts);
}

function describe(holder: Holder): string {
  switch (holder.kind) {
    case 'process':
      return `process ${holder.id} (${holder.name}) ${holder.how} ${holder.file}`;
    case 'loop':
      return `${holder.id} ${holder.how} ${holder.file}`;
    case 'mount':
      return `another file system ${holder.how} ${holder.file}`;
    case 'swap':
      return `the kernel ${holder.how} ${holder.file}`;
  }
}

function processHolding(
  folder: string,
  inside: (file: string) => boolean,
): { name: string; how: string; file: string; release: string } | undefined {
  const pid = path.basename(folder);
  const found = (how: string, file: string) => {
    const name = text(path.join(folder, 'comm')).trim();
    return { name: name === '' ? '?' : name, how, file, release: `kill ${pid}` };
  };
  for (const [link, how] of [
    ['cwd', 'works in'],
    ['root', 'has its root in'],
  ] as const) {
    const file = target(path.join(folder, link));
    if (inside(file)) return found(how, file);
  }
  for (const fd of list(path.join(folder, 'fd'))) {
    const file = target(path.join(folder, 'fd', fd));
    if (inside(file)) return found('has open', file);
  }
  for (const line of text(path.join(folder, 'maps')).split('\n')) {
    const at = line.indexOf('/');
    if (at < 0) continue;
    const file = line.slice(at).replace(DELETED, '');
    if (inside(file)) return found('maps', file);
  }
  return undefined;
}

function readMounts(file: string): { point: string; source: string }[] {
  return text(file)
    .split('\n')
    .flatMap((line) => {
      const words = line.split(' ');
      const dash = words.indexOf('-');
      return dash < 0 ? [] : [{ point: unescape(words[4] ?? ''), source: unescape(words[dash + 2] ?? '') }];
    });
}

/** mountinfo and swaps write blanks and the like as three octal digits. */
function unescape(word: string): string {
  return word.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

function list(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return []; // A process that is gone by now, or one that is not ours.
  }
}

function text(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function target(link: string): string {
  try {
    return fs.readlinkSync(link).replace(DELETED, '');
  } catch {
    return '';
  }
}
