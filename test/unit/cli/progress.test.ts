import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import { Progress } from '../../../src/cli/progress.js';

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

describe('cli/progress', () => {
  it('Progress prints plain lines every five seconds where there is no terminal', () => {
    const screen = new Screen(false);
    let now = 0;
    const progress = new Progress('writing the log', screen, () => now);
    for (; now <= 12_000; now += 1000) progress.bytes((now / 12_000) * 64 * MIB, 64 * MIB);
    progress.end();
    assert.equal(
      screen.text,
      'writing the log: 41 %, 26.7 MiB of 64 MiB, 7 s left\nwriting the log: 83 %, 53.3 MiB of 64 MiB, 2 s left\n',
    );
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

  it('Progress says how long the rest takes once it can tell', () => {
    const screen = new Screen(true);
    let now = 0;
    const progress = new Progress('writing the log', screen, () => now);
    now = 1000;
    progress.bytes(10 * MIB, 100 * MIB);
    assert.doesNotMatch(screen.text, / left/);
    now = 4000;
    progress.bytes(20 * MIB, 100 * MIB);
    assert.ok(screen.text.endsWith('20 %  20 MiB of 100 MiB, 16 s left'), screen.text);
    now = 5000;
    progress.bytes(100 * MIB, 100 * MIB);
    assert.ok(screen.text.endsWith('100 %  100 MiB of 100 MiB'), screen.text);
  });
});
