import assert from 'node:assert/strict';
import { columns, formatSeconds, plural, Progress, sentenceList } from '../../../src/cli/output.js';
import { MIB } from '../../../src/base/units.js';

/** Back to the first column, clear the line. */
const CLEAR = '\r\x1b[K';

class Screen {
  readonly isTTY: boolean;
  text = '';

  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }

  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

describe('cli/output', () => {
  it('Progress prints plain lines every five seconds where there is no terminal', () => {
    const screen = new Screen(false);
    let now = 0;
    const progress = new Progress('writing the log', screen, () => now);
    for (; now <= 12_000; now += 1000) progress.bytes((now / 12_000) * 64 * MIB, 64 * MIB);
    progress.end();
    assert.equal(screen.text, 'writing the log: 41 %, 26.7 MiB of 64 MiB\nwriting the log: 83 %, 53.3 MiB of 64 MiB\n');
  });

  it('Progress redraws a bar on a terminal and takes it away at the end', () => {
    const screen = new Screen(true);
    let now = 0;
    const progress = new Progress('writing the log', screen, () => now);
    now = 50;
    progress.bytes(1, 100);
    assert.equal(screen.text, '', 'nothing is drawn for what takes a moment');
    now = 150;
    progress.bytes(50, 100);
    assert.equal(screen.text, `${CLEAR}writing the log [${'='.repeat(15)}${' '.repeat(15)}]  50 %  50 B of 100 B`);
    progress.end();
    assert.ok(screen.text.endsWith(CLEAR));
  });

  it('Progress does not repeat a line that says the same', () => {
    const screen = new Screen(false);
    let now = 0;
    const progress = new Progress('umount', screen, () => now);
    for (; now < 60_000; now += 1000) progress.note('waiting for slink 0');
    assert.equal(screen.text, 'umount: waiting for slink 0\n');
  });

  it('columns pads all but the last cell', () => {
    assert.deepEqual(
      columns([
        ['a', 'bb', 'c'],
        ['aaa', 'b', 'ccc'],
      ]),
      ['a    bb  c', 'aaa  b   ccc'],
    );
  });

  for (const [seconds, text] of [
    [0, '0 s'],
    [0.44, '0.4 s'],
    [59.6, '60 s'],
    [180, '3 min'],
    [5 * 3600, '5 h'],
    [3 * 86400, '3 days'],
  ] as const) {
    it(`formatSeconds says ${text} for ${seconds}`, () => assert.equal(formatSeconds(seconds), text));
  }

  it('plural and sentenceList read as a sentence', () => {
    assert.equal(plural(1, 'record'), '1 record');
    assert.equal(plural(2, 'record'), '2 records');
    assert.equal(sentenceList([]), '');
    assert.equal(sentenceList(['a']), 'a');
    assert.equal(sentenceList(['a', 'b']), 'a and b');
    assert.equal(sentenceList(['a', 'b', 'c']), 'a, b and c');
    assert.equal(sentenceList(['a', 'b', 'c', 'd'], 2), 'a, b and 2 more');
  });
});
