/**
 * A scripted life of a folder site, cut off at every call it makes, before it and in the middle of a write. Then
 * a new process opens it: images are a prefix of history that holds everything confirmed.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { KIB } from '../../../src/base/units.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { recoverFolder } from '../../../src/slink/recover.js';
import { TestClock, cleanUp, scratch } from '../replog/rig.js';
import { DISK, DISK1, Died, FaultIo, History, how, type Rule } from './support.js';

const OPTIONS = { area: 64 * KIB };
const DEVICES = [DISK, DISK1];

interface Life {
  history: History;
  /** Everything below was confirmed. */
  confirmed: number;
}

const DISK2 = { nr: 2, name: 'disk2', size: 16 * KIB };
/** Has the name of one that is removed before it comes. */
const DISK3 = { nr: 3, name: 'disk1', size: 24 * KIB };
const DISK4 = { nr: 4, name: 'disk4', size: 8 * KIB };

/** Devices that come, grow and go, in one batch and in several, with and without a base move between. */
function devicesLive(faults: FaultIo, folder: string): Life {
  const life: Life = { history: new History(DEVICES), confirmed: 1 };
  const clock = new TestClock();
  const { history } = life;
  const stories: ((site: FolderSite) => void)[] = [];
  const ship = (site: FolderSite): void => {
    assert.equal(site.write(history.end()), 0, site.reason);
    life.confirmed = history.cursor.seq;
  };
  stories.push((site) => {
    history.begin().fill(0, 4096).fill(0, 4096, 1);
    ship(site);
    history.begin().add(DISK2).fill(0, 8192, 2).fill(4096, 512).add(DISK2).tag('x');
    ship(site);
    history
      .begin()
      .fill(1024, 2048, 2)
      .grow(2, 32 * KIB)
      .fill(16 * KIB, 8192, 2)
      .grow(2, 32 * KIB);
    ship(site);
    assert.equal(site.flush(), 0, site.reason);
    history.begin().fill(512, 512, 1).remove(1).add(DISK3).fill(0, 4096, 3).remove(1);
    ship(site);
    history
      .begin()
      .fill(8192, 2048, 3)
      .grow(0, 96 * KIB)
      .fill(80 * KIB, 4096);
    ship(site);
  });
  stories.push((site) => {
    history
      .begin()
      .add(DISK4)
      .fill(0, 1024, 4)
      .grow(4, 16 * KIB)
      .fill(12 * KIB, 1024, 4)
      .remove(4)
      .fill(0, 512);
    ship(site);
    history.begin().remove(2).fill(0, 512, 3);
    ship(site);
    assert.equal(site.flush(), 0, site.reason);
    history
      .begin()
      .grow(3, 32 * KIB)
      .fill(24 * KIB, 2048, 3);
    ship(site);
  });
  try {
    stories.forEach((story, i) => {
      const site = new FolderSite(faults.io, clock, folder, OPTIONS);
      try {
        const opened = site.open(how(DEVICES, i === 0));
        assert.ok(opened.ok, site.reason);
        story(site);
      } finally {
        site.close();
      }
    });
  } catch (error) {
    if (!(error instanceof Died)) throw error;
  }
  return life;
}

/** Makes the site, ships batches of all kinds over several base moves, closes and opens it in between. */
function live(faults: FaultIo, folder: string): Life {
  const life: Life = { history: new History(DEVICES), confirmed: 1 };
  const clock = new TestClock();
  const { history } = life;
  const run = (create: boolean, rounds: number): void => {
    const site = new FolderSite(faults.io, clock, folder, OPTIONS);
    try {
      const opened = site.open(how(DEVICES, create));
      assert.ok(opened.ok, site.reason);
      for (let i = 0; i < rounds; i++) {
        const from = (history.cursor.seq * 2048) % 32768;
        history
          .begin()
          .fill(from, 4096)
          .fill(from + 1024, 512, i % 2);
        if (i % 3 === 0) history.zeroes(from, 2048, 0, i % 2 === 0 ? 2 : 3);
        history.fill((from * 3) % 16384, 8192, 1).tag(`t${i}`);
        assert.equal(site.write(history.end()), 0, site.reason);
        life.confirmed = history.cursor.seq;
        if (i % 4 === 3) assert.equal(site.flush(), 0, site.reason);
      }
    } finally {
      site.close();
    }
  };
  try {
    run(true, 6);
    run(false, 4);
  } catch (error) {
    if (!(error instanceof Died)) throw error;
  }
  return life;
}

