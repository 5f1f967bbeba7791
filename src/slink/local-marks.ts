/**
 * How a group recognises its local images, so that one that was exchanged or rolled back while nobody looked is
 * not served and written to: an extended attribute `user.reptool.local` on each,
 *
 *   {"log":"<32 hex digits>","device":<nr>,"seq":<next seq at the last clean close>|null}
 *
 * `seq` is null while the group is open. Order: at a clean close the marks are durable before the superblock says
 * "clean", and when the group is opened they are null before the first write. So behind a clean superblock the
 * mark must name exactly its seq; behind an unclean one only whose image it is can be told.
 *
 * File systems without attributes, and device nodes, have no marks; there nothing is noticed.
 */
import { ERRNO, RepError, ioError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import * as sys from '../base/sys.js';

const NAME = 'reptool.local';

export interface LocalImage {
  nr: number;
  name: string;
  local: string;
}

interface Mark {
  log: string;
  device: number;
  seq: number | null;
}

/**
 * Throws EINVAL where an image is not the one that this log left there. `seq`: where a clean close left it; null = it
 * was never closed since it was opened, undefined = that is not known.
 */
export function checkLocalMarks(
  io: Io,
  images: readonly LocalImage[],
  logId: string,
  seq: number | null | undefined,
): void {
  for (const image of images) {
    const mark = readMark(io, image.local);
    if (mark === 'unsupported') continue;
    const wrong = judge(mark, image, logId, seq);
    if (wrong !== '')
      throw new RepError(
        'EINVAL',
        `${image.local}: the local image of ${image.name} ${wrong}; put the right one back (what is lost can be taken from a site's image)`,
      );
  }
}

/** Why what stands at `path` is not the local image of device `nr`, as far as its mark says; '' where it is. */
export function strangeLocalImage(io: Io, nr: number, path: string, logId: string): string {
  try {
    checkLocalMarks(io, [{ nr, name: `device ${nr}`, local: path }], logId, undefined);
    return '';
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    return error.message;
  }
}

function judge(mark: Mark | undefined, image: LocalImage, logId: string, seq: number | null | undefined): string {
  if (mark === undefined) return 'was exchanged for another file: it does not carry the mark of this group';
  if (mark.log !== logId) return `belongs to another group (log ${mark.log})`;
  if (mark.device !== image.nr) return `is that of device ${mark.device}`;
  if (seq === null && mark.seq !== null)
    return `is of another time: it was closed at record ${mark.seq - 1}, and this group has been open since`;
  if (seq !== undefined && seq !== null && mark.seq !== seq)
    return `is of another time: it was left at record ${mark.seq === null ? 'unknown (a copy of a group in use)' : mark.seq - 1}, the log at ${seq - 1}`;
  return '';
}

/** Marks the images durably; `seq` null while the group is open. */
export function writeLocalMarks(io: Io, images: readonly LocalImage[], logId: string, seq: number | null): void {
  for (const image of images) {
    const fd = io.open('APPLY:OPEN', image.local, sys.O_RDWR);
    if (fd < 0) throw ioError(fd, 'opening it', image.local);
    try {
      const mark: Mark = { log: logId, device: image.nr, seq };
      const rc = io.setXattr('APPLY:MARK', fd, NAME, Buffer.from(JSON.stringify(mark)));
      if (rc < 0 && !unsupported(rc)) throw ioError(rc, 'marking it', image.local);
      // fdatasync need not write attributes.
      const synced = rc < 0 ? 0 : sys.fsync(fd);
      if (synced < 0) throw ioError(synced, 'syncing it', image.local);
    } finally {
      io.close('APPLY:CLOSE', fd);
    }
  }
}

function readMark(io: Io, file: string): Mark | 'unsupported' | undefined {
  const fd = io.open('APPLY:OPEN', file, sys.O_RDONLY);
  if (fd < 0) throw ioError(fd, 'opening it', file);
  try {
    const value = io.getXattr('APPLY:MARK', fd, NAME);
    if (typeof value === 'number') {
      if (unsupported(value)) return 'unsupported';
      if (value === -ERRNO.ENODATA) return undefined;
      throw ioError(value, 'reading its mark', file);
    }
    try {
      return JSON.parse(Buffer.from(value).toString('utf8')) as Mark;
    } catch {
      return undefined;
    }
  } finally {
    io.close('APPLY:CLOSE', fd);
  }
}

function unsupported(rc: number): boolean {
  return rc === -ERRNO.EOPNOTSUPP || rc === -ERRNO.EPERM;
}
