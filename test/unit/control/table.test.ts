/** Rules of tables as far as they are words; what looks at files and devices is in cli/tables.test.ts. */
import assert from 'node:assert/strict';
import { plainDevice, plainSite, type GroupConfig, type SiteConfig } from '../../../src/control/config.js';
import { regionOf } from '../../../src/control/dirty-logs.js';
import { checkLogDevices, checkSameGroup, tableConfig } from '../../../src/control/table-group.js';
import { parseTable, type TableGroup } from '../../../src/control/table-parse.js';
import { tableLines } from '../../../src/control/table.js';
import { productTypes } from '../../../src/control/types.js';
import type { TracedDevice } from '../../../src/replog/device-trace.js';

const MIB = 1024 * 1024;
const LOG = 'ringbuffer 4 /l/log 0 auto 8192';
const DISK = '0 2048 replicator-dev g 0 0 1 /l/d0 nolog 0 1 1 /r/disk0.img nolog 0';

function parse(...lines: string[]): TableGroup {
  return parseTable(lines.join('\n'), productTypes({}), 'file');
}

/** A table with these words for its links, and one device on slinks 0 and 1. */
const links = (words: string): TableGroup => parse(`0 1 replicator ${LOG} blockdev 2 0 async ${words}`, DISK);
/** … with these words for site 1. */
const site1 = (words: string): SiteConfig => {
  const count = words === '' ? 1 : 1 + words.split(' ').length;
  return links(`blockdev ${count} 1 ${words}`).sites[0]!;
};
const replog = (words: string): TableGroup => parse(`0 1 replicator ${words} blockdev 2 0 async blockdev 1 1`, DISK);
/** A table with these device lines and slinks 0, 1 and 2. */
const disks = (...lines: string[]): TableGroup =>
  parse(`0 1 replicator ${LOG} blockdev 1 0 blockdev 1 1 blockdev 1 2`, ...lines);
const legs = (words: string): TableGroup => disks(`0 2048 replicator-dev g 0 ${words}`);
const L0 = '0 1 /l/d0 nolog 0';
const L1 = '1 1 /r/disk0.img nolog 0';
const L2 = '2 1 /s/disk0.img nolog 0';

type Row = { title: string } & ({ is(): unknown; to: unknown } | { bad(): unknown; errno: string; says: RegExp });

