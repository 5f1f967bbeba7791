import assert from 'node:assert/strict';
import { EventLog, eventLine } from '../../../src/control/events.js';

const T0 = Date.UTC(2026, 10, 20, 6, 0, 0);
const GRAMMAR =
  /^(exists|change|create|destroy) (group|device|site|log) name:\S+( [a-z-]+:\S+)* time:\S+Z( reason:.+)?$/;

describe('control/events', () => {
  it('EventLog begins with what exists, ended by "exists -"', () => {
    const log = new EventLog(
      () => [{ object: 'group', name: 'default', keys: { role: 'Primary' } }],
      () => T0,
    );
    assert.equal(
      log.read(0, 1000).toString(),
      'exists group name:default role:Primary time:2026-11-20T06:00:00.000Z\nexists -\n',
    );
  });

  it('EventLog grows with each event, and the size follows', () => {
    const log = new EventLog(
      () => [],
      () => T0,
    );
    const before = log.size;
    log.add('change', 'site', 'site1', { state: 'failed', paused: false }, 'the folder\nis gone');
    assert.ok(log.size > before);
    const line = log.read(before, 1000).toString();
    assert.equal(
      line,
      'change site name:site1 state:failed paused:no time:2026-11-20T06:00:00.000Z reason:the folder is gone\n',
    );
  });

  it('EventLog reads in pieces as in one', () => {
    const log = new EventLog(
      () => [],
      () => T0,
    );
    for (let i = 0; i < 20; i++) log.add('change', 'site', 'site1', { seq: i });
    const whole = log.read(0, log.size).toString();
    let pieces = '';
    for (let at = 0; at < log.size; at += 7) pieces += log.read(at, 7).toString();
    assert.equal(pieces, whole);
    assert.equal(log.read(log.size, 10).length, 0);
    assert.equal(log.read(log.size + 100, 10).length, 0);
  });

  it('EventLog starts over with what exists when it is full, and so gets shorter', () => {
    const log = new EventLog(
      () => [{ object: 'log', name: '/l', keys: {} }],
      () => T0,
      1000,
    );
    let shrank = 0;
    for (let i = 0, last = 0; i < 100; i++) {
      log.add('change', 'site', 'site1', { seq: i });
      assert.ok(log.size <= 1000);
      if (log.size < last) {
        shrank++;
        assert.match(log.read(0, 20).toString(), /^exists log name:\/l/);
      }
      last = log.size;
    }
    assert.ok(shrank > 3);
    assert.match(log.read(0, log.size).toString(), /seq:99 /);
  });

  const lines: { name: string; line: string }[] = [
    { name: 'plain', line: eventLine('create', 'device', 'disk1', { nr: 1 }, T0) },
    { name: 'blanks in a name', line: eventLine('exists', 'log', '/a b/c', {}, T0) },
    { name: 'a missing key', line: eventLine('change', 'log', '/l', { 'held-by': undefined, state: 'ok' }, T0) },
    { name: 'a reason', line: eventLine('change', 'log', '/l', { state: 'error' }, T0, 'no space left; make room') },
  ];
  for (const { name, line } of lines) {
    it(`eventLine keeps to the grammar with ${name}`, () => assert.match(line.trimEnd(), GRAMMAR));
  }

  it('eventLine writes a blank in a value as three octal digits', () => {
    assert.match(eventLine('exists', 'log', '/a b', {}, T0), /name:\/a\\040b /);
  });
});
