/**
 * Replog type `ringbuffer`, the log of format.ts. Its words in a table:
 *
 *   <dev> <dev_start> [auto|create|open [<size>]]      size in sectors
 *
 * Two words mean `open`. `auto` and `create` need a size; `open` takes none, since the log knows its own.
 */
import { RepError } from '../base/errors.js';
import { SECTOR } from '../base/units.js';
import { MIN_LOG } from './logfile.js';
import type { ReplogType } from './types.js';

const MODES = ['auto', 'create', 'open'] as const;

export const RINGBUFFER: ReplogType = {
  summary: 'a ring in a file or on a block device, one for all devices of the group',
  parse: (params) => {
    const [path, startWord, modeWord = 'open', sizeWord] = params;
    if (path === undefined || startWord === undefined || params.length > 4)
      throw invalid(
        `${params.length} words for the log`,
        'write 2 (DEV 0), 3 (DEV 0 open) or 4 (DEV 0 auto|create SECTORS)',
      );
    const mode = MODES.find((m) => m === modeWord);
    if (mode === undefined) throw invalid(`"${modeWord}"`, 'write auto, create or open');
    if (mode === 'open' && sizeWord !== undefined)
      throw invalid(`open ${sizeWord}`, 'leave the size out: an existing log knows its own');
    if (mode !== 'open' && sizeWord === undefined) throw invalid(mode, `write its size in sectors behind ${mode}`);
    const start = whole(startWord, 'the start of the log');
    if (start !== 0) throw invalid(`start ${startWord}`, 'a log begins at sector 0 of its file or device; write 0');
    return { path, start, mode, size: sizeWord === undefined ? undefined : sizeOf(sizeWord) };
  },
  print: ({ path }) => [path, '0', 'open'],
};

function sizeOf(word: string): number {
  const sectors = whole(word, 'the size of the log');
  const bytes = sectors * SECTOR;
  if (bytes < MIN_LOG || !Number.isSafeInteger(bytes))
    throw invalid(`size ${word}`, `a log has at least ${MIN_LOG / SECTOR} sectors`);
  return bytes;
}

function whole(word: string, what: string): number {
  const n = /^\d+$/.test(word) ? Number(word) : NaN;
  if (!Number.isSafeInteger(n)) throw invalid(`"${word}"`, `${what} is a number of sectors`);
  return n;
}

function invalid(what: string, next: string): RepError {
  return new RepError('EINVAL', `ringbuffer: ${what}: ${next}`);
}
