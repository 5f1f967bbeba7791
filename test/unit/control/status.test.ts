import assert from 'node:assert/strict';
import { plainSite } from '../../../src/control/config.js';
import { buildStatus, type GroupFacts } from '../../../src/control/facts.js';
import { statusLines } from '../../../src/control/status-lines.js';
import { tableLines } from '../../../src/control/table.js';
import { conforms } from '../../support/schema.js';
import { productTypes } from '../../../src/control/types.js';
import { RESYNC_SERVED } from '../../../src/slink/resync.js';
import { facts, MIB, NOW, withSite } from './facts.js';

describe('control/status', () => {
  it('buildStatus makes what the schema of status.json tells, neither more nor less', () => {
    const counts = { requests: 1, bytes: 4096 };
    const devices = new Map([[0, { read: counts, write: counts, flush: counts, discard: counts }]]);
    const rates = { reads: 1.25, writes: 2, readBytes: 3, writtenBytes: 4 };
    for (const f of [
      facts(),
      facts({ localError: 5, keeper: null, failures: [{ at: new Date(NOW).toISOString(), what: 'x' }] }),
      facts({ statistics: { on: false, sinceMs: NOW, devices, rates } }),
      { ...facts(), log: { ...facts().log, error: 28, holder: undefined, bytesPerSecond: 0 } },
      withSite({ needsFullResync: true, state: 'failed', reason: 'gone' }),
    ])
      conforms(JSON.parse(JSON.stringify(buildStatus(f))), '_group');
    assert.throws(() => conforms({ ...buildStatus(facts()), more: 1 }, '_group'), /has a more that nobody told of/);
    assert.throws(() => conforms({ ...buildStatus(facts()), generation: '2' }, '_group'), /generation is "2"/);
  });

  it('statusLines prints one line per target in the grammar of dm-replicator', () => {
    assert.equal(
      statusLines(facts()),
      '0 1 replicator A,2,8 A,12,81 14/89/2048000 80 160 2047919 ok 1\n' +
        '0 2097152 replicator-dev default 0 A,- A,256/256\n',
    );
  });

  const linesCases: { name: string; facts: GroupFacts; line: RegExp }[] = [
    {
      name: 'S for durability=write',
      facts: { ...facts(), config: { ...facts().config, durability: 'write' } },
      line: /^0 1 replicator S,2,8 /,
    },
    {
      name: 'a full log and its holder',
      facts: { ...facts(), log: { ...facts().log, full: true } },
      line: / full 1$/m,
    },
    { name: 'a log in error', facts: { ...facts(), log: { ...facts().log, error: 28 } }, line: / error 1$/m },
    {
      name: 'nobody who holds the head',
      facts: { ...facts(), log: { ...facts().log, holder: undefined } },
      line: / ok -$/m,
    },
    { name: 'a failed site', facts: withSite({ state: 'failed' }), line: /replicator-dev default 0 A,- W,256\/256$/m },
    { name: 'a site that needs a resync', facts: withSite({ needsFullResync: true }), line: / A,- A,0\/256$/m },
    { name: 'failed local images', facts: facts({ localError: 5 }), line: /replicator-dev default 0 W,- /m },
  ];
  for (const { name, facts: f, line } of linesCases)
    it(`statusLines shows ${name}`, () => assert.match(statusLines(f), line));

  it('statusLines names a device whose name its number does not tell', () => {
    const f = facts();
    f.config.devices.push({ nr: 4, name: 'base', size: 5 * MIB, local: '/i', dirtyLogs: {} });
    assert.match(statusLines(f), /^base: 0 10240 replicator-dev default 4 A,- A,2\/2$/m);
  });

  it('buildStatus tells lag in seconds, bytes and writes', () => {
    const [site] = buildStatus(facts()).connections;
    assert.equal(site!['lag-seconds'], 2.5);
    assert.equal(site!['lag-bytes'], 40960 + 512);
    assert.equal(site!['lag-writes'], 12);
    assert.equal(site!['recoverable-to'], '2026-11-20T05:59:55.000Z');
    assert.deepEqual(site!.peer_devices, [
      { volume: 0, 'replication-state': 'Established', 'peer-disk-state': 'Consistent', 'out-of-sync': 0 },
    ]);
  });

  it('buildStatus tells no lag where the site has all', () => {
    const f = withSite({ cursor: { pos: 81920, seq: 101, chainLo: 0, chainHi: 0, time: NOW * 1000 }, oldestUs: 0 });
    const [site] = buildStatus(f).connections;
    assert.equal(site!['lag-seconds'], 0);
    assert.equal(site!['lag-bytes'], 0);
    assert.equal(site!.peer_devices[0]!['peer-disk-state'], 'UpToDate');
  });

  it('buildStatus calls a site that needs a resync Inconsistent and recoverable to nowhere', () => {
    const [site] = buildStatus(withSite({ needsFullResync: true, state: 'failed', reason: 'gone' })).connections;
    assert.equal(site!.peer_devices[0]!['peer-disk-state'], 'Inconsistent');
    assert.equal(site!['recoverable-to'], null);
    assert.equal(site!.reason, 'gone');
  });

  describe('a site that is out of the ring', () => {
    const dirty = new Map([[0, { regions: 256, dirty: 10, bytes: 10 * 4 * MIB }]]);
    const progress = { looked: 8 * MIB, copied: MIB, zeroed: 512, left: 40 * MIB, rate: 20 * MIB };

    it('! is Inconsistent and recoverable to nowhere, and status says what is left', () => {
      const f = withSite({ inconsistent: true, dirty, state: 'resyncing', resync: progress });
      const status = buildStatus(f);
      conforms(JSON.parse(JSON.stringify(status)), '_group');
      const [site] = status.connections;
      assert.deepEqual(
        [site!.sync, site!['needs-full-resync'], site!['recoverable-to']],
        ['inconsistent', false, null],
      );
      assert.deepEqual(site!.peer_devices, [
        {
          ...{ volume: 0, 'replication-state': 'SyncSource', 'peer-disk-state': 'Inconsistent' },
          'out-of-sync': 40 * 1024,
        },
      ]);
      assert.deepEqual(site!.resync, {
        ...{ state: 'running', 'bytes-left': 40 * MIB, 'bytes-compared': 8 * MIB, 'bytes-copied': MIB },
        ...{ 'bytes-zeroed': 512, 'bytes-per-second': 20 * MIB, 'seconds-left': 2 },
      });
    });

    it('statusLines has the regions that are in sync, and a plus while the others are copied', () => {
      assert.match(statusLines(withSite({ inconsistent: true, dirty, state: 'resyncing' })), / A,246\+\/256$/m);
      assert.match(statusLines(withSite({ inconsistent: true, dirty, state: 'paused' })), / A,246\/256$/m);
      assert.match(statusLines({ ...withSite({ inconsistent: true, dirty }), region: 2048 }), / A,1014\/1024$/m);
    });

    it('waits while it cannot be reached', () => {
      const [site] = buildStatus(
        withSite({ inconsistent: true, dirty, state: 'failed', resync: progress }),
      ).connections;
      const { state, 'seconds-left': left } = site!.resync!;
      assert.deepEqual([state, left], ['waiting', null]);
    });
  });

  it('! buildStatus calls a site inside its open window Inconsistent, and says which records', () => {
    const open = buildStatus(withSite({ window: { from: 89, to: 8281, bytes: 4096 } })).connections[0]!;
    assert.equal(open.peer_devices[0]!['peer-disk-state'], 'Inconsistent');
    assert.deepEqual(open['open-window'], { 'from-seq': 89, 'to-seq': 101, bytes: 4096 });
    assert.equal(open['recoverable-to'], null);
    const failed = buildStatus(withSite({ state: 'failed', window: { from: 89, to: 90, bytes: 0 } })).connections[0]!;
    assert.equal(failed.peer_devices[0]!['peer-disk-state'], 'Inconsistent');
    assert.equal(buildStatus(facts()).connections[0]!['open-window'], null);
    const unlooked = buildStatus(withSite({ state: 'connecting', unlooked: true })).connections[0]!;
    assert.equal(unlooked.peer_devices[0]!['peer-disk-state'], 'DUnknown');
  });

  it('buildStatus says what is suspended and what to do', () => {
    const status = buildStatus({ ...facts(), log: { ...facts().log, error: 28 } });
    assert.equal(status.suspended, true);
    assert.match(
      status['suspended-reason']!,
      /replog: writing the log failed: no space left.*; repair it, then write "resume"/,
    );
    assert.equal(status.log.state, 'error');
    assert.equal(buildStatus(facts())['suspended-reason'], null);
  });

  it('buildStatus tells how long the ring lasts, who holds it, and nothing of that when idle', () => {
    assert.equal(buildStatus(facts()).log['minutes-covered'], 16.67);
    assert.equal(buildStatus(facts()).log['held-by'], 'site 1');
    const idle = buildStatus({ ...facts(), log: { ...facts().log, bytesPerSecond: 0, holder: undefined } });
    assert.equal(idle.log['minutes-covered'], null);
    assert.equal(idle.log['held-by'], null);
    assert.deepEqual(idle.pids, { keeper: 10, daemon: 11 });
  });

  it('tableLines prints the paths of a map as legs', () => {
    const { config } = facts();
    config.sites = [{ ...plainSite(1, 'blockdev', ''), map: { disk0: '/dev/sdb' } }];
    assert.match(tableLines(config, productTypes({})), / 0 1 \/var\S+ nolog 0 1 1 \/dev\/sdb (nolog 0|disk 1 8192)$/m);
  });

  it('tableLines prints lines that open what there is', () => {
    const { config } = facts();
    config.devices.push({ nr: 1, name: 'my', size: MIB, local: '/a b/my', dirtyLogs: {} });
    const usual = RESYNC_SERVED ? 'disk 1 8192' : 'nolog 0';
    assert.equal(
      tableLines(config, productTypes({})),
      '0 1 replicator ringbuffer 3 /var/lib/reptool/default/replog 0 open blockdev 2 0 async blockdev 2 1 async\n' +
        '0 2097152 replicator-dev default 0 0 1 /var/lib/reptool/default/images/disk0 nolog 0 1 1 /var/lib/reptool/default/site1/disk0.img ' +
        `${usual}\nmy: 0 2048 replicator-dev default 1 0 1 /a\\ b/my nolog 0 1 1 ` +
        `/var/lib/reptool/default/site1/my.img ${usual}\n`,
    );
  });
});
