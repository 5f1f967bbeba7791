import { Args, Flags } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, sizeFlag, stateFlag } from '../../src/cli/flags.js';

export default class DeviceCreate extends RepCommand {
  static override summary = 'Add a disk to a group, mounted or not.';
  static override description =
    'The disk is full of zeroes, and sites get it at its place among the writes. In a group that is not mounted its ' +
    'image is made at once and the disk comes with the next mount.';
  static override examples = [
    '<%= config.bin %> device create disk1 --size 10G',
    '<%= config.bin %> device create scratch --size 1T --sparse --local /fast/scratch.img',
    '<%= config.bin %> device create vm7 --size 20G --local /dev/vg/vm7 --state /var/lib/reptool',
  ];
  static override args = { NAME: Args.string({ required: true, description: 'name of the disk in the tree' }) };
  static override flags = {
    size: sizeFlag('size', 'size of the disk, a multiple of 512'),
    local: Flags.string({
      description: 'local image: a new file, or an empty block device (default: images/NAME in the state folder)',
      helpValue: 'PATH',
    }),
    sparse: Flags.boolean({ description: 'only reserve the local image; writes may later find its disk full' }),
    nr: Flags.integer({
      description: 'number of the disk, never used before (default: the next one)',
      helpValue: 'N',
      min: 0,
    }),
    mount: mountFlag,
    state: stateFlag,
    group: groupFlag,
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(DeviceCreate);
    const { createDevice, needed } = await import('../../src/cli/devices.js');
    const { text, ...result } = await createDevice(flags, {
      name: args.NAME,
      size: needed(flags.size),
      sparse: flags.sparse,
      ...(flags.local === undefined ? {} : { local: flags.local }),
      ...(flags.nr === undefined ? {} : { nr: flags.nr }),
    });
    this.say(text);
    return result;
  }
}
