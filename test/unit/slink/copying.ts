/** A primary that makes sites equal by copying, for tests: what is dirty, in blocks of 4 KiB, and the order of its steps. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Mem } from '../../../src/base/mem.js';
import { BLOCK } from '../../../src/base/units.js';
import type { Site, SiteCursor, SiteDevice, SiteOpen, SiteResync } from '../../../src/slink/contract.js';
import { how, type History } from './support.js';

let memory: Mem | undefined;

/** One page more than any device of these tests has. */
function mem(): Mem {
  return (memory ??= Mem.anon(256 * 1024 + BLOCK));
}

export class Copying {
  readonly history: History;
  at: SiteCursor;
  anew = false;
  force = false;
  nextDevice = 16;
  /** Numbers of dirty blocks, per device. */
  readonly dirty = new Map<number, Set<number>>();
  /** Copied and not settled. */
  private copied: { nr: number; block: number }[] = [];

  /** The link is dropped now: everything is dirty, and the cursor at the end. */
  constructor(history: History) {
    this.history = history;
    this.at = { ...history.cursor };
    this.markAll();
  }

  markAll(): void {
    for (const [nr, bytes] of this.history.now)
      this.dirty.set(nr, new Set(Array.from({ length: Math.ceil(bytes.length / BLOCK) }, (_, block) => block)));
  }

  get devices(): SiteDevice[] {
    return [...this.history.now].map(([nr, bytes]) => ({ nr, name: this.history.names.get(nr)!, size: bytes.length }));
  }

  get resync(): SiteResync {
    const { at, devices, nextDevice, anew, force } = this;
    return { at: { ...at }, devices, nextDevice, anew, force };
  }

  how(create = false): SiteOpen {
    return { ...how([], create), resync: this.resync };
  }

  /** Opens the site with a resync; it has succeeded. */
  opened(site: Site): SiteCursor {
    const opened = this.open(site);
    assert.ok(opened.ok, site.reason);
    assert.equal(site.inconsistent, true);
    this.copied = [];
    // The first time only, as an order has it.
    this.anew = false;
    return opened.cursor;
  }

  open(site: Site, extra: Partial<SiteOpen> = {}): ReturnType<Site['open']> {
    for (let i = 0; i < 1000; i++) {
      const opened = site.open({ ...this.how(), ...extra });
      if (site.preparing !== true) return opened;
    }
    return assert.fail('it never comes to an end');
  }

  /** Copies dirty blocks [from, to) of a device, where they differ. */
  copy(site: Site, nr: number, from = 0, to = Infinity): void {
    const { copy } = site;
    const m = mem();
    const bytes = this.history.now.get(nr)!;
    for (const block of [...this.dirty.get(nr)!].sort((a, b) => a - b)) {
      if (block < from || block >= to) continue;
      const offset = block * BLOCK;
      const source = bytes.subarray(offset, offset + BLOCK);
      const length = source.length;
      assert.equal(copy!.read(nr, offset, length, m, BLOCK), length, site.reason);
      if (!m.u8.subarray(BLOCK, BLOCK + length).equals(source)) {
        m.u8.set(source, BLOCK);
        const zero = source.every((byte) => byte === 0);
        assert.equal(zero ? copy!.zero(nr, offset, length) : copy!.write(nr, offset, length, m, BLOCK), 0, site.reason);
      }
      this.copied.push({ nr, block });
    }
  }

  settle(site: Site): void {
    assert.equal(site.copy!.settle(), 0, site.reason);
    for (const { nr, block } of this.copied.splice(0)) this.dirty.get(nr)!.delete(block);
  }

  /** Everything that is dirty, and the stamp that says whole; the site has all records already. */
  finish(site: Site): void {
    for (const nr of this.history.now.keys()) this.copy(site, nr);
    this.settle(site);
    assert.equal(site.copy!.whole(), 0, site.reason);
    assert.equal(site.inconsistent, false);
  }
}

/** What a site wrote that an older reptool made. */
export function oldFile(name: string): Buffer {
  let top = import.meta.dirname;
  for (;;) {
    try {
      return gunzipSync(
        Buffer.from(readFileSync(join(top, 'test', 'fixtures', 'site', `${name}.gz.b64`), 'latin1'), 'base64'),
      );
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || top === '/') throw error;
      top = join(top, '..');
    }
  }
}
