import assert from 'node:assert/strict';
import { FullWatch, judge, type Holder, type Verdict } from '../../../src/slink/leaving.js';

const LINK: Holder = { nr: 1, away: false, stall: false, gates: false, dirtyLogs: true, serves: false };

describe('judge: who leaves a full ring', () => {
  const cases: { name: string; holder: Partial<Holder>; waited?: boolean; is: Verdict }[] = [
    { name: 'a site that is down is dropped at once', holder: { away: true }, is: 'drop' },
    { name: 'a paused site is dropped at once', holder: { away: true }, is: 'drop' },
    { name: 'a site that works is looked at again', holder: {}, is: 'wait' },
    { name: 'a site that works is dropped once it was waited for long enough', holder: {}, waited: true, is: 'drop' },
    { name: '! slink 0 is never dropped', holder: { nr: 0, away: true }, waited: true, is: 'local-disk' },
    {
      name: '! stall holds writers, however long it is down',
      holder: { stall: true, away: true },
      waited: true,
      is: 'stall',
    },
    { name: '! a sync site that gates holds writers', holder: { gates: true, away: true }, waited: true, is: 'sync' },
    { name: 'a degraded sync site gates nobody and is dropped', holder: { away: true }, is: 'drop' },
    {
      name: 'a site without a dirty log holds writers',
      holder: { dirtyLogs: false, away: true },
      waited: true,
      is: 'nolog',
    },
    {
      name: '! the site that reads come from while slink 0 is detached is not dropped',
      holder: { serves: true },
      waited: true,
      is: 'serves-reads',
    },
    { name: 'another site is, while slink 0 is detached', holder: { away: true, nr: 2 }, is: 'drop' },
    { name: 'one that is being resynced and works is given its time, too', holder: {}, is: 'wait' },
    { name: 'one that fails while it is resynced is dropped again', holder: { away: true }, is: 'drop' },
  ];
  for (const { name, holder, waited = false, is } of cases)
    it(name, () => assert.equal(judge({ ...LINK, ...holder }, waited), is));
});

describe('FullWatch', () => {
  const RING = 1600;

  it('gives a holder its time, then says that it is over', () => {
    const watch = new FullWatch({ ring: RING });
    assert.equal(watch.held(0, 1, 0, 1000), 1000);
    assert.equal(watch.held(600, 1, 0, 1000), 400);
    assert.equal(watch.held(999, 1, 50, 1000), 1);
    assert.ok(watch.held(1000, 1, 99, 1000) <= 0);
  });

  it('begins anew with another holder', () => {
    const watch = new FullWatch({ ring: RING });
    watch.held(0, 1, 0, 1000);
    assert.equal(watch.held(900, 2, 10, 1000), 1000);
  });

  it('a site that frees a sixteenth of the ring in each such time only brakes', () => {
    const watch = new FullWatch({ ring: RING });
    let pos = 0;
    for (let now = 0; now < 10_000; now += 500) assert.ok(watch.held(now, 1, (pos += 60), 1000) > 0, `at ${now}`);
  });

  it('! one that frees a little now and then is not taken for one that never held writers for long', () => {
    const watch = new FullWatch({ ring: RING });
    watch.held(0, 1, 0, 1000);
    // Room for a batch, and full again.
    for (const now of [300, 600, 900]) assert.ok(watch.held(now, 1, now / 50, 1000) > 0);
    assert.ok(watch.held(1001, 1, 20, 1000) <= 0);
  });

  it('forgets what was long ago', () => {
    const watch = new FullWatch({ ring: RING });
    watch.held(0, 1, 0, 1000);
    assert.equal(watch.held(5000, 1, 0, 1000), 1000);
  });

  it('0 = at once', () => {
    const watch = new FullWatch({ ring: RING });
    assert.ok(watch.held(0, 1, 0, 0) <= 0);
  });
});
