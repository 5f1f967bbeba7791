import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { mountFlag, siteNumber } from '../../src/cli/flags.js';

export default class SitePause extends RepCommand {
  static override summary = 'Stop sending to a site; the log keeps what it misses.';
  static override description =
    'New writes go on as before. The site stays at the prefix of history that it has until `reptool site resume`.';
  static override examples = ['<%= config.bin %> site pause 1', '<%= config.bin %> site pause 1 --mount /mnt/rep'];
  static override args = { NR: Args.string({ required: true, description: 'number of the site' }) };
  static override flags = { mount: mountFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SitePause);
    const { tellSite } = await import('../../src/cli/asking.js');
    const { text, ...result } = await tellSite(flags.mount, siteNumber(args.NR, 'NR'), 'pause');
    this.say(text);
    return result;
  }
}
