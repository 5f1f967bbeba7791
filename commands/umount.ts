import { Flags } from '@oclif/core';
import { RepCommand } from '../src/cli/base.js';
import { optionalDir } from '../src/cli/flags.js';

export default class Umount extends RepCommand {
  static override summary = 'Unmount a group and wait until its log is closed.';
  static override description =
    'Ends with status 0 only when everything written is durable and the log is closed. Names who keeps the tree busy. ' +
    'Sites that are behind do not hold it: the log keeps what they miss for the next mount.';
  static override examples = [
    '<%= config.bin %> umount /mnt/rep',
    {
      description: 'Out of sight at once; the log is closed when the last user is gone:',
      command: '<%= config.bin %> umount /mnt/rep --lazy',
    },
  ];
  static override args = { DIR: optionalDir };
  static override flags = {
    lazy: Flags.boolean({ description: 'detach the tree now, also while it is in use, and do not wait for its users' }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Umount);
    const { unmountGroup } = await import('../src/cli/unmounting.js');
    const result = await unmountGroup(args.DIR, {
      lazy: flags.lazy,
      say: (line) => this.say(line),
      quiet: this.jsonEnabled(),
    });
    return result;
  }
}
