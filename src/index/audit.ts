/**
 * Looks an LMDB file over before it is opened: LMDB itself trusts what it maps, so a damaged or truncated file
 * would end the process by SIGSEGV or SIGBUS, without a word. Only the trees' own pages are read, not the data.
 *
 * What is read of the format (that of lmdb 3, little-endian): a page begins with its number (u64), the
 * transaction that wrote it (u64), padding (u16), flags (u16: 1 branch, 2 leaf, 4 overflow, 8 meta), and lower and
 * upper bound of its free space (u16 each, counted from byte 24). Pages 0 and 1 are meta pages:
 *
 *   24 4 magic    28 4 version    40 8 map size    48 48 free tree    96 48 main tree    144 8 last page
 *   152 8 transaction          tree: 0 4 padding (page size in the free tree) … 40 8 root page, all ones = none
 *
 * Behind the page header stand u16 offsets of the nodes: low (u16), high (u16), flags (u16: 1 data in
 * overflow pages, 2 a tree), key bytes (u16), key, data. In a branch low, high and flags are the child's number.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { getU64 } from '../base/codec.js';

const MAGIC = 0xbeefc0de;
const HEADER = 24;
const BRANCH = 1;
const LEAF = 2;
const OVERFLOW = 4;
const META = 8;
const NODE = 8;
const BIG = 1;
const SUBTREE = 2;
const NO_PAGE = 0xffffffff;

/** Why `file` must not be opened; undefined where nothing is wrong with it, or it is not there or empty. */
export function auditEnvironment(file: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch {
    return undefined;
  }
  try {
    const { size } = fstatSync(fd);
    return size === 0 ? undefined : new Audit(fd, size).run();
  } finally {
    closeSync(fd);
  }
}

class Audit {
  private readonly fd: number;
  private readonly size: number;
  private pageSize = 4096;
  private readonly seen = new Set<number>();

  constructor(fd: number, size: number) {
    this.fd = fd;
    this.size = size;
  }

  run(): string | undefined {
    const first = this.meta(0);
    if (first === undefined) return 'its first page is damaged';
    this.pageSize = first.getUint32(48, true);
    if (this.pageSize < 512 || this.pageSize > 65_536) return 'its page size is impossible';
    const second = this.meta(1);
    if (second === undefined) return 'its second page is damaged';
    // LMDB goes on from the newer one; pages that only the older one knows may be in use again.
    const newest = getU64(first, 152) > getU64(second, 152) ? first : second;
    return this.tree(newest, 48, 0) ?? this.tree(newest, 96, 0);
  }

  private meta(number: number): DataView | undefined {
    const page = this.read(number * this.pageSize, 512);
    if (page === undefined || page.getUint32(24, true) !== MAGIC || page.getUint16(18, true) !== META) return undefined;
    return page;
  }

  /** Judges the tree whose record stands at `at`. */
  private tree(view: DataView, at: number, depth: number): string | undefined {
    if (view.getUint32(at + 40, true) === NO_PAGE && view.getUint32(at + 44, true) === NO_PAGE) return undefined;
    return this.page(getU64(view, at + 40), depth);
  }

  private page(number: number, depth: number): string | undefined {
    if (this.seen.has(number)) return undefined;
    if (depth > 64) return `page ${number} is part of a circle`;
    const page = this.read(number * this.pageSize, this.pageSize);
    if (page === undefined) return `page ${number} lies behind its end: it was cut short`;
    const flags = page.getUint16(18, true) & (BRANCH | LEAF | OVERFLOW | META);
    if (getU64(page, 0) !== number || (flags !== BRANCH && flags !== LEAF)) return `page ${number} is damaged`;
    this.seen.add(number);
    const lower = page.getUint16(20, true);
    if (lower % 2 !== 0 || lower > page.getUint16(22, true) || HEADER + page.getUint16(22, true) > this.pageSize)
      return `page ${number} is damaged`;
    for (let i = 0; i < lower / 2; i++) {
      const node = HEADER + page.getUint16(HEADER + 2 * i, true);
      const fault = node + NODE > this.pageSize ? `page ${number} is damaged` : this.node(page, node, flags, depth + 1);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  private node(page: DataView, at: number, kind: number, depth: number): string | undefined {
    const low = page.getUint16(at, true) + page.getUint16(at + 2, true) * 65_536;
    const flags = page.getUint16(at + 4, true);
    if (kind === BRANCH) return this.page(low + flags * 4_294_967_296, depth);
    const data = at + NODE + page.getUint16(at + 6, true);
    if ((flags & (BIG | SUBTREE)) === 0)
      return data + low > this.pageSize ? 'a value reaches out of its page' : undefined;
    if (data + ((flags & BIG) !== 0 ? 8 : 48) > this.pageSize) return 'a value reaches out of its page';
    if ((flags & SUBTREE) !== 0) return this.tree(page, data, depth);
    const first = getU64(page, data);
    const head = this.read(first * this.pageSize, HEADER);
    if (head === undefined || first * this.pageSize + HEADER + low > this.size)
      return `page ${first} lies behind its end: it was cut short`;
    return getU64(head, 0) === first && (head.getUint16(18, true) & OVERFLOW) !== 0
      ? undefined
      : `page ${first} is damaged`;
  }

  private read(pos: number, length: number): DataView | undefined {
    if (!Number.isSafeInteger(pos) || pos + length > this.size) return undefined;
    const bytes = new Uint8Array(length);
    try {
      if (readSync(this.fd, bytes, 0, length, pos) !== length) return undefined;
    } catch {
      return undefined;
    }
    return new DataView(bytes.buffer);
  }
}
