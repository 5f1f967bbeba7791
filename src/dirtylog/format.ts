/**
 * A dirty log on a device of its own: the format of the kernel's disk log, version 2, little-endian.
 *
 * byte    0  4  magic 0x4D695272                byte 512 16  "reptool dirtylog"
 *         4  4  version 2                            528  4  crc of bytes 512…1023, this field zero
 *         8  8  regions                              532  4  sectors of a region
 *        16  …  not used                             536  4  slink number of the site
 *                                                    540  4  device number
 *                                                    544 16  identity of the group's log
 *                                                    560  …  zero
 *
 * byte 1024  …  bitmap: region i is bit i % 32 of the word (u32) i / 32, **set = clean**; behind the last region zeroes to
 *               the end of its word
 *
 * What stands from byte 512 on is ours, where the kernel's format has nothing: whose log it is, so that two that were
 * exchanged are noticed, and how large a region is. A log without it (the kernel's) is taken as it is.
 *
 * Worked example: 35 regions, regions 0 and 33 dirty: `72 52 69 4D  02 00 00 00  23 00 00 00 00 00 00 00`, and at byte
 * 1024 `FE FF FF FF  05 00 00 00`.
 */
import { crc32, getText, getU64, setText, setU64 } from '../base/codec.js';
import { SECTOR, roundUp } from '../base/units.js';
import type { DirtyLeg } from './types.js';

export const DISK_MAGIC = 0x4d695272;
export const DISK_VERSION = 2;
export const BITMAP_AT = 1024;
const NOTE = 512;
const NOTE_MAGIC = 'reptool dirtylog';
const N_CRC = NOTE + 16;
const N_REGION = NOTE + 20;
const N_LINK = NOTE + 24;
const N_DEVICE = NOTE + 28;
const N_LOG = NOTE + 32;

/** Whose log it is. */
export interface DiskNote extends Pick<DirtyLeg, 'logId' | 'link' | 'device'> {
  /** Sectors of a region. */
  region: number;
}

export type DiskHead =
  | { kind: 'log'; regions: number; note: DiskNote | undefined }
  /** The magic is another one, or none. */
  | { kind: 'foreign'; magic: number }
  | { kind: 'version'; version: number }
  /** Our part of it is not what was written. */
  | { kind: 'damaged' };

/** Bytes of a log of so many regions, whole sectors. */
export function diskBytes(regions: number): number {
  return roundUp(BITMAP_AT + 4 * Math.ceil(regions / 32), SECTOR);
}

/** Writes head and note to the first 1024 bytes of `u8`. */
export function encodeHead(u8: Uint8Array, regions: number, note: DiskNote): void {
  u8.fill(0, 0, BITMAP_AT);
  const view = viewOf(u8);
  view.setUint32(0, DISK_MAGIC, true);
  view.setUint32(4, DISK_VERSION, true);
  setU64(view, 8, regions);
  setText(u8, NOTE, 16, NOTE_MAGIC);
  view.setUint32(N_REGION, note.region, true);
  view.setUint32(N_LINK, note.link, true);
  view.setUint32(N_DEVICE, note.device, true);
  u8.set(Buffer.from(note.logId, 'hex'), N_LOG);
  view.setUint32(N_CRC, crc32(u8.subarray(NOTE, BITMAP_AT)), true);
}

export function decodeHead(u8: Uint8Array): DiskHead {
  const view = viewOf(u8);
  const magic = view.getUint32(0, true);
  if (magic !== DISK_MAGIC) return { kind: 'foreign', magic };
  const version = view.getUint32(4, true);
  if (version !== DISK_VERSION) return { kind: 'version', version };
  const regions = getU64(view, 8);
  if (getText(u8, NOTE, 16) !== NOTE_MAGIC) return { kind: 'log', regions, note: undefined };
  const bytes = new Uint8Array(u8.subarray(NOTE, BITMAP_AT));
  viewOf(bytes).setUint32(N_CRC - NOTE, 0, true);
  if (crc32(bytes) !== view.getUint32(N_CRC, true)) return { kind: 'damaged' };
  const note = {
    logId: Buffer.from(u8.subarray(N_LOG, N_LOG + 16)).toString('hex'),
    link: view.getUint32(N_LINK, true),
    device: view.getUint32(N_DEVICE, true),
    region: view.getUint32(N_REGION, true),
  };
  return Number.isInteger(Math.log2(note.region)) ? { kind: 'log', regions, note } : { kind: 'damaged' };
}

/** What is dirty (bit i % 8 of byte i / 8) as the bitmap has it, at the start of `clean`, to the end of its last word. */
export function encodeClean(clean: Uint8Array, dirty: Uint8Array, regions: number): void {
  const whole = regions >>> 3;
  for (let i = 0; i < whole; i++) clean[i] = ~dirty[i]!;
  const end = 4 * Math.ceil(regions / 32);
  clean.fill(0, whole, end);
  if (regions % 8 !== 0) clean[whole] = ~dirty[whole]! & ((1 << (regions % 8)) - 1);
}

/** The other way round: what the bitmap says of its `regions` regions. */
export function decodeClean(clean: Uint8Array, regions: number): Uint8Array {
  const dirty = new Uint8Array(Math.ceil(regions / 8));
  for (let i = 0; i < dirty.length; i++) dirty[i] = ~clean[i]!;
  if (regions % 8 !== 0) dirty[dirty.length - 1]! &= (1 << (regions % 8)) - 1;
  return dirty;
}

function viewOf(u8: Uint8Array): DataView {
  return new DataView(u8.buffer, u8.byteOffset, u8.byteLength);
}
