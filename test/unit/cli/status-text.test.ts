import assert from 'node:assert/strict';
import { lagSentence, statusText, verdict } from '../../../src/cli/status-text.js';
import type { ResyncStatus, SiteStatus, StatusJson, VerifyStatus } from '../../../src/control/status.js';
import { GIB, MIB } from '../../../src/base/units.js';

const SITE: SiteStatus = {
  'peer-node-id': 1,
  name: 'site1',
  type: 'blockdev',
  address: '/state/site1',
  map: {},
  policy: 'async',
  ack: 'durable',
  stall: false,
  'fall-behind': { ios: 0, size: 0, 'timeout-ms': 0 },
  'sync-timeout-ms': 0,
  bandwidth: 0,
  'rpo-ms': 100,
  'resync-rate': 0,
  'resync-latency-ms': 0,
  mode: 'A',
  degraded: false,
  'waiting-writes': 0,
  state: 'connected',
  reason: null,
  paused: false,
  sync: 'in-sync',
  'needs-full-resync': false,
  'cursor-seq': 12,
  'cursor-position': 8192,
  'lag-seconds': 0,
  'lag-bytes': 0,
  'lag-writes': 0,
  'open-window': null,
  'recoverable-to': '2026-11-20T07:00:00.000Z',
  resync: null,
  verify: null,
  peer_devices: [{ volume: 0, 'replication-state': 'Established', 'peer-disk-state': 'UpToDate', 'out-of-sync': 0 }],
};

const RESYNC: ResyncStatus = {
  state: 'running',
  'bytes-left': 40 * MIB,
  'bytes-compared': 8 * MIB,
  'bytes-copied': MIB,
  'bytes-zeroed': 0,
  'bytes-per-second': 20 * MIB,
  'seconds-left': 2,
};

const VERIFY: VerifyStatus = {
  state: 'done',
  reason: null,
  started: '2026-11-20T07:00:00.000Z',
  ended: '2026-11-20T07:00:04.000Z',
  'bytes-total': GIB,
  'bytes-compared': GIB,
  'bytes-per-second': 256 * MIB,
  'seconds-left': null,
  'suspected-bytes': 0,
  'different-bytes': 0,
  'range-grain': 512,
  different: [],
};

function status(change: Partial<StatusJson> = {}, site: Partial<SiteStatus> = {}): StatusJson {
  return {
    name: 'default',
    mountpoint: '/mnt/rep',
    types: {},
    role: 'Primary',
    suspended: false,
    'suspended-reason': null,
    'local-detached': null,
    'held-by': [],
    'write-ordering': 'group',
    durability: 'flush',
    version: '0.1.0',
    pids: { keeper: 10, daemon: 11 },
    generation: 1,
    'kills-survived': 0,
    'uptime-seconds': 240,
    transport: 'kernel',
    'transport-reason': 'mounted by mount(2)',
    notes: [],
    'resend-support': true,
    reign: 1,
    'reign-id': '00'.repeat(16),
    log: {
      path: '/state/replog',
      state: 'ok',
      size: GIB,
      used: 100 * MIB,
      'segment-size': 16 * MIB,
      'durable-position': 0,
      'head-position': 0,
      'durable-seq': 12,
      'held-by': 'site 1',
      'bytes-per-second': MIB,
      'minutes-covered': 17,
      resize: null,
    },
    window: {
      ...{ size: 64 * MIB, used: 0, slots: 1024, 'slots-used': 0, parked: 0, 'fill-percent': 0 },
      ...{ 'next-seq': 12, 'durable-seq': 12, 'applied-seq': 12, 'head-seq': 12 },
    },
    statistics: {
      ...{ state: 'on', since: '2026-11-20T06:00:00.000Z', 'read-iops': 0, 'write-iops': 1200.4 },
      ...{ 'read-bytes-per-second': 0, 'write-bytes-per-second': 5 * MIB },
    },
    recovery: { how: 'clean', at: '', records: 0, bytes: 0, milliseconds: 0 },
    devices: [
      {
        ...{ volume: 0, name: 'disk0', size: GIB, local: '/state/images/disk0', 'disk-state': 'UpToDate' },
        ...{ read: 2048, written: 4096, reads: 512, writes: 1024, flushes: 3, discards: 0 },
      },
    ],
    connections: [{ ...SITE, ...site }],
    failures: [],
    ...change,
  };
}

