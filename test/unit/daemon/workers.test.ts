import assert from 'node:assert/strict';
import { Shared } from '../../../src/replog/shared.js';
import { Thread } from '../../../src/daemon/workers.js';

interface Said {
  t: string;
  what?: string;
}

describe('daemon/workers Thread', () => {
  function later(): Thread<{ t: string }, Said> {
    const data = { shared: new Shared().buffer, windowAt: 0, windowRing: 0, fuseFd: -1, bellFd: -1, link: 0 };
    return new Thread<{ t: string }, Said>('later', '../../test/support/shell-worker.js', data, { later: true });
  }

  it('that is to be made later is made by its first message, which it gets', async () => {
    const thread = later();
    const said: string[] = [];
    thread.onMessage = (message) => said.push(message.what ?? message.t);
    // A thread would have loaded by then.
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.deepEqual(said, []);
    thread.post({ t: 'pause' });
    await thread.up;
    thread.post({ t: 'start' });
    await thread.ended;
    assert.deepEqual(said, ['up', 'running', 'pause', 'ended']);
  });

  it('that was never made can be ended', async () => {
    const thread = later();
    assert.equal(await thread.terminate(), 0);
    await thread.ended;
  });
});
