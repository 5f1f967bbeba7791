import assert from 'node:assert/strict';
import { defaultConfig, plainSite } from '../../../src/control/config.js';
import { linksFrom } from '../../../src/daemon/open.js';
import type { LinkFact } from '../../../src/index/contract.js';
import type { LogFile } from '../../../src/replog/logfile.js';
import { LOG_ID, TestClock, cleanUp, newLog } from '../replog/rig.js';

const place = (seq: number): LinkFact['cursor'] => ({ pos: seq * 4096, seq, chainLo: seq, chainHi: 0, time: seq });
const END = { ...place(50), reign: 3 };

describe('linksFrom: how links begin', () => {
  let log: LogFile;
  before(() => {
    log = newLog();
    // Its head has moved, and it has been round once.
    const durable = { pos: log.ring + 40960, seq: 50 };
    log.writeSuper({ head: { pos: 20 * 4096, seq: 20 }, durable }, new TestClock());
  });
  after(cleanUp);

  const fact = (seq: number, sync: LinkFact['sync'], more: Partial<LinkFact> = {}): LinkFact => {
    return { nr: 1, cursor: place(seq), reign: 2, sync, paused: false, ...more };
  };
  const start = (facts: LinkFact[], options: { lost?: boolean; served?: boolean } = {}): unknown => {
    const { lost = false, served = true } = options;
    const config = { ...defaultConfig('/group', LOG_ID), sites: [plainSite(1, 'blockdev', '/site')] };
    const [link] = linksFrom(config, log, facts, lost, served ? END : undefined);
    const { cursor, fresh, stale, resync } = link!;
    return { seq: cursor.seq, reign: cursor.reign, fresh, stale: stale !== undefined, resync };
  };

  const cases: { name: string; facts: LinkFact[]; lost?: boolean; is: object }[] = [
    {
      name: 'in order: by records',
      facts: [fact(30, 'in-order')],
      is: { seq: 30, reign: 2, fresh: false, stale: false, resync: undefined },
    },
    {
      name: 'dropped: at its cursor, with what is stored',
      facts: [fact(30, 'inconsistent', { wholeAt: 28 })],
      is: { seq: 30, reign: 2, fresh: false, stale: false, resync: { how: 'stored', begins: false } },
    },
    {
      name: 'dropped before it was ever open: it may still be made',
      facts: [fact(30, 'inconsistent', { wholeAt: 0, fresh: true })],
      is: { seq: 30, reign: 2, fresh: true, stale: false, resync: { how: 'stored', begins: false } },
    },
    {
      name: '! inconsistent, and nobody knows what it lacks (also as earlier versions left it): all, from the end on',
      facts: [fact(30, 'inconsistent')],
      is: { seq: 50, reign: 3, fresh: false, stale: false, resync: { how: 'all', begins: false } },
    },
    {
      name: '! what it lacks has left the log: all, from the end on',
      facts: [fact(10, 'in-order')],
      is: { seq: 50, reign: 3, fresh: false, stale: false, resync: { how: 'all', begins: false } },
    },
    {
      name: '! dropped, but its cursor has left the log: all, from the end on',
      facts: [fact(10, 'inconsistent', { wholeAt: 5 })],
      is: { seq: 50, reign: 3, fresh: false, stale: false, resync: { how: 'all', begins: false } },
    },
    {
      name: 'never open, and the history has left the log: its dirty logs begin, from the end on',
      facts: [],
      is: { seq: 50, reign: 3, fresh: true, stale: false, resync: { how: 'stored', begins: true } },
    },
    {
      name: '! unknown to a lost index: all, and it is not made where it is not there',
      facts: [],
      lost: true,
      is: { seq: 50, reign: 3, fresh: false, stale: false, resync: { how: 'all', begins: false } },
    },
  ];
  for (const { name, facts, lost = false, is } of cases) it(name, () => assert.deepEqual(start(facts, { lost }), is));

  it('where resyncs are not served, whatever needs one is left as it is', () => {
    for (const facts of [
      [],
      [fact(10, 'in-order')],
      [fact(30, 'inconsistent', { wholeAt: 28 })],
      [fact(30, 'inconsistent')],
    ])
      assert.deepEqual((start(facts, { served: false }) as { stale: boolean; resync: unknown }).stale, true);
    assert.deepEqual(start([fact(30, 'in-order')], { served: false }), {
      ...{ seq: 30, reign: 2, fresh: false, stale: false, resync: undefined },
    });
  });
});
