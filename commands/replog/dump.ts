import { Args, Flags } from '@oclif/core';
import { OFFLINE_EXITS, RepCommand } from '../../src/cli/base.js';
import { groupFlag, stateFlag } from '../../src/cli/flags.js';

export default class ReplogDump extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Print superblocks and records of a log that is not mounted.';
  static override description =
    'Reads only. A line per superblock, batch and record, as words key=value. Ends where the ' +
    'chain of records ends and says why there. With --json one object per line.';
  static override examples = [
    { description: 'The log of group default:', command: '<%= config.bin %> replog dump --group default' },
    '<%= config.bin %> replog dump /var/lib/reptool/default/replog --json',
  ];
  static override args = {
    FILE: Args.string({ description: 'file or block device of the log (default: the log of the group)' }),
  };
  static override flags = {
    group: groupFlag,
    state: stateFlag,
    from: Flags.integer({ description: 'first record to print, by number', helpValue: 'SEQ', min: 0 }),
    limit: Flags.integer({ description: 'print so many records at most', helpValue: 'COUNT', min: 1 }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(ReplogDump);
    const { dumpLog } = await import('../../src/cli/offline.js');
    const { from, limit } = flags;
    dumpLog(
      { file: args.FILE, group: flags.group, state: flags.state },
      {
        json: this.jsonEnabled(),
        ...(from === undefined ? {} : { from }),
        ...(limit === undefined ? {} : { limit }),
      },
    );
  }
}
