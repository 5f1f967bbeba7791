/**
 * Policies and fall-behind limits as a table or a message says them (spec ).
 *
 *   policy   asynchronous | synchronous | stall, each by any prefix that is unambiguous (a lone `s` is stall),
 *            several joined by `+`: `async+stall`
 *   limit    ios N | size N[s|k|m|g|t|p|e] | timeout N[t|s|m|h|d], as two words or as one with `=`; upper or lower
 *            case; a bare size is sectors, k is 1024 bytes; a bare timeout is milliseconds, and so is t
 *
 * All throw EINVAL naming the word.
 */
import { RepError } from '../base/errors.js';
import { SECTOR, roundDown } from '../base/units.js';
import type { FallBehind, SiteConfig } from './config.js';

const POLICIES = ['asynchronous', 'synchronous', 'stall'] as const;
const LIMITS = ['ios', 'size', 'timeout'] as const;
type Limit = (typeof LIMITS)[number];

const SIZE_UNITS: Record<string, number> = { '': SECTOR, s: SECTOR };
'kmgtpe'.split('').forEach((unit, i) => (SIZE_UNITS[unit] = 1024 ** (i + 1)));
const TIME_UNITS: Record<string, number> = { '': 1, t: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export function parsePolicy(word: string): Pick<SiteConfig, 'policy' | 'stall'> {
  const found = new Set(word.split('+').map((part) => onePolicy(part, word)));
  if (found.has('asynchronous') && found.has('synchronous'))
    throw invalid(`policy "${word}"`, 'a site is synchronous or asynchronous; name one');
  return { policy: found.has('synchronous') ? 'sync' : 'async', stall: found.has('stall') };
}

function onePolicy(part: string, word: string): (typeof POLICIES)[number] {
  const text = part.toLowerCase();
  if (text === 's') return 'stall';
  const found = text === '' ? [] : POLICIES.filter((policy) => policy.startsWith(text));
  if (found.length === 1) return found[0]!;
  throw invalid(`policy "${word}"`, 'write asynchronous, synchronous or stall, joined by + where two are meant');
}

export const NO_LIMITS: FallBehind = { ios: 0, size: 0, timeoutMs: 0 };

/** Adds one limit to `before`: `ios`, `10000`. */
export function parseLimit(type: string, value: string, before: FallBehind = NO_LIMITS): FallBehind {
  const limit = LIMITS.find((name) => name === type.toLowerCase());
  if (limit === undefined) throw invalid(`fall-behind "${type}"`, 'write ios, size or timeout');
  const n = amount(limit, value);
  if (limit === 'ios') return { ...before, ios: n };
  return limit === 'size' ? { ...before, size: n } : { ...before, timeoutMs: n };
}

/** `ios=10000` in one word. */
export function parseLimitWord(word: string, before: FallBehind = NO_LIMITS): FallBehind {
  const at = word.indexOf('=');
  if (at < 0) throw invalid(`fall-behind "${word}"`, 'write it as type=number, such as ios=10000 or size=200m');
  return parseLimit(word.slice(0, at), word.slice(at + 1), before);
}

export function isLimit(word: string): boolean {
  return LIMITS.some((name) => name === word.toLowerCase());
}

function amount(limit: Limit, value: string): number {
  const m = /^(\d+)([a-z]?)$/i.exec(value);
  const units: Record<string, number> = limit === 'ios' ? { '': 1 } : limit === 'size' ? SIZE_UNITS : TIME_UNITS;
  const n = m === null ? NaN : Number(m[1]) * (units[m[2]!.toLowerCase()] ?? NaN);
  if (Number.isSafeInteger(n)) return n;
  // Nobody falls behind by so much: the largest number that is kept exactly means the same.
  if (limit === 'size' && Number.isFinite(n)) return roundDown(Number.MAX_SAFE_INTEGER, SECTOR);
  const form = {
    ios: 'a number of writes',
    size: 'a number with s, k, m, g, t, p or e',
    timeout: 'a number with t, s, m, h or d',
  };
  throw invalid(`${limit} "${value}"`, `write ${form[limit]}`);
}

function invalid(what: string, next: string): RepError {
  return new RepError('EINVAL', `${what}: ${next}`);
}
