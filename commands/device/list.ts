import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, stateFlag } from '../../src/cli/flags.js';

export default class DeviceList extends RepCommand {
  static override summary = 'Show the disks of a group.';
  static override description =
    'Number, size, state and local image of each. Of a group that is not mounted it also shows what the next mount ' +
    'will complete.';
  static override examples = [
    '<%= config.bin %> device list',
    '<%= config.bin %> device list --state /var/lib/reptool --group default --json',
  ];
  static override flags = { mount: mountFlag, state: stateFlag, group: groupFlag };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(DeviceList);
    const { listDevices } = await import('../../src/cli/devices.js');
    const { text, ...result } = await listDevices(flags);
    this.say(text);
    return result;
  }
}
