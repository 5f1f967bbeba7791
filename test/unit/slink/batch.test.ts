import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Mem } from '../../../src/base/mem.js';
import { MIB } from '../../../src/base/units.js';
import { SHIP_BYTES, SHIP_LARGE, ShipBatch } from '../../../src/slink/batch.js';

const START = { pos: 0, seq: 1, chainLo: 0, chainHi: 0, time: 0, reign: 1 };

/** What the kernel says of the mapping that holds `at`: a figure in KiB, or the flags. */
function mapped(at: number, word: string): string {
  let inside = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (head) inside = parseInt(head[1]!, 16) <= at && at < parseInt(head[2]!, 16);
    else if (inside && line.startsWith(`${word}:`)) return line.slice(word.length + 1).trim();
  }
  throw new Error(`no ${word} of ${at.toString(16)}`);
}

function kib(at: number): number {
  return parseInt(mapped(at, 'Rss'), 10);
}

describe('ShipBatch', () => {
  const from = Mem.anon(SHIP_BYTES);
  let batch: ShipBatch;

  beforeEach(() => (batch = new ShipBatch()));
  afterEach(() => batch.close());
  after(() => from.unmap());

  it('takes memory for what it holds, and none before or after', () => {
    const at = batch.mem.addr;
    assert.equal(kib(at), 0);
    batch.begin(START, 4096);
    batch.addPayload(from, 0, 4096);
    assert.ok(kib(at) <= 8, `${kib(at)} KiB for one block`);
    batch.release();
    assert.equal(kib(at), 0);
  });

  it('is of large pages where much is to be sent, until it is released', () => {
    const at = batch.mem.addr;
    const large = (): boolean => mapped(at, 'VmFlags').split(' ').includes('hg');
    batch.begin(START, SHIP_LARGE);
    assert.equal(large(), true);
    batch.addPayload(from, 0, 2 * MIB);
    // Stays so while a burst comes to its end: turned back and forth, every batch would be new pages.
    batch.begin(START, 4096);
    assert.equal(large(), true);
    batch.release();
    assert.equal(large(), false);
    assert.equal(kib(at), 0);
  });
});
