import { OFFLINE_EXITS, RepCommand } from '../src/cli/base.js';
import { stateFlag } from '../src/cli/flags.js';

export default class Doctor extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Check whether this machine can run reptool, and how the mounted groups are.';
  static override description =
    'One line per check: OK, WARN or FAIL, and for the last two the next step. Changes nothing. Ends with status 0 ' +
    'when all is OK, 1 after a warning, 2 after a failure.';
  static override examples = [
    '<%= config.bin %> doctor',
    { description: 'For another place of the state:', command: '<%= config.bin %> doctor --state /srv/rep --json' },
  ];
  static override flags = { state: stateFlag };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(Doctor);
    const { examine } = await import('../src/cli/doctor.js');
    const { text, status, checks } = await examine(flags.state);
    this.say(text);
    this.endWith(status);
    return { status, checks };
  }
}
