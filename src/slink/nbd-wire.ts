/**
 * The NBD protocol as bytes: fixed newstyle handshake, requests, simple and structured replies. Big-endian.
 *
 *   server hello    "NBDMAGIC" u64, "IHAVEOPT" u64, handshake flags u16      client: flags u32
 *   option          "IHAVEOPT" u64, option u32, length u32, data
 *   option reply    0x3e889045565a9 u64, option u32, type u32 (bit 31: error), length u32, data
 *     GO            length of name u32, name, number of infos u16, info u16 …
 *     INFO_EXPORT   0 u16, size u64, transmission flags u16
 *     INFO_BLOCK    3 u16, minimum u32, preferred u32, maximum u32
 *     SET_META      length of name u32, name, queries u32, { length u32, query } …;  reply: id u32, name
 *
 *   request         0x25609513 u32, flags u16, type u16, cookie u64, offset u64, length u32, (WRITE: data)
 *   simple reply    0x67446698 u32, error u32, cookie u64, (READ: data)
 *   structured      0x668e33ef u32, flags u16 (1 = last), type u16, cookie u64, length u32, payload
 *     OFFSET_DATA   1: offset u64, data               OFFSET_HOLE   2: offset u64, bytes u32
 *     BLOCK_STATUS  5: context u32, { bytes u32, flags u32 } …     ERROR  bit 15: error u32, length u16, text
 *
 * A cookie is ours alone: generation of the connection's work (u32), number of the request in it (u32).
 */
export const HELLO_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_MAGIC = 0x67446698;
export const STRUCTURED_MAGIC = 0x668e33ef;

export const HELLO_BYTES = 18;
export const OPTION_REPLY_BYTES = 20;
export const REQUEST_BYTES = 28;
export const SIMPLE_BYTES = 16;
export const STRUCTURED_BYTES = 20;

/** Handshake flags, of both sides. */
export const HANDSHAKE = { FIXED: 1, NO_ZEROES: 2 } as const;

export const OPT = { ABORT: 2, STARTTLS: 5, GO: 7, STRUCTURED_REPLY: 8, SET_META_CONTEXT: 10 } as const;

const ERR_BIT = 0x80000000;
export const REP = {
  ACK: 1,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: ERR_BIT + 1,
  ERR_POLICY: ERR_BIT + 2,
  ERR_INVALID: ERR_BIT + 3,
  ERR_PLATFORM: ERR_BIT + 4,
  ERR_TLS_REQD: ERR_BIT + 5,
  ERR_UNKNOWN: ERR_BIT + 6,
  ERR_SHUTDOWN: ERR_BIT + 7,
  ERR_BLOCK_SIZE_REQD: ERR_BIT + 8,
} as const;

export const INFO = { EXPORT: 0, BLOCK_SIZE: 3 } as const;

/** Transmission flags of an export. */
export const TX = {
  HAS_FLAGS: 1,
  READ_ONLY: 2,
  SEND_FLUSH: 4,
  SEND_FUA: 8,
  SEND_TRIM: 32,
  SEND_WRITE_ZEROES: 64,
} as const;

export const CMD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6, BLOCK_STATUS: 7 } as const;
/** Request flags. NO_HOLE is never set: a hole reads as zeroes just as well. */
export const CMD_FLAG = { FUA: 1, REQ_ONE: 8 } as const;

export const CHUNK = { NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, BLOCK_STATUS: 5, ERROR_BIT: 0x8000 } as const;
export const CHUNK_DONE = 1;
export const STATE_ZERO = 2;
export const ALLOCATION = 'base:allocation';

/** Largest request there is where the server names no other limit. */
export const MAX_BLOCK = 32 * 1024 * 1024;
/** Handshake replies are short; a longer one is garbage. */
export const MAX_OPTION_REPLY = 64 * 1024;

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const out = Buffer.alloc(16 + data.length);
  out.writeBigUInt64BE(OPTION_MAGIC, 0);
  out.writeUInt32BE(option, 8);
  out.writeUInt32BE(data.length, 12);
  out.set(data, 16);
  return out;
}

