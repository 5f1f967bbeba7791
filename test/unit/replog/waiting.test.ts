import assert from 'node:assert/strict';
import { SH, Shared } from '../../../src/replog/shared.js';
import { Waiting } from '../../../src/replog/waiting.js';
import { seeded } from '../../support/proc.js';

interface Entry {
  unique: number;
  seq: number;
  links: number[];
}

const PLACES = [0, 1, 31, 32, 63];

describe('replog/waiting', () => {
  let shared: Shared;
  let waiting: Waiting;

  beforeEach(() => {
    shared = new Shared();
    waiting = new Waiting(shared);
    for (const place of PLACES) {
      shared.setBit(SH.GATES, place, true);
      shared.store(SH.LINK_SEQ + place, 1);
    }
  });

  function push({ unique, seq, links }: Entry): void {
    const half = (from: number): number =>
      links.filter((l) => l >= from && l < from + 32).reduce((bits, l) => bits | (1 << (l - from)), 0);
    assert.ok(shared.pushFlush(unique, 0, seq, 0, 0, half(0), half(32)));
  }

  /** Uniques of those who can be answered, taken out. */
  function take(): number[] {
    const out: number[] = [];
    for (let k = waiting.takeReady(); k >= 0; k = waiting.takeReady()) {
      out.push(shared.flush[k * 6]!);
      waiting.leave(k);
    }
    return out;
  }

  it('! lets go exactly those whom nothing keeps any more, in whatever order they came and links confirm', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const below = seeded(seed);
      shared = new Shared();
      waiting = new Waiting(shared);
      const confirmed = new Map(PLACES.map((place) => [place, 1]));
      const gates = new Map(PLACES.map((place) => [place, true]));
      for (const place of PLACES) {
        shared.setBit(SH.GATES, place, true);
        shared.store(SH.LINK_SEQ + place, 1);
      }
      let durable = 1;
      let tail = 1;
      let unique = 1;
      let left: Entry[] = [];
      for (let step = 0; step < 400; step++) {
        for (let n = below(6); n > 0; n--) {
          // A request that is sent again has an older record.
          const again = below(4) === 0;
          const seq = again ? Math.max(1, tail - below(40)) : ++tail;
          const entry = { unique: unique++, seq, links: PLACES.filter(() => below(3) === 0) };
          push(entry);
          left.push(entry);
        }
        if (below(3) === 0) durable = Math.min(tail, durable + below(12));
        const place = PLACES[below(PLACES.length)]!;
        if (below(2) === 0) {
          confirmed.set(place, Math.min(durable, confirmed.get(place)! + below(15)));
          shared.store(SH.LINK_SEQ + place, confirmed.get(place)!);
        }
        if (below(20) === 0) {
          gates.set(place, !gates.get(place)!);
          shared.setBit(SH.GATES, place, gates.get(place)!);
        }
        waiting.look(durable);
        const open = (e: Entry): boolean =>
          e.seq > durable || e.links.some((l) => gates.get(l)! && confirmed.get(l)! < e.seq);
        const wanted = left.filter((e) => !open(e)).map((e) => e.unique);
        assert.deepEqual(
          take().sort((a, b) => a - b),
          wanted,
          `seed ${seed} step ${step}`,
        );
        left = left.filter(open);
        const seqs = left.map((e) => e.seq);
        assert.equal(
          waiting.floor(durable),
          Math.min(durable, ...seqs.map((seq) => seq - 1)),
          `seed ${seed} step ${step}`,
        );
        const late = seqs.filter((seq) => seq > durable);
        assert.equal(waiting.need, late.length > 0 ? Math.min(...late) : 0);
        shared.store(SH.FLUSH_HEAD, waiting.advance());
        assert.equal(waiting.any, left.length > 0);
      }
    }
  });

  it('notes the links that have to be told of what became durable, all of an entry', () => {
    push({ unique: 1, seq: 5, links: [1, 32] });
    waiting.look(4);
    assert.deepEqual([waiting.awaitedLo, waiting.awaitedHi], [0, 0]);
    waiting.look(5);
    assert.deepEqual([waiting.awaitedLo, waiting.awaitedHi], [1 << 1, 1]);
    waiting.forgetAwaited();
    waiting.look(6);
    assert.deepEqual([waiting.awaitedLo, waiting.awaitedHi], [0, 0]);
  });

  it('gives up those whom links keep waiting, durable or not, and no others', () => {
    push({ unique: 1, seq: 2, links: [0] });
    push({ unique: 2, seq: 3, links: [63] });
    push({ unique: 3, seq: 4, links: [] });
    push({ unique: 4, seq: 4, links: [1] });
    waiting.look(3);
    const out: number[] = [];
    for (let k = waiting.takeHeld(); k >= 0; k = waiting.takeHeld()) out.push(k);
    waiting.takeLateHeld((k) => void out.push(k));
    assert.deepEqual(out, [0, 1, 3]);
    waiting.look(4);
    assert.deepEqual(take(), [3]);
  });

  it('answers a flush as fast with thousands behind a dead site as without', () => {
    const time = (crowd: number): number => {
      shared = new Shared();
      waiting = new Waiting(shared);
      shared.setBit(SH.GATES, 0, true);
      shared.store(SH.LINK_SEQ, 1);
      for (let n = 0; n < crowd; n++) push({ unique: n, seq: 2 + n, links: [0] });
      waiting.look(2 + crowd);
      const began = performance.now();
      for (let round = 0; round < 10; round++) {
        for (let n = 0; n < 1000; n++) waiting.look(2 + crowd);
        push({ unique: 1 << 20, seq: 2 + crowd, links: [] });
        waiting.look(2 + crowd);
        assert.deepEqual(take(), [1 << 20]);
      }
      return performance.now() - began;
    };
    time(10);
    // Looking through all of them would take seconds.
    assert.ok(time(7000) < 200 + 20 * time(10));
  });
});
