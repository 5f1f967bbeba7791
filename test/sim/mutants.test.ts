import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  DEFERRAL_MUTANTS,
  MUTANTS,
  POLICY_MUTANTS,
  RAW_MUTANTS,
  RESIZE_MUTANTS,
  RESYNC_MUTANTS,
  copyBuild,
  patch,
  runBuild,
  type Mutant,
} from '../support/sim-mutants.js';

/** The folder of the build that this test belongs to, and the repository above it. */
const BUILD = join(import.meta.dirname, '../..');

function repository(from: string): string {
  return existsSync(join(from, 'package.json')) ? from : repository(dirname(from));
}

/** Found within seconds where the machine has nothing else to do. */
const LIMIT_MS = 110_000;

/** One scenario with some deaths, unless a seed is known, then seed after seed until the time is over. */
function argsOf({ seed, mode }: Mutant): string[] {
  const first = mode !== undefined ? [`--${mode}`] : seed === undefined ? ['--every-io', '100'] : [];
  return [...first, '--seed', `${seed ?? 1}`, '--steps', '1200', '--minutes', '1.7'];
}

describe('mutants of the product', function () {
  this.timeout(3 * LIMIT_MS);
  const to = join(repository(BUILD), '.build', `mutant-${process.pid}`);

  after(() => rmSync(to, { recursive: true, force: true }));

  it('the product itself passes the same seeds', async () => {
    copyBuild(BUILD, to);
    for (const seed of new Set(MUTANTS.map((mutant) => mutant.seed ?? 1))) {
      const args = [
        '--seed',
        `${seed}`,
        '--steps',
        '1200',
        '--runs',
        '2',
        ...(seed === 1 ? ['--every-io', '100'] : []),
      ];
      const { code, output } = await runBuild(to, args, 2 * LIMIT_MS);
      assert.equal(code, 0, output);
    }
  });

  const all = [MUTANTS, POLICY_MUTANTS, DEFERRAL_MUTANTS, RAW_MUTANTS, RESIZE_MUTANTS, RESYNC_MUTANTS].flat();
  for (const mutant of all)
    it(`is found out: ${mutant.name}`, async () => {
      copyBuild(BUILD, to);
      patch(to, mutant);
      const { code, output } = await runBuild(to, argsOf(mutant), LIMIT_MS);
      assert.equal(code, 1, `not found within ${LIMIT_MS / 1000} s\n${output.slice(-2000)}`);
      assert.match(output, /^FAILED seed /m);
    });
});