export function encodeGo(name: string): Buffer {
  const text = Buffer.from(name, 'utf8');
  const data = Buffer.alloc(4 + text.length + 4);
  data.writeUInt32BE(text.length, 0);
  text.copy(data, 4);
  data.writeUInt16BE(1, 4 + text.length);
  data.writeUInt16BE(INFO.BLOCK_SIZE, 6 + text.length);
  return encodeOption(OPT.GO, data);
}

export function encodeSetMeta(name: string, query: string): Buffer {
  const text = Buffer.from(name, 'utf8');
  const what = Buffer.from(query, 'utf8');
  const data = Buffer.alloc(4 + text.length + 4 + 4 + what.length);
  data.writeUInt32BE(text.length, 0);
  text.copy(data, 4);
  data.writeUInt32BE(1, 4 + text.length);
  data.writeUInt32BE(what.length, 8 + text.length);
  what.copy(data, 12 + text.length);
  return encodeOption(OPT.SET_META_CONTEXT, data);
}

/** Handshake flags of the server, or undefined where this is no server that speaks fixed newstyle. */
export function decodeHello(bytes: Buffer): number | undefined {
  if (bytes.readBigUInt64BE(0) !== HELLO_MAGIC || bytes.readBigUInt64BE(8) !== OPTION_MAGIC) return undefined;
  const flags = bytes.readUInt16BE(16);
  return (flags & HANDSHAKE.FIXED) === 0 ? undefined : flags;
}

export interface OptionReply {
  option: number;
  type: number;
  /** Bytes of data that follow. */
  length: number;
}

/** The head of a reply to an option, or undefined where it is none. */
export function decodeOptionReply(bytes: Buffer): OptionReply | undefined {
  if (bytes.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) return undefined;
  const length = bytes.readUInt32BE(16);
  if (length > MAX_OPTION_REPLY) return undefined;
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), length };
}

/** What a server says of an export. */
export interface ExportFacts {
  size: number;
  flags: number;
  minimum: number;
  maximum: number;
}

/** Takes over one INFO reply; false where it is garbage. */
export function takeInfo(facts: ExportFacts, data: Buffer): boolean {
  if (data.length < 2) return false;
  switch (data.readUInt16BE(0)) {
    case INFO.EXPORT: {
      if (data.length !== 12) return false;
      const size = data.readBigUInt64BE(2);
      if (size > BigInt(Number.MAX_SAFE_INTEGER)) return false;
      facts.size = Number(size);
      facts.flags = data.readUInt16BE(10);
      return (facts.flags & TX.HAS_FLAGS) !== 0;
    }
    case INFO.BLOCK_SIZE: {
      if (data.length !== 14) return false;
      const minimum = data.readUInt32BE(2);
      const maximum = data.readUInt32BE(10);
      if (minimum === 0 || (minimum & (minimum - 1)) !== 0 || maximum < minimum) return false;
      facts.minimum = minimum;
      facts.maximum = maximum;
      return true;
    }
    default:
      return true;
  }
}

/** Writes the 28 bytes of a request at `at`. */
export function putRequest(
  out: Buffer,
  at: number,
  flags: number,
  type: number,
  generation: number,
  nr: number,
  offset: number,
  length: number,
): void {
  out.writeUInt32BE(REQUEST_MAGIC, at);
  out.writeUInt16BE(flags, at + 4);
  out.writeUInt16BE(type, at + 6);
  out.writeUInt32BE(generation, at + 8);
  out.writeUInt32BE(nr, at + 12);
  out.writeUInt32BE(Math.floor(offset / 4294967296), at + 16);
  out.writeUInt32BE(offset >>> 0, at + 20);
  out.writeUInt32BE(length, at + 24);
}

/** Errors on the wire are few; any other is EINVAL by the protocol. */
export function wireErrno(error: number): number {
  switch (error) {
    case 1: // EPERM
    case 5: // EIO
    case 12: // ENOMEM
    case 22: // EINVAL
    case 28: // ENOSPC
    case 95: // EOPNOTSUPP
      return error;
    case 75: // EOVERFLOW
      return 22;
    case 108: // ESHUTDOWN
      return 103; // ECONNABORTED
    default:
      return 22;
  }
}
