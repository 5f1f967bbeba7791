/** Loop devices and file systems on them. Detaching is left to `Mounted.cleanup` where a test fails. */
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describeOutcome, must, run, until } from './proc.js';
import { mountsBelow, type Mounted } from './mounted.js';

/** A loop device over a file. */
export async function attach(file: string, ...options: string[]): Promise<string> {
  const out = await must('losetup', ['--find', '--show', ...options, file], { timeoutMs: 20_000 });
  return out.trim();
}

export async function detach(device: string): Promise<void> {
  await must('losetup', ['-d', device], { timeoutMs: 20_000 });
  const name = device.replace('/dev/', '');
  await until(`${device} is free`, () => !existsSync(`/sys/block/${name}/loop/backing_file`), 10_000);
}

export async function makeExt4(device: string, ...options: string[]): Promise<void> {
  await must('mkfs.ext4', ['-q', '-F', ...options, device], { timeoutMs: 60_000 });
}

export async function mountAt(device: string, dir: string, ...options: string[]): Promise<void> {
  mkdirSync(dir, { recursive: true });
  await must('mount', [...options, device, dir], { timeoutMs: 30_000 });
}

export async function unmountAt(dir: string): Promise<void> {
  await must('umount', [dir], { timeoutMs: 60_000 });
  await until(`${dir} is unmounted`, () => !mountsBelow(dir).some((mount) => mount.point === dir));
}

/** fsck that has nothing to mend: a journal to replay is fine, an error is not. */
export async function assertFsck(device: string): Promise<void> {
  const outcome = await run('e2fsck', ['-f', '-n', device], { timeoutMs: 60_000 });
  if (outcome.status !== 0) throw new Error(describeOutcome(`e2fsck -fn ${device}`, outcome));
}

/** A small ext4 of its own, mounted at `dir`: a place that runs full. Returns its loop device. */
export async function smallDisk(mounted: Mounted, dir: string, mib: number): Promise<string> {
  const file = join(mounted.top, `small-${basename(dir)}.img`);
  writeFileSync(file, '');
  truncateSync(file, mib * 1024 * 1024);
  const device = await attach(file);
  await makeExt4(device, '-m', '0', '-O', '^has_journal');
  await mountAt(device, dir);
  return device;
}
