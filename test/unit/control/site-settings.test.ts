import assert from 'node:assert/strict';
import { RepError } from '../../../src/base/errors.js';
import { checkConfig, defaultConfig, plainSite, type SiteConfig } from '../../../src/control/config.js';
import { escapeWord, newSite, withSettings } from '../../../src/control/site-settings.js';

const SITE = plainSite(1, 'blockdev', '/backup/site1');

describe('control/site-settings', () => {
  const fine: { words: string[]; is: Partial<SiteConfig> }[] = [
    { words: ['policy=sync'], is: { policy: 'sync', stall: false } },
    { words: ['policy=async+stall'], is: { policy: 'async', stall: true } },
    { words: ['stall=yes'], is: { policy: 'async', stall: true } },
    { words: ['fallbehind=ios=10000'], is: { fallBehind: { ios: 10000, size: 0, timeoutMs: 0 } } },
    { words: ['fallbehind=size=200m'], is: { fallBehind: { ios: 0, size: 200 << 20, timeoutMs: 0 } } },
    { words: ['fallbehind=size=2'], is: { fallBehind: { ios: 0, size: 1024, timeoutMs: 0 } } },
    { words: ['fallbehind=size=1k'], is: { fallBehind: { ios: 0, size: 1024, timeoutMs: 0 } } },
    { words: ['fallbehind=timeout=500'], is: { fallBehind: { ios: 0, size: 0, timeoutMs: 500 } } },
    { words: ['fallbehind=ios=3,timeout=2m'], is: { fallBehind: { ios: 3, size: 0, timeoutMs: 120_000 } } },
    { words: ['fallbehind=none'], is: { fallBehind: { ios: 0, size: 0, timeoutMs: 0 } } },
    { words: ['sync-timeout=30s', 'policy=sync'], is: { policy: 'sync', syncTimeoutMs: 30_000 } },
    { words: ['sync-timeout=none'], is: { syncTimeoutMs: 0 } },
    { words: ['bandwidth=10m'], is: { bandwidth: 10 << 20 } },
    { words: ['rpo=1s'], is: { rpoMs: 1000 } },
    { words: ['rpo=0'], is: { rpoMs: 0 } },
    { words: ['resync-rate=100m'], is: { resyncRate: 100 << 20 } },
    { words: ['resync-rate=none'], is: { resyncRate: 0 } },
    { words: ['resync-latency=20ms'], is: { resyncLatencyMs: 20 } },
    { words: ['resync-latency=auto'], is: { resyncLatencyMs: 0 } },
    { words: ['ack=durable'], is: { ack: 'durable' } },
  ];
  for (const { words, is } of fine)
    it(`"${words.join(' ')}" is understood`, () => {
      const site = withSettings(SITE, words);
      assert.deepEqual(site, { ...SITE, ...is });
      checkConfig({ ...defaultConfig('/g', '00'.repeat(16)), sites: [site] }, 'group.json');
    });

  const wrong: { words: string[]; error: RegExp }[] = [
    { words: ['policy=sync+async'], error: /synchronous or asynchronous; name one/ },
    { words: ['policy=eager'], error: /policy "eager"/ },
    { words: ['policy=sync', 'policy=async'], error: /policy is given twice/ },
    { words: ['policy'], error: /write KEY=VALUE/ },
    { words: ['colour=red'], error: /colour=red: write KEY=VALUE with policy, stall,/ },
    { words: ['constructor=1'], error: /write KEY=VALUE/ },
    { words: ['fallbehind=3'], error: /fall-behind "3"/ },
    { words: ['fallbehind=ios=3k'], error: /ios "3k"/ },
    { words: ['fallbehind=size=3x'], error: /size "3x"/ },
    { words: ['fallbehind=age=3s'], error: /fall-behind "age"/ },
    { words: ['sync-timeout=30'], error: /a time with its unit/ },
    { words: ['bandwidth=fast'], error: /bytes per second such as 10m/ },
    { words: ['resync-rate=slow'], error: /resync-rate=slow: write bytes per second such as 10m/ },
    { words: ['resync-latency=20'], error: /resync-latency=20: write a time with its unit/ },
    { words: ['stall=maybe'], error: /stall=yes or stall=no/ },
    { words: ['ack=soon'], error: /durable or received/ },
  ];
  for (const { words, error } of wrong)
    it(`"${words.join(' ')}" is refused`, () =>
      assert.throws(
        () => withSettings(SITE, words),
        (e) => e instanceof RepError && e.errno === 'EINVAL' && error.test(e.message),
      ));

  it('sync with a fall-behind limit is refused by the configuration, in whatever order they came', () => {
    const config = defaultConfig('/g', '00'.repeat(16));
    for (const words of [
      ['policy=sync', 'fallbehind=ios=3'],
      ['fallbehind=ios=3', 'policy=sync'],
    ])
      assert.throws(
        () => checkConfig({ ...config, sites: [withSettings(SITE, words)] }, 'group.json'),
        /a sync site never falls behind; remove the limit or make it async/,
      );
  });

  it('newSite takes addresses with blanks as they are escaped, maps and settings', () => {
    const site = newSite('7', `blockdev:${escapeWord('/my backup\\x')}`, ['policy=sync']);
    assert.deepEqual([site.nr, site.address, site.policy], [7, '/my backup\\x', 'sync']);
    assert.deepEqual(newSite('7', 'blockdev:', ['map.disk0=/dev/sdb']).map, { disk0: '/dev/sdb' });
    assert.deepEqual(newSite('7', 'nbd:h:1', ['option.tls-ca=/a\\040b', 'rpo=1s']).options, { 'tls-ca': '/a b' });
    assert.throws(() => newSite('7', 'nbd:h:1', ['option.tls']), { errno: 'EINVAL', message: /option\.WORD=VALUE/ });
    assert.throws(() => newSite('7', 'nbd:h:1', ['map.a=1', 'map.a=2']), {
      errno: 'EINVAL',
      message: /a is given twice/,
    });
  });

  for (const [nr, where, error] of [
    ['0', 'blockdev:/b', /slink 0 is the local site/],
    ['2048', 'blockdev:/b', /numbered 1 to 2047/],
    ['x', 'blockdev:/b', /numbered 1 to 2047/],
    ['2', '/b', /TYPE:ADDRESS/],
    ['2', 'blockdev:b', /whole path/],
  ] as const)
    it(`newSite refuses ${nr} ${where}`, () => assert.throws(() => newSite(nr, where, []), error));

  it('a site on the log, on a local image, or on a folder that another site has, is refused', () => {
    const config = defaultConfig('/g', '00'.repeat(16));
    const refused = (address: string): void =>
      assert.throws(
        () => checkConfig({ ...config, sites: [...config.sites, plainSite(2, 'blockdev', address)] }, 'group.json'),
        /is used by .* already/,
      );
    refused('/g/site1');
    refused('/g/replog');
    refused('/g/images/disk0');
    config.devices[0]!.local = '/x/disk0.img';
    refused('/x');
  });
});
