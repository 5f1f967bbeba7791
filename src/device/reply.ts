import type { Mem } from '../base/mem.js';

/** How a transport answers; the device code does not know which one it serves. Uniques are two 32-bit halves. */
export interface Reply {
  /** A write of `bytes` is accepted. */
  wrote(uniqueLo: number, uniqueHi: number, bytes: number): void;
  /** A bare answer: 0 or a negative errno. */
  status(uniqueLo: number, uniqueHi: number, rc: number): void;
  /** Data from one range of memory. */
  data(uniqueLo: number, uniqueHi: number, mem: Mem, off: number, len: number): void;
  /** A file position. */
  position(uniqueLo: number, uniqueHi: number, offset: number): void;
}
