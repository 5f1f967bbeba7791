/** `reptool replog resize`: asks the mounted group, or changes the log of one that is not mounted. */
import { realClock } from '../base/clock.js';
import { realIo } from '../base/io.js';
import { SECTOR, formatSize, parseSize } from '../base/units.js';
import { sendMessage } from '../control/client.js';
import { resizeLogOffline } from '../control/log-offline.js';
import { lockGroup, unlockGroup } from '../control/lock.js';
import { usage } from './base.js';
import { placeOf, type DeviceTarget } from './devices.js';
import { Progress } from './progress.js';
import { readStatus, withMount } from './target.js';

export interface LogSizeTold {
  readonly text: string;
  readonly reply: string;
  /** Bytes that were asked for. */
  readonly size: number;
  /** False where it has to wait: status shows when it is done. */
  readonly done: boolean;
  readonly state?: string;
  readonly mountpoint?: string;
}

/** The new area is written once before the answer comes. */
const RESIZE_MS = 24 * 3_600_000;
const LOOK_MS = 500;

export async function resizeLog(target: DeviceTarget, word: string, quiet: boolean): Promise<LogSizeTold> {
  const size = parseSize(word);
  if (size === undefined) throw usage(`"${word}": not a size; write for example 20G, or 41943040s for sectors`);
  if (size % SECTOR !== 0)
    throw usage(`"${word}": ${size} bytes are no whole number of sectors; use a multiple of ${SECTOR}`);
  const place = placeOf(target);
  const progress = new Progress(`log to ${formatSize(size)}`);
  if (place.offline !== undefined) {
    const state = place.offline;
    const lock = lockGroup(state);
    try {
      const text = resizeLogOffline(realIo, state, size, realClock, (bytes, total) => {
        if (!quiet) progress.bytes(bytes, total);
      });
      return { text, reply: text, size, done: true, state };
    } finally {
      progress.end();
      unlockGroup(lock);
    }
  }
  return withMount(place.mount, async (mount) => {
    let asks = false;
    const look = setInterval(() => {
      if (quiet || asks) return;
      asks = true;
      void show(mount.dir, size, progress).then(() => (asks = false));
    }, LOOK_MS);
    try {
      const reply = await sendMessage(mount.dir, `replog resize ${size / SECTOR}`, RESIZE_MS);
      const { log } = await readStatus(mount.dir);
      const done = log.resize === null;
      // The daemon was replaced meanwhile, and what the one before said is gone.
      const text = reply.text !== '' ? reply.text : sizeText(size, done);
      return { text, reply: reply.text, size, done, mountpoint: mount.dir };
    } finally {
      clearInterval(look);
      progress.end();
    }
  });
}

function sizeText(size: number, done: boolean): string {
  return done
    ? `the log has ${formatSize(size)} now`
    : `the log is to have ${formatSize(size)}; status shows when it has`;
}

async function show(dir: string, size: number, progress: Progress): Promise<void> {
  try {
    const { resize } = (await readStatus(dir)).log;
    const percent = resize?.['done-percent'] ?? null;
    if (percent !== null) progress.bytes((size * percent) / 100, size);
  } catch {
    // The answer to the message says what became of it.
  }
}
