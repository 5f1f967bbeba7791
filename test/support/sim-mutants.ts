/**
 * The simulator's own test: the product with one promise broken on purpose. Each mutant is one patch of the
 * compiled JavaScript in a copy of the build; the simulator must find it within seconds.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SimMode } from './sim-seed.js';

export interface Mutant {
  name: string;
  /** Under src/, without .js. */
  file: string;
  /** Found exactly once, or the test fails: the code has changed and the mutant must be looked at again. */
  find: string;
  put: string;
  /** A second place in the same or another file, where one is not enough. */
  also?: { file: string; find: string; put: string };
  /** What else goes on in the group it is run with. */
  mode?: SimMode;
  /** First seed to try, one that is known to find it soon; without it the scenarios of sim-every come first. */
  seed?: number;
}

/** Offset of R_DEVICE in a record's header: the mutants below stand in files that do not import it. */
const R_DEVICE = 40;

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
    seed: 18,
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
    find: 'const rc = site.write(batch, this.confirm);',
    put: 'const rc = batch.records % 5 === 3 ? 0 : site.write(batch, this.confirm);',
    seed: 1,
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
    seed: 4,
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
    seed: 1,
  },
  {
    name: 'an index that was set back is trusted',
    file: 'replog/recovery',
    find: 'return index.id !== s.indexId || index.generation < s.indexGeneration;',
    put: 'return index.id !== s.indexId;',
    seed: 1,
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
    seed: 4,
  },
  {
    name: 'a discard is forgotten',
    file: 'slink/records',
    find: 'case REC.DISCARD:',
    put: 'case REC.DISCARD: return 0;',
    seed: 1,
  },
  // --- order across devices, and sites beside each other ---
  {
    name: 'of several devices only the first one is synced',
    file: 'slink/images',
    find: 'for (const image of this.dirty) {\n            const rc',
    put: 'for (const image of this.dirty.slice(0, 1)) {\n            const rc',
  },
  {
    name: 'the applier sorts by device over the border of a batch',
    file: 'slink/applier',
    find: 'const rc = sink.push(slot + S_RECORD, window.payloadAt(window.payloadPos(slot)));',
    put:
      'this.later ??= [];' +
      'if (seq === this.applied) for (const s of this.later.splice(0))' +
      '  sink.push(window.slotAt(s) + S_RECORD, window.payloadAt(window.payloadPos(window.slotAt(s))));' +
      `if (dv.getUint32(slot + S_RECORD + ${R_DEVICE}, true) > 0 && durable - seq < 3) { this.later.push(seq++); continue; }` +
      'const rc = sink.push(slot + S_RECORD, window.payloadAt(window.payloadPos(slot)));',
  },
  {
    name: 'a site sorts by device over the border of a batch',
    file: 'slink/folder',
    find: 'return this.apply(batch);',
    put: 'this.images.late = 1; const done = this.apply(batch); this.images.late = undefined; return done;',
    also: {
      file: 'slink/images',
      find: 'write(nr, offset, vec) {',
      put:
        'write(nr, offset, vec) { if (this.late === nr) {' +
        '  const last = this.kept; this.kept = { offset, bytes: Buffer.concat(vec.mems.slice(0, vec.count).map((m, i) => m.u8.subarray(vec.offs[i], vec.offs[i] + vec.lens[i]))) };' +
        '  if (last === undefined) return 0; const m = (this.mem ??= vec.mems[0].constructor.lazy(1 << 21)); m.u8.set(last.bytes);' +
        '  vec.clear(); vec.add(m, 0, last.bytes.length); offset = last.offset; }',
    },
  },
  {
    name: 'a site writes one device ahead of its stage',
    file: 'slink/folder',
    find: 'const rc = stage.append(batch);',
    put: 'this.images.only = 1; this.apply(batch); this.images.only = undefined; const rc = stage.append(batch);',
    also: {
      file: 'slink/images',
      find: 'write(nr, offset, vec) {',
      put: 'write(nr, offset, vec) { if (this.only !== undefined && this.only !== nr) return 0;',
    },
  },
  {
    name: 'a cursor is told before the site has confirmed',
    file: 'slink/shipper',
    find: 'const rc = site.write(batch, this.confirm);',
    put: 'batch.end(cursor); this.tellCursor(0, true); const rc = site.write(batch, this.confirm);',
  },
  {
    name: 'one write takes neighbours on another device with it',
    file: 'slink/plan',
    find: 'while (this.pieceDevice[p] === device &&',
    put: 'while (',
    seed: 4,
  },
  {
    name: 'a sector of one device hides the same sector of another',
    file: 'slink/plan',
    find: 'if (slotBlock[i] === block && slotDevice[i] === device) {',
    put: 'if (slotBlock[i] === block) {',
    also: { file: 'slink/plan', find: '^ Math.imul(device + 1, 0x85ebca6b)', put: '' },
  },
  {
    name: 'a failed write to one of several devices is passed over',
    file: 'slink/records',
    find: 'const rc = images.queue?.(plan.device, plan.offset, plan.vec) ?? images.write(plan.device, plan.offset, plan.vec);',
    put:
      'const done = images.queue?.(plan.device, plan.offset, plan.vec) ?? images.write(plan.device, plan.offset, plan.vec);' +
      'const rc = plan.device > 0 ? 0 : done;',
    seed: 14,
  },
  {
    name: 'the log keeps what its first site needs, and forgets the others',
    file: 'replog/checkpointer',
    find: 'if (holds && fact.cursor.pos < head.pos)',
    put: 'if (holds && fact.nr === 1 && fact.cursor.pos < head.pos)',
    seed: 1,
  },
  {
    name: 'a site is taken for another one of its group',
    file: 'slink/folder-open',
    find: 'if (stamp.nr !== identity.nr)',
    put: 'if (false)',
    seed: 11,
  },
  {
    name: 'a site that fails stops the local disk',
    file: 'slink/shipper',
    find: 'fail(reason) {',
    put: 'fail(reason) { this.parts.shared.store(SH.LOG_ERROR, 5);',
    seed: 1,
  },
  // --- while slink 0 is detached ---
  {
    name: 'records leave the window before the site that is read has them',
    file: 'device/group',
    find: 'const images = this.source.limit(near, this.head);',
    put: 'const images = this.source.nr > 0 ? near : this.source.limit(near, this.head);',
    mode: 'detach',
    seed: 5,
  },
  {
    name: 'reads come from slink 0 again before it has caught up',
    file: 'device/source',
    find: 'shared.load(SH.LOCAL_ERROR) === 0 && window.seqOf(W.APPLIED, near) >= head',
    put: 'true',
    also: { file: 'slink/detach', find: 'if (((window.load(W.APPLIED) - head) | 0) < 0)', put: 'if (false)' },
    mode: 'detach',
    seed: 10,
  },
];

