import { Flags } from '@oclif/core';
import { RepCommand } from '../src/cli/base.js';
import { durationFlag, optionalDir, siteNumber } from '../src/cli/flags.js';

export default class Wait extends RepCommand {
  static override summary = 'Wait until the sites have confirmed everything written before this call.';
  static override description =
    'Confirmed means durable at the site. Ends with status 1 when the time is up, and says how far each site is. ' +
    'A write that an application has not flushed yet counts as written once the kernel has handed it over.';
  static override examples = [
    '<%= config.bin %> wait',
    { description: 'For one site only:', command: '<%= config.bin %> wait /mnt/rep --site 1 --timeout 5m' },
  ];
  static override args = { DIR: optionalDir };
  static override flags = {
    site: Flags.string({ description: 'number of one site (default: all)', helpValue: 'NR' }),
    timeout: durationFlag('timeout', 'how long to wait at most', '60s'),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Wait);
    const site = flags.site === undefined ? undefined : siteNumber(flags.site, '--site');
    const { waitForSites } = await import('../src/cli/asking.js');
    const { text, ...result } = await waitForSites(args.DIR, {
      site,
      timeoutMs: flags.timeout,
      quiet: this.jsonEnabled(),
    });
    this.say(text);
    return result;
  }
}
