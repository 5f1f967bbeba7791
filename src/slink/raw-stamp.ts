/**
 * The stamp of a site without a journal (raw devices, NBD): a small file beside the group's configuration,
 * `site<NR>.stamp`, version 2. Little-endian; see reptool-site(5).
 *
 *   byte 0       slot A     written in turn; the valid one with the larger serial counts
 *   byte 2 MiB   slot B     of each only the bytes in use are written, a multiple of 4096
 *
 * A stamp says: the site's devices hold the group's history up to the cursor, exactly, and these blocks of them
 * had these digests then. Where it is *open*, records behind the cursor may have been written as well, in part
 * and in any order; the log tells which. Order: site flushed → stamp durable → cursor reported. And before the
 * first write behind a stamp that is not open: an open one, durable.
 *
 * An *inconsistent* stamp, which is always open, says something else of the cursor: what is before it is on the devices,
 * or is going to be copied onto them, and they may hold newer data in parts. It is durable before the first byte is
 * copied, and the next one without the flag is durable behind the last flush of what was copied. Samples hold then, too:
 * one that a copy is going to overwrite is taken out of the stamp first. Where samples are *settled*, none was touched by
 * what may have been sent, though the stamp is open: so they can be judged also when the log has those records no more.
 *
 * version: 2 where the stamp is inconsistent, which an older reptool must not take for a site in order; else 1.
 *
 * header (256 bytes)                                device entry (224 bytes, then name and target)
 *    0 16  magic "reptool rawsite"                     0  4  device number
 *   16  4  crc of all its bytes, field zero            4  2  bytes of the name
 *   20  4  version                                     6  1  samples (0…8)
 *   24  8  serial                                      7  1  flags: 1 = being looked at, nothing sent to it yet
 *   32 16  identity of the log                         8  8  bytes of the device
 *   48  4  slink number of the site                   16  8  bytes from its start that were seen to be zero
 *   52  4  devices                                    24  2  bytes of the target
 *   56  4  bytes of this stamp, multiple of 4096      26  6  zero
 *   60  4  reign of the last record before cursor     32 192 samples, 8 × { block number u64, digest 16 }
 *   64  8  cursor: position in the log               224  …  name, target (a path, or HOST:PORT/EXPORT), zeroes to
 *   72  8  cursor: next seq                                  a multiple of 32
 *   80  8  cursor: chain
 *   88  8  cursor: time of the last record before it
 *   96  4  flags: 1 = open, 2 = inconsistent, 4 = samples settled
 *  100  4  devices with a smaller number that are not listed have left
 *  104  8  written at, microseconds since 1970      digest: the first 16 bytes of the SHA-256 of the 4 KiB
 *  112 64  group name                               block (the last one of a device may be shorter)
 *  176 80  zero
 */
import { getU64, setU64 } from '../base/codec.js';
import { ERRNO } from '../base/errors.js';
import { readFull, writeFull, type Io } from '../base/io.js';
import { Mem } from '../base/mem.js';
import * as sys from '../base/sys.js';
import { MIB, roundUp } from '../base/units.js';
import { ALIGN } from '../replog/format.js';
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

export const RAW_STAMP_VERSION = 2;
/** Of stamps that are in order. */
const PLAIN_VERSION = 1;
export const RAW_STAMP_MAGIC = 'reptool rawsite';
export const RAW_SLOT = 2 * MIB;
const F_OPEN = 1;
const F_INCONSISTENT = 2;
const F_SETTLED = 4;
const D_MAKING = 1;

export interface RawDevice {
  nr: number;
  name: string;
  size: number;
  /** Where it was last: a path, or HOST:PORT/EXPORT. */
  target: string;
  /** It is being looked at: nothing was ever sent to it. */
  making: boolean;
  /** Bytes from the start that were found to be zero, while `making`. */
  blank: number;
  samples: Sample[];
}

export interface RawStamp extends StampHead {
  cursor: SiteCursor;
  open: boolean;
  /** The devices are no prefix of history, not even after replay: they are being made equal by copying. */
  inconsistent: boolean;
  /** No sample was touched by what may have been sent, though the stamp is open. */
  settled: boolean;
  /** Records of devices with a smaller number that are not listed are passed over: those have left the group. */
  usedBelow: number;
  devices: RawDevice[];
}

