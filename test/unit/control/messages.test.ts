import assert from 'node:assert/strict';
import { ERRNO, RepError } from '../../../src/base/errors.js';
import { MessageBoard, runMessage, splitMessage, type MessageHost } from '../../../src/control/messages.js';
import { formatReply, parseReply } from '../../../src/control/replies.js';

class FakeHost implements MessageHost {
  createDevice = (request: object): Promise<string> => this.note('create', JSON.stringify(request));
  resizeDevice = (name: string, size: number): Promise<string> => this.note('resize', name, size);
  removeDevice = (name: string, force: boolean): Promise<string> => this.note('remove', name, force);
  calls: string[] = [];
  private note(...words: (string | number | boolean)[]): Promise<string> {
    this.calls.push(words.join(' '));
    return Promise.resolve('done');
  }
  sites = (): number[] => [1, 7];
  devices = (): string[] => ['disk0', 'wa'];
  isPaused = (): boolean => false;
  async setPaused(site: number, paused: boolean): Promise<string> {
    this.calls.push(`setPaused ${site} ${paused}`);
    return 'done';
  }
  async setSite(site: number, words: readonly string[]): Promise<string> {
    this.calls.push(`setSite ${site} ${words.join(' ')}`);
    return 'done';
  }
  async addSite(nr: string, where: string, words: readonly string[]): Promise<string> {
    this.calls.push(['addSite', nr, where, ...words].join(' '));
    return 'done';
  }
  async removeSite(site: number): Promise<string> {
    this.calls.push(`removeSite ${site}`);
    return 'done';
  }
  async verify(site: number, what: string): Promise<string> {
    this.calls.push(`verify ${site} ${what}`);
    return 'done';
  }
  async failPending(): Promise<string> {
    this.calls.push('failPending');
    return 'done';
  }
  async tag(name: string, resent: boolean): Promise<string> {
    this.calls.push(`tag ${name}${resent ? ' again' : ''}`);
    return 'seq 42';
  }
  async resume(): Promise<string> {
    this.calls.push('resume');
    return 'nothing was suspended';
  }
  async resizeLog(size: number, { resent }: { resent: boolean }): Promise<string> {
    this.calls.push(`resizeLog ${size}${resent ? ' again' : ''}`);
    return 'done';
  }
  async statistics(what: string): Promise<string> {
    this.calls.push(`statistics ${what}`);
    return 'done';
  }
  wait(sites: readonly number[], timeoutMs: number, stop: AbortSignal): Promise<string> {
    this.calls.push(`wait ${sites.join(',')} ${timeoutMs}`);
    return new Promise((resolve, reject) => {
      if (timeoutMs === 0) return reject(new RepError('ETIMEDOUT', 'not confirmed; see status'));
      stop.addEventListener('abort', () => reject(new RepError('EINTR', 'interrupted')));
      if (timeoutMs !== 999) resolve('confirmed');
    });
  }
}

