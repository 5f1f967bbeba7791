/**
 * After recovery: makes durable what was found behind the known durable point. To sync is not enough. The daemon
 * before may have died after a failed sync, when the kernel had given its dirty pages up: they still read well,
 * the next sync succeeds, and the disk never gets them. So those records are written again, to the same places,
 * from what was read, and then synced: the committer's rule after a failed sync, one life later. It is little:
 * the header of each batch says what was durable when it was written, so at most one sync's worth.
 */
import type { Clock } from '../base/clock.js';
import { ioError } from '../base/errors.js';
import { writeFull } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { MIB } from '../base/units.js';
import type { LogFile } from './logfile.js';
import type { Recovered } from './recovery.js';

/**
 * To be called before the first record that recovery found is used for anything, be it to replay it onto an
 * image: an image ahead of its log would show a history that never was. Does nothing the second time.
 */
export function settleTail(log: LogFile, recovered: Recovered): void {
  if (recovered.settled) return;
  const end = recovered.place.pos;
  const piece = Math.min(4 * MIB, log.segment);
  const mem = Mem.lazy(piece);
  try {
    for (let pos = recovered.durablePos; pos < end;) {
      const len = Math.min(piece, log.rest(pos), end - pos);
      const r = log.read('REPLOG:RECOVERY-READ', mem, 0, len, pos);
      if (r < 0) throw ioError(r, 'reading its tail', log.path);
      const w = writeFull(log.io, 'REPLOG:RECOVERY-WRITE', log.fd, mem, 0, len, log.fileOffset(pos));
      if (w < 0) throw ioError(w, 'writing its tail again', log.path);
      pos += len;
    }
  } finally {
    mem.unmap();
  }
  const synced = log.sync('REPLOG:RECOVERY-SYNC');
  if (synced < 0) throw ioError(synced, 'syncing it', log.path);
  recovered.settled = true;
}

/**
 * Makes the log ready to be appended to: state open and, where `recovered.newReign`, the number and identity
 * of the next reign are durable in the superblock before its first record exists; so a number is never used
 * twice, even when that record is lost. Returns the reign that records carry from now on and, where it is new,
 * the identity to begin it with (Appender.beginReign).
 */
export function openForAppend(
  log: LogFile,
  recovered: Recovered,
  clock: Clock,
  random: (bytes: number) => Uint8Array,
): { reign: number; id?: Uint8Array } {
  const id = recovered.newReign ? random(16) : undefined;
  const reign = recovered.reign + (id === undefined ? 0 : 1);
  const reignId = id === undefined ? recovered.reignId : Buffer.from(id).toString('hex');
  // The superblock is about to call all of it durable.
  settleTail(log, recovered);
  const durable = { pos: recovered.place.pos, seq: recovered.place.seq };
  const r = log.writeSuper({ clean: false, reign, reignId, durable }, clock);
  if (r < 0) throw ioError(r, 'writing its superblock', log.path);
  return id === undefined ? { reign } : { reign, id };
}
