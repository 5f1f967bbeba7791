import { RepCommand } from '../../src/cli/base.js';
import { mountFlag } from '../../src/cli/flags.js';

export default class SiteFailPending extends RepCommand {
  static override summary = 'Answer the writes that wait for sites with an error, once.';
  static override description =
    'For programs that hang on a dead sync site: each request that waits just now gets EIO. What they wrote stays in the ' +
    'log and reaches the sites later. New writes wait again; `reptool site set NR --policy async` ends that.';
  static override examples = [
    '<%= config.bin %> site fail-pending',
    '<%= config.bin %> site fail-pending --mount /mnt/rep',
  ];
  static override flags = { mount: mountFlag };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(SiteFailPending);
    const { failPending } = await import('../../src/cli/sites.js');
    const { text, ...result } = await failPending(flags.mount);
    this.say(text);
    return result;
  }
}
