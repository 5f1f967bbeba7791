import assert from 'node:assert/strict';
import type { SegmentFact } from '../../../src/index/contract.js';
import { segmentFact } from '../../../src/replog/extents.js';
import { REC, type LogPlace } from '../../../src/replog/format.js';
import { Marking, type SegmentTables } from '../../../src/slink/marking.js';
import { Rig, cleanUp, flip, newLog } from '../replog/rig.js';

const REGION = 128;
const SECTORS = 64 * REGION;

interface Wrote {
  seq: number;
  device: number;
  first: number;
  sectors: number;
}

/** A log over several segments, what was written to it, and the place behind each batch. */
class History {
  readonly rig: Rig;
  readonly wrote: Wrote[] = [];
  readonly places: LogPlace[] = [];

  constructor(batches: number) {
    this.rig = new Rig({ log: newLog({ size: 16 * 1024 * 1024 }) });
    this.note();
    let n = 1;
    for (let batch = 0; batch < batches; batch++) {
      for (let i = 0; i < 1 + (batch % 3); i++) {
        const first = (n * 37 * 8) % (SECTORS - 512);
        const sectors = 8 * (1 + (n % 16));
        const device = n % 3;
        const seq = this.rig.write(sectors * 512, n, first * 512, device);
        this.wrote.push({ seq, device, first, sectors });
        n++;
      }
      this.rig.settle();
      this.rig.release();
      this.rig.shared.logHead = 0;
      this.note();
    }
  }

  private note(): void {
    this.places.push(this.rig.window.placeBefore(this.rig.durable));
  }

  /** What the index would know, but for the segments that `leave` out. */
  tables(leave: (start: number) => boolean = () => false): SegmentTables & { asked: number[] } {
    const facts = new Map<number, SegmentFact>();
    for (const segment of this.rig.segments) {
      const fact = segmentFact(segment);
      if (fact !== undefined && !leave(fact.start)) facts.set(fact.start, fact);
    }
    const asked: number[] = [];
    return {
      asked,
      firstSeq: (start) => facts.get(start)?.firstSeq,
      extents: (start) => (asked.push(start), facts.get(start)?.extents),
    };
  }

  /** Regions of a device that records [from, to) touched. */
  regions(device: number, from: number, to: number): number[] {
    const hit = new Set<number>();
    for (const w of this.wrote) {
      if (w.device !== device || w.seq < from || w.seq >= to) continue;
      for (let s = w.first; s < w.first + w.sectors; s++) hit.add(Math.floor(s / REGION));
    }
    return [...hit].sort((a, b) => a - b);
  }
}

const DEVICES = [0, 1].map((nr) => ({ nr, sectors: SECTORS }));

function mark(
  h: History,
  tables: SegmentTables,
  from: LogPlace,
  to: LogPlace,
  devices = DEVICES,
): Map<number, number[]> {
  const marking = new Marking({ log: h.rig.log, tables, devices, region: REGION }, from, to);
  let steps = 0;
  while (marking.step() === 0) assert.ok(++steps < 10_000);
  assert.ok(marking.done);
  marking.close();
  return new Map(
    [...marking.bits].map(([device, bits]) => {
      const regions: number[] = [];
      for (let r = bits.next(0); r >= 0; r = bits.next(r + 1)) regions.push(r);
      return [device, regions];
    }),
  );
}

describe('Marking', function () {
  this.timeout(60_000);
  let h: History;
  before(() => {
    h = new History(160);
    assert.ok(h.rig.segments.length >= 3, 'several segments are closed');
  });
  after(cleanUp);

  const same = (tables: SegmentTables, from: LogPlace, to: LogPlace, why: string): void => {
    const marks = mark(h, tables, from, to);
    for (const { nr } of DEVICES)
      assert.deepEqual(marks.get(nr), h.regions(nr, from.seq, to.seq), `${why}, device ${nr}`);
  };

  it('marks what the records between two places touched, and nothing else, wherever the places lie', () => {
    const last = h.places.length - 1;
    const all = [0, 1, 7, 40, 80, 81, 120, last - 1, last];
    for (const [i, a] of all.entries())
      for (const b of all.slice(i)) same(h.tables(), h.places[a]!, h.places[b]!, `${a} to ${b}`);
  });

  it('reads from the log what the index lacks', () => {
    const segment = h.rig.log.segment;
    const from = h.places[3]!;
    const to = h.places.at(-1)!;
    same(
      h.tables(() => true),
      from,
      to,
      'no table at all',
    );
    same(
      h.tables((start) => start === segment),
      from,
      to,
      'one missing in the middle',
    );
    same(
      h.tables((start) => start === 0),
      from,
      to,
      'the first missing',
    );
  });

  it('reads from the log where a table is damaged', () => {
    const tables = h.tables();
    const extents = tables.extents.bind(tables);
    tables.extents = (start) => extents(start)?.slice(0, -1);
    same(tables, h.places[3]!, h.places.at(-1)!, 'every table is cut');
  });

  it('takes a closed segment from its table, without a read', () => {
    const { log } = h.rig;
    const end = 2 * log.segment;
    const to = h.places.findLast((place) => place.pos <= end)!;
    const read = log.read.bind(log);
    log.read = () => assert.fail('the log was read');
    try {
      mark(h, h.tables(), h.places[0]!, to);
    } finally {
      log.read = read;
    }
  });

  it('marks a batch or a table at a step', () => {
    const marking = new Marking(
      { log: h.rig.log, tables: h.tables(() => true), devices: DEVICES, region: REGION },
      h.places[0]!,
      h.places.at(-1)!,
    );
    let steps = 0;
    while (marking.step() === 0) steps++;
    assert.ok(steps >= h.places.length - 2, `${steps} steps`);
  });

  it('passes over devices that it does not know, and what lies behind the end of one', () => {
    const small = [{ nr: 1, sectors: 3 * REGION + 8 }];
    const marks = mark(h, h.tables(), h.places[0]!, h.places.at(-1)!, small);
    assert.deepEqual([...marks.keys()], [1]);
    assert.deepEqual(
      marks.get(1),
      h.regions(1, 0, Infinity).filter((r) => r <= 3),
    );
  });

  it('discards and zeroes mark, too', () => {
    const rig = new Rig({ log: newLog() });
    const from = rig.window.placeBefore(rig.durable);
    rig.appender.seal(REC.DISCARD, 0, 5 * REGION * 512, 8 * 512, 0, 0);
    rig.appender.seal(REC.ZEROES, 1, 0, SECTORS * 512, 0, 0);
    rig.tag('a name touches nothing');
    rig.settle();
    const marks = new Marking(
      {
        log: rig.log,
        tables: { firstSeq: () => undefined, extents: () => undefined },
        devices: DEVICES,
        region: REGION,
      },
      from,
      rig.window.placeBefore(rig.durable),
    );
    while (marks.step() === 0);
    assert.deepEqual([marks.bits.get(0)!.count, marks.bits.get(0)!.has(5), marks.bits.get(1)!.count], [1, true, 64]);
  });

  it('says so where neither table nor log can be read', () => {
    const own = new History(12);
    const { log } = own.rig;
    flip(log.path, log.fileOffset(own.places[5]!.pos) + 100);
    const marking = new Marking(
      { log, tables: own.tables(() => true), devices: DEVICES, region: REGION },
      own.places[0]!,
      own.places.at(-1)!,
    );
    assert.throws(() => {
      while (marking.step() === 0);
    }, /is damaged; run replog check/);
    marking.close();
  });
});
