/** Verify and resync in words: as status shows them, and as `reptool site verify` ends. */
import { formatSize } from '../base/units.js';
import type { ResyncStatus, VerifyStatus } from '../control/status.js';
import { formatSeconds, plural } from './output.js';

/** Ranges that are listed; status.json has more. */
const LISTED = 8;

/** A site that is out of the ring. */
export function resyncText(r: ResyncStatus): string {
  const left = r['seconds-left'];
  const parts = [
    `resync: ${size(r['bytes-left'])} left`,
    r['bytes-per-second'] > 0 ? `${size(r['bytes-per-second'])}/s` : '',
    left === null ? '' : `${formatSeconds(left)} to go`,
    r['bytes-compared'] > 0
      ? `${size(r['bytes-copied'] + r['bytes-zeroed'])} of ${size(r['bytes-compared'])} differed`
      : '',
    r.state === 'waiting' ? 'waits for the site' : '',
  ];
  return `${parts.filter((part) => part !== '').join(', ')}; inconsistent until it is done`;
}

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
