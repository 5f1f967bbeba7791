/** What the command line says without a mount: mistakes, and nothing to talk to. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findTool, needsFuse, needsTool } from '../../support/skip.js';
import { BIN, reptool } from './support.js';

/**
 * Command lines that are mistakes: status 2, one sentence with these words, nothing on stdout. TOP is a folder of the
 * test's own: no group of this machine is ever meant.
 */
const MISTAKES: { line: string; says: RegExp }[] = [
  { line: 'mount', says: /Missing 1 required arg: DIR/ },
  { line: 'mount TOP/a TOP/b --state TOP/state', says: /Unexpected argument: .*\/b/ },
  { line: 'mount TOP/a --state TOP/state --colour red', says: /Nonexistent flag: --colour/ },
  { line: 'mount TOP/a --state TOP/state --size 10X', says: /--size 10X: not a size; write for example/ },
  {
    line: 'mount TOP/a --state TOP/state --size 1000',
    says: /--size 1000: .* no whole number of sectors; use a multiple of 512/,
  },
  { line: 'mount TOP/a --state TOP/state --size 0', says: /--size 0: less than the least possible 512 B/ },
  {
    line: 'mount TOP/a --state TOP/state --log-size 1M',
    says: /--log-size 1M: less than the least possible 4 MiB; choose a larger size/,
  },
  { line: 'mount TOP/a --state TOP/state --durability never', says: /--durability=never to be one of: flush, write/ },
  {
    line: 'mount TOP/a --state TOP/state --transport fuse',
    says: /--transport=fuse to be one of: auto, kernel, fuse-native/,
  },
  {
    line: 'mount TOP/a --state TOP/state --group a/b',
    says: /--group: "a\/b": a name must not contain a slash; choose another name/,
  },
  { line: 'status --watch --check', says: /--check=true cannot also be provided when using --watch|--watch/ },
  { line: 'wait --site one', says: /--site one: sites are numbered 1 to 2047; .*reptool status/ },
  { line: 'wait --timeout soon', says: /--timeout soon: not a time; write for example/ },
  { line: 'completion', says: /Missing 1 required arg: SHELL/ },
  { line: 'completion fish', says: /fish.* to be one of: bash, zsh/ },
  { line: 'message default', says: /Missing 1 required arg: WORD/ },
  { line: 'message default \x07', says: /a word of a message has no blanks/ },
  { line: 'message default resume --timeout soon', says: /--timeout soon: not a time/ },
  { line: 'site pause', says: /Missing 1 required arg: NR/ },
  { line: 'site verify', says: /Missing 1 required arg: NR/ },
  { line: 'site verify 4000', says: /NR 4000: sites are numbered 1 to 2047/ },
  { line: 'site verify 1 --stop --background', says: /cannot also be provided when using --/ },
  { line: 'site pause 0', says: /NR 0: sites are numbered 1 to 2047/ },
  { line: 'site recover', says: /Missing 1 required arg: FOLDER/ },
  { line: 'tag', says: /Missing 1 required arg: NAME/ },
  { line: 'replog dump', says: /FILE or --group/ },
  { line: 'replog check TOP/a --group b', says: /FILE or --group/ },
];

