/** Which numbered rules must have a test whose title begins with the number, and that they do. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const RULES: { file: string; numbers: string[] }[] = [
  { file: 'registry/registry.test.js', numbers: range('G', 1, 6) },
  { file: 'control/table.test.js', numbers: range('R', 8, 18) },
  { file: 'control/historic.test.js', numbers: ['R-44', 'R-45', 'R-46', 'R-48'] },
  { file: 'replog/resize.test.js', numbers: ['R-49'] },
  { file: 'control/historic-slink.test.js', numbers: ['R-46', 'R-47'] },
  { file: 'cli/tables.test.js', numbers: ['R-9', 'R-10', 'R-14', 'R-16', 'R-18'] },
];

interface Listed {
  tests: { fullTitle: string; title: string; pending?: boolean }[];
}

describe('rules', () => {
  for (const { file, numbers } of RULES)
    it(`${file} has a test for each of ${numbers[0]} to ${numbers.at(-1)}`, function () {
      this.timeout(60_000);
      const titles = titlesIn(join(import.meta.dirname, file));
      const missing = numbers.filter((number) => !titles.some((title) => title.startsWith(`${number} `)));
      assert.deepEqual(missing, []);
    });
});

function range(letter: string, from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => `${letter}-${from + i}`);
}

/** Titles as the runner sees them: what is skipped or commented out is none. */
function titlesIn(file: string): string[] {
  const mocha = join(dirname(createRequire(import.meta.url).resolve('mocha/package.json')), 'bin/mocha.js');
  const words = [mocha, '--no-config', '--dry-run', '--reporter', 'json', file];
  const listed = JSON.parse(execFileSync(process.execPath, words, { encoding: 'utf8', timeout: 60_000 })) as Listed;
  return listed.tests.filter((test) => test.pending !== true).map((test) => test.title);
}
