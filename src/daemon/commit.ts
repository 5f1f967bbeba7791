/** The committer's thread: window → log file, one sync for all who wait, and their answers. */
import * as fs from 'node:fs';
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { realIo } from '../base/io.js';
import { OUT_HEADER, WRITE_OUT_BYTES, putHeader, putWriteOut } from '../fuse/proto.js';
import { Committer } from '../replog/committer.js';
import { LogFile } from '../replog/logfile.js';
import { SH, Shared } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { post, runShell, type CommitStart, type ShellWorkerData } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.map(data.windowFd, data.windowRing);
const shared = new Shared(data.shared);

const reply = Buffer.alloc(OUT_HEADER + WRITE_OUT_BYTES);
const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);

function answer(lo: number, hi: number, bytes: number, errno: number): void {
  const length = errno === 0 && bytes > 0 ? reply.length : OUT_HEADER;
  putHeader(view, 0, length, -errno, lo, hi);
  if (length > OUT_HEADER) putWriteOut(view, OUT_HEADER, bytes);
  try {
    fs.writeSync(data.fuseFd, reply, 0, length);
  } catch {
    // ENOENT: nobody waits any more, or the request is being sent again and will be answered then.
  }
}

runShell<CommitStart>('reptool-commit', data, shared, (start) => {
  const log = LogFile.open(realIo, start.logPath);
  const committer = new Committer({
    log,
    window,
    shared,
    clock: realClock,
    answer: { answer },
    events: {
      logError: (errno, call) => post({ t: 'logError', errno, call }),
      logHealed: () => post({ t: 'logHealed' }),
      segmentClosed: (segment) =>
        post({ t: 'segment', segment }, [segment.headers.buffer as ArrayBuffer, segment.payloads.buffer as ArrayBuffer]),
    },
  });
  return {
    machine: committer,
    bell: shared.bell(SH.BELL_COMMIT),
    idle: () => committer.idle,
    finished: () => shared.load(SH.CLOSING) !== 0 && window.load(W.DURABLE) === window.load(W.TAIL),
    take: () => undefined,
    close: () => {
      committer.close();
      log.close();
    },
  };
});
