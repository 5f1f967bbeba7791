/**
 * A folder site that leaves the ring and is made equal by copying, cut off at every call it makes. Whatever is left either
 * says that it is inconsistent, or is a prefix of history that holds all that was confirmed in order; and a resync that
 * copies what was not settled makes it equal.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { KIB } from '../../../src/base/units.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { recoverFolder } from '../../../src/slink/recover.js';
import { TestClock, cleanUp, scratch } from '../replog/rig.js';
import { Copying } from './copying.js';
import { DISK, DISK1, Died, FaultIo, History, how, type Rule } from './support.js';

const DEVICES = [DISK, DISK1];
const DISK2 = { nr: 2, name: 'disk2', size: 16 * KIB };
const DISK3 = { nr: 3, name: 'disk1', size: 24 * KIB };
const DISK4 = { nr: 4, name: 'disk4', size: 8 * KIB };
const OPTIONS = { area: 64 * KIB };

interface Life {
  history: History;
  copying?: Copying;
  /** In order: the site confirmed everything below. */
  confirmed: number;
  /** What its stamp must say by now; undefined while a call that changes it is under way. */
  says: 'order' | 'inconsistent' | undefined;
}

/** Confirmed batches; a gap with devices that come, grow and go; copies beside records; whole; records. */
function live(faults: FaultIo, folder: string): Life {
  const life: Life = { history: new History(DEVICES), confirmed: 1, says: undefined };
  const { history } = life;
  const ship = (site: FolderSite): void => {
    assert.equal(site.write(history.end()), 0, site.reason);
    if (life.says === 'order') life.confirmed = history.cursor.seq;
  };
  const site = new FolderSite(faults.io, new TestClock(), folder, OPTIONS);
  try {
    assert.ok(site.open(how(DEVICES)).ok, site.reason);
    life.says = 'order';
    history.begin().fill(0, 8192).fill(0, 4096, 1);
    ship(site);
    assert.equal(site.flush(), 0, site.reason);
    history.begin().fill(4096, 8192).fill(8192, 1024, 1);
    ship(site);

    history
      .begin()
      .fill(20480, 8192)
      .grow(0, 96 * KIB)
      .fill(80 * KIB, 4096)
      .remove(1)
      .add(DISK3)
      .fill(0, 4096, 3);
    history.add(DISK2).fill(512, 512, 2).fill(4096, 512).end();
    const copying = (life.copying = new Copying(history));
    copying.nextDevice = 4;
    life.says = undefined;
    copying.opened(site);
    life.says = 'inconsistent';
    copying.copy(site, 0, 0, 4);
    copying.settle(site);
    // Copies that hold a record before the site has it, and records over what was copied.
    history
      .begin()
      .fill(1024, 4096)
      .fill(24576, 1024)
      .fill(0, 512, 3)
      .zeroes(80 * KIB, 2048);
    history.end();
    copying.copy(site, 0, 4, 8);
    ship(site);
    copying.settle(site);
    history.begin().fill(512, 512).add(DISK4).fill(4096, 512, 4).fill(8192, 2048, 3);
    copying.dirty.set(4, new Set());
    ship(site);
    copying.copy(site, 0);
    copying.copy(site, 3);
    copying.settle(site);
    copying.copy(site, 2);
    life.says = undefined;
    assert.equal(site.copy.settle(), 0, site.reason);
    assert.equal(site.copy.whole(), 0, site.reason);
    life.says = 'order';
    life.confirmed = history.cursor.seq;
    for (const blocks of copying.dirty.values()) blocks.clear();
    history.begin().fill(0, 1024).fill(0, 1024, 4);
    ship(site);
    assert.equal(site.flush(), 0, site.reason);
    history.begin().fill(2048, 512, 2);
    ship(site);
  } catch (error) {
    if (!(error instanceof Died)) throw error;
  } finally {
    site.close();
  }
  return life;
}

