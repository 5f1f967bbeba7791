/**
 * What commands print: progress, tables, times. Progress goes to stderr, so that stdout holds only the answer.
 */
import { formatSize } from '../base/units.js';

/** Where progress is written; a terminal gets a bar that is redrawn, anything else plain lines. */
export interface Sink {
  readonly isTTY?: boolean;
  write(text: string): boolean;
}

const REDRAW_MS = 100;
const LINE_MS = 5000;
const BAR = 30;

/** Progress of one long step. Nothing is shown for what is done within a moment. */
export class Progress {
  private readonly title: string;
  private readonly sink: Sink;
  private readonly started: number;
  private readonly now: () => number;
  private shown = 0;
  private drawn = false;
  private last = '';

  constructor(title: string, sink: Sink = process.stderr, now: () => number = () => performance.now()) {
    this.title = title;
    this.sink = sink;
    this.now = now;
    this.started = now();
    this.shown = this.started;
  }

  /** Done so far, of a total in bytes. */
  bytes(done: number, total: number): void {
    const part = total > 0 ? Math.min(1, done / total) : 1;
    const full = Math.round(part * BAR);
    const percent = `${Math.floor(part * 100)} %`;
    const sizes = `${formatSize(done)} of ${formatSize(total)}`;
    this.show(
      `${this.title} [${'='.repeat(full)}${' '.repeat(BAR - full)}] ${percent.padStart(5)}  ${sizes}`,
      `${this.title}: ${percent}, ${sizes}`,
    );
  }

  /** What is going on now, in words. */
  note(text: string): void {
    this.show(`${this.title}: ${text}`, `${this.title}: ${text}`);
  }

  /** Takes the bar away; lines stay. */
  end(): void {
    if (this.drawn) this.sink.write('\r\x1b[K');
    this.drawn = false;
  }

  private show(bar: string, line: string): void {
    const now = this.now();
    if (this.sink.isTTY === true) {
      if (now - this.shown < REDRAW_MS) return;
      this.sink.write(`\r\x1b[K${bar}`);
      this.drawn = true;
    } else {
      if (now - this.shown < LINE_MS || line === this.last) return;
      this.sink.write(`${line}\n`);
      this.last = line;
    }
    this.shown = now;
  }
}

/** Columns padded to their widest cell; the last one is left ragged. */
export function columns(rows: readonly (readonly string[])[], gap = '  '): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows.map((row) => row.map((cell, i) => (i < row.length - 1 ? cell.padEnd(widths[i]!) : cell)).join(gap));
}

/** Seconds as people say them: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 days`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** `1 record`, `2 records`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** `a`, `a and b`, `a, b and c`; more than `most` are counted. */
export function sentenceList(items: readonly string[], most = 5): string {
  const shown = items.length > most ? [...items.slice(0, most), `${items.length - most} more`] : [...items];
  const last = shown.pop();
  return shown.length === 0 ? (last ?? '') : `${shown.join(', ')} and ${last ?? ''}`;
}
