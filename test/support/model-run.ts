/**
 * A child process: does random operations on a device file and compares every answer with a model in memory.
 *
 *   node model-run.js FILE SEED OPERATIONS EXPECTED [no-fallocate]
 *
 * EXPECTED: where the model's last state is written. no-fallocate: FALLOCATE must be refused and change nothing.
 *
 * Exit status 0 and a line of counts, or 1 and the first thing that was wrong.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as sys from '../../src/base/sys.js';
import { errnoName, type ERRNO } from '../../src/base/errors.js';
import { Mem } from '../../src/base/mem.js';
import { seeded } from './proc.js';

const [file, seedText, countText, expected] = process.argv.slice(2) as [string, string, string, string];
const withoutFallocate = process.argv[6] === 'no-fallocate';
const random = seeded(Number(seedText));
const size = fs.statSync(file).size;
const model = fs.readFileSync(file);
const memory = Mem.anon(1 << 20);
const counts: Record<string, number> = {};
const O_DSYNC = 0x1000;
const MMAP = 128 * 1024;

let fd = fs.openSync(file, 'r+');
let dsync = fs.openSync(file, fs.constants.O_RDWR | O_DSYNC);
const direct = fs.openSync(file, fs.constants.O_RDWR | sys.O_DIRECT);

interface Range {
  at: number;
  length: number;
}

/** A place in one of a few neighbourhoods, so that operations meet; sometimes anywhere, sometimes the end. */
function range(unit: number, most: number): Range {
  const spots = [0, size / 4, size / 2 - 8192, size - most];
  const near = random(8) === 0 ? random(size) : spots[random(spots.length)]! + random(256 * 1024);
  const at = Math.min(Math.max(0, Math.floor(near / unit) * unit), size - unit);
  const length = Math.min(Math.max(unit, Math.floor(random(random(4) === 0 ? most : 8192) / unit) * unit), size - at);
  return { at, length };
}

function anyRange(): Range {
  const unit = [1, 512, 512, 4096][random(4)]!;
  return range(unit, [300_000, 700_000, 20_000][random(3)]!);
}

function noise(length: number): Buffer {
  const out = Buffer.alloc(length, random(256));
  for (let i = 0; i < length; i += 61) out[i] = random(256);
  return out;
}

function compare(found: Buffer, at: number, what: string): void {
  const want = model.subarray(at, at + found.length);
  if (found.equals(want)) return;
  let i = 0;
  while (found[i] === want[i]) i++;
  throw new Error(`${what} at ${at}+${found.length}: byte ${at + i} is ${found[i]}, should be ${want[i]}`);
}

function write(through: number, what: string): void {
  const { at, length } = anyRange();
  const data = noise(length);
  assert.equal(fs.writeSync(through, data, 0, length, at), length, `${what} at ${at}+${length} was short`);
  data.copy(model, at);
}

function read(): void {
  const { at, length } = anyRange();
  const found = Buffer.alloc(length);
  assert.equal(fs.readSync(fd, found, 0, length, at), length, `read at ${at}+${length} was short`);
  compare(found, at, 'read');
}

/** Modes of fallocate(2): 3 punches a hole, 17 and 16 write zeroes, 0 reserves. */
function allocate(mode: number): void {
  const { at, length } = anyRange();
  const r = sys.fallocate(fd, mode, at, length);
  if (withoutFallocate) return assert.equal(errnoName(r), 'EOPNOTSUPP', `fallocate mode ${mode}`);
  assert.equal(r, 0, `fallocate mode ${mode} at ${at}+${length}: ${errnoName(r)}`);
  if (mode !== 0) model.fill(0, at, at + length);
}

function directly(): void {
  const { at, length } = range(512, 300_000);
  const data = noise(length);
  data.copy(memory.u8);
  assert.equal(sys.pwrite(direct, memory.addr, length, at), length, `O_DIRECT write at ${at}+${length}`);
  data.copy(model, at);
  assert.equal(sys.pread(direct, memory.addr, length, at), length, `O_DIRECT read at ${at}+${length}`);
  compare(memory.u8.subarray(0, length), at, 'O_DIRECT read');
}

