/**
 * Exit statuses of all commands: 2 for a mistake, 3 where nothing is mounted, 1 where the thing is not there; one
 * sentence each, and the same under --json.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EXIT } from '../../../src/base/errors.js';
import type { RepCommand } from '../../../src/cli/base.js';
import { conforms } from '../../support/schema.js';
import { ownCommands, reptool, type Ran } from './support.js';

/** Words that are well-formed and lead nowhere; TOP is an empty folder in which nothing is mounted. */
const SAMPLES: Record<string, { words: string; exit: number }> = {
  'device create': { words: 'device create d --size 1M --mount TOP', exit: EXIT.UNREACHABLE },
  'device list': { words: 'device list --mount TOP', exit: EXIT.UNREACHABLE },
  'device remove': { words: 'device remove d --mount TOP', exit: EXIT.UNREACHABLE },
  'device resize': { words: 'device resize d --size 1M --mount TOP', exit: EXIT.UNREACHABLE },
  message: { words: 'message default resume --mount TOP', exit: EXIT.UNREACHABLE },
  mount: { words: 'mount TOP/a/b/c --state TOP/state', exit: EXIT.FAILED },
  'replog check': { words: 'replog check TOP/none', exit: EXIT.FAILED },
  'replog dump': { words: 'replog dump TOP/none', exit: EXIT.FAILED },
  'replog resize': { words: 'replog resize 1G --mount TOP', exit: EXIT.UNREACHABLE },
  'site add': { words: 'site add 2 blockdev:TOP/a/b/site2 --mount TOP', exit: EXIT.UNREACHABLE },
  'site fail-pending': { words: 'site fail-pending --mount TOP', exit: EXIT.UNREACHABLE },
  'site list': { words: 'site list --mount TOP', exit: EXIT.UNREACHABLE },
  'site pause': { words: 'site pause 1 --mount TOP', exit: EXIT.UNREACHABLE },
  'site recover': { words: 'site recover TOP/none', exit: EXIT.FAILED },
  'site remove': { words: 'site remove 1 --mount TOP', exit: EXIT.UNREACHABLE },
  'site resume': { words: 'site resume 1 --mount TOP', exit: EXIT.UNREACHABLE },
  'site set': { words: 'site set 1 --policy sync --mount TOP', exit: EXIT.UNREACHABLE },
  'site verify': { words: 'site verify 1 --mount TOP', exit: EXIT.UNREACHABLE },
  status: { words: 'status TOP', exit: EXIT.UNREACHABLE },
  table: { words: 'table TOP', exit: EXIT.UNREACHABLE },
  tag: { words: 'tag here --mount TOP', exit: EXIT.UNREACHABLE },
  umount: { words: 'umount TOP', exit: EXIT.UNREACHABLE },
  wait: { words: 'wait TOP', exit: EXIT.UNREACHABLE },
};

/** Commands for which nothing has to be there. */
const NEVER_FAIL = new Set(['completion', 'doctor']);

describe('cli exit statuses', () => {
  let top: string;
  let commands: Awaited<ReturnType<typeof ownCommands>>;

  before(async () => {
    top = mkdtempSync(join(tmpdir(), 'reptool-exits.'));
    commands = await ownCommands();
  });

  after(() => rmSync(top, { recursive: true, force: true }));

  const oneSentence = (ran: Ran, what: string): void => {
    assert.match(ran.stderr, /^reptool: [^\n]+\n$/, what);
    assert.equal(ran.stdout, '', what);
  };
  const asJson = (ran: Ran, exit: number, what: string): void => {
    const document = JSON.parse(ran.stdout) as { error: { exit: number } };
    conforms(document, '_error');
    assert.equal(document.error.exit, exit, what);
    assert.equal(ran.exit, exit, what);
    assert.equal(ran.stderr, '', what);
  };

  it('a mistake is 2, for every command', async () => {
    for (const { words } of commands) {
      const line = [...words, '--no-such-flag'];
      const ran = await reptool(...line);
      oneSentence(ran, line.join(' '));
      assert.equal(ran.exit, EXIT.USAGE, line.join(' '));
      asJson(await reptool(...line, '--json'), EXIT.USAGE, line.join(' '));
    }
  });

  it('what is not there is 1, what is not mounted is 3, for every command', async () => {
    for (const { words, command } of commands) {
      const name = words.join(' ');
      if (NEVER_FAIL.has(name)) continue;
      const sample = SAMPLES[name];
      assert.ok(sample, `${name}: add words that lead nowhere to SAMPLES of this test`);
      const { exits } = command as unknown as typeof RepCommand;
      assert.ok(exits.includes(sample.exit), `${name}: its page and its \`exits\` do not know ${sample.exit}`);
      assert.equal(
        exits.includes(EXIT.UNREACHABLE),
        sample.exit === EXIT.UNREACHABLE,
        `${name}: 3 is for mounted groups`,
      );
      const line = sample.words.replaceAll('TOP', top).split(' ');
      const ran = await reptool(...line);
      oneSentence(ran, name);
      assert.equal(ran.exit, sample.exit, `${name}: ${ran.stderr}`);
      asJson(await reptool(...line, '--json'), sample.exit, name);
    }
  });
});
