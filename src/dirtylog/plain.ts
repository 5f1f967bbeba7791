/** Dirty logs without a device of their own: none, in memory, in the group's index. */
import { bytesOf, DirtyBits, regionsOf } from './bits.js';
import type { DirtyLog, DirtyLogNeeds } from './types.js';

/** What they hold is known when they are made, and whoever commits the index keeps it, or nobody does. */
class PlainLog implements DirtyLog {
  readonly type: string;
  readonly keeps: DirtyLog['keeps'];
  readonly state = 'A';
  readonly reason = '';
  private readonly held: Uint8Array | undefined;

  constructor(type: string, keeps: DirtyLog['keeps'], held: Uint8Array | undefined) {
    this.type = type;
    this.keeps = keeps;
    this.held = held;
  }

  load(): Uint8Array | undefined {
    return this.held;
  }

  store(): number {
    return 0;
  }

  close(): void {}
}

export function makeNolog(): DirtyLog {
  return new PlainLog('nolog', 'nothing', undefined);
}

export function makeCore(needs: DirtyLogNeeds): DirtyLog {
  return new PlainLog('core', 'memory', needs.begins && needs.table.start === 'nosync' ? noneDirty(needs) : undefined);
}

export function makeIndexLog(needs: DirtyLogNeeds): DirtyLog {
  const { begins, table } = needs;
  const anew = begins && table.start !== undefined;
  const held = anew ? (table.start === 'nosync' ? noneDirty(needs) : undefined) : factBits(needs);
  return new PlainLog('disk', 'index', held);
}

export function noneDirty({ region, sectors }: Pick<DirtyLogNeeds, 'region' | 'sectors'>): Uint8Array {
  return new Uint8Array(bytesOf(regionsOf(region, sectors)));
}

/** What the index holds, for the regions and the size of the present; undefined where it holds nothing. */
export function factBits({ fact, region, sectors }: Pick<DirtyLogNeeds, 'fact' | 'region' | 'sectors'>) {
  return fact === undefined ? undefined : DirtyBits.from(fact.bits, fact.region, sectors).rescaled(region).bytes();
}
