/**
 * `reptool mount`: checks everything that can be checked first, makes a group where there is none, starts the
 * keeper. What fails leaves nothing behind; a group that existed before is never touched.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { Mem } from '../base/mem.js';
import { formatSize } from '../base/units.js';
import {
  checkName,
  DEFAULT_DEVICE_SIZE,
  DEFAULT_GROUP,
  DEFAULT_LOG_SIZE,
  defaultConfig,
  loadConfig,
  saveConfig,
  type Durability,
  type OnLocalError,
  type GroupConfig,
} from '../control/config.js';
import { createGroup, type CreateOptions } from '../control/create.js';
import { servedDevices } from '../control/device-plan.js';
import { adoptIfOrphaned, LOG_FILE, startKeeper, type RunState, type Started } from '../control/keeper-client.js';
import { lockGroup, noteLockOwner, unlockGroup } from '../control/lock.js';
import { groupDir, groupFiles, stateRoot } from '../control/state.js';
import { loadPlugins } from '../control/plugins.js';
import { productTypes } from '../control/types.js';
import { checkUserMount, WITHOUT_OTHERS } from '../fuse/fusermount.js';
import { listMounts, mayMountItself, openFuse, prepareMountPoint } from '../fuse/mount.js';
import type { Transport, TransportChoice } from '../fuse/transport.js';
import { pluginName } from '../registry/plugins.js';
import type { Registry } from '../registry/registry.js';
import { maxPayloadFor } from '../replog/format.js';
import { inspectLog } from '../replog/logcreate.js';
import { headerError, openLogPath, readHeaderOf } from '../replog/logfile.js';
import { SLINK } from '../slink/types.js';
import { interruptible, Interrupted, usage } from './base.js';
import { findServed } from './locate.js';
import { beforehand, entriesOf, missingFolders, removeFolders, removeGroup } from './making.js';
import { columns, formatSeconds } from './output.js';
import { Progress } from './progress.js';
import { checkTable, planTable, readTable, readTableText, type TableText } from './tables.js';
import { withdraw, type Voice } from './unmounting.js';

export interface MountOptions {
  readonly dir: string;
  readonly group: string | undefined;
  readonly state: string | undefined;
  readonly size: number | undefined;
  readonly logSize: number | undefined;
  readonly durability: Durability | undefined;
  readonly onLocalError: OnLocalError | undefined;
  /** A file of table lines, or `-`. */
  readonly table: string | undefined;
  /** Files and packages, in their order. */
  readonly plugins: readonly string[];
  readonly transport: TransportChoice;
}

export interface Mounted {
  readonly mountpoint: string;
  readonly group: string;
  readonly state: string;
  readonly created: boolean;
  readonly adopted: boolean;
  readonly pids: { readonly keeper: number; readonly daemon: number };
  readonly devices: readonly { name: string; size: number; local: string }[];
  readonly sites: readonly { nr: number; type: string; address: string; policy: string }[];
  readonly log: { readonly path: string; readonly size: number };
  readonly transport: Transport;
  readonly transportReason: string;
}

const DAEMON_SCRIPT = fileURLToPath(new URL('../daemon/main.js', import.meta.url));

export async function mountGroup(options: MountOptions, voice: Voice): Promise<Mounted> {
  const text = options.table === undefined ? undefined : readTableText(options.table);
  const name = groupName(options, text);
  const state = groupDir(options.state ?? stateRoot(), name);
  const adopted = await adoptThere(options.dir, state, voice);
  if (adopted !== undefined) return adopted;
  const existing = fs.existsSync(groupFiles(state).config) ? loadConfig(state) : undefined;
  const plugins = [...new Set([...(existing?.plugins ?? []), ...options.plugins.map((word) => pluginName(word))])];
  const types = productTypes();
  await loadPlugins(types, plugins);
  const table = text === undefined ? undefined : readTable(text, types);
  if (existing !== undefined) {
    refuseContradictions(options, existing, state);
    checkTypes(existing, types, state);
    if (table !== undefined) checkTable(table, existing, state);
  }
  mayMount(options.dir);
  const made = missingFolders(options.dir);
  const mountpoint = prepareMountPoint(options.dir);
  try {
    return await interruptible(async (stop) => {
      if (existing !== undefined)
        return mountExisting(mountpoint, state, { ...existing, plugins }, options, voice, stop);
      if (table === undefined)
        return mountNew(mountpoint, state, newConfig(state, name, plugins, options), options, voice, stop);
      const plan = await planTable(table, types, name, plugins, stop).catch((error: unknown) => {
        throw stop.aborted ? interrupted(stop, name) : error;
      });
      return plan.logIsThere
        ? mountLog(mountpoint, state, plan.config, options, voice, stop)
        : mountNew(mountpoint, state, plan.config, options, voice, stop, { mode: table.group.log.mode as 'auto' });
    });
  } catch (error) {
    removeFolders(made);
    throw error;
  }
}

