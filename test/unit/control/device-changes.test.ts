/**
 * The row of durable steps of each change, with the process dying behind each: whoever opens the group next, with
 * the same files and the same log, completes what was begun.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { RepError } from '../../../src/base/errors.js';
import { realIo } from '../../../src/base/io.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { defaultConfig, loadConfig, plainDevice, saveConfig, type GroupConfig } from '../../../src/control/config.js';
import { DeviceChanges, type Held } from '../../../src/control/device-changes.js';
import { growLocal, lookAtPlace, makeImage, undoImage } from '../../../src/control/device-image.js';
import { createOffline, removeOffline, resizeOffline } from '../../../src/control/device-offline.js';
import { firstDevices, noticeStrangers, servedDevices } from '../../../src/control/device-plan.js';
import { decodeDeviceAdd, decodeDeviceResize } from '../../../src/replog/device-records.js';
import { REC, REC_NAME } from '../../../src/replog/format.js';

const ID = '00112233445566778899aabbccddeeff';
const HOW = { resent: false, stop: new AbortController().signal };
const RESENT = { ...HOW, resent: true };

/** The process died: nothing it does after that counts. */
class Died extends Error {}

/** One process over the files and the log of the test. */
class Life {
  readonly config: GroupConfig;
  readonly changes: DeviceChanges;
  /** By number: what data thread and applier have. */
  readonly open = new Map<number, number>();
  readonly images = new Map<number, number>();
  readonly shown: string[] = [];
  readonly failures: string[] = [];
  readonly steps: string[] = [];
  held: Held = { who: '', passing: false };
  suspended: RepError | undefined;
  fails: 'make' | 'grow' | undefined;
  dead = false;

  constructor(dir: string, log: string[], dieAt?: string) {
    this.config = loadConfig(dir);
    noticeStrangers(this.config);
    for (const d of servedDevices(this.config)) {
      this.open.set(d.nr, d.size);
      this.images.set(d.nr, d.size);
    }
    const alive = <T>(value: T): Promise<T> => (this.dead ? new Promise<T>(() => undefined) : Promise.resolve(value));
    const full = (): Promise<never> => Promise.reject(new RepError('ENOSPC', 'allocating it failed'));
    this.changes = new DeviceChanges({
      ...{ dir, io: realIo, config: this.config, mountpoint: '/nowhere' },
      images: {
        look: async (job, taken) => alive(lookAtPlace(realIo, job, taken)),
        make: async (job) => (this.fails === 'make' ? full() : alive(makeImage(realIo, job))),
        undo: async (job, before) => alive(undoImage(realIo, job, before)),
        grow: async (job, to) => (this.fails === 'grow' ? full() : alive(growLocal(realIo, job, to))),
      },
      log: {
        append: async (type, nr, payload) => {
          await alive(0);
          const size = decodeDeviceAdd(payload)?.size ?? decodeDeviceResize(payload);
          log.push([REC_NAME[type], nr, size].filter((word) => word !== undefined).join(' '));
          if (type === REC.DEVICE_REMOVE) this.open.delete(nr);
          return log.length;
        },
        durable: () => alive(undefined),
        applied: () => alive(undefined),
        suspended: () => this.suspended,
      },
      serve: {
        openImage: async (spec) => alive(void this.images.set(spec.nr, spec.size)),
        growImage: async (nr, size) => alive(void this.images.set(nr, size)),
        open: async ({ nr, size }) => alive(void this.open.set(nr, size)),
        resize: (nr, size) => void this.open.set(nr, size),
        close: (nr) => void this.open.delete(nr),
      },
      shown: (verb, { name, size }) => {
        this.shown.push(`${verb} ${name} ${size}`);
        return Promise.resolve();
      },
      failed: (what) => void this.failures.push(what),
      holders: () => this.held,
      passed: (step) => {
        this.steps.push(step);
        if (step !== dieAt) return;
        this.dead = true;
        throw new Died(step);
      },
    });
  }
}

