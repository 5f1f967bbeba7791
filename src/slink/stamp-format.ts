/**
 * What the stamps of all sites have in common: whose they are, up to where, and samples of their devices. A folder
 * site's (stage-format.ts) and a site's without a journal (raw-stamp.ts) draw the whole of their own.
 *
 * header (256 bytes)                                device entry
 *    0 16  magic                                       0 32  the format's own
 *   16  4  crc of all its bytes, field zero           32 192 samples, 8 × { block number u64, digest 16 }
 *   20  4  version                                   224  …  the format's own, to a multiple of 32
 *   24  8  serial
 *   32 16  identity of the log
 *   48  4  slink number of the site                digest: the first 16 bytes of the SHA-256 of the 4 KiB
 *   52  4  devices                                 block (the last one of a device may be shorter)
 *   56  4  bytes of this stamp, multiple of 4096
 *   60 36  cursor: reign u32, position, seq, chain, time u64 each
 *   96  8  the format's own
 *  104  8  written at, microseconds since 1970
 *  112 64  group name
 */
import { crc32, getText, getU64, setText, setU64 } from '../base/codec.js';
import { ALIGN } from '../replog/format.js';
import type { SiteCursor } from './cursor.js';

export const STAMP_HEADER = 256;
export const STAMP_DEVICE = 224;
/** Names and targets behind a device entry are filled up to a multiple of it. */
export const TEXT_UNIT = 32;
export const SAMPLES = 8;
export const SAMPLE_BYTES = 24;
export const DIGEST = 16;
const SAMPLES_AT = 32;

export interface Sample {
  /** Number of a 4 KiB block. */
  block: number;
  /** 32 hexadecimal digits. */
  digest: string;
}

export interface StampHead {
  serial: number;
  /** 32 hexadecimal digits. */
  logId: string;
  group: string;
  nr: number;
  writtenUs: number;
}

/** Zeroes `bytes` of `u8` and puts the header there; the crc comes last (sealStamp). */
export function putStampHead(
  u8: Buffer,
  bytes: number,
  magic: string,
  version: number,
  head: StampHead & { devices: readonly unknown[] },
  cursor: SiteCursor,
): DataView {
  const dv = new DataView(u8.buffer, u8.byteOffset, bytes);
  u8.fill(0, 0, bytes);
  setText(u8, 0, 16, magic);
  dv.setUint32(20, version, true);
  setU64(dv, 24, head.serial);
  u8.write(head.logId, 32, 'hex');
  dv.setUint32(48, head.nr, true);
  dv.setUint32(52, head.devices.length, true);
  dv.setUint32(56, bytes, true);
  dv.setUint32(60, cursor.reign, true);
  setU64(dv, 64, cursor.pos);
  setU64(dv, 72, cursor.seq);
  dv.setUint32(80, cursor.chainLo, true);
  dv.setUint32(84, cursor.chainHi, true);
  setU64(dv, 88, cursor.time);
  setU64(dv, 104, head.writtenUs);
  setText(u8, 112, 64, head.group);
  return dv;
}

export function sealStamp(u8: Buffer, dv: DataView, bytes: number): void {
  dv.setUint32(16, crc32(u8.subarray(0, bytes)), true);
}

export interface OpenedStamp {
  u8: Buffer;
  dv: DataView;
  version: number;
  devices: number;
  head: StampHead;
  cursor: SiteCursor;
}

/** A copy of a stamp that is whole, of at most `room` bytes; `foreign`: there is none with this magic. */
export function openStamp(raw: Buffer, magic: string, room: number): OpenedStamp | 'foreign' | 'damaged' {
  if (raw.length < ALIGN || getText(raw, 0, 16) !== magic) return 'foreign';
  const size = new DataView(raw.buffer, raw.byteOffset, STAMP_HEADER).getUint32(56, true);
  if (size < ALIGN || size > Math.min(room, raw.length) || size % ALIGN !== 0) return 'damaged';
  const u8 = Buffer.from(raw.subarray(0, size));
  const dv = new DataView(u8.buffer, u8.byteOffset, size);
  const crc = dv.getUint32(16, true);
  dv.setUint32(16, 0, true);
  if (crc32(u8) !== crc) return 'damaged';
  return {
    ...{ u8, dv },
    version: dv.getUint32(20, true),
    devices: dv.getUint32(52, true),
    head: {
      serial: getU64(dv, 24),
      logId: u8.toString('hex', 32, 48),
      group: getText(u8, 112, 64),
      nr: dv.getUint32(48, true),
      writtenUs: getU64(dv, 104),
    },
    cursor: {
      reign: dv.getUint32(60, true),
      pos: getU64(dv, 64),
      seq: getU64(dv, 72),
      chainLo: dv.getUint32(80, true),
      chainHi: dv.getUint32(84, true),
      time: getU64(dv, 88),
    },
  };
}

/** Those of the device entry at `at`; their number stands elsewhere in it. */
export function putSamples(u8: Buffer, dv: DataView, at: number, samples: readonly Sample[]): void {
  samples.slice(0, SAMPLES).forEach((sample, i) => {
    const s = at + SAMPLES_AT + i * SAMPLE_BYTES;
    setU64(dv, s, sample.block);
    u8.write(sample.digest, s + 8, DIGEST, 'hex');
  });
}

export function getSamples(u8: Buffer, dv: DataView, at: number, count: number): Sample[] {
  const samples: Sample[] = [];
  for (let i = 0; i < Math.min(SAMPLES, count); i++) {
    const s = at + SAMPLES_AT + i * SAMPLE_BYTES;
    samples.push({ block: getU64(dv, s), digest: u8.toString('hex', s + 8, s + 8 + DIGEST) });
  }
  return samples;
}
