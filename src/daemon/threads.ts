/** Messages between the daemon's threads, and what each is born with. Everything else they share is memory. */
import type { MessagePort } from 'node:worker_threads';
import type { ErrnoName } from '../base/errors.js';
import type { SourceOffer } from '../device/source.js';
import type { RecordType } from '../replog/format.js';
import type { SiteReader } from '../slink/contract.js';

export interface WorkerBase {
  /** Buffer of replog/shared Shared. */
  shared: SharedArrayBuffer;
  /** Where main has mapped the window: one mapping for all threads. */
  windowAt: number;
  windowRing: number;
}

export interface DataWorkerData extends WorkerBase {
  fuseFd: number;
  /** eventfd: write 8 bytes (a count) to make the data thread look around. */
  bellFd: number;
  /** Largest WRITE that was negotiated. */
  maxWrite: number;
}

export interface DataStart {
  t: 'start';
  devices: { nr: number; size: number; local: string }[];
  durability: 'flush' | 'write';
  reign: number;
  /** 32 hexadecimal digits: a reign begins with this daemon. */
  newReign?: string;
  resend: boolean;
  /** Images that fail make requests wait for those of a site, and need not be there at the start. */
  detach: boolean;
  logSegment: number;
}

export interface DataAppend {
  t: 'append';
  id: number;
  type: RecordType;
  device: number;
  payload: Uint8Array;
}

export type DataDevice = DataStart['devices'][number];

export type ToData = DataStart | ToDevices;

/** To whoever has the devices, once they are served. */
export type ToDevices =
  | DataAppend
  /** A device is opened; answered by `device`. It takes writes at once, and nobody knows it before it is shown. */
  | { t: 'open'; id: number; device: DataDevice }
  | { t: 'resize'; nr: number; size: number }
  /** Of a device that was removed; one that was not is removed. */
  | { t: 'close'; nr: number }
  /**
   * Reads come from these images from now on, if they hold enough; answered by `source`. `images`: open already, and
   * the reader's from then on; `local`: to be opened.
   */
  | { t: 'source'; offer: SourceOffer; images?: SiteReader[]; local?: DataDevice[] }
  /** Nobody is expected whose images could be read. */
  | { t: 'giveUp' };

/** To the devices of the fuse-native transport, which have no kernel to be answered through. */
export type ToNative =
  | ToData
  | { t: 'born'; data: DataWorkerData; answers: MessagePort }
  | { t: 'answer'; bytes: Uint8Array }
  | { t: 'stop' };

/** What main is born with where it is a thread: the way to the devices. */
export interface NativeWorkerData {
  native: MessagePort;
}

export type FromData =
  | { t: 'up' }
  /** `connection`: where the kernel is told what it is to forget, unless main has that itself. */
  | { t: 'serving'; connection?: number }
  /** It could not begin: the thing, the reason, the next step. */
  | { t: 'failed'; errno: ErrnoName; message: string }
  | { t: 'req'; bytes: Uint8Array }
  | { t: 'logfull' }
  | { t: 'appended'; id: number; seq: number; timeUs: number }
  | { t: 'device'; id: number; errno?: string; message?: string }
  | { t: 'source'; nr: number; taken: boolean; why: string }
  /** Requests wait for images; the present ones gave this errno (positive), or are gone (0). */
  | { t: 'starved'; errno: number }
  | { t: 'reign'; reign: number; seq: number; timeUs: number }
  | { t: 'end'; errno: number };
