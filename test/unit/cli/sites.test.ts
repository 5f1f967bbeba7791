import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addSite, removeSite } from '../../../src/cli/sites.js';
import { defaultConfig, loadConfig, saveConfig } from '../../../src/control/config.js';

describe('sites of a group that is not mounted', () => {
  let state: string;
  beforeEach(() => void (state = mkdtempSync(join(tmpdir(), 'reptool-sites-'))));
  afterEach(() => rmSync(state, { recursive: true, force: true }));

  it('a site that gets the number of another one has none of its dirty logs', async () => {
    const dir = join(state, 'g');
    mkdirSync(dir);
    const config = defaultConfig(dir, '0'.repeat(32), 'g');
    config.devices[0]!.dirtyLogs = { 1: ['disk', '/dev/dlog1', '8192', 'nosync'] };
    saveConfig(dir, config);
    await removeSite({ state, group: 'g' }, 1);
    await addSite({ state, group: 'g' }, 1, `blockdev:${join(state, 'far')}`, []);
    const { devices, sites } = loadConfig(dir);
    assert.deepEqual(devices[0]!.dirtyLogs, {});
    assert.equal(sites[0]!.address, join(state, 'far'));
  });
});
