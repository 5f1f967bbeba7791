/**
 * The window: the newest part of the log in memory that outlives the daemon (a memfd that the keeper owns).
 *
 *   byte 0       4096   words, below
 *   byte 4096    slots  `slots` × 128 bytes, record seq in slot seq mod slots
 *   then         ring   payloads, dense, each padded to 512; mapped twice in a row, so nothing ever wraps
 *
 * Words (Int32 index). Each has one writer; a seq is stored as its low 32 bits, and every reader keeps its
 * own full number and adds the signed difference, which is right as long as the window holds fewer than 2^31.
 *
 *   word        writer     meaning
 *   TAIL        data       number of the next record; everything below is in the log
 *   HEAD        data       oldest record still held here: head = min(images, released), never ahead of it; images =
 *                          what is in the images that SOURCE names, and APPLIED unless AWAY
 *   DURABLE     committer  everything below is in the log's file and synced
 *   RELEASED    committer  durable, and everyone who waited for it was answered
 *   APPLIED     applier    everything below is on slink 0's images (not necessarily synced there)
 *   DOUBT       applier    1 from a failed sync of slink 0's images until one has succeeded
 *   SOURCE      data       whose images reads come from, below what the window holds: 0 = slink 0's, n = site n's,
 *                          -1 = nobody's yet (a window that was formatted while slink 0's images lacked something)
 *   AWAY        applier    1 while it reads the log only and HEAD may pass APPLIED; 0 = it reads the window
 *   BEAT_DATA   data       grows while the loop turns (watchdog)
 *   BEAT_MAIN   main       grows while the event loop turns (watchdog)
 *   BORN        keeper     how many daemons were started on this window
 *   STATS_OFF   main       1: nobody counts requests (replog/meters); 0 in a new window
 *   READY       main       1 once a daemon has formatted or adopted the window
 *   LINKS       main       64 words: number of the site whose link has place i, 0 = free. A place is what a bit of
 *                          S_LINKS means, so it must outlive the daemon as those do.
 *
 *   invariant: head <= images <= durable <= tail, head <= released <= durable, tail - head <= slots - 2,
 *   and head <= applied unless SOURCE != 0 and AWAY = 1.
 *
 *   AWAY and SOURCE are each stored before the other is looked at: the data thread lets HEAD pass APPLIED only where it
 *   finds AWAY = 1 behind its own SOURCE, and the applier touches the window only where it finds SOURCE = 0 behind its
 *   own AWAY = 0. Whichever comes first, one of them sees the other.
 *
 * Slot (128 bytes):
 *    0  64  the FUSE request header as it was read; afterwards its dead parts are used again:
 *   24   8  links that the answer to the request waits for (bit i = place i): a resent request waits for the same
 *   40   8  payload position (f64, bytes since the window was made; place in the ring = position mod ring)
 *   48   8  log position behind the batch that holds the record (f64; committer, before DURABLE)
 *   56   4  bytes answered to the request (a WRITE's size)
 *   60   4  zero
 *   64  64  record header (replog/format)
 *
 * The slot before HEAD stays intact (slots are never filled to the last two): from it a restarted daemon
 * takes seq, chain, time, payload position and log position, so that none of them is a second fact elsewhere.
 */
import { assert } from '../base/errors.js';
import { getU64, setU64 } from '../base/codec.js';
import { Mem } from '../base/mem.js';
import { R_BYTES, R_CHAIN, R_MAGIC, R_SEQ, R_TIME, RECORD_MAGIC, payloadSpace, type LogPlace } from './format.js';

export const WINDOW_MAGIC = 0x314e4957;
export const WORDS = 4096;
export const SLOT = 128;

export const W = {
  MAGIC: 0,
  SLOTS: 1,
  RING_PAGES: 2,
  READY: 3,
  TAIL: 8,
  HEAD: 9,
  DURABLE: 10,
  RELEASED: 11,
  APPLIED: 12,
  DOUBT: 13,
  SOURCE: 14,
  AWAY: 15,
  BEAT_DATA: 16,
  BEAT_MAIN: 17,
  BORN: 18,
  STATS_OFF: 19,
  LINKS: 64,
} as const;