/** Each is looked for with policies of sites. */
const OF_POLICIES: readonly Omit<Mutant, 'policies'>[] = [
  {
    name: 'a write is answered before its site has it',
    file: 'replog/waiting',
    find: 'if ((flush[at] | flush[at + 1]) === 0)',
    put: 'if (true)',
  },
  {
    name: 'links of the upper half hold nobody',
    file: 'replog/waiting',
    find: 'const hi = this.unconfirmed(flush[at + 1] & shared.load(SH.GATES + 1), 32, seq);',
    put: 'const hi = 0;',
  },
  {
    name: 'a request that is sent again waits for no link',
    file: 'device/group',
    find: 'const linksLo = window.dv.getInt32(slot + S_LINKS, true) & shared.load(SH.GATES);',
    put: 'const linksLo = 0;',
  },
  {
    name: 'a record is released while its request waits for a link',
    file: 'replog/waiting',
    find: 'return least - 1;',
    put: 'return durable;',
  },
  {
    name: 'a flush does not wait for sync sites',
    file: 'device/group',
    find: 'const done = durable && this.gates.confirmed(seq);',
    put: 'const done = durable;',
  },
  {
    name: 'a link is degraded before anybody has waited',
    file: 'slink/policy',
    find: 'return now - link.waitsSince >= link.rules.holdMs;',
    put: 'return true;',
  },
  {
    name: 'a link stays degraded for ever',
    file: 'slink/policy',
    find: 'return done;',
    put: 'return false;',
  },
  {
    name: 'fall-behind in records looks the wrong way',
    file: 'device/gates',
    find: 'if (ios > 0 && seq - from > ios)',
    put: 'if (ios > 0 && from - seq > ios)',
  },
  {
    name: 'fall-behind in bytes counts what the site has',
    file: 'device/gates',
    find: 'payloadPos - floatView[SHF.BYTES + place] > bytes',
    put: 'floatView[SHF.BYTES + place] > payloadPos + bytes',
  },
  {
    name: 'no time is too long to fall behind',
    file: 'device/gates',
    find: 'return now > oldest + us;',
    put: 'return false;',
  },
  {
    name: 'a link that is down counts for its limits',
    file: 'slink/policy',
    find: 'const limited = held && !sync && (!this.down(link) || link.rules.stall);',
    put: 'const limited = held && !sync;',
  },
  {
    name: 'release forgets the first link',
    file: 'slink/policy',
    find: 'if (!sync && !limited)',
    put: 'if (!sync && !limited && place !== this.links.keys().next().value)',
  },
  {
    name: 'a removed link goes on holding',
    file: 'slink/policy',
    find: 'this.links.delete(place);',
    put: 'this.links.delete(place); return;',
  },
  {
    name: 'an older request takes back what a newer one wants',
    file: 'replog/shared',
    find: 'if (floatView[SHF.WANTED + place] < seq)',
    put: '',
    seed: 135,
  },
];

