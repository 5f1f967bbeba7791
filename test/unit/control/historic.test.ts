/** Rules R-44 to R-46 and R-48: the messages of the historic targets, a row for each; test/unit/rules.test.ts counts them. */
import assert from 'node:assert/strict';
import { runMessage, type MessageHost } from '../../../src/control/messages.js';

/** A group with the sites 1 and 2 and the device disk0; what is asked of it stands in `calls`. */
function fake(paused: number[] = [], suspended = false, sites = [1, 2]): { host: MessageHost; calls: string[] } {
  const calls: string[] = [];
  const called = (what: string): Promise<string> => {
    calls.push(what);
    return Promise.resolve(`${what} done`);
  };
  const host = {
    sites: () => sites,
    devices: () => ['disk0'],
    isPaused: (nr: number) => paused.includes(nr),
    setPaused: (nr: number, on: boolean) => called(`${on ? 'pause' : 'unpause'} ${nr}`),
    setSite: (nr: number, words: readonly string[]) => called(`set ${nr} ${words.join(' ')}`),
    addSite: (nr: string, where: string, words: readonly string[]) => called(['add', nr, where, ...words].join(' ')),
    removeSite: (nr: number) => called(`remove ${nr}`),
    resume: () => (suspended ? called('retry') : Promise.resolve('nothing was suspended')),
    statistics: (what: string) => called(`statistics ${what}`),
    wait: (links: readonly number[], ms: number) => called(`wait ${links.join(',')} ${ms}`),
    resizeLog: (size: number) => called(`resize ${size}`),
  };
  return { host: host as unknown as MessageHost, calls };
}

function say(text: string, host: MessageHost): Promise<string> {
  return runMessage(text.split(' '), host, { resent: false, stop: new AbortController().signal });
}

const BOTH = ['pause 1', 'pause 2'];
const DAY = 86_400_000;

const rows: {
  rule: string;
  message: string;
  calls: string[];
  paused?: number[];
  suspended?: boolean;
  says?: RegExp;
}[] = [
  { rule: 'R-44', message: 'suspend', calls: BOTH, says: /all 2 sites are paused/ },
  { rule: 'R-44', message: 'postsuspend all', calls: BOTH },
  { rule: 'R-44', message: 'start all', paused: [1], calls: ['unpause 1'] },
  { rule: 'R-45', message: 'flush', calls: [`wait 0,1,2 ${DAY}`] },
  { rule: 'R-45', message: 'fl', calls: [`wait 0,1,2 ${DAY}`] },
  {
    rule: 'R-46',
    message: 'stop',
    calls: BOTH,
    says: /^suspended: all 2 sites are paused, the log keeps what they miss$/,
  },
  { rule: 'R-46', message: 'suspend all', calls: BOTH },
  { rule: 'R-46', message: 'postsuspend', calls: BOTH },
  { rule: 'R-46', message: 'sus a', calls: BOTH },
  { rule: 'R-46', message: 'suspend', paused: [1], calls: ['pause 2'] },
  { rule: 'R-46', message: 'start', paused: [1, 2], calls: ['unpause 1', 'unpause 2'] },
  { rule: 'R-46', message: 'resume', paused: [1, 2], suspended: true, calls: ['unpause 1', 'unpause 2', 'retry'] },
  { rule: 'R-46', message: 'resume', paused: [2], calls: [], says: /^nothing was suspended$/ },
  { rule: 'R-46', message: 'resume all', paused: [2], calls: ['unpause 2'], says: /^unpause 2 done$/ },
  { rule: 'R-46', message: 'resume', suspended: true, calls: ['retry'], says: /^retry done$/ },
  { rule: 'R-46', message: 'replog resize 8192', calls: ['resize 4194304'], says: /^resize 4194304 done$/ },
  { rule: 'R-46', message: 'rep res 20G', calls: [`resize ${20 * 2 ** 30}`] },
  { rule: 'R-46', message: 'statistics on', calls: ['statistics on'] },
  { rule: 'R-46', message: 'statistics off', calls: ['statistics off'] },
  { rule: 'R-46', message: 'replog statistics reset', calls: ['statistics reset'] },
  { rule: 'R-46', message: 'rep stat reset', calls: ['statistics reset'] },
  { rule: 'R-48', message: 'disk0 suspend', calls: BOTH, says: /^disk0 shares its order with the group: suspended/ },
  { rule: 'R-48', message: 'disk0 stop', calls: BOTH },
  { rule: 'R-48', message: 'disk0 postsuspend', calls: BOTH },
  { rule: 'R-48', message: 'disk0 start', paused: [1, 2], calls: ['unpause 1', 'unpause 2'] },
  { rule: 'R-48', message: 'disk0 resume', paused: [1, 2], calls: ['unpause 1', 'unpause 2'] },
];

