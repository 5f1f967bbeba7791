/** Words of messages: shortened as long as they stay unambiguous. */

/** The word of `words` that `word` is or begins, where there is just one. */
export function prefixOf<T extends string>(word: string, words: readonly T[]): T | undefined {
  const exact = words.find((w) => w === word);
  if (exact !== undefined || word === '') return exact;
  const found = words.filter((w) => w.startsWith(word));
  return found.length === 1 ? found[0] : undefined;
}
