import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { closeClient, readControl, resolveMount, sendMessage } from '../../../src/control/client.js';

const MOUNTS = [
  { dir: '/mnt/a', group: 'default' },
  { dir: '/mnt/b', group: 'other' },
];

describe('control/client', () => {
  const choices: {
    name: string;
    dir?: string;
    mounts: typeof MOUNTS;
    found?: string;
    exit?: number;
    message?: RegExp;
  }[] = [
    { name: 'the only mount', mounts: MOUNTS.slice(0, 1), found: '/mnt/a' },
    { name: 'the named one', dir: '/mnt/b', mounts: MOUNTS, found: '/mnt/b' },
    { name: 'the named one with a slash', dir: '/mnt/b/', mounts: MOUNTS, found: '/mnt/b' },
    { name: 'nothing mounted', mounts: [], exit: 3, message: /no group is mounted; "reptool mount DIR"/ },
    {
      name: 'several and none named',
      mounts: MOUNTS,
      exit: 2,
      message: /several groups are mounted \(\/mnt\/a, \/mnt\/b\); name one/,
    },
    {
      name: 'another folder',
      dir: '/tmp',
      mounts: MOUNTS,
      exit: 3,
      message: /\/tmp: no group is mounted there \(mounted are \/mnt\/a, \/mnt\/b\)/,
    },
  ];
  for (const { name, dir, mounts, found, exit, message } of choices) {
    it(`resolveMount with ${name} ${found === undefined ? `ends with ${exit}` : 'finds it'}`, () => {
      if (found !== undefined) assert.equal(resolveMount(dir, mounts).dir, found);
      else assert.throws(() => resolveMount(dir, mounts), { exit, message });
    });
  }

  describe('with a folder in the place of a mount', () => {
    let dir: string;
    beforeEach(() => {
      dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-client-'));
      fs.mkdirSync(path.join(dir, '.ctl'));
    });
    afterEach(() => {
      closeClient();
      fs.rmSync(dir, { recursive: true });
    });

    it('readControl reads a file, again and again through one child', async () => {
      fs.writeFileSync(path.join(dir, '.ctl', 'status'), 'x'.repeat(200_000));
      assert.equal((await readControl(dir, 'status')).length, 200_000);
      assert.equal((await readControl(dir, 'status')).length, 200_000);
    });

    it('readControl ends with 3 where the mount is not there', async () => {
      await assert.rejects(readControl(dir, 'nothing'), { exit: 3, errno: 'ENOENT', message: /does not answer/ });
    });

    it('readControl ends with 3 and in time where nobody answers, and the next call works', async () => {
      // Opening a FIFO that nobody writes to hangs, as a mount does whose daemon is stuck.
      execFileSync('mkfifo', [path.join(dir, '.ctl', 'status')]);
      fs.writeFileSync(path.join(dir, '.ctl', 'table'), 'fine');
      await assert.rejects(readControl(dir, 'status', 300), {
        exit: 3,
        errno: 'ETIMEDOUT',
        message: /did not answer within 0.3 s/,
      });
      assert.equal(await readControl(dir, 'table'), 'fine');
    });

    it('sendMessage writes the text and reads the last reply', async () => {
      const file = path.join(dir, '.ctl', 'messages');
      fs.writeFileSync(file, `tag x\n${'5\t2026-11-20T06:00:00.000Z\tok\ttag x\tseq 9\n'}`);
      assert.deepEqual(await sendMessage(dir, 'tag x\n'), {
        nr: 5,
        at: '2026-11-20T06:00:00.000Z',
        errno: 0,
        message: 'tag x',
        text: 'seq 9',
      });
    });
  });
});
