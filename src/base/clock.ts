/** Time as the machines see it, so that a simulator can own it. */
export interface Clock {
  /** Wall clock in microseconds since 1970; may step backwards. */
  wallUs(): number;
  /** Monotonic milliseconds with a fraction; never steps back, and is the same in all threads. */
  monoMs(): number;
}

/** Where a thread's `performance.now` begins is its own affair. */
const ORIGIN_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now();

export const realClock: Clock = {
  wallUs: () => Math.floor((performance.timeOrigin + performance.now()) * 1000),
  monoMs: () => performance.now() + ORIGIN_MS,
};

/**
 * A machine: work that can be driven from a thread, from a test or from a simulator. `step` never blocks on
 * an event; it does at most one batch and says how long it can be left alone: 0 = call again at once,
 * n = nothing to do for n milliseconds unless woken.
 */
export interface Machine {
  step(): number;
}
