import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { Shared } from '../../../src/replog/shared.js';

describe('daemon/shell', () => {
  it('a message that comes before `start` is taken after it, not for it', async () => {
    const worker = new Worker(new URL('../../support/shell-worker.js', import.meta.url), {
      workerData: { shared: new Shared().buffer, windowAt: 0, windowRing: 0, fuseFd: -1, bellFd: -1, link: 0 },
    });
    const said: string[] = [];
    await new Promise<void>((resolve, reject) => {
      worker.on('error', reject);
      worker.on('exit', () => resolve());
      worker.on('message', (message: { t: string; what?: string }) => {
        said.push(message.what ?? message.t);
        if (message.t !== 'up') return;
        worker.postMessage({ t: 'pause' });
        worker.postMessage({ t: 'start' });
      });
    });
    assert.deepEqual(said, ['up', 'running', 'pause', 'ended']);
  });
});
