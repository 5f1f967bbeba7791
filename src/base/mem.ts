/**
 * Memory whose address is known, so that one system call can move it: anonymous pages, a mapped memfd, and
 * the replog's window, whose payload ring is mapped twice in a row so that no range of it ever wraps.
 */
import * as sys from './sys.js';
import { Defect } from './errors.js';
import { setU64 } from './codec.js';

/** Size of a large page, and what addresses must be multiples of to be mapped by one. */
const HUGE = 2 << 20;
const PAGE = 4096;

/** Address space of `size` bytes from a multiple of HUGE on, to be mapped over. */
function reserve(size: number): number {
  const got = sys.mmap(0, size + HUGE, 0, sys.MAP_PRIVATE | sys.MAP_ANONYMOUS, -1, 0);
  if (got === 0) throw new Defect(`reserving ${size} bytes failed`);
  const base = Math.ceil(got / HUGE) * HUGE;
  if (base > got) sys.munmap(got, base - got);
  const end = base + Math.ceil(size / PAGE) * PAGE;
  const rest = got + Math.ceil((size + HUGE) / PAGE) * PAGE - end;
  if (rest > 0) sys.munmap(end, rest);
  return base;
}

export class Mem {
  readonly addr: number;
  readonly size: number;
  readonly ab: ArrayBuffer;
  readonly u8: Buffer;
  readonly dv: DataView;

  private constructor(addr: number, size: number) {
    this.addr = addr;
    this.size = size;
    this.ab = sys.memoryView(addr, size);
    this.u8 = Buffer.from(this.ab);
    this.dv = new DataView(this.ab);
  }

  /** Zeroed pages, present in memory from the start (a killed reader must not meet an unmapped page). */
  static anon(size: number): Mem {
    const flags = sys.MAP_PRIVATE | sys.MAP_ANONYMOUS | sys.MAP_POPULATE;
    const addr = sys.mmap(0, size, sys.PROT_READ_WRITE, flags, -1, 0);
    if (addr === 0) throw new Defect(`mmap of ${size} bytes failed`);
    return new Mem(addr, size);
  }

  /** Zeroed pages that come into being when they are first touched: for pools that are rarely used whole. */
  static lazy(size: number): Mem {
    const addr = sys.mmap(0, size, sys.PROT_READ_WRITE, sys.MAP_PRIVATE | sys.MAP_ANONYMOUS, -1, 0);
    if (addr === 0) throw new Defect(`mmap of ${size} bytes failed`);
    return new Mem(addr, size);
  }

  /**
   * Zeroed pages for bulk data, large ones where the kernel has them: direct I/O from memory of 4 KiB pages is
   * cut into requests of at most `max_segments` pages (measured, virtio disk, 4 MiB writes: 2.4 against 5.8 GB/s).
   */
  static large(size: number): Mem {
    const whole = Math.ceil(size / HUGE) * HUGE;
    const addr = reserve(whole);
    const flags = sys.MAP_PRIVATE | sys.MAP_ANONYMOUS | sys.MAP_FIXED;
    if (sys.mmap(addr, whole, sys.PROT_READ_WRITE, flags, -1, 0) !== addr)
      throw new Defect(`mmap of ${whole} bytes failed`);
    // Where the kernel does not want to, small pages do.
    sys.madvise(addr, whole, sys.MADV_HUGEPAGE);
    return new Mem(addr, whole);
  }

  /**
   * Maps `plain` bytes of `fd` from 0, then its next `ring` bytes twice in a row: byte `plain + i` and byte
   * `plain + ring + i` of the result are the same byte. Both are multiples of the page size.
   */
  static mirrored(fd: number, plain: number, ring: number): Mem {
    const size = plain + 2 * ring;
    const base = reserve(size);
    const fix = (at: number, length: number, off: number): void => {
      const flags = sys.MAP_SHARED | sys.MAP_FIXED | sys.MAP_POPULATE;
      if (sys.mmap(at, length, sys.PROT_READ_WRITE, flags, fd, off) !== at)
        throw new Defect(`mapping the window at ${off} failed`);
    };
    fix(base, plain, 0);
    fix(base + plain, ring, plain);
    fix(base + plain + ring, ring, plain);
    return new Mem(base, size);
  }

