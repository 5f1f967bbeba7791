/** What the README says to type, typed: everything but `npm ci`, which has made the tree this runs in. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertSame } from '../support/content.js';
import { assertFsck } from '../support/loop.js';
import { Mounted, PROJECT } from '../support/mounted.js';
import { describeOutcome, must, run } from '../support/proc.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';

/** The mount points that the README uses. */
const DISKS = '/mnt/rep';
const FILES = '/mnt/disk';

describe('the README', function () {
  this.timeout(180_000);
  let mounted: Mounted;

  before(function () {
    needsFuse(this);
    needsLoop(this);
    needsTool(this, 'mkfs.ext4', 'npx');
    mounted = new Mounted();
    mkdirSync(mounted.files);
  });
  after(() => mounted?.cleanup());

  /** Commands of the README's code blocks, with the test's folders in place of its mount points. */
  const blocks = readFileSync(join(PROJECT, 'README.md'), 'utf8')
    .split('```sh\n')
    .slice(1)
    .map((rest) => rest.split('```')[0]!.split('\n').filter(Boolean));

  function here(line: string): string {
    const command = line.replace(/\s+#.*$/, '');
    const placed = command.replaceAll(FILES, mounted.files).replaceAll(DISKS, mounted.dir);
    // Where other groups are mounted on this machine, the one that is meant has to be named.
    return /^npx reptool (status|wait)/.test(placed) && othersMounted() ? `${placed} ${mounted.dir}` : placed;
  }

  function othersMounted(): boolean {
    return (readFileSync('/proc/self/mountinfo', 'utf8').match(/ - fuse\.reptool /g) ?? []).length > 1;
  }

  async function type(line: string): Promise<string> {
    const outcome = await mounted.sh(here(line), { timeoutMs: 90_000 });
    assert.equal(outcome.status, 0, describeOutcome(line, outcome));
    return outcome.stdout;
  }

  it('begins with one line that installs, mounts and replicates', async () => {
    const [first, ...more] = blocks[0]!;
    assert.deepEqual(more, []);
    assert.equal(first, `npm ci && npx reptool mount ${DISKS}`);
    const said = await type(first.replace('npm ci && ', ''));
    for (const word of ['disk0', 'site 1', '1 GiB', mounted.dir]) assert.ok(said.includes(word), `${word}: ${said}`);
    assert.ok(mounted.isMounted);
    assert.equal((await run('stat', ['-c', '%s', mounted.disk])).stdout.trim(), String(2 ** 30));
  });

  it('goes on with lines that all work as they stand', async () => {
    const lines = blocks[1]!;
    assert.ok(lines.length >= 5, 'the second block of the README has changed');
    for (const line of lines) {
      if (/reptool umount/.test(line)) break;
      const said = await type(line);
      if (line.includes('mount -o loop')) await must('cp', ['-a', join(PROJECT, 'src'), join(mounted.files, 'src')]);
      if (/reptool status/.test(line)) assert.match(said, /disk0/, line);
    }
  });

  it('ends with an umount after which the replica is the disk', async () => {
    await type(blocks[1]!.find((line) => /reptool umount/.test(line))!);
    assert.equal(mounted.isMounted, false);
    await assertSame(mounted.image, mounted.siteImage, 'image and replica');
    await assertFsck(mounted.siteImage);
    const recovered = await mounted.sh(`npx reptool site recover ${mounted.siteFolder}`);
    assert.equal(recovered.status, 0, describeOutcome('reptool site recover', recovered));
  });

  it('names only files that are there', () => {
    const text = readFileSync(join(PROJECT, 'README.md'), 'utf8');
    const links = [...text.matchAll(/\]\(([^)#:]+)\)/g)].map((hit) => hit[1]!);
    assert.deepEqual(
      links.filter((link) => !existsSync(join(PROJECT, link))),
      [],
    );
  });
});
