import { RepCommand } from '../src/cli/base.js';
import { optionalDir } from '../src/cli/flags.js';

export default class Table extends RepCommand {
  static override summary = 'Print the targets of a mounted group as device-mapper table lines.';
  static override description = 'The same as `cat DIR/.ctl/table`, with a time limit.';
  static override examples = ['<%= config.bin %> table', '<%= config.bin %> table /mnt/rep --json'];
  static override args = { DIR: optionalDir };

  async run(): Promise<unknown> {
    const { args } = await this.parse(Table);
    const { readTable } = await import('../src/cli/asking.js');
    const lines = await readTable(args.DIR);
    this.say(...lines);
    return { table: lines };
  }
}
