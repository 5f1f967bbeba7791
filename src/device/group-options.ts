/** What the devices of a group are made with, and the words of FALLOCATE. */
import type { Clock } from '../base/clock.js';
import type { RecordType } from '../replog/format.js';
import type { Bell, Shared } from '../replog/shared.js';
import type { LogSpace } from '../replog/space.js';
import type { Window } from '../replog/window.js';
import type { Parking } from './parking.js';
import type { DeviceReader } from './reader.js';
import type { Reply } from './reply.js';

/** FALLOCATE modes: 1 keep size, 2 punch hole, 16 zero range. */
export const KEEP = 1;
export const PUNCH = 2;
export const ZERO = 16;

export interface GroupOptions {
  window: Window;
  shared: Shared;
  space: LogSpace;
  clock: Clock;
  reply: Reply;
  reader: DeviceReader;
  /** Bell of the committer. */
  committer: Bell;
  /** Largest WRITE that the transport was told to send. */
  maxWrite: number;
  /** Every write is answered when it is durable (`durability=write`). */
  durableWrites: boolean;
  /** Asks the kernel to send unanswered requests again; undefined where it cannot. */
  resend: (() => void) | undefined;
  /** Requests that are not a device's. */
  other: (request: Uint8Array) => void;
  /** The log has no room for the next write (once per jam). */
  logFull: () => void;
  parking: Parking;
  /** Reads that slink 0's images fail wait for another source (`--on-local-error detach`). */
  detach?: boolean;
  /** A request waits for images: the source gave this errno (positive), or is gone (0). */
  starved?: (errno: number) => void;
  /** Test knob: the process kills itself between publishing and answering every n-th write. */
  dieEvery?: number;
}

/** A record without a request, to be appended. */
export interface PendingControl {
  type: RecordType;
  device: number;
  payload: Uint8Array;
  reign: number | undefined;
  done: (seq: number, timeUs: number) => void;
}
