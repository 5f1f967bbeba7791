import { Args } from '@oclif/core';
import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, stateFlag } from '../../src/cli/flags.js';

export default class ReplogResize extends RepCommand {
  static override summary = 'Give the log another size, while the group is in use or not.';
  static override description =
    'It grows at any time; its new area is allocated and written once before it is used. It shrinks where nothing in it ' +
    'is still needed, or where what is needed lies before the new end. What a growth has to wait for is said, and shown ' +
    'by reptool status until it is done.';
  static override examples = [
    '<%= config.bin %> replog resize 20G',
    { description: 'A group that is not mounted:', command: '<%= config.bin %> replog resize 512M --group default' },
  ];
  static override args = {
    SIZE: Args.string({
      required: true,
      description: 'its new size, such as 20G; of a file, or of a part of a device',
    }),
  };
  static override flags = { mount: mountFlag, state: stateFlag, group: groupFlag };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(ReplogResize);
    const { resizeLog } = await import('../../src/cli/logsize.js');
    const { text, ...result } = await resizeLog(flags, args.SIZE, this.jsonEnabled());
    this.say(text);
    return result;
  }
}
