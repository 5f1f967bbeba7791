/**
 * Skipping with a reason. A test that cannot run here says why: the reason is put behind the title of
 * every test it takes out, where any reporter shows it, and scripts/test-reporter.mjs reads it from
 * `skipReason`. A test skipped in any other way counts as failed there, because nobody would know why.
 *
 * Works in a test, in a `before` (takes out the whole suite) and in a `beforeEach`:
 *
 *   before(function () {
 *     needsFuse(this);
 *     needsTool(this, 'fio', 'mkfs.ext4');
 *   });
 */
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** What mocha's objects look like from here; `skipReason` is ours. */
interface Reasoned {
  title: string;
  skipReason?: string;
}

/** Debian keeps mkfs, losetup and ip in sbin, which an ordinary user's PATH leaves out. */
const SBIN = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** Skips the running test, or the suite of the running hook, unless `met` holds. */
export function needs(ctx: Mocha.Context, met: boolean, reason: string): void {
  if (!met) skip(ctx, reason);
}

/** Skips with a reason; does not return. */
export function skip(ctx: Mocha.Context, reason: string): never {
  const running = ctx.test;
  if (isHook(running)) {
    if (running.title.startsWith('"before all"')) running.parent?.eachTest((test) => mark(test, reason));
    else if (ctx.currentTest) mark(ctx.currentTest, reason);
  } else if (running) {
    mark(running, reason);
  }
  return ctx.skip();
}

export function needsRoot(ctx: Mocha.Context): void {
  needs(ctx, isRoot(), 'needs root');
}

/** Root and a /dev/fuse that opens: what a mount test cannot do without. */
export function needsFuse(ctx: Mocha.Context): void {
  needsRoot(ctx);
  needs(ctx, opens('/dev/fuse'), 'needs /dev/fuse, which does not open here');
}

/** Root and loop devices. */
export function needsLoop(ctx: Mocha.Context): void {
  needsRoot(ctx);
  needs(ctx, opens('/dev/loop-control'), 'needs loop devices: /dev/loop-control does not open here');
  needsTool(ctx, 'losetup');
}

/** Programs of the machine, looked up in PATH and in the sbin folders. */
export function needsTool(ctx: Mocha.Context, ...names: string[]): void {
  const missing = names.filter((name) => findTool(name) === undefined);
  needs(ctx, missing.length === 0, `needs ${missing.join(', ')} in PATH`);
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Where a program lies, or undefined. Tests run what they find by this path. */
export function findTool(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter).filter(Boolean), ...SBIN];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

/** mocha sets `type` on hooks and tests; its types leave it out. */
function isHook(running: Mocha.Runnable | undefined): running is Mocha.Hook {
  return (running as { type?: string } | undefined)?.type === 'hook';
}

function mark(test: Reasoned, reason: string): void {
  if (test.skipReason !== undefined) return;
  test.skipReason = reason;
  test.title += ` [skipped: ${reason}]`;
}

function opens(path: string): boolean {
  try {
    closeSync(openSync(path, 'r+'));
    return true;
  } catch {
    return false;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
