/**
 * A long run: seed after seed, all modes in turn, until so many hours of simulated time and so many writes are done. What
 * was done stands in a file, a line of JSON for each seed, so that a run that ends early goes on where it stopped.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { Coverage } from './sim-coverage.js';
import { collect } from './sim-memory.js';
import { MODES, commandOf, failureText, runSeed, type SimMode } from './sim-seed.js';

export interface Campaign {
  /** Simulated time, and requests that change a device, that are to be reached. */
  hours: number;
  writes: number;
  steps: number;
  /** First seed of one that begins. */
  seed: number;
  /** Where it is noted. */
  file: string;
  /** Stops earlier, at this `performance.now()`. */
  until: number;
}

/** A line of the file. */
interface Done {
  seed: number;
  mode: SimMode | 'plain';
  rough: boolean;
  steps: number;
  hours: number;
  writes: number;
  calls: number;
  /** Real time. */
  seconds: number;
  ok: boolean;
}

/** True where all that was asked for is done, and nothing was found. */
export async function runCampaign(campaign: Campaign, say: (line: string) => void): Promise<boolean> {
  const { file, steps } = campaign;
  const done = existsSync(file) ? readDone(file) : [];
  if (done.length > 0) say(`${file}: goes on behind ${done.length} seeds. ${sumOf(done)}`);
  const coverage = new Coverage();
  let seed = Math.max(campaign.seed - 1, ...done.map((one) => one.seed)) + 1;
  const began = performance.now();
  const rest = (what: 'hours' | 'writes'): number => (campaign[what] > 0 ? 1 - total(done, what) / campaign[what] : 0);
  const left = (): number => Math.max(rest('hours'), rest('writes'), 0);
  const before = left();
  for (let told = began; left() > 0 && performance.now() < campaign.until; seed++) {
    const mode = MODES[seed % MODES.length]!;
    const from = performance.now();
    const rough = seed % 4 === 3;
    const result = await runSeed({ seed, steps, rough, ...(mode === 'plain' ? {} : { [mode]: true }) });
    coverage.merge(result.coverage);
    const { calls, ok } = result;
    const line: Done = {
      ...{ seed, mode, rough, steps, hours: result.simulatedMs / 3_600_000, writes: result.writes, calls },
      ...{ seconds: (performance.now() - from) / 1000, ok },
    };
    done.push(line);
    appendFileSync(file, `${JSON.stringify(line)}\n`);
    if (!ok) {
      say(failureText(result));
      say(`FAILED seed ${seed} step ${result.steps}: ${commandOf(seed, steps, mode, rough)}`);
    }
    await collect();
    if (performance.now() - told < 60_000) continue;
    told = performance.now();
    const share = before - left();
    const ms = share > 0 ? ((told - began) / share) * left() : Infinity;
    say(`${sumOf(done)}; ${((1 - left()) * 100).toFixed(2)}%, about ${(ms / 3_600_000).toFixed(1)} hours left`);
  }
  say('faults, and how often:');
  for (const line of coverage.faultLines()) say(line);
  const failed = done.filter((one) => !one.ok);
  for (const { seed: nr, steps: n, mode, rough } of failed) say(`FAILED seed ${nr}: ${commandOf(nr, n, mode, rough)}`);
  say(`${left() > 0 ? 'stopped' : failed.length > 0 ? 'done' : 'ok'}: ${sumOf(done)}`);
  return left() === 0 && failed.length === 0;
}

function readDone(file: string): Done[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  // The last line is cut off where the run was killed while it wrote it.
  return lines.flatMap((line) => {
    try {
      return [JSON.parse(line) as Done];
    } catch {
      return [];
    }
  });
}

function total(done: readonly Done[], what: 'hours' | 'writes' | 'calls' | 'seconds'): number {
  return done.reduce((sum, one) => sum + one[what], 0);
}

function sumOf(done: readonly Done[]): string {
  const [hours, writes, seconds] = [total(done, 'hours'), total(done, 'writes'), total(done, 'seconds')];
  return (
    `${done.length} seeds, ${hours.toFixed(1)} simulated hours, ${writes} writes, ${total(done, 'calls')} calls ` +
    `in ${(seconds / 60).toFixed(1)} minutes: ${((hours * 3600) / seconds).toFixed(0)} simulated seconds and ` +
    `${(writes / seconds).toFixed(0)} writes a second`
  );
}
