/** The applier's thread: what is durable in the log goes to slink 0's images. */
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { realIo } from '../base/io.js';
import { LogFile } from '../replog/logfile.js';
import { SH, Shared } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { Applier } from '../slink/applier.js';
import { ImageSet } from '../slink/images.js';
import { post, runShell, type ApplyStart, type ShellWorkerData } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

runShell<ApplyStart>('reptool-apply', data, shared, (start) => {
  const log = LogFile.open(realIo, start.logPath);
  const images = new ImageSet(realIo, 'APPLY');
  for (const image of start.images) images.open(image);
  const applier = new Applier(
    {
      window,
      shared,
      clock: realClock,
      images,
      log,
      events: {
        synced: (place) => post({ t: 'synced', place: { ...place } }),
        localError: (errno, file, during) => post({ t: 'localError', errno, file, during }),
        localHealed: () => post({ t: 'localHealed' }),
      },
    },
    { synced: start.synced, redo: start.redo },
  );
  return {
    machine: applier,
    bell: shared.bell(SH.BELL_APPLY),
    idle: () => applier.idle,
    // Durable to the tail, all of it on the images and synced there.
    finished: () =>
      shared.load(SH.CLOSING) !== 0 &&
      window.load(W.DURABLE) === window.load(W.TAIL) &&
      (applier.synced.seq | 0) === window.load(W.TAIL),
    take: () => undefined,
    close: () => {
      applier.close();
      images.close();
      log.close();
    },
  };
});
