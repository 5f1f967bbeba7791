/** Metrics of a real mount: valid at every moment, and equal to what was done to it. */
import assert from 'node:assert/strict';
import { fio, fioDone, fioStart, type FioArgs } from '../support/fio.js';
import { Mounted } from '../support/mounted.js';
import { must, until } from '../support/proc.js';
import { parseMetrics, valueOf, type Family } from '../support/prometheus.js';
import { needsFuse, needsTool } from '../support/skip.js';
import { statusOf } from '../support/status.js';

const JOB: FioArgs = { ioengine: 'libaio', direct: 1, bs: '4k', iodepth: 16, size: '32m', randrepeat: 1 };
const BLOCKS = (32 << 20) / 4096;
const REQUESTS = 'reptool_device_requests_total';
const BYTES = 'reptool_device_bytes_total';
const LATENCY = 'reptool_request_duration_seconds_count';

describe('metrics', function () {
  this.timeout(120_000);
  let mounted: Mounted | undefined;

  before(function () {
    needsFuse(this);
    needsTool(this, 'fio');
  });
  afterEach(() => mounted?.cleanup());

  const read = async (m: Mounted): Promise<Map<string, Family>> => parseMetrics(await m.control('metrics'));
  const message = (m: Mounted, words: string): Promise<string> =>
    must('sh', ['-c', 'echo "$1" > "$0/.ctl/messages"', m.dir, words], { timeoutMs: 10_000 });
  const op = (name: string, kind: string) => (f: Map<string, Family>) => valueOf(f, name, { op: kind });
  const [writes, reads, flushes, discards] = ['write', 'read', 'flush', 'discard'].map((kind) =>
    op(REQUESTS, kind),
  ) as [
    (f: Map<string, Family>) => number,
    (f: Map<string, Family>) => number,
    (f: Map<string, Family>) => number,
    (f: Map<string, Family>) => number,
  ];

  it('counts equal what fio did, histograms hold every request, and all of it is valid while fio runs', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '64M' }));
    const running = fioStart(m, m.disk, { ...JOB, rw: 'randwrite', fsync: 64 });
    const seen: number[] = [];
    while (!running.ended) seen.push(writes(await read(m)));
    const done = await fioDone(running);
    assert.equal(done.error, 0);
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
      'a counter never falls',
    );
    assert.equal((await fio(m, m.disk, { ...JOB, rw: 'randread' })).read.total_ios, BLOCKS);
    await must('fallocate', ['-p', '-o', '1048576', '-l', '131072', m.disk], { timeoutMs: 10_000 });
    const after = await read(m);
    assert.equal(writes(after), done.write.total_ios);
    assert.equal(op(BYTES, 'write')(after), done.write.io_bytes);
    assert.equal(reads(after), BLOCKS);
    assert.equal(op(BYTES, 'read')(after), BLOCKS * 4096);
    assert.ok(flushes(after) >= BLOCKS / 64, `${flushes(after)} flushes`);
    assert.equal(discards(after), 1);
    assert.equal(op(BYTES, 'discard')(after), 131_072);
    for (const kind of ['read', 'write', 'flush', 'discard']) {
      assert.equal(op(LATENCY, kind)(after), op(REQUESTS, kind)(after), `histogram of ${kind}`);
      assert.equal(op('reptool_request_errors_total', kind)(after), 0);
      const mean = op('reptool_request_duration_seconds_sum', kind)(after) / op(LATENCY, kind)(after);
      assert.ok(mean > 1e-6 && mean < 1, `${kind} takes ${mean} s`);
    }
    assert.ok(valueOf(after, 'reptool_log_sync_duration_seconds_count') > 0);
    assert.ok(valueOf(after, 'reptool_log_written_bytes_total') > done.write.io_bytes);
    await m.drain();
    const sent = await read(m);
    assert.equal(valueOf(sent, 'reptool_site_lag_writes', { site: '1' }), 0);
    assert.equal(valueOf(sent, 'reptool_site_opens_total', { site: '1' }), 1);
    assert.ok(valueOf(sent, 'reptool_site_sent_bytes_total', { site: '1' }) >= done.write.io_bytes);
    const { devices, statistics } = await statusOf(m);
    assert.equal(devices[0]!.writes, done.write.total_ios);
    assert.equal(devices[0]!.written, (BLOCKS * 4096) / 1024);
    assert.equal(statistics.state, 'on');
    await m.umount();
  });

  it('every write of durability=write has a time, which holds a sync', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '16M', durability: 'write' }));
    const done = await fio(m, m.disk, { ...JOB, rw: 'randwrite', size: '2m' });
    const after = await read(m);
    assert.equal(writes(after), done.write.total_ios);
    assert.equal(op(LATENCY, 'write')(after), done.write.total_ios);
    assert.ok(valueOf(after, 'reptool_log_sync_duration_seconds_count') > 0);
    await m.umount();
  });

  it('reset begins at zero, off stops counting, on goes on', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '16M' }));
    const some = { ...JOB, rw: 'write', size: '1m' };
    await fio(m, m.disk, some);
    assert.equal(writes(await read(m)), 256);
    await message(m, 'statistics reset');
    assert.equal(writes(await read(m)), 0);
    assert.equal((await statusOf(m)).devices[0]!.writes, 0);
    await fio(m, m.disk, some);
    await message(m, 'replog statistics off');
    await fio(m, m.disk, some);
    const off = await read(m);
    assert.equal(writes(off), 256);
    assert.equal(op(LATENCY, 'write')(off), 256);
    assert.equal(valueOf(off, 'reptool_statistics_enabled'), 0);
    assert.equal((await statusOf(m)).statistics.state, 'off');
    await message(m, 'statistics on');
    await fio(m, m.disk, some);
    assert.equal(writes(await read(m)), 512);
    await m.umount();
  });

  it('a killed daemon is a restart survived; off stays off over it', async () => {
    const m = (mounted = await Mounted.start({ size: '16M', logSize: '16M' }));
    assert.equal(valueOf(await read(m), 'reptool_daemon_restarts_total'), 0);
    await message(m, 'statistics off');
    for (const kills of [1, 2]) {
      const old = await m.serving();
      await m.killDaemon();
      await m.serving(old);
      const after = await read(m);
      assert.equal(valueOf(after, 'reptool_daemon_restarts_total'), kills);
      assert.equal(valueOf(after, 'reptool_generation'), kills + 1);
      assert.equal(valueOf(after, 'reptool_recovery_duration_seconds', { how: 'adopted' }) >= 0, true);
      assert.equal(valueOf(after, 'reptool_statistics_enabled'), 0);
      assert.equal((await statusOf(m))['kills-survived'], kills);
    }
    await m.umount();
  });

  it('rates of the last seconds stand in status while something is written', async () => {
    const m = (mounted = await Mounted.start({ size: '64M', logSize: '64M' }));
    const running = fioStart(m, m.disk, { ...JOB, rw: 'randwrite', time_based: true, runtime: 4, rate_iops: 500 });
    const rate = async (): Promise<number> => (await statusOf(m)).statistics['write-iops'] ?? 0;
    const seen = await until('status shows the rate', async () => ((await rate()) > 300 ? rate() : undefined), 10_000);
    assert.ok(seen < 1500, `${seen} IOPS where 500 were asked for`);
    await fioDone(running);
    await m.umount();
  });
});