/** Left as it was by death: does it say what it is, and is it made equal from there? */
function judge(life: Life, folder: string, base: string, what: string): void {
  const { history, confirmed, says } = life;
  const copy = join(base, 'copy');
  cpSync(folder, copy, { recursive: true, preserveTimestamps: true });
  const io = { ...new FaultIo(undefined, true).io, getXattr: () => -95 };
  const site = new FolderSite(io, new TestClock(), copy, OPTIONS);
  const opened = site.open(how(DEVICES, confirmed === 1));
  const { inconsistent } = site;
  site.close();
  if (says !== undefined) assert.equal(inconsistent, says === 'inconsistent', `${what}: ${site.reason}`);
  if (inconsistent) {
    assert.ok(!opened.ok && opened.refused, what);
    assert.throws(() => recoverFolder(io, copy, { write: true }), /is inconsistent/, what);
  } else {
    assert.ok(opened.ok, `${what}: ${site.reason}`);
    assert.ok(opened.cursor.seq >= confirmed, `${what}: reaches ${opened.cursor.seq}, confirmed ${confirmed}`);
    const state = history.states[opened.cursor.seq - history.firstSeq]!;
    const found = history.states[(history.seqOfFolder(copy) ?? assert.fail(`${what}: no prefix`)) - history.firstSeq]!;
    assert.deepEqual([...found.keys()], [...state.keys()], what);
    for (const [nr, bytes] of state) assert.ok(found.get(nr)!.equals(bytes), `${what}: device ${nr}`);
  }
  rmSync(copy, { recursive: true });

  // The real one goes on where it is, with what had not been settled.
  const copying = life.copying ?? new Copying(history);
  const again = new FolderSite(new FaultIo(undefined, true).io, new TestClock(), folder, OPTIONS);
  const place = copying.open(again, confirmed === 1 ? { create: copying.at } : {});
  assert.ok(place.ok, `${what}: ${again.reason}`);
  if (place.cursor.seq < history.cursor.seq) {
    assert.equal(place.cursor.seq, history.batch.before.seq, what);
    assert.equal(again.write(history.batch), 0, `${what}: ${again.reason}`);
  }
  copying.finish(again);
  again.close();
  const last = new FolderSite(new FaultIo(undefined, true).io, new TestClock(), folder, OPTIONS);
  assert.deepEqual(last.open(how(DEVICES, false)), { ok: true, cursor: history.cursor }, `${what}: ${last.reason}`);
  last.close();
  assert.equal(history.seqOfFolder(folder), history.cursor.seq, what);
}

describe('FolderSite cut off at every call of a resync', function () {
  this.timeout(120_000);
  afterEach(cleanUp);

  const kinds: { name: string; applies: (method: string) => boolean; rule: (at: number) => Rule }[] = [
    {
      name: 'before it',
      applies: (method) => !/^(close|stat|info|pread|getXattr|nextData)$/.test(method),
      rule: (at) => (_call, n) => (n === at ? { die: true } : undefined),
    },
    {
      name: 'in the middle of a write',
      applies: (method) => method.startsWith('pwrite'),
      rule: (at) => (_call, n) => (n === at ? { tear: 0.5 } : undefined),
    },
  ];
  for (const { name, applies, rule } of kinds)
    it(`! says that it is inconsistent or is a prefix, and becomes equal from there (${name})`, () => {
      const base = scratch();
      const run = (which?: Rule): { life: Life; folder: string; faults: FaultIo; methods: string[] } => {
        const folder = join(base, 'site');
        rmSync(folder, { recursive: true, force: true });
        mkdirSync(folder);
        const methods: string[] = [];
        const faults = new FaultIo((call, n, method) => (methods.push(method), which?.(call, n, method)), true);
        return { life: live(faults, folder), folder, faults, methods };
      };
      const whole = run();
      judge(whole.life, whole.folder, base, 'the whole life');
      const { methods } = whole;
      assert.ok(methods.length > 150, `only ${methods.length} calls`);
      for (let at = 1; at <= methods.length; at++) {
        if (!applies(methods[at - 1]!)) continue;
        const { life, folder, faults } = run(rule(at));
        assert.equal(faults.dead, true);
        judge(life, folder, base, `call ${at}, ${faults.names[at - 1]}`);
      }
    });
});
