import type { Clock } from '../../src/base/clock.js';

/** A clock that moves only when it is told to. The wall may be set back; the monotonic part never goes back. */
export class SimClock implements Clock {
  private mono = 1000;
  private wall = 1_700_000_000_000_000;

  wallUs(): number {
    return Math.floor(this.wall);
  }

  monoMs(): number {
    return this.mono;
  }

  advance(ms: number): void {
    this.mono += ms;
    this.wall += ms * 1000;
  }

  /** Somebody sets the wall clock. */
  stepWall(us: number): void {
    this.wall += us;
  }
}