/** A tree that is mounted there already: with a new keeper if it lost its own, otherwise an error later on. */
async function adoptThere(dir: string, state: string, voice: Voice): Promise<Mounted | undefined> {
  const wanted = path.resolve(dir);
  const parent = fs.existsSync(path.dirname(wanted)) ? fs.realpathSync(path.dirname(wanted)) : path.dirname(wanted);
  const real = path.join(parent, path.basename(wanted));
  const mount = listMounts().find((m) => m.mountpoint === real);
  const served = mount === undefined ? undefined : findServed(real, mount.group, state);
  if (mount === undefined || served === undefined) return undefined;
  switch (await adoptIfOrphaned(served.groupDir)) {
    case 'adopted': {
      voice.say(`${real}: group ${mount.group} was mounted, its keeper had died: a new one took over`);
      const config = loadConfig(served.groupDir);
      const after = findServed(real, mount.group, state) ?? served;
      return facts(real, served.groupDir, config, { created: false, adopted: true, run: after.run });
    }
    case 'dead':
      throw new RepError(
        'EBUSY',
        `${real}: group ${mount.group} was mounted there and its processes are gone; ` +
          `run \`reptool umount ${real}\`, then mount again`,
      );
    default:
      return undefined;
  }
}

/** What the options, or the table's lines, call the group. */
function groupName(options: MountOptions, table: TableText | undefined): string {
  const said = table?.name;
  if (options.group !== undefined && said !== undefined && said !== options.group)
    throw new RepError(
      'ENOENT',
      `${table!.source}: replicator "${said}": not --group ${options.group}; leave --group out, or correct the lines`,
    );
  const name = options.group ?? said ?? DEFAULT_GROUP;
  try {
    checkName(name, options.group === undefined ? (table?.source ?? '') : '--group');
  } catch (error) {
    throw error instanceof RepError ? usage(error.message) : error;
  }
  return name;
}

function newConfig(state: string, name: string, plugins: string[], options: MountOptions): GroupConfig {
  const config = defaultConfig(state, randomBytes(16).toString('hex'), name);
  config.durability = options.durability ?? config.durability;
  config.onLocalError = options.onLocalError ?? config.onLocalError;
  config.plugins = plugins;
  config.log.size = options.logSize ?? DEFAULT_LOG_SIZE;
  config.devices[0]!.size = options.size ?? DEFAULT_DEVICE_SIZE;
  return config;
}

/** A site of a type that nobody brings could only fail. */
function checkTypes(config: GroupConfig, types: Registry, state: string): void {
  for (const { nr, type } of config.sites) {
    if (types.peek(SLINK, type) !== undefined) continue;
    const known = types.list(SLINK)?.join(', ') ?? 'none';
    throw new RepError(
      'ENOENT',
      `${state}: site ${nr}: type "${type}" is not registered, there is ${known}; name its plug-in with --plugin`,
    );
  }
}

async function mountNew(
  mountpoint: string,
  state: string,
  config: GroupConfig,
  options: MountOptions,
  voice: Voice,
  stop: AbortSignal,
  table?: CreateOptions['table'],
): Promise<Mounted> {
  const made = missingFolders(state);
  const before = beforehand(config);
  const lock = await create(state, config, voice, stop, table);
  const asMade = new Set(entriesOf(state));
  try {
    const started = await start(mountpoint, state, config, lock, options.transport, voice, stop);
    for (const line of told(state, config, mountpoint, table === undefined)) voice.say(line);
    sayTransport(started, options.transport, voice);
    return facts(mountpoint, state, config, { created: true, adopted: false, run: started.run });
  } catch (error) {
    const last = lastWords(state);
    removeGroup(state, config, asMade, before);
    removeFolders(made);
    // The error may point to a log that is gone now.
    throw error instanceof RepError && last !== '' && error.message.includes(LOG_FILE)
      ? new RepError(error.errno, `${error.message}, which said: ${last}`, { cause: error, exit: error.exit })
      : error;
  } finally {
    // The keeper has inherited it, if it lives; otherwise nobody may come in before all is removed.
    unlockGroup(lock);
  }
}

