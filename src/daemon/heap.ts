/**
 * JavaScript heaps of the daemon's threads. A link's thread costs what its isolate costs: Node's own part (about
 * 3 MiB live), the modules, and what the collector leaves standing around, since it works in the turns of an
 * event loop, which a thread that steps and sleeps never takes. So it is called by hand, once the thread is at rest.
 */
import * as v8 from 'node:v8';
import type { ResourceLimits } from 'node:worker_threads';

/** Of a thread that allocates next to nothing per step: the young generation would grow to 48 MiB otherwise. */
export const SMALL_HEAP: ResourceLimits = { maxYoungGenerationSizeMb: 2 };

/** Before the first thread is made: lets `tidyHeap` work there, and each full collection close the gaps. */
export function allowTidying(): void {
  v8.setFlagsFromString('--expose-gc');
  v8.setFlagsFromString('--compact-on-every-full-gc');
}

/** Collects everything: 10 ms for the heap of a shipper. */
export function tidyHeap(): void {
  (globalThis as { gc?: () => void }).gc?.();
}
