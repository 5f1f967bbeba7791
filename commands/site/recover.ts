import { Args, Flags } from '@oclif/core';
import { OFFLINE_EXITS, RepCommand } from '../../src/cli/base.js';

export default class SiteRecover extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Make the images in a site folder ready for use without their primary.';
  static override description =
    'Applies a batch that was staged whole and drops one that was not, so that the images together are a prefix of ' +
    `the group's write history; says which. Works offline, on the machine that holds the folder.`;
  static override examples = [
    '<%= config.bin %> site recover /var/lib/reptool/default/site1',
    '<%= config.bin %> site recover /backup/site1 --json',
  ];
  static override args = {
    FOLDER: Args.string({ required: true, description: 'the folder with the images of the site' }),
  };

  static override flags = {
    'dry-run': Flags.boolean({ description: 'say what is staged, change nothing' }),
    force: Flags.boolean({ description: 'also where the site says that it is inconsistent' }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SiteRecover);
    const { recoverSite } = await import('../../src/cli/offline.js');
    const { text, ok, result } = recoverSite(args.FOLDER, { write: !flags['dry-run'], force: flags.force });
    this.say(text);
    if (!ok) this.endWith(1);
    return result;
  }
}
