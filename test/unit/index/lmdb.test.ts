import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open as openLmdb } from 'lmdb';
import { RepError } from '../../../src/base/errors.js';
import { DirtyBits } from '../../../src/dirtylog/bits.js';
import type { DirtyFact, Index, LinkFact, SegmentFact } from '../../../src/index/contract.js';
import { auditEnvironment } from '../../../src/index/audit.js';
import { openIndex } from '../../../src/index/lmdb.js';
import { recover } from '../../../src/replog/recovery.js';
import { needsRoot, needsTool } from '../../support/skip.js';
import { Rig, TestClock, cleanUp, openLog, poke } from '../replog/rig.js';

const PLACE = { pos: 8192, seq: 3, chainLo: 4_000_000_000, chainHi: 2, time: 1_700_000_000_000_000 };
const LINK: LinkFact = { nr: 1, cursor: PLACE, reign: 2, sync: 'in-order', paused: false };

function segment(start: number): SegmentFact {
  const tags = [{ name: 'größer', seq: 7, timeUs: 1 }];
  return { start, firstSeq: 5, lastSeq: 9, firstTimeUs: 1, lastTimeUs: 2, tags, extents: Uint8Array.of(1, 2, 3) };
}

function dirtyFact(link: number, device: number, ...bits: number[]): DirtyFact {
  return { link, device, region: 8192, regions: bits.length * 8 - 3, bits: Uint8Array.from(bits) };
}

