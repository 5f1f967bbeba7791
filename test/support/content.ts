/** Comparing what the device shows with what the images hold, in child processes. */
import assert from 'node:assert/strict';
import { must, run, tail } from './proc.js';
import type { Mounted } from './mounted.js';

/** SHA-256 of a whole file, read past the page cache of the reading side. */
export async function digest(file: string, timeoutMs = 60_000): Promise<string> {
  const out = await must('sh', ['-c', 'dd if="$0" bs=1M iflag=direct status=none | sha256sum', file], { timeoutMs });
  return out.slice(0, 64);
}

/** Fails with the first differing byte where two files are not the same. */
export async function assertSame(a: string, b: string, what: string): Promise<void> {
  const outcome = await run('cmp', [a, b], { timeoutMs: 60_000 });
  assert.equal(outcome.status, 0, `${what}: ${tail(outcome.stdout + outcome.stderr)}`);
}

/**
 * Device, local image and site image are the same: the device is read, the site drained, the group unmounted
 * (which brings the images up to date), and all compared.
 */
export async function assertAllSame(mounted: Mounted): Promise<void> {
  const device = await digest(mounted.disk);
  await mounted.drain();
  await mounted.umount();
  assert.equal(await digest(mounted.image), device, 'the local image differs from what the device showed');
  await assertSame(mounted.image, mounted.siteImage, 'the image of site 1 differs from the local one');
}