export const POLICY_MUTANTS: readonly Mutant[] = OF_POLICIES.map((mutant) => ({ ...mutant, mode: 'policies' }));

export const DEFERRAL_MUTANTS: readonly Mutant[] = [
  {
    name: 'a busy group puts its sites off for as long as it is busy',
    file: 'slink/deferral',
    find: 'if (this.busy && room && now - this.since < defer.ms)',
    put: 'if (this.busy && room)',
    mode: 'deferral',
  },
  {
    name: 'who waits for a site is not heard while it is put off',
    file: 'slink/shipper',
    find: 'if (hurried || this.wanted ||',
    put: 'if (',
    mode: 'deferral',
  },
  {
    name: 'a group that is not busy is put off as if it were',
    file: 'slink/deferral',
    find: 'this.busy = pos - this.markPos >= this.batch;',
    put: 'this.busy = true;',
    mode: 'deferral',
  },
];

export const RESIZE_MUTANTS: readonly Mutant[] = [
  {
    name: 'a log that wraps grows without its part behind the wrap being copied',
    file: 'replog/resize',
    find: ', copy: { from: end, to: pos } }',
    put: ' }',
    mode: 'resize',
    seed: 2,
  },
  {
    name: 'what is copied within a log is not synced',
    file: 'replog/logwork',
    find: "this.check(io.fdatasync('REPLOG:WORK-SYNC', fd), 'syncing it');",
    put: '',
    mode: 'resize',
    seed: 14,
  },
  {
    name: 'the committer goes on writing while the log gets another size',
    file: 'replog/committer',
    find: 'if (this.holding && this.healUntil === 0)',
    put: 'if (this.holding && this.healUntil === 0 && this.unsynced > 0)',
    mode: 'resize',
    seed: 9,
  },
  {
    name: 'a log shrinks although its end lies beyond',
    file: 'replog/resize',
    find: 'if (pos <= end && pos - lap <= ring)',
    put: 'if (pos <= end)',
    mode: 'resize',
    seed: 3,
  },
];

