import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkLines, examine, filesCheck, kernelCheck, memoryCheck, nodeCheck } from '../../../src/cli/doctor.js';
import { GIB, MIB } from '../../../src/base/units.js';
import { conforms } from '../../support/schema.js';

describe('cli/doctor', () => {
  let top: string;

  before(() => {
    top = mkdtempSync(join(tmpdir(), 'reptool-doctor.'));
  });

  after(() => rmSync(top, { recursive: true, force: true }));

  const memory = (free: number) => memoryCheck({ memory: { free, of: 'memory of the machine' } });
  const cases = [
    { name: 'Node 20.19.0', check: nodeCheck({ node: '20.19.0' }), state: 'OK' },
    { name: 'Node 22.1.0', check: nodeCheck({ node: '22.1.0' }), state: 'OK' },
    { name: 'Node 20.18.3', check: nodeCheck({ node: '20.18.3' }), state: 'FAIL' },
    { name: 'Node 18.20.0', check: nodeCheck({ node: '18.20.0' }), state: 'FAIL' },
    { name: 'Linux 6.9', check: kernelCheck({ kernel: '6.9.0-rc1' }), state: 'OK' },
    { name: 'Linux 6.18', check: kernelCheck({ kernel: '6.18.5' }), state: 'OK' },
    { name: 'Linux 6.8', check: kernelCheck({ kernel: '6.8.0-31-generic' }), state: 'WARN' },
    { name: 'Linux 5.15', check: kernelCheck({ kernel: '5.15.0' }), state: 'WARN' },
    { name: '4 GiB', check: memory(4 * GIB), state: 'OK' },
    { name: '400 MiB', check: memory(400 * MIB), state: 'WARN' },
    { name: '100 MiB', check: memory(100 * MIB), state: 'FAIL' },
    { name: '1024 files', check: filesCheck({ openFiles: 1024 }), state: 'OK' },
    { name: 'any number of files', check: filesCheck({ openFiles: Infinity }), state: 'OK' },
    { name: '64 files', check: filesCheck({ openFiles: 64 }), state: 'FAIL' },
  ] as const;
  for (const { name, check, state } of cases)
    it(`${name} is ${state}, and what is not OK has a next step`, () => {
      assert.equal(check.state, state);
      assert.equal(check.next === null, state === 'OK');
      assert.match(checkLines([check])[0]!, new RegExp(`^${state} +${check.name} +\\S`));
    });

  it('examine looks at everything, ends with the worst, and leaves nothing behind', async () => {
    const folder = join(top, 'state');
    mkdirSync(folder);
    const { text, status, checks } = await examine(folder);
    conforms(JSON.parse(JSON.stringify({ status, checks })), 'doctor');
    const names = checks.map((check) => check.name);
    for (const name of [
      'node',
      'kernel',
      '/dev/fuse',
      'mounting',
      'memory',
      'open files',
      'state',
      'space',
      'direct I/O',
    ])
      assert.ok(names.includes(name), name);
    const worst = checks.some((c) => c.state === 'FAIL') ? 2 : checks.some((c) => c.state === 'WARN') ? 1 : 0;
    assert.equal(status, worst);
    assert.equal(text.split('\n').length, checks.length);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('examine judges the place where a missing folder would be made, and makes none of it', async () => {
    const { checks } = await examine(join(top, 'a/b'));
    const state = checks.find((check) => check.name === 'state')!;
    assert.match(state.text, new RegExp(`^${top}/a/b \\(to be made in ${top}\\)`));
    assert.deepEqual(readdirSync(top), ['state']);
  });
});
