import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { loadPlugins } from '../../../src/control/plugins.js';
import { productTypes, typeNames } from '../../../src/control/types.js';
import { pluginName } from '../../../src/registry/plugins.js';
import { ERRNO } from '../../../src/base/errors.js';
import { realClock } from '../../../src/base/clock.js';
import { realIo } from '../../../src/base/io.js';
import { plainSite } from '../../../src/control/config.js';
import { ShipBatch } from '../../../src/slink/batch.js';
import { completeSlink, type PluginSite } from '../../../src/slink/plugin-site.js';
import { SLINK, type SlinkAround } from '../../../src/slink/types.js';
import { diskFolder } from '../../support/mounted.js';

const AROUND: SlinkAround = { stamp: '/nowhere', taken: [], nbd: () => assert.fail('no nbd site here') };

describe('plugins', () => {
  let top: string;
  beforeEach(() => (top = diskFolder('reptool-plugins-')));
  afterEach(() => fs.rmSync(top, { recursive: true, force: true }));

  function plugin(text: string): string {
    const file = path.join(top, `p${fs.readdirSync(top).length}.mjs`);
    fs.writeFileSync(file, text);
    return file;
  }
  const site = `make: () => ({ open() {}, write() { return 0; }, close() {} })`;

  const bad: { name: string; text: string; errno: string; says: RegExp }[] = [
    { name: 'does not parse', text: 'export function (', errno: 'EINVAL', says: /loading it failed: .*; correct it/ },
    {
      name: 'throws when it is loaded',
      text: "throw new Error('no licence');",
      errno: 'EINVAL',
      says: /loading it failed: no licence/,
    },
    {
      name: 'exports no register',
      text: 'export const registers = 1;',
      errno: 'EINVAL',
      says: /has no function "register"; see reptool-plugins\(7\)/,
    },
    { name: 'registers nothing', text: 'export function register() {}', errno: 'EINVAL', says: /registers no type/ },
    {
      name: 'throws when it registers',
      text: `export function register(r) { r.register('slink', 'x', { ${site} }); throw new Error('full'); }`,
      errno: 'EINVAL',
      says: /registering failed: full/,
    },
    {
      name: 'rejects',
      text: "export async function register() { throw new Error('later'); }",
      errno: 'EINVAL',
      says: /registering failed: later/,
    },
    {
      name: 'registers what is there',
      text: `export function register(r) { r.register('slink', 'x', { ${site} }); r.register('slink', 'blockdev', { ${site} }); }`,
      errno: 'EEXIST',
      says: /slink type "blockdev" is registered already/,
    },
    {
      name: 'registers in another class',
      text: `export function register(r) { r.register('replog', 'x', {}); }`,
      errno: 'EINVAL',
      says: /class "replog": plug-ins bring types of class slink/,
    },
    {
      name: 'registers no type that can make a site',
      text: "export function register(r) { r.register('slink', 'x', {}); }",
      errno: 'EINVAL',
      says: /has no function "make"/,
    },
    {
      name: 'registers under no name',
      text: `export function register(r) { r.register('slink', 'A b', { ${site} }); }`,
      errno: 'EINVAL',
      says: /not a name/,
    },
  ];
  for (const { name, text, errno, says } of bad)
    it(`a plug-in that ${name} is refused with ${errno}, and nothing is registered`, async () => {
      const types = productTypes({});
      const before = typeNames(types);
      const file = plugin(text);
      await assert.rejects(loadPlugins(types, [file]), (error: Error & { errno: string }) => {
        assert.equal(error.errno, errno);
        assert.ok(error.message.startsWith(`plug-in ${file}: `), error.message);
        assert.match(error.message, says);
        return true;
      });
      assert.deepEqual(typeNames(types), before);
    });

  it('a plug-in that is not there, a file or a package: ENOENT', async () => {
    await assert.rejects(loadPlugins(productTypes({}), [path.join(top, 'gone.mjs')]), { errno: 'ENOENT' });
    await assert.rejects(loadPlugins(productTypes({}), ['no-such-package']), { errno: 'ENOENT' });
  });

  it('what a plug-in registers after it was loaded is refused', async () => {
    const types = productTypes({});
    const file = plugin(
      `let host; export function register(r) { host = r; r.register('slink', 'x', { ${site} }); }` +
        `export const late = () => host.register('slink', 'y', { ${site} });`,
    );
    await loadPlugins(types, [file]);
    const { late } = (await import(file)) as { late(): void };
    assert.throws(late, { errno: 'EINVAL', message: /registered too late/ });
    assert.deepEqual(types.list(SLINK), ['x', ...productTypes({}).list(SLINK)!]);
  });

  it('pluginName keeps packages and makes files absolute', () => {
    assert.equal(pluginName('./a.mjs', '/x'), '/x/a.mjs');
    assert.equal(pluginName('a.mjs', '/x'), '/x/a.mjs');
    assert.equal(pluginName('/y/a', '/x'), '/y/a');
    assert.equal(pluginName('@vendor/site', '/x'), '@vendor/site');
  });

  it('a type with no more than make has the usual words, and prints what it takes back', () => {
    const type = completeSlink('x', { make: () => ({}) as PluginSite });
    assert.deepEqual(type.acks, ['durable']);
    const one = { ...plainSite(1, 'x', 'host:9'), options: { tls: 'yes' } };
    const words = type.toTable(one, ['a', 'b']);
    assert.deepEqual(type.fromTable({ ...words, whole: true }), {
      address: 'host:9',
      map: {},
      options: { tls: 'yes' },
    });
    const each = { ...plainSite(1, 'x', ''), map: { a: '1', b: '2' } };
    const legs = type.toTable(each, ['a', 'b']);
    assert.deepEqual(type.fromTable({ ...legs, whole: true }), { address: '', map: { a: '1', b: '2' }, options: {} });
  });

  const made = (site: Partial<PluginSite>): ReturnType<typeof make> => make(site);
  function make(site: object) {
    return completeSlink('x', {
      make: () =>
        ({ open: () => ({ ok: true }), write: () => 0, close: () => undefined, ...site }) as unknown as PluginSite,
    }).make(plainSite(1, 'x', 'a'), realIo, realClock, AROUND);
  }

  it('! a site that throws, or answers nonsense, has failed with a sentence', () => {
    const batch = new ShipBatch();
    const boom = (): never => {
      throw new Error('boom');
    };
    const site = made({ open: boom, write: boom, flush: boom, probe: boom, close: boom, unflushed: true });
    assert.deepEqual(site.open({} as never), { ok: false, refused: false, reason: 'x: open: boom; it is tried again' });
    for (const call of ['flush', 'probe'] as const) {
      assert.equal(site[call](), -ERRNO.EIO);
      assert.equal(site.reason, `x: ${call}: boom; it is tried again`);
    }
    assert.equal(site.write(batch), -ERRNO.EIO);
    site.close();
    for (const answer of [undefined, 1, NaN, 'ok'])
      assert.equal(made({ write: () => answer as number }).write(batch), -ERRNO.EIO, String(answer));
    const opened = made({ open: () => ({ ok: true, cursor: { seq: 1 } }) as never }).open({} as never);
    assert.equal(opened.ok, false, 'a cursor that lacks half of its numbers');
    batch.close();
  });

  it('a site that is refused stays refused, with its own reason', () => {
    const site = made({ open: () => ({ ok: false, refused: true, reason: 'not mine' }) });
    assert.equal(site.open({} as never).ok, false);
    assert.deepEqual([site.refused, site.reason], [true, 'not mine']);
  });

  const CURSOR = { pos: 0, seq: 1, chainLo: 0, chainHi: 0, time: 0, reign: 0 };
  const RESYNC = { resync: { at: CURSOR, devices: [], nextDevice: 1, anew: false, force: false } } as never;
  const copy = { read: () => 512, write: () => 0, zero: () => 0, settle: () => 0, whole: () => 0 };
  const open = (): never => ({ ok: true, cursor: CURSOR }) as never;

  it('! a site that cannot copy is refused where it is to be resynced, and may be served otherwise', () => {
    const site = made({ open });
    const opened = site.open(RESYNC);
    assert.ok(!opened.ok && opened.refused);
    assert.match(opened.reason, /"x": its plug-in has no copy, .*; remove the site, and use/);
    assert.equal(site.copy, undefined);
    assert.equal(site.open({} as never).ok, true);
  });

  it('! a site that takes a resync and does not say that it is inconsistent has failed', () => {
    const site = made({ open, copy });
    assert.match((site.open(RESYNC) as { reason: string }).reason, /does not say that it is inconsistent/);
    assert.equal(made({ open, copy, inconsistent: true }).open(RESYNC).ok, true);
  });

  it('! copies that throw, or answer nonsense, have failed with a sentence; others come through', () => {
    const { u8 } = new ShipBatch().mem;
    const mem = { u8 } as never;
    let nextData: unknown = 512;
    const good = made({ open, copy: { ...copy, nextData: () => nextData as number } }).copy!;
    assert.deepEqual(
      [good.read(0, 0, 512, mem, 0), good.write(0, 0, 512, mem, 0), good.zero(0, 0, 512), good.settle(), good.whole()],
      [512, 0, 0, 0, 0],
    );
    assert.equal(good.nextData!(0, 512, 1024), 512);
    for (nextData of [0, 2048, 600.5, undefined]) assert.equal(good.nextData!(0, 512, 1024), -ERRNO.EIO);
    const boom = (): never => {
      throw new Error('boom');
    };
    const bad = made({ open, copy: { read: () => 100, write: boom, zero: () => -28, settle: () => 1, whole: boom } });
    assert.equal(bad.copy!.nextData, undefined);
    assert.equal(bad.copy!.read(0, 0, 512, mem, 0), -ERRNO.EIO);
    assert.match(bad.reason, /copy\.read answered 100, which is neither/);
    assert.equal(bad.copy!.write(0, 0, 512, mem, 0), -ERRNO.EIO);
    assert.equal(bad.reason, 'x: copy.write: boom; it is tried again');
    assert.equal(bad.copy!.zero(0, 0, 512), -28);
    assert.deepEqual([bad.copy!.settle(), bad.copy!.whole()], [-ERRNO.EIO, -ERRNO.EIO]);
    assert.throws(() => made({ copy: { ...copy, settle: undefined } as never }), {
      errno: 'EINVAL',
      message: /no function "copy\.settle"/,
    });
  });

  it('a type whose site lacks a function is refused', () => {
    assert.throws(() => made({ write: undefined } as never), {
      errno: 'EINVAL',
      message: /its site has no function "write"/,
    });
  });
});
