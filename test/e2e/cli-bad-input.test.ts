/**
 * Everything that can be wrong with what a command finds: the sentence names the thing, the reason and the
 * next step, the exit status is right, nothing is changed and nothing is left behind.
 */
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { crc32 } from '../../src/base/codec.js';
import { SUPER_SIZE } from '../../src/replog/format.js';
import { needsFuse, needsRoot } from '../support/skip.js';
import { fails, fine, Place, reptool, shell, shellFine, SMALL, until } from './cli-support.js';

describe('e2e: bad input', function () {
  this.timeout(120_000);
  let place: Place;

  before(function () {
    needsRoot(this);
    needsFuse(this);
  });

  beforeEach(() => {
    place = new Place();
  });

  afterEach(() => place.clear());

  /** A mount that must fail, on an existing group that must stay as it is. */
  async function refused(exit: number, says: RegExp[], ...more: string[]): Promise<void> {
    const before = place.digest();
    await fails(exit, says, 'mount', place.mount, '--state', place.state, ...more);
    assert.deepEqual(place.digest(), before, 'nothing has changed');
    assert.equal(place.mounted(), false);
    assert.equal(existsSync(join(place.group, 'run.json')), false, 'no keeper stays');
  }

  function patch(file: string, at: number, change: (byte: number) => number): void {
    const fd = openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0] = change(byte[0]!);
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
  }

  /** Puts a version of the future into both superblocks. */
  function renumber(file: string, version: number): void {
    const log = readFileSync(file).subarray(0, 2 * SUPER_SIZE);
    for (let at = 0; at < log.length; at += SUPER_SIZE) {
      const block = log.subarray(at, at + SUPER_SIZE);
      block.writeUInt32LE(version, 20);
      block.writeUInt32LE(0, 16);
      block.writeUInt32LE(crc32(block), 16);
    }
    const fd = openSync(file, 'r+');
    writeSync(fd, log, 0, log.length, 0);
    closeSync(fd);
  }

  const reason = {
    notEmpty: [/the folder is not empty \(it holds note\)/, /name an empty folder/],
    noFolder: [/a mount point must be a folder/, /name an empty folder/],
    noParent: [/its parent folder .* does not exist/, /create that folder first/],
  };

  it('a mount point that cannot be one: nothing is made', async () => {
    mkdirSync(join(place.top, 'full'));
    writeFileSync(join(place.top, 'full/note'), '');
    for (const [dir, says] of [
      ['full', reason.notEmpty],
      ['full/note', reason.noFolder],
      ['no/such', reason.noParent],
    ] as const) {
      await fails(1, [...says], 'mount', join(place.top, dir), '--state', place.state, ...SMALL);
      assert.equal(existsSync(place.state), false, 'no state folder');
    }
  });

  it('mounted there already', async () => {
    await place.mountSmall();
    const more = ['--state', place.state, '--group', 'second', ...SMALL];
    await fails(1, [/group default is mounted there already/, /unmount it first/], 'mount', place.mount, ...more);
    assert.equal(existsSync(join(place.state, 'second')), false);
    await place.umount();
  });

  it('the state folder is in use: names the process', async () => {
    await place.mountSmall();
    const { keeper, daemon } = place.run();
    const other = join(place.top, 'other');
    const said = await fails(
      1,
      [/in use by process \d+/, /unmount the group first/],
      'mount',
      other,
      '--state',
      place.state,
    );
    const pid = Number(/process (\d+)/.exec(said)![1]);
    assert.ok(pid === keeper || pid === daemon, said);
    assert.equal(existsSync(other), false, 'the mount point that it made is gone again');
    await place.umount();
  });

  it('a log that is too small is a mistake', async () => {
    const ran = await reptool('mount', place.mount, '--state', place.state, '--log-size', '3M');
    assert.equal(ran.exit, 2);
    assert.match(ran.stderr, /--log-size 3M: less than the least possible 4 MiB; choose a larger size/);
    assert.equal(existsSync(place.state) || existsSync(place.mount), false);
  });

  it('options that contradict the configuration are mistakes', async () => {
    await place.mountSmall();
    await place.umount();
    await refused(2, [/--size 32 MiB, but disk0 has 64 MiB/, /leave the option out/], '--size', '32M');
    await refused(2, [/--log-size 32 MiB, but the log has 16 MiB/], '--log-size', '32M');
    await refused(2, [/--durability write, but the group has flush/], '--durability', 'write');
  });

  it('the local image is truncated, or gone', async () => {
    await place.mountSmall();
    await place.umount();
    truncateSync(place.image, 1 << 20);
    await refused(1, [/images\/disk0: /, /truncated/, /restore/]);
    shellFine(`mv ${place.image} ${place.top}/elsewhere`);
    await refused(1, [/images\/disk0: /, /not there/, /restore/]);
  });

  it('the log is truncated, foreign, or of a newer format', async () => {
    await place.mountSmall();
    await place.umount();
    shellFine(`cp ${place.log} ${place.top}/good`);
    truncateSync(place.log, 8 << 20);
    await refused(1, [/replog: /, /truncated/, /restore/]);
    shellFine(`cp ${place.top}/good ${place.log}`);
    renumber(place.log, 3);
    await refused(1, [/replog: /, /format version 3/, /use a newer reptool/]);
    await fails(1, [/format version 3/, /use a newer reptool/], 'replog', 'check', place.log);
    writeFileSync(place.log, Buffer.alloc(16 << 20, 'x'));
    await refused(1, [/replog: /, /not a replog/]);
    shellFine(`cp ${place.top}/good ${place.log}`);
    await fine('mount', place.mount, '--state', place.state);
    await place.umount();
  });

  it('a configuration that cannot be read', async () => {
    await place.mountSmall();
    await place.umount();
    writeFileSync(join(place.group, 'group.json'), '{ "version": 1,');
    await refused(1, [/group\.json: not JSON/, /correct it or restore a copy/]);
  });

  it('an unknown message or site', async () => {
    await place.mountSmall();
    await fails(1, [/site 9: no such site; there is 1/], 'site', 'pause', '9', '--mount', place.mount);
    await fails(1, [/site 9: no such site/], 'wait', place.mount, '--site', '9');
    const written = shell(`echo make tea | tee ${place.mount}/.ctl/messages`);
    assert.notEqual(written.exit, 0);
    assert.match(written.stderr, /Invalid argument/);
    const last = shellFine(`tail -n 1 ${place.mount}/.ctl/messages`);
    assert.match(last, /EINVAL\tmake tea\t.*not understood; known are site NR pause/);
    await place.umount();
  });

  it('no space for the log: nothing is left behind', async () => {
    mkdirSync(place.state);
    shellFine(`mount -t tmpfs -o size=24m reptool-e2e ${place.state}`);
    try {
      await fails(
        1,
        [/replog: no room for a replog of 64 MiB/, /free some, or make it smaller/],
        ...['mount', place.mount, '--state', place.state, '--log-size', '64M', '--size', '64M'],
      );
      assert.deepEqual([...place.digest()], []);
      assert.equal(existsSync(place.mount), false);
    } finally {
      shellFine(`umount ${place.state}`);
    }
  });

  /** Three flushed blocks, then the loss of all processes; returns where their text stands in the log. */
  async function crashed(): Promise<number[]> {
    await place.mountSmall();
    const texts = ['block number one', 'block number two', 'block number three'];
    texts.forEach((text, i) => place.write(10 + i, text));
    await place.killAll();
    await reptool('umount', place.mount);
    const log = readFileSync(place.log);
    return texts.map((text) => {
      const at = log.lastIndexOf(`${text}\n${text}\n`);
      assert.notEqual(at, -1, `${text} stands in the log`);
      return at;
    });
  }

  it('a flipped byte before the durable point: refused, with byte and record; whole again, nothing is lost', async () => {
    const [first] = await crashed();
    patch(place.log, first!, (byte) => byte ^ 1);
    await refused(1, [/replog: /, /byte \d+/, /seq|record/, /site/]);
    const check = await reptool('replog', 'check', place.log);
    assert.equal(check.exit, 1, check.stdout);
    assert.match(check.stdout + check.stderr, /byte \d+/);
    patch(place.log, first!, (byte) => byte ^ 1);
    await fine('mount', place.mount, '--state', place.state);
    assert.deepEqual(
      [10, 11, 12].map((nr) => place.read(nr)),
      ['block number one', 'block number two', 'block number three'],
    );
    await place.umount();
  });

  it('a flipped byte behind the durable point is a torn tail: the log ends before it', async () => {
    const [, , last] = await crashed();
    patch(place.log, last!, (byte) => byte ^ 1);
    await fine('mount', place.mount, '--state', place.state);
    assert.deepEqual(
      [10, 11].map((nr) => place.read(nr)),
      ['block number one', 'block number two'],
    );
    await place.umount();
    await fine('replog', 'check', place.log);
  });

  it('a daemon that cannot go on: every command says why, umount does not pretend', async () => {
    await place.mountSmall();
    truncateSync(place.log, 8 << 20);
    process.kill(place.run().daemon, 'SIGKILL');
    await until('the keeper gives up', () => place.run().failure !== undefined);
    await fails(3, [/does not answer/, /the reason: .*replog: truncated/], 'status', place.mount);
    await fails(3, [/does not answer/, /the reason: .*replog: truncated/], 'wait', place.mount);
    const check = await reptool('status', place.mount, '--check');
    assert.match(check.stdout, /^UNKNOWN .*truncated/);
    assert.equal(check.exit, 3);
    await fails(1, [/unmounted, but its log was not closed: .*replog: truncated/], 'umount', place.mount);
    assert.equal(place.mounted(), false);
    truncateSync(place.log, 16 << 20);
    await fine('mount', place.mount, '--state', place.state);
    assert.equal(existsSync(join(place.group, 'failure.txt')), false);
    await place.umount();
  });
});
