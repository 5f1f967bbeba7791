/**
 * The first exchange on a fresh /dev/fuse. The keeper answers INIT itself, so that a restarted daemon finds
 * the connection ready and learns what was agreed from its environment.
 *
 * reply (80 bytes with its header):
 *
 *   16  4  major                28  4  flags                 40  4  time_gran (ns)
 *   20  4  minor                32  2  max_background        44  2  max_pages
 *   24  4  max_readahead        34  2  congestion_threshold  46  2  map_alignment
 *                               36  4  max_write             48  4  flags2, 52…79 zero
 */
import { ERRNO, RepError, check } from '../base/errors.js';
import { KIB, MIB } from '../base/units.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import {
  FUSE,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_OLDEST_MINOR_VERSION,
  INIT_FLAG,
  INIT_FLAG2,
  INIT_FLAGS,
  INIT_FLAGS2,
  INIT_MAJOR,
  INIT_MAX_READAHEAD,
  INIT_MINOR,
  IN_LEN,
  IN_OPCODE,
  IN_UNIQUE,
  OUT_HEADER,
  putHeader,
} from './proto.js';

/** What kernel and program agreed on; goes to every daemon in its environment. */
export interface Negotiated {
  minor: number;
  flags: number;
  flags2: number;
  maxWrite: number;
  /** The kernel can send unanswered requests once more: a killed daemon loses nothing. */
  resend: boolean;
}

/** More pages per request brought nothing (measured), and the kernel bounds them by fs.fuse.max_pages_limit. */
export const MAX_MAX_WRITE = MIB;

const PAGE = 4 * KIB;
/** Measured on two cores: deeper queues only make requests wait here instead of in the caller. */
const MAX_BACKGROUND = 64;
const CONGESTION_THRESHOLD = 48;

/**
 * Wanted, each with its reason: ASYNC_DIO, or direct libaio writes are serialised; PARALLEL_DIROPS, or a
 * lookup waits for the one before it. Not wanted: ATOMIC_O_TRUNC (truncation is refused by SETATTR, in one
 * place), WRITEBACK_CACHE (an acknowledged write must be ours, not the page cache's).
 */
const WANT =
  INIT_FLAG.ASYNC_READ |
  INIT_FLAG.BIG_WRITES |
  INIT_FLAG.ASYNC_DIO |
  INIT_FLAG.PARALLEL_DIROPS |
  INIT_FLAG.MAX_PAGES |
  INIT_FLAG.INIT_EXT;
const WANT2 = INIT_FLAG2.HAS_RESEND | INIT_FLAG2.DIRECT_IO_ALLOW_MMAP;

/** A request is INIT's header and body; from kernels to come perhaps more. */
const REQUEST_SPACE = 64 * KIB;
const REPLY_BYTES = OUT_HEADER + 64;

export interface InitOptions {
  maxWrite: number;
  /** Behave as on a kernel before 6.9. Tests set it through REPTOOL_TEST_NO_RESEND=1. */
  withoutResend?: boolean;
}

/**
 * Writes the reply to the INIT request at `at` of `request` into `reply` and says what was agreed.
 * `undefined` = the kernel speaks a newer major version: send the reply, it asks again with ours.
 */
export function answerInit(
  request: DataView,
  at: number,
  reply: DataView,
  options: InitOptions,
): Negotiated | undefined {
  if (request.getUint32(at + IN_OPCODE, true) !== FUSE.INIT)
    throw new RepError('EPROTO', '/dev/fuse: the first request is not INIT; the descriptor was used before');
  const major = request.getUint32(at + INIT_MAJOR, true);
  const theirMinor = request.getUint32(at + INIT_MINOR, true);
  if (major < FUSE_KERNEL_VERSION || (major === FUSE_KERNEL_VERSION && theirMinor < FUSE_OLDEST_MINOR_VERSION))
    throw new RepError(
      'EPROTO',
      `/dev/fuse: the kernel speaks FUSE ${major}.${theirMinor}, needed is ` +
        `${FUSE_KERNEL_VERSION}.${FUSE_OLDEST_MINOR_VERSION} or later; use Linux 4.20 or later`,
    );

  for (let i = 0; i < REPLY_BYTES; i += 4) reply.setUint32(i, 0, true);
  const uniqueLo = request.getUint32(at + IN_UNIQUE, true);
  const uniqueHi = request.getUint32(at + IN_UNIQUE + 4, true);
  putHeader(reply, 0, REPLY_BYTES, 0, uniqueLo, uniqueHi);
  reply.setUint32(16, FUSE_KERNEL_VERSION, true);
  reply.setUint32(20, FUSE_KERNEL_MINOR_VERSION, true);
  if (major > FUSE_KERNEL_VERSION) return undefined;

  const minor = Math.min(theirMinor, FUSE_KERNEL_MINOR_VERSION);
  const flags = (WANT & request.getUint32(at + INIT_FLAGS, true)) >>> 0;
  // An old kernel sends no flags2, and what stands there then is not ours to read.
  const extended = (flags & INIT_FLAG.INIT_EXT) !== 0 && request.getUint32(at + IN_LEN, true) >= INIT_FLAGS2 + 4;
  let flags2 = extended ? (WANT2 & request.getUint32(at + INIT_FLAGS2, true)) >>> 0 : 0;
  if (options.withoutResend === true) flags2 &= ~INIT_FLAG2.HAS_RESEND;
  const maxWrite = Math.max(PAGE, Math.min(options.maxWrite, MAX_MAX_WRITE));

  reply.setUint32(20, minor, true);
  reply.setUint32(24, request.getUint32(at + INIT_MAX_READAHEAD, true), true);
  reply.setUint32(28, flags, true);
  reply.setUint16(32, MAX_BACKGROUND, true);
  reply.setUint16(34, CONGESTION_THRESHOLD, true);
  reply.setUint32(36, maxWrite, true);
  reply.setUint32(40, 1, true);
  reply.setUint16(44, Math.ceil(maxWrite / PAGE), true);
  reply.setUint32(48, flags2, true);
  return { minor, flags, flags2, maxWrite, resend: (flags2 & INIT_FLAG2.HAS_RESEND) !== 0 };
}

/**
 * Waits for INIT on a freshly mounted descriptor (it is queued by mount(2), so that it is there at once)
 * and answers it.
 */
export function handshake(fd: number, options: InitOptions, waitMs = 10_000): Negotiated {
  const mem = Mem.anon(REQUEST_SPACE + 4 * KIB);
  const replyAt = REQUEST_SPACE;
  const reply = new DataView(mem.ab, replyAt, 4 * KIB);
  try {
    for (;;) {
      if (!sys.readable(fd, waitMs))
        throw new RepError('ETIMEDOUT', `/dev/fuse: the kernel sent no INIT within ${waitMs} ms; try to mount again`);
      const n = sys.read(fd, mem.addr, REQUEST_SPACE);
      if (n === -ERRNO.EINTR || n === -ERRNO.EAGAIN) continue;
      check(n, 'reading INIT', '/dev/fuse');
      const agreed = answerInit(mem.dv, 0, reply, options);
      check(sys.write(fd, mem.addr + replyAt, REPLY_BYTES), 'answering INIT', '/dev/fuse');
      if (agreed !== undefined) return agreed;
    }
  } finally {
    mem.unmap();
  }
}
