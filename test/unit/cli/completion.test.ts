/** The completion scripts, asked in real shells. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findTool, needsTool } from '../../support/skip.js';
import { ownCommands, reptool } from './support.js';

describe('cli completion', () => {
  let top: string;
  let script: string;

  before(async function () {
    needsTool(this, 'bash');
    top = mkdtempSync(join(tmpdir(), 'reptool-completion.'));
    script = join(top, 'script');
    writeFileSync(script, (await reptool('completion', 'bash')).stdout);
    // What a mount would show, without one.
    mkdirSync(join(top, 'mnt/.ctl'), { recursive: true });
    mkdirSync(join(top, 'folder'));
    for (const disk of ['disk0', 'base']) writeFileSync(join(top, 'mnt', disk), '');
    const status = { name: 'default', connections: [{ 'peer-node-id': 1 }, { 'peer-node-id': 12 }] };
    writeFileSync(join(top, 'mnt/.ctl/status.json'), `${JSON.stringify(status, null, 2)}\n`);
  });

  after(() => rmSync(top, { recursive: true, force: true }));

  /** What bash offers behind `line`; the last word is the one that is being typed. */
  function offered(line: string, mounts = `${top}/mnt`): string[] {
    const words = ['reptool', ...line.split(' ').slice(1)].map((word) => `'${word}'`).join(' ');
    const ask = `source ${script}; _reptool_mounts() { printf '%s\\n' ${mounts}; }; COMP_WORDS=(${words});
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _reptool; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, REPTOOL_MOUNT: '' };
    const ran = spawnSync(findTool('bash')!, ['-c', ask], { encoding: 'utf8', timeout: 10_000, cwd: top, env });
    assert.equal(ran.stderr.replace(/^.*compopt: not currently executing completion function\n/gm, ''), '', line);
    return ran.stdout.split('\n').filter((word) => word !== '');
  }

  const cases: { line: string; offers: string[] }[] = [
    { line: 'reptool sta', offers: ['status'] },
    { line: 'reptool replog ', offers: ['check', 'dump', 'resize'] },
    { line: 'reptool site pa', offers: ['pause'] },
    { line: 'reptool status --w', offers: ['--watch'] },
    { line: 'reptool status --json --wa', offers: ['--watch'] },
    { line: 'reptool mount --transport ker', offers: ['kernel'] },
    { line: 'reptool mount --durability ', offers: ['flush', 'write'] },
    { line: 'reptool mount --durability = w', offers: ['write'] },
    { line: 'reptool mount fo', offers: ['folder'] },
    { line: 'reptool tag x --mount ', offers: ['TOP/mnt'] },
    { line: 'reptool status ', offers: ['TOP/mnt'] },
    { line: 'reptool site pause ', offers: ['1', '12'] },
    { line: 'reptool site resume --mount TOP/mnt 1', offers: ['1', '12'] },
    { line: 'reptool wait TOP/mnt --site ', offers: ['1', '12'] },
    { line: 'reptool message ', offers: ['base', 'default', 'disk0', 'site1', 'site12'] },
    { line: 'reptool completion ', offers: ['bash', 'zsh'] },
    { line: 'reptool replog check scr', offers: ['script'] },
    { line: 'reptool tag ', offers: [] },
    { line: 'reptool nonsense ', offers: [] },
  ];
  for (const { line, offers } of cases)
    it(`bash offers ${offers.join(', ') || 'nothing'} behind \`${line}\``, () => {
      const wanted = offers.map((word) => word.replace('TOP', top));
      const found = offered(line.replace('TOP', top));
      if (line === 'reptool nonsense ') assert.ok(found.includes('status') || found.length === 0);
      else assert.deepEqual(found.sort(), wanted);
    });

  it('bash offers every command and every option', async () => {
    const commands = await ownCommands();
    for (const { words, command } of commands) {
      words.forEach((word, i) => assert.ok(offered(`reptool ${[...words.slice(0, i), ''].join(' ')}`).includes(word)));
      const flags = Object.keys(command.flags ?? {}).map((name) => `--${name}`);
      const found = offered(`reptool ${words.join(' ')} --`);
      for (const flag of [...flags, '--json', '--help']) assert.ok(found.includes(flag), `${words.join(' ')} ${flag}`);
    }
  }).timeout(60_000);

  it('a mount that does not answer takes a second at most', () => {
    const fifo = join(top, 'stuck/.ctl/status.json');
    mkdirSync(join(top, 'stuck/.ctl'), { recursive: true });
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const began = performance.now();
    assert.deepEqual(offered('reptool site pause ', join(top, 'stuck')), []);
    assert.ok(performance.now() - began < 5000);
  });

  it('the zsh script is one for zsh', async function () {
    needsTool(this, 'zsh');
    const file = join(top, 'zsh-script');
    writeFileSync(file, (await reptool('completion', 'zsh')).stdout);
    const zsh = findTool('zsh')!;
    assert.equal(spawnSync(zsh, ['-n', file]).status, 0);
    const ask = `compdef() { :; }; compadd() { shift; print -l -- "$@"; }; source ${file};
      _reptool_mounts() { print -r -- ${top}/mnt; }; words=(reptool site pause ''); CURRENT=4; _reptool`;
    assert.equal(spawnSync(zsh, ['-fc', ask], { encoding: 'utf8' }).stdout, '1\n12\n');
  });
});
