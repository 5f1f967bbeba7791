import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { RepError } from '../../../src/base/errors.js';
import {
  checkName,
  defaultConfig,
  loadConfig,
  nameFault,
  plainDevice,
  plainSite,
  saveConfig,
  type GroupConfig,
} from '../../../src/control/config.js';
import { groupDir, stateRoot } from '../../../src/control/state.js';

const ID = '00112233445566778899aabbccddeeff';

describe('control/config', () => {
  let dir: string;

  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-config-'));
  });
  afterEach(() => fs.rmSync(dir, { recursive: true }));

  const write = (value: unknown): void =>
    fs.writeFileSync(path.join(dir, 'group.json'), typeof value === 'string' ? value : JSON.stringify(value));

  const good = (): GroupConfig => defaultConfig(dir, ID);

  it('saveConfig and loadConfig return what was saved', () => {
    const config = good();
    config.devices.push(plainDevice(1, 'base', 4096, '/dev/vg/base'));
    saveConfig(dir, config);
    assert.deepEqual(loadConfig(dir), config);
  });

  it('saveConfig writes paths inside the folder relative to it, so that the folder can be moved', () => {
    saveConfig(dir, good());
    const moved = `${dir}-moved`;
    fs.renameSync(dir, moved);
    try {
      assert.equal(loadConfig(moved).log.path, path.join(moved, 'replog'));
      assert.equal(loadConfig(moved).sites[0]!.address, path.join(moved, 'site1'));
    } finally {
      fs.renameSync(moved, dir);
    }
  });

  it('saveConfig refuses what loadConfig would refuse and leaves the old file', () => {
    saveConfig(dir, good());
    const before = fs.readFileSync(path.join(dir, 'group.json'), 'utf8');
    assert.throws(() => saveConfig(dir, { ...good(), devices: [] }), RepError);
    assert.equal(fs.readFileSync(path.join(dir, 'group.json'), 'utf8'), before);
  });

  it('loadConfig fills in what a site and a device may leave out', () => {
    const config = good();
    const { nr, type, address, policy, rpoMs } = config.sites[0]!;
    const devices = config.devices.map(({ nr, name, size, local }) => ({ nr, name, size, local }));
    const { onLocalError: _1, plugins: _2, ...rest } = config;
    write({ ...rest, devices, sites: [{ nr, type, address, policy, rpoMs }] });
    assert.deepEqual(loadConfig(dir), config);
  });

  it('saveConfig keeps every setting of a site', () => {
    const config = good();
    config.sites.push(
      {
        ...plainSite(2, 'blockdev', ''),
        map: { disk0: '/dev/sdb' },
        stall: true,
        fallBehind: { ios: 3, size: 512, timeoutMs: 5 },
        bandwidth: 1000,
        resyncRate: 2000,
        resyncLatencyMs: 5,
        fullWaitMs: 0,
      },
      { ...plainSite(2047, 'nbd', '[::1]:10809'), policy: 'sync', syncTimeoutMs: 7, options: { tls: 'psk' } },
    );
    config.devices[0]!.dirtyLogs = { '2': ['disk', '/dev/dlog', '8192', 'sync'] };
    saveConfig(dir, config);
    assert.deepEqual(loadConfig(dir), config);
  });

  const twisted: { name: string; site: object; message: RegExp }[] = [
    { name: 'neither folder nor map', site: { address: '' }, message: /address: a blockdev site has either/ },
    { name: 'folder and map', site: { map: { disk0: '/x' } }, message: /address: a blockdev site has either/ },
    {
      name: 'sync with a limit',
      site: { policy: 'sync', fallBehind: { ios: 1, size: 0, timeoutMs: 0 } },
      message: /fallBehind: a sync site never falls behind/,
    },
    {
      name: 'a limit that is no sectors',
      site: { fallBehind: { ios: 0, size: 100, timeoutMs: 0 } },
      message: /fallBehind\.size: 100 bytes/,
    },
    { name: 'an odd type', site: { type: 'Block dev' }, message: /type: "Block dev" is not the name of a type/ },
    { name: 'the local image', site: { address: '', map: { disk0: 'images/disk0' } }, message: /used by devices\[0\]/ },
  ];
  for (const { name, site: words, message } of twisted)
    it(`loadConfig refuses a site with ${name}`, () => {
      const config = good();
      write({ ...config, sites: [{ ...config.sites[0], ...words }] });
      assert.throws(() => loadConfig(dir), { errno: 'EINVAL', message });
    });

  it('loadConfig says ENOENT where there is no group', () => {
    assert.throws(() => loadConfig(dir), { errno: 'ENOENT', message: /group\.json: no such group; "reptool mount"/ });
  });

  const device = (change: object): object => ({ devices: [{ ...good().devices[0], ...change }] });
  const site = (change: object): object => ({ sites: [{ ...good().sites[0], ...change }] });
  const two = (change: object): object => ({
    devices: [good().devices[0], { nr: 1, name: 'disk1', size: 512, local: '/x', ...change }],
  });
  const faults: { name: string; value: () => unknown; message: RegExp }[] = [
    { name: 'no JSON', value: () => '{"version": 1,', message: /not JSON: .*; correct it or restore a copy/ },
    { name: 'a list', value: () => [], message: /expected an object, found a list/ },
    {
      name: 'an unknown version',
      value: () => ({ ...good(), version: 2 }),
      message: /version: 2 is not known, this program knows 1/,
    },
    {
      name: 'no version',
      value: () => ({ ...good(), version: undefined }),
      message: /version: expected a whole number, found nothing/,
    },
    {
      name: 'a short id',
      value: () => ({ ...good(), id: 'abc' }),
      message: /id: "abc" is not 32 lower-case hexadecimal digits/,
    },
    { name: 'an unknown word', value: () => ({ ...good(), quorum: 2 }), message: /quorum: unknown word/ },
    {
      name: 'an unknown word of a device',
      value: () => ({ ...good(), ...device({ mode: 1 }) }),
      message: /devices\[0\]\.mode: unknown word/,
    },
    {
      name: 'an unknown durability',
      value: () => ({ ...good(), durability: 'often' }),
      message: /durability: "often" is not one of flush, write/,
    },
    {
      name: 'a small log',
      value: () => ({ ...good(), log: { path: 'l', size: 1024 } }),
      message: /log\.size: 1 KiB is less than the 4 MiB needed/,
    },
    {
      name: 'an odd window',
      value: () => ({ ...good(), windowRing: 3_000_000 }),
      message: /windowRing: 3000000 is not a power of two/,
    },
    {
      name: 'a small window',
      value: () => ({ ...good(), windowRing: 4096 }),
      message: /windowRing: 4096 is not between/,
    },
    {
      name: 'no device',
      value: () => ({ ...good(), devices: [] }),
      message: /devices: a group needs at least one device/,
    },
    {
      name: 'a device with a slash',
      value: () => ({ ...good(), ...device({ name: 'a/b' }) }),
      message: /devices\[0\]\.name: "a\/b": a name must not contain a slash/,
    },
    {
      name: 'a ragged size',
      value: () => ({ ...good(), ...device({ size: 1000 }) }),
      message: /devices\[0\]\.size: 1000 bytes are not a multiple of 512/,
    },
    {
      name: 'a size of nothing',
      value: () => ({ ...good(), ...device({ size: 0 }) }),
      message: /size: 0 B is less than the 512 B needed/,
    },
    {
      name: 'a size as text',
      value: () => ({ ...good(), ...device({ size: '1G' }) }),
      message: /size: expected a whole number, found "1G"/,
    },
    {
      name: 'two devices of one number',
      value: () => ({ ...good(), ...two({ nr: 0 }) }),
      message: /devices\[1\]\.nr: 0 is used by devices\[0\] already/,
    },
    {
      name: 'two devices of one name',
      value: () => ({ ...good(), ...two({ name: 'disk0' }) }),
      message: /devices\[1\]\.name: disk0 is used/,
    },
    {
      name: 'two devices on one image',
      value: () => ({ ...good(), ...two({ local: 'images/disk0' }) }),
      message: /devices\[1\]\.local: .* is used/,
    },
    {
      name: 'slink 0 as a site',
      value: () => ({ ...good(), ...site({ nr: 0 }) }),
      message: /sites\[0\]\.nr: 0 is not between 1 and 2047/,
    },
    {
      name: 'slink 2048',
      value: () => ({ ...good(), ...site({ nr: 2048 }) }),
      message: /sites\[0\]\.nr: 2048 is not between 1 and 2047/,
    },
    {
      name: 'an impossible site type',
      value: () => ({ ...good(), ...site({ type: 'a tape' }) }),
      message: /sites\[0\]\.type: "a tape" is not the name of a type/,
    },
    {
      name: 'an unknown policy',
      value: () => ({ ...good(), ...site({ policy: 'later' }) }),
      message: /sites\[0\]\.policy: "later" is not one of sync, async/,
    },
    {
      name: 'a wait below zero',
      value: () => ({ ...good(), ...site({ fullWaitMs: -1 }) }),
      message: /sites\[0\]\.fullWaitMs: -1 is not between/,
    },
    {
      name: 'a rate that is no whole number',
      value: () => ({ ...good(), ...site({ resyncRate: 0.5 }) }),
      message: /sites\[0\]\.resyncRate: expected a whole number/,
    },
    {
      name: 'a negative RPO',
      value: () => ({ ...good(), ...site({ rpoMs: -1 }) }),
      message: /sites\[0\]\.rpoMs: -1 is not between/,
    },
  ];
  for (const { name, value, message } of faults) {
    it(`loadConfig refuses ${name} and names file, word and next step`, () => {
      write(value());
      assert.throws(
        () => loadConfig(dir),
        (error: unknown) => {
          assert.ok(error instanceof RepError);
          assert.equal(error.errno, 'EINVAL');
          assert.ok(error.message.startsWith(path.join(dir, 'group.json')), error.message);
          assert.match(error.message, message);
          assert.match(error.message, /; /);
          return true;
        },
      );
    });
  }

  const names: { name: string; fault: RegExp | undefined }[] = [
    { name: 'disk0', fault: undefined },
    { name: 'Ärger-1.img', fault: undefined },
    { name: '', fault: /empty/ },
    { name: '.ctl', fault: /dot/ },
    { name: 'a@b', fault: /@/ },
    { name: 'a/b', fault: /slash/ },
    { name: 'a b', fault: /blanks/ },
    { name: 'a\nb', fault: /blanks or control/ },
    { name: 'x'.repeat(128), fault: undefined },
    { name: 'x'.repeat(129), fault: /128 bytes/ },
    { name: 'ä'.repeat(65), fault: /128 bytes/ },
  ];
  for (const { name, fault } of names) {
    it(`nameFault ${fault ? 'refuses' : 'accepts'} ${JSON.stringify(name.slice(0, 12))} of ${name.length}`, () => {
      if (fault === undefined) assert.equal(nameFault(name), undefined);
      else assert.match(nameFault(name) ?? '', fault);
    });
  }

  it('checkName names where the name came from', () => {
    assert.throws(() => checkName('a@b', '--group'), {
      errno: 'EINVAL',
      message: /^--group: "a@b": .*; choose another name$/,
    });
  });

  it('stateRoot follows user and environment', () => {
    assert.equal(stateRoot({}, 0), '/var/lib/reptool');
    assert.equal(stateRoot({ XDG_STATE_HOME: '/s' }, 1000), '/s/reptool');
    assert.match(stateRoot({ XDG_STATE_HOME: 'relative' }, 1000), /\.local\/state\/reptool$/);
    assert.equal(stateRoot({ REPTOOL_STATE: '/r' }, 0), '/r');
    assert.equal(groupDir('/r', 'g'), '/r/g');
  });
});
