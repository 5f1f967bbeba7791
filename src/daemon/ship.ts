/** A shipper's thread: one per site, since a call to a site may hang for as long as its machine does. */
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { LogFile } from '../replog/logfile.js';
import { LinkMeter } from '../replog/meters.js';
import { SH, Shared } from '../replog/shared.js';
import { Window } from '../replog/window.js';
import { DEFAULT_RPO_MS, hasLimit, type SiteConfig } from '../control/config.js';
import { daemonTypes } from '../control/plugins.js';
import { strangeLocalImage } from '../slink/local-marks.js';
import { LocalSource } from '../slink/local-source.js';
import { Resync } from '../slink/resync.js';
import { Shipper, type ShipperOptions } from '../slink/shipper.js';
import type { ThrottleOptions } from '../slink/throttle.js';
import { SLINK } from '../slink/types.js';
import { tidyHeap } from './heap.js';
import { NbdThread } from './nbd-thread.js';
import { makeSite } from './make-site.js';
import { post, ringData, runShell, type ShellWorkerData, type ShipStart } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

/** Least time between two collections: the heap of a thread that steps grows slowly. */
const TIDY_MS = 600_000;
let tidiedAt = -Infinity;

function tidyNowAndThen(): void {
  if (performance.now() - tidiedAt < TIDY_MS) return;
  tidyHeap();
  tidiedAt = performance.now();
}

/** Why a plug-in is not there. */
let failure = '';
// Before anybody listens to messages: those that come meanwhile wait in the port.
const types = await daemonTypes(data.plugins, (what) => (failure = what));

runShell<ShipStart>('reptool-ship', data, shared, (start) => {
  if (failure !== '' && types.peek(SLINK, start.site.type) === undefined) throw new RepError('ENOENT', failure);
  const log = LogFile.open(realIo, start.logPath, { readOnly: true }).follow(shared);
  const { site, put } = makeSite(types, start.site, realIo, realClock, {
    ...start.around,
    nbd: (where) => new NbdThread(where),
  });
  const locals = (): LocalSource =>
    new LocalSource(realIo, window, shared, ({ nr, path }) =>
      strangeLocalImage(realIo, nr, path, start.identity.logId),
    );
  const resync = new Resync(
    {
      window,
      shared,
      clock: realClock,
      site,
      local: locals(),
      events: {
        copied: (report) => post({ t: 'copied', ...report }),
        inSync: (report) => post({ t: 'insync', ...report }),
        lost: (epoch) => post({ t: 'lost', epoch }),
        progress: (progress) => post({ t: 'progress', ...progress }),
      },
    },
    throttleOf(start.site),
  );
  const shipper = new Shipper(
    {
      resync,
      window,
      shared,
      clock: realClock,
      log,
      site,
      meter: new LinkMeter(shared.meters, window, data.link),
      events: {
        cursor: (place) => post({ t: 'cursor', place: { ...place }, epoch: resync.epoch }),
        state: (state, reason) => post({ t: 'state', state, reason }),
        window: (window) => post({ t: 'window', window }),
        rests: tidyNowAndThen,
        verify: (id, report) => post({ t: 'verify', id, report }),
      },
      locals,
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
      ...deferralOf(start.site),
      ...(start.resync === undefined ? {} : { resync: start.resync }),
    },
  );
  let { site: settings } = start;
  shipper.verifier.configure(throttleOf(settings));
  return {
    machine: shipper,
    bell: shared.bell(SH.BELL_LINKS + 2 * data.link),
    idle: () => shipper.idle,
    // Beyond its limits: the data thread sees whether that is over, also while nobody writes.
    stepped: () => {
      if ((shared.load(SH.SWITCHES + data.link) & 1) === 1) ringData(data.bellFd);
    },
    dozes: () => shipper.dozes,
    heeds: () => shipper.heeds,
    longest: () => (mayHold(settings) ? HOLDER_SLEEP_MS : OTHERS_SLEEP_MS),
    // It ends when main says so: main bounds how long a site is waited for.
    finished: () => false,
    take: (message) => {
      if (message.t === 'pause') shipper.pause();
      if (message.t === 'resume') shipper.resume();
      if (message.t === 'retry') shipper.retry();
      if (message.t === 'readers') post({ t: 'readers', found: shipper.readers() });
      if (message.t === 'readersGone') shipper.readersGone();
      if (message.t === 'resync') shipper.resync(message.order);
      if (message.t === 'whole') shipper.whole(message.epoch, message.wholeAt);
      if (message.t === 'verify') shipper.verifier.begin(message);
      if (message.t === 'verifyStop') shipper.verifier.end('stopped', 'by an operator');
      if (message.t === 'site') {
        settings = message.site;
        const { rpoMs, bandwidth } = settings;
        shipper.configure(rpoMs, bandwidth, deferralOf(settings).defer);
        resync.configure(throttleOf(settings));
        shipper.verifier.configure(throttleOf(settings));
      }
    },
    close: () => {
      shipper.close();
      put();
      log.close();
    },
  };
});

/** Part of the log's ring in use from which on nothing is put off. */
const DEFER_SHARE = 0.5;

/** Longest sleeps of a site that writers may wait for, and of all others. */
const HOLDER_SLEEP_MS = 1000;
const OTHERS_SLEEP_MS = 5000;

function mayHold(site: SiteConfig): boolean {
  return site.policy === 'sync' || site.stall || hasLimit(site.fallBehind);
}

function throttleOf({ resyncRate, resyncLatencyMs }: SiteConfig): ThrottleOptions {
  return { rate: resyncRate, latencyMs: resyncLatencyMs };
}

/** Whoever asked for a short lag, or for a bound on it, gets it under load too. */
function deferralOf(site: SiteConfig): Pick<ShipperOptions, 'defer'> {
  const bound = mayHold(site) || site.rpoMs < DEFAULT_RPO_MS;
  return bound || site.bandwidth > 0 ? {} : { defer: { ms: site.deferMs, share: DEFER_SHARE } };
}
