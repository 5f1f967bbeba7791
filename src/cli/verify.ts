/** `reptool site verify`: begins a verify, waits for its end and says what it found; or ends it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { RepError } from '../base/errors.js';
import { sendMessage } from '../control/client.js';
import type { SiteStatus, VerifyStatus } from '../control/status.js';
import { Interrupted, interruptible } from './base.js';
import { Progress } from './progress.js';
import { readStatus, tryStatus, withMount } from './target.js';
import { outcome, rangeLines } from './verify-text.js';

const LOOK_MS = 200;
/** A daemon that is being replaced needs a moment. */
const SILENCE_MS = 15_000;

export interface Verified {
  readonly text: string[];
  /** False where something differs, or it did not come to its end. */
  readonly ok: boolean;
  readonly result: { site: number; mountpoint: string; reply: string; verify: VerifyStatus | null };
}

export interface VerifyWishes {
  readonly background: boolean;
  /** No progress (--json). */
  readonly quiet: boolean;
}

export function verifySite(dir: string | undefined, nr: number, wishes: VerifyWishes): Promise<Verified> {
  return withMount(dir, async (mount) => {
    const { text: reply } = await sendMessage(mount.dir, `site ${nr} verify`);
    const first = verifyOf((await readStatus(mount.dir)).connections, nr);
    const result = { site: nr, mountpoint: mount.dir, reply };
    if (wishes.background) return { text: [reply], ok: true, result: { ...result, verify: first } };
    const verify = await interruptible((stop) => untilEnd(mount.dir, nr, first, wishes.quiet, stop));
    const text = [`site ${nr}: ${outcome(verify)}`, ...rangeLines(verify)];
    return { text, ok: verify.state === 'done' && verify['different-bytes'] === 0, result: { ...result, verify } };
  });
}

export function stopVerify(dir: string | undefined, nr: number): Promise<Verified> {
  return withMount(dir, async (mount) => {
    const { text: reply } = await sendMessage(mount.dir, `site ${nr} verify stop`);
    const verify = verifyOf((await readStatus(mount.dir)).connections, nr);
    return { text: [reply], ok: true, result: { site: nr, mountpoint: mount.dir, reply, verify } };
  });
}

/** The verify that began as `first`, when it has ended; shows how far it is. */
async function untilEnd(
  dir: string,
  nr: number,
  first: VerifyStatus | null,
  quiet: boolean,
  stop: AbortSignal,
): Promise<VerifyStatus> {
  const progress = quiet ? undefined : new Progress(`site ${nr}: verify`);
  const gone = (why: string): RepError =>
    new RepError(
      'EIO',
      `site ${nr}: ${why}, and the verify ended with it; see \`reptool status\`, then begin it again`,
    );
  let heardMs = performance.now();
  try {
    for (let verify = first; ;) {
      if (verify === null || verify.started !== first?.started) throw gone('the daemon was replaced');
      if (verify.ended !== null) return verify;
      if (verify.reason === null) progress?.bytes(verify['bytes-compared'], verify['bytes-total']);
      else progress?.note(`waits: ${verify.reason}`);
      await sleep(LOOK_MS, undefined, { signal: stop }).catch(() => undefined);
      if (stop.aborted) throw interrupted(String(stop.reason), nr);
      const status = await tryStatus(dir);
      if (status !== undefined) {
        heardMs = performance.now();
        if (!status.connections.some((site) => site['peer-node-id'] === nr)) throw gone('the site was removed');
        verify = verifyOf(status.connections, nr);
      } else if (performance.now() - heardMs > SILENCE_MS) throw gone('the group does not answer any more');
    }
  } finally {
    progress?.end();
  }
}

function verifyOf(sites: readonly SiteStatus[], nr: number): VerifyStatus | null {
  return sites.find((site) => site['peer-node-id'] === nr)?.verify ?? null;
}

function interrupted(signal: string, nr: number): Interrupted {
  const next = `\`reptool site verify ${nr} --stop\` ends it, \`reptool status\` shows how far it is`;
  return new Interrupted(signal, `waiting was interrupted, the verify goes on; ${next}`);
}
