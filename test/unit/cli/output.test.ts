import assert from 'node:assert/strict';
import { columns, formatSeconds, plural, sentenceList } from '../../../src/cli/output.js';

describe('cli/output', () => {
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
