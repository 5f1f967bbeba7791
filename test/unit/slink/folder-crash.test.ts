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
import { DISK, DISK1, Died, FaultIo, History, how, imagesOf, type Rule } from './support.js';

const OPTIONS = { area: 64 * KIB };
const DEVICES = [DISK, DISK1];

interface Life {
  history: History;
  /** Everything below was confirmed. */
  confirmed: number;
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
  function wholeLife(): readonly string[] {
    const folder = join(scratch(), 'whole');
    mkdirSync(folder);
    const faults = new FaultIo(undefined, true);
    const methods: string[] = [];
    faults.rule = (_call, _n, method) => void methods.push(method);
    live(faults, folder);
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
  for (const { name, applies, rule } of kinds)
    it(`! images and stage are a prefix of history that holds all that was confirmed (${name})`, () => {
      const base = scratch();
      const methods = wholeLife();
      assert.ok(methods.length > 200, `only ${methods.length} calls`);
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
        assert.equal(history.seqOf(imagesOf(folder, DEVICES)), sameState(history, opened.cursor.seq), what);
        site.close();
        if (confirmed > 1) checkRecovered(copy, history, opened.cursor.seq, what);
        rmSync(copy, { recursive: true });
        rmSync(folder, { recursive: true });
      }
    });
});

/** Control records leave images as they are: the last seq with the same content. */
function sameState(history: History, seq: number): number {
  const images = history.states[seq - history.firstSeq]!;
  return history.seqOf(images)!;
}

function checkRecovered(folder: string, history: History, seq: number, what: string): void {
  // The attributes were not copied: that alone must be what is wrong.
  const io = { ...new FaultIo(undefined, true).io, getXattr: () => -95 };
  for (const write of [false, true, true]) {
    const report = recoverFolder(io, folder, { write });
    assert.equal(report.seq, seq, what);
    assert.equal(report.written, write, `${what}: ${JSON.stringify(report)}`);
  }
  assert.equal(history.seqOf(imagesOf(folder, DEVICES)), sameState(history, seq), what);
}
