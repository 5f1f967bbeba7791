/** Messages between the daemon's threads, and what each is born with. Everything else they share is memory. */
import type { RecordType } from '../replog/format.js';

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
  logRing: number;
  logSegment: number;
}

export interface DataAppend {
  t: 'append';
  id: number;
  type: RecordType;
  device: number;
  payload: Uint8Array;
}

export type ToData = DataStart | DataAppend;

export type FromData =
  | { t: 'up' }
  | { t: 'serving' }
  | { t: 'req'; bytes: Uint8Array }
  | { t: 'logfull' }
  | { t: 'appended'; id: number; seq: number; timeUs: number }
  | { t: 'reign'; reign: number; seq: number; timeUs: number }
  | { t: 'end'; errno: number };
