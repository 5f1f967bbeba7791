/**
 * The configuration of a group, `group.json` in its state folder; see reptool.conf(5).
 *
 * In memory every path is absolute. In the file, paths inside the group's folder are written relative to it,
 * so that a state folder can be moved as a whole.
 */
import * as path from 'node:path';
import { RepError, check, errnoText } from '../base/errors.js';
import { realIo, type Io } from '../base/io.js';
import { GIB, MIB, SECTOR, formatSize } from '../base/units.js';
import { imagePath } from '../slink/folder-devices.js';
import { groupFiles } from './state.js';

export const CONFIG_VERSION = 1;

export const DEFAULT_GROUP = 'default';
export const DEFAULT_LOG_SIZE = GIB;
export const DEFAULT_WINDOW_RING = 64 * MIB;
export const DEFAULT_DEVICE_SIZE = GIB;
export const DEFAULT_RPO_MS = 100;
/** Longest time that a busy group puts its async sites off. */
export const DEFAULT_DEFER_MS = 10_000;
/** How long a writer waits for log space that a working site holds. */
export const DEFAULT_FULL_WAIT_MS = 1000;
export const MIN_LOG_SIZE = 4 * MIB;
/** Slinks are numbered 0…2047; 0 is the local site and stands in `devices[].local`. */
export const MAX_SITE = 2047;
/** Numbers of devices are never used again. */
export const MAX_DEVICE = 65_535;
export const MAX_NAME = 128;
const MAX_WAIT_MS = 86_400_000;

/** `flush`: a write is acknowledged from the window, a flush from the log. `write`: every write from the log. */
export type Durability = 'flush' | 'write';

/** `suspend`: the applier waits for the operator. `detach`: the group goes on without slink 0. */
export type OnLocalError = 'suspend' | 'detach';

export interface DeviceConfig {
  nr: number;
  /** Name of its file in the tree. */
  name: string;
  /** Bytes, a multiple of 512. */
  size: number;
  /** Path of slink 0's image or block device. */
  local: string;
  /**
   * Dirty-log words of a table line, by slink number: `["disk", "/dev/dlog1", "8192", "sync"]`, `["nolog"]`; the usual
   * ones (control/dirty-logs.ts) where absent.
   */
  dirtyLogs: Record<string, string[]>;
  /** Its local image is only reserved, so that it grows without being allocated. */
  sparse?: boolean;
  /** What was begun and is not recorded durably in the log yet (device-changes.ts). */
  pending?: DevicePending;
}

export type DevicePending = { op: 'create' } | { op: 'resize'; size: number } | { op: 'remove' };

/** `durable`: a sync site confirms what is flushed there. `received`: what it holds in memory that outlives it. */
export type Ack = 'durable' | 'received';

/** Limits beyond which an async site makes writers wait (spec R-13, R-32); 0 = no such limit. */
export interface FallBehind {
  /** Writes not yet confirmed. */
  ios: number;
  /** Bytes not yet confirmed, a multiple of 512. */
  size: number;
  /** Age of the oldest write not yet confirmed, milliseconds. */
  timeoutMs: number;
}

export interface SiteConfig {
  nr: number;
  /** Name of a registered slink type: `blockdev`, `nbd`, or one of a plug-in. */
  type: string;
  /**
   * blockdev: the folder with one image per device, or '' where `map` names each. nbd: `HOST:PORT`, IPv6 in
   * brackets. Other types: what their plug-in understands.
   */
  address: string;
  /** By device name. blockdev: a block device or file each. nbd: the export's name, the device's where absent. */
  map: Record<string, string>;
  policy: 'sync' | 'async';
  ack: Ack;
  /** Never dropped to a dirty log: a full ring holds writers until this site has drained. */
  stall: boolean;
  fallBehind: FallBehind;
  /** sync: for how long writers wait for a site that is down before they go on without it; 0 = for ever. */
  syncTimeoutMs: number;
  /** Bytes per second that are sent at most; 0 = unlimited. */
  bandwidth: number;
  /** How long a shipper may gather writes before it sends them while the group is idle, milliseconds. */
  rpoMs: number;
  /**
   * For how long an async site without limits may be put off while the group is busy and the log has room,
   * milliseconds; 0 = never. An rpoMs below the default means never as well.
   */
  deferMs: number;
  /** Bytes per second that a resync and a verify read of the site and write to it at most; 0 = unlimited. */
  resyncRate: number;
  /** What requests of applications may take while they copy or compare, milliseconds; 0 = found out by itself. */
  resyncLatencyMs: number;
  /**
   * How long a writer may wait for log space that this site holds, although it works, before the site is dropped to its
   * dirty logs, milliseconds; 0 = at once.
   */
  fullWaitMs: number;
  /** What only this type of site knows, by its own words (nbd: tls, …). */
  options: Record<string, string>;
}

