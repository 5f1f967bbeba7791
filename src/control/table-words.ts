/** Lines and words of a table: blanks separate, a backslash takes the next character as it stands. */
import { RepError, type ErrnoName } from '../base/errors.js';

/** A blank in a path is printed as `\ `, as dmsetup does. */
export function escapeWord(text: string): string {
  return text.replace(/[\\ \t]/g, (ch) => `\\${ch}`);
}

export interface TableLine {
  /** Counted from 1. */
  nr: number;
  words: string[];
}

/** Lines that hold anything; what begins with `#` is for people. */
export function splitTable(text: string): TableLine[] {
  return text
    .split('\n')
    .map((line, i) => ({ nr: i + 1, words: line.trim().startsWith('#') ? [] : splitWords(line) }))
    .filter((line) => line.words.length > 0);
}

function splitWords(line: string): string[] {
  const words = line.match(/(?:\\.|[^\s\\]|\\$)+/gu) ?? [];
  return words.map((word) => word.replace(/\\(.)/gu, '$1'));
}

/** The words of one line, taken one after the other; knows where it stands for what it has to say. */
export class Words {
  readonly where: string;
  private readonly words: readonly string[];
  private at = 0;

  constructor(words: readonly string[], where: string) {
    this.words = words;
    this.where = where;
  }

  get left(): number {
    return this.words.length - this.at;
  }

  /** The next word; `what` says what is missing where there is none. */
  next(what: string): string {
    const word = this.words[this.at];
    if (word === undefined) throw this.fault('EINVAL', `${what} is missing`, 'the line ends too early');
    this.at++;
    return word;
  }

  /** `n` words at once, for a count that stands before them. */
  take(n: number, what: string): string[] {
    if (n > this.left)
      throw this.fault('EINVAL', `${what} ${n}`, `only ${this.left} words are left; correct the count`);
    this.at += n;
    return this.words.slice(this.at - n, this.at);
  }

  /** A whole number from 0 up. */
  number(what: string, max = Number.MAX_SAFE_INTEGER): number {
    const word = this.next(what);
    const n = /^\d+$/.test(word) ? Number(word) : NaN;
    if (!Number.isSafeInteger(n)) throw this.fault('EINVAL', `${what} "${word}"`, 'write a whole number from 0 up');
    if (n > max) throw this.fault('EINVAL', `${what} ${word}`, `${max} is the largest there is`);
    return n;
  }

  fault(errno: ErrnoName, what: string, next: string): RepError {
    return new RepError(errno, `${this.where}: ${what}: ${next}`);
  }

  /** Runs what knows nothing of lines, and says where its complaint belongs. */
  within<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      throw new RepError(error.errno, `${this.where}: ${error.message}`, { cause: error });
    }
  }
}
