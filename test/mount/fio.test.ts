/** fio with verification on the device file and through a loop device, again after a remount. */
import { assertAllSame } from '../support/content.js';
import { VERIFY, assertClean, fio } from '../support/fio.js';
import { attach, detach } from '../support/loop.js';
import { Mounted } from '../support/mounted.js';
import { needsFuse, needsLoop, needsTool } from '../support/skip.js';
import { TRANSPORTS, itUnlessExcused } from '../support/transports.js';

const SIZE = '96m';

for (const transport of TRANSPORTS)
  describe(`fio --verify, ${transport}`, function () {
    this.timeout(120_000);
    let mounted: Mounted | undefined;

    before(function () {
      needsFuse(this);
      needsTool(this, 'fio');
    });
    afterEach(() => mounted?.cleanup());

    for (const [rw, more] of [
      ['randwrite', {}],
      ['randrw', { rwmixread: 30 }],
      ['randwrite', { bsrange: '512-64k', bs_unaligned: true, name: 'odd sizes', blockalign: 512 }],
    ] as const) {
      const name = 'name' in more ? more.name : rw;
      it(`${name} at depth 16 holds, and still does after a remount`, async () => {
        const m = (mounted = await Mounted.start({ size: '128M', logSize: '64M', transport }));
        // Without a fixed seed the second run would not know what the first one wrote.
        const job = { ...VERIFY, rw, ...more, iodepth: 16, size: SIZE, randseed: 4711, name: 'job' };
        assertClean(await fio(m, m.disk, job), `${name}, write and verify`);
        await m.umount();
        await m.mount();
        if (name === 'randwrite') {
          assertClean(await fio(m, m.disk, { ...job, verify_only: true }), `${name}, verify after a remount`);
        }
        await assertAllSame(m);
      });
    }

    it('writes through a loop device hold, with flushes', async function () {
      needsLoop(this);
      const m = (mounted = await Mounted.start({ size: '128M', logSize: '64M', transport }));
      const device = await attach(m.disk, '--direct-io=on');
      const job = { ...VERIFY, rw: 'randwrite', iodepth: 16, size: '48m', fsync: 64 };
      assertClean(await fio(m, device, job), 'writes');
      await detach(device);
      await assertAllSame(m);
    });

    itUnlessExcused(transport, 'fallocate', 'writes and trims through a loop device hold', async function () {
      needsLoop(this);
      const m = (mounted = await Mounted.start({ size: '128M', logSize: '64M', transport }));
      const device = await attach(m.disk, '--direct-io=on');
      const job = { ...VERIFY, rw: 'randtrimwrite', iodepth: 16, size: SIZE, trim_verify_zero: 1 };
      assertClean(await fio(m, device, job), 'trims and writes');
      await detach(device);
      await assertAllSame(m);
    });
  });