function entryBytes(device: RawDevice): number {
  return STAMP_DEVICE + roundUp(Buffer.byteLength(device.name) + Buffer.byteLength(device.target), TEXT_UNIT);
}

export function rawStampBytes(stamp: RawStamp): number {
  return roundUp(
    stamp.devices.reduce((sum, device) => sum + entryBytes(device), STAMP_HEADER),
    ALIGN,
  );
}

/** Writes the stamp to the start of `u8`; returns its bytes, a RangeError where they are more than `RAW_SLOT`. */
export function encodeRawStamp(u8: Buffer, stamp: RawStamp): number {
  const bytes = rawStampBytes(stamp);
  if (bytes > RAW_SLOT) throw new RangeError(`a stamp of ${stamp.devices.length} devices is too large`);
  const version = stamp.inconsistent ? RAW_STAMP_VERSION : PLAIN_VERSION;
  const dv = putStampHead(u8, bytes, RAW_STAMP_MAGIC, version, stamp, stamp.cursor);
  const { open, inconsistent, settled } = stamp;
  dv.setUint32(96, (open ? F_OPEN : 0) | (inconsistent ? F_INCONSISTENT : 0) | (settled ? F_SETTLED : 0), true);
  dv.setUint32(100, stamp.usedBelow, true);
  let at = STAMP_HEADER;
  for (const device of stamp.devices) {
    encodeDevice(u8, dv, at, device);
    at += entryBytes(device);
  }
  sealStamp(u8, dv, bytes);
  return bytes;
}

function encodeDevice(u8: Buffer, dv: DataView, at: number, device: RawDevice): void {
  const name = Buffer.from(device.name, 'utf8');
  const target = Buffer.from(device.target, 'utf8');
  dv.setUint32(at, device.nr, true);
  dv.setUint16(at + 4, name.length, true);
  dv.setUint8(at + 6, device.samples.length);
  dv.setUint8(at + 7, device.making ? D_MAKING : 0);
  setU64(dv, at + 8, device.size);
  setU64(dv, at + 16, device.blank);
  dv.setUint16(at + 24, target.length, true);
  putSamples(u8, dv, at, device.samples);
  name.copy(u8, at + STAMP_DEVICE);
  target.copy(u8, at + STAMP_DEVICE + name.length);
}

export type RawStampRead = { ok: true; value: RawStamp } | { ok: false; reason: 'foreign' | 'damaged' | 'version' };

export function decodeRawStamp(raw: Buffer): RawStampRead {
  const opened = openStamp(raw, RAW_STAMP_MAGIC, RAW_SLOT);
  if (typeof opened === 'string') return { ok: false, reason: opened };
  const { u8, dv, head, cursor } = opened;
  if (opened.version < PLAIN_VERSION || opened.version > RAW_STAMP_VERSION) return { ok: false, reason: 'version' };
  const devices: RawDevice[] = [];
  let at = STAMP_HEADER;
  for (let n = opened.devices; n > 0; n--) {
    const device = decodeDevice(u8, dv, at);
    devices.push(device);
    at += entryBytes(device);
  }
  const flags = dv.getUint32(96, true);
  const inconsistent = (flags & F_INCONSISTENT) !== 0;
  const settled = (flags & F_SETTLED) !== 0;
  const usedBelow = dv.getUint32(100, true);
  return {
    ok: true,
    value: { ...head, cursor, open: (flags & F_OPEN) !== 0, inconsistent, settled, usedBelow, devices },
  };
}

function decodeDevice(u8: Buffer, dv: DataView, at: number): RawDevice {
  const text = at + STAMP_DEVICE;
  const target = text + dv.getUint16(at + 4, true);
  return {
    nr: dv.getUint32(at, true),
    name: u8.toString('utf8', text, target),
    size: getU64(dv, at + 8),
    target: u8.toString('utf8', target, target + dv.getUint16(at + 24, true)),
    making: (dv.getUint8(at + 7) & D_MAKING) !== 0,
    blank: getU64(dv, at + 16),
    samples: getSamples(u8, dv, at, dv.getUint8(at + 6)),
  };
}

