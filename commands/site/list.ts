import { RepCommand } from '../../src/cli/base.js';
import { groupFlag, mountFlag, stateFlag } from '../../src/cli/flags.js';

export default class SiteList extends RepCommand {
  static override summary = 'List the sites of a group with their policies and limits.';
  static override description =
    'Of a mounted group it says as well how far each site is and who waits for it; with --state it lists what is configured.';
  static override examples = ['<%= config.bin %> site list', '<%= config.bin %> site list --state /srv/rep --json'];
  static override flags = { mount: mountFlag, state: stateFlag, group: groupFlag };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(SiteList);
    const { listSites } = await import('../../src/cli/sites.js');
    const { text, ...result } = await listSites(flags);
    this.say(text);
    return result;
  }
}
