/** Bytes per second over about the last minute, from positions that only grow. */
const HALF_LIFE_S = 20;

export class Rate {
  private at: number;
  private pos: number;
  private value = 0;
  private primed = false;

  constructor(pos: number, nowMs: number) {
    this.pos = pos;
    this.at = nowMs;
  }

  note(pos: number, nowMs: number): void {
    const seconds = (nowMs - this.at) / 1000;
    if (seconds <= 0) return;
    const now = Math.max(0, pos - this.pos) / seconds;
    const keep = this.primed ? 0.5 ** (seconds / HALF_LIFE_S) : 0;
    this.value = this.value * keep + now * (1 - keep);
    if (now > 0) this.primed = true;
    this.pos = pos;
    this.at = nowMs;
  }

  get bytesPerSecond(): number {
    return this.value;
  }
}