describe('control/messages', () => {
  const run = (text: string, host: MessageHost): Promise<string> =>
    runMessage(splitMessage(text), host, { resent: false, stop: new AbortController().signal });

  const fine: { text: string; call: string }[] = [
    { text: 'site 1 pause\n', call: 'setPaused 1 true' },
    { text: 'site 7 resume', call: 'setPaused 7 false' },
    { text: '  si   7\tres ', call: 'setPaused 7 false' },
    { text: 'site 7 policy sync', call: 'setSite 7 policy=sync' },
    { text: 'site 1 policy async stall', call: 'setSite 1 policy=async+stall' },
    { text: 'site 1 set bandwidth=10m rpo=1s', call: 'setSite 1 bandwidth=10m rpo=1s' },
    { text: 'site add 2 blockdev:/b policy=sync', call: 'addSite 2 blockdev:/b policy=sync' },
    { text: 'site remove 7', call: 'removeSite 7' },
    { text: 'site 1 verify', call: 'verify 1 start' },
    { text: 'site 1 v st', call: 'verify 1 stop' },
    { text: 'fail-pending', call: 'failPending' },
    { text: 'tag before-upgrade', call: 'tag before-upgrade' },
    { text: 't x', call: 'tag x' },
    { text: 'resume', call: 'resume' },
    { text: 'resume all', call: 'resume' },
    { text: 'statistics on', call: 'statistics on' },
    { text: 'replog resize 16384', call: 'resizeLog 8388608' },
    { text: 'stat r', call: 'statistics reset' },
    { text: 'replog statistics off', call: 'statistics off' },
    { text: 'device create a size=8K', call: 'create {"name":"a","size":8192,"sparse":false}' },
    {
      text: 'dev cr a sparse nr=5 local=/my\\ disks/a\\\\b size=1G',
      call: 'create {"name":"a","size":1073741824,"sparse":true,"nr":5,"local":"/my disks/a\\\\b"}',
    },
    { text: 'device resize disk0 20G', call: `resize disk0 ${20 * 2 ** 30}` },
    { text: 'device remove a', call: 'remove a false' },
    { text: 'device rem a force', call: 'remove a true' },
    { text: 'wait', call: 'wait 0,1,7 60000' },
    { text: 'wait 7', call: 'wait 7 60000' },
    { text: 'wait 7 5', call: 'wait 7 5000' },
    { text: 'wait 500ms', call: 'wait 0,1,7 500' },
    { text: 'wait 1 2m', call: 'wait 1 120000' },
  ];
  for (const { text, call } of fine) {
    it(`runMessage understands ${JSON.stringify(text)}`, async () => {
      const host = new FakeHost();
      await run(text, host);
      assert.deepEqual(host.calls, [call]);
    });
  }

  const wrong: { text: string; errno: string; message: RegExp }[] = [
    { text: '', errno: 'EINVAL', message: /an empty message: not understood; write one of: site NR/ },
    { text: 'site 1 pause\nsite 7 pause\n', errno: 'EINVAL', message: /2 messages in one write/ },
    { text: 'tag \0', errno: 'EINVAL', message: /unprintable/ },
    { text: 'explode', errno: 'EINVAL', message: /explode: not understood; known are site NR/ },
    { text: 'site', errno: 'EINVAL', message: /a site is named by its number/ },
    { text: 'site one pause', errno: 'EINVAL', message: /a site is named by its number/ },
    { text: 'site 1', errno: 'EINVAL', message: /write: site NR pause\|resume/ },
    { text: 'site 1 pause now', errno: 'EINVAL', message: /write: site NR/ },
    { text: 'site 1 stop', errno: 'EINVAL', message: /write: site NR/ },
    { text: 'site 1 verify now', errno: 'EINVAL', message: /write: site NR/ },
    { text: 'site 1 verify stop now', errno: 'EINVAL', message: /write: site NR/ },
    { text: 'site 9 verify', errno: 'ENOENT', message: /site 9: no such site; there is 1, 7/ },
    { text: 'site 0 verify', errno: 'EINVAL', message: /slink 0 is the local site/ },
    { text: 'site 0 pause', errno: 'EINVAL', message: /slink 0 is the local site/ },
    { text: 'site 9 pause', errno: 'ENOENT', message: /site 9: no such site; there is 1, 7/ },
    { text: 'wait 9', errno: 'ENOENT', message: /site 9: no such site/ },
    { text: 'wait soon', errno: 'EINVAL', message: /write: wait \[NR\] \[TIMEOUT\]/ },
    { text: 'wait 1 2 3', errno: 'EINVAL', message: /write: wait/ },
    { text: 'wait 1 0ms', errno: 'ETIMEDOUT', message: /see status/ },
    { text: 'tag', errno: 'EINVAL', message: /write: tag NAME/ },
    { text: 'device', errno: 'EINVAL', message: /write: device create NAME size=SIZE/ },
    { text: 'device re a', errno: 'EINVAL', message: /write: device create/ },
    { text: 'device create a', errno: 'EINVAL', message: /write: device create/ },
    { text: 'device create a size=big', errno: 'EINVAL', message: /a: "big" is not a size; write for example/ },
    { text: 'device create a size=1G color=red', errno: 'EINVAL', message: /write: device create/ },
    { text: 'device resize a', errno: 'EINVAL', message: /write: device create/ },
    { text: 'device remove a now', errno: 'EINVAL', message: /write: device create/ },
    { text: 'tag a\\ b', errno: 'EINVAL', message: /a name without blanks/ },
    { text: 'tag a b', errno: 'EINVAL', message: /write: tag NAME/ },
    { text: `tag ${'x'.repeat(200)}`, errno: 'EINVAL', message: /at most 128 bytes/ },
    { text: 'resume 1', errno: 'EINVAL', message: /write: resume/ },
    { text: 'disk0 lookup 12', errno: 'EINVAL', message: /a device takes start, resume, stop, suspend/ },
    { text: 'wa', errno: 'EINVAL', message: /a device takes start, resume, stop, suspend/ },
    { text: 'disk9 lookup 12', errno: 'ENODEV', message: /disk9: no such device; "reptool device list"/ },
  ];
  for (const { text, errno, message } of wrong) {
    it(`submit answers ${JSON.stringify(text.slice(0, 30))} with ${errno} and a sentence`, async () => {
      const host = new FakeHost();
      const board = new MessageBoard(
        () => host,
        () => 0,
      );
      const reply = await board.submit(text, { resent: false, stop: new AbortController().signal });
      assert.equal(reply.errno, ERRNO[errno as keyof typeof ERRNO]);
      assert.match(reply.text, message);
      assert.match(board.text(), new RegExp(`^1\\t1970-01-01T00:00:00.000Z\\t${errno}\\t`));
    });
  }

  it('submit ends a waiting message with EINTR when it is stopped', async () => {
    const board = new MessageBoard(() => new FakeHost());
    const stop = new AbortController();
    const reply = board.submit('wait 1 999ms', { resent: false, stop: stop.signal });
    stop.abort();
    assert.equal((await reply).errno, ERRNO.EINTR);
  });

  it('MessageBoard keeps the newest replies only, newest last', async () => {
    const board = new MessageBoard(
      () => new FakeHost(),
      () => 0,
      3,
    );
    for (const name of ['a', 'b', 'c', 'd'])
      await board.submit(`tag ${name}`, { resent: false, stop: new AbortController().signal });
    assert.deepEqual(
      board.replies.map((r) => `${r.nr} ${r.message} ${r.text}`),
      ['2 tag b seq 42', '3 tag c seq 42', '4 tag d seq 42'],
    );
  });

  it('parseReply reads what formatReply writes', () => {
    for (const errno of [0, ERRNO.EINVAL, ERRNO.ETIMEDOUT, 77]) {
      const reply = { nr: 3, at: '2026-11-20T06:00:00.000Z', errno, message: 'tag a', text: 'a sentence; do this' };
      assert.deepEqual(parseReply(formatReply(reply).trimEnd()), reply);
    }
    assert.equal(parseReply('nonsense'), undefined);
    assert.equal(parseReply(''), undefined);
  });
});