describe('openIndex', () => {
  let dir: string;
  const open: Index[] = [];
  const opened = (path = join(dir, 'index')): Index => {
    const index = openIndex(path);
    open.push(index);
    return index;
  };
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'reptool-index-'));
  });
  afterEach(async () => {
    for (const index of open.splice(0)) await index.close();
    cleanUp();
    rmSync(dir, { recursive: true, force: true });
  });
  const reopened = async (index: Index): Promise<Index> => {
    await open.splice(open.indexOf(index), 1)[0]!.close();
    return opened();
  };

  it('makes an empty environment with an identity of its own', () => {
    const index = opened();
    assert.match(index.id, /^[0-9a-f]{32}$/);
    assert.equal(index.generation, 0);
    assert.deepEqual([index.checkpoint(), index.links(), index.reigns(), index.segments()], [undefined, [], [], []]);
    assert.notEqual(opened(join(dir, 'other')).id, index.id);
  });

  it('keeps facts, identity and generation across opens', async () => {
    const index = opened();
    assert.equal(index.commit({ checkpoint: PLACE, links: [LINK], segments: [segment(0)] }), 1);
    assert.equal(index.commit({ reigns: [{ reign: 2, id: 'ab', start: PLACE, wallUs: 5 }] }), 2);
    const again = await reopened(index);
    assert.equal(again.id, index.id);
    assert.equal(again.generation, 2);
    assert.deepEqual(again.checkpoint(), PLACE);
    assert.deepEqual(again.links(), [LINK]);
    assert.equal(again.reigns()[0]!.id, 'ab');
    const { extents, ...row } = segment(0);
    assert.deepEqual(again.segments(), [row]);
    assert.deepEqual(again.extents(0), extents);
    assert.equal(again.extents(512), undefined);
  });

  it('commit drops links and the segments below a position', () => {
    const index = opened();
    index.commit({ links: [LINK, { ...LINK, nr: 2 }], segments: [0, 100, 200].map(segment) });
    index.commit({ dropLinks: [1], dropSegmentsBelow: 200 });
    assert.deepEqual(
      index.links().map((l) => l.nr),
      [2],
    );
    assert.deepEqual(
      index.segments().map((s) => s.start),
      [200],
    );
    assert.equal(index.extents(100), undefined);
  });

  it('keeps what is dirty, by link and device, across opens', async () => {
    const index = opened();
    assert.deepEqual(index.dirty(1), []);
    const facts = [dirtyFact(1, 0, 1, 2), dirtyFact(1, 300, 3), dirtyFact(1, 65_535, 0), dirtyFact(2, 1, 9)];
    index.commit({ links: [{ ...LINK, sync: 'inconsistent', wholeAt: 77 }], dirty: facts });
    const again = await reopened(index);
    assert.equal(again.links()[0]!.wholeAt, 77);
    assert.deepEqual(again.dirty(1), facts.slice(0, 3));
    assert.deepEqual(again.dirty(2), facts.slice(3));
    again.commit({ dirty: [dirtyFact(1, 300, 7, 7)] });
    assert.deepEqual(again.dirty(1)[1], dirtyFact(1, 300, 7, 7));
    const { bits } = again.dirty(1)[1]!;
    again.commit({ dirty: [dirtyFact(1, 300, 8, 8)] });
    assert.deepEqual([...bits], [7, 7], 'what was handed out is a copy');
  });

  it('commit drops what is dirty of a device, of a link, and with the link', () => {
    const index = opened();
    const facts = [1, 2, 10, 255, 256, 2047].flatMap((nr) => [dirtyFact(nr, 0, nr & 15), dirtyFact(nr, 256, 1)]);
    index.commit({ dirty: facts });
    const left = (): number[][] => [1, 2, 10, 255, 256, 2047].map((nr) => index.dirty(nr).map(({ device }) => device));
    index.commit({ dropDirty: [{ link: 1, device: 0 }, { link: 255 }] });
    assert.deepEqual(left(), [[256], [0, 256], [0, 256], [], [0, 256], [0, 256]]);
    index.commit({ dropDirty: [{ link: 2 }], dirty: [dirtyFact(2, 5, 1)], dropLinks: [1] });
    assert.deepEqual(left(), [[], [5], [0, 256], [], [0, 256], [0, 256]]);
    index.commit({ dropLinks: [2047, 10], dirty: [dirtyFact(10, 7, 1)] });
    assert.deepEqual(left(), [[], [5], [], [], [0, 256], []]);
  });

  it('what is dirty of a device of 4 TiB is 128 KiB, or 8 MiB with the smallest regions', async () => {
    const index = opened();
    for (const [device, region] of [8192, 128].entries()) {
      const bits = new DirtyBits(region, (4 * 2 ** 40) / 512);
      bits.fill();
      index.commit({ dirty: [{ link: 1, device, region, regions: bits.regions, bits: bits.bytes() }] });
    }
    const found = (await reopened(index)).dirty(1);
    assert.deepEqual(
      found.map(({ bits }) => bits.length),
      [128 * 1024, 8 * 1024 * 1024],
    );
    assert.ok(found.every(({ bits }) => bits.every((byte) => byte === 255)));
    assert.equal(auditEnvironment(join(dir, 'index', 'data.mdb')), undefined);
  });

  it('an environment of before dirty facts opens unchanged, without any', async () => {
    const index = opened();
    index.commit({ checkpoint: PLACE, links: [LINK], segments: [segment(0)] });
    await open.splice(0)[0]!.close();
    const old = openLmdb({ path: join(dir, 'index'), overlappingSync: false, maxDbs: 8 });
    old.openDB({ name: 'dirty', encoding: 'binary' }).dropSync();
    await old.close();
    const again = opened();
    assert.deepEqual([again.generation, again.id], [1, index.id]);
    assert.deepEqual([again.links(), again.dirty(1)], [[LINK], []]);
    again.commit({ dirty: [dirtyFact(1, 0, 1)] });
    assert.deepEqual((await reopened(again)).dirty(1), [dirtyFact(1, 0, 1)]);
  });

  it('! marks and the cursor they allow to move are on the disk together, or neither', async () => {
    const script = join(dir, 'marks.mjs');
    const module = new URL('../../../src/index/lmdb.js', import.meta.url).href;
    writeFileSync(
      script,
      `import { openIndex } from '${module}'; import { writeSync } from 'node:fs';
       const index = openIndex('${join(dir, 'killed')}');
       const [link] = index.links();
       for (let seq = (link?.cursor.seq ?? 0) + 1; ; seq++) {
         const cursor = { ...${JSON.stringify(PLACE)}, seq };
         index.commit({ links: [{ ...${JSON.stringify(LINK)}, sync: 'inconsistent', cursor, wholeAt: seq }],
           dirty: [0, 1].map((device) => ({ link: 1, device, region: 8192, regions: 4096 * 8,
             bits: new Uint8Array(4096).fill(seq & 255) })) });
         if (seq % 10 === 0) writeSync(1, '.');
       }`,
    );
    let last = 0;
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
      const gone = new Promise((resolve) => child.once('exit', resolve));
      await new Promise((resolve) => child.stdout.once('data', resolve));
      child.kill('SIGKILL');
      await gone;
      const index = opened(join(dir, 'killed'));
      const [link] = index.links();
      assert.ok(link!.cursor.seq > last, 'the child has committed something');
      last = link!.cursor.seq;
      const facts = index.dirty(1);
      assert.equal(facts.length, 2);
      for (const { bits } of facts) assert.ok(bits.every((byte) => byte === (last & 255)));
      assert.equal(link!.wholeAt, last);
      await open.splice(0)[0]!.close();
    }
  });

  it('says which fact is damaged', async () => {
    const index = opened();
    index.commit({ dirty: [dirtyFact(3, 4, 1)] });
    await open.splice(0)[0]!.close();
    const broken = openLmdb({ path: join(dir, 'index'), overlappingSync: false, maxDbs: 8 });
    broken.openDB<Uint8Array, number[]>({ name: 'dirty', encoding: 'binary' }).putSync([3, 4], new Uint8Array(17));
    await broken.close();
    assert.throws(() => opened().dirty(3), { errno: 'EIO', message: /dirty of device 4 at site 3 is damaged; move/ });
  });

  it('commit is all or nothing', () => {
    const index = opened();
    index.commit({ checkpoint: PLACE });
    const bad = { ...segment(0), extents: 'not bytes at all' as unknown as Uint8Array };
    // A fact that cannot be encoded, behind others that can.
    assert.throws(() => index.commit({ links: [LINK], segments: [segment(9), Object.assign(bad, { toJSON: boom })] }));
    assert.equal(index.generation, 1);
    assert.deepEqual([index.links(), index.segments()], [[], []]);
    const short = { ...dirtyFact(1, 0, 1), bits: new Uint8Array(9) };
    assert.throws(() => index.commit({ dirty: [dirtyFact(1, 1, 1), short], links: [LINK] }));
    assert.deepEqual([index.generation, index.links(), index.dirty(1)], [1, [], []]);
  });

  it('! commit is on the disk when it returns', function () {
    needsTool(this, 'strace');
    const script = join(dir, 'commit.mjs');
    const module = new URL('../../../src/index/lmdb.js', import.meta.url).href;
    writeFileSync(
      script,
      `import { openIndex } from '${module}'; import { writeSync } from 'node:fs';
       const index = openIndex('${join(dir, 'traced')}'); writeSync(2, 'BEGIN');
       index.commit({ checkpoint: ${JSON.stringify(PLACE)} }); writeSync(2, 'END'); await index.close();`,
    );
    const trace = join(dir, 'trace');
    const calls = 'trace=write,pwrite64,pwritev,fdatasync,fsync,msync,openat';
    const run = spawnSync('strace', ['-f', '-y', '-e', calls, '-o', trace, process.execPath, script]);
    assert.equal(run.status, 0, run.stderr.toString());
    const lines = readFileSync(trace, 'utf8').split('\n');
    const part = lines.slice(
      lines.findIndex((l) => l.includes('"BEGIN"')),
      lines.findIndex((l) => l.includes('"END"')),
    );
    const data = part.findLastIndex((l) => /pwrite.*data\.mdb.*= \d{4,}$/.test(l));
    const sync = part.findIndex((l, i) => i > data && /f(data)?sync\(.*= 0$/.test(l));
    const meta = part.findIndex((l, i) => i > sync && /pwrite.*data\.mdb.*= \d+$/.test(l));
    assert.ok(data > 0 && sync > data && meta > sync, `pages, sync, meta page: ${part.join('\n')}`);
    // The meta page goes through a descriptor that is synchronous by itself, or is followed by a sync.
    const fd = /pwrite64\((\d+)/.exec(part[meta]!)![1]!;
    const synchronous = lines.some((l) => l.includes('O_DSYNC') && l.includes(`= ${fd}<`));
    assert.ok(synchronous || part.slice(meta).some((l) => /f(data)?sync\(.*= 0$/.test(l)), part.join('\n'));
  });

  it('says ENOSPC where the file system is full, and keeps what it had', async function () {
    needsRoot(this);
    const mounted = join(dir, 'small');
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', mounted]);
    try {
      const index = opened(join(mounted, 'index'));
      index.commit({ checkpoint: PLACE });
      const big = (start: number): SegmentFact => ({ ...segment(start), extents: new Uint8Array(100_000).fill(1) });
      let failed: unknown;
      for (let i = 1; i < 20 && failed === undefined; i++)
        try {
          index.commit({ segments: [big(i)] });
        } catch (error) {
          failed = error;
        }
      assert.ok(failed instanceof RepError);
      assert.equal(failed.errno, 'ENOSPC');
      assert.deepEqual(index.checkpoint(), PLACE);
      await open.splice(0)[0]!.close();
    } finally {
      execFileSync('umount', ['-l', mounted]);
    }
  });

  describe('refuses, instead of dying of it,', () => {
    for (const [name, harm] of [
      ['garbage', (file: string) => writeFileSync(file, Buffer.alloc(65_536, 0x55))],
      ['zeroes', (file: string) => writeFileSync(file, Buffer.alloc(65_536))],
      ['a few bytes', (file: string) => writeFileSync(file, 'LMDB')],
      ['a file cut short', (file: string) => truncateSync(file, 20_000)],
      ['a file cut short by little', (file: string) => truncateSync(file, statSync(file).size - 4096)],
      ['a damaged first page', (file: string) => poke(file, 0, Buffer.alloc(512, 0x33))],
      ['a damaged second page', (file: string) => poke(file, 4096, Buffer.alloc(512, 0x33))],
    ] as const)
      it(name, async () => {
        const index = opened();
        for (let i = 0; i < 10; i++) index.commit({ segments: [{ ...segment(i), extents: new Uint8Array(30_000) }] });
        await open.splice(0)[0]!.close();
        harm(join(dir, 'index', 'data.mdb'));
        assert.throws(
          () => opened(),
          (error) => error instanceof RepError && /cannot be opened.*damaged.*move the folder away/.test(error.message),
        );
      });

    it('no sound environment, whatever was written to it', async () => {
      for (let round = 0; round < 12; round++) {
        const index = opened();
        for (let i = 0; i < 10; i++) {
          const n = round * 10 + i;
          const extents = new Uint8Array((n * 7919) % 40_000);
          index.commit({
            segments: [{ ...segment(n), extents }],
            links: [{ ...LINK, nr: n % 50 }],
            reigns: [{ reign: n, id: 'x'.repeat(n), start: PLACE, wallUs: n }],
            dropSegmentsBelow: n - 20,
            ...(n % 3 === 0 && { dropLinks: [n % 7] }),
          });
        }
        assert.equal(auditEnvironment(join(dir, 'index', 'data.mdb')), undefined);
        await open.splice(0)[0]!.close();
      }
    });
  });

  describe('! an environment that is lost or older than the superblock says', () => {
    const clock = new TestClock();

    /** A log with a durable record and a site that has confirmed it, known to both superblock and index. */
    function lived(): { rig: Rig; index: Index } {
      const rig = new Rig();
      rig.write(4096);
      rig.settle();
      const index = opened();
      const cursor = rig.window.placeBefore(rig.durable);
      const indexGeneration = index.commit({ checkpoint: rig.log.super.checkpoint, links: [{ ...LINK, cursor }] });
      rig.log.writeSuper({ clean: false, indexId: index.id, indexGeneration }, clock);
      return { rig, index };
    }

    it('! is trusted as long as it is neither', async () => {
      const { rig, index } = lived();
      const recovered = recover(openLog(rig.log.path), await reopened(index));
      assert.equal(recovered.indexLost, false);
      assert.deepEqual(
        recovered.links.map((l) => l.sync),
        ['in-order'],
      );
    });

    it('! makes every site inconsistent where an old copy came back', async () => {
      const { rig, index } = lived();
      await open.splice(0)[0]!.close();
      cpSync(join(dir, 'index'), join(dir, 'copy'), { recursive: true });
      const later = opened();
      const indexGeneration = later.commit({ links: [{ ...LINK, nr: 1 }] });
      rig.log.writeSuper({ indexGeneration }, clock);
      const old = opened(join(dir, 'copy'));
      assert.equal(old.id, index.id);
      const recovered = recover(openLog(rig.log.path), old);
      assert.equal(recovered.indexLost, true);
      assert.deepEqual(
        recovered.links.map((l) => l.sync),
        ['inconsistent'],
      );
    });

    it('! makes every site inconsistent where it is gone', async () => {
      const { rig } = lived();
      await open.splice(0)[0]!.close();
      rmSync(join(dir, 'index'), { recursive: true });
      const fresh = opened();
      for (let i = 0; i < 5; i++) fresh.commit({ links: [LINK] });
      const recovered = recover(openLog(rig.log.path), fresh);
      assert.equal(recovered.indexLost, true);
      assert.deepEqual(
        recovered.links.map((l) => l.sync),
        ['inconsistent'],
      );
    });
  });
});

function boom(): never {
  throw new Error('cannot be encoded');
}
