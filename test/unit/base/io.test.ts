import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ERRNO } from '../../../src/base/errors.js';
import { readText, realIo } from '../../../src/base/io.js';
import { O_RDONLY } from '../../../src/base/sys.js';

describe('base/io', () => {
  let dir: string;
  let server: Server | undefined;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'reptool-io-'))));
  afterEach(() => {
    server?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('readText reads files, and refuses at once what would hang it or fill the memory', async () => {
    const [file, fifo, socket, large] = ['file', 'fifo', 'socket', 'large'].map((name) => join(dir, name));
    writeFileSync(file!, 'text');
    assert.equal(readText(file!), 'text');
    execFileSync('mkfifo', [fifo!]);
    assert.equal(realIo.readFile('CONFIG:READ', fifo!), -ERRNO.EINVAL);
    server = createServer();
    await new Promise<void>((resolve) => server!.listen(socket, resolve));
    assert.equal(realIo.readFile('CONFIG:READ', socket!), -ERRNO.ENXIO);
    writeFileSync(large!, '');
    truncateSync(large!, 20 * 2 ** 30);
    assert.equal(realIo.readFile('CONFIG:READ', large!), -ERRNO.EFBIG);
    assert.equal(realIo.readFile('CONFIG:READ', dir), -ERRNO.EISDIR);
  });

  it('open returns from a FIFO that nobody writes to', () => {
    const fifo = join(dir, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const fd = realIo.open('REPLOG:OPEN', fifo, O_RDONLY);
    assert.ok(fd >= 0);
    realIo.close('REPLOG:CLOSE', fd);
  });
});
