import assert from 'node:assert/strict';
import { SH, SHF } from '../../../src/replog/shared.js';
import { W } from '../../../src/replog/window.js';
import { LinkPolicies, type LinkRules } from '../../../src/slink/policy.js';
import { Rig } from '../replog/rig.js';

const ASYNC: LinkRules = { sync: false, stall: false, ios: 0, bytes: 0, timeoutMs: 0, holdMs: 0 };
const SYNC: LinkRules = { ...ASYNC, sync: true };
const LIMITED: LinkRules = { ...ASYNC, ios: 3 };
const PLACE = 33;

describe('slink/policy', () => {
  let rig: Rig;
  let policies: LinkPolicies;
  let told: string[];

  beforeEach(() => {
    rig = new Rig();
    told = [];
    policies = new LinkPolicies(rig.window, rig.shared, rig.clock, {
      degraded: (place, on) => void told.push(`${place} ${on ? 'degraded' : 'back'}`),
      beyond: (place, on) => void told.push(`${place} ${on ? 'S' : 'A'}`),
    });
  });

  const bit = (pair: number): boolean => (rig.shared.load(pair + 1) & (1 << (PLACE - 32))) !== 0;
  const words = (): string =>
    [bit(SH.GATES) && 'gates', bit(SH.SYNC) && 'sync', bit(SH.LIMITED) && 'limited'].filter(Boolean).join(' ');

  const cases: { name: string; rules: LinkRules; state: 'connected' | 'paused' | 'failed'; words: string }[] = [
    { name: 'async without limits', rules: ASYNC, state: 'connected', words: '' },
    { name: 'sync', rules: SYNC, state: 'connected', words: 'gates sync' },
    { name: 'sync and down', rules: SYNC, state: 'failed', words: 'gates sync' },
    { name: 'sync and paused', rules: SYNC, state: 'paused', words: 'gates sync' },
    { name: 'a limit', rules: LIMITED, state: 'connected', words: 'gates limited' },
    { name: '! a limit and paused', rules: LIMITED, state: 'paused', words: 'gates limited' },
    { name: '! a limit and down', rules: LIMITED, state: 'failed', words: '' },
    { name: '! a limit, stall and down', rules: { ...LIMITED, stall: true }, state: 'failed', words: 'gates limited' },
    { name: 'stall without a limit', rules: { ...ASYNC, stall: true }, state: 'connected', words: '' },
  ];
  for (const c of cases)
    it(`${c.name}: ${c.words === '' ? 'holds nobody' : c.words}`, () => {
      policies.add(PLACE, c.rules, 'connecting', false, 1);
      policies.note(PLACE, c.state);
      assert.equal(words(), c.words);
      assert.equal(rig.shared.load(SH.HOLDING), c.words === '' ? 0 : 1);
      policies.change(PLACE, ASYNC);
      assert.equal(words(), '');
    });

  for (const rules of [SYNC, LIMITED])
    it(`! a link out of the ring holds nobody (${rules.sync ? 'sync' : 'a limit'}), and has to catch up when it is back`, () => {
      policies.add(PLACE, rules, 'connected', false, 1);
      policies.setOut(PLACE, true);
      assert.deepEqual([words(), policies.isDegraded(PLACE)], ['', true]);
      policies.note(PLACE, 'failed');
      policies.note(PLACE, 'connected');
      for (let i = 0; i < 3; i++) policies.step();
      assert.equal(words(), '', 'its confirmations are no promise meanwhile');
      policies.setOut(PLACE, false);
      assert.equal(words(), '');
      rig.shared.store(SH.LINK_SEQ + PLACE, rig.durable);
      for (let i = 0; i < 2; i++) policies.step();
      assert.deepEqual([words(), told], [rules.sync ? 'gates sync' : 'gates limited', [`${PLACE} back`]]);
    });

  it('an async link that comes back into the ring has nothing to catch up with', () => {
    policies.add(PLACE, ASYNC, 'connected', false, 1);
    policies.setOut(PLACE, true);
    policies.setOut(PLACE, false);
    assert.deepEqual([policies.isDegraded(PLACE), told], [false, []]);
  });

  it('isDown: failed, or not up for long; a paused one is not down', () => {
    policies.add(PLACE, ASYNC, 'connecting', false, 1);
    assert.equal(policies.isDown(PLACE), false);
    rig.clock.ms += 6000;
    assert.equal(policies.isDown(PLACE), true);
    for (const [state, down] of [
      ['connected', false],
      ['failed', true],
      ['paused', false],
    ] as const) {
      policies.note(PLACE, state);
      assert.equal(policies.isDown(PLACE), down, state);
    }
  });

  it('a link that is still connecting counts for its limit, though not for ever', () => {
    policies.add(PLACE, LIMITED, 'connecting', false, 1);
    assert.equal(words(), 'gates limited');
    rig.clock.ms += 6000;
    policies.step();
    assert.equal(words(), '');
    policies.note(PLACE, 'connected');
    assert.equal(words(), 'gates limited');
  });

  it('tells where the site of a link is, before its shipper can', () => {
    policies.add(PLACE, SYNC, 'connecting', false, 77);
    assert.equal(rig.shared.linkSeq(PLACE, 80), 77);
    assert.equal(rig.shared.load(SH.PLACES), PLACE + 1);
  });

  it('lets writers go when one has waited too long, and holds them again once the site has caught up', () => {
    policies.add(PLACE, { ...SYNC, holdMs: 1000 }, 'connected', false, 1);
    rig.clock.ms += 10_000;
    policies.step();
    assert.equal(words(), 'gates sync', 'nobody waits');
    rig.shared.floatView[SHF.WANTED + PLACE] = 2;
    policies.step();
    rig.clock.ms += 999;
    policies.step();
    assert.deepEqual(told, []);
    rig.clock.ms += 1;
    policies.step();
    assert.deepEqual([told, words(), policies.isDegraded(PLACE)], [['33 degraded'], '', true]);

    rig.write(512);
    rig.settle();
    policies.step();
    policies.step();
    assert.equal(policies.isDegraded(PLACE), true, 'it lacks what is durable here');
    policies.note(PLACE, 'failed');
    rig.shared.store(SH.LINK_SEQ + PLACE, rig.window.load(W.DURABLE));
    policies.step();
    policies.step();
    assert.equal(policies.isDegraded(PLACE), true, 'it is down');
    policies.note(PLACE, 'connected');
    policies.step();
    policies.step();
    assert.deepEqual([told, words()], [['33 degraded', '33 back'], 'gates sync']);
  });

  it('counts the wait of each writer, not that of a row of them', () => {
    policies.add(PLACE, { ...SYNC, holdMs: 1000 }, 'connected', false, 1);
    for (let seq = 2; seq < 20; seq++) {
      rig.shared.floatView[SHF.WANTED + PLACE] = seq;
      policies.step();
      rig.clock.ms += 900;
      policies.step();
      rig.shared.store(SH.LINK_SEQ + PLACE, seq);
    }
    assert.deepEqual(told, []);
  });

  it('tells of each crossing of the limits once, and of both where both have happened since', () => {
    policies.add(PLACE, LIMITED, 'connected', false, 1);
    rig.shared.store(SH.SWITCHES + PLACE, 1);
    policies.step();
    policies.step();
    rig.shared.store(SH.SWITCHES + PLACE, 3);
    policies.step();
    assert.deepEqual(told, ['33 S', '33 A', '33 S']);
    assert.ok(policies.isSync(PLACE));
  });
});