const rows: Row[] = [
  // --- the log
  {
    title: 'R-8 two words for the log mean open',
    is: () => replog('ringbuffer 2 /l/log 0').log,
    to: { path: '/l/log', start: 0, mode: 'open', size: undefined },
  },
  { title: 'R-8 three words are legal with open', is: () => replog('ringbuffer 3 /l/log 0 open').log.mode, to: 'open' },
  {
    title: 'R-8 auto and create have four words, the last is the size',
    is: () => ['auto', 'create'].map((mode) => replog(`ringbuffer 4 /l/log 0 ${mode} 16384`).log.size),
    to: [8 * MIB, 8 * MIB],
  },
  {
    title: 'R-8 auto without a size',
    bad: () => replog('ringbuffer 3 /l/log 0 auto'),
    errno: 'EINVAL',
    says: /^file:1: ringbuffer: auto: write its size in sectors behind auto$/,
  },
  {
    title: 'R-8 create without a size',
    bad: () => replog('ringbuffer 3 /l/log 0 create'),
    errno: 'EINVAL',
    says: /create/,
  },
  {
    title: 'R-8 open with a size',
    bad: () => replog('ringbuffer 4 /l/log 0 open 8192'),
    errno: 'EINVAL',
    says: /open 8192: leave the size out/,
  },
  { title: 'R-8 one word', bad: () => replog('ringbuffer 1 /l/log'), errno: 'EINVAL', says: /1 words for the log/ },
  {
    title: 'R-8 more than four words',
    bad: () => replog('ringbuffer 6 /l/log 0 auto 8192 x y'),
    errno: 'EINVAL',
    says: /6 words for the log/,
  },
  {
    title: 'R-8 a count that is no number',
    bad: () => replog('ringbuffer many /l/log 0'),
    errno: 'EINVAL',
    says: /^file:1: the number of replog words "many": write a whole number from 0 up$/,
  },
  {
    title: 'R-8 a start that is no number',
    bad: () => replog('ringbuffer 2 /l/log x'),
    errno: 'EINVAL',
    says: /"x": the start of the log is a number of sectors/,
  },
  {
    title: 'R-8 no link',
    bad: () => parse(`0 1 replicator ${LOG}`, DISK),
    errno: 'EINVAL',
    says: /^file:1: a site link: type, number of words, slink number is missing: the line ends too early$/,
  },
  {
    title: 'R-8 a type of log that is not registered',
    bad: () => replog('tape 2 /l/log 0'),
    errno: 'ENOENT',
    says: /^file:1: type "tape": not registered; there is ringbuffer$/,
  },
  {
    title: 'R-9 a mode that there is not',
    bad: () => replog('ringbuffer 4 /l/log 0 make 8192'),
    errno: 'EINVAL',
    says: /"make": write auto, create or open/,
  },
  {
    title: 'R-9 a start other than 0 is no place for a log',
    bad: () => replog('ringbuffer 4 /l/log 8 auto 8192'),
    errno: 'EINVAL',
    says: /start 8: a log begins at sector 0/,
  },
  {
    title: 'R-10 a size below 8192 sectors',
    bad: () => replog('ringbuffer 4 /l/log 0 auto 8191'),
    errno: 'EINVAL',
    says: /size 8191: a log has at least 8192 sectors/,
  },
  { title: 'R-10 8192 sectors are enough', is: () => replog('ringbuffer 4 /l/log 0 auto 8192').log.size, to: 4 * MIB },
  // --- the links
  {
    title: 'R-11 fewer than three words',
    bad: () => links('blockdev 1'),
    errno: 'EINVAL',
    says: /^file:1: blockdev: the number of words 1: only 0 words are left; correct the count$/,
  },
  {
    title: 'R-11 a count of none',
    bad: () => links('blockdev 0 1'),
    errno: 'EINVAL',
    says: /blockdev 0: a link has at least/,
  },
  {
    title: 'R-11 a count beyond the words that are left',
    bad: () => links('blockdev 5 1 async ios'),
    errno: 'EINVAL',
    says: /number of words 5: only 3 words are left/,
  },
  {
    title: 'R-11 a negative number',
    bad: () => links('blockdev 2 -1 async'),
    errno: 'EINVAL',
    says: /slink number "-1"/,
  },
  {
    title: 'R-11 a number above 2047',
    bad: () => links('blockdev 1 2048'),
    errno: 'EINVAL',
    says: /2048: 2047 is the largest/,
  },
  {
    title: 'R-11 a first link other than 0',
    bad: () => parse(`0 1 replicator ${LOG} blockdev 1 1 blockdev 1 0`, DISK),
    errno: 'EINVAL',
    says: /slink 1: the first link is slink 0, the local site/,
  },
  {
    title: 'R-11 a number that is there already',
    bad: () => links('blockdev 1 1 blockdev 1 1'),
    errno: 'EPERM',
    says: /^file:1: slink 1: it is there already/,
  },
  {
    title: 'R-11 a type of link that is not registered',
    bad: () => links('tape 1 1'),
    errno: 'ENOENT',
    says: /type "tape"/,
  },
  // --- policies
  {
    title: 'R-12 the default is asynchronous without limits',
    is: () => site1(''),
    to: plainSite(1, 'blockdev', '/r'),
  },
  ...['a', 'async', 'asynchronous', 'ASYNC'].map((word) => ({
    title: `R-12 "${word}" is asynchronous`,
    is: () => [site1(word).policy, site1(word).stall],
    to: ['async', false],
  })),
  ...['sy', 'sync', 'synchronous'].map((word) => ({
    title: `R-12 "${word}" is synchronous`,
    is: () => [site1(word).policy, site1(word).stall],
    to: ['sync', false],
  })),
  ...['s', 'st', 'stall', 'async+stall', 'stall+async', 'a+s'].map((word) => ({
    title: `R-12 "${word}" is asynchronous and stall`,
    is: () => [site1(word).policy, site1(word).stall],
    to: ['async', true],
  })),
  {
    title: 'R-12 "sync+stall" is both',
    is: () => [site1('sync+stall').policy, site1('sync+stall').stall],
    to: ['sync', true],
  },
  {
    title: 'R-12 sync together with async',
    bad: () => site1('sync+async'),
    errno: 'EINVAL',
    says: /^file:1: policy "sync\+async": a site is synchronous or asynchronous; name one$/,
  },
  ...['x', 'asyncc', 'async+', '+'].map((word) => ({
    title: `R-12 "${word}" is no policy`,
    bad: () => site1(word),
    errno: 'EINVAL',
    says: /policy ".*": write asynchronous, synchronous or stall/,
  })),
  {
    title: 'R-12 sync with a limit',
    bad: () => site1('sync ios 3'),
    errno: 'EINVAL',
    says: /slink 1: sync with a fall-behind limit: a sync site never falls behind/,
  },
  { title: 'R-12 sync with a limit of 0', is: () => site1('sync ios 0').policy, to: 'sync' },
  {
    title: 'R-12 slink 0 sync means that every write is durable first',
    is: () =>
      ['sync', 'async'].map(
        (word) => parse(`0 1 replicator ${LOG} blockdev 2 0 ${word} blockdev 1 1`, DISK).durability,
      ),
    to: ['write', 'flush'],
  },
  {
    title: 'R-12 slink 0 takes no limit',
    bad: () => parse(`0 1 replicator ${LOG} blockdev 4 0 async ios 3 blockdev 1 1`, DISK),
    errno: 'EINVAL',
    says: /slink 0: the local site takes sync or async/,
  },
  // --- fall-behind
  ...(
    [
      ['ios 10000', { ios: 10000 }],
      ['ios=1000', { ios: 1000 }],
      ['IOS 5', { ios: 5 }],
      ['size 3', { size: 1536 }],
      ['size 3s', { size: 1536 }],
      ['size 1k', { size: 1024 }],
      ['Size 200M', { size: 200 * MIB }],
      ['size=2g', { size: 2048 * MIB }],
      ['size 1t', { size: MIB * MIB }],
      ['size 1p', { size: 1024 ** 5 }],
      ['size 1e', { size: 2 ** 53 - 512 }],
      ['timeout 250', { timeoutMs: 250 }],
      ['timeout 250t', { timeoutMs: 250 }],
      ['TIMEOUT=3s', { timeoutMs: 3000 }],
      ['timeout 2m', { timeoutMs: 120_000 }],
      ['timeout 1h', { timeoutMs: 3_600_000 }],
      ['timeout 1d', { timeoutMs: 86_400_000 }],
      ['ios 3 size 1k timeout 1s', { ios: 3, size: 1024, timeoutMs: 1000 }],
    ] as const
  ).map(([words, limit]) => ({
    title: `R-13 "${words}"`,
    is: () => site1(`async ${words}`).fallBehind,
    to: { ios: 0, size: 0, timeoutMs: 0, ...limit },
  })),
  ...(
    [
      ['ios 1k', /ios "1k": write a number of writes/],
      ['size 1x', /size "1x": write a number with s, k, m, g, t, p or e/],
      ['size -1', /size "-1"/],
      ['timeout 1y', /timeout "1y": write a number with t, s, m, h or d/],
      ['timeout 1k', /timeout "1k"/],
      ['ios', /the number of ios is missing/],
      ['data 5', /"data": behind the policy stand ios, size, timeout, or settings as key=value/],
      ['ios=', /ios ""/],
    ] as const
  ).map(([words, says]) => ({ title: `R-13 "${words}"`, bad: () => site1(`async ${words}`), errno: 'EINVAL', says })),
  {
    title: 'R-14 the log in another place of the table',
    bad: () => parse(`0 1 replicator ${LOG} blockdev 1 0`, '0 2048 replicator-dev g 0 0 1 /l/log nolog 0'),
    errno: 'EBUSY',
    says: /\/l\/log as slink 0 of disk0: it is the log already/,
  },
  {
    title: 'R-14 two replicators',
    bad: () => parse(`0 1 replicator ${LOG} blockdev 1 0`, `0 1 replicator ${LOG} blockdev 1 0`, DISK),
    errno: 'EINVAL',
    says: /^file:2: a second replicator: a table holds one group/,
  },
  // --- devices
  {
    title: 'R-15 two words for a device',
    bad: () => legs('0 2 /l/d0 x nolog 0'),
    errno: 'EINVAL',
    says: /slink 0: 2 device words: it is 1: the path/,
  },
  {
    title: 'R-15 nolog takes no words, core 1 or 2, disk 2 or 3',
    is: () => legs(`${L0} 1 1 /r/a core 2 8192 nosync 2 1 /s/a disk 2 /dev/dl 8192`).devices[0]!.dirtyLogs,
    to: { 1: ['core', '8192', 'nosync'], 2: ['disk', '/dev/dl', '8192'] },
  },
  {
    title: 'R-15 - is nolog, which is kept as it is said',
    is: () => legs(`${L0} 1 1 /r/a - 0 ${L2}`).devices[0]!.dirtyLogs,
    to: { 1: ['nolog'], 2: ['nolog'] },
  },
  {
    title: 'R-15 disk with a number first is kept in the index',
    is: () => legs(`${L0} 1 1 /r/a disk 1 8192 2 1 /s/a disk 2 8192 nosync`).devices[0]!.dirtyLogs,
    to: { 1: ['disk', '8192'], 2: ['disk', '8192', 'nosync'] },
  },
  {
    title: 'R-15 disk with four words',
    bad: () => legs(`${L0} 1 1 /r/a disk 4 /dev/dl 8192 sync x`),
    errno: 'EINVAL',
    says: /^file:2: disk: "x": only \[<dev>\] <region size> \[sync\|nosync\] is known$/,
  },
  {
    title: 'R-15 disk with a path that begins without a slash',
    bad: () => legs(`${L0} 1 1 /r/a disk 2 dlog 8192`),
    errno: 'EINVAL',
    says: /disk: "dlog": a region size is a number of sectors, the path of a device begins with a slash$/,
  },
  {
    title: 'R-15 a count that takes words of the next leg',
    bad: () => legs(`${L0} 1 1 /r/a disk 3 8192 ${L2}`),
    errno: 'EINVAL',
    says: /disk: "1": only/,
  },
  {
    title: 'R-17 a dirty log on the log',
    bad: () => legs(`${L0} 1 1 /r/a disk 2 /l/log 8192 ${L2}`),
    errno: 'EBUSY',
    says: /\/l\/log as the dirty log of disk0, slink 1: it is the log already/,
  },
  {
    title: 'R-17 a dirty log on a leg',
    bad: () => legs(`${L0} 1 1 /r/a disk 2 /r/a 8192 ${L2}`),
    errno: 'EBUSY',
    says: /\/r\/a as slink 1 of disk0: it is the dirty log of disk0, slink 1 already/,
  },
  {
    title: 'R-17 two dirty logs on one device',
    bad: () => legs(`${L0} 1 1 /r/a disk 2 /dl 8192 2 1 /s/a disk 2 /dl 8192`),
    errno: 'EBUSY',
    says: /\/dl as the dirty log of disk0, slink 2: it is the dirty log of disk0, slink 1 already/,
  },
  {
    title: 'R-19 sync and nosync are kept',
    is: () => legs(`${L0} 1 1 /r/a core 2 128 sync 2 1 /s/a disk 3 /dl 128 nosync`).devices[0]!.dirtyLogs,
    to: { 1: ['core', '128', 'sync'], 2: ['disk', '/dl', '128', 'nosync'] },
  },
  {
    title: 'R-19 sync and nosync at once',
    bad: () => legs(`${L0} 1 1 /r/a core 3 128 sync nosync`),
    errno: 'EINVAL',
    says: /core: "nosync": only/,
  },
  {
    title: 'R-15 nolog with words',
    bad: () => legs(`${L0} 1 1 /r/a nolog 1 8192`),
    errno: 'EINVAL',
    says: /nolog: 8192/,
  },
  {
    title: 'R-15 core without words',
    bad: () => legs(`${L0} 1 1 /r/a core 0`),
    errno: 'EINVAL',
    says: /core: no region size/,
  },
  {
    title: 'R-15 core with three words',
    bad: () => legs(`${L0} 1 1 /r/a core 3 8192 sync x`),
    errno: 'EINVAL',
    says: /core: "x"/,
  },
  {
    title: 'R-15 disk with one word',
    bad: () => legs(`${L0} 1 1 /r/a disk 1 /dev/dl`),
    errno: 'EINVAL',
    says: /disk: no region/,
  },
  { title: 'R-15 sync or nosync', bad: () => legs(`${L0} 1 1 /r/a core 2 8192 soon`), errno: 'EINVAL', says: /"soon"/ },
  {
    title: 'R-15 a dirty log that is not registered',
    bad: () => legs(`${L0} 1 1 /r/a tape 0`),
    errno: 'ENOENT',
    says: /type "tape": not registered; there is disk, core, nolog/,
  },
  {
    title: 'R-16 slink 0 has nolog',
    bad: () => legs(`0 1 /l/d0 core 1 8192 ${L1}`),
    errno: 'EINVAL',
    says: /slink 0: core: the local device has nolog/,
  },
  { title: 'R-16 nolog on a remote device too', is: () => legs(`${L0} ${L1} ${L2}`).sites.length, to: 2 },
  {
    title: 'R-16 a region below 128 sectors',
    bad: () => legs(`${L0} 1 1 /r/a core 1 127`),
    errno: 'EINVAL',
    says: /region size 127: a region has at least 128 sectors/,
  },
  {
    title: 'R-16 a region of 128 sectors',
    is: () => legs(`${L0} 1 1 /r/a core 1 128 ${L2}`).devices[0]!.dirtyLogs['1'],
    to: ['core', '128'],
  },
  {
    title: 'R-16 two region sizes',
    bad: () => legs(`${L0} 1 1 /r/a core 1 8192 2 1 /s/a core 1 4096`),
    errno: 'EINVAL',
    says: /core 4096 \(disk0, slink 2\): all remote devices have one region size, that of core 8192 \(disk0, slink 1\)$/,
  },
  {
    title: 'R-16 two region sizes of two devices, one in the index',
    bad: () =>
      disks(
        `0 2048 replicator-dev g 0 ${L0} 1 1 /r/a nolog 0 2 1 /s/a core 1 8192`,
        '0 2048 replicator-dev g 1 0 1 /l/d1 nolog 0 1 1 /r/b disk 1 4096 2 1 /s/b nolog 0',
      ),
    errno: 'EINVAL',
    says: /^file:3: disk 4096 \(disk1, slink 1\): all remote devices have one region size, that of core 8192 \(disk0,/,
  },
  {
    title: 'R-16 nolog has no region size to agree on',
    is: () => regionOf(legs(`${L0} 1 1 /r/a nolog 0 2 1 /s/a core 1 4096`)),
    to: 4096,
  },
  { title: 'R-16 the usual region size', is: () => regionOf(legs(`${L0} ${L1} ${L2}`)), to: 8192 },
  {
    title: 'R-16 the region size behind a path',
    is: () => regionOf(legs(`${L0} ${L1} 2 1 /s/a disk 2 /dev/128 256`)),
    to: 256,
  },
  {
    title: 'R-16 a region that is no power of two',
    bad: () => legs(`${L0} 1 1 /r/a disk 1 8191`),
    errno: 'EINVAL',
    says: /disk: region size 8191: use a power of two$/,
  },
  {
    title: 'R-17 another replicator',
    bad: () => disks(DISK + ` ${L2}`, '0 2048 replicator-dev h 1 0 1 /l/d1 nolog 0'),
    errno: 'ENOENT',
    says: /^file:3: replicator "h": the table is that of group g$/,
  },
  { title: 'R-17 no replicator', bad: () => parse(DISK), errno: 'ENOENT', says: /^file: no replicator: add its line$/ },
  {
    title: 'R-17 a replicator by its path',
    is: () =>
      parse('0 1 replicator ringbuffer 2 /l/log 0 blockdev 1 0', '0 8 replicator-dev /dev/mapper/g 0 0 1 /l/d0 nolog 0')
        .name,
    to: 'g',
  },
  {
    title: 'R-17 a slink that the replicator lacks',
    bad: () => legs(`${L0} 3 1 /r/a nolog 0`),
    errno: 'ENOENT',
    says: /slink 3: the replicator has no such link/,
  },
  {
    title: 'R-17 a device number that is there already',
    bad: () => disks(`0 8 replicator-dev g 0 ${L0}`, '0 8 replicator-dev g 0 0 1 /l/d1 nolog 0'),
    errno: 'EBUSY',
    says: /^file:3: device 0: it is there already$/,
  },
  {
    title: 'R-17 a leg that is there already',
    bad: () => legs(`${L0} ${L1} 1 1 /r/x nolog 0`),
    errno: 'EBUSY',
    says: /device 0, slink 1: it has a leg there already/,
  },
  {
    title: 'R-17 the same device on any link',
    bad: () => legs(`${L0} 1 1 /l/d0 nolog 0`),
    errno: 'EBUSY',
    says: /\/l\/d0 as slink 1 of disk0: it is slink 0 of disk0 already/,
  },
  {
    title: 'R-17 no leg on slink 0',
    bad: () => legs(L1),
    errno: 'ENODEV',
    says: /device 0: it has no leg on slink 0, the local device/,
  },
  {
    title: 'R-17 trailing words',
    bad: () => legs(`${L0} ${L1} ${L2} more`),
    errno: 'EINVAL',
    says: /the slink number of a leg \(or a trailing word\) "more"/,
  },
  {
    title: 'R-17 a link without a device',
    bad: () => legs(`${L0} ${L1}`),
    errno: 'EINVAL',
    says: /slink 2: no device has a leg there/,
  },
  {
    title: 'R-18 a remote path is a word: whether it is there is for the site to find out',
    is: () => legs(`${L0} 1 1 /nowhere/at/all/disk0.img nolog 0 ${L2}`).sites[0]!.address,
    to: '/nowhere/at/all',
  },
];

describe('table', () => {
  for (const row of rows)
    if ('is' in row) it(row.title, () => assert.deepEqual(row.is(), row.to));
    else it(`${row.title}: ${row.errno}`, () => assert.throws(row.bad, { errno: row.errno, message: row.says }));

  const others: { name: string; lines: string[]; errno: string; says: RegExp }[] = [
    { name: 'nothing', lines: [''], errno: 'EINVAL', says: /no replicator/ },
    { name: 'another target', lines: ['0 8 linear /dev/a 0'], errno: 'EINVAL', says: /target "linear"/ },
    {
      name: 'a start sector',
      lines: ['8 8 replicator-dev'],
      errno: 'EINVAL',
      says: /start 8: a target begins at sector 0/,
    },
    { name: 'no device', lines: [`0 1 replicator ${LOG} blockdev 1 0`], errno: 'EINVAL', says: /no replicator-dev/ },
    {
      name: 'a length of 0',
      lines: ['0 1 replicator ringbuffer 2 /l 0 blockdev 1 0', '0 0 replicator-dev g 0'],
      errno: 'EINVAL',
      says: /length 0/,
    },
    {
      name: 'a relative local path',
      lines: ['0 1 replicator ringbuffer 2 /l 0 blockdev 1 0', '0 8 replicator-dev g 0 0 1 d0 nolog 0'],
      errno: 'EINVAL',
      says: /"d0": a path in a table begins with a slash/,
    },
    {
      name: 'a name that cannot be',
      lines: ['0 1 replicator ringbuffer 2 /l 0 blockdev 1 0', '.x: 0 8 replicator-dev g 0 0 1 /d nolog 0'],
      errno: 'EINVAL',
      says: /"\.x": a name must not begin with a dot/,
    },
    {
      name: 'a name twice',
      lines: [
        '0 1 replicator ringbuffer 2 /l 0 blockdev 1 0',
        'x: 0 8 replicator-dev g 0 0 1 /d nolog 0',
        'x: 0 8 replicator-dev g 1 0 1 /e nolog 0',
      ],
      errno: 'EBUSY',
      says: /device "x": the name is taken/,
    },
    {
      name: 'a setting that nobody knows',
      lines: [`0 1 replicator ${LOG} blockdev 1 0 blockdev 3 1 async colour=red`, DISK],
      errno: 'EINVAL',
      says: /slink 1: blockdev: colour=red: only layout=raw is known/,
    },
    {
      name: 'a confirmation that the type cannot give',
      lines: [`0 1 replicator ${LOG} blockdev 1 0 blockdev 3 1 sync ack=received`, DISK],
      errno: 'EINVAL',
      says: /ack=received: blockdev knows durable/,
    },
    {
      name: 'a rate that is no number',
      lines: [`0 1 replicator ${LOG} blockdev 1 0 blockdev 3 1 async bandwidth=fast`, DISK],
      errno: 'EINVAL',
      says: /bandwidth=fast: write a number of bytes per second/,
    },
  ];
  for (const { name, lines, errno, says } of others)
    it(`a table with ${name} is refused with ${errno}`, () => {
      assert.throws(() => parse(...lines), { errno, message: says });
    });

  it('blanks in paths, comments, and names as dmsetup prints them', () => {
    const table = parse(
      '# my group',
      'vm: 0 1 replicator ringbuffer 2 /a\\ b/log 0 blockdev 1 0 blockdev 1 1',
      '',
      'data: 0 2048 replicator-dev /dev/vm 3 0 1 /a\\ b/back\\\\slash nolog 0 1 1 /r/data.img nolog 0',
    );
    assert.equal(table.name, 'vm');
    assert.equal(table.log.path, '/a b/log');
    assert.deepEqual(table.devices, [
      { ...plainDevice(3, 'data', MIB, '/a b/back\\slash'), dirtyLogs: { 1: ['nolog'] } },
    ]);
    assert.equal(table.sites[0]!.address, '/r');
  });

  it('tableLines prints what parseTable takes back, every setting of it', () => {
    const config = tableConfig(
      disks(
        `0 2048 replicator-dev g 0 ${L0} ${L1} ${L2}`,
        'my: 0 8 replicator-dev g 7 0 1 /l/d7 nolog 0 1 1 /r/my.img nolog 0',
      ),
      {
        ...{ id: '0'.repeat(32), name: 'g', logSize: 4 * MIB, plugins: [], source: 'file' },
      },
    );
    const [one, two] = [config.sites[0]!, config.sites[1]!];
    Object.assign(one, {
      policy: 'async',
      stall: true,
      rpoMs: 0,
      bandwidth: 1000,
      resyncRate: 2000,
      resyncLatencyMs: 20,
      fallBehind: { ios: 3, size: 1024, timeoutMs: 5 },
    });
    Object.assign(two, { policy: 'sync', syncTimeoutMs: 400 });
    config.durability = 'write';
    config.onLocalError = 'detach';
    config.devices[0]!.dirtyLogs = { 1: ['disk', '/a b/dl', '8192', 'sync'], 2: ['disk', '8192', 'nosync'] };
    const types = productTypes({});
    const again = (c: GroupConfig): GroupConfig => {
      const table = parseTable(tableLines(c, types), types, 'file');
      checkSameGroup(table, c, 'file');
      return tableConfig(table, { id: c.id, name: table.name!, logSize: c.log.size, plugins: [], source: 'file' });
    };
    assert.equal(two.address, '', 'a site that lacks a device is no folder');
    assert.deepEqual(again(config), config);
    // Files that happen to be called as in a folder of images stay what they are.
    Object.assign(one, { address: '', map: { disk0: '/r/disk0.img', my: '/r/my.img' } });
    assert.match(tableLines(config, types), / layout=raw /);
    assert.deepEqual(again(config), config);
  });

  const changes: { word: string; change(config: GroupConfig): void }[] = [
    { word: 'log', change: (c) => (c.log.path = '/other') },
    { word: 'slink 0 with durability', change: (c) => (c.durability = 'write') },
    { word: 'slink 0 with on-local-error', change: (c) => (c.onLocalError = 'detach') },
    { word: 'devices', change: (c) => c.devices.push(plainDevice(1, 'more', 512, '/m')) },
    { word: 'slinks', change: (c) => (c.sites = []) },
    { word: 'device 0 with name', change: (c) => (c.devices[0]!.name = 'x') },
    { word: 'device 0 with length', change: (c) => (c.devices[0]!.size = 512) },
    { word: 'device 0 with path', change: (c) => (c.devices[0]!.local = '/x') },
    { word: 'device 0 with dirty logs', change: (c) => (c.devices[0]!.dirtyLogs = { 1: ['core', '128'] }) },
    { word: 'slink 1 with policy', change: (c) => (c.sites[0]!.stall = true) },
    { word: 'slink 1 with fall-behind', change: (c) => (c.sites[0]!.fallBehind.ios = 9) },
    { word: 'slink 1 with address', change: (c) => (c.sites[0]!.address = '/x') },
    { word: 'slink 1 with rpo', change: (c) => (c.sites[0]!.rpoMs = 7) },
    { word: 'slink 1 with bandwidth', change: (c) => (c.sites[0]!.bandwidth = 7) },
    { word: 'slink 1 with sync-timeout', change: (c) => (c.sites[0]!.syncTimeoutMs = 7) },
    { word: 'slink 1 with resync-rate', change: (c) => (c.sites[0]!.resyncRate = 7) },
    { word: 'slink 1 with resync-latency', change: (c) => (c.sites[0]!.resyncLatencyMs = 7) },
  ];
  for (const { word, change } of changes)
    it(`checkSameGroup names another ${word}`, () => {
      const table = links('blockdev 1 1');
      const config = tableConfig(table, {
        id: '0'.repeat(32),
        name: 'g',
        logSize: 4 * MIB,
        plugins: [],
        source: 'file',
      });
      checkSameGroup(table, config, 'file');
      change(config);
      assert.throws(
        () => checkSameGroup(table, config, 'file'),
        (error: Error & { errno: string }) => {
          assert.equal(error.errno, 'EINVAL');
          assert.ok(error.message.startsWith(`file: ${word} `), error.message);
          return true;
        },
      );
    });

  const traced = (about: Partial<TracedDevice>): TracedDevice => {
    return { seq: 9, removed: false, name: undefined, size: undefined, reach: 0, ...about };
  };
  const contradictions: { title: string; nr: number; about: Partial<TracedDevice>; says: string }[] = [
    { title: 'a removed device', nr: 0, about: { removed: true }, says: ': was removed by record 9 of the log, ' },
    { title: 'another size', nr: 0, about: { size: 2 * MIB }, says: ' with length 2048: the log has it with 4096 ' },
    { title: 'another name', nr: 0, about: { name: 'a' }, says: ' with name disk0: the log has it with a;' },
    {
      title: 'too small a size',
      nr: 0,
      about: { reach: MIB + 1 },
      says: ' with length 2048: the log has writes to it ',
    },
    { title: 'a device less', nr: 4, about: { name: 'a' }, says: ' with name a: the log has it since record 9, ' },
    { title: 'a device less', nr: 4, about: { reach: 4096 }, says: ': the log has it since record 9, the table does ' },
  ];
  const tableOne = (): GroupConfig =>
    tableConfig(links('blockdev 1 1'), {
      id: '0'.repeat(32),
      name: 'g',
      logSize: 4 * MIB,
      plugins: [],
      source: 'file',
    });
  for (const { title, nr, about, says } of contradictions)
    it(`checkLogDevices refuses a table with ${title} (${Object.keys(about).join()})`, () => {
      const config = tableOne();
      const trace = { devices: new Map([[nr, traced(about)]]), next: 9 };
      assert.throws(
        () => checkLogDevices(config, trace, 'file'),
        (error: Error & { errno: string }) => {
          assert.equal(error.errno, 'EINVAL');
          assert.ok(error.message.startsWith(`file: device ${nr}${says}`), error.message);
          assert.match(error.message, /; (leave its line out|correct the line|add its line) \(log \/l\/log\)$/);
          return true;
        },
      );
      assert.deepEqual(config, tableOne());
    });

  it('checkLogDevices: numbers that the log or the table names are used', () => {
    const config = tableOne();
    const there = traced({ name: 'disk0', size: MIB, reach: MIB });
    const devices = new Map([
      [0, there],
      [6, traced({ removed: true })],
    ]);
    checkLogDevices(config, { devices, next: 7 }, 'file');
    assert.equal(config.nextDevice, 7);
    checkLogDevices(config, { devices: new Map(), next: 0 }, 'file');
    assert.equal(config.nextDevice, 7);
    const other = tableOne();
    checkLogDevices(other, { devices: new Map(), next: 0 }, 'file');
    assert.equal(other.nextDevice, 1);
  });
});
