import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Errors } from '@oclif/core';
import { explain, Interrupted, unreachable, usage } from '../../../src/cli/base.js';
import { missingFolders, removeFolders, removeGroup } from '../../../src/cli/making.js';
import { defaultConfig } from '../../../src/control/config.js';
import { RepError } from '../../../src/base/errors.js';

describe('cli/base', () => {
  const CASES: { name: string; error: unknown; message: RegExp; exit: number; errno?: string }[] = [
    { name: 'a RepError', error: new RepError('ENOSPC', 'a: b; c'), message: /^a: b; c$/, exit: 1, errno: 'ENOSPC' },
    { name: 'a mistake', error: usage('no'), message: /^no$/, exit: 2, errno: 'EINVAL' },
    { name: 'nobody there', error: unreachable('who'), message: /^who$/, exit: 3, errno: 'ENOTCONN' },
    { name: 'Ctrl-C', error: new Interrupted('SIGINT', 'ended'), message: /^ended$/, exit: 130, errno: 'EINTR' },
    { name: 'SIGTERM', error: new Interrupted('SIGTERM', 'ended'), message: /^ended$/, exit: 143, errno: 'EINTR' },
    {
      name: "oclif's complaint",
      error: new Errors.CLIError('Missing 1 required arg:\nDIR  the place\nSee more help with --help', { exit: 2 }),
      message: /^Missing 1 required arg: DIR: the place; see `reptool x --help`$/,
      exit: 2,
    },
    { name: 'a defect', error: new TypeError('x is undefined'), message: /defect of reptool: x is undefined/, exit: 1 },
  ];
  for (const { name, error, message, exit, errno } of CASES) {
    it(`explain puts ${name} into a sentence`, () => {
      const said = explain(error, 'reptool x');
      assert.match(said.message, message);
      assert.equal(said.exit, exit);
      assert.equal(said.errno, errno);
    });
  }

  it('explain names the file of a failed system call', () => {
    let thrown: unknown;
    try {
      readFileSync('/proc/no-such-file');
    } catch (error) {
      thrown = error;
    }
    const said = explain(thrown, 'reptool x');
    assert.equal(said.message, '/proc/no-such-file: open failed: it does not exist (ENOENT)');
    assert.equal(said.exit, 1);
  });
});

describe('cli/making', () => {
  let top: string;

  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), 'reptool-making.'));
  });

  afterEach(() => rmSync(top, { recursive: true, force: true }));

  it('missingFolders names what would have to be made, and removeFolders takes only that away', () => {
    const missing = missingFolders(join(top, 'a/b'));
    assert.deepEqual(missing, [join(top, 'a/b'), join(top, 'a')]);
    mkdirSync(join(top, 'a/b'), { recursive: true });
    removeFolders(missing);
    assert.deepEqual(readdirSync(top), []);
  });

  it('removeFolders leaves a folder that somebody uses by now', () => {
    const missing = missingFolders(join(top, 'a/b'));
    mkdirSync(join(top, 'a/b'), { recursive: true });
    writeFileSync(join(top, 'a/note'), '');
    removeFolders(missing);
    assert.deepEqual(readdirSync(join(top, 'a')), ['note']);
  });

  it('removeGroup takes its parts and what came since, and leaves what is not its own', () => {
    const dir = join(top, 'default');
    const config = defaultConfig(dir, '0'.repeat(32));
    for (const folder of ['index', 'images', 'site1']) mkdirSync(join(dir, folder), { recursive: true });
    for (const file of ['group.json', 'replog', 'images/disk0', 'site1/disk0', 'lock', 'note'])
      writeFileSync(join(dir, file), '');
    const made = new Set(readdirSync(dir));
    for (const file of ['run.json', 'daemon.log', 'keeper.lock']) writeFileSync(join(dir, file), '');
    removeGroup(dir, config, made);
    assert.deepEqual(readdirSync(dir), ['note']);
  });
});
