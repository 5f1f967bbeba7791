/**
 * `reptool mount --table`: what a table means for what is there. Everything is looked at before anything is made,
 * so that a table that cannot be used leaves no trace.
 *
 *              no log      blank, foreign   log                     damaged     newer log
 *   open       ENOENT      EINVAL           opened                  EINVAL      EINVAL
 *   auto       made        made             opened                  EINVAL      EINVAL
 *   create     made        made             made anew; EPERM while  made anew   EINVAL
 *                                           in use or not closed
 *
 * A group that exists (group.json) is opened where the table describes it; `create` refuses it, since its log may
 * hold what its sites lack.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { RepError, ioError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { formatSize } from '../base/units.js';
import type { DeviceConfig, GroupConfig } from '../control/config.js';
import { checkDirtyLogDevices } from '../control/dirty-logs.js';
import { lockHolder } from '../control/lock.js';
import { checkLogDevices, checkSameGroup, tableConfig } from '../control/table-group.js';
import { parseTable, tableName, type TableGroup } from '../control/table-parse.js';
import { dirtyLogName, dirtyLogPlaces } from '../control/taken.js';
import { listMounts } from '../fuse/mount.js';
import type { Registry } from '../registry/registry.js';
import { traceDevices } from '../replog/device-trace.js';
import { inspectLog } from '../replog/logcreate.js';
import { LogFile, headerError } from '../replog/logfile.js';
import { SLINK } from '../slink/types.js';
import { describeHolders, holdersOf } from '../control/holders.js';
import { Progress } from './progress.js';

/** A table as it was read. */
export interface ReadTable {
  readonly source: string;
  readonly group: TableGroup;
}

/** What is to be done for it: the group is made, or a log that is there gets its configuration back. */
export interface TablePlan {
  readonly config: GroupConfig;
  readonly logIsThere: boolean;
}

/** The text of a table, and what it calls its group. */
export interface TableText {
  readonly source: string;
  readonly text: string;
  readonly name: string | undefined;
}

/** `-` is standard input. */
export function readTableText(file: string): TableText {
  const source = file === '-' ? 'standard input' : file;
  try {
    const text = fs.readFileSync(file === '-' ? 0 : file, 'utf8');
    return { source, text, name: tableName(text) };
  } catch (cause) {
    const { errno = -5 } = cause as NodeJS.ErrnoException;
    throw ioError(errno, 'reading the table', source);
  }
}

export function readTable({ source, text }: TableText, types: Registry): ReadTable {
  return { source, group: parseTable(text, types, source) };
}

/** The group exists already: throws where the table wants another one, or a new one. */
export function checkTable({ source, group }: ReadTable, config: GroupConfig, state: string): void {
  if (group.log.mode === 'create') {
    const holder = lockHolder(state);
    if (holder !== undefined)
      throw new RepError(
        'EPERM',
        `${source}: create: the log of group ${config.name} is active (process ${holder}); unmount it first`,
      );
    throw new RepError(
      'EEXIST',
      `${source}: create: group ${config.name} exists in ${state}; write open or auto, or remove it first`,
    );
  }
  checkSameGroup(group, config, source);
}

/** No such group yet: what the table makes of what is there. */
export async function planTable(
  { source, group }: ReadTable,
  types: Registry,
  name: string,
  plugins: readonly string[],
  stop: AbortSignal,
): Promise<TablePlan> {
  const { path, mode, size } = group.log;
  const control = listMounts().find(({ mountpoint }) => path === mountpoint || path.startsWith(`${mountpoint}/`));
  if (control !== undefined)
    throw new RepError(
      'EPERM',
      `${source}: log ${path}: lies in the tree of group ${control.group}; name a file or device outside of it`,
    );
  const found = inspectLog(realIo, path);
  if (found === undefined && mode === 'open')
    throw new RepError('ENOENT', `${source}: log ${path}: there is no replog; use auto or create to make one`);
  if (found?.kind === 'version' || (mode !== 'create' && found?.kind === 'damaged')) throw headerError(path, found);
  if (mode === 'open' && found?.kind !== 'log') throw headerError(path, found!);
  const holders = found?.kind === 'log' ? holdersOf(path) : [];
  if (holders.length > 0) {
    const by = describeHolders(holders);
    throw mode === 'create'
      ? new RepError('EPERM', `${source}: create: log ${path} is active: ${by}; unmount its group first`)
      : new RepError('EBUSY', `${source}: log ${path} is in use: ${by}; two groups cannot share a log`);
  }
  const logIsThere = found?.kind === 'log' && mode !== 'create';
  const there = logIsThere ? readLog(path) : undefined;
  if (there !== undefined && there.group !== name)
    throw new RepError(
      'EINVAL',
      `${source}: log ${path}: is that of group ${there.group}, not of ${name}; correct the table, or use --group`,
    );
  const id = there?.id ?? randomBytes(16).toString('hex');
  const config = tableConfig(group, { id, name, logSize: there?.size ?? size!, plugins, source });
  for (const site of config.sites) {
    const fault = types.peek(SLINK, site.type)?.check(site) ?? '';
    if (fault !== '') throw new RepError('EINVAL', `${source}: slink ${site.nr}: ${fault}`);
  }
  if (mode !== 'open') checkRoom(path, size!, source);
  for (const device of config.devices) checkLocal(device, source);
  for (const { path: file, ...place } of dirtyLogPlaces(config)) {
    const tree = listMounts().find(({ mountpoint }) => file.startsWith(`${mountpoint}/`));
    if (tree === undefined) continue;
    throw new RepError(
      'EPERM',
      `${source}: ${file}, ${dirtyLogName(place)}: lies in the tree of group ${tree.group}; name one outside of it`,
    );
  }
  try {
    checkDirtyLogDevices(config, types, realIo, !logIsThere);
  } catch (error) {
    if (!(error instanceof RepError)) throw error;
    throw new RepError(error.errno, `${source}: ${error.message}`, { cause: error });
  }
  if (!logIsThere && config.sites.length > 0)
    for (const device of config.devices) await checkBlank(device, source, stop);
  if (logIsThere) await learnFromLog(config, source, stop);
  return { config, logIsThere };
}

