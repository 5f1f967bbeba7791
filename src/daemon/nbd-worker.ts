/**
 * The thread with the sockets of one nbd site. The site's own thread never lets its event loop turn, so it hands
 * work over here and waits: a message says what, NbdWork holds the requests, an answer is posted and then counted.
 */
import { workerData, type MessagePort } from 'node:worker_threads';
import * as sys from '../base/sys.js';
import { NbdWork } from '../slink/nbd-port.js';
import { NbdSession, type NbdWhere } from '../slink/nbd-session.js';

export interface NbdWorkerData {
  where: NbdWhere;
  work: SharedArrayBuffer;
  port: MessagePort;
}

export type ToNbd = { t: 'connect'; exports: readonly string[]; unsure: boolean } | { t: 'run' } | { t: 'close' };

const data = workerData as NbdWorkerData;
const work = new NbdWork(data.work);
const session = new NbdSession(data.where, work, () => void Atomics.add(work.words, 3, 1));
sys.setThreadName('reptool-nbd');

async function serve(message: ToNbd): Promise<unknown> {
  switch (message.t) {
    case 'connect':
      return session.connect(message.exports, message.unsure);
    case 'run':
      return session.run();
    case 'close':
      session.close();
      return {};
  }
}

data.port.on('message', (message: ToNbd) => {
  void serve(message).then((answer) => {
    data.port.postMessage(answer);
    Atomics.add(work.words, 0, 1);
    Atomics.notify(work.words, 0);
  });
});