  /**
   * Makes the pages of a memfd large ones, as far as they fill them, before anyone maps it: the kernel then maps
   * them so from the start. False where it does not (before 6.1, or no memory in one piece): small pages do.
   */
  static collapse(fd: number, size: number): boolean {
    const whole = size - (size % HUGE);
    if (whole === 0) return false;
    const base = reserve(whole);
    // Only pages that are there are gathered.
    const flags = sys.MAP_SHARED | sys.MAP_FIXED | sys.MAP_POPULATE;
    const mapped = sys.mmap(base, whole, sys.PROT_READ_WRITE, flags, fd, 0) === base;
    const done = mapped && sys.madvise(base, whole, sys.MADV_COLLAPSE) >= 0;
    sys.munmap(base, whole);
    return done;
  }

  /** Memory that another thread of this process has mapped and keeps mapped. */
  static at(addr: number, size: number): Mem {
    return new Mem(addr, size);
  }

  /** The system gets the pages back until they are touched again: they then read as zeroes. */
  release(): void {
    sys.madvise(this.addr, this.size, sys.MADV_DONTNEED);
  }

  /** Pages that come into being from now on are large ones, or are not; see `large`. */
  wantLarge(on: boolean): void {
    sys.madvise(this.addr, this.size, on ? sys.MADV_HUGEPAGE : sys.MADV_NOHUGEPAGE);
  }

  /** Gives the pages back; every view of them is invalid afterwards. */
  unmap(): void {
    sys.munmap(this.addr, this.size);
  }
}

/** Like `Mem.release` for a table of numbers, as far as it fills whole pages: all of it counts as zeroes then. */
export function releaseTable(table: Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array): void {
  const at = sys.addressOf(new Uint8Array(table.buffer, table.byteOffset, table.byteLength));
  const from = Math.ceil(at / PAGE) * PAGE;
  const to = Math.floor((at + table.byteLength) / PAGE) * PAGE;
  table.fill(0, 0, Math.ceil((from - at) / table.BYTES_PER_ELEMENT));
  if (to > from) sys.madvise(from, to - from, sys.MADV_DONTNEED);
  table.fill(0, Math.max(0, Math.floor((to - at) / table.BYTES_PER_ELEMENT)));
}

/**
 * A list of ranges for one vectored call, reused for ever: `clear`, `add`…, then hand it to `Io.pwritev`.
 * A range that continues the one before it in the same memory is joined to it.
 */
export class IoVec {
  readonly max: number;
  readonly mems: Mem[] = [];
  readonly offs: Float64Array;
  readonly lens: Float64Array;
  /** The iovec array as the kernel reads it: {base u64, length u64}. */
  readonly table: Mem;
  count = 0;
  total = 0;

  constructor(max: number) {
    this.max = max;
    this.offs = new Float64Array(max);
    this.lens = new Float64Array(max);
    this.table = Mem.anon(max * 16);
  }

  clear(): void {
    this.count = 0;
    this.total = 0;
  }

  /** True while one more `add` is sure to fit. */
  get room(): boolean {
    return this.count < this.max;
  }

  add(mem: Mem, off: number, len: number): void {
    const last = this.count - 1;
    this.total += len;
    if (last >= 0 && this.mems[last] === mem && this.offs[last]! + this.lens[last]! === off) {
      this.lens[last]! += len;
      setU64(this.table.dv, last * 16 + 8, this.lens[last]!);
      return;
    }
    const i = this.count++;
    this.mems[i] = mem;
    this.offs[i] = off;
    this.lens[i] = len;
    setU64(this.table.dv, i * 16, mem.addr + off);
    setU64(this.table.dv, i * 16 + 8, len);
  }
}