async function create(
  state: string,
  config: GroupConfig,
  voice: Voice,
  stop: AbortSignal,
  table: CreateOptions['table'],
): Promise<number> {
  const progress = new Progress('writing the log');
  try {
    return await createGroup(state, config, {
      sparse: new Set(config.devices.map((device) => device.nr)),
      ...(voice.quiet ? {} : { progress: (done: number, total: number) => progress.bytes(done, total) }),
      ...(table === undefined ? {} : { table }),
      signal: stop,
    });
  } catch (error) {
    throw stop.aborted ? interrupted(stop, config.name) : error;
  } finally {
    progress.end();
  }
}

/** The log is there, its configuration is not: it comes from the table, and goes again if the group cannot be served. */
async function mountLog(
  mountpoint: string,
  state: string,
  config: GroupConfig,
  options: MountOptions,
  voice: Voice,
  stop: AbortSignal,
): Promise<Mounted> {
  const made = missingFolders(state);
  const files = groupFiles(state);
  fs.mkdirSync(state, { recursive: true, mode: 0o700 });
  const before = new Set(entriesOf(state));
  if (config.sites.length > 0 && !fs.existsSync(files.index))
    voice.say(`${files.index}: not there, so nothing tells how far the sites are: each needs a full resync`);
  const lock = lockGroup(state);
  try {
    fs.mkdirSync(files.images, { recursive: true, mode: 0o700 });
    saveConfig(state, config);
    const started = await start(mountpoint, state, config, lock, options.transport, voice, stop);
    voice.say(`opened the log of group ${config.name}, ${config.log.path}`);
    voice.say(`mounted ${mountpoint}`);
    sayTransport(started, options.transport, voice);
    return facts(mountpoint, state, config, { created: false, adopted: false, run: started.run });
  } catch (error) {
    for (const name of entriesOf(state))
      if (!before.has(name)) fs.rmSync(path.join(state, name), { recursive: true, force: true });
    removeFolders(made);
    throw error;
  } finally {
    unlockGroup(lock);
  }
}

async function mountExisting(
  mountpoint: string,
  state: string,
  config: GroupConfig,
  options: MountOptions,
  voice: Voice,
  stop: AbortSignal,
): Promise<Mounted> {
  const lock = lockGroup(state);
  try {
    checkFiles(config);
    // A plug-in that was named is the group's from now on.
    if (config.plugins.length > loadConfig(state).plugins.length) saveConfig(state, config);
    const started = await start(mountpoint, state, config, lock, options.transport, voice, stop);
    voice.say(`mounted ${mountpoint}`);
    sayTransport(started, options.transport, voice);
    return facts(mountpoint, state, config, { created: false, adopted: false, run: started.run });
  } finally {
    unlockGroup(lock);
  }
}

/** Starts the keeper, which inherits the lock. Interrupted, it takes the mount away again. */
async function start(
  mountpoint: string,
  state: string,
  config: GroupConfig,
  lock: number,
  transport: TransportChoice,
  voice: Voice,
  stop: AbortSignal,
): Promise<Started> {
  const progress = new Progress(mountpoint);
  try {
    const segment = segmentOf(config.log.path);
    if (stop.aborted) throw interrupted(stop, config.name);
    const started = await startKeeper(
      {
        group: config.name,
        mountpoint,
        groupDir: state,
        windowRing: config.windowRing,
        maxWrite: maxPayloadFor(segment),
        transport,
        daemonScript: DAEMON_SCRIPT,
      },
      {
        lockFd: lock,
        progress: (ms) => {
          if (!voice.quiet) progress.note(`reading the log, since ${formatSeconds(Math.floor(ms / 1000))}`);
        },
      },
    );
    // The lock outlives this process; whoever finds it taken is told who holds it.
    noteLockOwner(lock, started.run.keeper);
    if (!stop.aborted) return started;
    await withdraw({ groupDir: state, run: started.run }, mountpoint);
    throw interrupted(stop, config.name);
  } finally {
    progress.end();
  }
}

/** What is less than usual and was not asked for: a transport that does not survive its daemon, a tree for one user. */
function sayTransport({ run }: Started, asked: TransportChoice, voice: Voice): void {
  const usual = run.transport === asked || run.transport === 'kernel';
  if (usual && !run.transportReason.includes(WITHOUT_OTHERS)) return;
  voice.say(`transport ${run.transport}: ${run.transportReason}`);
}

function interrupted(stop: AbortSignal, group: string): Interrupted {
  return new Interrupted(String(stop.reason), `mounting group ${group} was interrupted; nothing was left behind`);
}

