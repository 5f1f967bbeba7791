/**
 * Making a group: its folders, log, index, images and site folders. All or nothing: what a failed creation
 * made is removed again, and what existed before is never touched.
 *
 * group.json comes last, so that a creation cut off by a power loss leaves a folder without one, and the file
 * `creating` in it; the next creation there clears the folder first.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { realClock } from '../base/clock.js';
import { RepError, check, errnoText } from '../base/errors.js';
import { realIo, type Io } from '../base/io.js';
import { openIndex } from '../index/lmdb.js';
import { LogCreator, blankLog, planLog } from '../replog/logcreate.js';
import { LogFile } from '../replog/logfile.js';
import { FolderSite } from '../slink/folder.js';
import { createImage } from '../slink/images.js';
import { writeLocalMarks } from '../slink/local-marks.js';
import type { SiteCursor, SiteDevice } from '../slink/contract.js';
import { checkConfig, saveConfig, type GroupConfig, type SiteConfig } from './config.js';
import { nextNumber } from './device-plan.js';
import { lockGroup, unlockGroup } from './lock.js';
import { groupFiles, type GroupFiles } from './state.js';
import { dirtyLogPlaces } from './taken.js';

export interface CreateOptions {
  /** Devices (by number) whose local image is only reserved, not allocated. disk0 of a default group is. */
  sparse?: ReadonlySet<number>;
  /**
   * The parts are named by a table. What stands at the place of the log is made a log as `mode` says; local devices
   * are there and keep their content; a site that cannot be reached is left to its shipper, which makes it once it can.
   */
  table?: { mode: 'auto' | 'create' };
  /** Told while the log is written: bytes done of bytes in all. */
  progress?: (done: number, total: number) => void;
  /** Ends the creation early and removes what it made. */
  signal?: AbortSignal;
  io?: Io;
}

/** What was made, newest last, each with the way to undo it. */
class Made {
  private readonly undo: (() => void)[] = [];

  add(undo: () => void): void {
    this.undo.push(undo);
  }

  /** Makes a folder and its missing parents; undone only where they are empty by then. */
  folder(dir: string): void {
    const missing: string[] = [];
    for (let at = dir; !fs.existsSync(at); at = path.dirname(at)) missing.unshift(at);
    for (const folder of missing) {
      fs.mkdirSync(folder, { mode: 0o700 });
      this.add(() => fs.rmdirSync(folder));
    }
  }

  /** Newest first. Never throws: it runs while the reason for it is on its way out. */
  removeAll(): void {
    for (const step of this.undo.splice(0).reverse()) {
      try {
        step();
      } catch {
        // Something of somebody else's stands there by now: it stays.
      }
    }
  }
}

/**
 * Makes group `config` in the folder `dir` (STATE/GROUP) and returns the descriptor of its lock, held.
 * EEXIST where the group or one of its files exists already.
 */
export async function createGroup(dir: string, config: GroupConfig, options: CreateOptions = {}): Promise<number> {
  const files = groupFiles(dir);
  checkConfig(config, files.config);
  const made = new Made();
  let lock = -1;
  try {
    made.folder(dir);
    const hadLock = fs.existsSync(files.lock);
    lock = lockGroup(dir);
    if (!hadLock) made.add(() => fs.unlinkSync(files.lock));
    refuseExisting(files, config, options);
    fs.writeFileSync(files.creating, 'A group is being made here; without group.json it is not complete.\n');
    made.add(() => fs.unlinkSync(files.creating));
    await makeParts(files, config, options, made);
    noteDevices(config, options.sparse);
    saveConfig(dir, config, options.io);
    made.add(() => fs.unlinkSync(files.config));
    fs.unlinkSync(files.creating);
    check(realIo.syncDir('CONFIG:SYNC', path.dirname(dir)), 'syncing', path.dirname(dir));
    options.signal?.throwIfAborted();
    return lock;
  } catch (error) {
    // The lock goes last: nobody else may begin here while things are being removed.
    made.removeAll();
    if (lock >= 0) unlockGroup(lock);
    throw explain(error, dir, options.signal);
  }
}

/** The numbers that are given away, and which images are holes. */
function noteDevices(config: GroupConfig, sparse: ReadonlySet<number> | undefined): void {
  config.nextDevice = nextNumber(config);
  for (const device of config.devices) if (sparse?.has(device.nr) === true) device.sparse = true;
}

function explain(error: unknown, dir: string, signal: AbortSignal | undefined): unknown {
  if (error instanceof RepError) return error;
  if (signal?.aborted)
    return new RepError('EINTR', `${dir}: making the group was interrupted; nothing was left behind`);
  const { code, errno } = error as NodeJS.ErrnoException;
  if (errno === undefined) return error;
  const name = code === 'EACCES' || code === 'ENOSPC' || code === 'EROFS' || code === 'EPERM' ? code : 'EIO';
  const next =
    name === 'EACCES' || name === 'EPERM'
      ? 'run as its owner, or name another folder with --state'
      : 'make room, or name another folder';
  return new RepError(name, `${dir}: the group cannot be made: ${errnoText(errno)}; ${next}`, { cause: error });
}