export const RAW_MUTANTS: readonly Mutant[] = [
  {
    name: 'a raw site confirms what is not flushed',
    file: 'slink/raw-site',
    find: 'if (rc >= 0)\n            rc = this.legs.sync();',
    put: '',
    mode: 'raw',
  },
  {
    name: 'a raw site has its stamp before its flush',
    file: 'slink/raw-site',
    find: 'if (rc >= 0)\n            rc = this.legs.sync();',
    put:
      'if (rc >= 0) { const kept = { ...stamp.cursor }; batch.end(stamp.cursor); rc = this.writeStamp();' +
      '  Object.assign(stamp.cursor, kept); if (rc >= 0) rc = this.legs.sync(); }',
    mode: 'raw',
  },
  {
    name: 'a raw site is written to behind a closed stamp',
    file: 'slink/raw-site',
    find: 'if (!stamp.open || stamp.settled) {',
    put: 'if (false) {',
    mode: 'raw',
  },
  {
    name: 'the stamp of a raw site is not synced',
    file: 'slink/raw-stamp',
    find: "rc = io.fdatasync('STAMP:SYNC', this.fd);\n        // After",
    put: 'rc = 0;\n        // After',
    mode: 'raw',
  },
  {
    name: 'a raw site takes any disk for its own',
    file: 'slink/raw-samples',
    find: 'if (found !== digest)',
    put: 'if (false)',
    mode: 'raw',
    seed: 28,
  },
];

/** Links that leave the ring, and come back. */
const OF_RESYNC: readonly Omit<Mutant, 'mode'>[] = [
  {
    name: 'marks of the segment that is being filled are forgotten',
    file: 'slink/marking',
    find: 'this.markBatch(reader.batch);',
    put: '',
  },
  {
    name: 'marks of closed segments are forgotten',
    file: 'slink/marking',
    find: 'if (record >= low && record < high)',
    put: 'if (false)',
  },
  {
    name: 'records run past what is applied while regions are copied',
    file: 'slink/resync',
    find: 'return Math.min(durable, this.parts.window.seqOf(W.APPLIED, durable));',
    put: 'return durable;',
    also: { file: 'slink/resync', find: 'if (cursor.seq > local.t1)', put: 'if (false)' },
  },
  {
    name: 'a site says that it is whole while regions are dirty',
    file: 'slink/resync',
    find: 'if (this.wholeAt < 0 || cursor.seq < this.hurryTo)',
    put: 'if (cursor.seq < this.hurryTo)',
  },
  {
    name: 'copies are told before they are settled',
    file: 'slink/resync',
    find: 'const rc = site.copy.settle();',
    put: 'const rc = 0;',
  },
  {
    name: 'what is dirty is forgotten with the daemon',
    file: 'slink/dirt',
    find: "if (how !== 'stored')",
    put: 'if (true)',
  },
  {
    name: 'a site that is to stall is dropped',
    file: 'slink/leaving',
    find: 'if (holder.stall)',
    put: 'if (false)',
  },
  {
    name: 'a site that is out of the ring holds writers',
    file: 'slink/leaving',
    find: "return holder.away || waited ? 'drop' : 'wait';",
    put: "return 'wait';",
  },
];

export const RESYNC_MUTANTS: readonly Mutant[] = OF_RESYNC.map((mutant) => ({ ...mutant, mode: 'resync' }));

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

export function patch(to: string, { name, also, ...first }: Mutant): void {
  for (const { file, find, put } of also === undefined ? [first] : [first, also]) {
    const path = join(to, 'src', `${file}.js`);
    const text = readFileSync(path, 'utf8');
    const found = text.split(find).length - 1;
    if (found !== 1) throw new Error(`mutant "${name}": its place occurs ${found} times in ${file}.js, not once`);
    writeFileSync(
      path,
      text.replace(find, () => put),
    );
  }
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