/** A shared mapping: sees what was written, and what is stored through it is there after fsync. */
function mapped(): void {
  const at = Math.floor(range(4096, MMAP).at / 4096) * 4096;
  const length = Math.min(MMAP, size - at);
  const addr = sys.mmap(0, length, sys.PROT_READ_WRITE, sys.MAP_SHARED, fd, at);
  assert.notEqual(addr, 0, `mmap at ${at} failed`);
  const view = Buffer.from(sys.memoryView(addr, length));
  compare(view, at, 'mmap');
  const from = random(length - 100);
  const data = noise(100);
  data.copy(view, from);
  data.copy(model, at + from);
  fs.fsyncSync(fd);
  sys.munmap(addr, length);
}

function expectErrno(what: string, errno: keyof typeof ERRNO, work: () => unknown): void {
  try {
    work();
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, errno, what);
    return;
  }
  throw new Error(`${what} succeeded, expected ${errno}`);
}

/** A write that begins inside and ends outside may be cut short at the end, but not change anything else. */
function beyond(): void {
  const data = noise(1024);
  expectErrno('a write past the end', 'ENOSPC', () => fs.writeSync(fd, data, 0, 512, size + random(5) * 512));
  const append = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_APPEND);
  expectErrno('an append', 'ENOSPC', () => fs.writeSync(append, data, 0, 100));
  fs.closeSync(append);
  try {
    const done = fs.writeSync(fd, data, 0, 1024, size - 512);
    assert.equal(done, 512, 'a write across the end');
    data.copy(model, size - 512, 0, 512);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC', 'a write across the end');
  }
  assert.equal(fs.readSync(fd, data, 0, 1024, size), 0, 'a read at the end');
  assert.ok(sys.fallocate(fd, 0, size, 4096) < 0, 'fallocate past the end succeeded');
  expectErrno('truncate to another size', 'EPERM', () =>
    fs.ftruncateSync(fd, random(2) === 0 ? size - 512 : size + 512),
  );
  fs.ftruncateSync(fd, size);
  assert.equal(fs.fstatSync(fd).size, size, 'the size has changed');
}

function reopen(): void {
  fs.closeSync(fd);
  fs.closeSync(dsync);
  // O_TRUNC does nothing to a disk.
  fd = fs.openSync(file, fs.constants.O_RDWR | (random(2) === 0 ? fs.constants.O_TRUNC : 0));
  dsync = fs.openSync(file, fs.constants.O_RDWR | O_DSYNC);
}

const OPERATIONS: { name: string; weight: number; work: () => void }[] = [
  { name: 'read', weight: 30, work: read },
  { name: 'write', weight: 30, work: () => write(fd, 'write') },
  { name: 'dsync', weight: 6, work: () => write(dsync, 'O_DSYNC write') },
  { name: 'direct', weight: 8, work: directly },
  { name: 'discard', weight: 5, work: () => allocate(3) },
  { name: 'zero-keep', weight: 4, work: () => allocate(17) },
  { name: 'zero', weight: 2, work: () => allocate(16) },
  { name: 'reserve', weight: 2, work: () => allocate(0) },
  { name: 'fsync', weight: 4, work: () => fs.fsyncSync(fd) },
  { name: 'fdatasync', weight: 3, work: () => fs.fdatasyncSync(fd) },
  { name: 'mmap', weight: 2, work: mapped },
  { name: 'reopen', weight: 2, work: reopen },
  { name: 'beyond', weight: 2, work: beyond },
];
const total = OPERATIONS.reduce((sum, o) => sum + o.weight, 0);

const recent: string[] = [];
try {
  for (let i = 0; i < Number(countText); i++) {
    let pick = random(total);
    const operation = OPERATIONS.find((o) => (pick -= o.weight) < 0)!;
    recent.push(operation.name);
    counts[operation.name] = (counts[operation.name] ?? 0) + 1;
    operation.work();
  }
  const whole = fs.readFileSync(file);
  compare(whole, 0, 'the whole device');
  fs.fsyncSync(fd);
  fs.writeFileSync(expected, model);
  process.stdout.write(
    `${Object.entries(counts)
      .map(([name, n]) => `${name} ${n}`)
      .join(', ')}\n`,
  );
} catch (error) {
  const last = recent.slice(-12).join(' ');
  process.stderr.write(`operation ${recent.length} (… ${last}): ${(error as Error).message}\n`);
  process.exitCode = 1;
}
