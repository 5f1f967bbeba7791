/**
 * The simulator's own test: the product with one promise broken on purpose. Each mutant is one patch of the
 * compiled JavaScript in a copy of the build; the simulator must find it within seconds.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Mutant {
  name: string;
  /** Under src/, without .js. */
  file: string;
  /** Found exactly once, or the test fails: the code has changed and the mutant must be looked at again. */
  find: string;
  put: string;
  /** First seed to try: one that is known to find it soon. */
  seed?: number;
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'the committer answers without a sync',
    file: 'replog/committer',
    find: "const r = this.log.sync('REPLOG:SYNC');",
    put: 'const r = 0;',
  },
  {
    name: 'DURABLE moves before the sync',
    file: 'replog/committer',
    find: "const r = this.log.sync('REPLOG:SYNC');",
    put: "this.window.storeSeq(W.DURABLE, this.written); const r = this.log.sync('REPLOG:SYNC');",
    seed: 7,
  },
  {
    name: 'after a failed sync only what is new is written',
    file: 'replog/committer',
    find: 'this.written = this.durable;\n        this.pos = this.durablePos;',
    put: '',
  },
  {
    name: 'older records win over newer ones',
    file: 'slink/records',
    find: 'for (let i = n - 1; i >= 0; i--) {',
    put: 'for (let i = 0; i < n; i++) {',
  },
  {
    name: 'the applier moves the checkpoint without a sync',
    file: 'slink/applier',
    find: 'const rc = images.sync();',
    put: 'const rc = 0;',
  },
  {
    name: 'the applier takes what is not durable',
    file: 'slink/applier',
    find: 'return this.parts.window.seqOf(W.DURABLE, this.applied);',
    put: 'return this.parts.window.seqOf(W.TAIL, this.applied);',
  },
  {
    name: 'the shipper skips a batch now and then',
    file: 'slink/shipper',
    find: 'const rc = site.write(batch);',
    put: 'const rc = batch.records % 5 === 3 ? 0 : site.write(batch);',
  },
  {
    name: 'a site applies a batch before it is staged',
    file: 'slink/folder',
    find: 'const rc = stage.append(batch);',
    put: 'this.apply(batch); const rc = stage.append(batch);',
  },
  {
    name: 'a site confirms a batch that is staged in the page cache only',
    file: 'slink/stage',
    find: "rc = this.io.fdatasync('SITE:STAGE-SYNC', this.fd);",
    put: 'rc = 0;',
  },
  {
    name: 'a site empties its stage before its images are synced',
    file: 'slink/folder',
    find: 'let r = images.sync();',
    put: 'let r = 0;',
  },
  {
    name: 'stage replay takes a torn batch',
    file: 'slink/stage',
    find: 'if (!this.continues(whole, end) || !soundRecords(whole, end.seq, chain))',
    put: 'soundRecords(whole, end.seq, chain); if (!this.continues(whole, end))',
  },
  {
    name: 'stage replay ignores seq, chain and stamp of a batch',
    file: 'slink/stage',
    find: 'if (!this.continues(whole, end) || !soundRecords(whole, end.seq, chain))',
    put: 'chain.load(whole.dv, SB_CHAIN); end.seq = getU64(whole.dv, SB_SEQ); if (!soundRecords(whole, end.seq, chain))',
  },
  {
    name: 'recovery ignores the chain',
    file: 'replog/reader',
    find: "return this.chain.equals(this.mem.dv, whole + B_CHAIN) ? undefined : 'chain';",
    put: 'this.chain.load(this.mem.dv, whole + B_CHAIN); return undefined;',
  },
  {
    name: 'recovery ignores the checksums of records',
    file: 'replog/reader',
    find: 'if (recordSum(u8, record, data) !== dv.getUint32(record + R_SUM, true))',
    put: 'if (false)',
  },
  {
    name: 'the checkpointer gives log space back before the index is committed',
    file: 'replog/checkpointer',
    find: 'const indexGeneration = this.index.commit(change);',
    put: 'this.shared.logHead = head.pos; const indexGeneration = this.index.commit(change);',
  },
  {
    name: 'the superblock is not synced',
    file: 'replog/logfile',
    find: "const s = this.io.fdatasync('REPLOG:SUPER-SYNC', this.fd);",
    put: 'const s = 0;',
  },
  {
    name: 'a lost index is trusted',
    file: 'replog/recovery',
    find: 'return index.id !== s.indexId || index.generation < s.indexGeneration;',
    put: 'return false;',
  },
  {
    name: 'an index that was set back is trusted',
    file: 'replog/recovery',
    find: 'return index.id !== s.indexId || index.generation < s.indexGeneration;',
    put: 'return index.id !== s.indexId;',
  },
  {
    name: 'records leave the window before requests that are sent again were seen',
    file: 'device/group',
    find: 'if (this.awaitsResent)',
    put: 'if (false)',
  },
  {
    name: 'a request that is sent again is not recognised',
    file: 'device/group',
    find: 'const seq = this.resent.find(lo, hi, this.head, this.appender.seq);',
    put: 'const seq = undefined;',
  },
  {
    name: 'a read does not see what is only in the window',
    file: 'device/overlay',
    find: 'this.buckets[bucket] = id;',
    put: 'if (id % 7 !== 3) this.buckets[bucket] = id;',
  },
  {
    name: 'a discard is forgotten',
    file: 'slink/records',
    find: 'case REC.DISCARD:',
    put: 'case REC.DISCARD: return 0;',
  },
];

export interface MutantResult {
  code: number | null;
  output: string;
}

/** Copies the build under `root` to `to`, its node_modules being those of the repository. */
export function copyBuild(root: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(join(to, 'test'), { recursive: true });
  const js = { recursive: true, filter: (path: string) => !/\.(?:map|d\.ts)$/.test(path) };
  cpSync(join(root, 'src'), join(to, 'src'), js);
  cpSync(join(root, 'test/support'), join(to, 'test/support'), js);
  cpSync(join(root, 'test/sim'), join(to, 'test/sim'), js);
}

export function patch(to: string, mutant: Mutant): void {
  const path = join(to, 'src', `${mutant.file}.js`);
  const text = readFileSync(path, 'utf8');
  const found = text.split(mutant.find).length - 1;
  if (found !== 1)
    throw new Error(`mutant "${mutant.name}": its place occurs ${found} times in ${mutant.file}.js, not once`);
  writeFileSync(
    path,
    text.replace(mutant.find, () => mutant.put),
  );
}

/** Runs the simulator of a build, at most `ms`. */
export function runBuild(to: string, args: readonly string[], ms: number): Promise<MutantResult> {
  return new Promise((resolve) => {
    const script = join(to, 'test/sim/run.js');
    execFile(process.execPath, [script, ...args], { timeout: ms, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
      resolve({
        code: error === null ? 0 : typeof error.code === 'number' ? error.code : null,
        output: stdout + stderr,
      });
    });
  });
}
