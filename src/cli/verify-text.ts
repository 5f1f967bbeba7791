/** A verify in words: as status shows it, and as `reptool site verify` ends. */
import { formatSize } from '../base/units.js';
import type { VerifyStatus } from '../control/status.js';
import { formatSeconds, plural } from './output.js';

/** Ranges that are listed; status.json has more. */
const LISTED = 8;

/** What a status shows of it. */
export function verifyText(v: VerifyStatus): string[] {
  if (v.ended !== null) return [`verify of ${v.started}: ${outcome(v)}`, ...rangeLines(v)];
  const left = v['seconds-left'];
  const parts = [
    `verify: ${percent(v)} of ${size(v['bytes-total'])}`,
    v['bytes-per-second'] > 0 ? `${size(v['bytes-per-second'])}/s` : '',
    left === null ? '' : `${formatSeconds(left)} left`,
    v.reason === null ? '' : `waits: ${v.reason}`,
  ].filter((part) => part !== '');
  return [`${parts.join(', ')}; ${difference(v)}`, ...rangeLines(v)];
}

/** How it ended, without a full stop. */
export function outcome(v: VerifyStatus): string {
  const took = (Date.parse(v.ended ?? v.started) - Date.parse(v.started)) / 1000;
  if (v.state === 'done') return `${size(v['bytes-total'])} compared in ${formatSeconds(took)}, ${difference(v)}`;
  const how = v.state === 'stopped' ? 'stopped' : 'failed';
  const why = v.reason === null ? '' : ` (${v.reason})`;
  return `${how} after ${size(v['bytes-compared'])} of ${size(v['bytes-total'])}${why}; ${difference(v)}`;
}

function difference(v: VerifyStatus): string {
  const differs = v['different-bytes'];
  if (differs === 0) return v.ended === null || v.state !== 'done' ? 'no difference so far' : 'no difference';
  const ranges = plural(v.different.length, 'range');
  const rounded = v['range-grain'] > 512 ? `, told in steps of ${size(v['range-grain'])}` : '';
  return `${size(differs)} in ${ranges} differ${rounded}`;
}

export function rangeLines(v: VerifyStatus, most = LISTED): string[] {
  const lines = v.different
    .slice(0, most)
    .map((r) => `  ${r.device}: ${r.length} bytes from byte ${r.start} on differ`);
  const more = v.different.length - most;
  if (more > 0) lines.push(`  and ${plural(more, 'range')} more; status.json lists them`);
  return lines;
}

function percent(v: VerifyStatus): string {
  return v['bytes-total'] === 0 ? '100%' : `${Math.floor((100 * v['bytes-compared']) / v['bytes-total'])}%`;
}

function size(bytes: number): string {
  return formatSize(bytes).replace(' ', '');
}
