/**
 * Another size for the log of a group that is not mounted: the steps of replog/resize.ts, one behind the other. Nobody
 * else has the log open meanwhile, so its live part is what its superblock says.
 *
 * Who calls holds the group's lock.
 */
import type { Clock } from '../base/clock.js';
import { RepError, ioError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { DATA_START } from '../replog/format.js';
import { LogFile, byteOf } from '../replog/logfile.js';
import { LogWork, type LogJob } from '../replog/logwork.js';
import { geometryFor, planMapping, sizeSentence } from '../replog/resize.js';
import { loadConfig, saveConfig } from './config.js';

/** Returns the sentence that answers; throws RepError, and then the log is as it was. */
export function resizeLogOffline(
  io: Io,
  dir: string,
  size: number,
  clock: Clock,
  progress: (bytes: number, total: number) => void = () => undefined,
): string {
  const config = loadConfig(dir, io);
  const { path } = config.log;
  const log = LogFile.open(io, path);
  const run = (job: LogJob): void => {
    for (const work = new LogWork(io, job); !work.done; work.step()) progress(work.bytes, work.total);
  };
  const save = (bytes: number): void => saveConfig(dir, { ...config, log: { path, size: bytes } }, io);
  try {
    if (log.super.logId !== config.id)
      throw new RepError(
        'EINVAL',
        `${path}: the replog of another group (${log.super.group}); put the right file there`,
      );
    const target = geometryFor(path, log.segment, size);
    if (size === log.size) {
      if (config.log.size !== size || config.log.resize !== undefined) save(size);
      return `the log has ${formatSize(size)} already`;
    }
    if (!log.super.clean)
      throw new RepError(
        'EBUSY',
        `${path}: the group was not closed cleanly; mount it, which recovers the log, then resize it`,
      );
    const { head, durable, oldest } = log.super;
    const old = log.mapping;
    const plan = planMapping({ ...old, oldest }, target.ring, log.segment, head.pos, durable.pos);
    if (plan === undefined)
      throw new RepError(
        'EBUSY',
        `${path}: cannot have ${formatSize(size)} now: ${formatSize(durable.pos - head.pos)} in it are still needed by ` +
          'sites, and would not find their place; mount the group until the sites have everything (reptool wait), then resize it',
      );
    if (size > log.size) {
      const [start, end] = [DATA_START + old.ring, DATA_START + target.ring];
      run({ do: 'grow', path, from: log.size, to: size, start, end });
    }
    const { copy } = plan;
    if (copy !== undefined)
      run({ do: 'copy', path, from: byteOf(old, copy.from), to: byteOf(plan, copy.from), bytes: copy.to - copy.from });
    const shrinks = size < log.size;
    const rc = log.remap(size, plan, clock);
    if (rc < 0) throw ioError(rc, 'writing its superblocks', path);
    save(size);
    if (shrinks) run({ do: 'cut', path, to: size });
    return sizeSentence(size, target.ring);
  } finally {
    log.close();
  }
}
