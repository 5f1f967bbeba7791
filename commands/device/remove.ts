import { Args, Flags } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, stateFlag } from '../../src/cli/flags.js';

export default class DeviceRemove extends RepCommand {
  static override summary = 'Take a disk out of a group; its content is kept.';
  static override description =
    'Refused while the disk is open, mounted, or behind a loop device, unless --force. Its local image stays where it ' +
    'is; folders of sites keep theirs under a name that says so. Its number is never used again.';
  static override examples = [
    '<%= config.bin %> device remove disk1',
    '<%= config.bin %> device remove disk1 --mount /mnt/rep --force',
  ];
  static override args = { NAME: Args.string({ required: true, description: 'name of the disk' }) };
  static override flags = {
    force: Flags.boolean({ description: 'even while it is in use: its users get ENODEV' }),
    mount: mountFlag,
    state: stateFlag,
    group: groupFlag,
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(DeviceRemove);
    const { removeDevice } = await import('../../src/cli/devices.js');
    const { text, ...result } = await removeDevice(flags, args.NAME, flags.force);
    this.say(text);
    return result;
  }
}