/** Options that say otherwise than the configuration are a mistake, not a wish to change it. */
function refuseContradictions(options: MountOptions, config: GroupConfig, state: string): void {
  const first = config.devices[0]!;
  const faults: string[] = [];
  if (options.size !== undefined && options.size !== first.size)
    faults.push(`--size ${formatSize(options.size)}, but ${first.name} has ${formatSize(first.size)}`);
  if (options.logSize !== undefined && options.logSize !== config.log.size)
    faults.push(`--log-size ${formatSize(options.logSize)}, but the log has ${formatSize(config.log.size)}`);
  if (options.durability !== undefined && options.durability !== config.durability)
    faults.push(`--durability ${options.durability}, but the group has ${config.durability}`);
  if (options.onLocalError !== undefined && options.onLocalError !== config.onLocalError)
    faults.push(`--on-local-error ${options.onLocalError}, but the group has ${config.onLocalError}`);
  if (faults.length > 0)
    throw usage(
      `${state}: group ${config.name} exists and was made otherwise (${faults.join('; ')}); ` +
        'leave the option out, or make another group with --group',
    );
}

/** Better said before a gigabyte is written than after. */
function mayMount(dir: string): void {
  if (!mayMountItself()) checkUserMount(dir);
  fs.closeSync(openFuse());
}

/** Segments keep their size when the log gets another one. */
function segmentOf(file: string): number {
  const header = inspectLog(realIo, file);
  if (header?.kind === 'log') return header.value.segment;
  throw header === undefined
    ? new RepError('ENOENT', `${file}: the log is not there; put it back, or restore the group`)
    : headerError(file, header);
}

/** What can be seen without changing anything: the log is a log, the images have their size. */
function checkFiles(config: GroupConfig): void {
  const mem = Mem.anon(2 * 4096);
  const opened = openLogPath(realIo, config.log.path, { readOnly: true });
  try {
    const header = readHeaderOf(realIo, config.log.path, opened, mem);
    if (header.kind !== 'log') throw headerError(config.log.path, header);
  } finally {
    realIo.close('REPLOG:CLOSE', opened.fd);
    mem.unmap();
  }
  for (const device of servedDevices(config)) {
    const info = realIo.stat('APPLY:STAT', device.local);
    if (typeof info === 'number')
      throw new RepError(
        'ENOENT',
        `${device.local}: the local image of ${device.name} is not there; put it back, or restore it from a site`,
      );
    if (info.size < device.size)
      throw new RepError(
        'EINVAL',
        `${device.local}: the local image of ${device.name} is truncated: ${info.size} of ${device.size} bytes; ` +
          'restore it from a site',
      );
  }
}

/** The first words a new user reads: what there is, where it is, what to type next. */
function told(state: string, config: GroupConfig, mountpoint: string, sparse: boolean): string[] {
  const device = config.devices[0]!;
  const rows = [
    ...config.devices.map((d) => [`  ${d.name}`, `${formatSize(d.size)}${sparse ? ', sparse' : ''}`, d.local]),
    ...config.sites.map((s) => [`  site ${s.nr}`, s.policy, s.address]),
    ['  log', formatSize(config.log.size), config.log.path],
  ];
  return [
    `created group ${config.name} in ${state}`,
    ...columns(rows),
    `mounted ${mountpoint}`,
    `next: mkfs.ext4 ${mountpoint}/${device.name}, then mount -o loop ${mountpoint}/${device.name} /mnt/disk;`,
    `      reptool status shows the site follow; reptool umount ${mountpoint} ends it`,
  ];
}

function facts(
  mountpoint: string,
  state: string,
  config: GroupConfig,
  how: { created: boolean; adopted: boolean; run: RunState },
): Mounted {
  return {
    mountpoint,
    group: config.name,
    state,
    created: how.created,
    adopted: how.adopted,
    pids: { keeper: how.run.keeper, daemon: how.run.daemon },
    devices: config.devices.map(({ name, size, local }) => ({ name, size, local })),
    sites: config.sites.map(({ nr, type, address, policy }) => ({ nr, type, address, policy })),
    log: config.log,
    transport: how.run.transport,
    transportReason: how.run.transportReason,
  };
}

/** The end of the daemon's log, in one line. */
function lastWords(state: string): string {
  try {
    const lines = fs.readFileSync(path.join(state, LOG_FILE), 'utf8').split('\n');
    return lines
      .filter((line) => /\S/.test(line) && !/^(?:Node\.js v| +at )/.test(line))
      .slice(-3)
      .join(' / ');
  } catch {
    return '';
  }
}
