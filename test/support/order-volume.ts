/**
 * A file system of a site's own, which can lose its power: ext4 on a loop device, shut down by ioctl. Every call to it
 * fails from that moment on; what was not synced is gone, or kept, as the kind of the cut says. Mounted again it
 * replays its journal, as after a power cut.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { Mem } from '../../src/base/mem.js';
import * as sys from '../../src/base/sys.js';
import { attach, detach, makeExt4, mountAt } from './loop.js';
import { must, run, until } from './proc.js';

/** _IOR('X', 125, __u32), the same for ext4 and XFS. */
const SHUTDOWN = 0x8004587d;

/**
 *   cut      everything written so far reaches the disk, then the line to it is dead
 *   powered off   neither data nor journal: what was not synced is lost
 *   dying    the journal is written, the data are not
 */
export const CUTS = { cut: 0, dying: 1, 'powered off': 2 } as const;
export type Cut = keyof typeof CUTS;

export class Volume {
  /** Where it is mounted. */
  readonly dir: string;
  private readonly file: string;
  private readonly side: string;
  private device = '';
  private readonly flags = Mem.anon(4096);

  constructor(top: string, name: string) {
    this.dir = join(top, name);
    this.side = join(top, `${name}.side`);
    this.file = join(top, `${name}.ext4`);
  }

  async make(bytes: number): Promise<void> {
    fs.writeFileSync(this.file, '');
    fs.truncateSync(this.file, bytes);
    this.device = await attach(this.file);
    await makeExt4(this.device, '-E', 'nodiscard', '-J', 'size=8');
    fs.mkdirSync(this.side);
    await mountAt(this.device, this.dir);
  }

  shutDown(how: Cut): void {
    const fd = fs.openSync(this.dir, 'r');
    this.flags.dv.setUint32(0, CUTS[how], true);
    const rc = sys.ioctl(fd, SHUTDOWN, this.flags.addr);
    fs.closeSync(fd);
    if (rc < 0) throw new Error(`${this.dir}: cannot be shut down: errno ${-rc}`);
  }

  /** Away from its place, once nobody has it open any more. */
  async unmount(): Promise<void> {
    const gone = async (): Promise<boolean> => (await run('umount', [this.dir], { timeoutMs: 10_000 })).status === 0;
    await until(`${this.dir} is let go`, gone, 20_000, 5);
  }

  /** Mounted again beside its place, where `look` finds it undisturbed; then it is put in its place. */
  async mount(look: (dir: string) => Promise<void>): Promise<void> {
    await must('mount', [this.device, this.side], { timeoutMs: 20_000 });
    await look(this.side);
    await must('mount', ['--bind', this.side, this.dir], { timeoutMs: 20_000 });
    await must('umount', [this.side], { timeoutMs: 20_000 });
  }

  async remove(): Promise<void> {
    await must('umount', [this.dir], { timeoutMs: 20_000 });
    await detach(this.device);
    this.device = '';
  }

  /** The same after a failure, whatever is left of it. */
  async takeAway(): Promise<void> {
    if (this.device === '') return;
    for (const dir of [this.side, this.dir]) await run('umount', [dir], { timeoutMs: 10_000 });
    await detach(this.device);
    this.device = '';
  }
}
