/**
 * A site without a journal: raw block devices and files (disk-legs.ts), or exports of an NBD server (nbd-legs.ts).
 * It cannot forget and may reorder what is not flushed, so what it promises is a prefix *after replay*:
 *
 *   open stamp durable → batch written → all legs flushed → stamp with the new cursor durable → confirmed
 *
 * From the first write to the flush the site is inside its open window; whatever fails in there, the next open
 * starts at the cursor of the stamp, and everything from there on is written again in full order, so that it does
 * not matter which of it was there already. A stamp is open as long as data flow; `flush` closes it. Behind a
 * closed one nothing was ever sent, and its devices must be exactly as its samples say. Behind an open one the
 * blocks of the records that may have been sent are left out (`sentBehind` asks the log for them).
 *
 * History begins with zeroes: before anything is sent to a device all of it is looked at, in steps. Nothing is
 * written to a device before it was seen to be blank, or to be the one that the stamp describes.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { BLOCK } from '../base/units.js';
import { decodeDeviceAdd, decodeDeviceResize } from '../replog/device-records.js';
import { BATCH_HEADER, REC, R_BYTES, R_DEVICE, R_TYPE, payloadSpace } from '../replog/format.js';
import { SHIP_BYTES, SHIP_RECORDS, type ShipBatch } from './batch.js';
import { BlankCheck } from './blank.js';
import type { Connections, OpenWindow, Site, SiteOpen, SiteOpened, SiteReader } from './contract.js';
import type { Legs } from './legs.js';
import { TouchedRanges } from './marks.js';
import { RawSamples } from './raw-samples.js';
import { RawStampFile, type RawDevice, type RawStamp } from './raw-stamp.js';
import { RecordSink, type DeviceHook } from './records.js';

export interface RawSiteOptions {
  /** As in an address. */
  type: string;
  legs: Legs;
  /** Path of the stamp, beside group.json. */
  stamp: string;
  /** How a device that holds data is made blank, for the sentence that refuses it. */
  wipe: string;
}

/** Samples are taken anew this often while data flow, milliseconds. */
const SAMPLE_MS = 250;

class Refusal extends Error {
  readonly wrong: boolean;
  readonly againMs: number | undefined;
  constructor(wrong: boolean, message: string, againMs?: number) {
    super(message);
    this.wrong = wrong;
    this.againMs = againMs;
  }
}

/** Not a failure: there is more to look at. */
class Unfinished extends Error {}

export class RawSite implements Site {
  readonly type: string;
  readonly batchBytes = SHIP_BYTES;
  reason = '';
  refused = false;
  preparing = false;
  againMs: number | undefined;
  window: OpenWindow | null = null;
  /** Records before it may have been sent; beyond the cursor that is the open window. */
  private exposed = 0;

  private readonly clock: Clock;
  private readonly options: RawSiteOptions;
  /** What was flushed and stamped is on the legs, whatever a failed call left there of newer records. */
  readonly readers?: () => SiteReader[] | string;
  private readonly legs: Legs;
  private readonly file: RawStampFile;
  private readonly sink: RecordSink;
  /** Devices that the batch removes. */
  private readonly removed: number[] = [];
  private stamp: RawStamp | undefined;
  private samples: RawSamples | undefined;
  private sampledAt = 0;
  private blank: BlankCheck | undefined;
  /** Legs are open, and they are the right ones. */
  private ready = false;
  /** This process has seen every request of its own answered; those of an earlier one it cannot know. */
  private sure = false;

  constructor(io: Io, clock: Clock, options: RawSiteOptions) {
    this.clock = clock;
    this.options = options;
    this.type = options.type;
    const { legs } = options;
    this.legs = legs;
    if (legs.readers !== undefined)
      this.readers = () => (this.ready ? legs.readers!() : `${this.file.path}: is not open`);
    this.file = new RawStampFile(io, options.stamp);
    this.sink = new RecordSink(options.legs, this.deviceRecord);
  }

  get connections(): Connections | undefined {
    return this.legs.connections;
  }

  get unflushed(): boolean {
    return this.ready && this.stamp?.open === true;
  }

