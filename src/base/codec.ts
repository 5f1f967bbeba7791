import { crc32 as zlibCrc32 } from 'node:zlib';

/** 64-bit little-endian integers as numbers: hi·2³² + lo with hi < 2²¹, and the checksums of all formats. */

const TWO32 = 4294967296;

export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO32 + view.getUint32(at, true);
}

export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, (value / TWO32) >>> 0, true);
}

/** CRC-32 (IEEE, reflected 0xEDB88320) of `bytes`, continued from `seed`. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlibCrc32(bytes, seed);
}

/** Writes a string into a fixed field, zero-padded; it must fit. */
export function setText(bytes: Uint8Array, at: number, length: number, text: string): void {
  const raw = Buffer.from(text, 'utf8');
  if (raw.length > length) throw new RangeError(`text of ${raw.length} bytes in a field of ${length}`);
  bytes.fill(0, at, at + length);
  bytes.set(raw, at);
}

/** Reads a zero-padded string from a fixed field. */
export function getText(bytes: Uint8Array, at: number, length: number): string {
  let end = at;
  while (end < at + length && bytes[end] !== 0) end++;
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString('utf8');
}
