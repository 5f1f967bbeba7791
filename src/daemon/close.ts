/**
 * Closing a group that is unmounted, in the order in which nothing is lost: no more requests → everything in
 * the log → images and sites as far as they come in a bounded time (they go on from their place next time) →
 * index and superblock → `closed`.
 */
import { SH } from '../replog/shared.js';
import { W } from '../replog/window.js';
import { RepError, errnoText } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { servedDevices } from '../control/device-plan.js';
import { writeLocalMarks } from '../slink/local-marks.js';
import { tailOf } from './ends.js';
import { noteDetached } from './detached-note.js';
import type { Serving } from './parts.js';
import { log, within } from './workers.js';

const DATA_MS = 1500;
/** Without progress for so long, the images are left to the next mount's replay. */
const APPLY_MS = 30_000;
/** A site gets this long for what it lacks; it goes on from its cursor at the next mount. */
const SITE_MS = 2000;
const LEAVE_MS = 2000;
const LOOK_MS = 5;

export async function closeGroup(group: Serving): Promise<void> {
  const { threads, around, links, checkpointer, opened } = group;
  const { window, shared, channel } = around;
  shared.store(SH.CLOSING, 1);
  // A copy of the mount in another namespace would feed it for ever; whoever unmounted it wants it to end.
  threads.data.wake();
  if (!(await within(DATA_MS, threads.data.ended))) await threads.data.terminate();

  shared.bump(SH.SYNC_ASK);
  for (const bell of [SH.BELL_COMMIT, SH.BELL_APPLY]) shared.bell(bell).ring();
  const tail = tailOf(window);
  await until(() => window.seqOf(W.DURABLE, tail) >= tail || shared.load(SH.LOG_ERROR) !== 0);
  if (window.seqOf(W.DURABLE, tail) < tail) {
    const reason = errnoText(shared.load(SH.LOG_ERROR));
    log(`${opened.config.log.path}: ${tail - window.seqOf(W.DURABLE, tail)} records cannot be written: ${reason}`);
    // The window keeps them; the keeper lets another daemon try.
    process.exit(1);
  }

  let applied = window.seqOf(W.APPLIED, tail);
  let since = performance.now();
  const applierDone = within(24 * 3_600_000, threads.apply.ended);
  let done = false;
  void applierDone.then(() => (done = true));
  await until(() => {
    const now = window.seqOf(W.APPLIED, tail);
    if (now !== applied) since = performance.now();
    applied = now;
    return done || shared.load(SH.LOCAL_ERROR) !== 0 || performance.now() - since > APPLY_MS;
  });
  if (!done)
    log(`the local images lack ${tail - applied} records or their sync; the next mount applies them from the log`);

  const shipping = links.filter((link) => link.stale === '' && !link.paused && link.state !== 'failed');
  for (const link of shipping) link.thread.wake();
  const limit = performance.now() + SITE_MS;
  await until(() => shipping.every((link) => link.cursor.seq >= tail) || performance.now() > limit);
  for (const link of shipping) {
    if (link.cursor.seq < tail)
      log(`site ${link.config.nr} lacks ${tail - link.cursor.seq} records; it gets them after the next mount`);
  }
  const started = links.filter((link) => link.started);
  for (const link of started) link.thread.post({ t: 'stop' });
  const left = await within(LEAVE_MS, Promise.all(started.map((link) => link.thread.ended)));

  let clean = true;
  // ! Marks would say that slink 0 has everything: the note stays, and the next mount tries it and replays.
  const detached = !done && window.load(W.SOURCE) !== 0;
  try {
    if (detached) throw new RepError('EIO', 'slink 0 is detached');
    // Before the superblock says "clean": behind it, the marks must be those of this very close.
    writeLocalMarks(realIo, servedDevices(opened.config), opened.config.id, tail);
    checkpointer.closeClean();
    noteDetached(group.groupDir, undefined);
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    // Everything is in the log; the next mount replays from the last checkpoint.
    clean = false;
    if (detached) {
      checkpointer.ask();
      checkpointer.step();
    }
    log(`not marked as closed cleanly: ${error.message}`);
  }
  await opened.index.close();
  opened.log.close();
  log(`closed${clean ? '' : ' (unclean)'} at seq ${tail - 1}`);
  await channel.send({ type: 'closed' });
  // exit waits for every thread, and one that hangs in a call to its site would hold it for as long.
  if (!left) process.kill(process.pid, 'SIGKILL');
  process.exit(0);
}

function until(done: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (done()) resolve();
      else setTimeout(look, LOOK_MS);
    };
    look();
  });
}
