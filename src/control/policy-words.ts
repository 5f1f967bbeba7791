/**
 * Policies in the words of a table line (spec ): `async`, `sync`, `async+stall`, and fall-behind limits as
 * `ios 10000`, `size 409600` (sectors), `timeout 30000` (milliseconds).
 */
import { SECTOR } from '../base/units.js';
import type { SiteConfig } from './config.js';

/** The policy as one word. */
export function policyWords({ policy, stall }: Pick<SiteConfig, 'policy' | 'stall'>): string {
  return stall ? `${policy}+stall` : policy;
}

/** Fall-behind limits as words of a table line, none where there is no limit. */
export function limitWords({ fallBehind }: Pick<SiteConfig, 'fallBehind'>): string[] {
  const { ios, size, timeoutMs } = fallBehind;
  return [
    ...(ios > 0 ? ['ios', String(ios)] : []),
    ...(size > 0 ? ['size', String(size / SECTOR)] : []),
    ...(timeoutMs > 0 ? ['timeout', String(timeoutMs)] : []),
  ];
}
