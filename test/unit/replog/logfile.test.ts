import assert from 'node:assert/strict';
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { crc32 } from '../../../src/base/codec.js';
import { RepError } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { MIB } from '../../../src/base/units.js';
import { LogCreator, obtainLog, planLog, type LogMode } from '../../../src/replog/logcreate.js';
import { LogFile, logGeometry } from '../../../src/replog/logfile.js';
import { FaultIo } from '../../support/fault-io.js';
import { needsLoop } from '../../support/skip.js';
import { INDEX_ID, LOG_ID, Rig, TestClock, cleanUp, flip, newLog, openLog, peek, poke, scratch } from './rig.js';

const SPEC = { size: 4 * MIB, logId: LOG_ID, indexId: INDEX_ID, indexGeneration: 0, group: 'default' };
const clock = new TestClock();

function errorOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof RepError) return `${error.errno}: ${error.message}`;
    throw error;
  }
  return 'no error';
}

describe('logGeometry', () => {
  for (const [size, segment, segments] of [
    [4 * MIB, 524_288, 7],
    [4 * MIB + 512, 524_288, 7],
    [64 * MIB, 1_048_576, 63],
    [1024 * MIB, 16 * MIB, 63],
  ] as const)
    it(`of ${size} has ${segments} segments`, () => {
      assert.deepEqual(logGeometry(size), { size, segment, ring: segment * segments });
    });

  for (const size of [0, 4 * MIB - 512, 4 * MIB + 100, NaN, 2 ** 60])
    it(`refuses ${size}`, () => {
      assert.equal(logGeometry(size), undefined);
    });
});

describe('LogFile', () => {
  afterEach(cleanUp);

  it('writes superblocks in turn', () => {
    const log = newLog();
    assert.equal(log.super.serial, 1);
    const before = peek(log.path, 0, 4096);
    assert.equal(log.writeSuper({ clean: false, reign: 3 }, clock), 0);
    assert.deepEqual(peek(log.path, 0, 4096), before);
    assert.equal(log.writeSuper({ reign: 4 }, clock), 0);
    assert.notDeepEqual(peek(log.path, 0, 4096), before);
    const again = openLog(log.path);
    assert.equal(again.super.serial, 3);
    assert.equal(again.super.reign, 4);
    assert.equal(again.super.clean, false);
  });

  for (const call of ['REPLOG:SUPER', 'REPLOG:SUPER-SYNC'])
    it(`never writes over the only good superblock after a failed ${call}`, () => {
      const io = new FaultIo(realIo);
      const log = newLog({ io });
      log.writeSuper({ reign: 2 }, clock);
      const good = peek(log.path, 4096, 4096);
      io.arm({ call, nth: 1, errno: 5 });
      assert.equal(log.writeSuper({ reign: 3 }, clock), -5);
      assert.equal(log.super.reign, 2);
      io.disarm();
      io.arm({ call: 'REPLOG:SUPER', nth: 1, crash: 'after' });
      assert.throws(() => log.writeSuper({ reign: 4 }, clock), /crash/);
      assert.deepEqual(peek(log.path, 4096, 4096), good);
    });

  it('takes the older superblock where a crash tore the newer one', () => {
    const log = newLog();
    log.writeSuper({ reign: 1 }, clock);
    log.writeSuper({ reign: 2 }, clock);
    poke(log.path, 100, Buffer.alloc(412, 0xee));
    const again = openLog(log.path);
    assert.equal(again.super.reign, 1);
    assert.ok(again.superDamaged);
  });

  for (const [name, harm, error] of [
    ['zeroes', (p: string) => poke(p, 0, Buffer.alloc(8192)), /^EINVAL: .*no replog here yet/],
    ['a foreign magic', (p: string) => poke(p, 0, Buffer.alloc(8192, 'EXT4')), /^EINVAL: .*not a replog/],
    ['both superblocks damaged', (p: string) => flip(p, 300), /^EINVAL: .*both superblocks.*damaged/],
    ['a file cut short', (p: string) => truncateSync(p, 3 * MIB), /^EINVAL: .*truncated: 3145728 bytes.*4194304/],
    ['an empty file', (p: string) => truncateSync(p, 0), /^EINVAL: .*no replog here yet/],
    ['a newer version', newerVersion, /^EINVAL: .*format version 3.*up to 2/],
  ] as const)
    it(`open refuses ${name}`, () => {
      const { path } = newLog();
      harm(path);
      assert.match(
        errorOf(() => openLog(path)),
        error,
      );
    });

  it('open refuses a folder and a path that is not there', () => {
    const dir = scratch();
    assert.match(
      errorOf(() => openLog(dir)),
      /^(EINVAL|EISDIR): /,
    );
    assert.match(
      errorOf(() => openLog(join(dir, 'none'))),
      /^ENOENT: /,
    );
  });

  it('goes through the page cache where direct I/O is refused', () => {
    const io = new FaultIo(realIo).arm({ call: 'REPLOG:OPEN', nth: 1, errno: 22 });
    const { path } = newLog();
    const log = openLog(path, io);
    assert.equal(log.direct, false);
    assert.equal(log.align, 1);
  });

  it('works on a block device', function () {
    needsLoop(this);
    const image = join(scratch(), 'image');
    writeFileSync(image, '');
    truncateSync(image, 8 * MIB);
    const loop = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
    try {
      const { size: _all, ...spec } = SPEC;
      const { log } = obtainLog(realIo, loop, 'auto', spec, clock);
      assert.equal(log.size, 8 * MIB);
      const rig = new Rig({ log });
      rig.write(5000);
      rig.settle();
      assert.equal(rig.durable, 2);
      log.close();
      assert.match(
        errorOf(() => planLog(realIo, loop, 'create', { ...SPEC, size: 16 * MIB }, clock)),
        /^EINVAL: .*8388608/,
      );
    } finally {
      execFileSync('losetup', ['--detach', loop]);
    }
  });
});

