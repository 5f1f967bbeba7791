/** What --json prints is what its schema says, for every command, on a real mount; and what messages answer. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { conforms } from '../support/schema.js';
import { needsFuse, needsRoot } from '../support/skip.js';
import { ownCommands } from '../unit/cli/support.js';
import { fails, fine, Place, reptool, SMALL, start, until } from './cli-support.js';

describe('e2e: --json, message, wait', function () {
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

  it('--json of every command conforms to its schema', async () => {
    const seen = new Set<string>();
    const json = async (command: string, ...words: string[]): Promise<void> => {
      const name = command.replaceAll(' ', '-');
      seen.add(command);
      const text = await fine(...command.split(' '), ...words, '--json');
      const lines = command === 'replog dump' ? text.trim().split('\n') : [text];
      for (const line of lines) conforms(JSON.parse(line), name);
    };
    const at = ['--mount', place.mount];
    await json('mount', place.mount, '--state', place.state, ...SMALL);
    place.write(1, 'something');
    await json('tag', 'here', ...at);
    await json('wait', place.mount);
    await json('status', place.mount);
    await json('status', place.mount, '--check');
    await json('completion', 'bash');
    // What this machine lacks is a warning, or a failure; the group itself is well.
    const doctor = JSON.parse((await reptool('doctor', '--state', place.state, '--json')).stdout);
    seen.add('doctor');
    conforms(doctor, 'doctor');
    const group = doctor.checks.find((check: { text: string }) => check.text.startsWith(`${place.mount}: `));
    assert.equal(group.state, 'OK');
    conforms(JSON.parse(readFileSync(join(place.mount, '.ctl/status.json'), 'utf8')), '_group');
    await json('table', place.mount);
    await json('message', 'default', 'statistics', 'on', ...at);
    await json('site add', '2', `blockdev:${join(place.group, 'site2')}`, ...at);
    await json('site set', '2', '--fallbehind', 'ios=1000', ...at);
    await json('site list', ...at);
    await json('site list', '--state', place.state);
    await json('site fail-pending', ...at);
    await json('site verify', '1', ...at);
    await json('site remove', '2', ...at);
    await json('replog resize', '24M', ...at);
    await json('device create', 'disk7', '--size', '8M', ...at);
    await json('device resize', 'disk7', '--size', '16M', ...at);
    await json('device list', ...at);
    await json('device remove', 'disk7', ...at);
    await json('device list', '--state', place.state);
    await json('site pause', '1', ...at);
    place.write(2, 'more');
    await json('umount', place.mount);
    await json('replog dump', place.log);
    await json('replog check', place.log);
    await json('site recover', join(place.group, 'site1'));
    await fine('mount', place.mount, '--state', place.state);
    await json('site resume', '1', ...at);
    await place.umount();
    const commands = (await ownCommands()).map(({ words }) => words.join(' '));
    assert.deepEqual([...seen].sort(), commands, 'run every command in this test');
  });

  it('message speaks to the group, a site and a device, and fails with the sentence of the daemon', async () => {
    await place.mountSmall();
    const at = ['--mount', place.mount];
    assert.equal(await fine('message', 'default', 'stat', 'res', ...at), 'statistics begin at zero\n');
    assert.match(await fine('message', 'site1', 'pause', ...at), /^site 1 paused/);
    assert.match(await fine('message', 'site1', 'resume', ...at), /^site 1 resumed/);
    assert.match(await fine('message', 'default', 'tag', 'x', ...at), /^seq \d+\n$/);
    await fails(
      2,
      [/^reptool: "site 1 pause": a word of a message has no blanks/],
      'message',
      'default',
      'site 1 pause',
      ...at,
    );
    await fails(1, [/nonsense: not understood; known are/], 'message', 'default', 'nonsense', ...at);
    await fails(1, [/disk0 nonsense: not understood/], 'message', 'disk0', 'nonsense', ...at);
    await fails(1, [/site 7: no such site/], 'message', 'site7', 'pause', ...at);
    await fails(1, [/disk9: no such device/], 'message', 'disk9', 'x', ...at);
    await place.umount();
  });

  it('wait says how far the sites are, and ends at Ctrl-C without a trace', async () => {
    await place.mountSmall();
    await fine('site', 'pause', '1', '--mount', place.mount);
    place.write(1, 'late');
    const waiting = start(['wait', place.mount, '--timeout', '60s']);
    let stderr = '';
    waiting.child.stderr!.on('data', (text: string) => (stderr += text));
    await until('it says how far the site is', () => /site1 is .* behind \(paused\)\n/.test(stderr), 15_000);
    const at = performance.now();
    waiting.child.kill('SIGINT');
    const ended = await waiting.ended;
    assert.equal(ended.exit, 130);
    assert.match(ended.stderr, /reptool: waiting was interrupted; sites go on\n$/);
    assert.ok(performance.now() - at < 5000, 'at once');
    const replies = readFileSync(join(place.mount, '.ctl/messages'), 'utf8');
    assert.match(replies.trimEnd().split('\n').at(-1)!, /\tEINTR\twait 60000ms\t/, 'the daemon waits no longer');
    await place.umount();
  });

  it('status --watch ends well at Ctrl-C, and when its reader is gone', async () => {
    await place.mountSmall();
    const watch = start(['status', place.mount, '--watch']);
    await until('status is shown twice', () => watch.stdout().split('role:Primary').length > 2);
    watch.child.kill('SIGINT');
    assert.deepEqual({ exit: (await watch.ended).exit, stderr: (await watch.ended).stderr }, { exit: 0, stderr: '' });
    const cut = start(['status', place.mount, '--watch']);
    await until('status is shown', () => cut.stdout().includes('role:Primary'));
    cut.child.stdout!.destroy();
    const ended = await cut.ended;
    assert.doesNotMatch(ended.stderr, /defect|EPIPE|at /);
    assert.notEqual(ended.exit, null, 'it ends by itself');
    assert.equal((await reptool('status', place.mount)).exit, 0);
    await place.umount();
  });
});
