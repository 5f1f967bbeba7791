/**
 * The process that touches a mount on behalf of the command line (see client.ts): it may hang in the kernel
 * for as long as the daemon does, and can be left behind there. One JSON request per line on stdin, one answer
 * per line on stdout; it ends with its parent.
 */
import * as fs from 'node:fs';
import { createInterface } from 'node:readline';
import { errnoText } from '../base/errors.js';

const { O_RDONLY, O_RDWR, O_DIRECT } = fs.constants;
const FUSE_MAGIC = 0x65735546;

/** Past the page cache, which may show one process what another one's handle was told (fuse-native). */
function open(file: string, mode: number): number {
  return fs.openSync(file, fs.statfsSync(file).type === FUSE_MAGIC ? mode | O_DIRECT : mode);
}

export type ClientRequest = { op: 'read'; file: string } | { op: 'message'; file: string; text: string };
export type ClientAnswer = { ok: true; text: string } | { ok: false; code: string; text: string };

function readAll(fd: number): string {
  const parts: Buffer[] = [];
  const chunk = Buffer.alloc(65536);
  for (let at = 0; ;) {
    const n = fs.readSync(fd, chunk, 0, chunk.length, at);
    if (n === 0) return Buffer.concat(parts).toString('utf8');
    parts.push(Buffer.from(chunk.subarray(0, n)));
    at += n;
  }
}

function codeOf(error: unknown): { code: string; words: string } {
  const { code, errno } = error as NodeJS.ErrnoException;
  return { code: code ?? 'EIO', words: errno === undefined ? String(error) : errnoText(errno) };
}

/** What was written through a handle is answered through it: other people's messages do not come between. */
function message(file: string, text: string): ClientAnswer {
  const fd = open(file, O_RDWR);
  try {
    try {
      fs.writeSync(fd, text);
    } catch (error) {
      const { code, words } = codeOf(error);
      return { ok: false, code, text: readAll(fd) || words };
    }
    return { ok: true, text: readAll(fd) };
  } finally {
    fs.closeSync(fd);
  }
}

function read(file: string): ClientAnswer {
  const fd = open(file, O_RDONLY);
  try {
    return { ok: true, text: readAll(fd) };
  } finally {
    fs.closeSync(fd);
  }
}

function serve(request: ClientRequest): ClientAnswer {
  try {
    return request.op === 'read' ? read(request.file) : message(request.file, request.text);
  } catch (error) {
    const { code, words } = codeOf(error);
    return { ok: false, code, text: words };
  }
}

createInterface({ input: process.stdin }).on('line', (line) => {
  process.stdout.write(`${JSON.stringify(serve(JSON.parse(line) as ClientRequest))}\n`);
});
