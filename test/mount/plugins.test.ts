/** A site of a plug-in on a real mount, and plug-ins that cannot be used. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Mounted, PROJECT } from '../support/mounted.js';
import { must } from '../support/proc.js';
import { needsFuse } from '../support/skip.js';
import { statusOf, untilSite } from '../support/status.js';

const SPOOL = path.join(PROJECT, 'test/fixtures/plugins/spool.mjs');
const SIZE = 32 * 1024 * 1024;

describe('plug-ins', function () {
  this.timeout(120_000);
  let place: Mounted;
  before(function () {
    needsFuse(this);
  });
  beforeEach(() => {
    place = new Mounted();
    fs.writeFileSync(path.join(place.top, 'd0'), '');
    fs.truncateSync(path.join(place.top, 'd0'), SIZE);
    fs.copyFileSync(SPOOL, plugin());
  });
  afterEach(() => place.cleanup());

  const plugin = (): string => path.join(place.top, 'spool.mjs');
  const spool = (): string => path.join(place.top, 'spool');
  function table(type = 'spool'): string {
    const file = path.join(place.top, 'table');
    fs.writeFileSync(
      file,
      `0 1 replicator ringbuffer 4 ${place.top}/log 0 auto 32768 blockdev 2 0 async ${type} 2 1 async\n` +
        `0 65536 replicator-dev default 0 0 1 ${place.top}/d0 nolog 0 1 1 ${spool()} nolog 0\n`,
    );
    return file;
  }
  const mount = (...words: string[]): ReturnType<Mounted['reptool']> =>
    place.reptool(['mount', place.dir, '--state', place.state, ...words], { timeoutMs: 60_000 });
  const put = (text: string): Promise<string> =>
    must('sh', ['-c', `printf %s ${text} | dd of=${place.disk} bs=4k seek=3 conv=notrunc,fsync status=none`], {});

  interface Replay {
    replay(file: string, device: number, image: string, size: number): void;
  }
  async function replayed(): Promise<Buffer> {
    const { replay } = (await import(SPOOL)) as Replay;
    const image = path.join(place.top, 'replayed');
    replay(spool(), 0, image, SIZE);
    return fs.readFileSync(image);
  }

  it('a site of a plug-in gets everything in order, goes on after a kill and a remount, and can be replayed', async () => {
    const made = await mount('--table', table(), '--plugin', plugin());
    assert.equal(made.status, 0, made.stderr + place.daemonLog);
    await put('first');
    await place.drain();
    const status = await statusOf(place);
    assert.equal(status.types['slink']?.[0], 'spool');
    const printed = await place.control('table');
    assert.match(printed, / spool 2 1 async\n/);
    const killed = await place.killDaemon();
    await place.serving(killed);
    await put('second');
    await place.drain();
    await place.umount();
    assert.ok((await replayed()).equals(fs.readFileSync(path.join(place.top, 'd0'))));

    // group.json knows the plug-in; the printed table comes back.
    fs.writeFileSync(path.join(place.top, 'printed'), printed);
    const again = await mount('--table', path.join(place.top, 'printed'));
    assert.equal(again.status, 0, again.stderr + place.daemonLog);
    await put('third');
    await place.drain();
    await place.umount();
    const image = await replayed();
    assert.equal(image.subarray(12288, 12293).toString(), 'third');
    assert.ok(image.equals(fs.readFileSync(path.join(place.top, 'd0'))));
  });

  it('! a plug-in that throws while it works fails its site and nothing else', async () => {
    const text = fs
      .readFileSync(SPOOL, 'utf8')
      .replace('  write(batch) {', "  write(batch) {\n    throw new Error('out of order');");
    fs.writeFileSync(plugin(), text);
    const made = await mount('--table', table(), '--plugin', plugin());
    assert.equal(made.status, 0, made.stderr + place.daemonLog);
    const daemon = place.pids.daemon;
    await put('local');
    const failed = await untilSite(place, 'the site fails', (site) => site.state === 'failed');
    assert.match(failed.reason ?? '', /^spool: write: out of order; it is tried again$/);
    assert.equal(place.pids.daemon, daemon, 'the daemon lives on');
    assert.equal((await must('head', ['-c', '12293', place.disk], {})).slice(-5), 'local');
  });

  it('! a plug-in that is gone when a daemon is replaced leaves the disks served', async () => {
    const made = await mount('--table', table(), '--plugin', plugin());
    assert.equal(made.status, 0, made.stderr + place.daemonLog);
    await put('before');
    fs.rmSync(plugin());
    let killed = await place.killDaemon();
    killed = await place.serving(killed);
    // The spare that took over had loaded it already; the next one cannot.
    await place.killDaemon();
    await place.serving(killed);
    const failed = await untilSite(place, 'the site fails', (site) => site.state === 'failed');
    assert.match(failed.reason ?? '', /plug-in .*spool\.mjs: not there; put the file back/);
    await put('after');
  });

  it('a plug-in that cannot be used is named, and nothing is changed', async () => {
    const before = fs.readdirSync(place.top).sort();
    const refused = async (says: RegExp, ...words: string[]): Promise<void> => {
      const outcome = await mount('--table', table(), ...words);
      assert.equal(outcome.status, 1, outcome.stdout);
      assert.match(outcome.stderr, says);
      fs.rmSync(path.join(place.top, 'table'));
      assert.deepEqual(fs.readdirSync(place.top).sort(), before);
    };
    await refused(/type "spool": not registered; there is/);
    await refused(/plug-in .*\/gone\.mjs: not there; put the file back/, '--plugin', path.join(place.top, 'gone.mjs'));
    await refused(/plug-in no-such-package: no such package; install it beside reptool/, '--plugin', 'no-such-package');
    await refused(/"spool" is registered already/, '--plugin', plugin(), '--plugin', SPOOL);
  });

  it('a group whose plug-in is gone is not mounted, and says which', async () => {
    assert.equal((await mount('--table', table(), '--plugin', plugin())).status, 0);
    await place.umount();
    fs.rmSync(plugin());
    const outcome = await mount();
    assert.equal(outcome.status, 1);
    assert.match(outcome.stderr, /plug-in .*spool\.mjs: not there; put the file back, or correct the name/);
  });
});
