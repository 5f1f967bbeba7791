/**
 * Where a group keeps its state: STATE/GROUP/ with
 *
 *   group.json   the configuration; replaced whole, never edited in place
 *   replog       the log (its default place)
 *   index/       LMDB
 *   images/      slink 0's images (default)
 *   site1/       slink 1's folder (default)
 *   siteN.stamp  what site N's devices hold, for sites without a journal (slink/raw-stamp.ts)
 *   lock         flock: at most one process tree serves or checks the group
 *   run.json     written by the keeper: pids and mount point
 *   daemon.log   what keeper and daemon have to say
 *   detached.json  present while slink 0 may lack more than the log's checkpoint says: its images failed, reads come
 *                from a site (slink/detach.ts)
 *   failure.txt  the reason of the last refusal to serve
 *
 * STATE is /var/lib/reptool for root and $XDG_STATE_HOME/reptool (~/.local/state/reptool) for others.
 */
import * as os from 'node:os';
import * as path from 'node:path';

export interface GroupFiles {
  readonly dir: string;
  readonly config: string;
  readonly log: string;
  readonly index: string;
  readonly images: string;
  readonly lock: string;
  readonly run: string;
  readonly daemonLog: string;
  readonly failure: string;
  readonly detached: string;
  /** Present only while the group is being made: what to clear away after an interrupted creation. */
  readonly creating: string;
}

/** The state folder of this user; `REPTOOL_STATE` overrides it. */
export function stateRoot(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  if (env['REPTOOL_STATE']) return path.resolve(env['REPTOOL_STATE']);
  if (uid === 0) return '/var/lib/reptool';
  const base = env['XDG_STATE_HOME'];
  return path.join(
    base !== undefined && path.isAbsolute(base) ? base : path.join(os.homedir(), '.local/state'),
    'reptool',
  );
}

/** The folder of group `name` under the state folder `root`. */
export function groupDir(root: string, name: string): string {
  return path.join(path.resolve(root), name);
}

export function groupFiles(dir: string): GroupFiles {
  return {
    dir,
    config: path.join(dir, 'group.json'),
    log: path.join(dir, 'replog'),
    index: path.join(dir, 'index'),
    images: path.join(dir, 'images'),
    lock: path.join(dir, 'lock'),
    run: path.join(dir, 'run.json'),
    daemonLog: path.join(dir, 'daemon.log'),
    failure: path.join(dir, 'failure.txt'),
    detached: path.join(dir, 'detached.json'),
    creating: path.join(dir, 'creating'),
  };
}

/** The stamp of a site whose devices cannot carry one themselves. Whoever removes the site removes it as well. */
export function siteStamp(dir: string, nr: number): string {
  return path.join(dir, `site${nr}.stamp`);
}
