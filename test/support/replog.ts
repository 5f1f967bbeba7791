/** What stands in the log of an unmounted group, as `reptool replog dump` prints it. */
import { describeOutcome } from './proc.js';
import type { Mounted } from './mounted.js';

export interface LoggedWrite {
  seq: number;
  offset: number;
  length: number;
}

interface DumpedRecord {
  type: string;
  seq: number;
  offset: number;
  length: number;
}

export async function writeRecords(mounted: Mounted): Promise<LoggedWrite[]> {
  const words = ['replog', 'dump', '--state', mounted.state, '--json'];
  const outcome = await mounted.reptool(words, { timeoutMs: 60_000 });
  if (outcome.status !== 0) throw new Error(describeOutcome('reptool replog dump', outcome));
  const dumped = JSON.parse(outcome.stdout) as { records: DumpedRecord[] };
  return dumped.records.filter((record) => record.type === 'write');
}
