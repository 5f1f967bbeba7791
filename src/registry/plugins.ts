/**
 * Plug-ins: packages or files that bring types of their own. One is a module that exports `register`; it gets a
 * host, which says what it can be given. A plug-in is taken whole or not at all: what it registered before it
 * failed is taken out again.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import { RepError } from '../base/errors.js';
import type { Registry, TypeClass } from './registry.js';

/** Longest time for a plug-in to load and register, milliseconds. */
const LOAD_MS = 10_000;

/** What is registered through it belongs to the plug-in that is being loaded. */
export interface Registering {
  register<T>(type: TypeClass<T>, name: string, entry: T): void;
}

/** Makes the host object that `register` of a plug-in is called with. */
export type PluginHostMaker = (registering: Registering, plugin: string) => object;

/** The name by which a plug-in is kept: a path becomes absolute, a package's name stays. */
export function pluginName(word: string, cwd = process.cwd()): string {
  return isPath(word) ? path.resolve(cwd, word) : word;
}

function isPath(word: string): boolean {
  return word.startsWith('.') || word.startsWith('/') || /\.[cm]?js$/.test(word);
}

/** Loads one plug-in into `types`. Throws RepError, and then nothing has changed. */
export async function loadPlugin(types: Registry, name: string, makeHost: PluginHostMaker): Promise<void> {
  const done: { type: TypeClass<unknown>; name: string }[] = [];
  let open = true;
  const registering: Registering = {
    register: (type, typeName, entry) => {
      if (!open)
        throw new RepError('EINVAL', `type "${typeName}": registered too late; register it before register() ends`);
      types.register(type, typeName, entry);
      done.push({ type, name: typeName });
    },
  };
  try {
    await bounded(name, run(name, makeHost(registering, name)));
    if (done.length === 0) throw fault('EINVAL', name, 'registers no type', 'see reptool-plugins(7)');
  } catch (error) {
    for (const { type, name: typeName } of done.reverse()) types.unregister(type, typeName);
    if (!(error instanceof RepError)) throw error;
    throw error.message.startsWith(`plug-in ${name}`) ? error : fault(error.errno, name, error.message, '');
  } finally {
    open = false;
  }
}

async function run(name: string, host: object): Promise<void> {
  if (path.isAbsolute(name) && !fs.existsSync(name))
    throw fault('ENOENT', name, 'not there', 'put the file back, or correct the name');
  let module: { register?: unknown };
  try {
    module = (await import(path.isAbsolute(name) ? pathToFileURL(name).href : name)) as { register?: unknown };
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND' && !path.isAbsolute(name);
    if (missing)
      throw fault('ENOENT', name, 'no such package', 'install it beside reptool, or name a file by its path', cause);
    throw fault('EINVAL', name, `loading it failed: ${reason(cause)}`, 'correct it, or leave it out', cause);
  }
  if (typeof module.register !== 'function')
    throw fault('EINVAL', name, 'has no function "register"', 'see reptool-plugins(7)');
  try {
    await (module.register as (host: object) => unknown)(host);
  } catch (cause) {
    if (cause instanceof RepError) throw cause;
    throw fault('EINVAL', name, `registering failed: ${reason(cause)}`, 'correct it, or leave it out', cause);
  }
}

function bounded(name: string, work: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(fault('ETIMEDOUT', name, `did not register within ${LOAD_MS / 1000} s`, 'correct it')),
      LOAD_MS,
    );
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function fault(errno: RepError['errno'], name: string, what: string, next: string, cause?: unknown): RepError {
  return new RepError(errno, `plug-in ${name}: ${what}${next === '' ? '' : `; ${next}`}`, { cause });
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
