import assert from 'node:assert/strict';
import { checkConfig, plainDevice, plainSite, type GroupConfig } from '../../../src/control/config.js';
import {
  dirtyLogFault,
  dirtyLogWords,
  hasDirtyLog,
  regionOf,
  withoutUsual,
  withSites,
} from '../../../src/control/dirty-logs.js';
import { checkSameGroup, tableConfig } from '../../../src/control/table-group.js';
import { parseTable } from '../../../src/control/table-parse.js';
import { takenBeside, takenPlaces } from '../../../src/control/taken.js';
import { productTypes } from '../../../src/control/types.js';
import { checkSupported } from '../../../src/daemon/supported.js';

function group(...logs: GroupConfig['devices'][number]['dirtyLogs'][]): GroupConfig {
  return {
    version: 1,
    id: '0'.repeat(32),
    name: 'g',
    durability: 'flush',
    onLocalError: 'suspend',
    plugins: [],
    log: { path: '/l/log', size: 4194304 },
    windowRing: 1048576,
    devices: logs.map((dirtyLogs, nr) => ({ ...plainDevice(nr, `disk${nr}`, 512, `/l/d${nr}`), dirtyLogs })),
    sites: [plainSite(1, 'blockdev', '/s1'), plainSite(2, 'blockdev', '/s2')],
  };
}

describe('dirty logs of a group', () => {
  it('the usual one is in the index, with the region size of the group', () => {
    const config = group({ 1: ['nolog'] }, { 2: ['disk', '/dl', '256', 'sync'], 1: ['nolog'] });
    const region = regionOf(config);
    assert.equal(region, 256);
    assert.deepEqual(dirtyLogWords(config.devices[0]!, 2, region, true), ['disk', '256']);
    assert.deepEqual(dirtyLogWords(config.devices[0]!, 1, region, true), ['nolog']);
    assert.deepEqual(dirtyLogWords(config.devices[1]!, 2, region, true), ['disk', '/dl', '256', 'sync']);
    assert.deepEqual([hasDirtyLog(config.devices[0]!, 1), hasDirtyLog(config.devices[0]!, 2)], [false, true]);
    assert.equal(regionOf(group({}, {})), 8192);
  });

  it('legs that say the usual are as those that say nothing', () => {
    const logs = (served: boolean, ...of: GroupConfig['devices'][number]['dirtyLogs'][]): object[] =>
      withoutUsual(group(...of).devices, served).map(({ dirtyLogs }) => dirtyLogs);
    assert.deepEqual(logs(true, { 1: ['disk', '8192'], 2: ['nolog'] }, { 1: ['disk', '8192', 'sync'] }), [
      { 2: ['nolog'] },
      { 1: ['disk', '8192', 'sync'] },
    ]);
    assert.deepEqual(logs(true, { 1: ['disk', '128'] }), [{ 1: ['disk', '128'] }], 'it says the region size');
    assert.deepEqual(logs(true, { 1: ['disk', '128'], 2: ['core', '128'] }), [{ 2: ['core', '128'] }]);
    assert.deepEqual(logs(false, { 1: ['disk', '8192'], 2: ['nolog'] }), [{ 1: ['disk', '8192'] }]);
  });

  it('withSites has the words of a site go with it', () => {
    const config = group({ 1: ['core', '128'], 2: ['nolog'] }, {});
    const without = withSites(config, [config.sites[1]!]);
    assert.deepEqual(without.devices[0]!.dirtyLogs, { 2: ['nolog'] });
    assert.deepEqual(config.devices[0]!.dirtyLogs, { 1: ['core', '128'], 2: ['nolog'] });
  });

  it('what a dirty log occupies is taken for sites and for the others', () => {
    const config = group({ 1: ['disk', '/dl1', '128'], 2: ['disk', '/dl2', '128'] });
    const names = (taken: { what: string }[]): string[] => taken.map(({ what }) => what);
    assert.ok(names(takenPlaces(config, 1, [])).includes('the dirty log of disk0 at site 1'));
    const beside = names(takenBeside(config, { device: config.devices[0]!, nr: 1 }, ['/mnt']));
    assert.deepEqual(beside, [
      "the group's log",
      'the local image of disk0',
      'the dirty log of disk0 at site 2',
      "site 1's image of disk0",
      'in the folder of site 1',
      "site 2's image of disk0",
      'in the folder of site 2',
      "in /mnt, which is the group's own",
    ]);
  });

  const faults: { name: string; logs: GroupConfig['devices'][number]['dirtyLogs']; says: RegExp }[] = [
    {
      name: 'an unknown type',
      logs: { 1: ['tape', '128'] },
      says: /^f: devices\[0\]\.dirtyLogs\.1 "tape 128": type "tape": not registered; there is disk, core, nolog$/,
    },
    {
      name: 'words that are none',
      logs: { 2: ['core', 'big'] },
      says: /^f: devices\[0\]\.dirtyLogs\.2 "core big": core: "big": a region size is a number of sectors$/,
    },
    {
      name: 'two region sizes',
      logs: { 1: ['core', '128'], 2: ['disk', '256'] },
      says: /dirtyLogs\.2 "disk 256": region size 256: all devices at all sites have one, 128; write that$/,
    },
    { name: 'no words', logs: { 1: [] }, says: /dirtyLogs\.1 "": type "": not registered/ },
  ];
  for (const { name, logs, says } of faults)
    it(`a configuration with ${name} is refused when it is mounted`, () => {
      assert.throws(() => checkSupported(group(logs), productTypes({}), 'f'), { errno: 'EINVAL', message: says });
    });

  it('words of a site that is no more are passed over', () => {
    assert.equal(dirtyLogFault(group({ 7: ['tape'] }), productTypes({})), '');
  });

  it('one path is not two things in a configuration', () => {
    for (const file of ['/l/log', '/l/d0', '/s1', '/s2/disk0.img'])
      assert.throws(() => checkConfig(group({ 1: ['disk', file, '128'] }), 'f'), {
        errno: 'EINVAL',
        message: new RegExp(`${file.replaceAll('.', '\\.')} is used by .* already`),
      });
    checkConfig(group({ 1: ['disk', '/dl', '128'] }), 'f');
  });

  it('a table that names the usual dirty log is the group that has none named', () => {
    const words = dirtyLogWords(plainDevice(0, 'disk0', 512, '/l/d0'), 1, 8192);
    const leg = `${words[0]} ${words.length - 1} ${words.slice(1).join(' ')}`.trim();
    const table = parseTable(
      '0 1 replicator ringbuffer 2 /l/log 0 blockdev 1 0 blockdev 1 1\n' +
        `0 8 replicator-dev g 0 0 1 /l/d0 nolog 0 1 1 /s1/disk0.img ${leg}\n`,
      productTypes({}),
      'f',
    );
    const config = tableConfig(table, { id: '0'.repeat(32), name: 'g', logSize: 4194304, plugins: [], source: 'f' });
    config.devices[0]!.dirtyLogs = {};
    checkSameGroup(table, config, 'f');
    config.devices[0]!.dirtyLogs = { 1: ['core', '8192'] };
    assert.throws(() => checkSameGroup(table, config, 'f'), /device 0 with dirty logs/);
  });
});
