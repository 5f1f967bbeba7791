/** What plug-ins are given, see reptool-plugins(7), and the types of a group: the product's and its plug-ins'. */
import { ERRNO, RepError } from '../base/errors.js';
import { loadPlugin, type PluginHostMaker } from '../registry/plugins.js';
import type { Registry } from '../registry/registry.js';
import { completeSlink, cursorBehind, pluginRecords, type PluginSlink } from '../slink/plugin-site.js';
import { SLINK } from '../slink/types.js';
import { productTypes } from './types.js';

/** Grows when a plug-in could no longer rely on what it was told before. */
export const PLUGIN_API = 1;

export interface PluginHost {
  readonly api: typeof PLUGIN_API;
  readonly errno: typeof ERRNO;
  /** `slink` is the class that plug-ins can bring types of. */
  register(className: 'slink', name: string, entry: PluginSlink): void;
  readonly records: typeof pluginRecords;
  readonly cursorBehind: typeof cursorBehind;
}

const makeHost: PluginHostMaker = (registering): PluginHost => ({
  api: PLUGIN_API,
  errno: ERRNO,
  register: (className, name, entry) => {
    if (className !== 'slink')
      throw new RepError('EINVAL', `class "${String(className)}": plug-ins bring types of class slink in this version`);
    registering.register(SLINK, name, completeSlink(name, entry));
  },
  records: pluginRecords,
  cursorBehind,
});

/** Loads plug-ins in their order. Throws RepError at the first that fails, without a trace of that one. */
export async function loadPlugins(types: Registry, names: readonly string[]): Promise<void> {
  for (const name of names) await loadPlugin(types, name, makeHost);
}

/** The types for a thread of a daemon: a plug-in that fails is told and left out, and its sites fail. */
export async function daemonTypes(names: readonly string[], tell: (what: string) => void): Promise<Registry> {
  const types = productTypes();
  for (const name of names) {
    try {
      await loadPlugin(types, name, makeHost);
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      tell(error.message);
    }
  }
  return types;
}
