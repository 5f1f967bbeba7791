/**
 * The stage of a folder site on disk (`reptool.stage`), version 3. Little-endian; see reptool-site(5).
 *
 *   byte 0       stamp A     written in turn; the valid one with the larger serial counts
 *   byte 1 MiB   stamp B     of each only the bytes in use are written, a multiple of 4096
 *   byte 2 MiB   area        batches one behind the other, from its start again after each stamp
 *
 * A stamp says: the images are the group's history up to the *base* cursor, exactly. The batches in the area
 * that carry its serial and continue the base by seq and chain are the history from there on; they may or may
 * not be in the images already. Images plus stage are so a prefix of history whatever is interrupted:
 *
 *   a batch:      batch written to the area → area synced (the batch is confirmed) → images written, unsynced
 *   a base move:  images marked and synced → other stamp written → synced → the area starts again at 0
 *
 * stamp (header 256 bytes)                          device entry (224 bytes, then the name)
 *    0 16  magic "reptool stage"                       0  4  device number
 *   16  4  crc of all its bytes, field zero            4  2  bytes of the name
 *   20  4  version (see below)                         6  1  samples (0…8)
 *   24  8  serial                                      7  1  flags: 1 being made, 2 marked, 4 coming, 8 growing
 *   32 16  identity of the log                         8  8  bytes of the device
 *   48  4  slink number of the site                   16  8  largest serial its xattr may hold
 *   52  4  devices                                    24  8  smallest serial its xattr may hold
 *   56  4  bytes of this stamp, multiple of 4096      32 192 samples, 8 × { block number u64, digest 16 }
 *   60  4  reign of the last record before base      224  …  name, zeroes to a multiple of 32
 *   64  8  base: position in the log
 *   72  8  base: next seq                           digest: the first 16 bytes of the SHA-256 of the 4 KiB
 *   80  8  base: chain                              block (the last one of a device may be shorter)
 *   88  8  base: time of the last record before it
 *   96  8  bytes of the area
 *  104  8  written at, microseconds since 1970
 *  112 64  group name
 *  176  4  flags: 1 inconsistent, 2 being fitted
 *  180  4  devices with a smaller number that are not listed have left
 *  184 72  zero
 *
 * version: 3 where the stamp is inconsistent, else 2 where a device is coming or growing, else 1; so an older reptool
 * refuses what it would misread, and reads everything else.
 *
 * batch: as in the log (replog/format), record headers and sums unchanged; its header differs:
 *    0  4  crc of bytes 4 … header bytes              24  4  batch bytes, multiple of 4096
 *    4  4  magic "RPSB"                               28  4  zero
 *    8  2  version                                    32  8  log position *behind* it: where a cursor stands
 *   10  2  zero                                       40  8  seq of the first record
 *   12  4  records                                    48  8  chain before the first record
 *   16  4  header bytes, multiple of 4096             56  8  serial of the stamp it follows
 *   20  4  payload bytes, multiple of 512
 *
 * Devices come, grow and go by records, at their place in the order, so that the set of devices is part of the
 * prefix. What needs space on the disk is made before the record is staged (a site that is full confirms nothing),
 * and announced in a durable stamp before that: *coming* is a device whose DEVICE_ADD is not in the base, which
 * has no image but `<name>.img.new-<nr>` until that record is applied; *growing* is one whose file may be larger
 * than the device is at the base. An image whose device was removed is kept as `<name>.img.removed-<nr>`.
 *
 * An *inconsistent* stamp says something else of the base: what is before it is in the images, or is going to be copied
 * into them, and they may hold newer data in parts. It is durable before the first image is changed for that
 * (folder-resync.ts), and the next one without the flag is durable behind the last sync of what was copied. Staged
 * batches continue its base as ever. *Being fitted*: the devices are not yet those that the resync began with.
 *
 * Zero is never valid. What is assumed of the disk is what the log assumes (replog/format).
 */
import { crc32, getU64, setU64 } from '../base/codec.js';
import { MIB, roundUp } from '../base/units.js';
import { ALIGN, BATCH_HEADER, RECORD_HEADER, batchHeaderBytes } from '../replog/format.js';
import type { SiteCursor } from './cursor.js';
import {
  STAMP_DEVICE,
  STAMP_HEADER,
  TEXT_UNIT,
  getSamples,
  openStamp,
  putSamples,
  putStampHead,
  sealStamp,
  type Sample,
  type StampHead,
} from './stamp-format.js';