export const S_LENGTH = 0;
export const S_OPCODE = 4;
export const S_UNIQUE = 8;
export const S_LINKS = 24;
export const S_PAYLOAD = 40;
export const S_LOG_END = 48;
export const S_ANSWER = 56;
export const S_RECORD = 64;

/** Bytes of payload ring for a window of `bytes`; both are powers of two. */
export interface WindowShape {
  slots: number;
  ring: number;
  /** Bytes of words and slots, before the ring. */
  plain: number;
  /** Bytes of the memfd. */
  size: number;
}

/** One slot per two KiB of ring: 512-byte writes fill the slots first, larger ones the ring. */
export function windowShape(ring: number): WindowShape {
  assert(ring >= 1 << 20 && (ring & (ring - 1)) === 0, 'a window ring is a power of two from 1 MiB');
  const slots = ring / 2048;
  const plain = WORDS + slots * SLOT;
  return { slots, ring, plain, size: plain + ring };
}

export class Window {
  readonly mem: Mem;
  readonly shape: WindowShape;
  readonly words: Int32Array;
  readonly dv: DataView;
  readonly u8: Buffer;
  /** Offset of the ring in `mem`. */
  readonly ringAt: number;
  private readonly mask: number;

  constructor(mem: Mem, shape: WindowShape) {
    this.mem = mem;
    this.shape = shape;
    this.words = new Int32Array(mem.ab, 0, WORDS / 4);
    this.dv = mem.dv;
    this.u8 = mem.u8;
    this.ringAt = shape.plain;
    this.mask = shape.slots - 1;
  }

  /** Maps the window that `fd` (a memfd of `windowShape(ring).size` bytes) holds. */
  static map(fd: number, ring: number): Window {
    const shape = windowShape(ring);
    return new Window(Mem.mirrored(fd, shape.plain, shape.ring), shape);
  }

  /** The same window in another thread of the process that has mapped it at `addr`. */
  static attach(addr: number, ring: number): Window {
    const shape = windowShape(ring);
    return new Window(Mem.at(addr, shape.plain + 2 * shape.ring), shape);
  }

  get ready(): boolean {
    return Atomics.load(this.words, W.READY) === 1 && this.words[W.MAGIC] === WINDOW_MAGIC;
  }

  load(word: number): number {
    return Atomics.load(this.words, word);
  }

  store(word: number, value: number): void {
    Atomics.store(this.words, word, value);
  }

  /** The full seq behind `word`, seen from a full seq nearby. */
  seqOf(word: number, near: number): number {
    return near + ((Atomics.load(this.words, word) - near) | 0);
  }

  storeSeq(word: number, seq: number): void {
    Atomics.store(this.words, word, seq | 0);
  }

  /** Offset of the slot of record `seq`. */
  slotAt(seq: number): number {
    return WORDS + (lowBits(seq) & this.mask) * SLOT;
  }

  /** Offset in `mem` of payload position `pos`; a payload starting there never wraps. */
  payloadAt(pos: number): number {
    return this.ringAt + (pos % this.shape.ring);
  }

  payloadPos(slot: number): number {
    return this.dv.getFloat64(slot + S_PAYLOAD, true);
  }

  /** Payload position behind the record in `slot`. */
  payloadEnd(slot: number): number {
    return this.payloadPos(slot) + payloadSpace(this.dv.getUint32(slot + S_RECORD + R_BYTES, true));
  }

  logEnd(slot: number): number {
    return this.dv.getFloat64(slot + S_LOG_END, true);
  }

  recordSeq(slot: number): number {
    return getU64(this.dv, slot + S_RECORD + R_SEQ);
  }

  /** True where `slot` holds record `seq` and not one that came or went meanwhile. */
  holds(slot: number, seq: number): boolean {
    return this.dv.getUint16(slot + S_RECORD + R_MAGIC, true) === RECORD_MAGIC && this.recordSeq(slot) === seq;
  }

