/** What a run has met, and how often: faults by kind, and everything else by name. */

/**
 * Every kind of fault that the simulator makes. What a disk does at a death is counted sector by sector or name by name, in
 * crash images as well: those are recovered by the product's own code as is what really died. Everything else is
 * counted by call or by event.
 */
export const FAULT_KINDS = [
  // The death of a machine or of a disk.
  ...([
    'torn write',
    'lost unsynced sector',
    'lost name',
    'lost attribute',
    'bit flip in what was not synced',
  ] as const),
  // Bit rot: in what had long been durable.
  ...(['bit flip in the log', 'bit flip in a superblock', 'bit flip in the log in use'] as const),
  ...(['bit flip in a stage', 'bit flip in an image of a site', 'bit flip in a stamp or leg of a raw site'] as const),
  // Single calls.
  ...(['failed read', 'failed write', 'failed sync', 'failed open', 'failed name, size or attribute'] as const),
  ...(['failed commit of the index', 'full disk', 'short read', 'short write'] as const),
  // Deaths of processes and machines, each in the middle of, just before or just behind a call.
  ...(['daemon killed at a call', 'keeper and daemon killed at a call', 'machine died at a call'] as const),
  // Sites.
  ...(['link cut', 'disk of a site died', 'slow call of a site'] as const),
  ...(['site paused', 'disk of a site exchanged', 'clock of a site set wrong'] as const),
  // The rest.
  ...(['index lost', 'index set back', 'wall clock set back', 'policy changed', 'fail-pending'] as const),
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

/** Told of each fault of a kind as it happens. */
export type FaultSink = (kind: FaultKind, n?: number) => void;

export class Coverage {
  private readonly counts = new Map<string, number>();
  private readonly faults = new Map<FaultKind, number>();

  hit(what: string, n = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + n);
  }

  readonly fault: FaultSink = (kind, n = 1) => {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + n);
  };

  of(what: string): number {
    return this.counts.get(what) ?? 0;
  }

  faultsOf(kind: FaultKind): number {
    return this.faults.get(kind) ?? 0;
  }

  merge(other: Coverage): void {
    for (const [what, n] of other.counts) this.hit(what, n);
    for (const [kind, n] of other.faults) this.fault(kind, n);
  }

  lines(): string[] {
    return [...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, n]) => line(what, n));
  }

  /** All kinds, those that never came as well. */
  faultLines(): string[] {
    return FAULT_KINDS.map((kind) => line(kind, this.faultsOf(kind)));
  }
}

function line(what: string, n: number): string {
  return `  ${String(n).padStart(9)}  ${what}`;
}
