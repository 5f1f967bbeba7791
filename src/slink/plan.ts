/**
 * The write plan: which version of which sector of a batch goes to the image, and in which few calls.
 *
 * Records are added newest first; each claims the sectors (512 bytes) that no newer one has claimed, so every
 * sector is written once, in its newest version. What was claimed is then given out as runs in the order of
 * (device, offset), neighbours joined into one vectored write of at most 1 MiB.
 *
 * Claims stand in an open-addressing hash of (device, 4 KiB block) with one bit per sector. It is cleared by
 * counting a generation up, and nothing here is allocated after the constructor: at 75,000 records a second
 * the plan costs about one hundredth of a core (50–130 ns a record; the unit test prints it with PLAN_BENCH=1).
 *
 * How many pieces n records can make: a record with k free gaps makes k pieces, and joins the k - 1 or more
 * claimed stretches between them into one, so all together make fewer than 2 n. How many blocks: a record of
 * b bytes touches at most b / 4096 + 2. Hence the sizes below, and `add` never runs out within the limits.
 *
 * DISCARD and ZEROES are no writes: they end a batch, and the caller applies them between plans.
 */
import { assert } from '../base/errors.js';
import { BLOCK, MIB, SECTOR } from '../base/units.js';
import { IoVec, releaseTable, type Mem } from '../base/mem.js';

/** Limits of one batch: more is not accepted by `fits`. */
export const PLAN_RECORDS = 8192;
export const PLAN_BYTES = 4 * MIB;
/** A single record may go over PLAN_BYTES by this much (the largest payload there is). */
const OVER = MIB;

export const RUN_BYTES = MIB;
/** Ranges of one vectored call; the kernel takes 1024. */
const RUN_RANGES = 512;

const SLOT_BITS = 16;
const SLOTS = 1 << SLOT_BITS;
const PIECES = 2 * PLAN_RECORDS;
assert((PLAN_BYTES + OVER) / BLOCK + 2 * PLAN_RECORDS < SLOTS * 0.5, 'the hash stays half empty at the limits');

/** Generations are counted in 24 bits beside 8 bits of mask. */
const GENERATIONS = 1 << 23;

export class WritePlan {
  /** The run that `nextRun` made: `vec` goes to byte `offset` of `device`. */
  device = 0;
  offset = 0;
  readonly vec = new IoVec(RUN_RANGES);

  /** Records and bytes taken since `begin`. */
  records = 0;
  bytes = 0;
  /** Pieces to be written. */
  pieces = 0;

  private mem: Mem | undefined;
  private generation = 0;
  private at = 0;

  private readonly slotTag = new Int32Array(SLOTS);
  private readonly slotBlock = new Float64Array(SLOTS);
  private readonly slotDevice = new Uint32Array(SLOTS);

  private readonly pieceDevice = new Uint32Array(PIECES);
  private readonly pieceOffset = new Float64Array(PIECES);
  private readonly pieceBytes = new Float64Array(PIECES);
  private readonly pieceMem = new Float64Array(PIECES);
  private order = new Uint16Array(PIECES);
  private spare = new Uint16Array(PIECES);

  /** Starts a batch whose data all stand in `mem`. */
  begin(mem: Mem): void {
    this.mem = mem;
    this.records = 0;
    this.bytes = 0;
    this.pieces = 0;
    this.at = 0;
    if (++this.generation >= GENERATIONS) {
      this.slotTag.fill(0);
      this.generation = 1;
    }
  }

  /** Between batches: the system gets the memory of all tables back until the next one; zero is no generation. */
  release(): void {
    const { slotTag, slotBlock, slotDevice, pieceDevice, pieceOffset, pieceBytes, pieceMem, order, spare } = this;
    for (const table of [slotTag, slotBlock, slotDevice, pieceDevice, pieceOffset, pieceBytes, pieceMem, order, spare])
      releaseTable(table);
  }

  /** True while a batch of so many records and bytes can take one more of `bytes`. */
  static fits(records: number, total: number, bytes: number): boolean {
    return records < PLAN_RECORDS && (total === 0 || total + bytes <= PLAN_BYTES);
  }

