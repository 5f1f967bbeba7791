/**
 * The index in LMDB: one environment per group, in a folder of the state folder.
 *
 *   database   key                     value
 *   facts      id, generation,         the environment's identity (32 hex digits), its commits so far,
 *              checkpoint, version     the place before which slink 0's images hold everything
 *   links      number                  LinkFact
 *   reigns     reign                   ReignFact
 *   segments   log position of start   SegmentFact without extents
 *   extents    log position of start   packed table (replog/extents), bytes
 *   dirty      [link, device]          DirtyFact, bytes (index/dirty.ts)
 *
 * `dirty` came later: an environment without it has no such fact, and is given the empty database when it is opened.
 *
 * One transaction per commit, synchronous. `overlappingSync` is off: with it (the package's default) a commit
 * returns before it is flushed, and a superblock could name a generation that a crash takes back.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { open, type Database, type RootDatabase } from 'lmdb';
import { ERRNO, RepError, errnoText, type ErrnoName } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { auditEnvironment } from './audit.js';
import type { DirtyFact, Index, IndexChange, LinkFact, ReignFact, SegmentFact } from './contract.js';
import { decodeDirty, encodeDirty } from './dirty.js';
import type { LogPlaceLike } from './place.js';

const VERSION = 1;

type SegmentRow = Omit<SegmentFact, 'extents'>;

/** Opens the environment in folder `dir`, or makes it. Throws RepError. */
export function openIndex(dir: string): Index {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const fault = auditEnvironment(join(dir, 'data.mdb'));
    if (fault !== undefined) throw new Error(`it is damaged (${fault})`);
    return new LmdbIndex(dir);
  } catch (error) {
    if (error instanceof RepError) throw error;
    throw new RepError(
      errnoOf(error),
      `index ${dir} cannot be opened: ${(error as Error).message}; move the folder away to begin with an empty one ` +
        '(every site is then compared and resynced)',
      { cause: error },
    );
  }
}

class LmdbIndex implements Index {
  readonly id: string;
  private readonly dir: string;
  private readonly env: RootDatabase;
  private readonly facts: Database<unknown, string>;
  private readonly linkRows: Database<LinkFact, number>;
  private readonly reignRows: Database<ReignFact, number>;
  private readonly segmentRows: Database<SegmentRow, number>;
  private readonly extentRows: Database<Uint8Array, number>;
  private readonly dirtyRows: Database<Uint8Array, [link: number, device: number]>;

  constructor(dir: string) {
    this.dir = dir;
    this.env = open({ path: dir, noSubdir: false, overlappingSync: false, maxDbs: 8 });
    this.facts = this.env.openDB({ name: 'facts', encoding: 'json' });
    this.linkRows = this.env.openDB({ name: 'links', encoding: 'json' });
    this.reignRows = this.env.openDB({ name: 'reigns', encoding: 'json' });
    this.segmentRows = this.env.openDB({ name: 'segments', encoding: 'json' });
    this.extentRows = this.env.openDB({ name: 'extents', encoding: 'binary' });
    this.dirtyRows = this.env.openDB({ name: 'dirty', encoding: 'binary' });
    const id = this.facts.get('id');
    if (typeof id !== 'string') {
      this.id = randomBytes(16).toString('hex');
      this.env.transactionSync(() => {
        this.facts.putSync('id', this.id);
        this.facts.putSync('version', VERSION);
        this.facts.putSync('generation', 0);
      });
      // A power cut must not take the whole environment away: that would cost a resync of every site.
      for (const folder of [dir, dirname(dir)]) realIo.syncDir('INDEX:SYNC-DIR', folder);
      return;
    }
    this.id = id;
    const version = this.facts.get('version');
    if (version !== VERSION)
      throw new RepError('EINVAL', `index ${dir} has version ${String(version)}, this program knows ${VERSION}`);
  }

  get generation(): number {
    return this.facts.get('generation') as number;
  }

  checkpoint(): LogPlaceLike | undefined {
    return this.facts.get('checkpoint') as LogPlaceLike | undefined;
  }

