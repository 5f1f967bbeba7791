/** Small matters of language. */

/** `a`, `a and b`, `a, b and c`; more than `most` are counted. */
export function sentenceList(items: readonly string[], most = 5): string {
  const shown = items.length > most ? [...items.slice(0, most), `${items.length - most} more`] : [...items];
  const last = shown.pop();
  return shown.length === 0 ? (last ?? '') : `${shown.join(', ')} and ${last ?? ''}`;
}
