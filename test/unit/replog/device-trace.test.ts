import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import { encodeDeviceAdd, encodeDeviceResize } from '../../../src/replog/device-records.js';
import { traceDevices } from '../../../src/replog/device-trace.js';
import { REC } from '../../../src/replog/format.js';
import { Rig, TestClock, cleanUp, flip, poke } from './rig.js';

const clock = new TestClock();

const add = (rig: Rig, nr: number, name: string, size: number): number =>
  rig.appender.appendControl(REC.DEVICE_ADD, nr, encodeDeviceAdd({ name, size }));
const resize = (rig: Rig, nr: number, size: number): number =>
  rig.appender.appendControl(REC.DEVICE_RESIZE, nr, encodeDeviceResize(size));
const remove = (rig: Rig, nr: number): number => rig.appender.appendControl(REC.DEVICE_REMOVE, nr, new Uint8Array(0));

/** Everybody has everything: the head stands at the tail, as in any log that was closed. */
function close(rig: Rig): void {
  rig.settle();
  rig.release();
  const place = rig.window.placeBefore(rig.durable);
  const at = { pos: place.pos, seq: place.seq };
  rig.log.writeSuper({ clean: true, head: at, durable: at, checkpoint: { ...place } }, clock);
}

/** Writes of device 0, confirmed by everybody, until the log is `bytes` longer. */
function fill(rig: Rig, bytes: number): void {
  const end = rig.shared.logHead + bytes;
  do {
    rig.write(60 * 1024);
    rig.settle();
    rig.release();
  } while (rig.shared.logHead < end);
}

function lived(): Rig {
  const rig = new Rig();
  rig.write(4096, 1, 8192, 0);
  add(rig, 5, 'web', MIB);
  resize(rig, 5, 2 * MIB);
  add(rig, 6, 'short', MIB);
  rig.write(4096, 1, 0, 6);
  remove(rig, 6);
  rig.write(4096, 1, MIB, 5);
  return rig;
}

const KNOWN = [
  [0, { seq: 1, removed: false, name: undefined, size: undefined, reach: 12288 }],
  [5, { seq: 3, removed: false, name: 'web', size: 2 * MIB, reach: MIB + 4096 }],
  [6, { seq: 6, removed: true, name: 'short', size: MIB, reach: 4096 }],
];

describe('traceDevices', () => {
  afterEach(cleanUp);

  it('tells what the records of a log that was not closed say last of each device', async () => {
    const rig = lived();
    rig.log.writeSuper({ clean: false }, clock);
    rig.settle();
    const { devices, next } = await traceDevices(rig.log.path);
    assert.deepEqual([...devices], KNOWN);
    assert.equal(next, 7);
  });

  it('reads what lies before the head, too', async () => {
    const rig = lived();
    close(rig);
    assert.equal(rig.log.super.head.pos, rig.log.super.durable.pos);
    assert.deepEqual([...(await traceDevices(rig.log.path)).devices], KNOWN);
  });

  it('reads all segments that were not written over, after whole laps', async () => {
    const rig = new Rig();
    add(rig, 8, 'early', MIB);
    fill(rig, 2 * rig.log.ring);
    add(rig, 3, 'late', MIB);
    fill(rig, rig.log.ring - 3 * rig.log.segment);
    close(rig);
    const { devices, next } = await traceDevices(rig.log.path);
    assert.deepEqual([...devices.keys()].sort(), [0, 3]);
    assert.equal(devices.get(3)!.name, 'late');
    assert.equal(next, 4);
  });

  it('keeps the numbers, and forgets the rest, where it cannot be read before the head', async () => {
    const rig = new Rig();
    add(rig, 7, 'before', MIB);
    rig.settle();
    rig.release();
    const gap = rig.durable;
    remove(rig, 7);
    fill(rig, rig.log.segment);
    add(rig, 4, 'after', MIB);
    close(rig);
    flip(rig.log.path, rig.log.fileOffset(rig.window.placeBefore(gap).pos) + 70);
    const { devices, next } = await traceDevices(rig.log.path);
    assert.deepEqual([...devices.keys()].sort(), [0, 4]);
    assert.equal(next, 8, 'a number that was seen stays used');
  });

  it('refuses a log that is damaged before its durable point', async () => {
    const rig = lived();
    rig.settle();
    const { pos, seq } = rig.window.placeBefore(rig.durable);
    rig.log.writeSuper({ durable: { pos, seq } }, clock);
    poke(rig.log.path, rig.log.fileOffset(0) + 70, Buffer.alloc(8, 0xee));
    await assert.rejects(traceDevices(rig.log.path), {
      errno: 'EIO',
      message: /record 1 at byte \d+ is damaged \(crc\), before the durable point .*; run `reptool replog check/,
    });
  });

  it('tells progress of a large log, and is ended by its signal', async () => {
    const rig = new Rig({ size: 80 * MIB });
    fill(rig, 70 * MIB);
    close(rig);
    const told: number[] = [];
    await traceDevices(rig.log.path, { progress: (done, total) => void told.push(done / total) });
    assert.equal(told.length, 1);
    assert.ok(told[0]! > 0.8 && told[0]! < 1, `${told[0]}`);
    const stop = new AbortController();
    stop.abort('SIGINT');
    await assert.rejects(traceDevices(rig.log.path, { signal: stop.signal }), (reason) => reason === 'SIGINT');
  });
});