/** Superblock A as a later program might write it: its checksum is right. */
function newerVersion(path: string): void {
  const block = peek(path, 0, 4096);
  block.writeUInt32LE(3, 20);
  block.writeUInt32LE(0, 16);
  block.writeUInt32LE(crc32(block), 16);
  poke(path, 0, block);
}

describe('planLog', () => {
  afterEach(cleanUp);

  const made: Record<string, (path: string) => void> = {
    nothing: () => undefined,
    blank: (path) => writeFileSync(path, Buffer.alloc(4 * MIB)),
    foreign: (path) => writeFileSync(path, Buffer.alloc(4 * MIB, 'x')),
    clean: (path) => newLog({ path }).close,
    open: (path) => void newLog({ path }).writeSuper({ clean: false }, clock),
    damaged: (path) => {
      newLog({ path });
      flip(path, 300);
    },
    newer: (path) => {
      newLog({ path });
      newerVersion(path);
    },
  };
  const expected: Record<LogMode, Record<string, string>> = {
    open: {
      nothing: 'ENOENT',
      blank: 'EINVAL',
      foreign: 'EINVAL',
      clean: 'open',
      open: 'open',
      damaged: 'EINVAL',
      newer: 'EINVAL',
    },
    auto: {
      nothing: 'create',
      blank: 'create',
      foreign: 'create',
      clean: 'open',
      open: 'open',
      damaged: 'EINVAL',
      newer: 'EINVAL',
    },
    create: {
      nothing: 'create',
      blank: 'create',
      foreign: 'create',
      clean: 'create',
      open: 'EPERM',
      damaged: 'create',
      newer: 'EINVAL',
    },
  };
  for (const mode of ['open', 'auto', 'create'] as const)
    for (const [state, outcome] of Object.entries(expected[mode]))
      it(`${mode} on ${state}: ${outcome}`, () => {
        const path = join(scratch(), 'replog');
        made[state]!(path);
        let plan: LogFile | LogCreator;
        try {
          plan = planLog(realIo, path, mode, SPEC, clock);
        } catch (error) {
          assert.ok(error instanceof RepError);
          assert.equal(error.errno, outcome);
          return;
        }
        assert.equal(plan instanceof LogFile ? 'open' : 'create', outcome);
        if (plan instanceof LogFile) plan.close();
        else plan.abort();
      });
});

describe('LogCreator', () => {
  afterEach(cleanUp);

  for (const size of [4 * MIB - 512, 4 * MIB + 1, 1000])
    it(`refuses ${size} bytes and makes nothing`, () => {
      const path = join(scratch(), 'replog');
      assert.match(
        errorOf(() => newLog({ path, size })),
        /^EINVAL: .*multiple of 512 from 4194304/,
      );
      assert.ok(!existsSync(path));
    });

  it('writes everything once and reports how far it is', () => {
    const path = join(scratch(), 'replog');
    const seen: number[] = [];
    const { log, created } = obtainLog(realIo, path, 'auto', { ...SPEC, size: 20 * MIB }, clock, (bytes, total) => {
      seen.push(bytes / total);
    });
    assert.ok(created);
    assert.equal(seen.at(-1), 1);
    assert.ok(seen.length >= 5);
    const st = statSync(path);
    assert.equal(st.size, 20 * MIB);
    assert.ok(st.blocks * 512 >= log.ring);
    log.close();
    assert.equal(obtainLog(realIo, path, 'auto', SPEC, clock).created, false);
  });

  it('removes what it made where there is no room', () => {
    for (const call of ['REPLOG:ALLOCATE', 'REPLOG:ZERO']) {
      const path = join(scratch(), 'replog');
      const io = new FaultIo(realIo).arm({ call, nth: 1, errno: 28 });
      assert.match(
        errorOf(() => newLog({ path, io })),
        /^ENOSPC: .*no room for a replog of 4 MiB/,
      );
      assert.ok(!existsSync(path), call);
    }
  });

  it('leaves a file blank when it is killed at any call, and begins again', () => {
    const path = join(scratch(), 'replog');
    const counter = new FaultIo(realIo);
    newLog({ path, io: counter }).close();
    const total = counter.calls.length;
    for (let n = 1; n <= total; n++) {
      const broken = join(scratch(), 'replog');
      const io = new FaultIo(realIo).arm({ call: '*', nth: n, crash: n % 2 ? 'before' : 'after' });
      try {
        newLog({ path: broken, io });
      } catch (error) {
        assert.match(String(error), /crash/);
      }
      obtainLog(realIo, broken, 'auto', SPEC, clock).log.close();
      openLog(broken);
    }
  });

  it('stops half way when asked to', () => {
    const path = join(scratch(), 'replog');
    const plan = planLog(realIo, path, 'auto', SPEC, clock);
    assert.ok(plan instanceof LogCreator);
    plan.step();
    plan.step();
    plan.abort();
    assert.ok(!existsSync(path));
  });

  it('a log made over an old one shows nothing of it', () => {
    const rig = new Rig();
    rig.write(4096);
    rig.settle();
    assert.ok(peek(rig.log.path, 65_536, 4096).some((byte) => byte !== 0));
    obtainLog(realIo, rig.log.path, 'create', SPEC, clock).log.close();
    assert.ok(peek(rig.log.path, 65_536, 100_000).every((byte) => byte === 0));
  });
});
