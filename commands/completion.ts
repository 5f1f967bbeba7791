import { Args } from '@oclif/core';
import { OFFLINE_EXITS, RepCommand } from '../src/cli/base.js';

export default class Completion extends RepCommand {
  static override exits = OFFLINE_EXITS;
  static override summary = 'Print a script that completes the command line in bash or zsh.';
  static override description =
    'The script knows all commands and options. Devices, sites and mount points are those of the groups that are ' +
    'mounted when the key is pressed; a mount that does not answer is left out after a second.';
  static override examples = [
    { description: 'In ~/.bashrc:', command: 'source <(<%= config.bin %> completion bash)' },
    { description: 'In ~/.zshrc, behind compinit:', command: 'source <(<%= config.bin %> completion zsh)' },
  ];
  static override args = {
    SHELL: Args.string({ required: true, options: ['bash', 'zsh'], description: 'bash or zsh' }),
  };

  async run(): Promise<unknown> {
    const { args } = await this.parse(Completion);
    const { completionScript, surfaceOf } = await import('../src/cli/completion.js');
    const script = completionScript(args.SHELL === 'zsh' ? 'zsh' : 'bash', surfaceOf(this.config));
    this.say(script.trimEnd());
    return { shell: args.SHELL, script };
  }
}
