/**
 * A site over plain image files that keeps the contract of resyncs to the letter, and no more than that: what was copied
 * and not settled may be gone after a crash, sector by sector, in any subset; records that were confirmed are not.
 */
import { join } from 'node:path';
import { ERRNO } from '../../src/base/errors.js';
import { realIo } from '../../src/base/io.js';
import { IoVec, Mem } from '../../src/base/mem.js';
import { BATCH_HEADER } from '../../src/replog/format.js';
import { SHIP_BYTES, type ShipBatch } from '../../src/slink/batch.js';
import type { Site, SiteCopy, SiteCursor, SiteDevice, SiteOpen, SiteOpened } from '../../src/slink/contract.js';
import { ImageSet, createImage } from '../../src/slink/images.js';
import { RecordSink } from '../../src/slink/records.js';

/** What its disk remembers of it. */
export interface Stamp {
  cursor: SiteCursor;
  inconsistent: boolean;
}

export interface CopyCount {
  read: number;
  written: number;
  writes: number;
  zeroed: number;
  settled: number;
}

export class CopySite implements Site {
  readonly type = 'test';
  readonly batchBytes = SHIP_BYTES;
  readonly unflushed = false;
  refused = false;
  reason = '';
  stamp: Stamp | undefined;
  /** Devices it had when it was opened last, by number. */
  readonly devices = new Map<number, SiteDevice>();
  readonly count: CopyCount = { read: 0, written: 0, writes: 0, zeroed: 0, settled: 0 };
  /** How it was opened, each time. */
  readonly opens: SiteOpen[] = [];
  /** Asked before each call; a number is the errno that it fails with. */
  rule: ((call: keyof SiteCopy | 'batch' | 'open') => number | undefined) | undefined;
  /** Where the site cannot tell its holes. */
  blind = false;

  readonly folder: string;
  private readonly images = new ImageSet(realIo, 'SITE', { direct: false });
  private readonly sink = new RecordSink(this.images);
  private readonly vec = new IoVec(1);
  private readonly before = Mem.anon(512);
  /** Sectors that were copied and not settled, as they were before: device and sector number. */
  private readonly unsettled = new Map<string, Buffer>();
  private open_ = false;

  constructor(folder: string) {
    this.folder = folder;
  }

  get inconsistent(): boolean {
    return this.stamp?.inconsistent === true;
  }

  fileOf(nr: number): string {
    return join(this.folder, `${nr}.img`);
  }

  open(how: SiteOpen): SiteOpened {
    this.opens.push(how);
    const errno = this.rule?.('open');
    if (errno !== undefined) return { ok: false, refused: false, reason: `opening failed with ${errno}` };
    const { resync, create } = how;
    if (this.stamp === undefined) {
      const at = resync?.at ?? create;
      if (create === undefined || at === undefined) return { ok: false, refused: false, reason: 'is not there' };
      this.stamp = { cursor: { ...at }, inconsistent: resync !== undefined };
      this.make(resync?.devices ?? how.devices);
    } else if (resync === undefined) {
      if (this.stamp.inconsistent) return { ok: false, refused: true, reason: 'is inconsistent' };
    } else {
      const { at, devices } = resync;
      this.stamp.inconsistent = true;
      if (resync.anew || this.stamp.cursor.seq < at.seq) {
        this.stamp.cursor = { ...at };
        this.make(devices);
      }
    }
    this.open_ = true;
    return { ok: true, cursor: { ...this.stamp.cursor } };
  }

  private make(devices: readonly SiteDevice[]): void {
    for (const device of devices) {
      const { nr, size } = device;
      if (this.devices.has(nr)) continue;
      this.devices.set(nr, device);
      createImage(realIo, 'SITE', { nr, size, file: this.fileOf(nr) }, { sparse: true, overwrite: true });
      this.images.open({ nr, size, file: this.fileOf(nr) });
    }
  }

  write(batch: ShipBatch, confirmed?: () => void): number {
    const errno = this.rule?.('batch');
    if (errno !== undefined) return this.failed(-errno, 'a batch');
    this.sink.begin(batch.mem);
    this.settleSectors(batch);
    const rc = this.sink.pushAll(BATCH_HEADER, batch.records, batch.payloadAt);
    if (rc < 0 || this.sink.finish() < 0) return this.failed(-ERRNO.EIO, 'a batch');
    batch.end(this.stamp!.cursor);
    confirmed?.();
    return 0;
  }

