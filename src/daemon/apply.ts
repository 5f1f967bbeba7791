/** The applier's thread: what is durable in the log goes to slink 0's images. */
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { ERRNO, RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { LogFile } from '../replog/logfile.js';
import { SH, Shared } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { Applier, type OpenFailure } from '../slink/applier.js';
import { ImageSet, openLocalImages } from '../slink/images.js';
import { checkLocalMarks } from '../slink/local-marks.js';
import { post, runShell, type ApplyStart, type ShellWorkerData, type ToShell } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

runShell<ApplyStart>('reptool-apply', data, shared, (start) => {
  const log = LogFile.open(realIo, start.logPath).follow(shared);
  const local = new LocalImages(start);
  const unopened = local.begin();
  const applier = new Applier(
    {
      window,
      shared,
      clock: realClock,
      images: local.images,
      log,
      reopen: () => local.reopen(),
      events: {
        synced: (place) => post({ t: 'synced', place: { ...place } }),
        localError: (errno, file, during) => post({ t: 'localError', errno, file, during }),
        localHealed: () => post({ t: 'localHealed' }),
      },
    },
    { synced: start.synced, redo: start.redo, ...(unopened === undefined ? {} : { unopened }) },
  );
  if (unopened !== undefined) post({ t: 'localError', ...unopened, during: 'open' });
  return {
    machine: applier,
    bell: shared.bell(SH.BELL_APPLY),
    idle: () => applier.idle,
    // Durable to the tail, all of it on the images and synced there.
    finished: () =>
      shared.load(SH.CLOSING) !== 0 &&
      window.load(W.DURABLE) === window.load(W.TAIL) &&
      (applier.synced.seq | 0) === window.load(W.TAIL),
    take: (message) => local.take(message),
    close: () => {
      applier.close();
      local.images.close();
      log.close();
    },
  };
});

class LocalImages {
  readonly images = new ImageSet(realIo, 'APPLY');
  private readonly start: ApplyStart;

  constructor(start: ApplyStart) {
    this.start = start;
  }

  /** Opens them; throws, or says why not where they may be tried again. */
  begin(): OpenFailure | undefined {
    const { start, images } = this;
    if (start.detach) return this.attempt(() => openLocalImages(images, start.images, start.usedBelow));
    openLocalImages(images, start.images, start.usedBelow);
    return undefined;
  }

  /** Anew, whatever is mounted in their place by now: if they are the ones that were left there. */
  reopen(): OpenFailure | undefined {
    const { start, images } = this;
    images.close();
    return this.attempt(() => {
      const marked = start.images.filter(({ optional }) => !optional).map((spec) => ({ ...spec, local: spec.file }));
      checkLocalMarks(realIo, marked, start.logId, null);
      openLocalImages(images, start.images, start.usedBelow);
    });
  }

  private attempt(open: () => void): OpenFailure | undefined {
    try {
      open();
      return undefined;
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      this.images.close();
      return { errno: ERRNO[error.errno], file: error.message };
    }
  }

  take(message: ToShell): void {
    if (message.t === 'images') this.start.images = message.images;
    if (message.t !== 'image' && message.t !== 'grow') return;
    const { id } = message;
    try {
      if (message.t === 'image') this.images.open(message.spec);
      else this.images.resize(message.nr, message.size);
      post({ t: 'device', id });
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      post({ t: 'device', id, errno: error.errno, message: error.message });
    }
  }
}