/** Nothing that exists is taken over silently; what an interrupted creation left here is cleared away. */
function refuseExisting(files: GroupFiles, config: GroupConfig, options: CreateOptions): void {
  const exists = (file: string, what: string): void => {
    if (fs.existsSync(file))
      throw new RepError('EEXIST', `${file}: ${what} exists already; remove it, or name another place`);
  };
  exists(files.config, 'the group');
  if (fs.existsSync(files.creating)) {
    for (const name of fs.readdirSync(files.dir))
      if (path.join(files.dir, name) !== files.lock && !isNamed(path.join(files.dir, name), config, options))
        fs.rmSync(path.join(files.dir, name), { recursive: true });
  }
  exists(files.index, 'the index');
  if (options.table !== undefined) return;
  if (fs.statSync(config.log.path, { throwIfNoEntry: false })?.isBlockDevice() !== true)
    exists(config.log.path, 'the log');
  for (const device of config.devices)
    if (fs.statSync(device.local, { throwIfNoEntry: false })?.isBlockDevice() !== true)
      exists(device.local, `the image of ${device.name}`);
}

/** What a table names, or the folder it is in, is not left from an interrupted creation. */
function isNamed(file: string, config: GroupConfig, { table }: CreateOptions): boolean {
  if (table === undefined) return false;
  const named = [
    config.log.path,
    ...config.devices.map((d) => d.local),
    ...config.sites.map((s) => s.address),
    ...dirtyLogPlaces(config).map((place) => place.path),
  ];
  return named.some((name) => name === file || name.startsWith(`${file}/`));
}

async function makeParts(files: GroupFiles, config: GroupConfig, options: CreateOptions, made: Made): Promise<void> {
  const io = options.io ?? realIo;
  made.add(() => fs.rmSync(files.index, { recursive: true, force: true }));
  const index = openIndex(files.index);
  const { id: indexId, generation: indexGeneration } = index;
  await index.close();

  // Where later devices have their images, unless told otherwise.
  made.folder(files.images);
  for (const device of options.table === undefined ? config.devices : []) {
    made.folder(path.dirname(device.local));
    const isFile = !fs.existsSync(device.local);
    if (isFile) made.add(() => fs.rmSync(device.local, { force: true }));
    const sparse = options.sparse?.has(device.nr) === true;
    createImage(io, 'APPLY', { nr: device.nr, file: device.local, size: device.size }, { sparse, overwrite: !isFile });
    options.signal?.throwIfAborted();
  }

  made.folder(path.dirname(config.log.path));
  const spec = { size: config.log.size, logId: config.id, indexId, indexGeneration, group: config.name };
  const isFile = !fs.existsSync(config.log.path);
  const creator = planLog(io, config.log.path, options.table?.mode ?? 'create', spec, realClock);
  if (creator instanceof LogCreator) {
    await writeLog(creator, options);
    made.add(() => (isFile ? fs.rmSync(config.log.path, { force: true }) : blankLog(io, config.log.path)));
  } else {
    creator.close();
    throw new RepError('EEXIST', `${config.log.path}: holds a replog already; name another place`);
  }
  const log = LogFile.open(io, config.log.path, { readOnly: true });
  const start: SiteCursor = { ...log.super.checkpoint, reign: log.super.reign };
  writeLocalMarks(io, config.devices, config.id, log.super.durable.seq);
  log.close();

  const devices = config.devices.map(({ nr, name, size }) => ({ nr, name, size }));
  const allSparse = config.devices.every((d) => options.sparse?.has(d.nr) === true);
  for (const site of config.sites) {
    const how = { sparse: allSparse, mayWait: options.table !== undefined };
    makeSite(io, site, config, devices, start, how, made);
    options.signal?.throwIfAborted();
  }
}

/** One piece after the other, so that a signal is heard between them. */
async function writeLog(creator: LogCreator, options: CreateOptions): Promise<void> {
  try {
    while (!creator.done) {
      options.signal?.throwIfAborted();
      creator.step();
      options.progress?.(creator.bytes, creator.total);
      await new Promise((resolve) => setImmediate(resolve));
    }
  } catch (error) {
    creator.abort();
    throw error;
  }
}

function makeSite(
  io: Io,
  config: SiteConfig,
  group: GroupConfig,
  devices: readonly SiteDevice[],
  create: SiteCursor,
  how: { sparse: boolean; mayWait: boolean },
  made: Made,
): void {
  // Raw devices and servers are there already; the shipper looks at them first.
  if (config.type !== 'blockdev' || config.address === '') return;
  if (how.mayWait && !fs.existsSync(path.dirname(config.address))) return;
  const before = fs.existsSync(config.address) ? new Set(fs.readdirSync(config.address)) : undefined;
  made.folder(path.dirname(config.address));
  made.add(() => {
    if (before === undefined) fs.rmSync(config.address, { recursive: true, force: true });
    else
      for (const name of fs.readdirSync(config.address))
        if (!before.has(name)) fs.rmSync(path.join(config.address, name), { recursive: true });
  });
  const site = new FolderSite(io, realClock, config.address, { sparse: how.sparse, makeFolder: true });
  const identity = { logId: group.id, group: group.name, nr: config.nr };
  const opened = site.open({ devices, identity, create });
  site.close();
  if (opened.ok || (how.mayWait && !opened.refused)) return;
  throw new RepError(opened.refused ? 'EEXIST' : 'EIO', opened.reason);
}
