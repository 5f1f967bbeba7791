/** The request loop against a descriptor that the test fills: a file in which request follows request. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { Mem } from '../../../src/base/mem.js';
import * as sys from '../../../src/base/sys.js';
import { KernelLoop, REQUEST_HEAD, type LoopSink } from '../../../src/fuse/loop.js';

const BODY = 432;
const ONE = REQUEST_HEAD + BODY;

/** Takes every request where `prepare` said; each ring moves the place, as an appended record does. */
class Sink implements LoopSink {
  readonly headMem = Mem.anon(1 << 20);
  readonly bodyMem = this.headMem;
  readonly bodyMax = BODY;
  readonly firstDeviceNode = 0xffffffff;
  readonly awaitsResent = false;
  readonly readsInFlight = 0;
  headAt = 0;
  bodyAt = 0;
  place = 0;
  rings = 0;
  readonly found: number[] = [];

  prepare(): boolean {
    this.headAt = this.place * 1024;
    this.bodyAt = this.headAt + 512;
    return true;
  }
  other(): void {
    // What stands at the present place is what a record would be made of.
    this.found.push(this.headMem.dv.getUint32(this.place * 1024 + 40, true));
    this.place++;
  }
  rang(): void {
    this.rings++;
    this.place++;
  }
  resentSeen(): void {}
  resting(): void {}
  readsDone(): void {}
  write(): void {}
  read(): void {}
  fsync(): void {}
  fallocate(): void {}
  lseek(): void {}
}

describe('KernelLoop', () => {
  it('! a request that is read behind a ring goes to the place that the ring left, under load as well', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-loop-'));
    try {
      const requests = 200;
      const bytes = Buffer.alloc(requests * ONE);
      for (let i = 0; i < requests; i++) {
        bytes.writeUInt32LE(ONE, i * ONE);
        bytes.writeUInt32LE(i + 1, i * ONE + 40);
      }
      fs.writeFileSync(path.join(dir, 'requests'), bytes);
      const fd = fs.openSync(path.join(dir, 'requests'), 'r');
      const bell = sys.eventfd();
      fs.writeSync(bell, new Uint8Array(new BigUint64Array([1n]).buffer));
      const sink = new Sink();
      const never = sys.eventfd();
      // As behind the last of several reads: it was reaped already when its ring came.
      fs.writeSync(never, new Uint8Array(new BigUint64Array([1n]).buffer));
      const errno = new KernelLoop(fd, bell, never, sink).run();
      assert.notEqual(errno, ERRNO.EAGAIN);
      assert.equal(sink.rings, 1, 'it was heard although requests never ceased');
      assert.deepEqual(
        sink.found,
        Array.from({ length: requests }, (_, i) => i + 1),
      );
      assert.throws(() => fs.readSync(never, new Uint8Array(8)), { code: 'EAGAIN' }, 'a ring for nothing is taken off');
      for (const each of [fd, bell, never]) fs.closeSync(each);
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });
});
