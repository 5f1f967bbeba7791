/** The command line on real mounts: what the README promises, in its order. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { processStart } from '../../src/control/keeper-client.js';
import { needsFuse, needsRoot } from '../support/skip.js';
import { TRANSPORTS } from '../support/transports.js';
import { fails, fine, Place, reptool, shell, shellFine, SMALL, start, until } from './cli-support.js';

for (const transport of TRANSPORTS)
  describe(`e2e: command line, ${transport}`, function () {
    this.timeout(120_000);
    let place: Place;

    before(function () {
      needsRoot(this);
      needsFuse(this);
    });

    beforeEach(() => {
      place = new Place(transport);
    });

    afterEach(() => place.clear());

    it('the first mount makes a group that replicates, and says where it is and what to type', async () => {
      const said = await place.mountSmall();
      for (const pattern of [
        new RegExp(`^created group default in ${place.group}$`, 'm'),
        new RegExp(`disk0 +64 MiB, sparse +${place.image}$`, 'm'),
        new RegExp(`site 1 +async +${place.group}/site1$`, 'm'),
        new RegExp(`log +16 MiB +${place.log}$`, 'm'),
        new RegExp(`^mounted ${place.mount}$`, 'm'),
        /^next: mkfs\.ext4 /m,
      ])
        assert.match(said, pattern);
      assert.ok(place.mounted());
      assert.equal(statSync(place.log).size, 16 << 20);
      place.write(3, 'first words');
      await fine('wait', place.mount, '--timeout', '30s');
      const replica = shellFine(`dd if=${place.group}/site1/disk0.img bs=4096 skip=3 count=1 status=none | head -1`);
      assert.equal(replica, 'first words\n', 'the site has it');
      await place.umount();
      assert.equal(place.mounted(), false);
      assert.equal(
        readFileSync(place.image)
          .subarray(3 * 4096)
          .toString('utf8', 0, 11),
        'first words',
      );
    });

    it('a remount finds everything, with or without the options of the first time', async () => {
      await place.mountSmall();
      place.write(1, 'kept');
      await place.umount();
      assert.match(await fine('mount', place.mount, ...place.how), /^mounted .*\n$/);
      assert.equal(place.read(1), 'kept');
      await place.umount();
      await place.mountSmall();
      assert.equal(place.read(1), 'kept');
      await place.umount();
    });

    it('status speaks like drbdadm, as JSON, and for monitoring', async () => {
      await place.mountSmall();
      const text = await fine('status', place.mount);
      for (const pattern of [
        /^default role:Primary suspended:no durability:flush$/m,
        /^ {2}disk0 disk:UpToDate size:64MiB read:\S+ written:\S+ local:\//m,
        /^ {2}\S+ connection:Connected replication:Established policy:async blockdev:\//m,
        /^ {4}disk0 peer-disk:UpToDate$/m,
        /^ {4}lag: none/m,
        /^ {2}log:ok fill:\d+% /m,
      ])
        assert.match(text, pattern);
      const json = JSON.parse(await fine('status', place.mount, '--json'));
      assert.equal(json.name, 'default');
      assert.equal(json.mountpoint, place.mount);
      assert.equal(json.pids.keeper, place.run().keeper);
      assert.equal(json.connections.length, 1);
      const check = await reptool('status', place.mount, '--check');
      assert.match(check.stdout, /^OK reptool default: /);
      assert.equal(check.exit, 0);
      const watch = start(['status', place.mount, '--watch']);
      await until('status is shown twice', () => watch.stdout().split('role:Primary').length > 2);
      watch.child.kill('SIGINT');
      assert.equal((await watch.ended).exit, 0);
      await place.umount();
    });

    it('table prints target lines', async () => {
      await place.mountSmall();
      const text = await fine('table', place.mount);
      assert.match(text, /^(?:disk0: )?0 131072 replicator/m);
      assert.deepEqual(JSON.parse(await fine('table', place.mount, '--json')).table, text.trimEnd().split('\n'));
      await place.umount();
    });

    it('a paused site lets wait fail and says how far it is; after resume everything arrives', async () => {
      await place.mountSmall();
      await fine('site', 'pause', '1', '--mount', place.mount);
      place.write(5, 'late');
      const said = await fails(
        1,
        [/not confirmed within 1 s/, /behind \(paused\)/],
        'wait',
        place.mount,
        '--timeout',
        '1s',
      );
      assert.match(said, /wait again with a longer --timeout/);
      const check = await reptool('status', place.mount, '--check');
      assert.match(check.stdout, /^WARNING .*paused/);
      assert.equal(check.exit, 1);
      await fine('site', 'resume', '1', '--mount', place.mount);
      await fine('wait', place.mount, '--site', '1', '--timeout', '30s');
      await place.umount();
    });

    it('a pause survives a remount', async () => {
      await place.mountSmall();
      await fine('site', 'pause', '1', '--mount', place.mount);
      await place.umount();
      await fine('mount', place.mount, ...place.how);
      assert.match(await fine('status', place.mount), /connection:StandAlone/);
      await place.umount();
    });

    it('tag sets a record that replog dump shows; replog check finds the log whole', async () => {
      await place.mountSmall();
      await fine('site', 'pause', '1', '--mount', place.mount); // What a site lacks stays in the log.
      place.write(0, 'before the tag');
      assert.match(await fine('tag', 'upgrade', '--mount', place.mount), /^tag upgrade at /);
      await place.umount();
      assert.match(await fine('replog', 'dump', place.log), /type=tag .*name=upgrade/);
      await fine('replog', 'check', '--group', 'default', '--state', place.state);
      const json = JSON.parse(await fine('replog', 'check', place.log, '--json'));
      assert.equal(typeof json, 'object');
    });

    it('site recover makes the images of a site usable', async () => {
      await place.mountSmall();
      place.write(9, 'for the site');
      await fine('wait', place.mount);
      await fails(1, [/in use: process \d+/, /unmount the group/], 'site', 'recover', join(place.group, 'site1'));
      await place.umount();
      assert.match(await fine('site', 'recover', join(place.group, 'site1')), /site 1 of group default/);
      const text = readFileSync(join(place.group, 'site1/disk0.img')).toString('utf8', 9 * 4096, 9 * 4096 + 12);
      assert.equal(text, 'for the site');
    });

    it('umount of a busy tree names who uses it and what to type', async () => {
      await place.mountSmall();
      const idler = spawn('sleep', ['60'], { cwd: place.mount, stdio: 'ignore' });
      try {
        await fails(
          1,
          [
            new RegExp(`process ${idler.pid} \\(sleep\\) works in ${place.mount}`),
            /end process \d+, then unmount again/,
          ],
          'umount',
          place.mount,
        );
        assert.ok(place.mounted(), 'nothing has changed');
      } finally {
        idler.kill('SIGKILL');
      }
      await until('the process is gone', () => processStart(idler.pid!) === undefined);
      await place.umount();
    });

    it('umount --lazy detaches a busy tree; the log is closed when its user is gone', async () => {
      await place.mountSmall();
      const run = place.run();
      const idler = spawn('sleep', ['60'], { cwd: place.mount, stdio: 'ignore' });
      try {
        assert.match(await fine('umount', place.mount, '--lazy'), /^detached .*last user/);
        assert.equal(place.mounted(), false);
      } finally {
        idler.kill('SIGKILL');
      }
      await until('the daemon closes', () => processStart(run.daemon) === undefined);
    });

    it('--foreground stays, and Ctrl-C unmounts', async () => {
      const running = start(['mount', place.mount, ...place.how, ...SMALL, '--foreground']);
      await until('it is mounted', () => running.stdout().includes('mounted '));
      place.write(2, 'in the foreground');
      running.child.kill('SIGINT');
      const ran = await running.ended;
      assert.equal(ran.exit, 0, ran.stderr);
      assert.equal(place.mounted(), false);
      assert.equal(readFileSync(place.image).toString('utf8', 8192, 8192 + 17), 'in the foreground');
    });

    it('Ctrl-C while the group is made leaves nothing behind', async () => {
      const running = start(['mount', place.mount, ...place.how, '--size', '64M', '--log-size', '2G']);
      await until('the log is being written', () => existsSync(place.log));
      running.child.kill('SIGINT');
      const ran = await running.ended;
      assert.equal(ran.exit, 130, ran.stderr);
      assert.match(ran.stderr, /interrupted; nothing was left behind/);
      assert.equal(existsSync(place.state) || existsSync(place.mount), false);
    });

    it('a keeper that was killed is replaced by the next command', async () => {
      await place.mountSmall();
      const { keeper, daemon } = place.run();
      process.kill(keeper, 'SIGKILL');
      await until('the keeper is gone', () => processStart(keeper) === undefined);
      place.write(7, 'served without a keeper');
      const ran = await reptool('status', place.mount, '--json');
      assert.equal(ran.exit, 0, ran.stderr);
      assert.match(ran.stderr, /its keeper had died, a new one took over/);
      assert.notEqual(place.run().keeper, keeper);
      assert.equal(place.run().daemon, daemon, 'the daemon is the same');
      assert.equal(place.read(7), 'served without a keeper');
      await place.umount();
    });

    it('mounting where the keeper died adopts, too', async () => {
      await place.mountSmall();
      const { keeper } = place.run();
      process.kill(keeper, 'SIGKILL');
      await until('the keeper is gone', () => processStart(keeper) === undefined);
      assert.match(await fine('mount', place.mount, ...place.how), /a new one took over/);
      await place.umount();
    });

    it('what all processes left when they were killed is taken away, and the next mount loses nothing flushed', async () => {
      await place.mountSmall();
      place.write(4, 'flushed');
      await place.killAll();
      await fails(3, [/./], 'status', place.mount);
      await fails(1, [/processes are gone; run `reptool umount/], 'mount', place.mount, ...place.how);
      await fails(1, [/unmounted, but no process served it/, /the next `reptool mount`/], 'umount', place.mount);
      assert.equal(place.mounted(), false);
      await fine('mount', place.mount, ...place.how);
      assert.equal(place.read(4), 'flushed');
      await place.umount();
    });

    it('DIR may be left out while one group is mounted, not while two are', async () => {
      await place.mountSmall();
      const others = shell("grep -c 'fuse.reptool' /proc/self/mountinfo").stdout.trim();
      if (others === '1') assert.match(await fine('status'), /^default role:Primary/);
      const second = join(place.top, 'second');
      await fine('mount', second, ...place.how, '--group', 'second', ...SMALL);
      await fails(2, [/several groups are mounted/, /name one/], 'status');
      await fine('umount', second);
      await place.umount();
    });

    it('a mount point with blanks in its name works everywhere', async () => {
      const odd = join(place.top, 'a b');
      mkdirSync(odd);
      await fine('mount', odd, ...place.how, ...SMALL);
      assert.match(await fine('status', odd), /role:Primary/);
      await fine('umount', odd);
    });
  });