  open(how: SiteOpen): SiteOpened {
    this.reason = '';
    this.refused = false;
    this.againMs = undefined;
    if (!this.preparing) this.close();
    this.preparing = false;
    try {
      this.openAll(how);
      return { ok: true, cursor: { ...this.stamp!.cursor } };
    } catch (error) {
      this.reason = (error as Error).message;
      if (error instanceof Unfinished) {
        this.preparing = true;
        this.againMs = 0;
        return { ok: false, refused: false, reason: this.reason };
      }
      this.close();
      if (!(error instanceof Refusal)) throw error;
      this.refused = error.wrong;
      this.againMs = error.againMs;
      return { ok: false, refused: this.refused, reason: this.reason };
    }
  }

  write(batch: ShipBatch): number {
    const stamp = this.stamp!;
    if (!this.ready) return this.failed(-ERRNO.ENOTCONN, `${this.file.path}: is not open`);
    const ready = this.prepare(batch);
    if (ready < 0) return ready;
    if (!stamp.open) {
      stamp.open = true;
      const rc = this.writeStamp();
      if (rc < 0) return rc;
    }
    this.exposed = Math.max(this.exposed, stamp.cursor.seq + batch.records);
    this.window = { from: stamp.cursor.seq, to: this.exposed, bytes: batch.bytes };
    this.samples!.note(batch.mem, BATCH_HEADER, batch.records);
    this.removed.length = 0;
    this.sink.begin(batch.mem);
    let rc = this.sink.pushAll(BATCH_HEADER, batch.records, batch.payloadAt);
    if (rc >= 0) rc = this.sink.finish();
    if (rc >= 0) rc = this.legs.settle?.() ?? 0;
    if (rc >= 0) rc = this.legs.sync();
    if (rc >= 0 && (this.samples!.bare || this.clock.monoMs() - this.sampledAt >= SAMPLE_MS)) rc = this.sample();
    if (rc < 0) return this.legsFailed(rc);
    for (const nr of this.removed) {
      this.legs.forget(nr);
      stamp.devices = stamp.devices.filter((device) => device.nr !== nr);
    }
    batch.end(stamp.cursor);
    rc = this.writeStamp();
    if (rc < 0) return rc;
    this.moveWindow();
    return 0;
  }

  /** Behind it nothing is on its way, and the stamp says so; unless there still is what was sent before a failure. */
  flush(): number {
    const { stamp } = this;
    if (stamp === undefined || !this.ready) return this.failed(-ERRNO.ENOTCONN, `${this.file.path}: is not open`);
    if (!stamp.open || this.window !== null) return 0;
    const rc = this.probe();
    if (rc < 0) return rc;
    const sampled = this.sample();
    if (sampled < 0) return this.legsFailed(sampled);
    stamp.open = false;
    const written = this.writeStamp();
    if (written < 0) stamp.open = true;
    return written;
  }

  probe(): number {
    if (!this.ready) return this.failed(-ERRNO.ENOTCONN, `${this.file.path}: is not open`);
    const rc = this.legs.probe();
    return rc < 0 ? this.legsFailed(rc) : 0;
  }

  rest(): void {
    this.sink.release();
  }

  close(): void {
    this.saveProgress();
    this.legs.close();
    this.file.close();
    this.samples?.close();
    this.blank?.close();
    this.samples = undefined;
    this.blank = undefined;
    this.ready = false;
    this.preparing = false;
  }

  // --- opening ---------------------------------------------------------------------------------------------

  private openAll(how: SiteOpen): void {
    if (this.blank === undefined) {
      this.openStamp(how);
      this.openLegs();
      this.blank = new BlankCheck(this.legs, this.stamp!.devices);
    }
    this.lookForBlank();
    this.samples = new RawSamples(this.stamp!.devices);
    this.sampledAt = 0;
    this.checkSamples(how);
    this.ready = true;
    this.sure = true;
    this.moveWindow();
  }

  private moveWindow(): void {
    const { seq } = this.stamp!.cursor;
    this.window = seq >= this.exposed ? null : { from: seq, to: this.exposed, bytes: 0 };
  }