/** What a site is unless told otherwise. */
export const SITE_DEFAULTS: Omit<SiteConfig, 'nr' | 'type' | 'address'> = {
  map: {},
  policy: 'async',
  ack: 'durable',
  stall: false,
  fallBehind: { ios: 0, size: 0, timeoutMs: 0 },
  syncTimeoutMs: 0,
  bandwidth: 0,
  rpoMs: DEFAULT_RPO_MS,
  deferMs: DEFAULT_DEFER_MS,
  resyncRate: 0,
  resyncLatencyMs: 0,
  fullWaitMs: DEFAULT_FULL_WAIT_MS,
  options: {},
};

/** A site with the usual settings. */
export function plainSite(nr: number, type: string, address: string): SiteConfig {
  return { nr, type, address, ...structuredClone(SITE_DEFAULTS) };
}

/** A device without dirty logs. */
export function plainDevice(nr: number, name: string, size: number, local: string): DeviceConfig {
  return { nr, name, size, local, dirtyLogs: {} };
}

export interface GroupConfig {
  version: 1;
  /** 32 hexadecimal digits; identity of the log and of everything stamped by it. */
  id: string;
  name: string;
  durability: Durability;
  onLocalError: OnLocalError;
  /** Packages or files that bring types of their own (registry). */
  plugins: string[];
  /** `resize`: the size that it is to have, while it grows (reptool replog resize). */
  log: { path: string; size: number; resize?: number };
  /** Bytes of the window's payload ring, a power of two. */
  windowRing: number;
  devices: DeviceConfig[];
  /** Numbers from here on were never used; absent: those behind the largest of `devices`. */
  nextDevice?: number;
  /** The devices when the log began, from when on it tells of all changes; absent: none was ever made. */
  firstDevices?: { nr: number; name: string; size: number }[];
  sites: SiteConfig[];
}

/** What `reptool mount DIR` makes where nothing is configured: disk0, a local image, one site. */
export function defaultConfig(dir: string, id: string, name: string = DEFAULT_GROUP): GroupConfig {
  const files = groupFiles(dir);
  return {
    version: CONFIG_VERSION,
    id,
    name,
    durability: 'flush',
    onLocalError: 'suspend',
    plugins: [],
    log: { path: files.log, size: DEFAULT_LOG_SIZE },
    windowRing: DEFAULT_WINDOW_RING,
    devices: [plainDevice(0, 'disk0', DEFAULT_DEVICE_SIZE, path.join(files.images, 'disk0'))],
    nextDevice: 1,
    sites: [plainSite(1, 'blockdev', path.join(dir, 'site1'))],
  };
}

/** Why `name` cannot name a device or a group, or undefined where it can. */
export function nameFault(name: string): string | undefined {
  if (name === '') return 'a name must not be empty';
  if (Buffer.byteLength(name) > MAX_NAME) return `a name has at most ${MAX_NAME} bytes`;
  if (name.startsWith('.')) return 'a name must not begin with a dot';
  if (name.includes('/')) return 'a name must not contain a slash';
  if (name.includes('@')) return 'a name must not contain @, which separates a device from its snapshot';
  // Status lines, tables and events are words separated by blanks.
  if (/[\s\p{Cc}]/u.test(name)) return 'a name must not contain blanks or control characters';
  return undefined;
}

/** Throws EINVAL naming `where` (a file, an option), the word and the reason. */
export function checkName(name: string, where: string): void {
  const fault = nameFault(name);
  if (fault !== undefined) throw new RepError('EINVAL', `${where}: "${name}": ${fault}; choose another name`);
}

/** Checks a configuration that a program put together; throws RepError EINVAL. */
export function checkConfig(config: GroupConfig, where: string): GroupConfig {
  return parseConfig(config, where, '/');
}

