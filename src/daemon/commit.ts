/** The committer's thread: window → log file, one sync for all who wait, and their answers. */
import * as fs from 'node:fs';
import { workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.js';
import { realIo } from '../base/io.js';
import { OUT_HEADER, WRITE_OUT_BYTES, putHeader, putWriteOut } from '../fuse/proto.js';
import { Committer } from '../replog/committer.js';
import { LogFile } from '../replog/logfile.js';
import { MAX_LINK_THREADS, SH, Shared, lowestBit, type Bell } from '../replog/shared.js';
import { W, Window } from '../replog/window.js';
import { post, runShell, type CommitStart, type ShellWorkerData } from './shell.js';

const data = workerData as ShellWorkerData;
const window = Window.attach(data.windowAt, data.windowRing);
const shared = new Shared(data.shared);

const reply = Buffer.alloc(OUT_HEADER + WRITE_OUT_BYTES);
const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);

/** Answers of this step for fuse-native: unique low, bytes, errno; posted together. */
const posted: number[] = [];

function postAnswers(): void {
  if (posted.length > 0) data.answers!.postMessage(Int32Array.from(posted.splice(0)));
}

function answer(lo: number, hi: number, bytes: number, errno: number): void {
  if (data.answers !== undefined) {
    posted.push(lo, bytes, errno);
    return;
  }
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
  const log = LogFile.open(realIo, start.logPath).follow(shared);
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
        post({ t: 'segment', segment }, [
          segment.headers.buffer as ArrayBuffer,
          segment.payloads.buffer as ArrayBuffer,
        ]),
    },
  });
  const news = new News(committer);
  let told = false;
  return {
    machine: committer,
    stepped: () => {
      postAnswers();
      news.stepped();
      if (committer.held === told) return;
      told = committer.held;
      if (told) post({ t: 'held', pos: committer.position });
    },
    rest: (ms) => news.rest(ms),
    bell: shared.bell(SH.BELL_COMMIT),
    idle: () => committer.idle,
    finished: () => shared.load(SH.CLOSING) !== 0 && window.load(W.DURABLE) === window.load(W.TAIL),
    take: (message) => {
      if (message.t === 'hold') {
        committer.hold();
        told = false;
      }
      if (message.t === 'release') committer.release();
      if (message.t === 'suspend') committer.suspend(message.errno);
    },
    close: () => {
      committer.close();
      log.close();
    },
  };
});

/** Durable records and payload that are worth waking applier and shippers for at once. */
const RING_RECORDS = 256;
const RING_BYTES = 512 * 1024;
/** Fewer of them wait for company as long as the committer is kept busy, and so long when it is not. */
const RING_MS = 2;

/** Tells applier and shippers what is durable: lazily, since waking three threads costs more than a small write. */
class News {
  private readonly committer: Committer;
  private readonly applier = shared.bell(SH.BELL_APPLY);
  private readonly links: readonly Bell[];
  private told: number;
  private toldPos: number;
  private rested = -1;
  /** Up to where the links that somebody waits for were told. */
  private hurried = -1;

  constructor(committer: Committer) {
    this.committer = committer;
    this.told = committer.durable;
    this.toldPos = this.payloadPos();
    this.links = Array.from({ length: MAX_LINK_THREADS }, (_, i) => shared.bell(SH.BELL_LINKS + 2 * i));
  }

  stepped(): void {
    const { durable } = this.committer;
    if (durable === this.told) return;
    const { awaitedLo, awaitedHi } = this.committer;
    if ((awaitedLo | awaitedHi) !== 0 && durable !== this.hurried) {
      this.hurried = durable;
      for (let bits = awaitedLo; bits !== 0; bits &= bits - 1) this.links[lowestBit(bits)]!.ring();
      for (let bits = awaitedHi; bits !== 0; bits &= bits - 1) this.links[32 + lowestBit(bits)]!.ring();
    }
    const many = durable - this.told >= RING_RECORDS || this.payloadPos() - this.toldPos >= RING_BYTES;
    if (many || shared.load(SH.DATA_WAITS) !== 0 || shared.load(SH.CLOSING) !== 0) this.ring();
  }

  rest(ms: number): number {
    const { durable } = this.committer;
    if (durable === this.told) return ms;
    if (durable === this.rested) {
      this.ring();
      return ms;
    }
    this.rested = durable;
    return Math.min(ms, RING_MS);
  }

  private payloadPos(): number {
    return window.payloadEnd(window.slotAt(this.committer.durable - 1));
  }

  private ring(): void {
    this.told = this.committer.durable;
    this.toldPos = this.payloadPos();
    this.applier.ring();
    const places = shared.load(SH.PLACES);
    for (let place = 0; place < places; place++) this.links[place]!.ring();
  }
}