describe('cli usage', () => {
  let top: string;

  before(() => {
    top = mkdtempSync(join(tmpdir(), 'reptool-usage.'));
  });

  after(() => rmSync(top, { recursive: true, force: true }));

  for (const { line, says } of MISTAKES) {
    it(`\`reptool ${line}\` is a mistake and says so`, async () => {
      const ran = await reptool(...line.replaceAll('TOP', top).split(' '));
      assert.match(ran.stderr, says);
      assert.match(ran.stderr, /^reptool: .*\n$/, 'one sentence');
      assert.equal(ran.stdout, '');
      assert.equal(ran.exit, 2);
      assert.deepEqual(readdirSync(top), [], 'nothing is made');
    });
  }

  it('errors are JSON on stdout under --json', async () => {
    const ran = await reptool('mount', join(top, 'a'), '--state', join(top, 'state'), '--size', '10X', '--json');
    const { error } = JSON.parse(ran.stdout);
    assert.match(error.message, /--size 10X: not a size/);
    assert.equal(error.exit, 2);
    assert.equal(error.errno, 'EINVAL');
    assert.equal(ran.exit, 2);
    assert.equal(ran.stderr, '');
  });

  for (const line of ['status', 'table', 'umount', 'wait']) {
    it(`\`reptool ${line} DIR\` ends with status 3 where nothing is mounted`, async () => {
      const ran = await reptool(line, top);
      assert.match(ran.stderr, new RegExp(`^reptool: ${top}: .*mount.*\n$`));
      assert.equal(ran.exit, 3);
      assert.equal(ran.stdout, '');
    });
  }

  for (const line of ['tag here', 'site pause 1', 'site resume 1']) {
    it(`\`reptool ${line} --mount DIR\` ends with status 3 where nothing is mounted`, async () => {
      const ran = await reptool(...line.split(' '), '--mount', top);
      assert.match(ran.stderr, new RegExp(`^reptool: ${top}: `));
      assert.equal(ran.exit, 3);
    });
  }

  it('`status --check` says UNKNOWN where nothing is mounted', async () => {
    const ran = await reptool('status', top, '--check');
    assert.match(ran.stdout, /^UNKNOWN reptool: .*\n$/);
    assert.equal(ran.exit, 3);
    assert.equal(ran.stderr, '');
  });

  it('`replog check` and `dump` name a file that is not there, and one that is no log', async () => {
    const foreign = join(top, 'foreign');
    writeFileSync(foreign, Buffer.alloc(8 << 20, 'x'));
    for (const command of ['check', 'dump']) {
      const missing = await reptool('replog', command, join(top, 'nothing'));
      assert.match(missing.stderr, new RegExp(`^reptool: ${top}/nothing: .*does not exist`));
      assert.equal(missing.exit, 1);
      const strange = await reptool('replog', command, foreign);
      assert.match(strange.stderr, new RegExp(`^reptool: ${foreign}: not a replog`));
      assert.equal(strange.exit, 1);
    }
  });

  it('`replog check FILE` is no mistake where REPTOOL_STATE is set', async () => {
    const before = process.env['REPTOOL_STATE'];
    process.env['REPTOOL_STATE'] = join(top, 'state');
    try {
      const ran = await reptool('replog', 'check', join(top, 'nothing'));
      assert.match(ran.stderr, new RegExp(`^reptool: ${top}/nothing: .*does not exist`));
      const both = await reptool('replog', 'check', join(top, 'nothing'), '--state', top);
      assert.match(both.stderr, /FILE or --group/);
    } finally {
      if (before === undefined) delete process.env['REPTOOL_STATE'];
      else process.env['REPTOOL_STATE'] = before;
    }
  });

  it('`site recover` names a folder that is none of a site', async () => {
    const ran = await reptool('site', 'recover', join(top, 'nothing'));
    assert.match(ran.stderr, new RegExp(`^reptool: ${top}/nothing`));
    assert.equal(ran.exit, 1);
  });

  it('mounting without the right to mount makes nothing and says what is missing', function () {
    // Root is run without the capability; anybody else has none.
    if (process.getuid?.() === 0) needsTool(this, 'setpriv');
    const may = process.getuid?.() === 0 ? [findTool('setpriv')!, '--bounding-set', '-sys_admin'] : [];
    const words = [process.execPath, BIN, 'mount', join(top, 'm'), '--state', join(top, 'state')];
    const [program, ...rest] = [...may, ...words] as [string, ...string[]];
    const ran = spawnSync(program, rest, { encoding: 'utf8', timeout: 10_000 });
    assert.match(ran.stderr, /^reptool: .*not permitted \(EPERM\).*; run as root \(CAP_SYS_ADMIN\)\n$/);
    assert.equal(ran.status, 1);
    assert.equal(existsSync(join(top, 'm')) || existsSync(join(top, 'state')), false);
  });

  it('an unusable mount point is refused before anything is made', async function () {
    needsFuse(this);
    const state = join(top, 'state2');
    writeFileSync(join(top, 'file'), '');
    symlinkSync(join(top, 'nowhere'), join(top, 'dangling'));
    for (const [dir, says] of [
      ['file', /a mount point must be a folder/],
      ['a/b/c', /its parent folder .* does not exist; create that folder first/],
      ['dangling', /./],
    ] as const) {
      const ran = await reptool('mount', join(top, dir), '--state', state);
      assert.match(ran.stderr, says);
      assert.equal(ran.exit, 1, dir);
      assert.equal(existsSync(state), false, 'no state folder is made');
    }
  });

  for (const line of ['--help', 'mount --help', 'site --help', 'site pause --help', 'help replog dump', '--version']) {
    it(`\`reptool ${line}\` prints help with status 0`, async () => {
      const ran = await reptool(...line.split(' '));
      assert.equal(ran.exit, 0);
      assert.match(ran.stdout, /reptool/);
      assert.equal(ran.stderr, '');
    });
  }
});
