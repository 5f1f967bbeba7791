import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, siteNumber, stateFlag } from '../../src/cli/flags.js';

export default class SiteRemove extends RepCommand {
  static override summary = 'Remove a site from a group; its data stay where they are.';
  static override description =
    'Whoever waits for the site is let go, and the log keeps nothing for it any more. The site stays at the prefix of ' +
    'history that it has; `reptool site recover` makes its images ready for use.';
  static override examples = [
    '<%= config.bin %> site remove 2',
    '<%= config.bin %> site remove 2 --state /var/lib/reptool',
  ];
  static override args = { NR: Args.string({ required: true, description: 'number of the site' }) };
  static override flags = { mount: mountFlag, state: stateFlag, group: groupFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteRemove);
    const { removeSite } = await import('../../src/cli/sites.js');
    const { text, ...result } = await removeSite(flags, siteNumber(args.NR, 'NR'));
    this.say(text);
    return result;
  }
}
