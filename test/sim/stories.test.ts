/** The scenario files: each says what it says (support/sim-story.ts describes the format). */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { playStory } from '../support/sim-story.js';

function repository(from: string): string {
  return existsSync(join(from, 'package.json')) ? from : repository(dirname(from));
}

const FOLDER = join(repository(import.meta.dirname), 'test/sim/scenarios');

describe('scenario files', function () {
  this.timeout(60_000);
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.txt'));

  it('are there', () => assert.ok(files.length >= 3, files.join(', ')));

  for (const name of files)
    it(name, () => {
      const path = join(FOLDER, name);
      const text = readFileSync(path, 'utf8');
      const said = playStory(text);
      if (process.env['UPDATE_SNAPSHOT'] === '1') writeFileSync(path, said);
      else assert.equal(said, text);
    });

  it('say no if the group does something else', () => {
    const text = readFileSync(join(FOLDER, files[0]!), 'utf8').replace(/answered/, 'refused');
    assert.notEqual(playStory(text), text);
  });
});
