import assert from 'node:assert/strict';
import { STORIES, countCalls, crashImagesAtEveryCall, everyPoint, killAtEvery } from '../support/sim-every.js';
import { Coverage } from '../support/sim-faults.js';
import { collect } from '../support/sim-memory.js';
import { failureText, runSeed, type SimMode } from '../support/sim-seed.js';

const FIXED = Array.from({ length: 16 }, (_, i) => i + 1);
/** Disks are exchanged, stamps torn and their syncs fail. */
const RAW_SEEDS = [12, 28, 30, 34, 37, 38];
const STEPS = 1500;
const MODES = [undefined, 'policies', 'deferral', 'raw', 'resize'] as const;

describe('simulator', function () {
  this.timeout(180_000);
  const seen = new Coverage();

  async function holds(seed: number, mode?: SimMode): Promise<void> {
    const result = await runSeed({ seed, steps: STEPS, ...(mode === undefined ? {} : { [mode]: true }) });
    seen.merge(result.coverage);
    await collect();
    const also = mode === undefined ? '' : ` --${mode}`;
    if (!result.ok)
      assert.fail(`${failureText(result)}\n  again: npm run sim -- --seed ${seed} --steps ${STEPS}${also}`);
  }

  it('the same seed is the same run', async () => {
    const [a, b] = [await runSeed({ seed: 77, steps: 400 }), await runSeed({ seed: 77, steps: 400 })];
    assert.equal(a.digest, b.digest);
    assert.deepEqual(a.trace, b.trace);
    assert.equal(a.calls, b.calls);
  });

  for (const seed of FIXED) it(`keeps its promises under seed ${seed}`, () => holds(seed));

  for (const seed of FIXED) it(`keeps them with policies of sites under seed ${seed}`, () => holds(seed, 'policies'));

  for (const seed of FIXED.slice(0, 6))
    it(`keeps them with sites that are put off under seed ${seed}`, () => holds(seed, 'deferral'));

  for (const seed of RAW_SEEDS)
    it(`keeps them with sites without a journal under seed ${seed}`, () => holds(seed, 'raw'));

  for (const seed of FIXED.slice(0, 8))
    it(`keeps them while the log gets other sizes under seed ${seed}`, () => holds(seed, 'resize'));

  it('keeps its promises under fresh seeds', async () => {
    for (let i = 0; i < 12; i++) await holds(Math.floor(Math.random() * 1e9), MODES[i % MODES.length]);
  });

  for (const seed of [104, 105, 108, 111, 117, 123])
    it(`keeps its promises under seed ${seed} while the local images fail and slink 0 is detached`, () =>
      holds(seed, 'detach'));

  it('has met what it is there to meet', () => {
    const wanted = [
      ...['death: daemon', 'death: machine', 'death: keeper', 'check: host (crash image)', 'check: read'],
      ...[
        'recovery cut a torn tail',
        'start: adopts the window',
        'requests parked or dropped for want of room',
        'requests sent again',
        'clean close',
      ],
      ...['site cut before a call', 'site cut during a call', 'site cut after a call', 'site killed during a call'],
      ...['site exchanged', 'slow call of a site', 'site paused', 'site resumed', 'clock of a site set wrong'],
      ...['error at a call of a site (refusing)', 'error at a call of a site (erring)'],
      ...['shape: 3 devices', 'shape: 4 devices', 'shape: 2 sites', 'shape: 3 sites'],
      ...['slink 0 detached', 'slink 0 attached', 'check: read while slink 0 is detached'],
      ...['check: goes on without its sites', 'check: stands still, as its log is full'],
      ...['check: answered when the site had it', 'policy changed', 'fail-pending', 'site removed', 'link degraded'],
      ...['check: let go (fail-pending)', 'check: let go (policy async)', 'check: let go (removal)'],
      ...['deferral: put off beyond the RPO', 'deferral ended: not busy', 'deferral ended: its time'],
      ...['deferral ended: somebody waits', 'deferral ended: its share of the log'],
      ...['check: raw site, stamp open', 'check: raw site, stamp closed', 'raw site exchanged, and refused'],
      ...['check: raw site, a prefix only after replay', 'kill during STAMP:WRITE'],
      ...['log resized', 'log got another base', 'resize copies the part behind the wrap', 'resize failed: EBUSY'],
      ...['second resize refused'],
      ...['check: all settled', 'check: index lost', 'check: index set back', 'check: site (crash, stage replayed)'],
    ];
    assert.deepEqual(
      wanted.filter((what) => seen.of(what) === 0),
      [],
    );
  });

  it('recovers from a death at every I/O of a scenario', async () => {
    const calls = countCalls();
    assert.ok(calls > 150, `${calls} calls`);
    assert.equal(await killAtEvery(everyPoint(calls, 1)), calls);
  });

  for (const [name, story] of Object.entries(STORIES)) it(`keeps its promises in the story ${name}`, () => story());

  it('shows a prefix at every I/O of a scenario, had the machines died there', () => {
    assert.ok(crashImagesAtEveryCall(1, 1) > 150);
  });
});