function readLog(path: string): { id: string; size: number; group: string } {
  const log = LogFile.open(realIo, path, { readOnly: true });
  log.close();
  return { id: log.super.logId, size: log.size, group: log.super.group };
}

/** What a table does not say: which numbers were used, which images have holes. Throws where the log contradicts it. */
async function learnFromLog(config: GroupConfig, source: string, stop: AbortSignal): Promise<void> {
  const { path } = config.log;
  const progress = new Progress(`looking for devices in ${path}`);
  try {
    const trace = await traceDevices(path, { signal: stop, progress: (done, total) => progress.bytes(done, total) });
    checkLogDevices(config, trace, source);
  } finally {
    progress.end();
  }
  for (const device of config.devices) {
    const info = realIo.stat('APPLY:STAT', device.local);
    if (typeof info !== 'number' && info.kind === 'file' && info.allocated < info.size) device.sparse = true;
  }
}

function checkRoom(path: string, size: number, source: string): void {
  const info = realIo.stat('REPLOG:STAT', path);
  if (typeof info === 'number' || info.kind !== 'block' || info.size >= size) return;
  throw new RepError(
    'EINVAL',
    `${source}: log ${path}: the device has ${info.size / 512} sectors, fewer than ${size / 512}; write a smaller size`,
  );
}

/** A table names devices that are there: one that is missing may be a slip, and a new one would be empty. */
function checkLocal({ name, local, size }: DeviceConfig, source: string): void {
  const info = realIo.stat('APPLY:STAT', local);
  const what = `${source}: ${local}: the local device of ${name}`;
  if (typeof info === 'number')
    throw new RepError('ENOENT', `${what} is not there; make it first, such as: truncate -s ${size} ${local}`);
  if (info.kind !== 'file' && info.kind !== 'block')
    throw new RepError('EINVAL', `${what} is a ${info.kind}; name a file or a block device`);
  if (info.size < size || (info.kind === 'file' && info.size > size))
    throw new RepError(
      'EINVAL',
      `${what} has ${info.size / 512} sectors instead of ${size / 512}; correct the length or the file`,
    );
}

const PIECE = 1024 * 1024;

/** Sites begin empty, and nothing copies yet what a device held before: then they would never show its content. */
async function checkBlank({ name, local, size }: DeviceConfig, source: string, stop: AbortSignal): Promise<void> {
  const progress = new Progress(`looking through ${local}`);
  const file = await fs.promises.open(local, 'r');
  try {
    const piece = Buffer.alloc(PIECE);
    const zeroes = Buffer.alloc(PIECE);
    for (let at = 0; at < size; at += PIECE) {
      stop.throwIfAborted();
      const { bytesRead } = await file.read(piece, 0, Math.min(PIECE, size - at), at);
      if (bytesRead === 0) break;
      progress.bytes(at, size);
      if (zeroes.compare(piece, 0, bytesRead, 0, bytesRead) !== 0)
        throw new RepError(
          'EINVAL',
          `${source}: ${local}: the local device of ${name} holds data (within ${formatSize(at + bytesRead)}), which the ` +
            'sites would lack, as this version copies none to them; begin with an empty device, or without sites',
        );
    }
  } finally {
    await file.close();
    progress.end();
  }
}
