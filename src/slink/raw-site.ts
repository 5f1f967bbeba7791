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
 *
 * With a resync the same holds; only then does the stamp say inconsistent and, where the site is behind it, take the
 * order's place. What a failed call may have left of records behind that place comes again, in order, as ever: the open
 * window outlasts `whole` where it is not closed by then. By force a device is neither looked at nor compared.
 *
 * Samples are judged all the time, since nothing else tells one disk from another here. They hold behind an open stamp
 * once those are taken out that records which may have been sent touch: when a call has failed, or, where a process died
 * in the middle, by the next one as long as the log has these records (*settled*). A copy takes those out before it
 * overwrites them.
 */
import type { Clock } from '../base/clock.js';
import { ERRNO, errnoText } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { decodeDeviceResize } from '../replog/device-records.js';
import { BATCH_HEADER, REC } from '../replog/format.js';
import { SHIP_BYTES, SHIP_RECORDS, type ShipBatch } from './batch.js';
import { BlankCheck } from './blank.js';
import {
  mayTake,
  type Connections,
  type OpenWindow,
  type Site,
  type SiteCopy,
  type SiteOpen,
  type SiteOpened,
  type SiteReader,
  type SiteResync,
} from './contract.js';
import { Copies } from './copies.js';
import type { Legs } from './legs.js';
import { TouchedRanges } from './marks.js';
import { rawCopies } from './raw-copy.js';
import { newDevice, takeNews, takeOrder } from './raw-devices.js';
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
  private preparedFor: number | undefined;
  againMs: number | undefined;
  window: OpenWindow | null = null;
  /** As its stamp said when it was read or written last. */
  inconsistent = false;
  readonly copy: SiteCopy;
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
  /** The stamp is to be made, over whatever stands there. */
  private makeFile = false;
  /** The log has told which samples still hold, or all do. */
  private judges = false;
  /** Devices that leave when the resync begins. */
  private leaving: ReadonlySet<number> = new Set();
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
      this.readers = () => {
        if (this.inconsistent) return `${this.file.path}: is inconsistent until its resync is done`;
        return this.ready ? legs.readers!() : `${this.file.path}: is not open`;
      };
    const isOpen = (): boolean => this.ready;
    const isInconsistent = (): boolean => this.inconsistent;
    const host = {
      get isOpen() {
        return isOpen();
      },
      get inconsistent() {
        return isInconsistent();
      },
      cannot: (rc: number, sentence: string): number => this.failed(rc, `${this.file.path}: site ${sentence}`, ''),
      legsFailed: (rc: number): number => this.legsFailed(rc),
      sizeOf: (nr: number): number | undefined => this.stamp!.devices.find((device) => device.nr === nr)?.size,
      change: (nr: number, offset: number, length: number): number =>
        this.samples!.noteCopy(nr, offset, length) ? this.writeStamp() : 0,
      settle: (): number => this.settleCopies(true),
      whole: (): number => this.settleCopies(false),
    };
    this.copy = new Copies(rawCopies(host, legs));
    this.file = new RawStampFile(io, options.stamp);
    this.sink = new RecordSink(options.legs, this.deviceRecord);
  }

  get connections(): Connections | undefined {
    return this.legs.connections;
  }

  get unflushed(): boolean {
    return this.ready && this.stamp?.open === true && !this.stamp.inconsistent;
  }

  open(how: SiteOpen): SiteOpened {
    this.reason = '';
    this.refused = false;
    this.againMs = undefined;
    // What was prepared was for another place.
    const place = how.resync?.at.seq;
    if (!this.preparing || place !== this.preparedFor) this.close();
    this.preparedFor = place;
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
    if (!stamp.open || stamp.settled) {
      stamp.open = true;
      stamp.settled = false;
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
    if (rc < 0) return this.batchFailed(rc);
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
    if (!stamp.open || stamp.inconsistent || this.window !== null) return 0;
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
    const { resync } = how;
    if (this.blank === undefined) {
      this.openStamp(how);
      this.openLegs();
      this.blank = new BlankCheck(this.legs, mayTake(resync) ? [] : this.staying);
    }
    this.lookForBlank(resync);
    this.samples = new RawSamples(this.staying);
    this.sampledAt = 0;
    this.checkSamples(how);
    if (resync !== undefined) this.becomeInconsistent(resync);
    this.ready = true;
    this.sure = true;
    this.moveWindow();
  }

  /** Without those that a resync is about to let go. */
  private get staying(): RawDevice[] {
    return this.stamp!.devices.filter((device) => !this.leaving.has(device.nr));
  }

  private goesOn({ at, anew }: SiteResync): boolean {
    return !anew && this.stamp!.cursor.seq >= at.seq;
  }

  /** Nothing was written to a device so far. From here on the stamp says what the site is. */
  private becomeInconsistent(resync: SiteResync): void {
    const stamp = this.stamp!;
    const goesOn = this.goesOn(resync);
    if (goesOn && stamp.inconsistent) return;
    if (!goesOn) {
      stamp.cursor = { ...resync.at };
      stamp.devices = this.staying;
      for (const nr of this.leaving) this.legs.forget(nr);
      stamp.usedBelow = resync.nextDevice;
      this.legs.usedBelow = stamp.usedBelow;
    }
    for (const device of stamp.devices) device.making = false;
    stamp.inconsistent = true;
    stamp.open = true;
    stamp.settled = false;
    this.must(this.writeStamp());
  }

  private moveWindow(): void {
    const { seq } = this.stamp!.cursor;
    this.window = seq >= this.exposed ? null : { from: seq, to: this.exposed, bytes: 0 };
  }

  private openStamp(how: SiteOpen): void {
    const { file } = this;
    const { identity } = how;
    const read = file.load();
    this.leaving = new Set();
    this.makeFile = false;
    if (typeof read === 'number')
      throw new Refusal(false, `${file.path}: cannot be read: ${errnoText(read)}; check the disk of the state folder`);
    if (read === 'version') throw new Refusal(true, `${file.path}: was written by a newer reptool; use that one`);
    const { resync } = how;
    const taken = mayTake(resync);
    const foreign = (stamp: RawStamp): boolean => stamp.logId !== identity.logId || stamp.nr !== identity.nr;
    if (typeof read === 'object' && !this.isStale(read, how) && !(taken && foreign(read))) {
      if (foreign(read))
        throw new Refusal(
          true,
          `${file.path}: is the stamp of site ${read.nr} of group "${read.group}" (log ${read.logId}); put the right one back`,
        );
      this.stamp = read;
      this.inconsistent = read.inconsistent;
      if (read.inconsistent && resync === undefined)
        throw new Refusal(
          true,
          `${file.path}: says that site ${read.nr} is inconsistent, as a resync of it was not completed; resync the site`,
        );
      // Until the log has told how much it can be.
      if (read.open && !this.sure)
        this.window = { from: read.cursor.seq, to: read.cursor.seq + SHIP_RECORDS, bytes: 0 };
      this.settleSamples(how);
      if (resync !== undefined && !this.goesOn(resync)) this.leaving = takeOrder(read.devices, resync);
      return;
    }
    const place = how.create ?? (taken ? resync!.at : undefined);
    if (place === undefined)
      throw new Refusal(
        true,
        `${file.path}: ${read === 'damaged' ? 'is damaged' : 'is missing'}, so what site ${identity.nr} holds is not known; ` +
          'put the file back, or add the site anew with blank devices',
      );
    const made = resync !== undefined;
    this.stamp = {
      ...{ serial: 0, logId: identity.logId, group: identity.group, nr: identity.nr },
      cursor: { ...(resync?.at ?? place) },
      ...{ open: made, inconsistent: made, settled: false, usedBelow: resync?.nextDevice ?? 0 },
      writtenUs: this.clock.wallUs(),
      devices: (resync?.devices ?? how.devices).map(newDevice),
    };
    this.inconsistent = made;
    this.judges = true;
    this.makeFile = true;
  }

  /**
   * Takes out the samples that records touch which may have been sent, as long as the log has these: also for one who
   * opens the site when it has them no more.
   */
  private settleSamples(how: SiteOpen): void {
    const stamp = this.stamp!;
    this.judges = !stamp.open || stamp.settled;
    if (!stamp.open || how.sentBehind === undefined || (this.judges && this.sure)) return;
    const touched = new TouchedRanges();
    let to = stamp.cursor.seq;
    const known = how.sentBehind(stamp.cursor, (mem, headers, count) => {
      touched.addRecords(mem, headers, count);
      to += count;
    });
    if (!this.sure) this.exposed = Math.max(this.exposed, to);
    if (!known || this.judges) return;
    for (const device of stamp.devices)
      device.samples = device.samples.filter(({ block }) => !touched.touches(device.nr, block));
    this.judges = true;
    stamp.settled = true;
    this.must(this.writeStamp());
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
    const { file } = this;
    this.legs.usedBelow = stamp.usedBelow;
    const opened = this.legs.open(this.staying, stamp.open && !this.sure && !this.makeFile);
    if (!opened.ok) throw new Refusal(opened.refused, opened.reason, opened.againMs);
    const rc = this.makeFile ? file.create() : 0;
    if (rc < 0) throw new Refusal(false, `${file.path}: cannot be made: ${errnoText(rc)}; make room for it`);
    this.makeFile = false;
    for (const device of this.staying) {
      const target = this.legs.target(device.name);
      // Looked at in part, and perhaps another one by now.
      if (device.making && device.samples.length === 0 && device.target !== target) device.blank = 0;
      device.target = target;
    }
    this.must(this.writeStamp());
  }

  /** Looks at what was never written to, a step per call. */
  private lookForBlank(resync: SiteResync | undefined): void {
    const blank = this.blank!;
    if (mayTake(resync)) return;
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
  private checkSamples({ sentBehind, resync }: SiteOpen): void {
    const stamp = this.stamp!;
    const blind = !this.judges && sentBehind !== undefined;
    if (blind && resync === undefined)
      throw new Refusal(
        true,
        `${this.file.path}: the log has no record ${stamp.cursor.seq} that continues this site; resync it`,
      );
    for (const device of this.staying) {
      // Nobody knows which of them were written over: one that holds is enough.
      const verdict = this.samples!.check(this.legs, device, blind);
      if (typeof verdict === 'number') {
        if (verdict < 0) throw new Refusal(false, this.legs.reason, this.legs.againMs);
      } else if (mayTake(resync)) device.samples = [];
      else
        throw new Refusal(
          true,
          `${device.target}: is not as this site left it: block ${verdict.block} (4 KiB) differs, so it was exchanged, ` +
            'rolled back or written to; put the right one back',
        );
    }
  }

  // --- copies ----------------------------------------------------------------------------------------------

  private settleCopies(inconsistent: boolean): number {
    const stamp = this.stamp!;
    let rc = this.legs.sync();
    if (rc >= 0) rc = this.sample();
    if (rc < 0) return this.legsFailed(rc);
    const before = { open: stamp.open, inconsistent: stamp.inconsistent };
    // What a failed call may have left is not over before it was sent again.
    Object.assign(stamp, { inconsistent, open: inconsistent || this.window !== null });
    rc = this.writeStamp();
    if (rc < 0) Object.assign(stamp, before);
    return rc;
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
    if (rc >= 0) this.inconsistent = stamp.inconsistent;
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
    const news = takeNews(batch, this.stamp!.devices, (nr) => this.legs.knows(nr));
    if (typeof news === 'number')
      return this.failed(-ERRNO.ENODEV, `the log has writes to device ${news}, and no record of its coming`);
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

  private failed(rc: number, what: string, next = '; it is tried again'): number {
    this.reason = `${what}${next}`;
    this.refused = false;
    this.againMs = undefined;
    return rc;
  }

  /** Its samples that still hold are known now, and only now. */
  private batchFailed(rc: number): number {
    const stamp = this.stamp!;
    stamp.settled = true;
    if (this.file.write(stamp) < 0) stamp.settled = false;
    return this.legsFailed(rc);
  }

  private legsFailed(rc: number): number {
    this.reason = this.legs.reason;
    this.refused = false;
    this.againMs = this.legs.againMs;
    return rc;
  }
}
