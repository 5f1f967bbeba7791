/** Rules G-1 to G-6 of the type registry, one row each at least; test/unit/rules.test.ts knows which must be here. */
import assert from 'node:assert/strict';
import { Defect } from '../../../src/base/errors.js';
import { CLASS, DEFAULT_CLASSES, Registry, typeClass } from '../../../src/registry/registry.js';

const REPLOG = typeClass<string>(CLASS.REPLOG);
const SLINK = typeClass<string>(CLASS.SLINK);
const REGION_HASH = typeClass<string>(CLASS.REGION_HASH);
const NONE = typeClass<string>(DEFAULT_CLASSES);

/** Something to be pinned, which may refuse. */
class Module {
  readonly calls: string[] = [];
  willing = true;
  pin = (): boolean => {
    this.calls.push('pin');
    return this.willing;
  };
  release = (): void => void this.calls.push('release');
}

const rows: { title: string; check(types: Registry): void }[] = [
  {
    title: 'G-1 the classes have their numbers, and one more holds exception stores',
    check: (types) => {
      assert.deepEqual(CLASS, { REPLOG: 0, SLINK: 1, LOG: 2, REGION_HASH: 3, EXCEPTION_STORE: 4 });
      assert.equal(types.classes, 5);
      types.register(typeClass<string>(4), 'persistent', 'x');
    },
  },
  {
    title: 'G-1 the number of classes may be told at start, 0 means the usual one',
    check: () => {
      assert.equal(new Registry(0).classes, DEFAULT_CLASSES);
      const seven = new Registry(7);
      seven.register(typeClass<string>(6), 'odd', 'x');
      assert.deepEqual(seven.list(typeClass<string>(6)), ['odd']);
      assert.throws(() => seven.register(typeClass<string>(7), 'odd', 'x'), { errno: 'EINVAL' });
      const two = new Registry(2);
      assert.throws(() => two.register(REGION_HASH, 'x', 'x'), { errno: 'EINVAL' });
    },
  },
  {
    title: 'G-2 a class that is not there: EINVAL, and nothing is registered',
    check: (types) => {
      assert.throws(() => types.register(NONE, 'ringbuffer', 'x'), {
        errno: 'EINVAL',
        message: 'type "ringbuffer": class 5 is not below 5; name another class',
      });
      for (let nr = 0; nr < DEFAULT_CLASSES; nr++) assert.equal(types.list(typeClass<string>(nr)), null);
    },
  },
  {
    title: 'G-2 a name that is there already in the class: EEXIST; in another class it may stand',
    check: (types) => {
      types.register(SLINK, 'same', 'first');
      assert.throws(() => types.register(SLINK, 'same', 'second'), {
        errno: 'EEXIST',
        message: 'slink type "same" is registered already; choose another name',
      });
      assert.equal(types.get(SLINK, 'same'), 'first');
      types.register(REPLOG, 'same', 'third');
      assert.equal(types.get(REPLOG, 'same'), 'third');
    },
  },
  {
    title: 'G-2 a registration begins with no use, also after an earlier one of that name',
    check: (types) => {
      types.register(SLINK, 'x', 'old');
      types.get(SLINK, 'x');
      types.put(SLINK, 'x');
      types.unregister(SLINK, 'x');
      types.register(SLINK, 'x', 'new');
      assert.equal(types.uses(SLINK, 'x'), 0);
      assert.equal(types.peek(SLINK, 'x'), 'new');
    },
  },
  {
    title: 'G-2 a name that could not stand in a table: EINVAL',
    check: (types) => {
      for (const name of ['', 'with blank', 'Upper', '1st', 'x'.repeat(33)])
        assert.throws(() => types.register(SLINK, name, 'x'), { errno: 'EINVAL' }, JSON.stringify(name));
    },
  },
  {
    title: 'G-3 get of a name that is not there: ENOENT, naming what is',
    check: (types) => {
      const message = 'slink type "blockdev": not registered; there is none';
      assert.throws(() => types.get(SLINK, 'blockdev'), { errno: 'ENOENT', message });
      types.register(REPLOG, 'blockdev', 'x');
      assert.throws(() => types.get(SLINK, 'blockdev'), { errno: 'ENOENT', message });
      types.register(SLINK, 'a', 'x');
      types.register(SLINK, 'b', 'x');
      assert.throws(() => types.get(SLINK, 'c'), { message: 'slink type "c": not registered; there is b, a' });
      assert.throws(() => types.get(NONE, 'a'), { errno: 'ENOENT' });
    },
  },
  {
    title: 'G-3 get counts, put counts back; the module is pinned from the first use to the last',
    check: (types) => {
      const module = new Module();
      types.register(SLINK, 'x', 'entry', module);
      assert.equal(types.get(SLINK, 'x'), 'entry');
      assert.equal(types.get(SLINK, 'x'), 'entry');
      assert.equal(types.uses(SLINK, 'x'), 2);
      types.put(SLINK, 'x');
      assert.deepEqual(module.calls, ['pin']);
      types.put(SLINK, 'x');
      assert.deepEqual(module.calls, ['pin', 'release']);
      assert.equal(types.uses(SLINK, 'x'), 0);
      types.get(SLINK, 'x');
      assert.deepEqual(module.calls, ['pin', 'release', 'pin']);
    },
  },
  {
    title: 'G-3 a module that cannot be pinned: ENOMEM, and no use is counted',
    check: (types) => {
      const module = new Module();
      module.willing = false;
      types.register(SLINK, 'x', 'entry', module);
      assert.throws(() => types.get(SLINK, 'x'), { errno: 'ENOMEM' });
      assert.equal(types.uses(SLINK, 'x'), 0);
      assert.deepEqual(module.calls, ['pin'], 'what was never pinned is not released');
      module.willing = true;
      assert.equal(types.get(SLINK, 'x'), 'entry');
    },
  },
  {
    title: 'G-3 a put without a get is a defect',
    check: (types) => {
      types.register(SLINK, 'x', 'entry');
      assert.throws(() => types.put(SLINK, 'x'), Defect);
      assert.throws(() => types.put(SLINK, 'y'), { errno: 'ENOENT' });
      assert.equal(types.uses(SLINK, 'x'), 0);
    },
  },
  {
    title: 'G-4 unregister: EINVAL for a class that is not there, ENOENT for a name that is not',
    check: (types) => {
      assert.throws(() => types.unregister(NONE, 'x'), { errno: 'EINVAL' });
      assert.throws(() => types.unregister(SLINK, 'x'), { errno: 'ENOENT' });
    },
  },
  {
    title: 'G-4 a type in use stays: ETXTBSY until its last use ended',
    check: (types) => {
      types.register(SLINK, 'x', 'entry');
      types.get(SLINK, 'x');
      assert.throws(() => types.unregister(SLINK, 'x'), {
        errno: 'ETXTBSY',
        message: 'slink type "x" is in use (1); end what uses it first',
      });
      assert.deepEqual(types.list(SLINK), ['x']);
      types.put(SLINK, 'x');
      types.unregister(SLINK, 'x');
      assert.equal(types.list(SLINK), null);
    },
  },
  {
    title: 'G-5 nothing registered: null; otherwise the names of the class, newest first',
    check: (types) => {
      assert.equal(types.list(SLINK), null);
      for (const name of ['blockdev', 'nbd', 'spool']) types.register(SLINK, name, name);
      types.register(REPLOG, 'ringbuffer', 'r');
      assert.deepEqual(types.list(SLINK), ['spool', 'nbd', 'blockdev']);
      types.unregister(SLINK, 'nbd');
      types.register(SLINK, 'nbd', 'again');
      assert.deepEqual(types.list(SLINK), ['nbd', 'spool', 'blockdev']);
      assert.deepEqual(types.list(REPLOG), ['ringbuffer']);
    },
  },
  {
    title: 'G-6 a refused duplicate leaves the use count, the type and its place in the list',
    check: (types) => {
      types.register(SLINK, 'x', 'entry');
      types.register(SLINK, 'y', 'entry');
      types.get(SLINK, 'x');
      types.get(SLINK, 'x');
      assert.throws(() => types.register(SLINK, 'x', 'other'), { errno: 'EEXIST' });
      assert.equal(types.uses(SLINK, 'x'), 2);
      assert.deepEqual(types.list(SLINK), ['y', 'x']);
      types.put(SLINK, 'x');
      types.put(SLINK, 'x');
      types.unregister(SLINK, 'x');
    },
  },
];

describe('registry', () => {
  for (const { title, check } of rows) it(title, () => check(new Registry()));
});
