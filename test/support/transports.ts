/** The same tests for every transport, and what one of them is excused from. */
import { TRANSPORTS, type Transport } from '../../src/fuse/transport.js';

export { TRANSPORTS, type Transport };

const EXCUSES = {
  kill: 'surviving the death of its daemon',
  fallocate: 'FALLOCATE (discards and zeroing)',
} as const;

/** A test that `transport` must pass as well, unless the design excuses it from what the test is about. */
export function itUnlessExcused(
  transport: Transport,
  from: keyof typeof EXCUSES,
  title: string,
  test: (this: Mocha.Context) => Promise<void>,
): void {
  if (transport === 'kernel') it(title, test);
  else
    console.log(`  ${transport} is excused from ${EXCUSES[from]}: "${title}" is a test of the kernel transport only`);
}