const wrong: { rule: string; message: string; errno?: string; says: RegExp }[] = [
  { rule: 'R-45', message: 'flush now', says: /flush now: write flush alone/ },
  { rule: 'R-46', message: 'suspend some', says: /suspend some/ },
  { rule: 'R-46', message: 'start all all', says: /start all all/ },
  { rule: 'R-46', message: 'st', says: /st: not understood/ },
  { rule: 'R-46', message: 'statistics', says: /statistics on\|off\|reset/ },
  { rule: 'R-46', message: 'statistics maybe', says: /statistics on\|off\|reset/ },
  { rule: 'R-46', message: 'replog', says: /replog/ },
  { rule: 'R-46', message: 'replog resize 8192 8192', says: /write replog resize SECTORS/ },
  { rule: 'R-46', message: 'replog resize -1', says: /write replog resize SECTORS/ },
  { rule: 'R-46', message: 'replog resize 99999999999999999', says: /write replog resize SECTORS/ },
  { rule: 'R-46', message: 'replog resize', says: /write replog resize SECTORS/ },
  { rule: 'R-46', message: 'replog resize big', says: /write replog resize SECTORS/ },
  { rule: 'R-48', message: 'disk0', says: /disk0: not understood; a device takes start, resume, stop, suspend/ },
  { rule: 'R-48', message: 'disk0 stop now', says: /disk0 stop now: not understood; a device takes/ },
  { rule: 'R-48', message: 'disk0 fly', says: /disk0 fly: not understood; a device takes/ },
  { rule: 'R-48', message: 'disk0 device', says: /write device add REPLICATOR NR/ },
  { rule: 'R-48', message: 'disk0 device add r 0 2 1 /x nolog 0', says: /legs are not added one by one/ },
  { rule: 'R-48', message: 'disk0 device del 2', says: /legs are not removed one by one/ },
  { rule: 'R-48', message: 'disk0 device del 0', says: /slink 0: links to sites are numbered/ },
];

describe('historic messages', () => {
  for (const { rule, message, calls, paused, suspended, says } of rows)
    it(`${rule} "${message}"${paused === undefined ? '' : ` while ${paused.join(' and ')} is paused`}`, async () => {
      const group = fake(paused, suspended);
      const said = await say(message, group.host);
      assert.deepEqual(group.calls, calls);
      assert.match(said, says ?? /./);
    });

  for (const { rule, message, errno = 'EINVAL', says } of wrong)
    it(`${rule} "${message}": ${errno}, and nothing is done`, async () => {
      const group = fake();
      await assert.rejects(
        async () => say(message, group.host),
        (error: Error & { errno: string }) => {
          assert.equal(error.errno, errno, error.message);
          assert.match(error.message, says);
          return true;
        },
      );
      assert.deepEqual(group.calls, []);
    });

  it('R-46 suspend of a group without sites says so', async () => {
    const group = fake([], false, []);
    assert.equal(await say('suspend', group.host), 'there are no sites to be paused');
    assert.equal(await say('resume', group.host), 'nothing was suspended');
  });
});