  /** Adds a WRITE that is older than all added before. Its data stand at `memOff`. */
  add(device: number, offset: number, bytes: number, memOff: number): void {
    assert(offset % SECTOR === 0 && bytes % SECTOR === 0, 'writes are whole sectors');
    assert(this.records < PLAN_RECORDS && bytes <= PLAN_BYTES + OVER - this.bytes, 'the batch is within its limits');
    this.records++;
    this.bytes += bytes;
    const end = offset + bytes;
    let block = Math.floor(offset / BLOCK);
    /** Start of the piece that is growing, -1 where the last sector was claimed by a newer record. */
    let open = -1;
    let pos = offset;
    while (pos < end) {
      const base = block * BLOCK;
      const first = (pos - base) / SECTOR;
      const last = Math.min(end - base, BLOCK) / SECTOR;
      const want = ((1 << last) - 1) & ~((1 << first) - 1);
      const had = this.claim(device, block, want);
      const free = want & ~had;
      if (free === want) {
        if (open < 0) open = pos;
      } else if (free === 0) {
        if (open >= 0) this.piece(device, open, pos - open, memOff + (open - offset));
        open = -1;
      } else {
        for (let s = first; s < last; s++) {
          const sector = base + s * SECTOR;
          if ((free & (1 << s)) !== 0) {
            if (open < 0) open = sector;
          } else if (open >= 0) {
            this.piece(device, open, sector - open, memOff + (open - offset));
            open = -1;
          }
        }
      }
      pos = base + BLOCK;
      block++;
    }
    if (open >= 0) this.piece(device, open, end - open, memOff + (open - offset));
  }

  /** All records are in: sorts. Then call `nextRun` until it says false. */
  seal(): void {
    const n = this.pieces;
    const { order } = this;
    for (let i = 0; i < n; i++) order[i] = i;
    if (n > 1 && !this.sorted()) this.sort();
    this.at = 0;
  }

  /** Makes the next run in `vec`, `device`, `offset`; false when all are made. */
  nextRun(): boolean {
    const { vec, order, pieces } = this;
    if (this.at >= pieces) return false;
    const mem = this.mem!;
    let p = order[this.at]!;
    const device = this.pieceDevice[p]!;
    const offset = this.pieceOffset[p]!;
    this.device = device;
    this.offset = offset;
    vec.clear();
    do {
      vec.add(mem, this.pieceMem[p]!, this.pieceBytes[p]!);
      if (++this.at >= pieces) break;
      p = order[this.at]!;
    } while (
      this.pieceDevice[p] === device &&
      this.pieceOffset[p] === offset + vec.total &&
      vec.total + this.pieceBytes[p]! <= RUN_BYTES &&
      vec.room
    );
    return true;
  }

  /** Claims the sectors `want` of a block; says which of them were claimed before. */
  private claim(device: number, block: number, want: number): number {
    const { slotTag, slotBlock, slotDevice, generation } = this;
    let i = Math.imul((block | 0) ^ Math.imul(device + 1, 0x85ebca6b), 0x9e3779b1) >>> (32 - SLOT_BITS);
    for (;;) {
      const tag = slotTag[i]!;
      if (tag >>> 8 !== generation) {
        slotTag[i] = (generation << 8) | want;
        slotBlock[i] = block;
        slotDevice[i] = device;
        return 0;
      }
      if (slotBlock[i] === block && slotDevice[i] === device) {
        slotTag[i] = tag | want;
        return tag & 0xff;
      }
      i = (i + 1) & (SLOTS - 1);
    }
  }

  private piece(device: number, offset: number, bytes: number, memOff: number): void {
    const p = this.pieces++;
    this.pieceDevice[p] = device;
    this.pieceOffset[p] = offset;
    this.pieceBytes[p] = bytes;
    this.pieceMem[p] = memOff;
  }

  private before(a: number, b: number): boolean {
    const da = this.pieceDevice[a]!;
    const db = this.pieceDevice[b]!;
    return da === db ? this.pieceOffset[a]! < this.pieceOffset[b]! : da < db;
  }

  /** Sequential writes arrive newest first, so in falling order: turned round they are sorted. */
  private sorted(): boolean {
    const { order, pieces } = this;
    let rising = true;
    let falling = true;
    for (let i = 1; i < pieces && (rising || falling); i++) {
      if (this.before(i - 1, i)) falling = false;
      else rising = false;
    }
    if (!rising && falling) for (let i = 0; i < pieces; i++) order[i] = pieces - 1 - i;
    return rising || falling;
  }

  /** Merge sort from short sorted stretches up, between two arrays that exist already. */
  private sort(): void {
    const n = this.pieces;
    const STRETCH = 8;
    for (let lo = 0; lo < n; lo += STRETCH) {
      const hi = Math.min(lo + STRETCH, n);
      const { order } = this;
      for (let i = lo + 1; i < hi; i++) {
        const p = order[i]!;
        let j = i - 1;
        while (j >= lo && this.before(p, order[j]!)) {
          order[j + 1] = order[j]!;
          j--;
        }
        order[j + 1] = p;
      }
    }
    for (let width = STRETCH; width < n; width *= 2) {
      const { order: from, spare: to } = this;
      for (let lo = 0; lo < n; lo += 2 * width) {
        const mid = Math.min(lo + width, n);
        const hi = Math.min(lo + 2 * width, n);
        let a = lo;
        let b = mid;
        for (let k = lo; k < hi; k++)
          to[k] = a < mid && (b >= hi || !this.before(from[b]!, from[a]!)) ? from[a++]! : from[b++]!;
      }
      this.order = to;
      this.spare = from;
    }
  }
}
