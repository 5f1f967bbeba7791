/**
 * Errors. Inside, hot functions return a negative errno; everything else throws `RepError` with a named
 * code. The errno for an application and the exit status for a shell are derived here, at the edge.
 *
 * Every message says three things: the thing, the reason, the next step.
 */

/** Linux errno values that this program returns or expects. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  EBADE: 52,
  ENODATA: 61,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EUCLEAN: 117,
} as const;

export type ErrnoName = keyof typeof ERRNO;

const NAME_OF = new Map<number, ErrnoName>(Object.entries(ERRNO).map(([name, n]) => [n, name as ErrnoName]));

const SENTENCE: Partial<Record<ErrnoName, string>> = {
  EPERM: 'not permitted',
  ENOENT: 'it does not exist',
  EIO: 'input/output error',
  EACCES: 'permission denied',
  EBUSY: 'it is in use',
  EEXIST: 'it exists already',
  ENOTDIR: 'it is not a folder',
  EISDIR: 'it is a folder',
  EINVAL: 'the kernel refuses it as invalid',
  ENOSPC: 'no space left on the device',
  EROFS: 'it is read-only',
  ENODEV: 'no such device',
  ENXIO: 'no such device or foreign format',
  EOPNOTSUPP: 'the file system does not support it',
  ETIMEDOUT: 'timed out',
  ECONNRESET: 'the other side ended the connection',
  ECONNREFUSED: 'nobody listens there',
  EHOSTUNREACH: 'no way leads there',
  EUCLEAN: 'it is damaged',
};

/** `EIO` for 5 or -5; `errno 99` for what has no name here. */
export function errnoName(errno: number): string {
  const n = Math.abs(errno);
  return NAME_OF.get(n) ?? `errno ${n}`;
}

/** A short reason in words for an errno, with its name: `no space left on the device (ENOSPC)`. */
export function errnoText(errno: number): string {
  const name = errnoName(errno);
  const words = SENTENCE[name as ErrnoName];
  return words === undefined ? name : `${words} (${name})`;
}

/** Exit status of the command line. */
export const EXIT = { OK: 0, FAILED: 1, USAGE: 2, UNREACHABLE: 3 } as const;

/** An expected failure with a name, a sentence for the human and an errno for the application. */
export class RepError extends Error {
  readonly errno: ErrnoName;
  /** Exit status for a command that ends with this error. */
  readonly exit: number;

  constructor(errno: ErrnoName, message: string, options: { cause?: unknown; exit?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'RepError';
    this.errno = errno;
    this.exit = options.exit ?? EXIT.FAILED;
  }

  /** Negative errno as it goes into a FUSE reply. */
  get code(): number {
    return -ERRNO[this.errno];
  }
}

/** A broken invariant: always a defect of this program, never caused by input. */
export class Defect extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'Defect';
  }
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Defect(message);
}

/** Turns the negative errno `rc` of the named call on `thing` into an error; returns `rc` where it is fine. */
export function check(rc: number, call: string, thing: string): number {
  if (rc >= 0) return rc;
  throw ioError(rc, call, thing);
}

export function ioError(rc: number, call: string, thing: string): RepError {
  const name = errnoName(rc);
  const errno = (name in ERRNO ? name : 'EIO') as ErrnoName;
  return new RepError(errno, `${thing}: ${call} failed: ${errnoText(rc)}`);
}
