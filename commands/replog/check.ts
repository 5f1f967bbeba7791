import { Args } from '@oclif/core';
import { OFFLINE_EXITS, RepCommand } from '../../src/cli/base.js';
import { groupFlag, stateFlag } from '../../src/cli/flags.js';

export default class ReplogCheck extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Check every checksum and the chain of a log that is not mounted.';
  static override description =
    'Reads only. Ends with status 0 when everything up to the durable point is whole; a torn tail behind it is what a ' +
    'crash leaves and no damage. Damage is named by byte and record number, with status 1.';
  static override examples = [
    { description: 'The log of group default:', command: '<%= config.bin %> replog check --group default' },
    '<%= config.bin %> replog check /var/lib/reptool/default/replog',
  ];
  static override args = {
    FILE: Args.string({ description: 'file or block device of the log (default: the log of the group)' }),
  };
  static override flags = { group: groupFlag, state: stateFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(ReplogCheck);
    const { checkLog } = await import('../../src/cli/offline.js');
    const { ok, text, result } = checkLog(
      { file: args.FILE, group: flags.group, state: flags.state },
      this.jsonEnabled(),
    );
    this.say(text);
    if (!ok) this.endWith(1);
    return result;
  }
}
