import assert from 'node:assert/strict';
import { RepError } from '../../../src/base/errors.js';
import { defaultConfig, plainDevice } from '../../../src/control/config.js';
import { productTypes } from '../../../src/control/types.js';
import { DirtyLogs } from '../../../src/daemon/dirty-logs.js';
import type { OpenGroup } from '../../../src/daemon/open.js';
import type { DirtyFact } from '../../../src/index/contract.js';
import { LOG_ID } from '../replog/rig.js';

const SECTORS = 100 * 8192;

describe('DirtyLogs', () => {
  let reads: number;
  let failures: string[];

  function logs(dirty: () => DirtyFact[], words: Record<string, string[]> = {}): DirtyLogs {
    const config = defaultConfig('/group', LOG_ID);
    config.devices = [0, 1, 2].map((nr) => plainDevice(nr, `disk${nr}`, SECTORS * 512, `/image${nr}`));
    config.devices[1]!.dirtyLogs = words;
    reads = 0;
    failures = [];
    const index = { generation: 7, dirty: () => (reads++, dirty()) };
    const opened = { config, index, types: productTypes({}) } as unknown as OpenGroup;
    return new DirtyLogs(opened, (what) => void failures.push(what));
  }

  const fact = (device: number): DirtyFact => {
    return { link: 1, device, region: 8192, regions: 100, bits: new Uint8Array(13).fill(1, 0, 1) };
  };

  it('a leg without words is kept in the index, which is read once for all devices', () => {
    const found = logs(() => [fact(0), fact(1)]);
    const counts = [0, 1, 2].map((nr) => found.open(1, { nr, sectors: SECTORS }, false).bits.count);
    assert.deepEqual([counts, reads, failures], [[1, 1, 100], 1, []], 'a device without a fact is all dirty');
  });

  it('! facts that cannot be read make all of the site dirty, and keep nobody from being served', () => {
    const found = logs(() => {
      throw new RepError('EIO', 'index: damaged');
    });
    const counts = [0, 1].map((nr) => found.open(1, { nr, sectors: SECTORS }, false).bits.count);
    assert.deepEqual([counts, failures], [[100, 100], ['site 1: index: damaged; all of it is resynced']]);
  });

  it('a site leaves the ring only where every device has a dirty log there', () => {
    assert.equal(logs(() => []).all(1), true);
    const found = logs(() => [], { 1: ['nolog'] });
    assert.deepEqual([found.all(1), found.all(2)], [false, true]);
  });
});
