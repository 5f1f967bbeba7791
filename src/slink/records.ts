/**
 * Applies records to images, in order, wherever they stand: in window slots, in a batch of the log or of a
 * stage. Records are pushed oldest first as places in one memory; stretches of writes go through the write
 * plan, discards and zeroes are applied on their own between them. Devices come, grow and go at their place.
 */
import { getU64 } from '../base/codec.js';
import { releaseTable, type IoVec, type Mem } from '../base/mem.js';
import {
  R_BYTES,
  R_DEVICE,
  R_LENGTH,
  R_OFFSET,
  R_TYPE,
  RECORD_HEADER,
  REC,
  payloadSpace,
  type RecordType,
} from '../replog/format.js';
import { PLAN_RECORDS, WritePlan } from './plan.js';

/**
 * Told of a DEVICE_ADD, _RESIZE or _REMOVE when everything before it has been handed to the images; its payload
 * is valid during the call. 0 or a negative errno.
 */
export type DeviceHook = (type: RecordType, nr: number, payload: Uint8Array) => number;

/** What records are applied to, by device number: 0 or the negative errno of each call. */
export interface RecordTarget {
  write(nr: number, offset: number, vec: IoVec): number;
  discard(nr: number, offset: number, length: number): number;
  zeroes(nr: number, offset: number, length: number): number;
  /**
   * The writes since the last call, no two of which overlap, come to their end before anything that follows
   * begins. Left out by targets whose calls are done when they return.
   */
  settle?(): number;
  /** Like `write`, but it may be only begun until `settle`; `write` is used where there is none. */
  queue?(nr: number, offset: number, vec: IoVec): number;
  /** One of them has failed: those not begun are forgotten, all of the batch is applied again. */
  abandon?(): void;
  /** Slink 0: no record of the device follows. */
  retire?(nr: number): void;
}

export class RecordSink {
  readonly images: RecordTarget;
  private readonly onDevice: DeviceHook;
  private readonly plan = new WritePlan();
  private readonly headerAt = new Float64Array(PLAN_RECORDS);
  private readonly payloadAt = new Float64Array(PLAN_RECORDS);
  private mem: Mem | undefined;
  private n = 0;
  private bytes = 0;

  /**
   * Without a hook the images are slink 0's: whoever appends the record has made or grown the image before, so
   * that only the end of a device is news.
   */
  constructor(images: RecordTarget, onDevice?: DeviceHook) {
    this.images = images;
    this.onDevice =
      onDevice ??
      ((type, nr) => {
        if (type === REC.DEVICE_REMOVE) images.retire?.(nr);
        return 0;
      });
  }

  /** Between batches: gives back what only bringing records in order takes. */
  release(): void {
    this.plan.release();
    releaseTable(this.headerAt);
    releaseTable(this.payloadAt);
  }

  /** The records that follow stand in `mem`, which stays as it is until `finish`. */
  begin(mem: Mem): void {
    this.mem = mem;
    this.n = 0;
    this.bytes = 0;
  }

  /** Takes the next record: header and payload at these offsets. 0, or the negative errno of an image. */
  push(header: number, payload: number): number {
    const { dv, u8 } = this.mem!;
    const type = dv.getUint8(header + R_TYPE) as RecordType;
    switch (type) {
      case REC.WRITE: {
        const bytes = dv.getUint32(header + R_BYTES, true);
        if (!WritePlan.fits(this.n, this.bytes, bytes)) {
          const rc = this.finish();
          if (rc < 0) return rc;
        }
        this.headerAt[this.n] = header;
        this.payloadAt[this.n] = payload;
        this.n++;
        this.bytes += bytes;
        return 0;
      }
      case REC.DISCARD:
      case REC.ZEROES: {
        const rc = this.finish();
        return rc < 0 ? rc : this.range(header);
      }
      case REC.DEVICE_ADD:
      case REC.DEVICE_RESIZE:
      case REC.DEVICE_REMOVE: {
        const rc = this.finish();
        if (rc < 0) return rc;
        const bytes = dv.getUint32(header + R_BYTES, true);
        return this.onDevice(type, dv.getUint32(header + R_DEVICE, true), u8.subarray(payload, payload + bytes));
      }
      default:
        return 0;
    }
  }

  /** Takes `count` records that stand one behind the other, their payloads dense from `payloads` on. */
  pushAll(headers: number, count: number, payloads: number): number {
    const { dv } = this.mem!;
    let payload = payloads;
    for (let i = 0; i < count; i++) {
      const header = headers + i * RECORD_HEADER;
      const rc = this.push(header, payload);
      if (rc < 0) return rc;
      payload += payloadSpace(dv.getUint32(header + R_BYTES, true));
    }
    return 0;
  }

  /** Hands everything pushed to the images: 0 or the negative errno. */
  finish(): number {
    const { plan, images, headerAt, payloadAt, n } = this;
    if (n === 0) return 0;
    const { dv } = this.mem!;
    plan.begin(this.mem!);
    for (let i = n - 1; i >= 0; i--) {
      const h = headerAt[i]!;
      const bytes = dv.getUint32(h + R_BYTES, true);
      plan.add(dv.getUint32(h + R_DEVICE, true), getU64(dv, h + R_OFFSET), bytes, payloadAt[i]!);
    }
    this.n = 0;
    this.bytes = 0;
    plan.seal();
    while (plan.nextRun()) {
      const rc = images.queue?.(plan.device, plan.offset, plan.vec) ?? images.write(plan.device, plan.offset, plan.vec);
      if (rc < 0) {
        images.abandon?.();
        return rc;
      }
    }
    return images.settle?.() ?? 0;
  }

  private range(header: number): number {
    const { dv } = this.mem!;
    const device = dv.getUint32(header + R_DEVICE, true);
    const offset = getU64(dv, header + R_OFFSET);
    const length = getU64(dv, header + R_LENGTH);
    if (length === 0) return 0;
    return dv.getUint8(header + R_TYPE) === REC.ZEROES
      ? this.images.zeroes(device, offset, length)
      : this.images.discard(device, offset, length);
  }
}
