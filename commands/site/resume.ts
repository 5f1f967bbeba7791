import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { mountFlag, siteNumber } from '../../src/cli/flags.js';

export default class SiteResume extends RepCommand {
  static override summary = 'Send to a paused or failed site again.';
  static override description = 'The site goes on where it has confirmed; nothing is copied that it has already.';
  static override examples = ['<%= config.bin %> site resume 1', '<%= config.bin %> site resume 1 --mount /mnt/rep'];
  static override args = { NR: Args.string({ required: true, description: 'number of the site' }) };
  static override flags = { mount: mountFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteResume);
    const { tellSite } = await import('../../src/cli/asking.js');
    const { text, ...result } = await tellSite(flags.mount, siteNumber(args.NR, 'NR'), 'resume');
    this.say(text);
    return result;
  }
}
