import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, siteNumber, stateFlag } from '../../src/cli/flags.js';
import { settingFlags, settingWords } from '../../src/cli/site-flags.js';

export default class SiteSet extends RepCommand {
  static override summary = 'Change the policy and the limits of a site.';
  static override description =
    'Takes effect at once on a mounted group, and is kept. With --state it changes a group that is not mounted. What ' +
    'contradicts itself is refused, and nothing is changed.';
  static override examples = [
    {
      description: 'Writes are acknowledged when site 1 has them:',
      command: '<%= config.bin %> site set 1 --policy sync',
    },
    {
      description: 'Asynchronous, but never more than 200 MiB or 30 seconds behind:',
      command: '<%= config.bin %> site set 1 --policy async --fallbehind size=200m,timeout=30s',
    },
    {
      description: 'At most 10 MiB per second:',
      command: '<%= config.bin %> site set 2 --bandwidth 10m --mount /mnt/rep',
    },
  ];
  static override args = { NR: Args.string({ required: true, description: 'number of the site' }) };
  static override flags = { ...settingFlags, mount: mountFlag, state: stateFlag, group: groupFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteSet);
    const { setSite } = await import('../../src/cli/sites.js');
    const { text, ...result } = await setSite(flags, siteNumber(args.NR, 'NR'), settingWords(flags));
    this.say(text);
    return result;
  }
}
