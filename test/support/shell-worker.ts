/** A thread's shell around a machine that does nothing but say which message it was given. */
import { workerData } from 'node:worker_threads';
import { post, runShell, type ShellWorkerData } from '../../src/daemon/shell.js';
import { SH, Shared } from '../../src/replog/shared.js';

const data = workerData as ShellWorkerData;
const shared = new Shared(data.shared);
let done = false;

runShell<{ t: 'start' }>('shell-test', data, shared, () => ({
  machine: { step: () => 10 },
  bell: shared.bell(SH.BELL_APPLY),
  idle: () => true,
  finished: () => done,
  take: (message) => {
    post({ t: 'took', what: message.t });
    done = true;
  },
  close: () => undefined,
}));
