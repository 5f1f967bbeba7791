/** `reptool status`: once, again and again, or for a monitoring system. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT, RepError } from '../base/errors.js';
import type { StatusJson } from '../control/status.js';
import { interruptible } from './base.js';
import { statusText, verdict, type Verdict } from './status-text.js';
import { readStatus, withMount } from './target.js';

const REFRESH_MS = 1000;

export async function showStatus(dir: string | undefined): Promise<{ text: string; document: StatusJson }> {
  const document = await withMount(dir, (mount) => readStatus(mount.dir));
  return { text: statusText(document), document };
}

/** One line and the exit status of a monitoring plug-in; what cannot be asked is "unknown". */
export async function checkStatus(dir: string | undefined): Promise<Verdict> {
  try {
    return verdict((await showStatus(dir)).document);
  } catch (error) {
    if (!(error instanceof RepError) || error.exit === EXIT.USAGE) throw error;
    return { status: 3, line: `UNKNOWN reptool: ${error.message}` };
  }
}

/** Prints the status again every second until Ctrl-C; ends with an error when the group is gone. */
export async function watchStatus(dir: string | undefined, print: (text: string) => void): Promise<void> {
  const terminal = process.stdout.isTTY;
  if (terminal) print('\x1b[2J');
  await interruptible(async (stop) => {
    const gone = new AbortController();
    // Whoever read it (`| head`) has enough; a write error that is only swallowed would let this run for ever.
    process.stdout.on('error', () => gone.abort());
    const signal = AbortSignal.any([stop, gone.signal]);
    while (!signal.aborted) {
      const { text } = await showStatus(dir);
      print(terminal ? redrawn(text) : `${text}\n`);
      await sleep(REFRESH_MS, undefined, { signal }).catch(() => undefined);
    }
  });
}

/** On a terminal: home, each line over the one before, the rest of the screen cleared; nothing flickers. */
function redrawn(text: string): string {
  return `\x1b[H${text.replace(/\n/g, '\x1b[K\n')}\x1b[K\x1b[J`;
}
