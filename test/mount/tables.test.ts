/** Groups that are made, opened and restored from tables, on real mounts. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Mounted } from '../support/mounted.js';
import { needsFuse } from '../support/skip.js';
import { must } from '../support/proc.js';

const SECTORS = 65536;
const SIZE = SECTORS * 512;
const LOG_SECTORS = 32768;

describe('mount --table', function () {
  this.timeout(120_000);
  before(function () {
    needsFuse(this);
  });
  let place: Mounted;
  beforeEach(() => (place = new Mounted()));
  afterEach(() => place.cleanup());

  const local = (name: string): string => path.join(place.top, name);
  const table = (text: string): string => {
    fs.writeFileSync(local('table'), text);
    return local('table');
  };
  const words = (file: string, ...more: string[]): string[] => [
    'mount',
    place.dir,
    '--state',
    place.state,
    '--table',
    file,
    ...more,
  ];
  async function mountTable(text: string): Promise<string> {
    const outcome = await place.reptool(words(table(text)), { timeoutMs: 60_000 });
    assert.equal(outcome.status, 0, outcome.stderr + place.daemonLog);
    return outcome.stdout;
  }
  async function refused(text: string, says: RegExp, ...more: string[]): Promise<void> {
    const before = await must('find', [place.top, '-not', '-name', 'table'], {});
    const outcome = await place.reptool(words(table(text), ...more), { timeoutMs: 60_000 });
    assert.equal(outcome.status, 1, outcome.stdout);
    assert.match(outcome.stderr, says);
    assert.equal(await must('find', [place.top, '-not', '-name', 'table'], {}), before, 'something was left');
  }
  const config = (): Record<string, unknown> =>
    JSON.parse(fs.readFileSync(path.join(place.groupDir, 'group.json'), 'utf8')) as Record<string, unknown>;
  function empty(name: string): string {
    fs.writeFileSync(local(name), '');
    fs.truncateSync(local(name), SIZE);
    return local(name);
  }
  const two = (mode = `4 ${local('log')} 0 auto ${LOG_SECTORS}`): string =>
    `0 1 replicator ringbuffer ${mode} blockdev 2 0 async blockdev 2 1 async\n` +
    `0 ${SECTORS} replicator-dev default 0 0 1 ${local('d0')} nolog 0 1 1 ${local('far')}/disk0.img core 2 8192 sync\n` +
    `web: 0 ${SECTORS} replicator-dev default 5 0 1 ${local('d5')} nolog 0 1 1 ${local('far')}/web.img core 1 8192\n`;
  const put = (device: string, text: string): Promise<string> =>
    must(
      'sh',
      ['-c', `printf %s "${text}" | dd of=${place.dir}/${device} bs=4k seek=1 conv=notrunc,fsync status=none`],
      {},
    );
  const firstWords = (file: string): string =>
    fs.readFileSync(file).subarray(4096, 4106).toString('latin1').replace(/\0+$/, '');

  it('what commands make and what the printed table makes have the same group.json', async () => {
    await place.mount({ size: '32M', logSize: '16M' });
    const printed = await place.control('table');
    const byHand = config();
    assert.match(printed, /^0 1 replicator ringbuffer 3 \S+ 0 open blockdev 2 0 /);
    await place.umount();
    fs.renameSync(place.state, `${place.state}.old`);
    // The table names a local device, which has to be there.
    fs.mkdirSync(place.imageFolder, { recursive: true });
    fs.writeFileSync(path.join(place.imageFolder, 'disk0'), '');
    fs.truncateSync(path.join(place.imageFolder, 'disk0'), SIZE);
    await mountTable(printed.replace(/ringbuffer 3 (\S+) 0 open/, `ringbuffer 4 $1 0 create ${LOG_SECTORS}`));
    const byTable = config();
    assert.deepEqual({ ...byTable, id: '' }, { ...byHand, id: '' });
    assert.equal(await place.control('table'), printed);
    await put('disk0', 'through');
    await place.drain();
    await place.umount();
    assert.equal(firstWords(place.siteImage), 'through');
  });

  it('a table makes a group of two devices, opens it again, and gives a lost group.json back', async () => {
    empty('d0');
    empty('d5');
    assert.match(await mountTable(two()), /^created group default in /);
    await put('disk0', 'one');
    await put('web', 'five');
    await place.drain();
    const printed = await place.control('table');
    assert.match(printed, / core 2 8192 sync\n/);
    assert.match(printed, /^web: 0 65536 replicator-dev default 5 /m);
    await place.umount();
    assert.equal(firstWords(local('far/web.img')), 'five');

    assert.match(await mountTable(printed), /^mounted /);
    assert.equal(await place.control('table'), printed);
    await place.umount();

    const before = config();
    fs.rmSync(path.join(place.groupDir, 'group.json'));
    assert.match(await mountTable(printed), /^opened the log of group default/);
    assert.deepEqual(config(), before);
    await put('disk0', 'again');
    await place.drain();
    await place.umount();
    assert.equal(firstWords(local('far/disk0.img')), 'again');
    assert.equal(firstWords(local('d0')), 'again');

    await refused(two().replace('web:', 'www:'), /device 5 with name www, but group default exists with web/);
    await refused(two().replace('0 auto', '0 create'), /create: group default exists in/);
  });

  it('! a lost group.json: numbers of removed devices stay used, a table that contradicts the log is refused', async () => {
    empty('d0');
    empty('d5');
    await mountTable(two());
    const device = async (...words: string[]): Promise<string> => {
      const outcome = await place.reptool(['device', ...words, '--mount', place.dir], { timeoutMs: 60_000 });
      assert.equal(outcome.status, 0, outcome.stderr);
      return outcome.stdout;
    };
    await put('disk0', 'one');
    await put('web', 'five');
    await device('create', 'data', '--size', '8M');
    await device('resize', 'data', '--size', '12M');
    await put('data', 'six');
    await device('create', 'short', '--size', '1M', '--local', local('short'));
    await put('short', 'seven');
    await device('remove', 'short');
    await place.drain();
    const printed = await place.control('table');
    await place.umount();
    fs.rmSync(path.join(place.groupDir, 'group.json'));

    const line = printed.split('\n').find((text) => text.startsWith('data:'))!;
    const short = local('short');
    const removed = line
      .replace('data: 0 24576', 'back: 0 2048')
      .replace('default 6', 'default 7')
      .replace('/data.img', '/back.img');
    const at = (text: string, image: string): string => text.replace(/ 0 1 \S+\/data nolog/, ` 0 1 ${image} nolog`);
    const lines = (text: string): string => printed.replace(line, text);
    fs.writeFileSync(local('small'), '');
    fs.truncateSync(local('small'), 8 * 1024 * 1024);
    const images = [
      local('d0'),
      local('d5'),
      local('small'),
      path.join(place.imageFolder, 'data'),
      short,
      local('log'),
    ];
    const sums = (): Promise<string> => must('sha256sum', images, {});
    const before = await sums();
    await refused(printed.replace(`${line}\n`, ''), /device 6 with name data: the log has it since record \d+/);
    await refused(
      lines(`${line}\n${at(removed, short)}`),
      /device 7: was removed by record \d+ of the log, .* leave its/,
    );
    await refused(
      lines(at(line.replace('0 24576', '0 16384'), local('small'))),
      /device 6 with length 16384: the log has it with 24576 since record \d+; correct the line/,
    );
    assert.equal(await sums(), before);

    await mountTable(printed);
    assert.equal(await place.control('table'), printed);
    for (const [name, text] of [
      ['disk0', 'one'],
      ['web', 'five'],
      ['data', 'six'],
    ] as const)
      assert.equal(firstWords(path.join(place.dir, name)), text);
    assert.match(await device('create', 'fresh', '--size', '1M'), /fresh: created as device 8/);
    await put('fresh', 'eight');
    await place.drain();
    await place.umount();
    assert.equal(firstWords(local('far/fresh.img')), 'eight');
    assert.equal(firstWords(local('far/data.img')), 'six');
    assert.equal(firstWords(short), 'seven');
  });

  it('a table that cannot be used leaves nothing', async () => {
    empty('d0');
    await refused(two(), /d5: the local device of web is not there; make it first/);
    empty('d5');
    await refused(
      two().replace('core 1 8192', 'core 1 4096'),
      /table:3: core 4096 \(web, slink 1\): all remote devices have one region size/,
    );
    await refused(two().replace('default 5', 'other 5'), /replicator "other": the table is that of group default/);
    await refused(two(), /replicator "default": not --group db/, '--group', 'db');
    await refused(two(`2 ${local('log')} 0`), /log: there is no replog; use auto or create/);
    fs.mkdirSync(local('far'));
    fs.writeFileSync(local('far/web.img'), 'in the way');
    await refused(two(), /web\.img/);
    const usage = await place.reptool(words(table(two()), '--size', '1G'));
    assert.equal(usage.status, 2);
  });

  it('a group that cannot be served is taken back, and the log it was made in is blank', async () => {
    empty('d0');
    empty('d5');
    fs.writeFileSync(local('log'), '');
    // The group is made by then.
    const old = { ...place.environment, REPTOOL_TEST_NO_KERNEL_FUSE: '1' };
    const before = await must('find', [place.top, '-not', '-name', 'table'], {});
    const outcome = await place.reptool([...words(table(two())), '--transport', 'kernel'], {
      timeoutMs: 60_000,
      env: old,
    });
    assert.equal(outcome.status, 1, outcome.stdout);
    assert.match(outcome.stderr, /the kernel speaks FUSE 7\.0, needed is/);
    assert.equal(await must('find', [place.top, '-not', '-name', 'table'], {}), before, 'something was left');
    const head = Buffer.alloc(8192);
    const fd = fs.openSync(local('log'), 'r');
    fs.readSync(fd, head, 0, 8192, 0);
    fs.closeSync(fd);
    assert.ok(head.every((byte) => byte === 0));
    await mountTable(two());
  });

  it('R-14 the log inside of a mounted group: EPERM', async () => {
    await place.mount({ size: '32M', logSize: '16M' });
    fs.writeFileSync(local('table'), two(`4 ${place.disk} 0 auto ${LOG_SECTORS}`).replaceAll(' default ', ' second '));
    const point = local('second');
    const outcome = await place.reptool(['mount', point, '--state', place.state, '--table', local('table'), '--json']);
    assert.equal(outcome.status, 1);
    const { error } = JSON.parse(outcome.stdout) as { error: { errno: string; message: string } };
    assert.equal(error.errno, 'EPERM');
    assert.match(error.message, /lies in the tree of group default; name a file or device outside of it/);
    assert.equal(fs.existsSync(point), false);
  });
});
