/** What stands in the log of an unmounted group, as `reptool replog dump` prints it. */
import { describeOutcome } from './proc.js';
import type { Mounted } from './mounted.js';

export interface LoggedWrite {
  seq: number;
  offset: number;
  length: number;
}

interface DumpedFact {
  kind: string;
  type: string;
  seq: number;
  offset: number;
  length: number;
}

/** Write records from the log's head on; what every site has confirmed may have left it. */
export async function writeRecords(mounted: Mounted): Promise<LoggedWrite[]> {
  const words = ['replog', 'dump', '--state', mounted.state, '--group', mounted.group, '--json'];
  const outcome = await mounted.reptool(words, { timeoutMs: 60_000 });
  if (outcome.status !== 0) throw new Error(describeOutcome('reptool replog dump', outcome));
  const facts = outcome.stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as DumpedFact);
  return facts.filter((fact) => fact.kind === 'record' && fact.type === 'write');
}
