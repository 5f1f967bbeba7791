/**
 * Types by class and name: kinds of replog, of site link, of dirty log, … The registry knows no type itself;
 * each room declares the contract of its class as a `TypeClass` and whoever puts the program together
 * (control/types.ts) registers what there is.
 *
 *   class             nr   contract
 *   replog             0   replog/types.ts
 *   slink              1   slink/types.ts
 *   dirty-log          2   dirtylog/types.ts
 *   region-hash        3   none yet
 *   exception-store    4   none yet
 *
 * A type that is used is counted: `get` before, `put` after. What stands behind a type (a module, a library) is
 * pinned while its count is above zero. One registry belongs to one thread.
 */
import { RepError, assert } from '../base/errors.js';

export const CLASS = { REPLOG: 0, SLINK: 1, LOG: 2, REGION_HASH: 3, EXCEPTION_STORE: 4 } as const;

/** How many classes there are unless told otherwise: the end marker of the list above. */
export const DEFAULT_CLASSES = 5;

/** Names of the classes, for people, by number. */
export const CLASS_NAMES = ['replog', 'slink', 'dirty-log', 'region-hash', 'exception-store'] as const;

/** A class and, for the compiler, the contract that its types keep. */
export interface TypeClass<T> {
  readonly nr: number;
  readonly contract?: T;
}

export function typeClass<T>(nr: number): TypeClass<T> {
  return { nr };
}

/** What must not go away while a type is used. */
export interface Backing {
  /** False where it cannot be held: the type is not to be had then. Called when the count leaves zero. */
  pin(): boolean;
  /** Called when the count is zero again. */
  release(): void;
}

interface Registered {
  name: string;
  entry: unknown;
  backing: Backing | undefined;
  uses: number;
}

export class Registry {
  readonly classes: number;
  /** Per class, newest first. */
  private readonly types: Registered[][];

  /** `classes` 0 = the usual number. */
  constructor(classes = 0) {
    assert(Number.isSafeInteger(classes) && classes >= 0, `${classes} is no number of classes`);
    this.classes = classes === 0 ? DEFAULT_CLASSES : classes;
    this.types = Array.from({ length: this.classes }, () => []);
  }

  /** EINVAL: no such class, or a name that cannot stand in a table. EEXIST: the class has that name already. */
  register<T>(type: TypeClass<T>, name: string, entry: T, backing?: Backing): void {
    const list = this.listOf(type, name);
    if (!/^[a-z][a-z0-9-]{0,31}$/.test(name))
      throw new RepError(
        'EINVAL',
        `type "${name}": not a name; use 1 to 32 of a-z, 0-9 and -, beginning with a letter`,
      );
    if (list.some((t) => t.name === name))
      throw new RepError('EEXIST', `${className(type.nr)} type "${name}" is registered already; choose another name`);
    list.unshift({ name, entry, backing, uses: 0 });
  }

  /**
   * Counts one more use and returns the type. ENOENT: not registered. ENOMEM: what stands behind it cannot be
   * pinned.
   */
  get<T>(type: TypeClass<T>, name: string): T {
    const found = this.must(type, name);
    if (found.uses === 0 && found.backing?.pin() === false)
      throw new RepError(
        'ENOMEM',
        `${className(type.nr)} type "${name}": its module cannot be held; see what it says, then try again`,
      );
    found.uses++;
    return found.entry as T;
  }

  /** Ends a use that `get` began. */
  put<T>(type: TypeClass<T>, name: string): void {
    const found = this.must(type, name);
    assert(found.uses > 0, `${className(type.nr)} type "${name}" was put more often than got`);
    found.uses--;
    if (found.uses === 0) found.backing?.release();
  }

  /** EINVAL: no such class. ENOENT: not registered. ETXTBSY: in use, and it stays. */
  unregister<T>(type: TypeClass<T>, name: string): void {
    const list = this.listOf(type, name);
    const found = this.must(type, name);
    if (found.uses > 0)
      throw new RepError(
        'ETXTBSY',
        `${className(type.nr)} type "${name}" is in use (${found.uses}); end what uses it first`,
      );
    list.splice(list.indexOf(found), 1);
  }

  /** Names in the class, newest first; null where there are none. */
  list<T>(type: TypeClass<T>): string[] | null {
    const names = (this.types[type.nr] ?? []).map((t) => t.name);
    return names.length === 0 ? null : names;
  }

  /** The type without counting a use: for whoever only looks at its words. */
  peek<T>(type: TypeClass<T>, name: string): T | undefined {
    return this.find(type, name)?.entry as T | undefined;
  }

  /** Uses begun and not ended. */
  uses<T>(type: TypeClass<T>, name: string): number {
    return this.must(type, name).uses;
  }

  private find<T>(type: TypeClass<T>, name: string): Registered | undefined {
    return this.types[type.nr]?.find((t) => t.name === name);
  }

  private must<T>(type: TypeClass<T>, name: string): Registered {
    const found = this.find(type, name);
    if (found !== undefined) return found;
    const known = this.list(type);
    const there = known === null ? 'there is none' : `there is ${known.join(', ')}`;
    throw new RepError('ENOENT', `${className(type.nr)} type "${name}": not registered; ${there}`);
  }

  private listOf<T>(type: TypeClass<T>, name: string): Registered[] {
    const list = this.types[type.nr];
    if (list === undefined)
      throw new RepError('EINVAL', `type "${name}": class ${type.nr} is not below ${this.classes}; name another class`);
    return list;
  }
}

export function className(nr: number): string {
  return CLASS_NAMES[nr] ?? `class ${nr}`;
}
