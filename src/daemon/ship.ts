/** A shipper's thread: one per site, since a call to a site may hang for as long as its machine does. */
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { realIo } from '../base/io.js';
import { LogFile } from '../replog/logfile.js';
import { LinkMeter } from '../replog/meters.js';
import { SH, Shared } from '../replog/shared.js';
import { Window } from '../replog/window.js';
import { productTypes } from '../control/types.js';
import { Shipper } from '../slink/shipper.js';
import { makeSite } from './make-site.js';
import { post, ringData, runShell, type ShellWorkerData, type ShipStart } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

runShell<ShipStart>('reptool-ship', data, shared, (start) => {
  const log = LogFile.open(realIo, start.logPath, { readOnly: true });
  const { site, put } = makeSite(productTypes(), start.site, realIo, realClock, start.around);
  const shipper = new Shipper(
    {
      window,
      shared,
      clock: realClock,
      log,
      site,
      meter: new LinkMeter(shared.meters, window, data.link),
      events: {
        cursor: (place) => post({ t: 'cursor', place: { ...place } }),
        state: (state, reason) => post({ t: 'state', state, reason }),
        window: (window) => post({ t: 'window', window }),
      },
    },
    {
      identity: start.identity,
      devices: start.devices,
      cursor: start.cursor,
      fresh: start.fresh,
      place: data.link,
      paused: start.paused,
      rpoMs: start.site.rpoMs,
      bandwidth: start.site.bandwidth,
    },
  );
  return {
    machine: shipper,
    bell: shared.bell(SH.BELL_LINKS + 2 * data.link),
    idle: () => shipper.idle,
    // Beyond its limits: the data thread sees whether that is over, also while nobody writes.
    stepped: () => {
      if ((shared.load(SH.SWITCHES + data.link) & 1) === 1) ringData(data.bellFd);
    },
    // It ends when main says so: main bounds how long a site is waited for.
    finished: () => false,
    take: (message) => {
      if (message.t === 'pause') shipper.pause();
      if (message.t === 'resume') shipper.resume();
      if (message.t === 'retry') shipper.retry();
      if (message.t === 'site') shipper.configure(message.site.rpoMs, message.site.bandwidth);
    },
    close: () => {
      shipper.close();
      put();
      log.close();
    },
  };
});
