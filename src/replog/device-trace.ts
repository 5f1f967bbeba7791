/**
 * Which devices a log tells of, for a group whose group.json was lost. Reads only, and all that is still there: from
 * the oldest segment that was not written over, which may lie long before the head (everybody has what is between
 * them, and after a clean end that is everything), to the tail.
 *
 * Before the head nothing is promised. Where it cannot be read, reading goes on with the next segment: what was used
 * before stays used, but what became of it in between is unknown, so nothing is said of it any more.
 */
import { getU64 } from '../base/codec.js';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { MIB, type LogPos, type Seq } from '../base/units.js';
import { decodeDeviceAdd, decodeDeviceResize } from './device-records.js';
import { REC, RECORD_HEADER, R_BYTES, R_DEVICE, R_LENGTH, R_OFFSET, R_TYPE, payloadSpace } from './format.js';
import { LogFile } from './logfile.js';
import { LogReader, READ, type Batch } from './reader.js';

/** What the records say last of one device. */
export interface TracedDevice {
  /** The record that says so: the last DEVICE_ADD, _RESIZE or _REMOVE, otherwise the first write. */
  seq: Seq;
  removed: boolean;
  /** Undefined where no record says it: the device was there when the log began, or that record was written over. */
  name: string | undefined;
  /** Bytes; undefined likewise. */
  size: number | undefined;
  /** No write reaches beyond this byte. */
  reach: number;
}

export interface DeviceTrace {
  devices: Map<number, TracedDevice>;
  /** Larger than every device number in any record. */
  next: number;
}

export interface TraceOptions {
  /** Bytes read of bytes in all. */
  progress?: (done: number, total: number) => void;
  /** Ends the reading early: its reason is thrown. */
  signal?: AbortSignal;
}

/** Read between two looks at the signal. */
const PIECE = 64 * MIB;

/** Throws RepError where `path` is no log that this program knows, or is damaged before its durable point. */
export async function traceDevices(path: string, options: TraceOptions = {}): Promise<DeviceTrace> {
  const log = LogFile.open(realIo, path, { readOnly: true });
  const reader = new LogReader(log);
  try {
    return await new Tracer(log, reader, options).run();
  } finally {
    reader.close();
    log.close();
  }
}

class Tracer {
  private readonly log: LogFile;
  private readonly reader: LogReader;
  private readonly options: TraceOptions;
  private readonly start: LogPos;
  private readonly trace: DeviceTrace = { devices: new Map(), next: 0 };
  private looked: LogPos;

  constructor(log: LogFile, reader: LogReader, options: TraceOptions) {
    const { durable, head } = log.super;
    this.log = log;
    this.reader = reader;
    this.options = options;
    const oldest = Math.ceil(log.oldest(durable.pos) / log.segment) * log.segment;
    this.start = this.looked = Math.min(oldest, head.pos);
  }

  async run(): Promise<DeviceTrace> {
    await this.readOld();
    await this.readRest();
    return this.trace;
  }

  /** Up to the head. */
  private async readOld(): Promise<void> {
    const { log, reader } = this;
    const { head } = log.super;
    for (let from = this.start; from < head.pos;) {
      reader.seekUnproven(from);
      while (reader.next(head) === READ.BATCH) await this.take();
      if (reader.broken === undefined) return;
      this.trace.devices.clear();
      from = (Math.floor(reader.broken.pos / log.segment) + 1) * log.segment;
    }
  }

  /** From the head on, where a break before the durable point is damage. */
  private async readRest(): Promise<void> {
    const { log, reader } = this;
    const { clean, durable, head } = log.super;
    reader.seekUnproven(head.pos);
    while ((clean ? reader.next(durable) : reader.next()) === READ.BATCH) await this.take();
    const { broken } = reader;
    if (broken === undefined || reader.place.pos >= durable.pos) return;
    throw new RepError(
      'EIO',
      `replog ${log.path}: record ${Math.max(head.seq, broken.seq)} at byte ${broken.byte} is damaged (${broken.reason}), before the durable ` +
        `point (seq ${durable.seq}); run \`reptool replog check ${log.path}\`, and restore the file or recover a site`,
    );
  }

  private async take(): Promise<void> {
    const { batch } = this.reader;
    follow(batch, this.trace);
    if (batch.end - this.looked < PIECE) return;
    this.looked = batch.end;
    this.options.progress?.(batch.end - this.start, Math.max(this.log.super.durable.pos, batch.end) - this.start);
    // A signal is heard between two turns of the event loop only.
    await new Promise((resolve) => setImmediate(resolve));
    this.options.signal?.throwIfAborted();
  }
}

function follow(batch: Batch, trace: DeviceTrace): void {
  const { dv, u8 } = batch.mem;
  let payload = batch.payloads;
  for (let i = 0; i < batch.count; i++) {
    const at = batch.headers + i * RECORD_HEADER;
    const nr = dv.getUint32(at + R_DEVICE, true);
    const bytes = dv.getUint32(at + R_BYTES, true);
    const data = u8.subarray(payload, payload + bytes);
    payload += payloadSpace(bytes);
    trace.next = Math.max(trace.next, nr + 1);
    const seq = batch.seq + i;
    switch (dv.getUint8(at + R_TYPE)) {
      case REC.WRITE:
      case REC.DISCARD:
      case REC.ZEROES: {
        const device = deviceOf(trace, nr, seq);
        device.reach = Math.max(device.reach, getU64(dv, at + R_OFFSET) + getU64(dv, at + R_LENGTH));
        break;
      }
      case REC.DEVICE_ADD: {
        const added = decodeDeviceAdd(data);
        if (added !== undefined) Object.assign(deviceOf(trace, nr, seq), { ...added, seq, removed: false });
        break;
      }
      case REC.DEVICE_RESIZE: {
        const size = decodeDeviceResize(data);
        if (size !== undefined) Object.assign(deviceOf(trace, nr, seq), { size, seq });
        break;
      }
      case REC.DEVICE_REMOVE:
        Object.assign(deviceOf(trace, nr, seq), { seq, removed: true });
    }
  }
}

function deviceOf({ devices }: DeviceTrace, nr: number, seq: Seq): TracedDevice {
  let device = devices.get(nr);
  if (device === undefined)
    devices.set(nr, (device = { seq, removed: false, name: undefined, size: undefined, reach: 0 }));
  return device;
}
