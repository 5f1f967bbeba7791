/**
 * Slink 0's images as a copier reads them: from descriptors of its own, beside the applier that writes them, without a
 * lock. What a read is worth depends on what stands around it:
 *
 *   before   `begin`: nothing is wrong with the images, and everything below `t1` = APPLIED is in them
 *   reads    buffered or direct: the kernel keeps both coherent with the applier's buffered and direct writes that have
 *            returned (a direct read first writes dirty pages of its range back, a direct write drops them), and it has
 *            stored APPLIED behind them. What overlaps in time may be torn, within (t1, t2]
 *   behind   `end`: still nothing is wrong; nothing that was read is of a record at or behind `t2` = DURABLE
 *
 * A sync that fails lets the kernel give pages up, before anybody knows: what was read of them before DOUBT shows may be
 * older than APPLIED. So whoever uses it remembers `doubts`, and believes a read only when a later sync has succeeded
 * with the same count (CopiedReport).
 */
import { ERRNO, errnoText } from '../base/errors.js';
import { readFull, type Io } from '../base/io.js';
import type { Mem } from '../base/mem.js';
import { O_DIRECT, O_RDONLY } from '../base/sys.js';
import { BLOCK, roundDown } from '../base/units.js';
import { SH, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { LocalCopySource } from './resync-order.js';

interface OpenImage {
  fd: number;
  /** -1 where the file system has no direct I/O, or refused it. */
  direct: number;
}

export class LocalSource {
  /** Why the last read failed, or the images cannot be used. */
  reason = '';
  /** Of the last `begin` and `end`. */
  t1 = 0;
  t2 = 0;
  doubts = 0;

  private readonly io: Io;
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly strange: (source: LocalCopySource) => string;
  private sources: readonly LocalCopySource[] = [];
  private readonly open = new Map<number, OpenImage>();

  /** `strange`: why what stands in the place of an image is not the one that the applier writes, or ''. */
  constructor(io: Io, window: Window, shared: Shared, strange: (source: LocalCopySource) => string = () => '') {
    this.io = io;
    this.window = window;
    this.shared = shared;
    this.strange = strange;
  }

  /** From now on these images; what was open is closed. */
  use(sources: readonly LocalCopySource[]): void {
    this.close();
    this.sources = sources;
  }

  /** Before a read: false where none would count, and `reason` says why. `near`: a full seq nearby. */
  begin(near: number): boolean {
    // Before DOUBT: it is stored before the count grows, so that no count stands for a doubt that is not seen yet.
    this.doubts = this.shared.load(SH.DOUBTS);
    if (this.troubled()) return false;
    this.t1 = this.window.seqOf(W.APPLIED, near);
    return true;
  }

  /** Behind the reads: false where they do not count. */
  end(): boolean {
    this.t2 = this.window.seqOf(W.DURABLE, this.t1);
    return !this.troubled() && this.shared.load(SH.DOUBTS) === this.doubts;
  }

  /** False where slink 0's images are not the place to read from just now. */
  get usable(): boolean {
    const { window, shared } = this;
    // While reads of the group come from a site, slink 0's images are behind, or not there.
    if (window.load(W.SOURCE) !== 0 || window.load(W.AWAY) !== 0) return false;
    return window.load(W.DOUBT) === 0 && shared.load(SH.LOCAL_ERROR) === 0;
  }

  /** The opposite, with the reason, and then nothing stays open. */
  troubled(): boolean {
    if (this.usable) return false;
    const { window, shared } = this;
    const errno = shared.load(SH.LOCAL_ERROR);
    if (window.load(W.SOURCE) !== 0 || window.load(W.AWAY) !== 0)
      this.reason = 'slink 0 is detached: its images are copied from once it is back';
    else if (errno !== 0) this.reason = `the local images fail: ${errnoText(errno)}`;
    else this.reason = 'a sync of the local images failed: what is in doubt is written again';
    // So that their file system can be unmounted and repaired; another one may be mounted there afterwards.
    this.close();
    return true;
  }

  /**
   * The first byte at or behind `from`, before `end`, that may be other than zero; `end` where there is none. A negative
   * errno: the image cannot be read (`reason`).
   */
  nextData(nr: number, from: number, end: number): number {
    const image = this.image(nr);
    if (typeof image === 'number') return image;
    const at = this.io.nextData?.('RESYNC:SEEK', image.fd, from) ?? from;
    if (at === -ERRNO.ENXIO) return end;
    // Not every file system, and no block device, knows its holes.
    return at < 0 ? from : Math.min(at, end);
  }

  /** Reads the range into `mem` at `at`, a multiple of 4096: 0 or a negative errno (`reason`). */
  read(nr: number, offset: number, length: number, mem: Mem, at: number): number {
    const image = this.image(nr);
    if (typeof image === 'number') return image;
    let done = 0;
    if (image.direct >= 0 && offset % BLOCK === 0 && length >= BLOCK) {
      const whole = roundDown(length, BLOCK);
      const rc = readFull(this.io, 'RESYNC:DIRECT', image.direct, mem, at, whole, offset);
      if (rc >= 0) done = whole;
      else if (rc !== -ERRNO.EINVAL && rc !== -ERRNO.EOPNOTSUPP) return this.failed(nr, rc);
      else {
        this.io.close('RESYNC:CLOSE', image.direct);
        image.direct = -1;
      }
    }
    if (done === length) return 0;
    const rc = readFull(this.io, 'RESYNC:READ', image.fd, mem, at + done, length - done, offset + done);
    return rc < 0 ? this.failed(nr, rc) : 0;
  }

  close(): void {
    for (const image of this.open.values()) this.shut(image);
    this.open.clear();
  }

  private image(nr: number): OpenImage | number {
    return this.open.get(nr) ?? this.openImage(nr);
  }

  /** ENODEV: the device has no image, or not yet: it comes or goes. */
  private openImage(nr: number): OpenImage | number {
    const { io } = this;
    const source = this.sources.find((s) => s.nr === nr);
    if (source === undefined) return this.absent(`device ${nr} has no local image`);
    const { path } = source;
    const fd = io.open('RESYNC:OPEN', path, O_RDONLY);
    if (fd === -ERRNO.ENOENT) return this.absent(`${path}: the local image is not there`);
    if (fd < 0) return this.failed(nr, fd);
    const direct = io.open('RESYNC:OPEN', path, O_RDONLY | O_DIRECT);
    const image = { fd, direct: Math.max(direct, -1) };
    const wrong = this.wrong(source, fd);
    if (wrong !== '') {
      this.shut(image);
      return this.absent(wrong);
    }
    this.open.set(nr, image);
    return image;
  }

  private wrong(source: LocalCopySource, fd: number): string {
    const { path, size } = source;
    const info = this.io.info('RESYNC:OPEN', fd);
    if (typeof info === 'number') return `${path}: reading its size failed: ${errnoText(info)}`;
    return info.size < size ? `${path}: has ${info.size} bytes, its device ${size}` : this.strange(source);
  }

  private shut({ fd, direct }: OpenImage): void {
    this.io.close('RESYNC:CLOSE', fd);
    if (direct >= 0) this.io.close('RESYNC:CLOSE', direct);
  }

  private absent(reason: string): number {
    this.reason = reason;
    return -ERRNO.ENODEV;
  }

  private failed(nr: number, rc: number): number {
    const path = this.sources.find((s) => s.nr === nr)?.path ?? `device ${nr}`;
    this.reason = `${path}: reading the local image failed: ${errnoText(rc)}`;
    return rc;
  }
}
