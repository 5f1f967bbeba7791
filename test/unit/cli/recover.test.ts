import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { realIo } from '../../../src/base/io.js';
import { KIB } from '../../../src/base/units.js';
import { FolderSite } from '../../../src/slink/folder.js';
import { TestClock, cleanUp } from '../replog/rig.js';
import { Copying } from '../slink/copying.js';
import { DISK, History, how, put, siteFolder } from '../slink/support.js';
import { reptool } from './support.js';

describe('`site recover` of a site whose copying was not finished', () => {
  let folder: string;
  let history: History;

  beforeEach(() => {
    folder = siteFolder();
    history = new History([DISK]);
    const site = new FolderSite(realIo, new TestClock(), folder, { area: 256 * KIB });
    assert.ok(site.open(how([DISK])).ok, site.reason);
    assert.equal(site.write(history.begin().fill(0, 8192).end()), 0);
    site.close();
    history.begin().fill(8192, 16384).end();
    const copying = new Copying(history);
    copying.opened(site);
    copying.copy(site, 0, 0, 3);
    assert.equal(site.write(history.begin().fill(512, 512).end()), 0);
    site.close();
    // What only the stage is sure to have.
    put(join(folder, 'disk0.img'), 512, Buffer.alloc(512));
  });
  afterEach(cleanUp);

  const staged = (): boolean =>
    readFileSync(join(folder, 'disk0.img')).subarray(512, 1024).equals(history.now.get(0)!.subarray(512, 1024));

  it('! is refused with the reason and the next step, and changes nothing', async () => {
    const ran = await reptool('site', 'recover', folder);
    assert.equal(ran.exit, 1);
    assert.match(ran.stderr, /is inconsistent: a resync was not completed, .*let the resync end, .*with --force/);
    assert.equal(staged(), false);
  });

  it('says so with --dry-run, and fails for scripts', async () => {
    const ran = await reptool('site', 'recover', folder, '--dry-run');
    assert.match(ran.stdout, /INCONSISTENT: a resync was not completed/);
    assert.equal(ran.exit, 1);
    const json = await reptool('site', 'recover', folder, '--dry-run', '--json');
    assert.equal((JSON.parse(json.stdout) as { inconsistent: boolean }).inconsistent, true);
    assert.equal(staged(), false);
  });

  it('brings what is staged into the images with --force', async () => {
    const ran = await reptool('site', 'recover', folder, '--force');
    assert.equal(ran.exit, 0, ran.stderr);
    assert.match(ran.stdout, /INCONSISTENT[^]*all of it is in the images now/);
    assert.equal(staged(), true);
  });
});
