/**
 * Units. Inside the program every quantity is a plain `number` with a brand where two units could be
 * mixed up; a cast stands only where a conversion lives (here).
 *
 * 64-bit quantities are numbers below 2^53: `MAX_U53` is asserted where they enter from outside.
 */

/** Bytes in one sector; the unit of tables, of dirty regions and of device sizes. */
export const SECTOR = 512;

/** Block in which the overlay and the write planner work, and alignment of everything in the log. */
export const BLOCK = 4096;

export const KIB = 1024;
export const MIB = 1024 * 1024;
export const GIB = 1024 * 1024 * 1024;

/** Largest integer that a `number` carries exactly. */
export const MAX_U53 = Number.MAX_SAFE_INTEGER;

/** A record's number: gapless over all devices of a group. */
export type Seq = number;
/** A byte position in the log that only grows; its place in the file is derived (see replog/layout). */
export type LogPos = number;
/** Byte offset on a device. */
export type ByteOffset = number;
/** Sector number on a device (512 bytes). */
export type Sector = number & { readonly __unit?: 'sector' };

export function roundUp(n: number, unit: number): number {
  return Math.ceil(n / unit) * unit;
}

export function roundDown(n: number, unit: number): number {
  return Math.floor(n / unit) * unit;
}

/**
 * Parses a size as people write it: `10G`, `512M`, `4096`, `1.5T`; binary units, an optional `i` and `B`
 * after the letter (`10GiB`). `s` counts sectors. Returns bytes, or undefined where it is not a size.
 */
export function parseSize(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)\s*([skmgtpe])?(?:i?b)?$/i.exec(text.trim());
  if (!m) return undefined;
  const unit = (m[2] ?? '').toLowerCase();
  const factor = unit === 's' ? SECTOR : unit === '' ? 1 : 1024 ** ('kmgtpe'.indexOf(unit) + 1);
  const bytes = Number(m[1]) * factor;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Prints bytes the way operators read them: `1.5 GiB`, `512 B`. */
export function formatSize(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let n = bytes;
  let i = 0;
  while (n >= 1024 && i < names.length - 1) {
    n /= 1024;
    i++;
  }
  const text = i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1).replace(/\.0$/, '');
  return `${text} ${names[i]!}`;
}

/** Parses `500ms`, `60s`, `5m`, `2h`, `1d`; a bare number is seconds. Returns milliseconds or undefined. */
export function parseDuration(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/i.exec(text.trim());
  if (!m) return undefined;
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[(m[2] ?? 's').toLowerCase()];
  return factor === undefined ? undefined : Math.round(Number(m[1]) * factor);
}
