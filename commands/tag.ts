import { Args } from '@oclif/core';
import { RepCommand } from '../src/cli/base.js';
import { mountFlag } from '../src/cli/flags.js';

export default class Tag extends RepCommand {
  static override summary = 'Name the present point of the write history.';
  static override description =
    'The tag is a record of the log: it stands behind everything written before this call, at every site.';
  static override examples = ['<%= config.bin %> tag before-upgrade', '<%= config.bin %> tag nightly --mount /mnt/rep'];
  static override args = { NAME: Args.string({ required: true, description: 'name of the point, without blanks' }) };
  static override flags = { mount: mountFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Tag);
    const { setTag } = await import('../src/cli/asking.js');
    const { text, ...result } = await setTag(flags.mount, args.NAME);
    this.say(text);
    return result;
  }
}
