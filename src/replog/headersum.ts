/**
 * CRC-32 of a few bytes without a call out of JavaScript: for a record header of 52 bytes zlib's takes 140 ns for
 * the call alone and 40 for the view it wants, this one takes 70 in all. Eight tables, eight bytes a turn.
 */
const TABLES = makeTables();

function makeTables(): Int32Array {
  const t = new Int32Array(8 * 256);
  for (let i = 0; i < 256; i++) {
    let c = i;
    for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
    t[i] = c;
  }
  for (let i = 256; i < t.length; i++) {
    const c = t[i - 256]!;
    t[i] = t[c & 255]! ^ (c >>> 8);
  }
  return t;
}

/** The same as codec's crc32 of bytes [at, end) of `u8`. */
export function shortCrc(u8: Uint8Array, at: number, end: number): number {
  const t = TABLES;
  let c = -1;
  let i = at;
  for (; i + 8 <= end; i += 8)
    c =
      t[1792 + (u8[i]! ^ (c & 255))]! ^
      t[1536 + (u8[i + 1]! ^ ((c >>> 8) & 255))]! ^
      t[1280 + (u8[i + 2]! ^ ((c >>> 16) & 255))]! ^
      t[1024 + (u8[i + 3]! ^ (c >>> 24))]! ^
      t[768 + u8[i + 4]!]! ^
      t[512 + u8[i + 5]!]! ^
      t[256 + u8[i + 6]!]! ^
      t[u8[i + 7]!]!;
  for (; i < end; i++) c = t[(c ^ u8[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}