describe('control/device-changes', () => {
  let dir: string;
  let log: string[];

  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reptool-devices-'));
    fs.mkdirSync(path.join(dir, 'images'));
    const config = defaultConfig(dir, ID);
    config.devices[0]!.size = MIB;
    saveConfig(dir, config);
    fs.writeFileSync(path.join(dir, 'images', 'disk0'), Buffer.alloc(MIB));
    log = [];
  });
  afterEach(() => fs.rmSync(dir, { recursive: true }));

  const image = (name: string): string => path.join(dir, 'images', name);
  const file = (): string => fs.readFileSync(path.join(dir, 'group.json'), 'utf8');
  const states = (config: GroupConfig): string[] =>
    config.devices.map((d) => `${d.nr} ${d.name} ${d.size}${d.pending === undefined ? '' : ` ${d.pending.op}`}`);

  async function refused(work: Promise<unknown>, errno: string, message: RegExp): Promise<void> {
    const before = file();
    await assert.rejects(work, (error: unknown) => {
      assert.ok(error instanceof RepError, String(error));
      assert.match(error.message, message);
      assert.equal(error.errno, errno);
      return true;
    });
    assert.equal(file(), before, 'the configuration is as before');
  }

  it('! takes the durable steps of each change in their order', async () => {
    const life = new Life(dir, log);
    await life.changes.create({ name: 'a', size: 64 * KIB, sparse: false }, HOW);
    await life.changes.resize('a', 128 * KIB, HOW);
    await life.changes.remove('a', false, HOW);
    assert.deepEqual(life.steps, [
      ...['create:intention', 'create:image', 'create:appended', 'create:durable', 'create:settled'],
      ...['resize:intention', 'resize:image', 'resize:appended', 'resize:durable', 'resize:settled'],
      ...['remove:intention', 'remove:appended', 'remove:durable', 'remove:settled'],
    ]);
    assert.deepEqual(log, ['device-add 1 65536', 'device-resize 1 131072', 'device-remove 1']);
    assert.deepEqual(life.shown, ['create a 65536', 'change a 131072', 'destroy a 131072']);
    assert.deepEqual(states(loadConfig(dir)), ['0 disk0 1048576']);
    assert.equal(fs.statSync(image('a')).size, 128 * KIB, 'its content is kept');
  });

  const STORY: { verb: 'create' | 'resize' | 'remove'; steps: string[]; wanted: string[] }[] = [
    {
      verb: 'create',
      steps: ['intention', 'image', 'appended', 'durable', 'settled'],
      wanted: ['0 disk0 1048576', '1 a 65536'],
    },
    {
      verb: 'resize',
      steps: ['intention', 'image', 'appended', 'durable', 'settled'],
      wanted: ['0 disk0 1048576', '1 a 131072'],
    },
    { verb: 'remove', steps: ['intention', 'appended', 'durable', 'settled'], wanted: ['0 disk0 1048576'] },
  ];
  for (const { verb, steps, wanted } of STORY)
    for (const step of steps)
      it(`! a death behind ${verb}:${step}: the next process completes it, and the message sent again finds it done`, async () => {
        const ask = (life: Life, how: typeof HOW): Promise<string> =>
          verb === 'create'
            ? life.changes.create({ name: 'a', size: 64 * KIB, sparse: false }, how)
            : verb === 'resize'
              ? life.changes.resize('a', 128 * KIB, how)
              : life.changes.remove('a', false, how);
        if (verb !== 'create')
          await new Life(dir, log).changes.create({ name: 'a', size: 64 * KIB, sparse: false }, HOW);
        const first = new Life(dir, log, `${verb}:${step}`);
        void ask(first, HOW).catch(() => undefined);
        for (let i = 0; i < 100 && !first.dead; i++) await new Promise((resolve) => setImmediate(resolve));
        assert.ok(first.dead, `${step} was reached`);
        const next = new Life(dir, log);
        const carried = next.changes.carryOn(Promise.resolve());
        const again = ask(next, RESENT);
        await carried;
        assert.deepEqual(next.failures, []);
        await again;
        assert.deepEqual(states(loadConfig(dir)), wanted);
        assert.deepEqual(states(next.config), wanted);
        assert.deepEqual(
          [...next.open].map(([nr, size]) => `${nr} ${size}`),
          wanted.map((line) => line.replace(/ \w+ /, ' ')),
        );
        const records = new Set(log);
        assert.ok(log.length <= records.size + 1, 'no record more than twice');
        assert.equal(new Set(log.filter((line) => line.includes('add'))).size, 1, 'it came once');
        if (verb === 'resize') assert.equal(fs.statSync(image('a')).size, 128 * KIB);
      });

  it('! numbers are never used again, and the beginning is written down with the first change', async () => {
    const life = new Life(dir, log);
    await life.changes.create({ name: 'a', size: 64 * KIB, sparse: false, nr: 7 }, HOW);
    await life.changes.remove('a', false, HOW);
    await life.changes.resize('disk0', 2 * MIB, HOW);
    await refused(
      life.changes.create({ name: 'b', size: KIB, sparse: true, nr: 7 }, HOW),
      'EEXIST',
      /number 7 was used before.*take 8/,
    );
    await life.changes.create({ name: 'b', size: KIB, sparse: true }, HOW);
    const config = loadConfig(dir);
    assert.deepEqual(states(config), ['0 disk0 2097152', '8 b 1024']);
    assert.equal(config.nextDevice, 9);
    assert.deepEqual(firstDevices(config), [{ nr: 0, name: 'disk0', size: MIB }]);
  });

  it('! a failed image leaves nothing behind, neither in the folder nor in the configuration', async () => {
    const life = new Life(dir, log);
    life.fails = 'make';
    await refused(life.changes.create({ name: 'a', size: 64 * KIB, sparse: false }, HOW), 'ENOSPC', /allocating it/);
    assert.deepEqual(fs.readdirSync(path.join(dir, 'images')), ['disk0']);
    life.fails = 'grow';
    const size = life.config.devices[0]!.size;
    await assert.rejects(life.changes.resize('disk0', 2 * MIB, HOW), /allocating it/);
    assert.deepEqual(states(loadConfig(dir)), [`0 disk0 ${size}`]);
    assert.deepEqual(log, []);
  });

  it('! an image that cannot be completed later becomes a removal: its record may be in the log or not', async () => {
    const first = new Life(dir, log, 'create:appended');
    void first.changes.create({ name: 'a', size: 64 * KIB, sparse: false }, HOW).catch(() => undefined);
    for (let i = 0; i < 100 && !first.dead; i++) await new Promise((resolve) => setImmediate(resolve));
    const next = new Life(dir, log);
    next.fails = 'make';
    await next.changes.carryOn(Promise.resolve());
    assert.deepEqual(log, ['device-add 1 65536', 'device-remove 1']);
    assert.deepEqual(states(loadConfig(dir)), ['0 disk0 1048576']);
    assert.match(next.failures.join(), /a: it was being made, and that cannot be completed: allocating it failed/);
  });

  it('a suspended log refuses changes before anything is begun', async () => {
    const life = new Life(dir, log);
    life.suspended = new RepError('EIO', 'the log is suspended');
    await refused(life.changes.create({ name: 'a', size: 512, sparse: true }, HOW), 'EIO', /the log is suspended/);
    await refused(life.changes.resize('disk0', 2 * MIB, HOW), 'EIO', /the log is suspended/);
  });

  it('a device in use is not removed; one that was just closed is waited for', async () => {
    const life = new Life(dir, log);
    await life.changes.create({ name: 'a', size: 512, sparse: true }, HOW);
    life.held = { who: 'is in use: process 1 (init) has open it', passing: false };
    await refused(life.changes.remove('a', false, HOW), 'EBUSY', /a: is in use: process 1 .* or remove it with force/);
    life.held = { who: 'is held open', passing: true };
    const removal = life.changes.remove('a', false, HOW);
    setTimeout(() => (life.held = { who: '', passing: false }), 40);
    assert.match(await removal, /a: removed; its content is kept in .*images\/a, and .* as a\.img\.removed-1/);
    await refused(life.changes.remove('disk0', true, HOW), 'EBUSY', /is the only device/);
  });

  it('! on the unmounted group changes are begun, and the next daemon completes all of them', async () => {
    createOffline(realIo, dir, { name: 'a', size: 64 * KIB, sparse: false });
    resizeOffline(realIo, dir, 'disk0', 2 * MIB);
    createOffline(realIo, dir, { name: 'b', size: 64 * KIB, sparse: true });
    removeOffline(realIo, dir, 'b');
    assert.deepEqual(states(loadConfig(dir)), ['0 disk0 1048576 resize', '1 a 65536 create', '2 b 65536 remove']);
    await refused(
      (async () => createOffline(realIo, dir, { name: 'b', size: 512, sparse: true }))(),
      'EEXIST',
      /b: a device of that name is being removed/,
    );
    const life = new Life(dir, log);
    await life.changes.carryOn(Promise.resolve());
    assert.deepEqual(life.failures, []);
    assert.deepEqual(log, ['device-resize 0 2097152', 'device-add 1 65536', 'device-remove 2']);
    assert.deepEqual(states(loadConfig(dir)), ['0 disk0 2097152', '1 a 65536']);
  });

  it('a device that was written into group.json by hand comes as one that was created', async () => {
    const config = loadConfig(dir);
    config.devices.push(plainDevice(3, 'mine', 64 * KIB, image('mine')));
    fs.writeFileSync(image('mine'), Buffer.alloc(64 * KIB));
    saveConfig(dir, config);
    const life = new Life(dir, log);
    assert.deepEqual(
      servedDevices(life.config).map((d) => d.name),
      ['disk0'],
    );
    await life.changes.carryOn(Promise.resolve());
    assert.deepEqual(log, ['device-add 3 65536']);
    assert.deepEqual(states(loadConfig(dir)), ['0 disk0 1048576', '3 mine 65536']);
  });
});
