/** The types that come with the product, and how many classes they are registered in. */
import { RepError } from '../base/errors.js';
import { DIRTY_LOG } from '../dirtylog/types.js';
import { CORE, DISK, NOLOG } from '../dirtylog/words.js';
import { CLASS_NAMES, DEFAULT_CLASSES, Registry, typeClass } from '../registry/registry.js';
import { RINGBUFFER } from '../replog/ringbuffer.js';
import { REPLOG } from '../replog/types.js';
import { BLOCKDEV } from '../slink/blockdev.js';
import { NBD } from '../slink/nbd.js';
import { SLINK } from '../slink/types.js';

/** Number of classes at start-up: as many as the product needs, or more for plug-ins that bring one. */
export const CLASSES_VARIABLE = 'REPTOOL_TYPE_CLASSES';

/** A registry with the types of the product. EINVAL where the environment asks for too few classes. */
export function productTypes(env: NodeJS.ProcessEnv = process.env): Registry {
  const types = new Registry(classesFrom(env[CLASSES_VARIABLE] ?? ''));
  types.register(REPLOG, 'ringbuffer', RINGBUFFER);
  types.register(SLINK, 'blockdev', BLOCKDEV);
  types.register(SLINK, 'nbd', NBD);
  types.register(DIRTY_LOG, 'nolog', NOLOG);
  types.register(DIRTY_LOG, 'core', CORE);
  types.register(DIRTY_LOG, 'disk', DISK);
  return types;
}

function classesFrom(word: string): number {
  if (word === '') return 0;
  const n = /^\d{1,4}$/.test(word) ? Number(word) : NaN;
  if (n === 0 || n >= DEFAULT_CLASSES) return n;
  throw new RepError(
    'EINVAL',
    `${CLASSES_VARIABLE}=${word}: not a number from ${DEFAULT_CLASSES} to 9999, or 0 for the default; unset it`,
  );
}

/** Names of all types by the name of their class, newest first, as status shows them. */
export function typeNames(types: Registry): Record<string, string[]> {
  const names: Record<string, string[]> = {};
  for (let nr = 0; nr < types.classes; nr++)
    names[CLASS_NAMES[nr] ?? `class-${nr}`] = types.list(typeClass<unknown>(nr)) ?? [];
  return names;
}