export const STAGE_VERSION = 3;
/** Of stamps that announce a device or its growth. */
const ANNOUNCING_VERSION = 2;
/** Of batches, and of all other stamps: what the first version wrote, and still reads. */
const PLAIN_VERSION = 1;
export const STAGE_FILE = 'reptool.stage';
export const STAMP_MAGIC = 'reptool stage';
/** Room of each stamp: some 3600 devices. */
export const STAMP_ROOM = MIB;
export const AREA_START = 2 * STAMP_ROOM;

const F_INCONSISTENT = 1;
const F_FITTING = 2;
const D_MAKING = 1;
const D_XATTR = 2;
const D_COMING = 4;
const D_GROWING = 8;

export interface StampDevice {
  nr: number;
  name: string;
  size: number;
  /** The image is being made: it holds nothing yet and may be made again. */
  making: boolean;
  /** Announced: its DEVICE_ADD is not in the base yet. */
  coming: boolean;
  /** Its file may be larger than `size`: a DEVICE_RESIZE is announced that is not in the base yet. */
  growing: boolean;
  /** The image carries an extended attribute, whose serial lies in [xattrLow, xattrHigh]. */
  xattr: boolean;
  xattrLow: number;
  xattrHigh: number;
  samples: Sample[];
}

export interface Stamp extends StampHead {
  base: SiteCursor;
  area: number;
  /** The images are no prefix of history: they are being made equal by copying. */
  inconsistent: boolean;
  /** While inconsistent: the devices are not yet those that the resync began with. */
  fitting: boolean;
  /** Records of devices with a smaller number that are not listed are passed over: those have left the group. */
  usedBelow: number;
  devices: StampDevice[];
}

function entryBytes(name: string): number {
  return STAMP_DEVICE + roundUp(Buffer.byteLength(name), TEXT_UNIT);
}

/** Bytes that a stamp takes on disk. */
export function stampBytes(stamp: Stamp): number {
  return roundUp(
    stamp.devices.reduce((sum, device) => sum + entryBytes(device.name), STAMP_HEADER),
    ALIGN,
  );
}

/** Writes the stamp to the start of `u8`; returns its bytes, which must not be more than STAMP_ROOM. */
export function encodeStamp(u8: Buffer, stamp: Stamp): number {
  const bytes = stampBytes(stamp);
  if (bytes > STAMP_ROOM) throw new RangeError(`a stamp of ${stamp.devices.length} devices is too large`);
  const announces = stamp.devices.some((device) => device.coming || device.growing);
  const plain = announces ? ANNOUNCING_VERSION : PLAIN_VERSION;
  const dv = putStampHead(u8, bytes, STAMP_MAGIC, stamp.inconsistent ? STAGE_VERSION : plain, stamp, stamp.base);
  setU64(dv, 96, stamp.area);
  dv.setUint32(176, (stamp.inconsistent ? F_INCONSISTENT : 0) | (stamp.fitting ? F_FITTING : 0), true);
  dv.setUint32(180, stamp.usedBelow, true);
  let at = STAMP_HEADER;
  for (const device of stamp.devices) {
    encodeDevice(u8, dv, at, device);
    at += entryBytes(device.name);
  }
  sealStamp(u8, dv, bytes);
  return bytes;
}

function encodeDevice(u8: Buffer, dv: DataView, at: number, device: StampDevice): void {
  const name = Buffer.from(device.name, 'utf8');
  dv.setUint32(at, device.nr, true);
  dv.setUint16(at + 4, name.length, true);
  dv.setUint8(at + 6, device.samples.length);
  dv.setUint8(at + 7, flagsOf(device));
  setU64(dv, at + 8, device.size);
  setU64(dv, at + 16, device.xattrHigh);
  setU64(dv, at + 24, device.xattrLow);
  putSamples(u8, dv, at, device.samples);
  name.copy(u8, at + STAMP_DEVICE);
}

function flagsOf({ making, xattr, coming, growing }: StampDevice): number {
  return (making ? D_MAKING : 0) | (xattr ? D_XATTR : 0) | (coming ? D_COMING : 0) | (growing ? D_GROWING : 0);
}

export type StampRead = { ok: true; value: Stamp } | { ok: false; reason: 'foreign' | 'damaged' | 'version' };

