/**
 * Progress of what takes its time, for all commands. It goes to stderr, so that stdout holds only the answer: on a
 * terminal one line that is redrawn and taken away at the end, elsewhere plain lines, seldom and never twice the same.
 */
import { formatSize } from '../base/units.js';
import { formatSeconds } from './output.js';

/** Where progress is written; a terminal gets a bar that is redrawn, anything else plain lines. */
export interface Sink {
  readonly isTTY?: boolean;
  write(text: string): boolean;
}

const REDRAW_MS = 100;
const LINE_MS = 5000;
const BAR = 30;
/** Before that an estimate of the rest is a guess. */
const ESTIMATE_S = 2;

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

  /**
   * Done so far, of a total in bytes. On a terminal a bar with the time that is left at the rate so far.
   */
  bytes(done: number, total: number): void {
    const part = total > 0 ? Math.min(1, done / total) : 1;
    const full = Math.round(part * BAR);
    const percent = `${Math.floor(part * 100)} %`;
    const sizes = `${formatSize(done)} of ${formatSize(total)}${this.left(part)}`;
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

  private left(part: number): string {
    const seconds = (this.now() - this.started) / 1000;
    return part <= 0 || part >= 1 || seconds < ESTIMATE_S
      ? ''
      : `, ${formatSeconds((seconds / part) * (1 - part))} left`;
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