  private openStamp(how: SiteOpen): void {
    const { file } = this;
    const { identity } = how;
    const read = file.load();
    if (typeof read === 'number')
      throw new Refusal(false, `${file.path}: cannot be read: ${errnoText(read)}; check the disk of the state folder`);
    if (read === 'version') throw new Refusal(true, `${file.path}: was written by a newer reptool; use that one`);
    if (typeof read === 'object' && !this.isStale(read, how)) {
      if (read.logId !== identity.logId || read.nr !== identity.nr)
        throw new Refusal(
          true,
          `${file.path}: is the stamp of site ${read.nr} of group "${read.group}" (log ${read.logId}); put the right one back`,
        );
      this.stamp = read;
      // Until the log has told how much it can be.
      if (read.open && !this.sure)
        this.window = { from: read.cursor.seq, to: read.cursor.seq + SHIP_RECORDS, bytes: 0 };
      return;
    }
    if (how.create === undefined)
      throw new Refusal(
        true,
        `${file.path}: ${read === 'damaged' ? 'is damaged' : 'is missing'}, so what site ${identity.nr} holds is not known; ` +
          'put the file back, or add the site anew with blank devices',
      );
    this.stamp = {
      serial: 0,
      logId: identity.logId,
      group: identity.group,
      nr: identity.nr,
      cursor: { ...how.create },
      open: false,
      writtenUs: this.clock.wallUs(),
      devices: how.devices.map((device) => newDevice(device.nr, device.name, device.size)),
    };
    const rc = file.create();
    if (rc < 0) throw new Refusal(false, `${file.path}: cannot be made: ${errnoText(rc)}; make room for it`);
  }

  /** A stamp that is left of a site of the same number which was removed, or which never began. */
  private isStale(stamp: RawStamp, how: SiteOpen): boolean {
    if (how.create === undefined) return false;
    const elsewhere = stamp.devices.some((d) => how.devices.some((n) => n.nr === d.nr) && this.moved(d));
    return elsewhere || stamp.logId !== how.identity.logId;
  }

  private moved(device: RawDevice): boolean {
    return this.legs.target(device.name) !== device.target;
  }

  private openLegs(): void {
    const stamp = this.stamp!;
    const opened = this.legs.open(stamp.devices, stamp.open && !this.sure);
    if (!opened.ok) throw new Refusal(opened.refused, opened.reason, opened.againMs);
    for (const device of stamp.devices) {
      const target = this.legs.target(device.name);
      // Looked at in part, and perhaps another one by now.
      if (device.making && device.samples.length === 0 && device.target !== target) device.blank = 0;
      device.target = target;
    }
    this.must(this.writeStamp());
  }

  /** Looks at what was never written to, a step per call. */
  private lookForBlank(): void {
    const blank = this.blank!;
    const rc = blank.step(this.clock);
    if (rc < 0) throw new Refusal(false, this.legs.reason, this.legs.againMs);
    if (blank.found !== undefined) {
      const { device, pos } = blank.found;
      // What was seen before may be written to until it is looked at again.
      device.blank = Math.min(device.blank, blank.startOf(device));
      throw new Refusal(
        true,
        `${device.target}: holds data (the first at byte ${pos}), and a new site must read as zeroes; ${this.options.wipe}`,
      );
    }
    if (!blank.done) throw new Unfinished(`looks whether ${blank.now} is blank: ${blank.percent}%`);
    if (!this.stamp!.devices.some((device) => device.making)) return;
    for (const device of this.stamp!.devices) device.making = false;
    this.must(this.writeStamp());
  }

  /** Before anything is written: are these the devices that the stamp describes? */
  private checkSamples(how: SiteOpen): void {
    const stamp = this.stamp!;
    const touched = new TouchedRanges();
    if (stamp.open && how.sentBehind !== undefined) {
      let to = stamp.cursor.seq;
      const known = how.sentBehind(stamp.cursor, (mem, headers, count) => {
        touched.addRecords(mem, headers, count);
        to += count;
      });
      if (!this.sure) this.exposed = Math.max(this.exposed, to);
      if (!known)
        throw new Refusal(
          true,
          `${this.file.path}: the log has no record ${stamp.cursor.seq} that continues this site; resync it`,
        );
    }
    for (const device of stamp.devices) {
      const verdict = this.samples!.check(this.legs, device, touched);
      if (typeof verdict === 'number') {
        if (verdict < 0) throw new Refusal(false, this.legs.reason, this.legs.againMs);
      } else
        throw new Refusal(
          true,
          `${device.target}: is not as this site left it: block ${verdict.block} (4 KiB) differs, so it was exchanged, ` +
            'rolled back or written to; put the right one back',
        );
    }
  }

