/**
 * Memory of simulated processes. The product maps buffers once and never gives them back, as it lives as long as
 * its process; here a process dies a thousand times in one. So a mapping goes back to the kernel when nothing
 * refers to its bytes any more. Callbacks need a turn of the event loop: long runs call `collect` now and then.
 */
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Mem } from '../../src/base/mem.js';
import * as sys from '../../src/base/sys.js';
import { Window, windowShape } from '../../src/replog/window.js';

const real = { anon: Mem.anon.bind(Mem), lazy: Mem.lazy.bind(Mem), unmap: Mem.prototype.unmap };

const registry = new FinalizationRegistry<{ addr: number; size: number }>(
  ({ addr, size }) => void sys.munmap(addr, size),
);

function noted(mem: Mem): Mem {
  registry.register(mem.ab, { addr: mem.addr, size: mem.size }, mem);
  return mem;
}

Mem.anon = (size) => noted(real.anon(size));
// Populating pages that nobody touches is most of the cost of starting a simulated process.
Mem.lazy = (size) => noted(real.lazy(size));
Mem.large = Mem.lazy;
Mem.prototype.unmap = function (this: Mem): void {
  registry.unregister(this);
  real.unmap.call(this);
};

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Gives back what dead processes have left. */
export async function collect(): Promise<void> {
  gc();
  await setImmediate();
}

/** A window's memory, mapped once per ring size and used again by one machine after the other. */
export class WindowMemory {
  readonly window: Window;
  private readonly ring: number;
  private static readonly free = new Map<number, WindowMemory[]>();

  private constructor(ring: number) {
    const fd = sys.memfdCreate('reptool-sim-window', 1);
    if (fd < 0 || sys.ftruncate(fd, windowShape(ring).size) < 0) throw new Error('no memfd for the window');
    this.ring = ring;
    this.window = Window.map(fd, ring);
  }

  static take(ring: number): WindowMemory {
    const memory = this.free.get(ring)?.pop() ?? new WindowMemory(ring);
    memory.wipe();
    return memory;
  }

  /** The machine lost power: what was in memory is zeroes. */
  wipe(): void {
    const { mem, shape } = this.window;
    mem.u8.fill(0, 0, shape.plain + shape.ring);
  }

  giveBack(): void {
    const list = WindowMemory.free.get(this.ring) ?? [];
    list.push(this);
    WindowMemory.free.set(this.ring, list);
  }
}
