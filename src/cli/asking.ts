/** Commands that are one question to a mounted group. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT, RepError } from '../base/errors.js';
import { closeClient, readControl, sendMessage } from '../control/client.js';
import type { StatusJson } from '../control/status.js';
import { Interrupted, interruptible, usage } from './base.js';
import { formatSeconds } from './output.js';
import { Progress } from './progress.js';
import { lagSentence } from './status-text.js';
import { tryStatus, withMount } from './target.js';

/** How much longer than the wait itself its answer may take. */
const GRACE_MS = 10_000;
/** How often a command that waits looks how far things are. */
const LOOK_MS = 1000;

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

export interface WaitOptions {
  readonly site: number | undefined;
  readonly timeoutMs: number;
  /** No progress (--json). */
  readonly quiet: boolean;
}

/** Returns when the sites have confirmed what was written before; fails when the time is up. */
export function waitForSites(dir: string | undefined, { site, timeoutMs, quiet }: WaitOptions): Promise<Told> {
  return withMount(dir, async (mount) => {
    const words = ['wait', ...(site === undefined ? [] : [String(site)]), `${timeoutMs}ms`];
    try {
      const asked = (stop: AbortSignal) =>
        untilStopped(sendMessage(mount.dir, words.join(' '), timeoutMs + GRACE_MS), stop);
      const reply = await interruptible((stop) =>
        quiet ? asked(stop) : whileShowing(mount.dir, asked(stop), (status) => lagSentence(status, site)),
      );
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

/** The end of `work`; Ctrl-C ends the request instead, and with it what the daemon does for it. */
async function untilStopped<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  const stopped = new Promise<never>((_resolve, reject) => {
    stop.addEventListener('abort', () => {
      closeClient();
      reject(new Interrupted(String(stop.reason), 'waiting was interrupted; sites go on'));
    });
  });
  return Promise.race([work, stopped]);
}

/** Shows how far things are until `work` has ended. */
async function whileShowing<T>(dir: string, work: Promise<T>, say: (status: StatusJson) => string): Promise<T> {
  const progress = new Progress(dir);
  const over = new AbortController();
  const end = (): void => over.abort();
  void work.then(end, end);
  try {
    while (!over.signal.aborted) {
      await sleep(LOOK_MS, undefined, { signal: over.signal }).catch(() => undefined);
      const status = over.signal.aborted ? undefined : await tryStatus(dir);
      if (status !== undefined && !over.signal.aborted) progress.note(say(status));
    }
    return await work;
  } finally {
    progress.end();
  }
}

/** A message to the group, to a site (`siteN`) or to a device, and the reply. */
export function tell(
  dir: string | undefined,
  target: string,
  words: readonly string[],
  timeoutMs: number,
): Promise<Told & { target: string; message: string; reply: string }> {
  const unprintable = [target, ...words].find((word) => /[\p{Cc}\s]|^$/u.test(word));
  if (unprintable !== undefined)
    throw usage(
      `${JSON.stringify(unprintable)}: a word of a message has no blanks; write each word as an argument of its own`,
    );
  return withMount(dir, (mount) =>
    interruptible(async (stop) => {
      const site = /^site(\d{1,4})$/.exec(target)?.[1];
      const to = target === mount.group ? [] : site === undefined ? [target] : ['site', site];
      const message = [...to, ...words].join(' ');
      const reply = await untilStopped(sendMessage(mount.dir, message, timeoutMs + GRACE_MS), stop);
      return { text: reply.text || 'done', mountpoint: mount.dir, target, message, reply: reply.text };
    }),
  );
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