  /** What a record writes is durable; nothing that was there before comes back. */
  private settleSectors(batch: ShipBatch): void {
    const { dv } = batch.mem;
    for (let i = 0; i < batch.records; i++) {
      const at = batch.recordAt(i);
      const nr = dv.getUint32(at + 40, true);
      const offset = Number(dv.getBigUint64(at + 24, true));
      const length = Number(dv.getBigUint64(at + 32, true));
      for (let pos = offset; pos < offset + length; pos += 512) this.unsettled.delete(`${nr}:${pos}`);
    }
  }

  flush(): number {
    return 0;
  }

  probe(): number {
    return 0;
  }

  close(): void {
    this.open_ = false;
  }

  /** Its machine dies: of what is not settled, what `keeps` says stays. */
  crash(keeps: () => boolean): void {
    for (const [key, bytes] of this.unsettled) {
      if (keeps()) continue;
      const [nr, offset] = key.split(':').map(Number) as [number, number];
      bytes.copy(this.before.u8);
      realIo.pwrite('SITE:WRITE', this.images.get(nr)!.fd, this.before, 0, 512, offset);
    }
    this.unsettled.clear();
  }

  /** The content of a device. */
  content(nr: number): Buffer {
    const { size } = this.devices.get(nr)!;
    const mem = Mem.lazy(size);
    this.images.read(nr, mem, 0, size, 0);
    const bytes = Buffer.from(mem.u8);
    mem.unmap();
    return bytes;
  }

  /** Writes behind everyone's back. */
  put(nr: number, offset: number, bytes: Buffer): void {
    const mem = Mem.lazy(bytes.length);
    bytes.copy(mem.u8);
    realIo.pwrite('SITE:WRITE', this.images.get(nr)!.fd, mem, 0, bytes.length, offset);
    mem.unmap();
  }

  end(): void {
    this.images.close();
  }

  get copy(): SiteCopy {
    const { images, count } = this;
    const begin = (call: keyof SiteCopy, nr: number | undefined): number => {
      if (!this.open_) throw new Error(`${call} of a site that is not open`);
      const errno = this.rule?.(call);
      if (errno !== undefined) return this.failed(-errno, call);
      return nr === undefined || this.devices.has(nr) ? 0 : this.failed(-ERRNO.ENODEV, `device ${nr}`);
    };
    const change = (nr: number, offset: number, length: number): void => {
      if (!this.inconsistent) throw new Error('copied into a site that says that it is in order');
      for (let pos = offset; pos < offset + length; pos += 512) {
        const key = `${nr}:${pos}`;
        if (this.unsettled.has(key)) continue;
        images.read(nr, this.before, 0, 512, pos);
        this.unsettled.set(key, Buffer.from(this.before.u8.subarray(0, 512)));
      }
    };
    const copy: SiteCopy = {
      read: (nr, offset, length, mem, at) => {
        const rc = begin('read', nr);
        count.read += length;
        return rc < 0 ? rc : images.read(nr, mem, at, length, offset);
      },
      nextData: (nr, offset, end) => {
        const rc = begin('nextData', nr);
        if (rc < 0) return rc;
        const at = realIo.nextData!('SITE:READ', images.get(nr)!.fd, offset);
        return at < 0 ? end : Math.min(at, end);
      },
      write: (nr, offset, length, mem, at) => {
        const rc = begin('write', nr);
        if (rc < 0) return rc;
        change(nr, offset, length);
        count.writes++;
        count.written += length;
        this.vec.clear();
        this.vec.add(mem, at, length);
        return images.write(nr, offset, this.vec);
      },
      zero: (nr, offset, length) => {
        const rc = begin('zero', nr);
        if (rc < 0) return rc;
        change(nr, offset, length);
        count.zeroed += length;
        return images.discard(nr, offset, length);
      },
      settle: () => {
        const rc = begin('settle', undefined);
        if (rc < 0) return rc;
        count.settled++;
        this.unsettled.clear();
        return 0;
      },
      whole: () => {
        const rc = begin('whole', undefined);
        if (rc < 0) return rc;
        this.unsettled.clear();
        this.stamp!.inconsistent = false;
        return 0;
      },
    };
    if (this.blind) delete copy.nextData;
    return copy;
  }

  private failed(rc: number, what: string): number {
    this.reason = `${what} failed with ${-rc}`;
    return rc;
  }
}
