/** File systems and a database on a loop device over the disk file. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { assertAllSame, digest } from '../support/content.js';
import { assertFsck, attach, detach, makeExt4, mountAt, unmountAt } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { must, sleep } from '../support/proc.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';
import { TRANSPORTS, itUnlessExcused } from '../support/transports.js';

const SQLITE_KILLS = 20;
/** Transactions of one run of the client. */
const BATCH = 20;

for (const transport of TRANSPORTS)
  describe(`ext4 on a loop device over the disk, ${transport}`, function () {
    this.timeout(120_000);
    let mounted: Mounted | undefined;

    before(function () {
      needsFuse(this);
      needsLoop(this);
      needsTool(this, 'mkfs.ext4', 'e2fsck', 'sqlite3', 'fstrim');
    });
    afterEach(() => mounted?.cleanup());

    it('keeps files, and the image of site 1 is the same file system', async () => {
      const m = (mounted = await Mounted.start({ size: '128M', logSize: '64M', transport }));
      const device = await attach(m.disk, '--direct-io=on');
      await makeExt4(device);
      const fs = join(m.top, 'fs');
      await mountAt(device, fs);
      const source = join(import.meta.dirname, '../..');
      await must('cp', ['-a', source, join(fs, 'copy')], { timeoutMs: 60_000 });
      await must('sync', ['-f', fs], { timeoutMs: 60_000 });
      await must('diff', ['-r', source, join(fs, 'copy')], { timeoutMs: 60_000 });
      await unmountAt(fs);
      await assertFsck(device);
      await detach(device);
      await assertAllSame(m);
      // The replica, mounted by itself.
      const replica = await attach(m.siteImage, '--read-only');
      await assertFsck(replica);
      const there = join(m.top, 'replica');
      await mountAt(replica, there, '-o', 'ro');
      await must('diff', ['-r', source, join(there, 'copy')], { timeoutMs: 60_000 });
      await unmountAt(there);
      await detach(replica);
    });

    itUnlessExcused(transport, 'kill', 'SQLite commits while the daemon is killed every 300 ms', async function () {
      const m = (mounted = await Mounted.start({ size: '128M', logSize: '64M', transport }));
      const device = await attach(m.disk, '--direct-io=on');
      await makeExt4(device);
      const fs = join(m.top, 'fs');
      await mountAt(device, fs);
      const base = join(fs, 'test.db');
      const client = (sql: string) => must('sqlite3', ['-bail', base, sql], { timeoutMs: 40_000 });
      await client('CREATE TABLE t(n INTEGER PRIMARY KEY, text);');
      let count = 0;
      let done = false;
      const started = performance.now();
      const writing = (async () => {
        for (; !done; count += BATCH) {
          const rows = Array.from(
            { length: BATCH },
            (_, i) => `INSERT INTO t VALUES(${count + i}, hex(randomblob(300)));`,
          );
          await client(`PRAGMA synchronous=FULL; ${rows.join(' ')}`);
        }
      })();
      let last = 0;
      for (let kills = 0; kills < SQLITE_KILLS; kills++) {
        await m.serving(last);
        await sleep(300);
        last = await m.killDaemon(last);
      }
      done = true;
      await writing;
      const seconds = (performance.now() - started) / 1000;
      console.log(`      ${count} transactions in ${seconds.toFixed(1)} s, ${SQLITE_KILLS} kills`);
      const ask = 'PRAGMA integrity_check; SELECT count(*), sum(n) FROM t;';
      const answer = `ok\n${count}|${(count * (count - 1)) / 2}\n`;
      assert.equal(await client(ask), answer);
      await unmountAt(fs);
      await assertFsck(device);
      await detach(device);
      await assertAllSame(m);
      const replica = await attach(m.siteImage);
      const there = join(m.top, 'replica');
      await mountAt(replica, there);
      assert.equal(await must('sqlite3', [join(there, 'test.db'), ask], { timeoutMs: 30_000 }), answer);
      await unmountAt(there);
      await detach(replica);
    });

    itUnlessExcused(
      transport,
      'fallocate',
      'mkfs with discard, fstrim, site paused and resumed: nothing gets stuck',
      async function () {
        const m = (mounted = await Mounted.start({ size: '256M', logSize: '128M', transport }));
        const device = await attach(m.disk, '--direct-io=on');
        const fs = join(m.top, 'fs');
        for (let round = 0; round < 2; round++) {
          await m.site('pause');
          await makeExt4(device, '-E', 'discard,lazy_itable_init=0');
          await mountAt(device, fs, '-o', 'discard');
          const data = join(fs, 'data');
          await must('dd', ['if=/dev/urandom', `of=${data}`, 'bs=1M', 'count=24', 'conv=fsync'], { timeoutMs: 30_000 });
          await m.site('resume');
          await must('rm', [data]);
          await must('dd', ['if=/dev/urandom', `of=${data}-2`, 'bs=1M', 'count=24', 'conv=fsync'], {
            timeoutMs: 30_000,
          });
          const trimmed = await must('fstrim', ['-v', fs], { timeoutMs: 30_000 });
          await m.drain();
          const before = await digest(`${data}-2`);
          await m.site('pause');
          await must('fstrim', ['-v', fs], { timeoutMs: 30_000 });
          await m.site('resume');
          await m.drain();
          assert.equal(await digest(`${data}-2`), before, `round ${round}: the file has changed`);
          if (round === 1) console.log(`      ${trimmed.trim().replace(/^.*: /, 'trimmed ')}`);
          await unmountAt(fs);
          await assertFsck(device);
        }
        const used = Number(await must('sh', ['-c', 'du -k "$0" | cut -f1', m.image]));
        assert.ok(used < 200 * 1024, `trimmed space was not given back: the image uses ${used} KiB`);
        await detach(device);
        await assertAllSame(m);
      },
    );
  });