  // --- odds and ends ---------------------------------------------------------------------------------------

  /** What was looked at need not be looked at again. */
  private saveProgress(): void {
    if (this.blank === undefined || this.ready || this.stamp === undefined) return;
    if (this.stamp.devices.some((device) => device.making && device.blank > 0)) this.file.write(this.stamp);
  }

  private sample(): number {
    this.sampledAt = this.clock.monoMs();
    return this.samples!.take(this.legs);
  }

  private writeStamp(): number {
    const stamp = this.stamp!;
    stamp.writtenUs = this.clock.wallUs();
    const rc = this.file.write(stamp);
    return rc < 0 ? this.failed(rc, `${this.file.path}: writing a stamp failed: ${errnoText(rc)}`) : 0;
  }

  private must(rc: number): void {
    if (rc < 0) throw new Refusal(false, this.reason);
  }

  /**
   * Devices come, grow and go by records. What a batch adds has to be looked at before the batch is sent: it is
   * noted in the stamp, and the site opened again. 0, or a negative errno with its sentence.
   */
  private prepare(batch: ShipBatch): number {
    const stamp = this.stamp!;
    const { dv, u8 } = batch.mem;
    const news: string[] = [];
    const come = new Set<number>();
    let payload = batch.payloadAt;
    let last = -1;
    for (let i = 0; i < batch.records; i++) {
      const at = batch.recordAt(i);
      const bytes = dv.getUint32(at + R_BYTES, true);
      const nr = dv.getUint32(at + R_DEVICE, true);
      const type = dv.getUint8(at + R_TYPE);
      const text = u8.subarray(payload, payload + bytes);
      payload += payloadSpace(bytes);
      if (type === REC.DEVICE_ADD) {
        const added = decodeDeviceAdd(text);
        if (added === undefined || stamp.devices.some((d) => d.nr === nr) || this.legs.knows(nr)) continue;
        stamp.devices.push(newDevice(nr, added.name, added.size));
        come.add(nr);
        news.push(added.name);
      } else if (type === REC.DEVICE_RESIZE) {
        const size = decodeDeviceResize(text);
        const device = stamp.devices.find((d) => d.nr === nr);
        if (device === undefined || size === undefined || size <= device.size) continue;
        if (!device.making) Object.assign(device, { making: true, blank: device.size, samples: inside(device) });
        device.size = size;
        news.push(device.name);
      } else if (type === REC.WRITE || type === REC.DISCARD || type === REC.ZEROES) {
        if (nr === last || this.legs.knows(nr) || come.has(nr)) last = nr;
        else return this.failed(-ERRNO.ENODEV, `the log has writes to device ${nr}, and no record of its coming`);
      }
    }
    if (news.length === 0) return 0;
    const rc = this.writeStamp();
    if (rc < 0) return rc;
    this.reason = `device ${news.join(', ')} comes or grows: its leg is looked at first`;
    this.refused = false;
    this.againMs = 0;
    return -ERRNO.EAGAIN;
  }

  /** What is cut off a device reads as zeroes, should it ever grow again; its leg stays as it is. */
  private readonly deviceRecord: DeviceHook = (type, nr, payload) => {
    if (type === REC.DEVICE_REMOVE) this.removed.push(nr);
    const size = type === REC.DEVICE_RESIZE ? decodeDeviceResize(payload) : undefined;
    const device = this.stamp!.devices.find((d) => d.nr === nr);
    if (size === undefined || device === undefined || size >= device.size) return 0;
    return this.legs.zeroes(nr, size, device.size - size);
  };

  private failed(rc: number, what: string): number {
    this.reason = `${what}; it is tried again`;
    this.refused = false;
    this.againMs = undefined;
    return rc;
  }

  private legsFailed(rc: number): number {
    this.reason = this.legs.reason;
    this.refused = false;
    this.againMs = this.legs.againMs;
    return rc;
  }
}

/** Samples whose block lies wholly within the device: the last one reads differently once it has grown. */
function inside(device: RawDevice): RawDevice['samples'] {
  return device.samples.filter((s) => (s.block + 1) * BLOCK <= device.size);
}

function newDevice(nr: number, name: string, size: number): RawDevice {
  return { nr, name, size, target: '', making: true, blank: 0, samples: [] };
}
