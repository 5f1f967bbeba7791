/**
 * Replay: after a crash the images hold everything before the checkpoint, and of what follows some, in any
 * mixture. Redoing the log from the checkpoint to its end, whatever was there already, makes them exactly the
 * history up to the end. Nobody reads the device meanwhile, so records are simply applied in their order.
 */
import { RepError, errnoText, ioError } from '../base/errors.js';
import type { LogPlace } from '../replog/format.js';
import type { LogFile } from '../replog/logfile.js';
import { LogReader, READ, type ReadLimit } from '../replog/reader.js';
import type { ImageSet } from './images.js';
import { RecordSink } from './records.js';

/** Redoes the records from `from` up to `to`, a boundary, onto the images and syncs them; throws RepError. */
export function replayLocal(
  log: LogFile,
  images: ImageSet,
  from: LogPlace,
  to: ReadLimit,
  onProgress: (done: number, total: number) => void = () => {},
): { records: number; bytes: number } {
  const reader = new LogReader(log);
  const sink = new RecordSink(images);
  let bytes = 0;
  try {
    reader.seek(from);
    for (;;) {
      const result = reader.next(to);
      if (result === READ.END) break;
      if (result === READ.BROKEN) throw brokenLog(log, reader);
      const { mem, headers, count, payloads, payloadBytes, end } = reader.batch;
      sink.begin(mem);
      let rc = sink.pushAll(headers, count, payloads);
      if (rc >= 0) rc = sink.finish();
      if (rc < 0) throw ioError(rc, 'replaying the log', images.failedFile);
      bytes += payloadBytes;
      onProgress(end - from.pos, to.pos - from.pos);
    }
    const rc = images.sync();
    if (rc < 0) throw ioError(rc, 'replaying the log', images.failedFile);
    return { records: reader.place.seq - from.seq, bytes };
  } finally {
    reader.close();
  }
}

function brokenLog(log: LogFile, reader: LogReader): RepError {
  const { reason, byte, seq, errno } = reader.broken!;
  const why = reason === 'read' ? errnoText(errno) : reason;
  return new RepError('EIO', `${log.path}: record ${seq} at byte ${byte} cannot be read (${why}); check the log`);
}
