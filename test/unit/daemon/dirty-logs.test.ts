import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultConfig, type GroupConfig } from '../../../src/control/config.js';
import { productTypes } from '../../../src/control/types.js';
import { DirtyLogs } from '../../../src/daemon/dirty-logs.js';
import type { OpenGroup } from '../../../src/daemon/open.js';
import type { DirtyKeep } from '../../../src/dirtylog/keep.js';
import { MemIndex } from '../replog/rig.js';

const SECTORS = 128 * 100;

describe('DirtyLogs', () => {
  let dir: string;
  let config: GroupConfig;
  const open: DirtyKeep[] = [];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'reptool-dirtylogs-'));
    config = defaultConfig(dir, '0'.repeat(32), 'g');
    writeFileSync(config.log.path, 'the log');
  });
  afterEach(() => {
    for (const keep of open.splice(0)) keep.close();
    rmSync(dir, { recursive: true, force: true });
  });

  function opened(words: string[] | undefined, begins = false): DirtyKeep {
    if (words !== undefined) config.devices[0]!.dirtyLogs = { 1: words };
    const group = { config, types: productTypes({}), index: new MemIndex() } as unknown as OpenGroup;
    const keep = new DirtyLogs(group).open(1, { nr: 0, sectors: SECTORS }, begins);
    open.push(keep);
    return keep;
  }

  it('opens the log that the words name, on a device of its own too', () => {
    assert.deepEqual([opened(undefined).log.keeps, opened(undefined).bits.regionSectors], ['index', 8192]);
    assert.equal(opened(['core', '256']).log.keeps, 'memory');
    assert.equal(opened(['nolog']).log.keeps, 'nothing');
    const file = join(dir, 'dlog');
    writeFileSync(file, '');
    const keep = opened(['disk', file, '128', 'nosync'], true);
    assert.deepEqual([keep.log.keeps, keep.log.state, keep.log.reason, keep.bits.count], ['device', 'A', '', 0]);
  });

  it('! a device that is something else of the group by another name is not written', () => {
    const file = join(dir, 'dlog');
    symlinkSync(config.log.path, file);
    const keep = opened(['disk', file, '128', 'sync'], true);
    assert.equal(keep.log.state, 'D');
    assert.match(keep.log.reason, /dlog, the dirty log of disk0 at site 1: it is the group's log already/);
    assert.equal(keep.bits.count, 100, 'every region counts as dirty');
  });

  it('the region size is that of the leg that names one', () => {
    config.devices.push({ ...config.devices[0]!, nr: 1, name: 'disk1', dirtyLogs: { 1: ['core', '128'] } });
    assert.equal(opened(undefined).bits.regionSectors, 128);
  });
});
