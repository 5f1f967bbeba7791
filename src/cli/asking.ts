/** Commands that are one question to a mounted group. */
import { EXIT, RepError } from '../base/errors.js';
import { readControl, sendMessage } from '../control/client.js';
import { formatSeconds } from './output.js';
import { lagSentence } from './status-text.js';
import { tryStatus, withMount } from './target.js';

/** How much longer than the wait itself its answer may take. */
const GRACE_MS = 10_000;

/** A sentence for people and the facts for --json. */
export interface Told {
  readonly text: string;
  readonly mountpoint: string;
}

export function readTable(dir: string | undefined): Promise<string[]> {
  return withMount(dir, async (mount) => {
    const text = await readControl(mount.dir, 'table');
    return text.split('\n').filter((line) => line !== '');
  });
}

/** Returns when the sites have confirmed what was written before; fails when the time is up. */
export function waitForSites(dir: string | undefined, site: number | undefined, timeoutMs: number): Promise<Told> {
  return withMount(dir, async (mount) => {
    const words = ['wait', ...(site === undefined ? [] : [String(site)]), `${timeoutMs}ms`];
    try {
      const reply = await sendMessage(mount.dir, words.join(' '), timeoutMs + GRACE_MS);
      const text = reply.text === '' ? 'confirmed by all sites' : reply.text;
      return { text, mountpoint: mount.dir };
    } catch (error) {
      if (!(error instanceof RepError) || error.errno !== 'ETIMEDOUT') throw error;
      const status = await tryStatus(mount.dir);
      if (status === undefined) throw error;
      const message = `${mount.dir}: not confirmed within ${formatSeconds(timeoutMs / 1000)}: ${lagSentence(status, site)}`;
      const next = 'wait again with a longer --timeout, or see `reptool status`';
      throw new RepError('ETIMEDOUT', `${message}; ${next}`, { cause: error, exit: EXIT.FAILED });
    }
  });
}

export function setTag(dir: string | undefined, name: string): Promise<Told & { tag: string }> {
  return withMount(dir, async (mount) => {
    const reply = await sendMessage(mount.dir, `tag ${name}`);
    return { text: `tag ${name}${reply.text === '' ? '' : ` at ${reply.text}`}`, tag: name, mountpoint: mount.dir };
  });
}

export function tellSite(
  dir: string | undefined,
  nr: number,
  verb: 'pause' | 'resume',
): Promise<Told & { site: number; reply: string }> {
  return withMount(dir, async (mount) => {
    const reply = await sendMessage(mount.dir, `site ${nr} ${verb}`);
    const done = verb === 'pause' ? 'paused' : 'resumed';
    return { text: reply.text || `site ${nr} ${done}`, site: nr, reply: reply.text, mountpoint: mount.dir };
  });
}
