/**
 * What is dirty of one device at one site, as the index keeps it. Little-endian:
 *
 *   0  4  sectors of a region       8  8  regions
 *   4  4  zero                     16  …  the bits: region i is bit i % 8 of byte i / 8, set = dirty; behind the last
 *                                         region zeroes to the end of its byte
 */
import { getU64, setU64 } from '../base/codec.js';
import type { DirtyFact } from './contract.js';

const HEAD = 16;

export function encodeDirty({ region, regions, bits }: DirtyFact): Uint8Array {
  if (bits.length !== Math.ceil(regions / 8)) throw new RangeError(`${bits.length} bytes for ${regions} regions`);
  const bytes = new Uint8Array(HEAD + bits.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, region, true);
  setU64(view, 8, regions);
  bytes.set(bits, HEAD);
  return bytes;
}

/** The fact, its bits a copy; undefined where the bytes are none. */
export function decodeDirty(link: number, device: number, bytes: Uint8Array): DirtyFact | undefined {
  if (bytes.length < HEAD) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const region = view.getUint32(0, true);
  const regions = getU64(view, 8);
  if (region === 0 || bytes.length !== HEAD + Math.ceil(regions / 8)) return undefined;
  // `slice` of a Buffer, which LMDB hands out, would be a view of its map.
  return { link, device, region, regions, bits: new Uint8Array(bytes.subarray(HEAD)) };
}
