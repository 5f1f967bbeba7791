/**
 * The helper's thread: what may wait long for a file system or for the kernel, so that no thread that serves has
 * to. It may even wait for this very daemon (a path through its own mount, a name in its own tree).
 */
import * as fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { MIB } from '../base/units.js';
import { growLocal, lookAtPlace, makeImage, undoImage, type Before, type ImageJob } from '../control/device-image.js';
import type { PlacesInUse } from '../control/device-plan.js';
import { ROOT_NODE } from '../control/nodes.js';
import { putInvalEntry } from '../fuse/proto.js';
import { LogWork, type LogJob } from '../replog/logwork.js';

export interface HelperWorkerData {
  fuseFd: number;
}

export type HelperJob =
  | { do: 'look'; job: ImageJob; taken: PlacesInUse }
  | { do: 'make'; job: ImageJob }
  | { do: 'undo'; job: ImageJob; before: Before }
  | { do: 'grow'; job: ImageJob; to: number }
  /** Of the log's file; tells its progress. */
  | { do: 'log'; job: LogJob }
  /** The kernel forgets a name of the root folder. It takes the folder's lock, which a lookup may hold meanwhile. */
  | { do: 'forget'; name: string };

export type ToHelper = HelperJob & { id: number };

export type FromHelper =
  | { t: 'up' }
  | { t: 'progress'; bytes: number; total: number }
  | { t: 'done'; id: number; before?: Before }
  | { t: 'failed'; id: number; errno: string; message: string };

/** Written between two messages that say how far it is. */
const PROGRESS_BYTES = 32 * MIB;

const { fuseFd } = workerData as HelperWorkerData;

function carryOut(job: HelperJob): { before?: Before } {
  switch (job.do) {
    case 'look':
      return { before: lookAtPlace(realIo, job.job, job.taken) };
    case 'make':
      makeImage(realIo, job.job);
      return {};
    case 'undo':
      undoImage(realIo, job.job, job.before);
      return {};
    case 'grow':
      growLocal(realIo, job.job, job.to);
      return {};
    case 'log': {
      const work = new LogWork(realIo, job.job);
      for (let told = 0; !work.done; work.step()) {
        if (work.bytes - told < PROGRESS_BYTES) continue;
        told = work.bytes;
        parentPort!.postMessage({ t: 'progress', bytes: told, total: work.total });
      }
      return {};
    }
    case 'forget': {
      const name = Buffer.from(job.name);
      const bytes = new Uint8Array(64 + name.length);
      const length = putInvalEntry(new DataView(bytes.buffer), bytes, 0, ROOT_NODE, name);
      try {
        fs.writeSync(fuseFd, bytes, 0, length);
      } catch {
        // ENOENT: the kernel does not know the name. ENODEV: unmounted.
      }
      return {};
    }
  }
}

parentPort!.on('message', (message: ToHelper) => {
  const { id } = message;
  try {
    parentPort!.postMessage({ t: 'done', id, ...carryOut(message) });
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    parentPort!.postMessage({ t: 'failed', id, errno: error.errno, message: error.message });
  }
});
parentPort!.postMessage({ t: 'up' });