/** Loads `dir`/group.json. ENOENT where there is none, EINVAL where it cannot be used. */
export function loadConfig(dir: string, io: Io = realIo): GroupConfig {
  const file = groupFiles(dir).config;
  const text = io.readFile('CONFIG:READ', file);
  if (typeof text === 'number') {
    if (text === -2)
      throw new RepError('ENOENT', `${file}: no such group; "reptool mount" makes one, --state names another folder`);
    throw new RepError('EIO', `${file}: cannot be read: ${errnoText(text)}; check its owner and its disk`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RepError('EINVAL', `${file}: not JSON: ${reason}; correct it or restore a copy`, { cause });
  }
  return parseConfig(value, file, dir);
}

/** Replaces `dir`/group.json durably, after checking what it writes. */
export function saveConfig(dir: string, config: GroupConfig, io: Io = realIo): void {
  const file = groupFiles(dir).config;
  checkConfig(config, file);
  const inside = (p: string): string => {
    const rel = path.relative(dir, p);
    return rel === '' || rel === '..' || rel.startsWith('../') || path.isAbsolute(rel) ? p : rel;
  };
  const stored: GroupConfig = {
    ...config,
    log: { ...config.log, path: inside(config.log.path) },
    devices: config.devices.map((d) => ({ ...d, local: inside(d.local) })),
    sites: config.sites.map((s) => {
      const paths = s.type === 'blockdev';
      const map = paths ? Object.fromEntries(Object.entries(s.map).map(([k, v]) => [k, inside(v)])) : s.map;
      return { ...s, address: paths && s.address !== '' ? inside(s.address) : s.address, map };
    }),
  };
  check(io.replaceFile('CONFIG:REPLACE', file, `${JSON.stringify(stored, null, 2)}\n`), 'writing', file);
}

// --- validation ------------------------------------------------------------------------------------------

type Fields = Record<string, unknown>;

/** Reads one object of the file; knows its name for messages, and refuses keys that nobody understands. */
class Reader {
  private readonly fields: Fields;
  private readonly file: string;
  private readonly at: string;
  private readonly seen = new Set<string>();

  constructor(value: unknown, file: string, at: string) {
    this.file = file;
    this.at = at;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.fault('', `expected an object, found ${kind(value)}`);
    this.fields = value as Fields;
  }

  fault(key: string, reason: string): RepError {
    const word = [this.at, key].filter(Boolean).join('.');
    return new RepError('EINVAL', `${this.file}: ${word === '' ? '' : `${word}: `}${reason}; see reptool.conf(5)`);
  }

  private take(key: string): unknown {
    this.seen.add(key);
    return this.fields[key];
  }

  /** A value that is read later. */
  peek(key: string): unknown {
    return this.fields[key];
  }

  text(key: string): string {
    const value = this.take(key);
    if (typeof value !== 'string') throw this.fault(key, `expected text, found ${kind(value)}`);
    return value;
  }

  name(key: string): string {
    const value = this.text(key);
    const fault = nameFault(value);
    if (fault !== undefined) throw this.fault(key, `"${value}": ${fault}`);
    return value;
  }

  path(key: string, base: string): string {
    const value = this.text(key);
    if (value === '' || value.includes('\0')) throw this.fault(key, `"${value}" is not a path`);
    return path.resolve(base, value);
  }

  word<T extends string>(key: string, words: readonly T[]): T {
    const value = this.text(key);
    const found = words.find((w) => w === value);
    if (found === undefined) throw this.fault(key, `"${value}" is not one of ${words.join(', ')}`);
    return found;
  }

  whole(key: string, min: number, max: number): number {
    const value = this.take(key);
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      throw this.fault(key, `expected a whole number, found ${kind(value)}`);
    if (value < min || value > max) throw this.fault(key, `${value} is not between ${min} and ${max}`);
    return value;
  }

  size(key: string, min: number): number {
    const value = this.whole(key, 0, Number.MAX_SAFE_INTEGER);
    if (value % SECTOR !== 0) throw this.fault(key, `${value} bytes are not a multiple of ${SECTOR}`);
    if (value < min) throw this.fault(key, `${formatSize(value)} is less than the ${formatSize(min)} needed`);
    return value;
  }

  /** Left out or as `read` has it. */
  optional<T>(key: string, otherwise: T, read: (key: string) => T): T {
    return this.fields[key] === undefined ? otherwise : read(key);
  }

  flag(key: string): boolean {
    const value = this.take(key);
    if (typeof value !== 'boolean') throw this.fault(key, `expected true or false, found ${kind(value)}`);
    return value;
  }

  texts(key: string): string[] {
    const value = this.take(key);
    if (!Array.isArray(value) || !value.every((v): v is string => typeof v === 'string'))
      throw this.fault(key, `expected a list of texts, found ${kind(value)}`);
    return [...value];
  }

  /** An object used as a map from names to what `read` makes of each. */
  names<T>(key: string, read: (r: Reader, name: string) => T): Record<string, T> {
    const value = this.take(key);
    const at = [this.at, key].filter(Boolean).join('.');
    const reader = new Reader(value, this.file, at);
    const result = Object.fromEntries(Object.keys(value as Fields).map((name) => [name, read(reader, name)]));
    reader.end();
    return result;
  }

  list<T>(key: string, read: (r: Reader) => T): T[] {
    const value = this.take(key);
    if (!Array.isArray(value)) throw this.fault(key, `expected a list, found ${kind(value)}`);
    return value.map((item: unknown, i) => {
      const reader = new Reader(item, this.file, [this.at, `${key}[${i}]`].filter(Boolean).join('.'));
      const result = read(reader);
      reader.end();
      return result;
    });
  }

  inner<T>(key: string, read: (r: Reader) => T): T {
    const reader = new Reader(this.take(key), this.file, [this.at, key].filter(Boolean).join('.'));
    const result = read(reader);
    reader.end();
    return result;
  }

  /** A word of a later version must not be dropped silently by the next save. */
  end(): void {
    const stranger = Object.keys(this.fields).find((key) => !this.seen.has(key));
    if (stranger !== undefined) throw this.fault(stranger, 'unknown word; correct it or use a newer reptool');
  }
}

function kind(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : JSON.stringify(value);
}

function parseConfig(value: unknown, file: string, base: string): GroupConfig {
  const r = new Reader(value, file, '');
  const version = r.whole('version', 0, Number.MAX_SAFE_INTEGER);
  if (version !== CONFIG_VERSION)
    throw new RepError(
      'EINVAL',
      `${file}: version: ${version} is not known, this program knows ${CONFIG_VERSION}; use the reptool that wrote it`,
    );
  const id = r.text('id');
  if (!/^[0-9a-f]{32}$/.test(id)) throw r.fault('id', `"${id}" is not 32 lower-case hexadecimal digits`);
  const config: GroupConfig = {
    version: CONFIG_VERSION,
    id,
    name: r.name('name'),
    durability: r.word('durability', ['flush', 'write'] as const),
    onLocalError: r.optional('onLocalError', 'suspend', (k) => r.word(k, ['suspend', 'detach'] as const)),
    plugins: r.optional('plugins', [], (k) => r.texts(k)),
    log: r.inner('log', (log) => ({
      path: log.path('path', base),
      size: log.size('size', MIN_LOG_SIZE),
      ...log.optional<Pick<GroupConfig['log'], 'resize'>>('resize', {}, (k) => ({ resize: log.size(k, MIN_LOG_SIZE) })),
    })),
    windowRing: r.whole('windowRing', 1 * MIB, 4 * GIB),
    devices: r.list('devices', (d) => ({
      nr: d.whole('nr', 0, MAX_DEVICE),
      name: d.name('name'),
      size: d.size('size', SECTOR),
      local: d.path('local', base),
      dirtyLogs: d.optional('dirtyLogs', {}, (k) => d.names(k, (inner, nr) => inner.texts(nr))),
      ...d.optional<Pick<DeviceConfig, 'sparse'>>('sparse', {}, (k) => (d.flag(k) ? { sparse: true } : {})),
      ...d.optional<Pick<DeviceConfig, 'pending'>>('pending', {}, (k) => ({ pending: d.inner(k, readPending) })),
    })),
    ...r.optional<Pick<GroupConfig, 'nextDevice'>>('nextDevice', {}, (k) => ({
      nextDevice: r.whole(k, 0, MAX_DEVICE + 1),
    })),
    ...r.optional<Pick<GroupConfig, 'firstDevices'>>('firstDevices', {}, (k) => ({
      firstDevices: r.list(k, (d) => ({
        nr: d.whole('nr', 0, MAX_DEVICE),
        name: d.name('name'),
        size: d.size('size', SECTOR),
      })),
    })),
    sites: r.list('sites', (s) => readSite(s, base)),
  };
  r.end();
  if (Buffer.byteLength(config.name) > 63) throw r.fault('name', 'a group name has at most 63 bytes');
  if (!Number.isInteger(Math.log2(config.windowRing)))
    throw r.fault('windowRing', `${config.windowRing} is not a power of two`);
  if (config.devices.length === 0) throw r.fault('devices', 'a group needs at least one device');
  unique(r, 'devices', 'nr', config.devices);
  unique(r, 'devices', 'name', config.devices);
  unique(r, 'devices', 'local', config.devices);
  unique(r, 'sites', 'nr', config.sites);
  uniquePaths(r, config);
  return config;
}

function readPending(p: Reader): DevicePending {
  const op = p.word('op', ['create', 'resize', 'remove'] as const);
  return op === 'resize' ? { op, size: p.size('size', SECTOR) } : { op };
}

function readSite(s: Reader, base: string): SiteConfig {
  const nr = s.whole('nr', 1, MAX_SITE);
  const type = s.text('type');
  if (!/^[a-z][a-z0-9-]{0,31}$/.test(type)) throw s.fault('type', `"${type}" is not the name of a type`);
  const paths = type === 'blockdev';
  const site: SiteConfig = {
    ...plainSite(nr, type, ''),
    address: paths && s.peek('address') !== '' ? s.path('address', base) : s.text('address'),
    map: s.optional('map', {}, (k) => s.names(k, (inner, name) => (paths ? inner.path(name, base) : inner.text(name)))),
    policy: s.word('policy', ['sync', 'async'] as const),
    ack: s.optional('ack', 'durable', (k) => s.word(k, ['durable', 'received'] as const)),
    stall: s.optional('stall', false, (k) => s.flag(k)),
    fallBehind: s.optional('fallBehind', SITE_DEFAULTS.fallBehind, (k) =>
      s.inner(k, (f) => ({
        ios: f.whole('ios', 0, Number.MAX_SAFE_INTEGER),
        size: f.size('size', 0),
        timeoutMs: f.whole('timeoutMs', 0, Number.MAX_SAFE_INTEGER),
      })),
    ),
    syncTimeoutMs: s.optional('syncTimeoutMs', 0, (k) => s.whole(k, 0, MAX_WAIT_MS)),
    bandwidth: s.optional('bandwidth', 0, (k) => s.whole(k, 0, Number.MAX_SAFE_INTEGER)),
    rpoMs: s.whole('rpoMs', 0, MAX_WAIT_MS),
    deferMs: s.optional('deferMs', DEFAULT_DEFER_MS, (k) => s.whole(k, 0, MAX_WAIT_MS)),
    resyncRate: s.optional('resyncRate', 0, (k) => s.whole(k, 0, Number.MAX_SAFE_INTEGER)),
    resyncLatencyMs: s.optional('resyncLatencyMs', 0, (k) => s.whole(k, 0, MAX_WAIT_MS)),
    fullWaitMs: s.optional('fullWaitMs', DEFAULT_FULL_WAIT_MS, (k) => s.whole(k, 0, MAX_WAIT_MS)),
    options: s.optional('options', {}, (k) => s.names(k, (inner, name) => inner.text(name))),
  };
  if (paths && (site.address === '') === (Object.keys(site.map).length === 0))
    throw s.fault('address', 'a blockdev site has either the folder of its images or a map, one path per device');
  if (site.policy === 'sync' && hasLimit(site.fallBehind))
    throw s.fault('fallBehind', 'a sync site never falls behind; remove the limit or make it async');
  return site;
}

/** A site without a journal, which is a prefix of history only behind its open window. */
export function isRaw(site: SiteConfig): boolean {
  return site.type === 'nbd' || (site.type === 'blockdev' && site.address === '');
}

export function hasLimit(f: FallBehind): boolean {
  return f.ios > 0 || f.size > 0 || f.timeoutMs > 0;
}

/** A site or a dirty log on the local image's or another one's path would write over it. */
function uniquePaths(r: Reader, config: GroupConfig): void {
  const used = new Map(config.devices.map((d, i): [string, string] => [d.local, `devices[${i}].local`]));
  used.set(config.log.path, 'log.path');
  const claim = (path: string, key: string): void => {
    const before = used.get(path);
    if (before !== undefined) throw r.fault(key, `${path} is used by ${before} already`);
    used.set(path, key);
  };
  config.devices.forEach(({ dirtyLogs }, i) => {
    for (const [nr, [, file = '']] of Object.entries(dirtyLogs))
      if (file.startsWith('/')) claim(file, `devices[${i}].dirtyLogs.${nr}`);
  });
  config.sites.forEach((site, i) => {
    if (site.type === 'nbd')
      for (const { name } of config.devices)
        claim(`${site.address}/${Object.hasOwn(site.map, name) ? site.map[name]! : name}`, `sites[${i}].map.${name}`);
    if (site.type !== 'blockdev') return;
    if (site.address !== '') {
      claim(site.address, `sites[${i}].address`);
      // In a folder of its own an image of the site would still be a local one, if that lies there by its name.
      for (const { name } of config.devices) claim(imagePath(site.address, name), `sites[${i}].address`);
    }
    for (const [name, file] of Object.entries(site.map)) claim(file, `sites[${i}].map.${name}`);
  });
}

function unique<T, K extends keyof T & string>(r: Reader, list: string, key: K, items: readonly T[]): void {
  const first = new Map<T[K], number>();
  items.forEach((item, i) => {
    const before = first.get(item[key]);
    if (before !== undefined)
      throw r.fault(`${list}[${i}].${key}`, `${String(item[key])} is used by ${list}[${before}] already`);
    first.set(item[key], i);
  });
}
