/** The applier's thread: what is durable in the log goes to slink 0's images. */
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { LogFile } from '../replog/logfile.js';
import { SH, Shared } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { Applier } from '../slink/applier.js';
import { ImageSet, openLocalImages } from '../slink/images.js';
import { post, runShell, type ApplyStart, type ShellWorkerData, type ToShell } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

runShell<ApplyStart>('reptool-apply', data, shared, (start) => {
  const log = LogFile.open(realIo, start.logPath);
  const images = new ImageSet(realIo, 'APPLY');
  openLocalImages(images, start.images, start.usedBelow);
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
    take: (message) => take(images, message),
    close: () => {
      applier.close();
      images.close();
      log.close();
    },
  };
});

function take(images: ImageSet, message: ToShell): void {
  if (message.t !== 'image' && message.t !== 'grow') return;
  const { id } = message;
  try {
    if (message.t === 'image') images.open(message.spec);
    else images.resize(message.nr, message.size);
    post({ t: 'device', id });
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    post({ t: 'device', id, errno: error.errno, message: error.message });
  }
}
