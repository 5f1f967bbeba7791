import { Args, Flags } from '@oclif/core';
import { OFFLINE_EXITS, RepCommand } from '../src/cli/base.js';
import { groupFlag, sizeFlag, stateFlag } from '../src/cli/flags.js';

export default class Mount extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Mount a group: every file of the tree is a disk, every write is replicated.';
  static override description =
    'Without a configuration it makes one first: a device disk0, a local image, one asynchronous site and a log, ' +
    'all under the state folder, and says where they are. Returns when the tree is mounted.';
  static override examples = [
    { description: 'A replicated disk in one line:', command: '<%= config.bin %> mount /mnt/rep' },
    {
      description: 'A small group of its own:',
      command: '<%= config.bin %> mount /mnt/test --group test --size 64M --log-size 16M',
    },
    {
      description: 'A group as its table describes it:',
      command: '<%= config.bin %> mount /mnt/rep --table group.table',
    },
    {
      description: 'Every write durable before it is acknowledged, until Ctrl-C:',
      command: '<%= config.bin %> mount /mnt/rep --durability write --foreground',
    },
  ];
  static override args = {
    DIR: Args.string({ required: true, description: 'mount point: an empty folder; its last component is made' }),
  };
  static override flags = {
    group: groupFlag,
    state: stateFlag,
    size: sizeFlag('size', 'size of disk0 of a new group (default: 1G, sparse)'),
    'log-size': sizeFlag('log-size', 'size of the log of a new group, written once (default: 1G)', 4 * 1024 * 1024),
    durability: Flags.string({
      description: 'of a new group: what is durable when a write is acknowledged, with a flush or always',
      options: ['flush', 'write'],
    }),
    'on-local-error': Flags.string({
      description: 'of a new group: where local images fail, writes wait, or a site serves reads until they work again',
      options: ['suspend', 'detach'],
    }),
    table: Flags.string({
      description: 'make or open the group that these table lines describe; - reads standard input',
      helpValue: 'FILE',
      exclusive: ['size', 'log-size', 'durability', 'on-local-error'],
    }),
    plugin: Flags.string({
      description: 'a file or package that brings site types, kept with the group; may be given several times',
      helpValue: 'FILE',
      multiple: true,
    }),
    transport: Flags.string({
      description: 'how the tree is served; auto: by the kernel transport where it mounts, else by fuse-native',
      options: ['auto', 'kernel', 'fuse-native'],
      default: 'auto',
    }),
    foreground: Flags.boolean({ description: 'stay until the tree is unmounted; Ctrl-C unmounts it' }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Mount);
    const { mountGroup } = await import('../src/cli/mounting.js');
    const { durability, 'on-local-error': onLocalError } = flags;
    const result = await mountGroup(
      {
        dir: args.DIR,
        group: flags.group,
        state: flags.state,
        size: flags.size,
        logSize: flags['log-size'],
        table: flags.table,
        plugins: flags.plugin ?? [],
        durability: durability === 'flush' || durability === 'write' ? durability : undefined,
        onLocalError: onLocalError === 'suspend' || onLocalError === 'detach' ? onLocalError : undefined,
        transport: flags.transport === 'kernel' || flags.transport === 'fuse-native' ? flags.transport : 'auto',
      },
      { say: (line) => this.say(line), quiet: this.jsonEnabled() },
    );
    if (flags.foreground) {
      const { stay } = await import('../src/cli/unmounting.js');
      await stay(result.mountpoint, { say: (line) => this.say(line), quiet: this.jsonEnabled() });
    }
    return result;
  }
}
