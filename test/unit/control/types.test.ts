import assert from 'node:assert/strict';
import { plainSite } from '../../../src/control/config.js';
import { productTypes, typeNames } from '../../../src/control/types.js';
import { makeSite } from '../../../src/daemon/make-site.js';
import { realClock } from '../../../src/base/clock.js';
import { realIo } from '../../../src/base/io.js';
import { DIRTY_LOG } from '../../../src/dirtylog/types.js';
import { SLINK, type SlinkAround } from '../../../src/slink/types.js';

const AROUND: SlinkAround = { stamp: '/nowhere', taken: [], nbd: () => assert.fail('no nbd site here') };

describe('types', () => {
  it('the product registers what it has, newest first', () => {
    assert.deepEqual(typeNames(productTypes({})), {
      replog: ['ringbuffer'],
      slink: ['nbd', 'blockdev'],
      'dirty-log': ['disk', 'core', 'nolog'],
      'region-hash': [],
      'exception-store': [],
    });
  });

  it('the number of classes follows the environment, and is refused where it is too small', () => {
    assert.equal(productTypes({ REPTOOL_TYPE_CLASSES: '0' }).classes, 5);
    const eight = productTypes({ REPTOOL_TYPE_CLASSES: '8' });
    assert.equal(eight.classes, 8);
    assert.deepEqual(typeNames(eight)['class-7'], []);
    for (const word of ['4', '-1', 'many', '10000'])
      assert.throws(() => productTypes({ REPTOOL_TYPE_CLASSES: word }), {
        errno: 'EINVAL',
        message: `REPTOOL_TYPE_CLASSES=${word}: not a number from 5 to 9999, or 0 for the default; unset it`,
      });
  });

  it('makeSite counts the use of a type until it is put', () => {
    const types = productTypes({});
    const made = makeSite(types, plainSite(1, 'blockdev', '/nowhere'), realIo, realClock, AROUND);
    assert.equal(made.site.type, 'blockdev');
    assert.throws(() => types.unregister(SLINK, 'blockdev'), { errno: 'ETXTBSY' });
    made.put();
    types.unregister(SLINK, 'blockdev');
  });

  it('makeSite refuses an unknown type, and counts no use of one whose site cannot be', () => {
    const types = productTypes({});
    assert.throws(() => makeSite(types, plainSite(1, 'tape', 'x'), realIo, realClock, AROUND), {
      errno: 'ENOENT',
      message: 'slink type "tape": not registered; there is nbd, blockdev',
    });
    const refusing = { ...types.peek(SLINK, 'blockdev')!, check: () => 'address: not to my liking; choose another' };
    types.register(SLINK, 'picky', refusing);
    assert.throws(() => makeSite(types, plainSite(3, 'picky', 'x'), realIo, realClock, AROUND), {
      errno: 'EINVAL',
      message: 'site 3: address: not to my liking; choose another',
    });
    assert.equal(types.uses(SLINK, 'picky'), 0);
  });

  const dirtyLogs: { words: string[]; is?: object; error?: RegExp }[] = [
    { words: ['nolog'], is: { region: undefined, device: undefined, start: undefined } },
    { words: ['nolog', '8192'], error: /^nolog: 8192: it takes no words$/ },
    { words: ['core', '128'], is: { region: 128, device: undefined, start: undefined } },
    { words: ['core', '8192', 'sync'], is: { region: 8192, device: undefined, start: 'sync' } },
    { words: ['core'], error: /^core: no region size: write <region size> \[sync\|nosync\]$/ },
    { words: ['core', '64'], error: /^core: region size 64: a region has at least 128 sectors$/ },
    { words: ['core', '3000'], error: /^core: region size 3000: use a power of two$/ },
    { words: ['core', '8k'], error: /^core: "8k": a region size is a number of sectors$/ },
    { words: ['core', '8192', 'maybe'], error: /^core: "maybe": write sync or nosync$/ },
    { words: ['core', '8192', 'sync', 'x'], error: /^core: "x": only <region size> \[sync\|nosync\] is known$/ },
    { words: ['disk', '/dev/d', '8192', 'nosync'], is: { region: 8192, device: '/dev/d', start: 'nosync' } },
    { words: ['disk', '8192'], is: { region: 8192, device: undefined, start: undefined } },
    { words: ['disk', '128', 'sync'], is: { region: 128, device: undefined, start: 'sync' } },
    { words: ['disk'], error: /^disk: no region size: write \[<dev>\] <region size> \[sync\|nosync\]$/ },
    { words: ['disk', '/dev/d'], error: /^disk: no region size: write \[<dev>\] <region size> \[sync\|nosync\]$/ },
    { words: ['disk', '8192', '8192'], error: /^disk: "8192": write sync or nosync$/ },
    { words: ['disk', 'dlog', '8192'], error: /^disk: "dlog": .* the path of a device begins with a slash$/ },
    { words: ['disk', '8k'], error: /^disk: "8k": a region size is a number of sectors, the path/ },
    { words: ['disk', '/dev/d', '8192', 'nosync', 'x'], error: /^disk: "x": only \[<dev>\] <region size>/ },
    { words: ['core', '2147483648'], is: { region: 2147483648, device: undefined, start: undefined } },
    { words: ['core', '4294967296'], error: /^core: region size 4294967296: a region has at most 2147483648 sectors$/ },
  ];
  for (const { words, is, error } of dirtyLogs)
    it(`dirty-log words "${words.join(' ')}" are ${error === undefined ? 'taken' : 'refused'}`, () => {
      const [name = '', ...params] = words;
      const type = productTypes({}).peek(DIRTY_LOG, name)!;
      if (error === undefined) assert.deepEqual(type.parse(params), is);
      else assert.throws(() => type.parse(params), { errno: 'EINVAL', message: error });
    });
});
