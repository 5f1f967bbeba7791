import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, sizeFlag, stateFlag } from '../../src/cli/flags.js';

export default class DeviceResize extends RepCommand {
  static override summary = 'Make a disk larger while it is in use.';
  static override description =
    'A loop device hears of it by `losetup -c`, a file system by its own tool (resize2fs, xfs_growfs). A disk cannot ' +
    'shrink. In a group that is not mounted its image grows at once and the disk with the next mount.';
  static override examples = [
    '<%= config.bin %> device resize disk0 --size 20G',
    '<%= config.bin %> device resize disk0 --size 20G --mount /mnt/rep && losetup -c /dev/loop0 && resize2fs /dev/loop0',
  ];
  static override args = { NAME: Args.string({ required: true, description: 'name of the disk' }) };
  static override flags = {
    size: sizeFlag('size', 'its new size, larger than the present one'),
    mount: mountFlag,
    state: stateFlag,
    group: groupFlag,
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(DeviceResize);
    const { resizeDevice, needed } = await import('../../src/cli/devices.js');
    const { text, ...result } = await resizeDevice(flags, args.NAME, needed(flags.size));
    this.say(text);
    return result;
  }
}
