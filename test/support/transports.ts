/** The same tests for every transport, and what one of them is excused from. */
import { TRANSPORTS, type Transport } from '../../src/fuse/transport.js';
import { needs } from './skip.js';

export { TRANSPORTS, type Transport };

const EXCUSES = {
  kill: 'surviving the death of its daemon',
  fallocate: 'FALLOCATE (discards and zeroing)',
  directIo: 'DIRECT_IO',
} as const;

/** Skips where `transport` is excused from what the test is about. */
export function excused(ctx: Mocha.Context, transport: Transport, from: keyof typeof EXCUSES): void {
  needs(ctx, transport === 'kernel', `${transport} is excused from ${EXCUSES[from]}`);
}
