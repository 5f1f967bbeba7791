import { Args, Flags } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, siteNumber, stateFlag } from '../../src/cli/flags.js';
import { settingFlags, settingWords } from '../../src/cli/site-flags.js';

export default class SiteAdd extends RepCommand {
  static override summary = 'Add a site to a group.';
  static override description =
    'The site is made and gets the history from its beginning. That is possible as long as the log still holds all of ' +
    'it. With --state it is added to a group that is not mounted, and made when that is mounted.';
  static override examples = [
    {
      description: 'A folder with one image per device:',
      command: '<%= config.bin %> site add 2 blockdev:/backup/site2',
    },
    {
      description: 'A block device, and the exports of an NBD server, which have to be blank:',
      command: '<%= config.bin %> site add 3 blockdev: --map disk0=/dev/sdb',
    },
    '<%= config.bin %> site add 4 nbd:backup.example:10809 --option tls=require --option tls-ca=/etc/reptool/ca.pem',
    '<%= config.bin %> site add 3 blockdev:/nfs/site3 --fallbehind ios=10000 --bandwidth 10m --rpo 1s',
  ];
  static override args = {
    NR: Args.string({ required: true, description: 'number of the new site, 1 to 2047' }),
    ADDRESS: Args.string({ required: true, description: 'type and address, such as blockdev:/folder' }),
  };
  static override flags = {
    ...settingFlags,
    map: Flags.string({
      description: 'where a device is at the site, once per device, for types that take it',
      multiple: true,
      helpValue: 'DEVICE=PATH',
    }),
    option: Flags.string({
      description: 'a setting of its type, such as tls=require; may be given several times',
      multiple: true,
      helpValue: 'WORD=VALUE',
    }),
    mount: mountFlag,
    state: stateFlag,
    group: groupFlag,
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteAdd);
    const { addSite } = await import('../../src/cli/sites.js');
    const { text, ...result } = await addSite(
      flags,
      siteNumber(args.NR, 'NR'),
      args.ADDRESS,
      settingWords(flags, flags.map, flags.option),
    );
    this.say(text);
    return result;
  }
}
