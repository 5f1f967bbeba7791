/**
 * Tests that take long, or whose surroundings (file systems shut down under load, proxies that cut connections)
 * are not yet steady enough to decide over every change: run with REPTOOL_TEST_SOAK=1, and say so otherwise.
 */
export function itInSoak(title: string, test: (this: Mocha.Context) => Promise<void>): void {
  if (process.env['REPTOOL_TEST_SOAK'] === '1') it(title, test);
  else console.log(`  run with REPTOOL_TEST_SOAK=1: "${title}"`);
}