describe('cli/status-text', () => {
  it('statusText prints a healthy group', () => {
    assert.equal(
      statusText(status()),
      `default role:Primary suspended:no durability:flush
  mounted on /mnt/rep, up 4 min, keeper 10, daemon 11
  transport:kernel, mounted by mount(2)
  disk0 disk:UpToDate size:1GiB read:2048 written:4096 local:/state/images/disk0
  site1 connection:Connected replication:Established policy:async blockdev:/state/site1
    disk0 peer-disk:UpToDate
    lag: none; recoverable to 2026-11-20T07:00:00.000Z
  log:ok fill:9% (100MiB of 1GiB), covers 17 min at 1MiB/s, head held by site 1
  window fill:0% (0B of 64MiB, 0 records), io: reads 0/s, writes 1200/s (5MiB/s)`,
    );
  });

  it('statusText says that statistics are off, or have just begun', () => {
    const { statistics } = status();
    assert.match(statusText(status({ statistics: { ...statistics, state: 'off' } })), /, statistics off$/m);
    const begins = { ...statistics, 'read-iops': null, 'write-iops': null };
    assert.match(statusText(status({ statistics: begins })), /, io: not measured yet$/m);
  });

  it('statusText says what is wrong', () => {
    const text = statusText(
      status(
        {
          suspended: true,
          'suspended-reason': 'the log cannot be written (EIO); replace the disk',
          generation: 3,
          'kills-survived': 2,
          failures: [{ at: '2026-11-20T07:00:00.000Z', what: 'daemon 9 killed' }],
        },
        { state: 'failed', reason: '/state/site1: gone', 'lag-seconds': 75, 'lag-bytes': 4096, 'lag-writes': 1 },
      ),
    );
    for (const line of [
      'default role:Primary suspended:yes durability:flush',
      '  mounted on /mnt/rep, up 4 min, keeper 10, daemon 11 (restarted 2 times)',
      '  suspended: the log cannot be written (EIO); replace the disk',
      '  site1 connection:Connecting replication:Off policy:async blockdev:/state/site1',
      '    lag: 75 s, 4KiB in 1 write; recoverable to 2026-11-20T07:00:00.000Z',
      '    failed: /state/site1: gone',
      '    2026-11-20T07:00:00.000Z daemon 9 killed',
    ])
      assert.ok(text.split('\n').includes(line), `${line}\nin\n${text}`);
  });

  const runs: Partial<VerifyStatus> = { state: 'running', ended: null, 'bytes-compared': GIB / 4, 'seconds-left': 3 };
  const range = { volume: 0, device: 'disk0', start: 4096, length: 512 };
  const VERIFIES: { name: string; verify: Partial<VerifyStatus>; lines: string[] }[] = [
    {
      name: 'goes on',
      verify: runs,
      lines: ['    verify: 25% of 1GiB, 256MiB/s, 3 s left; no difference so far'],
    },
    {
      name: 'waits',
      verify: { ...runs, state: 'waiting', reason: 'slink 0 is detached', 'bytes-per-second': 0, 'seconds-left': null },
      lines: ['    verify: 25% of 1GiB, waits: slink 0 is detached; no difference so far'],
    },
    {
      name: 'found nothing',
      verify: {},
      lines: ['    verify of 2026-11-20T07:00:00.000Z: 1GiB compared in 4 s, no difference'],
    },
    {
      name: 'found something',
      verify: { 'different-bytes': 512, different: [range] },
      lines: [
        '    verify of 2026-11-20T07:00:00.000Z: 1GiB compared in 4 s, 512B in 1 range differ',
        '      disk0: 512 bytes from byte 4096 on differ',
      ],
    },
    {
      name: 'was stopped',
      verify: { state: 'stopped', reason: 'by an operator', 'bytes-compared': MIB },
      lines: [
        '    verify of 2026-11-20T07:00:00.000Z: stopped after 1MiB of 1GiB (by an operator); no difference so far',
      ],
    },
  ];
  for (const { name, verify, lines } of VERIFIES)
    it(`statusText shows a verify that ${name}`, () => {
      const text = statusText(status({}, { verify: { ...VERIFY, ...verify } }));
      for (const line of lines) assert.ok(text.split('\n').includes(line), `${line}\nin\n${text}`);
      assert.equal(text.includes('replication:VerifyS'), verify.ended === null);
    });

  it('statusText lists eight ranges of a verify and counts the others', () => {
    const different = Array.from({ length: 11 }, (_, i) => ({ ...range, start: i * 4096 }));
    const verify = { ...VERIFY, 'different-bytes': 11 * 512, 'range-grain': 2048, different };
    const text = statusText(status({}, { verify }));
    assert.equal(text.match(/ bytes from byte /g)!.length, 8);
    assert.match(text, /5.5KiB in 11 ranges differ, told in steps of 2KiB$/m);
    assert.match(text, /^ {6}and 3 ranges more; status\.json lists them$/m);
  });

  it('statusText shows a resync', () => {
    const text = (resync: ResyncStatus): string => statusText(status({}, { sync: 'inconsistent', resync }));
    const line = '    resync: 40MiB left, 20MiB/s, 2 s to go, 1MiB of 8MiB differed; inconsistent until it is done';
    assert.ok(text(RESYNC).split('\n').includes(line), text(RESYNC));
    const waits = {
      ...RESYNC,
      state: 'waiting',
      'bytes-compared': 0,
      'bytes-per-second': 0,
      'seconds-left': null,
    } as const;
    const waiting = '    resync: 40MiB left, waits for the site; inconsistent until it is done';
    assert.ok(text(waits).split('\n').includes(waiting), text(waits));
  });

  const log = status().log;
  const VERDICTS: { name: string; change?: Partial<StatusJson>; site?: Partial<SiteStatus>; line: string }[] = [
    { name: 'all is well', line: '0 OK reptool default: site1 connected' },
    { name: 'there is no site', change: { connections: [] }, line: '0 OK reptool default: no site' },
    {
      name: 'a site is a moment behind',
      site: { state: 'behind', 'lag-seconds': 5 },
      line: '0 OK reptool default: site1 behind',
    },
    {
      name: 'a site is far behind',
      site: { state: 'behind', 'lag-seconds': 300 },
      line: '1 WARNING reptool default: site1 is 5 min behind',
    },
    { name: 'a site is paused', site: { state: 'paused' }, line: '1 WARNING reptool default: site1 paused' },
    {
      name: 'the keeper is gone',
      change: { pids: { keeper: null, daemon: 11 } },
      line: '1 WARNING reptool default: no keeper',
    },
    {
      name: 'the log is nearly full',
      change: { log: { ...log, used: 0.9 * GIB } },
      line: '1 WARNING reptool default: log 90% full, held by site 1',
    },
    {
      name: 'the log is full',
      change: { log: { ...log, used: GIB, state: 'full' } },
      line: '2 CRITICAL reptool default: log full, held by site 1',
    },
    {
      name: 'a site failed',
      site: { state: 'failed', reason: 'gone' },
      line: '2 CRITICAL reptool default: site1 failed: gone',
    },
    {
      name: 'writes are suspended',
      change: { suspended: true, 'suspended-reason': 'disk full' },
      line: '2 CRITICAL reptool default: suspended: disk full',
    },
    {
      name: 'a site is resynced',
      site: { state: 'resyncing', sync: 'inconsistent', resync: RESYNC },
      line: '1 WARNING reptool default: site1 is inconsistent, 40MiB to resync (resyncing)',
    },
    {
      name: 'a site waits to be resynced',
      site: { state: 'failed', reason: 'gone', sync: 'inconsistent', resync: { ...RESYNC, state: 'waiting' } },
      line: '2 CRITICAL reptool default: site1 is inconsistent, 40MiB to resync (failed: gone)',
    },
    {
      name: 'a verify found a difference',
      site: { verify: { ...VERIFY, 'different-bytes': 512, different: [range] } },
      line: '2 CRITICAL reptool default: site1 differs in 512B (verify of 2026-11-20T07:00:00.000Z)',
    },
    {
      name: 'a site needs everything anew',
      site: { 'needs-full-resync': true },
      line: '2 CRITICAL reptool default: site1 needs a full resynchronisation',
    },
  ];
  for (const { name, change, site, line } of VERDICTS) {
    it(`verdict when ${name}`, () => {
      const said = verdict(status(change, site));
      assert.equal(`${said.status} ${said.line}`, line);
    });
  }

  it('lagSentence says how far a site is', () => {
    const behind = status({}, { state: 'paused', 'lag-seconds': 12, 'lag-bytes': 8192, 'lag-writes': 2 });
    assert.equal(lagSentence(behind), 'site1 is 12 s and 8KiB behind (paused)');
    assert.equal(lagSentence(status(), 1), 'site1 has confirmed everything (connected)');
    assert.equal(lagSentence(status(), 2), '');
  });
});
