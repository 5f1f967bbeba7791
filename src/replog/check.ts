/** Verifies a log that is not mounted, from its head to its tail. Reads only. */
import { realIo } from '../base/io.js';
import type { LogPos, Seq } from '../base/units.js';
import type { Superblock } from './format.js';
import { LogFile } from './logfile.js';
import { LogReader, READ, type Break } from './reader.js';
import { SCAN_BYTES, scanBehind } from './recovery.js';

export interface CheckReport {
  path: string;
  clean: boolean;
  /** What was verified: [from, to). */
  from: { pos: LogPos; seq: Seq };
  to: { pos: LogPos; seq: Seq };
  durable: { pos: LogPos; seq: Seq };
  records: number;
  batches: number;
  payloadBytes: number;
  padding: number;
  /** Why the log ends where it does, where that is a batch that was not finished. */
  torn?: string;
  /** A sentence each; none = the log is sound. */
  problems: string[];
}

/** Throws RepError where `path` is no log that this program knows; what is wrong inside is in the report. */
export function checkLog(path: string, progress?: (bytes: number, total: number) => void): CheckReport {
  const log = LogFile.open(realIo, path, { readOnly: true });
  const reader = new LogReader(log);
  const s = log.super;
  const report: CheckReport = {
    path,
    clean: s.clean,
    from: s.head,
    to: s.head,
    durable: s.durable,
    problems: [],
    records: 0,
    batches: 0,
    payloadBytes: 0,
    padding: 0,
  };
  const { problems } = report;
  try {
    if (log.superDamaged && s.serial > 1)
      problems.push('one of the two superblocks is damaged; the other one was used');
    reader.seekUnproven(s.head.pos);
    for (;;) {
      const r = s.clean ? reader.next(s.durable) : reader.next();
      if (r !== READ.BATCH) break;
      const { batch } = reader;
      if (report.batches === 0 && batch.seq !== s.head.seq)
        problems.push(`the head should be record ${s.head.seq}, but the batch there begins with ${batch.seq}`);
      report.batches++;
      report.records += batch.count;
      report.payloadBytes += batch.payloadBytes;
      report.to = { pos: reader.place.pos, seq: reader.place.seq };
      checkPlace(s, report.to, problems, reader);
      progress?.(reader.place.pos - s.head.pos, Math.max(s.durable.pos, reader.place.pos) - s.head.pos);
    }
    report.padding = reader.padding;
    judgeEnd(log, report, reader.broken);
    return report;
  } finally {
    reader.close();
    log.close();
  }
}

/** The checkpoint names a chain: the records must lead to the same one. */
function checkPlace(s: Superblock, at: { pos: LogPos; seq: Seq }, problems: string[], reader: LogReader): void {
  const { checkpoint } = s;
  if (at.pos !== checkpoint.pos) return;
  if (reader.place.seq !== checkpoint.seq)
    problems.push(
      `the checkpoint says record ${checkpoint.seq} at position ${at.pos}, the log has ${reader.place.seq}`,
    );
  else if (reader.place.chainLo !== checkpoint.chainLo || reader.place.chainHi !== checkpoint.chainHi)
    problems.push(`the chain at the checkpoint (record ${checkpoint.seq}) is not that of the records before it`);
}

function saidDurable(log: LogFile, end: LogPos): boolean {
  const known = { pos: 0, seq: 0 };
  scanBehind(log, end, Math.min(SCAN_BYTES, log.ring), known);
  return known.pos > end;
}

function judgeEnd(log: LogFile, report: CheckReport, broken: Break | undefined): void {
  if (broken === undefined) return;
  const { seq, byte, reason } = broken;
  if (report.to.pos < report.durable.pos)
    report.problems.push(
      `record ${seq} at byte ${byte} is damaged (${reason}), before the durable point (seq ${report.durable.seq}); ` +
        `what follows was not verified`,
    );
  // A later batch may say that this one was durable: then recovery refuses the log too.
  else if (saidDurable(log, report.to.pos))
    report.problems.push(
      `record ${seq} at byte ${byte} is damaged (${reason}); batches behind it say that it was durable`,
    );
  // Blank space or an earlier lap is how a log ends; anything else was begun and not finished.
  else if (reason !== 'magic' && reason !== 'position') report.torn = `${reason} at byte ${byte}, record ${seq}`;
  if (reason === 'read') report.problems.push(`byte ${byte} of ${log.path} cannot be read`);
}
