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
import { groupFiles } from './state.js';

export const CONFIG_VERSION = 1;

export const DEFAULT_GROUP = 'default';
export const DEFAULT_LOG_SIZE = GIB;
export const DEFAULT_WINDOW_RING = 64 * MIB;
export const DEFAULT_DEVICE_SIZE = GIB;
export const DEFAULT_RPO_MS = 100;
export const MIN_LOG_SIZE = 4 * MIB;
/** Slinks are numbered 0…2047; 0 is the local site and stands in `devices[].local`. */
export const MAX_SITE = 2047;
export const MAX_DEVICE = 4095;
export const MAX_NAME = 128;

/** `flush`: a write is acknowledged from the window, a flush from the log. `write`: every write from the log. */
export type Durability = 'flush' | 'write';

export interface DeviceConfig {
  nr: number;
  /** Name of its file in the tree. */
  name: string;
  /** Bytes, a multiple of 512. */
  size: number;
  /** Path of slink 0's image or block device. */
  local: string;
}

export interface SiteConfig {
  nr: number;
  type: 'blockdev';
  /** For blockdev: the folder with one image per device. */
  address: string;
  policy: 'async';
  /** How long a shipper may gather writes before it sends them, milliseconds. */
  rpoMs: number;
}

export interface GroupConfig {
  version: 1;
  /** 32 hexadecimal digits; identity of the log and of everything stamped by it. */
  id: string;
  name: string;
  durability: Durability;
  log: { path: string; size: number };
  /** Bytes of the window's payload ring, a power of two. */
  windowRing: number;
  devices: DeviceConfig[];
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
    log: { path: files.log, size: DEFAULT_LOG_SIZE },
    windowRing: DEFAULT_WINDOW_RING,
    devices: [{ nr: 0, name: 'disk0', size: DEFAULT_DEVICE_SIZE, local: path.join(files.images, 'disk0') }],
    sites: [{ nr: 1, type: 'blockdev', address: path.join(dir, 'site1'), policy: 'async', rpoMs: DEFAULT_RPO_MS }],
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
    sites: config.sites.map((s) => ({ ...s, address: inside(s.address) })),
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
    log: r.inner('log', (log) => ({ path: log.path('path', base), size: log.size('size', MIN_LOG_SIZE) })),
    windowRing: r.whole('windowRing', 1 * MIB, 4 * GIB),
    devices: r.list('devices', (d) => ({
      nr: d.whole('nr', 0, MAX_DEVICE),
      name: d.name('name'),
      size: d.size('size', SECTOR),
      local: d.path('local', base),
    })),
    sites: r.list('sites', (s) => ({
      nr: s.whole('nr', 1, MAX_SITE),
      type: s.word('type', ['blockdev'] as const),
      address: s.path('address', base),
      policy: s.word('policy', ['async'] as const),
      rpoMs: s.whole('rpoMs', 0, 86_400_000),
    })),
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
  unique(r, 'sites', 'address', config.sites);
  return config;
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
