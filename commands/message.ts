import { Args } from '@oclif/core';
import { RepCommand } from '../src/cli/base.js';
import { durationFlag, mountFlag } from '../src/cli/flags.js';

export default class Message extends RepCommand {
  static override summary = 'Send a message to a mounted group, one of its sites or a device, and print the reply.';
  static override description =
    'TARGET is the name of the group, site1 and so on, or a device; reptool-ctl(5) lists the messages. The same as ' +
    'writing to DIR/.ctl/messages, with a time limit. Words may be shortened as long as they are unambiguous.';
  static override examples = [
    { description: 'To the group:', command: '<%= config.bin %> message default statistics reset' },
    { description: 'To a site:', command: '<%= config.bin %> message site1 pause' },
    '<%= config.bin %> message default wait 1 5m --timeout 5m --mount /mnt/rep',
  ];
  static override args = {
    TARGET: Args.string({ required: true, description: 'name of the group, siteN, or a device' }),
    WORD: Args.string({ required: true, multiple: true, description: 'the message, word by word' }),
  };
  static override flags = {
    mount: mountFlag,
    timeout: durationFlag('timeout', 'how long to wait for the reply at most', '60s'),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Message);
    const { tell } = await import('../src/cli/asking.js');
    const { text, ...result } = await tell(flags.mount, args.TARGET, args.WORD, flags.timeout);
    this.say(text);
    return result;
  }
}