describe('FolderSite cut off at every call', function () {
  this.timeout(120_000);
  afterEach(cleanUp);

  /** The calls of a life that nothing cuts off. */
  function wholeLife(live: Live): readonly string[] {
    const folder = join(scratch(), 'whole');
    mkdirSync(folder);
    const faults = new FaultIo(undefined, true);
    const methods: string[] = [];
    faults.rule = (_call, _n, method) => void methods.push(method);
    live(faults, folder);
    rmSync(folder, { recursive: true });
    return methods;
  }

  const kinds: { name: string; applies: (method: string) => boolean; rule: (at: number) => Rule }[] = [
    {
      name: 'before it',
      applies: (method) => method !== 'close',
      rule: (at) => (_call, n) => (n === at ? { die: true } : undefined),
    },
    {
      name: 'in the middle of a write',
      applies: (method) => method.startsWith('pwrite'),
      rule: (at) => (_call, n) => (n === at ? { tear: 0.5 } : undefined),
    },
  ];
  const lives: { title: string; live: Live }[] = [
    { title: 'images and stage are a prefix of history that holds all that was confirmed', live },
    { title: 'its set of devices and their sizes are a prefix of history as well', live: devicesLive },
  ];
  for (const { title, live } of lives)
    for (const { name, applies, rule } of kinds)
      it(`! ${title} (${name})`, () => {
        const base = scratch();
        const methods = wholeLife(live);
        assert.ok(methods.length > 150, `only ${methods.length} calls`);
        for (let at = 1; at <= methods.length; at++) {
          if (!applies(methods[at - 1]!)) continue;
          const folder = join(base, `s${at}`);
          mkdirSync(folder);
          const faults = new FaultIo(rule(at), true);
          const { history, confirmed } = live(faults, folder);
          assert.equal(faults.dead, true);
          const what = `call ${at}, ${faults.names[at - 1]}`;

          // Somebody who has only the folder finds the same as the group.
          const copy = join(base, 'copy');
          cpSync(folder, copy, { recursive: true });
          const site = new FolderSite(new FaultIo(undefined, true).io, new TestClock(), folder, OPTIONS);
          const opened = site.open(how(DEVICES, confirmed === 1));
          assert.ok(opened.ok, `${what}: ${site.reason}`);
          assert.ok(opened.cursor.seq >= confirmed, `${what}: reaches ${opened.cursor.seq}, confirmed ${confirmed}`);
          assert.equal(history.seqOfFolder(folder), sameState(history, opened.cursor.seq), what);
          site.close();
          if (confirmed > 1) checkRecovered(copy, history, opened.cursor.seq, what);
          rmSync(copy, { recursive: true });
          rmSync(folder, { recursive: true });
        }
      });
});

type Live = (faults: FaultIo, folder: string) => Life;

/** Control records leave images as they are: the last seq with the same content. */
function sameState(history: History, seq: number): number {
  const same = (a: Map<number, Buffer>, b: Map<number, Buffer>): boolean =>
    a.size === b.size && [...a].every(([nr, bytes]) => b.get(nr)?.equals(bytes) === true);
  const state = history.states[seq - history.firstSeq]!;
  return history.firstSeq + history.states.findLastIndex((other) => same(state, other));
}

function checkRecovered(folder: string, history: History, seq: number, what: string): void {
  // The attributes were not copied: that alone must be what is wrong.
  const io = { ...new FaultIo(undefined, true).io, getXattr: () => -95 };
  for (const write of [false, true, true]) {
    const report = recoverFolder(io, folder, { write });
    assert.equal(report.seq, seq, what);
    assert.equal(report.written, write, `${what}: ${JSON.stringify(report)}`);
    const names = history.states[seq - history.firstSeq]!;
    const found = report.images.map((image) => `${image.name} ${image.size}`).sort();
    assert.deepEqual(found, [...names].map(([nr, bytes]) => `${history.names.get(nr)} ${bytes.length}`).sort(), what);
  }
  assert.equal(history.seqOfFolder(folder), sameState(history, seq), what);
}