/** The file: reads the newest stamp, writes the next one over the older. All calls return 0 or a negative errno. */
export class RawStampFile {
  readonly path: string;
  private readonly io: Io;
  private readonly mem: Mem;
  private fd = -1;
  /** Slot of the stamp that counts; the next one goes to the other. */
  private slot = 1;

  constructor(io: Io, path: string) {
    this.io = io;
    this.path = path;
    this.mem = Mem.lazy(RAW_SLOT);
  }

  /** The stamp that counts, or what is there instead; a negative errno where it cannot be read. */
  load(): RawStamp | 'none' | 'damaged' | 'version' | number {
    const { io, mem } = this;
    this.closeFd();
    this.fd = io.open('STAMP:OPEN', this.path, sys.O_RDWR);
    if (this.fd === -ERRNO.ENOENT) return 'none';
    if (this.fd < 0) return this.fd;
    const info = io.info('STAMP:OPEN', this.fd);
    if (typeof info === 'number') return info;
    let best: RawStamp | undefined;
    let bad: 'none' | 'damaged' | 'version' = 'none';
    for (const slot of [0, 1]) {
      const len = Math.min(RAW_SLOT, info.size - slot * RAW_SLOT);
      if (len < ALIGN) continue;
      // Mostly one page is in use; its header says how much more there is.
      const rc = readFull(io, 'STAMP:READ', this.fd, mem, 0, ALIGN, slot * RAW_SLOT);
      if (rc < 0) return rc;
      const used = Math.min(mem.dv.getUint32(56, true), len);
      if (used > ALIGN) {
        const more = readFull(io, 'STAMP:READ', this.fd, mem, ALIGN, used - ALIGN, slot * RAW_SLOT + ALIGN);
        if (more < 0) return more;
      }
      const read = decodeRawStamp(mem.u8.subarray(0, Math.max(used, ALIGN)));
      if (!read.ok) {
        // A newer version must not be taken for a torn slot beside an old stamp of ours.
        if (read.reason === 'version') return 'version';
        if (read.reason === 'damaged') bad = 'damaged';
      } else if (best === undefined || read.value.serial > best.serial) {
        best = read.value;
        this.slot = slot;
      }
    }
    return best ?? bad;
  }

  /** Makes the file, empty, with its entry in the folder durable. */
  create(): number {
    const { io } = this;
    this.closeFd();
    this.fd = io.open('STAMP:CREATE', this.path, sys.O_RDWR | sys.O_CREAT, 0o600);
    if (this.fd < 0) return this.fd;
    // Also over an old one, whose serial might be larger.
    let rc = io.ftruncate('STAMP:CREATE', this.fd, 0);
    if (rc >= 0) rc = io.ftruncate('STAMP:CREATE', this.fd, 2 * RAW_SLOT);
    if (rc >= 0) rc = io.fdatasync('STAMP:SYNC', this.fd);
    if (rc >= 0) rc = io.syncDir('STAMP:CREATE', this.path.slice(0, Math.max(this.path.lastIndexOf('/'), 1)));
    this.slot = 1;
    return rc;
  }

  /** Durable when it returns 0; the serial has grown by one then. */
  write(stamp: RawStamp): number {
    const { io, mem } = this;
    if (this.fd < 0) return -ERRNO.ENOTCONN;
    const slot = 1 - this.slot;
    const bytes = encodeRawStamp(mem.u8, { ...stamp, serial: stamp.serial + 1 });
    let rc = writeFull(io, 'STAMP:WRITE', this.fd, mem, 0, bytes, slot * RAW_SLOT);
    if (rc >= 0) rc = io.fdatasync('STAMP:SYNC', this.fd);
    // After a failed sync this slot is in doubt: it is written again, the other one is still good.
    if (rc < 0) return rc;
    stamp.serial++;
    this.slot = slot;
    return 0;
  }

  close(): void {
    this.closeFd();
  }

  private closeFd(): void {
    if (this.fd >= 0) this.io.close('STAMP:CLOSE', this.fd);
    this.fd = -1;
  }
}