  links(): LinkFact[] {
    return Array.from(this.linkRows.getRange(), ({ value }) => value);
  }

  reigns(): ReignFact[] {
    return Array.from(this.reignRows.getRange(), ({ value }) => value);
  }

  segments(): SegmentRow[] {
    return Array.from(this.segmentRows.getRange(), ({ value }) => value);
  }

  extents(start: number): Uint8Array | undefined {
    const table = this.extentRows.get(start);
    // A copy: what LMDB hands out lies in its map and is gone after the next commit.
    return table === undefined ? undefined : Uint8Array.from(table);
  }

  dirty(link: number): DirtyFact[] {
    return Array.from(this.dirtyRows.getRange(ofLink(link)), ({ key, value }) => {
      const fact = decodeDirty(link, key[1], value);
      if (fact !== undefined) return fact;
      throw new RepError(
        'EIO',
        `index ${this.dir}: what is dirty of device ${key[1]} at site ${link} is damaged; move the folder away to begin ` +
          'with an empty one (every site is then compared and resynced)',
      );
    });
  }

  commit(change: IndexChange): number {
    const generation = this.generation + 1;
    try {
      this.env.transactionSync(() => {
        this.write(change);
        this.facts.putSync('generation', generation);
      });
    } catch (error) {
      const errno = isFull(this.dir) ? 'ENOSPC' : errnoOf(error);
      throw new RepError(errno, `index ${this.dir}: commit failed: ${errnoText(ERRNO[errno])}`, { cause: error });
    }
    return generation;
  }

  async close(): Promise<void> {
    await this.env.close();
  }

  private write(change: IndexChange): void {
    if (change.checkpoint !== undefined) this.facts.putSync('checkpoint', change.checkpoint);
    for (const link of change.links ?? []) this.linkRows.putSync(link.nr, link);
    for (const { link, device } of change.dropDirty ?? []) this.dropDirty(link, device);
    for (const fact of change.dirty ?? []) this.dirtyRows.putSync([fact.link, fact.device], encodeDirty(fact));
    for (const nr of change.dropLinks ?? []) {
      this.linkRows.removeSync(nr);
      // A site that gets the number later must not find them.
      this.dropDirty(nr, undefined);
    }
    for (const reign of change.reigns ?? []) this.reignRows.putSync(reign.reign, reign);
    for (const { extents, ...row } of change.segments ?? []) {
      this.segmentRows.putSync(row.start, row);
      this.extentRows.putSync(row.start, extents);
    }
    if (change.dropSegmentsBelow === undefined) return;
    for (const start of Array.from(this.segmentRows.getKeys({ end: change.dropSegmentsBelow }))) {
      this.segmentRows.removeSync(start);
      this.extentRows.removeSync(start);
    }
  }

  private dropDirty(link: number, device: number | undefined): void {
    const keys =
      device === undefined ? Array.from(this.dirtyRows.getKeys(ofLink(link))) : [[link, device] as [number, number]];
    for (const key of keys) this.dirtyRows.removeSync(key);
  }
}

/** All keys of a link: a list sorts behind what it begins with, and before the next number. */
function ofLink(link: number): { start: [number]; end: [number] } {
  return { start: [link], end: [link + 1] };
}

/** LMDB reports the system's errno, or a negative code of its own. */
function errnoOf(error: unknown): ErrnoName {
  const { code, message } = error as { code?: unknown; message?: string };
  if (typeof code === 'string' && code in ERRNO) return code as ErrnoName;
  if (code === ERRNO.ENOSPC || code === MDB_MAP_FULL || /no space|MAP_FULL/i.test(message ?? '')) return 'ENOSPC';
  if (code === ERRNO.EACCES) return 'EACCES';
  if (code === ERRNO.EROFS) return 'EROFS';
  return 'EIO';
}

const MDB_MAP_FULL = -30792;

/** LMDB turns the short write of a full file system into EIO. */
function isFull(dir: string): boolean {
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize < 1024 * 1024;
}
