/** The order of a dirty log around the commit that moves a link's cursor, through every death. */
import assert from 'node:assert/strict';
import { O_CREAT, O_RDWR } from '../../../src/base/sys.js';
import type { DirtyBits } from '../../../src/dirtylog/bits.js';
import { DirtyKeep } from '../../../src/dirtylog/keep.js';
import type { DirtyLogNeeds } from '../../../src/dirtylog/types.js';
import { CORE, DISK } from '../../../src/dirtylog/words.js';
import type { Index, IndexChange } from '../../../src/index/contract.js';
import { SimDisk } from '../../support/sim-disk.js';
import { SimIndexStore } from '../../support/sim-index.js';
import { SimIo, SimKill, SimWorld } from '../../support/sim-io.js';
import { Rng } from '../../support/sim-random.js';

const REGION = 128;
const REGIONS = 5000;
const SECTORS = REGION * REGIONS;
const LEG = { logId: '0'.repeat(32), link: 1, device: 0, name: 'disk0 at site 1' };
const CURSOR = { pos: 0, chainLo: 0, chainHi: 0, time: 0 };

/** A machine whose commits and dirty log die with it, and what must never be forgotten. */
class Machine {
  readonly rng: Rng;
  readonly world: SimWorld;
  readonly disk: SimDisk;
  readonly store: SimIndexStore;
  readonly words: string[];
  io: SimIo;
  index!: Index;
  keep!: DirtyKeep;
  /** What is dirty as of each commit, by its cursor: the truth. */
  readonly truth = new Map<number, Set<number>>();
  private now = new Set<number>();
  private seq = 0;

  constructor(seed: number, words: string[]) {
    this.rng = new Rng(seed);
    this.words = words;
    this.world = new SimWorld(new Rng(seed + 1000));
    this.disk = new SimDisk('local', 1, true);
    this.world.mount('/d', this.disk);
    this.store = new SimIndexStore(this.rng);
    this.io = new SimIo(this.world);
    const fd = this.io.open('TEST:OPEN', '/d/dlog', O_RDWR | O_CREAT);
    this.io.fdatasync('TEST:SYNC', fd);
    this.io.syncDir('TEST:SYNC', '/d');
    this.io.close('TEST:CLOSE', fd);
    this.start(true);
    // The link comes into being in a commit of its own.
    this.truth.set(1, new Set());
    this.commit();
    this.now = new Set();
  }

  start(begins = false): void {
    this.io = new SimIo(this.world);
    this.index = this.store.open(this.io);
    const type = this.words[0] === 'core' ? CORE : DISK;
    const needs: DirtyLogNeeds = {
      io: this.io,
      leg: LEG,
      table: type.parse(this.words.slice(1)),
      region: REGION,
      sectors: SECTORS,
      begins,
      fact: this.index.dirty(1)[0],
      taken: () => '',
    };
    this.keep = new DirtyKeep(type.make(needs), needs);
    this.seq = this.index.links()[0]?.cursor.seq ?? 0;
    this.now = new Set(this.truth.get(this.seq));
  }

  /** A drop: marks and the cursor that moves with them. Or copies that are settled: bits go. */
  step(): void {
    const marks = this.rng.chance(0.5);
    const next = new Set(this.now);
    const n = 1 + this.rng.below(8);
    if (marks) {
      for (let i = 0; i < n; i++) {
        const first = this.rng.below(SECTORS - 2000);
        const sectors = 1 + this.rng.below(2000);
        this.keep.bits.mark(first, sectors);
        for (let r = Math.floor(first / REGION); r <= Math.floor((first + sectors - 1) / REGION); r++) next.add(r);
      }
    } else {
      for (let r = this.keep.bits.next(0), i = 0; r >= 0 && i < 20 * n; r = this.keep.bits.next(r + 1), i++) {
        this.keep.bits.clear(r);
        next.delete(r);
      }
    }
    // What was copied is clean only behind its commit, and then for good.
    this.truth.set(this.seq + 1, next);
    this.commit();
    this.now = next;
  }

  commit(): void {
    const change: IndexChange = {};
    this.keep.before(change);
    const cursor = { ...CURSOR, seq: this.seq + 1 };
    this.index.commit({ ...change, links: [{ nr: 1, cursor, reign: 1, sync: 'inconsistent', paused: false }] });
    this.seq++;
    this.keep.behind();
  }

  /** The process or the whole machine dies, and comes back. */
  die(): void {
    this.io.dead = true;
    this.world.faults = undefined;
    if (this.rng.chance(0.7)) this.disk.crash(this.rng);
    this.start();
  }

  check(what: string): void {
    const truth = this.truth.get(this.index.links()[0]!.cursor.seq)!;
    for (const region of truth) assert.ok(this.keep.bits.has(region), `${what}: region ${region} was forgotten`);
  }

  dirty(): number {
    return this.keep.bits.count;
  }
}

