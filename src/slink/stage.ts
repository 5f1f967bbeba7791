/**
 * The stage file of a folder site: stamps, the append area, and reading back what a crash left there. Format
 * and order of writes: stage-format.ts. Calls return a negative errno; what to do about it is the site's.
 */
import { crc32, getU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import type { Io } from '../base/io.js';
import { IoVec, Mem } from '../base/mem.js';
import { O_CREAT, O_DIRECT, O_RDONLY, O_RDWR } from '../base/sys.js';
import { MIB, SECTOR, roundUp } from '../base/units.js';
import {
  ALIGN,
  BATCH_HEADER,
  Chain,
  RECORD_HEADER,
  RECORD_MAGIC,
  R_BYTES,
  R_CHAIN,
  R_MAGIC,
  R_REIGN,
  R_SEQ,
  R_SUM,
  R_TIME,
  advanceChain,
  batchHeaderBytes,
  payloadSpace,
  recordSum,
} from '../replog/format.js';
import { SHIP_BYTES, SHIP_RECORDS, type ShipBatch } from './batch.js';
import type { SiteCursor } from './contract.js';
import {
  AREA_START,
  SB_CHAIN,
  SB_COUNT,
  SB_CRC,
  SB_END,
  SB_HEADER,
  SB_MAGIC,
  SB_PAYLOAD,
  SB_SEQ,
  SB_SERIAL,
  SB_TOTAL,
  STAGE_BATCH_MAGIC,
  STAMP_ROOM,
  decodeStamp,
  encodeStageBatch,
  encodeStamp,
  stageBatchShape,
  type Stamp,
} from './stage-format.js';

const SETTLE_BYTES = 4 * MIB;

/** Most bytes of a batch's header part, and of a whole batch. */
const HEADER_REACH = batchHeaderBytes(SHIP_RECORDS);
const BATCH_REACH = HEADER_REACH + SHIP_BYTES;

export type StampsRead =
  | { kind: 'stamp'; value: Stamp; slot: 0 | 1 }
  /** No valid stamp: never finished, foreign or destroyed. */
  | { kind: 'none' }
  | { kind: 'version' };

/** A staged batch in memory, valid during the visit. */
export interface StagedBatch {
  mem: Mem;
  headers: number;
  count: number;
  payloads: number;
  payloadBytes: number;
  total: number;
}

export class Stage {
  /** `dev:inode` at open. */
  readonly id: string;
  /** Newest stamp that is known durable. */
  stamp: Stamp | undefined;
  /** Bytes of the area in use. */
  used = 0;

  private readonly io: Io;
  readonly path: string;
  private readonly fd: number;
  private readonly direct: boolean;
  private slot: 0 | 1 = 1;
  private readonly stampMem = Mem.lazy(STAMP_ROOM);
  private readonly vec = new IoVec(4);
  private readMem: Mem | undefined;

  private constructor(io: Io, path: string, fd: number, direct: boolean, id: string) {
    this.io = io;
    this.path = path;
    this.fd = fd;
    this.direct = direct;
    this.id = id;
  }

  /** Opens the file, past the page cache where that works; the negative errno where not at all. */
  static open(io: Io, path: string, how: { create?: boolean; readOnly?: boolean } = {}): Stage | number {
    const flags = how.readOnly === true ? O_RDONLY : O_RDWR | (how.create === true ? O_CREAT : 0);
    let direct = true;
    let fd = io.open('SITE:STAGE-OPEN', path, flags | O_DIRECT);
    if (fd === -ERRNO.EINVAL) {
      direct = false;
      fd = io.open('SITE:STAGE-OPEN', path, flags);
    }
    if (fd < 0) return fd;
    const info = io.info('SITE:STAGE-OPEN', fd);
    if (typeof info === 'number') {
      io.close('SITE:STAGE-CLOSE', fd);
      return info;
    }
    return new Stage(io, path, fd, direct, info.id);
  }

  close(): void {
    this.io.close('SITE:STAGE-CLOSE', this.fd);
    this.stampMem.unmap();
    this.vec.table.unmap();
    this.readMem?.unmap();
  }

  /** True where the path leads to another file than the one that is open. */
  strayed(): boolean {
    const info = this.io.stat('SITE:ADDRESS', this.path);
    return typeof info === 'number' || info.id !== this.id;
  }

  /** Gives the file its size, allocated where the file system can. Holes are no harm: only ENOSPC comes later. */
  reserve(area: number): number {
    const size = AREA_START + area;
    const before = this.io.info('SITE:STAGE-OPEN', this.fd);
    const rc = this.io.fallocate('SITE:STAGE-RESERVE', this.fd, 0, 0, size);
    if (rc >= 0) return rc;
    // A full disk: what was allocated so far must not keep it full. Then the file is made of holes.
    if (typeof before !== 'number') {
      const cut = this.io.ftruncate('SITE:STAGE-RESERVE', this.fd, before.size);
      if (cut < 0) return cut;
    }
    return this.io.ftruncate('SITE:STAGE-RESERVE', this.fd, size);
  }

  /** Reads both stamps; the negative errno where the disk does not give them. */
  readStamps(): StampsRead | number {
    const reads = [];
    for (const slot of [0, 1] as const) {
      const raw = this.read(slot * STAMP_ROOM, ALIGN);
      if (typeof raw === 'number') return raw;
      let read = decodeStamp(raw.u8.subarray(0, ALIGN));
      // A long stamp is damaged when it is cut off after 4096 bytes: only then read all of it.
      if (!read.ok && read.reason === 'damaged') {
        const whole = this.read(slot * STAMP_ROOM, STAMP_ROOM);
        if (typeof whole === 'number') return whole;
        read = decodeStamp(whole.u8.subarray(0, STAMP_ROOM));
      }
      reads.push(read);
    }
    const [a, b] = [reads[0]!, reads[1]!];
    if ((!a.ok && a.reason === 'version') || (!b.ok && b.reason === 'version')) return { kind: 'version' };
    if (!a.ok && !b.ok) return { kind: 'none' };
    const slot = !b.ok || (a.ok && a.value.serial > b.value.serial) ? 0 : 1;
    const read = slot === 0 ? a : b;
    return read.ok ? { kind: 'stamp', value: read.value, slot } : { kind: 'none' };
  }

  /** Goes on from a stamp that was read. */
  adopt(stamp: Stamp, slot: 0 | 1): void {
    this.stamp = stamp;
    this.slot = slot;
    this.used = 0;
  }

  /**
   * Writes the adopted stamp and the batches that `scan` accepted once more over themselves, and syncs. Where a
   * sync had failed, or the process died before it, they may stand in the page cache or the disk's cache only:
   * read, but not there after a power cut. Until they are, the older stamp must not be given up, and no image
   * may get a byte of them. Nothing but what stands there is written, so a crash in between changes nothing.
   */
  settle(): number {
    let rc = this.stamp === undefined ? 0 : this.putStamp(this.stamp, this.slot);
    for (let at = 0; rc >= 0 && at < this.used; at += SETTLE_BYTES) {
      const len = Math.min(SETTLE_BYTES, this.used - at);
      const mem = this.read(AREA_START + at, len);
      if (typeof mem === 'number') return mem;
      this.vec.clear();
      this.vec.add(mem, 0, len);
      rc = this.put('SITE:STAGE', AREA_START + at);
    }
    return rc < 0 || this.used === 0 ? rc : this.io.fdatasync('SITE:STAGE-SYNC', this.fd);
  }

  /** Writes a stamp over the older one and syncs it; then it counts and the area starts again. */
  writeStamp(stamp: Stamp): number {
    const slot = this.slot === 0 ? 1 : 0;
    const rc = this.putStamp(stamp, slot);
    if (rc >= 0) this.adopt(stamp, slot);
    return rc;
  }

  private putStamp(stamp: Stamp, slot: number): number {
    const bytes = encodeStamp(this.stampMem.u8, stamp);
    this.vec.clear();
    this.vec.add(this.stampMem, 0, bytes);
    const rc = this.put('SITE:STAMP', slot * STAMP_ROOM);
    return rc < 0 ? rc : this.io.fdatasync('SITE:STAMP-SYNC', this.fd);
  }

  /** Bytes that a batch takes in the area. */
  static bytesOf(batch: ShipBatch): number {
    return roundUp(BATCH_HEADER + batch.records * RECORD_HEADER, ALIGN) + roundUp(batch.bytes, ALIGN);
  }

  /** Writes a batch behind the others and syncs it: then it is confirmed. */
  append(batch: ShipBatch): number {
    const { mem, payloadAt, bytes, records } = batch;
    const padded = roundUp(bytes, ALIGN);
    mem.u8.fill(0, payloadAt + bytes, payloadAt + padded);
    const header = encodeStageBatch(mem.u8, mem.dv, records, bytes, batch.endPos, batch.before, this.stamp!.serial);
    this.vec.clear();
    this.vec.add(mem, 0, header);
    if (padded > 0) this.vec.add(mem, payloadAt, padded);
    let rc = this.put('SITE:STAGE', AREA_START + this.used);
    if (rc >= 0) rc = this.io.fdatasync('SITE:STAGE-SYNC', this.fd);
    if (rc >= 0) this.used += header + padded;
    return rc;
  }

  /**
   * Visits the batches in the area that continue the stamp's base, in order, each checked to the last byte;
   * `visit` may stop with a negative errno. Moves `end` along. The first batch that does not continue ends it:
   * it was torn, or belongs to the time before the stamp. EUCLEAN: it is neither, something was damaged (`cutOff`).
   */
  scan(end: SiteCursor, visit: (batch: StagedBatch) => number): number {
    const rc = this.walk(end, visit);
    return rc < 0 ? rc : this.cutOff(end.seq);
  }

  private walk(end: SiteCursor, visit: (batch: StagedBatch) => number): number {
    const info = this.io.info('SITE:STAGE-READ', this.fd);
    if (typeof info === 'number') return info;
    Object.assign(end, this.stamp!.base);
    this.used = 0;
    const chain = new Chain().set(end.chainLo, end.chainHi);
    for (;;) {
      const room = info.size - AREA_START - this.used;
      if (room < ALIGN) return 0;
      const head = this.read(AREA_START + this.used, ALIGN);
      if (typeof head === 'number') return head;
      if (!stageBatchShape(head.dv, room)) return 0;
      const whole = this.read(AREA_START + this.used, head.dv.getUint32(SB_TOTAL, true));
      if (typeof whole === 'number') return whole;
      if (!this.continues(whole, end) || !soundRecords(whole, end.seq, chain)) return 0;
      const { dv } = whole;
      const batch: StagedBatch = {
        mem: whole,
        headers: BATCH_HEADER,
        count: dv.getUint32(SB_COUNT, true),
        payloads: dv.getUint32(SB_HEADER, true),
        payloadBytes: dv.getUint32(SB_PAYLOAD, true),
        total: dv.getUint32(SB_TOTAL, true),
      };
      const rc = visit(batch);
      if (rc < 0) return rc;
      this.used += batch.total;
      const last = BATCH_HEADER + (batch.count - 1) * RECORD_HEADER;
      end.pos = getU64(dv, SB_END);
      end.seq += batch.count;
      end.chainLo = chain.lo;
      end.chainHi = chain.hi;
      end.time = getU64(dv, last + R_TIME);
      end.reign = dv.getUint32(last + R_REIGN, true);
    }
  }

  /**
   * EUCLEAN where behind what was accepted a batch stands that no crash can have cut off: one farther on of the same
   * stamp, or one of a later stamp than any that can be read. Each batch was synced before the next was written, and a
   * stamp before the first one that follows it. The images may hold all of them: they are no prefix at the place where
   * the stage seems to end.
   */
  private cutOff(seq: number): number {
    const info = this.io.info('SITE:STAGE-READ', this.fd);
    if (typeof info === 'number') return info;
    if (this.endsPlainly(info.size)) return 0;
    const stop = Math.min(info.size, AREA_START + this.used + BATCH_REACH + HEADER_REACH);
    for (let pos = AREA_START + this.used; pos + ALIGN <= stop; pos += SETTLE_BYTES) {
      // A header part across the end of a piece is whole in this read, which goes a little beyond it.
      const len = Math.min(SETTLE_BYTES + HEADER_REACH, stop - pos);
      const mem = this.read(pos, len);
      if (typeof mem === 'number') return mem;
      for (let at = 0; at + ALIGN <= Math.min(len, SETTLE_BYTES); at += ALIGN)
        if (this.isLater(mem, at, len, seq)) return -ERRNO.EUCLEAN;
    }
    return 0;
  }

  /** What was accepted ends at zeroes, or at a whole batch of the time before the stamp: nothing was staged there since. */
  private endsPlainly(size: number): boolean {
    const at = AREA_START + this.used;
    if (size - at < ALIGN) return true;
    const head = this.read(at, ALIGN);
    if (typeof head === 'number') return false;
    if (isZero(head.u8, ALIGN)) return true;
    if (!stageBatchShape(head.dv, size - at)) return false;
    const mem = this.read(at, head.dv.getUint32(SB_HEADER, true));
    return typeof mem !== 'number' && this.isWhole(mem, 0) && getU64(mem.dv, SB_SERIAL) < this.stamp!.serial;
  }

  private isWhole({ dv, u8 }: Mem, at: number): boolean {
    const header = dv.getUint32(at + SB_HEADER, true);
    return crc32(u8.subarray(at + SB_MAGIC, at + header)) === dv.getUint32(at + SB_CRC, true);
  }

  private isLater(mem: Mem, at: number, len: number, seq: number): boolean {
    const { dv } = mem;
    if (dv.getUint32(at + SB_MAGIC, true) !== STAGE_BATCH_MAGIC) return false;
    const header = dv.getUint32(at + SB_HEADER, true);
    if (header < ALIGN || header > HEADER_REACH || at + header > len) return false;
    const serial = getU64(dv, at + SB_SERIAL);
    const { serial: ours } = this.stamp!;
    if (serial < ours || (serial === ours && getU64(dv, at + SB_SEQ) <= seq)) return false;
    return this.isWhole(mem, at);
  }

  private continues(mem: Mem, end: SiteCursor): boolean {
    const { dv, u8 } = mem;
    return (
      crc32(u8.subarray(SB_MAGIC, dv.getUint32(SB_HEADER, true))) === dv.getUint32(SB_CRC, true) &&
      getU64(dv, SB_SERIAL) === this.stamp!.serial &&
      getU64(dv, SB_SEQ) === end.seq &&
      dv.getUint32(SB_CHAIN, true) === end.chainLo &&
      dv.getUint32(SB_CHAIN + 4, true) === end.chainHi
    );
  }

  /** Nothing more is to be read: what reads were made into is given back. */
  readEnough(): void {
    this.readMem?.unmap();
    this.readMem = undefined;
  }

  /** Reads into memory that the next read uses again; a file that ends early reads as zeroes. */
  private read(pos: number, len: number): Mem | number {
    if (this.readMem === undefined || this.readMem.size < len) {
      this.readMem?.unmap();
      this.readMem = Mem.lazy(Math.max(roundUp(len, MIB), STAMP_ROOM));
    }
    const mem = this.readMem;
    let done = 0;
    for (let stuck = 0; done < len && stuck < 8; stuck++) {
      const r = this.io.pread('SITE:STAGE-READ', this.fd, mem, done, len - done, pos + done);
      if (r < 0) return r;
      if (r === 0) break;
      // Past the page cache only whole sectors can be asked for; what does not fill one is asked for again.
      const got = this.direct ? r - (r % SECTOR) : r;
      done += got;
      if (got > 0) stuck = 0;
    }
    mem.u8.fill(0, done, len);
    return mem;
  }

  private put(call: 'SITE:STAGE' | 'SITE:STAMP', pos: number): number {
    const { vec, io, fd } = this;
    let done = io.pwritev(call, fd, vec, pos);
    if (done < 0 || done === vec.total) return done;
    // Cut short (a full disk): what is left, range by range, brings out the reason. 512 keeps O_DIRECT aligned.
    done -= done % (this.direct ? ALIGN : 1);
    for (let i = 0, at = 0; i < vec.count; at += vec.lens[i++]!) {
      let skip = Math.max(0, done - at);
      while (skip < vec.lens[i]!) {
        const r = io.pwrite(call, fd, vec.mems[i]!, vec.offs[i]! + skip, vec.lens[i]! - skip, pos + at + skip);
        if (r <= 0) return r === 0 ? -ERRNO.ENOSPC : r;
        skip += r;
      }
    }
    return vec.total;
  }
}

function isZero(u8: Uint8Array, len: number): boolean {
  for (let i = 0; i < len; i++) if (u8[i] !== 0) return false;
  return true;
}

/** Checks every record of a batch (magic, seq, sum over header and payload, chain) and moves the chain along. */
function soundRecords(mem: Mem, seq: number, chain: Chain): boolean {
  const { dv, u8 } = mem;
  const count = dv.getUint32(SB_COUNT, true);
  let payload = dv.getUint32(SB_HEADER, true);
  const end = payload + dv.getUint32(SB_PAYLOAD, true);
  for (let i = 0; i < count; i++) {
    const at = BATCH_HEADER + i * RECORD_HEADER;
    const bytes = dv.getUint32(at + R_BYTES, true);
    if (dv.getUint16(at + R_MAGIC, true) !== RECORD_MAGIC || getU64(dv, at + R_SEQ) !== seq + i) return false;
    if (payload + payloadSpace(bytes) > end) return false;
    const data = bytes === 0 ? undefined : u8.subarray(payload, payload + bytes);
    if (recordSum(u8, at, data) !== dv.getUint32(at + R_SUM, true)) return false;
    advanceChain(chain, dv, at, payload);
    if (!chain.equals(dv, at + R_CHAIN)) return false;
    payload += payloadSpace(bytes);
  }
  return true;
}
