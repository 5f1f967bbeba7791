import { Flags } from '@oclif/core';
import { RepCommand } from '../src/cli/base.js';
import { optionalDir } from '../src/cli/flags.js';

export default class Status extends RepCommand {
  static override summary = 'Show roles, disks, sites, lag and the log of a mounted group.';
  static override description =
    `In the words of \`drbdadm status\`. With --check it prints one line and ends as monitoring plug-ins do: ` +
    '0 fine, 1 warning, 2 critical, 3 unknown or not mounted.';
  static override examples = [
    '<%= config.bin %> status',
    { description: 'Again every second, until Ctrl-C:', command: '<%= config.bin %> status /mnt/rep --watch' },
    { description: 'For a monitoring system:', command: '<%= config.bin %> status /mnt/rep --check' },
    { description: 'Lag of every site in bytes:', command: '<%= config.bin %> status --json' },
  ];
  static override args = { DIR: optionalDir };
  static override flags = {
    watch: Flags.boolean({ description: 'show it again every second, until Ctrl-C', exclusive: ['check', 'json'] }),
    check: Flags.boolean({ description: 'one line and a monitoring exit status: 0, 1, 2 or 3' }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Status);
    const { checkStatus, showStatus, watchStatus } = await import('../src/cli/status.js');
    if (flags.watch) return watchStatus(args.DIR, (text) => this.say(text));
    if (!flags.check) {
      const { text, document } = await showStatus(args.DIR);
      this.say(text);
      return document;
    }
    const { status, line } = await checkStatus(args.DIR);
    this.say(line);
    this.endWith(status);
    return { status, line };
  }
}
