/** Rules R-46 and R-47: the messages to links of the historic targets, a row for each. */
import assert from 'node:assert/strict';
import { slink, type SlinkHost } from '../../../src/control/historic-slink.js';

/** A group with the sites 1 and 2 and the device disk0; what is asked of it stands in `calls`. */
function fake(paused: number[] = [], suspended = false, sites = [1, 2]): { host: SlinkHost; calls: string[] } {
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
  return { host, calls };
}

function say(text: string, host: SlinkHost): Promise<string> {
  return slink(host, text.split(' ').slice(1));
}

const rows: {
  rule: string;
  message: string;
  calls: string[];
  paused?: number[];
  suspended?: boolean;
  says?: RegExp;
}[] = [
  { rule: 'R-46', message: 'slink del 2', calls: ['remove 2'] },
  { rule: 'R-46', message: 'slink message 1 fallbehind ios=5', calls: ['set 1 fallbehind=ios=5'] },
  { rule: 'R-46', message: 'sl m 1 f SIZE=200M', calls: ['set 1 fallbehind=size=200m'] },
  { rule: 'R-46', message: 'slink message 2 policy async+stall', calls: ['set 2 policy=async+stall'] },
  { rule: 'R-46', message: 'slink message 2 policy sync', calls: ['set 2 policy=sync'] },
  { rule: 'R-47', message: 'slink add blockdev 2 3 address=/far', calls: ['add 3 blockdev:/far'] },
  { rule: 'R-47', message: 'slink add blockdev 3 3 sync address=/far', calls: ['add 3 blockdev:/far policy=sync'] },
  {
    rule: 'R-47',
    message: 'slink add blockdev 6 3 async ios 10 size=1m address=/far',
    calls: ['add 3 blockdev:/far policy=async fallbehind=ios=10,size=1m'],
  },
  {
    rule: 'R-47',
    message: 'slink add blockdev 3 3 async map.disk0=/dev/x',
    calls: ['add 3 blockdev: policy=async map.disk0=/dev/x'],
  },
  {
    rule: 'R-47',
    message: 'slink add nbd 4 3 async rpo=50 address=h:1',
    calls: ['add 3 nbd:h:1 policy=async rpo=50ms'],
  },
];

const wrong: { rule: string; message: string; errno?: string; says: RegExp }[] = [
  { rule: 'R-46', message: 'slink', says: /slink: write slink add TYPE N NR/ },
  { rule: 'R-46', message: 'slink del', says: /write slink del NR/ },
  { rule: 'R-46', message: 'slink del 1 2', says: /write slink del NR/ },
  { rule: 'R-46', message: 'slink del 0', says: /slink 0: links to sites are numbered 1 to 2047/ },
  { rule: 'R-46', message: 'slink del -1', says: /slink -1: links to sites are numbered/ },
  { rule: 'R-46', message: 'slink del 7', errno: 'EPERM', says: /slink del 7: there is no such link/ },
  { rule: 'R-46', message: 'slink message 1', says: /slink message 1: write slink add/ },
  { rule: 'R-46', message: 'slink message 1 fallbehind ios=5 size=3', says: /write slink add/ },
  { rule: 'R-46', message: 'slink message 1 fallbehind ios', says: /fall-behind "ios": write it as type=number/ },
  {
    rule: 'R-46',
    message: 'slink message 1 fallbehind data=5',
    says: /fall-behind "data": write ios, size or timeout/,
  },
  { rule: 'R-46', message: 'slink message 1 policy sometimes', says: /policy "sometimes"/ },
  { rule: 'R-46', message: 'slink message 9 policy sync', errno: 'ENOENT', says: /slink 9: there is no such link/ },
  { rule: 'R-47', message: 'slink add', says: /write slink add TYPE N NR/ },
  { rule: 'R-47', message: 'slink add blockdev', says: /write slink add TYPE N NR/ },
  {
    rule: 'R-47',
    message: 'slink add blockdev 3 3 address=/far',
    says: /blockdev 3: 2 words follow; correct the count/,
  },
  {
    rule: 'R-47',
    message: 'slink add blockdev 2 1 address=/far',
    errno: 'EPERM',
    says: /slink 1: it is there already/,
  },
  { rule: 'R-47', message: 'slink add blockdev 2 0 address=/far', says: /slink 0: links to sites are numbered/ },
  { rule: 'R-47', message: 'slink add blockdev 2 3 async', says: /say where it is: address=FOLDER/ },
  { rule: 'R-47', message: 'slink add blockdev 3 3 async more', says: /slink add: "more"/ },
  { rule: 'R-47', message: 'slink add blockdev 3 3 async ios', says: /ios/ },
];

describe('historic messages to links', () => {
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
});
