/**
 * File systems of sites' own, which can lose their power: ext4 on a loop device, shut down by ioctl. Every call to it
 * fails from that moment on; what was not synced is gone, or kept, as the kind of the cut says. Mounted again it
 * replays its journal, as after a power cut.
 *
 * A file system that was shut down lives on, dead, for as long as anybody has it mounted, and mounting its device then
 * gives the dead one again, or EBUSY. A mount namespace that somebody on the machine makes in this moment (`unshare
 * -m`, a container) is such a mount, out of reach. So they are mounted in a namespace of the run's own (order-child),
 * which nobody copies; and whoever still is about to let go is waited for by the device, which one file system claims
 * until it is really gone.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { ERRNO } from '../../src/base/errors.js';
import { Mem } from '../../src/base/mem.js';
import * as sys from '../../src/base/sys.js';
import { attach, detach, makeExt4 } from './loop.js';
import { must, run, until } from './proc.js';

/** _IOR('X', 125, __u32), the same for ext4 and XFS. */
const SHUTDOWN = 0x8004587d;
const MS_MOVE = 8192;
const EVERY_MS = 2;
const LATE_MS = 60_000;

/**
 *   cut      everything written so far reaches the disk, then the line to it is dead
 *   powered off   neither data nor journal: what was not synced is lost
 *   dying    the journal is written, the data are not
 */
export const CUTS = { cut: 0, dying: 1, 'powered off': 2 } as const;
export type Cut = keyof typeof CUTS;

/** A file system in memory: what sites lose is decided by their own; it does not wait for the machine's disk. */
export class VolumeDisks {
  readonly ram: string;
  /** Loop devices, each with an ext4 on it. */
  readonly devices: string[] = [];
  private readonly files: string[] = [];

  constructor(top: string) {
    this.ram = join(top, 'ram');
  }

  async make(count: number, bytes: number): Promise<void> {
    fs.mkdirSync(this.ram);
    await must('mount', ['-t', 'tmpfs', '-o', 'size=700m', 'none', this.ram]);
    for (let i = 0; i < count; i++) {
      const file = join(this.ram, `volume${i}.ext4`);
      fs.writeFileSync(file, '');
      fs.truncateSync(file, bytes);
      this.files.push(file);
      const device = await attach(file);
      this.devices.push(device);
      await makeExt4(device, '-E', 'nodiscard', '-J', 'size=8');
    }
  }

  /** Whatever became of them; nobody who used them is left. */
  async remove(): Promise<void> {
    for (const device of this.devices.splice(0)) {
      await untilFree(device);
      await detach(device);
    }
    for (const file of this.files.splice(0)) fs.rmSync(file, { force: true });
    await run('umount', [this.ram], { timeoutMs: 10_000 });
  }
}

/** One of them as the run sees it. */
export class Volume {
  /** Where it is mounted. */
  readonly dir: string;
  private readonly device: string;
  private readonly side: string;
  private readonly flags = Mem.anon(4096);

  constructor(top: string, name: string, device: string) {
    this.dir = join(top, name);
    this.side = join(top, `${name}.side`);
    this.device = device;
    for (const dir of [this.dir, this.side]) fs.mkdirSync(dir);
    check(sys.mount(device, this.dir, 'ext4', 0, ''), `mounting ${device}`);
  }

  shutDown(how: Cut): void {
    const fd = fs.openSync(this.dir, 'r');
    this.flags.dv.setUint32(0, CUTS[how], true);
    const rc = sys.ioctl(fd, SHUTDOWN, this.flags.addr);
    fs.closeSync(fd);
    check(rc, `shutting ${this.dir} down`);
  }

  /** Away from its place, once nobody has a file of it open any more, and gone. */
  async unmount(explain: () => string = () => ''): Promise<void> {
    const gone = (): boolean => {
      const rc = sys.umount2(this.dir, 0);
      if (rc !== -ERRNO.EBUSY) check(rc, `unmounting ${this.dir}`);
      return rc >= 0;
    };
    await until(`${this.dir} is let go`, gone, LATE_MS, EVERY_MS, () => `${holders(this.dir)}${explain()}`);
    await untilFree(this.device);
  }

  /** Mounted again beside its place, where `look` finds it undisturbed; then it is put in its place. */
  async mount(look: (dir: string) => Promise<void>): Promise<void> {
    check(sys.mount(this.device, this.side, 'ext4', 0, ''), `mounting ${this.device} again`);
    await look(this.side);
    check(sys.mount(this.side, this.dir, '', MS_MOVE, ''), `moving it to ${this.dir}`);
  }
}

/** No file system claims the device: the one that was there is gone, not only unmounted. */
function untilFree(device: string): Promise<unknown> {
  const free = (): boolean => {
    try {
      fs.closeSync(fs.openSync(device, fs.constants.O_RDONLY | fs.constants.O_EXCL));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
      throw error;
    }
  };
  return until(`nobody claims ${device}`, free, LATE_MS, EVERY_MS, () => mountsElsewhere(device));
}

function check(rc: number, what: string): void {
  if (rc < 0) throw new Error(`${what} failed: errno ${-rc}`);
}

/** Who has something below `dir` open, for the sentence of a failure. */
function holders(dir: string): string {
  return eachProcess((pid) =>
    fs
      .readdirSync(`/proc/${pid}/fd`)
      .map((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`))
      .filter((path) => path.startsWith(dir)),
  );
}

/** In which processes' mount namespaces a device is mounted. */
function mountsElsewhere(device: string): string {
  return eachProcess((pid) =>
    fs
      .readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
      .split('\n')
      .filter((line) => line.includes(` ${device} `)),
  );
}

function eachProcess(look: (pid: string) => string[]): string {
  const lines: string[] = [];
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const found = look(pid);
      if (found.length > 0) lines.push(`${pid} (${fs.readFileSync(`/proc/${pid}/comm`, 'utf8').trim()}): ${found[0]}`);
    } catch {
      // It has ended meanwhile.
    }
  }
  return lines.join('\n');
}