  /**
   * Starts an empty window whose next record continues the log at `place`; `applied` where slink 0's images lack
   * something before that, and are not read.
   */
  format(place: LogPlace, applied = place.seq): void {
    const slot = this.slotAt(place.seq - 1);
    const { dv, words } = this;
    Atomics.store(words, W.READY, 0);
    this.u8.fill(0, slot, slot + SLOT);
    dv.setFloat64(slot + S_LOG_END, place.pos, true);
    dv.setUint16(slot + S_RECORD + R_MAGIC, RECORD_MAGIC, true);
    setU64(dv, slot + S_RECORD + R_SEQ, place.seq - 1);
    setU64(dv, slot + S_RECORD + R_TIME, place.time);
    dv.setUint32(slot + S_RECORD + R_CHAIN, place.chainLo, true);
    dv.setUint32(slot + S_RECORD + R_CHAIN + 4, place.chainHi, true);
    for (const word of [W.TAIL, W.HEAD, W.DURABLE, W.RELEASED]) this.storeSeq(word, place.seq);
    this.storeSeq(W.APPLIED, applied);
    this.store(W.SOURCE, applied === place.seq ? 0 : -1);
    for (const word of [W.DOUBT, W.AWAY]) this.store(word, 0);
    words[W.SLOTS] = this.shape.slots;
    words[W.RING_PAGES] = this.shape.ring / 4096;
    words[W.MAGIC] = WINDOW_MAGIC;
    Atomics.store(words, W.READY, 1);
  }

  /**
   * The full number of the next record, from the slot before it; `undefined` where the words and the slots
   * contradict each other (then the window is not to be trusted).
   */
  tailSeq(): number | undefined {
    const low = Atomics.load(this.words, W.TAIL);
    const slot = WORDS + ((low - 1) & this.mask) * SLOT;
    const seq = this.recordSeq(slot);
    return this.holds(slot, seq) && ((seq + 1) | 0) === low ? seq + 1 : undefined;
  }

  /**
   * True where record `seq` begins a batch, so that a place before it is one that a reader can start from and a
   * cursor can stand at. Only for `seq` at most `durable`, which is itself a boundary.
   */
  isBoundary(seq: number, durable: number): boolean {
    return seq === durable || this.logEnd(this.slotAt(seq)) !== this.logEnd(this.slotAt(seq - 1));
  }

  /**
   * The place in the log behind record `seq - 1`, which must be durable and still stand in its slot. Its `pos`
   * is a place to read from only where `seq` is a boundary.
   */
  placeBefore(seq: number): LogPlace {
    const slot = this.slotAt(seq - 1);
    assert(this.holds(slot, seq - 1), `record ${seq - 1} has left the window`);
    return this.placeOf(slot, seq);
  }

  /**
   * The durable end of the log, for threads that do not hold the head: the slot may be taken away while it is
   * read, so it is read again until the tail says that it was not. `near` is a full seq not far away.
   */
  durablePlace(near: number): LogPlace {
    for (;;) {
      const seq = this.seqOf(W.DURABLE, near);
      const slot = this.slotAt(seq - 1);
      const place = this.placeOf(slot, seq);
      // The data thread may be reading the next request into slot TAIL already.
      if (this.seqOf(W.TAIL, seq) - (seq - 1) < this.shape.slots) return place;
    }
  }

  private placeOf(slot: number, seq: number): LogPlace {
    return {
      pos: this.logEnd(slot),
      seq,
      chainLo: this.dv.getUint32(slot + S_RECORD + R_CHAIN, true),
      chainHi: this.dv.getUint32(slot + S_RECORD + R_CHAIN + 4, true),
      time: getU64(this.dv, slot + S_RECORD + R_TIME),
    };
  }
}

/** The low 32 bits of a number below 2^53, as `| 0` gives them. */
export function lowBits(seq: number): number {
  return seq | 0;
}