export function decodeStamp(raw: Buffer): StampRead {
  const opened = openStamp(raw, STAMP_MAGIC, STAMP_ROOM);
  if (typeof opened === 'string') return { ok: false, reason: opened };
  const { u8, dv, version, head, cursor: base } = opened;
  if (version < PLAIN_VERSION || version > STAGE_VERSION) return { ok: false, reason: 'version' };
  const devices: StampDevice[] = [];
  let at = STAMP_HEADER;
  for (let n = opened.devices; n > 0; n--) {
    const device = decodeDevice(u8, dv, at);
    devices.push(device);
    at += entryBytes(device.name);
  }
  const flags = dv.getUint32(176, true);
  return {
    ok: true,
    value: {
      ...{ ...head, base, area: getU64(dv, 96), devices },
      inconsistent: (flags & F_INCONSISTENT) !== 0,
      fitting: (flags & F_FITTING) !== 0,
      usedBelow: dv.getUint32(180, true),
    },
  };
}

function decodeDevice(u8: Buffer, dv: DataView, at: number): StampDevice {
  const flags = dv.getUint8(at + 7);
  return {
    nr: dv.getUint32(at, true),
    name: u8.toString('utf8', at + STAMP_DEVICE, at + STAMP_DEVICE + dv.getUint16(at + 4, true)),
    size: getU64(dv, at + 8),
    making: (flags & D_MAKING) !== 0,
    coming: (flags & D_COMING) !== 0,
    growing: (flags & D_GROWING) !== 0,
    xattr: (flags & D_XATTR) !== 0,
    xattrHigh: getU64(dv, at + 16),
    xattrLow: getU64(dv, at + 24),
    samples: getSamples(u8, dv, at, dv.getUint8(at + 6)),
  };
}

// --- batch header ----------------------------------------------------------------------------------------

export const SB_CRC = 0;
export const SB_MAGIC = 4;
export const SB_VERSION = 8;
export const SB_COUNT = 12;
export const SB_HEADER = 16;
export const SB_PAYLOAD = 20;
export const SB_TOTAL = 24;
export const SB_END = 32;
export const SB_SEQ = 40;
export const SB_CHAIN = 48;
export const SB_SERIAL = 56;

export const STAGE_BATCH_MAGIC = 0x42535052;

/**
 * Writes the header of a batch whose `count` record headers stand behind it already, and zeroes what is left
 * of the header part; returns the bytes of the header part.
 */
export function encodeStageBatch(
  u8: Buffer,
  dv: DataView,
  count: number,
  payload: number,
  endPos: number,
  before: SiteCursor,
  serial: number,
): number {
  const header = batchHeaderBytes(count);
  u8.fill(0, 0, BATCH_HEADER);
  u8.fill(0, BATCH_HEADER + count * RECORD_HEADER, header);
  dv.setUint32(SB_MAGIC, STAGE_BATCH_MAGIC, true);
  dv.setUint16(SB_VERSION, PLAIN_VERSION, true);
  dv.setUint32(SB_COUNT, count, true);
  dv.setUint32(SB_HEADER, header, true);
  dv.setUint32(SB_PAYLOAD, payload, true);
  dv.setUint32(SB_TOTAL, header + roundUp(payload, ALIGN), true);
  setU64(dv, SB_END, endPos);
  setU64(dv, SB_SEQ, before.seq);
  dv.setUint32(SB_CHAIN, before.chainLo, true);
  dv.setUint32(SB_CHAIN + 4, before.chainHi, true);
  setU64(dv, SB_SERIAL, serial);
  dv.setUint32(SB_CRC, crc32(u8.subarray(SB_MAGIC, header)), true);
  return header;
}

/** True where the sizes at the start of a batch agree with each other and fit into `room` bytes. */
export function stageBatchShape(dv: DataView, room: number): boolean {
  if (dv.getUint32(SB_MAGIC, true) !== STAGE_BATCH_MAGIC || dv.getUint16(SB_VERSION, true) !== PLAIN_VERSION)
    return false;
  const count = dv.getUint32(SB_COUNT, true);
  const header = dv.getUint32(SB_HEADER, true);
  const total = dv.getUint32(SB_TOTAL, true);
  if (count === 0 || count > room / RECORD_HEADER) return false;
  return (
    total <= room &&
    header === batchHeaderBytes(count) &&
    total === header + roundUp(dv.getUint32(SB_PAYLOAD, true), ALIGN)
  );
}
