/**
 * Where the reason lies for which a mount point was given up. The mount itself names the folder of its group
 * (fuse/mount.ts sourceOf), but a keeper that gives up may have to take the mount away; then this is left:
 *
 *   RUN/gave-up/HASH → folder of the group      HASH: SHA-256 of the mount point, 32 hexadecimal digits
 *
 * RUN is /run/reptool for root and $XDG_RUNTIME_DIR/reptool for others (who may have none: then only the state
 * folder that a command looks into is searched). It goes with the next mount there, and with a reboot.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';

const USUAL = '/run/reptool';
const FOLDER = 'gave-up';

/** The folder for what lives as long as the machine runs; `REPTOOL_RUN` overrides it. */
export function runRoot(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string | undefined {
  if (env['REPTOOL_RUN']) return path.resolve(env['REPTOOL_RUN']);
  if (uid === 0) return USUAL;
  const base = env['XDG_RUNTIME_DIR'];
  return base !== undefined && path.isAbsolute(base) ? path.join(base, 'reptool') : undefined;
}

function linkOf(root: string, mountpoint: string): string {
  return path.join(root, FOLDER, createHash('sha256').update(mountpoint).digest('hex').slice(0, 32));
}

/** Leaves the way to the folder of the group, or takes it away. Rejects with what the file system says. */
export async function pointToGroup(
  mountpoint: string,
  groupDir: string | undefined,
  root: string | undefined = runRoot(),
): Promise<void> {
  if (root === undefined) return;
  const link = linkOf(root, mountpoint);
  await fs.promises.rm(link, { force: true });
  if (groupDir === undefined) return;
  await fs.promises.mkdir(path.dirname(link), { recursive: true, mode: 0o755 });
  await fs.promises.symlink(groupDir, link);
}

/** Folders of groups that were given up on `mountpoint`, by this account or by root. */
export function pointedGroups(mountpoint: string, roots: readonly (string | undefined)[] = rootsToRead()): string[] {
  const found: string[] = [];
  for (const root of new Set(roots)) {
    if (root === undefined) continue;
    try {
      found.push(fs.readlinkSync(linkOf(root, mountpoint)));
    } catch {
      // None was left there.
    }
  }
  return found;
}

function rootsToRead(): (string | undefined)[] {
  return process.env['REPTOOL_RUN'] ? [runRoot()] : [runRoot(), USUAL];
}