describe('DirtyKeep', () => {
  for (const words of [
    ['disk', String(REGION), 'nosync'],
    ['disk', '/d/dlog', String(REGION), 'nosync'],
    ['core', String(REGION), 'nosync'],
  ])
    it(`! ${words.slice(0, -1).join(' ')}: no death at any call forgets what the committed cursor has behind it`, () => {
      let deaths = 0;
      let resumed = 0;
      for (let seed = 1; seed <= 60; seed++) {
        const m = new Machine(seed, words);
        for (let life = 0; life < 6; life++) {
          const at = m.world.calls + 1 + m.rng.below(words.length > 3 ? 30 : 12);
          const kill = m.rng.pick(['before', 'during', 'after'] as const);
          m.world.faults = { decide: ({ n }) => (n === at ? { kill } : undefined) };
          try {
            for (let i = 0; i < 12; i++) m.step();
          } catch (error) {
            if (!(error instanceof SimKill)) throw error;
            deaths++;
          }
          m.die();
          m.check(`seed ${seed}, life ${life}, ${kill} call ${at}`);
          if (m.dirty() < REGIONS) resumed++;
          m.check('after the check');
        }
      }
      assert.ok(deaths > 200, `only ${deaths} deaths`);
      // Too much may be dirty, but a log that lasts has to know better than "everything".
      assert.equal(words[0] === 'core' ? resumed === 0 : resumed === 360, true, `resumed ${resumed} of 360 times`);
    });

  it('! a device that fails holds nobody up: the index keeps its bits until it works again', () => {
    let failed = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const m = new Machine(seed, ['disk', '/d/dlog', String(REGION), 'nosync']);
      for (let life = 0; life < 5; life++) {
        const broken = m.rng.pick(['DIRTYLOG:WRITE', 'DIRTYLOG:SYNC', 'DIRTYLOG:']);
        const from = m.world.calls + m.rng.below(10);
        const to = from + 1 + m.rng.below(20);
        m.world.faults = {
          decide: ({ n, call }) => (n > from && n <= to && call.startsWith(broken) ? { errno: 5 } : undefined),
        };
        for (let i = 0; i < 8; i++) {
          m.step();
          if (m.keep.log.state !== 'A') {
            failed++;
            assert.match(m.keep.log.reason, /^\/d\/dlog, the dirty log of disk0 at site 1: .*EIO/);
          }
          if (m.rng.chance(0.3) && m.keep.retry()) m.commit();
        }
        m.truth.set(m.index.links()[0]!.cursor.seq, new Set(regionsOf(m.keep.bits)));
        m.die();
        m.check(`seed ${seed}, life ${life}`);
        assert.ok(m.dirty() < REGIONS);
      }
    }
    assert.ok(failed > 100, `only ${failed} failures`);
  });

  it('the index holds no bits of a device that works, and those of one that does not', () => {
    const m = new Machine(1, ['disk', '/d/dlog', String(REGION), 'nosync']);
    m.step();
    assert.deepEqual(m.index.dirty(1), []);
    m.world.faults = { decide: ({ call }) => (call === 'DIRTYLOG:SYNC' ? { errno: 5 } : undefined) };
    m.keep.bits.mark(0, 1);
    m.commit();
    assert.deepEqual([m.keep.log.state, m.index.dirty(1).length], ['F', 1]);
    assert.deepEqual(m.index.dirty(1)[0]!.bits, m.keep.bits.bytes());
    const generation = m.index.generation;
    m.commit();
    assert.equal(m.index.generation, generation + 1);
    assert.equal(m.keep.retry(), false, 'it fails still, and the index has its bits');
    m.world.faults = undefined;
    assert.equal(m.keep.retry(), true);
    m.commit();
    assert.deepEqual([m.keep.log.state, m.index.dirty(1)], ['A', []]);
  });

  it('a log in the index is part of the commit, and written only where it changed', () => {
    const m = new Machine(1, ['disk', String(REGION), 'nosync']);
    const change: IndexChange = {};
    m.keep.bits.mark(REGION * 7, 1);
    m.keep.before(change);
    assert.deepEqual(change.dirty, [
      { link: 1, device: 0, region: REGION, regions: REGIONS, bits: m.keep.bits.bytes() },
    ]);
    m.keep.behind();
    const again: IndexChange = {};
    m.keep.before(again);
    assert.deepEqual(again, {});
    m.keep.behind();
    // A commit that failed is asked for again.
    m.keep.bits.clear(7);
    m.keep.before({});
    const third: IndexChange = {};
    m.keep.before(third);
    assert.deepEqual(third.dirty![0]!.bits, new Uint8Array(REGIONS / 8));
  });

  it('a table that says core now has what the index held dropped', () => {
    const m = new Machine(1, ['disk', String(REGION), 'nosync']);
    m.step();
    assert.equal(m.index.dirty(1).length, 1);
    m.words.splice(0, 3, 'core', String(REGION));
    m.start();
    assert.equal(m.dirty(), REGIONS);
    m.commit();
    assert.deepEqual(m.index.dirty(1), []);
  });

  it('resize has the added area clean', () => {
    const m = new Machine(1, ['disk', '/d/dlog', String(REGION), 'nosync']);
    m.keep.bits.mark(SECTORS - 1, 1);
    m.keep.resize(SECTORS + 10 * REGION);
    m.commit();
    assert.deepEqual(regionsOf(m.keep.bits), [REGIONS - 1]);
    m.keep.resize(SECTORS + 12 * REGION);
    m.commit();
    assert.equal(m.keep.bits.regions, REGIONS + 12);
  });
});

function regionsOf(bits: DirtyBits): number[] {
  const found: number[] = [];
  for (let r = bits.next(0); r >= 0; r = bits.next(r + 1)) found.push(r);
  return found;
}
