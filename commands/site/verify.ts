import { Args, Flags } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { mountFlag, siteNumber } from '../../src/cli/flags.js';

export default class SiteVerify extends RepCommand {
  static override summary = 'Compare a site with the local images, while both are in use.';
  static override description =
    'Reads both in full, but for holes, and says where they differ; nothing is written. Writers go on, and what they write ' +
    'meanwhile is no difference. Waits for the end unless told otherwise, and ends with status 1 where something differs. ' +
    '`reptool site set NR --resync-rate` bounds how fast it reads.';
  static override examples = [
    '<%= config.bin %> site verify 1',
    {
      description: 'Begin it, look later how far it is, end it early:',
      command: '<%= config.bin %> site verify 1 --background',
    },
    '<%= config.bin %> site verify 1 --stop',
  ];
  static override args = { NR: Args.string({ required: true, description: 'number of the site' }) };
  static override flags = {
    background: Flags.boolean({ description: 'return when it has begun', exclusive: ['stop'] }),
    stop: Flags.boolean({ description: 'end the one that is going on' }),
    mount: mountFlag,
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteVerify);
    const nr = siteNumber(args.NR, 'NR');
    const { stopVerify, verifySite } = await import('../../src/cli/verify.js');
    const { text, ok, result } = flags.stop
      ? await stopVerify(flags.mount, nr)
      : await verifySite(flags.mount, nr, { background: flags.background, quiet: this.jsonEnabled() });
    this.say(...text);
    if (!ok) this.endWith(1);
    return result;
  }
}
