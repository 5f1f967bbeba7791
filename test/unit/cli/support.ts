/** What tests of the command line share. */
import { Config, type Command } from '@oclif/core';
import { runCommand } from '@oclif/test';
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** The folder with our package.json: where oclif finds the commands, and tests their fixtures. */
export const TOP = findTop(import.meta.dirname);

/** The program as npm links it. */
export const BIN = join(TOP, 'dist/src/cli/run.js');

function findTop(from: string): string {
  if (existsSync(join(from, 'package.json')) && basename(from) !== 'dist') return from;
  return findTop(dirname(from));
}

/** All commands of the program itself (not those of oclif's plug-ins), by the words that are typed. */
export async function ownCommands(): Promise<{ words: string[]; command: Command.Class }[]> {
  const config = await Config.load(TOP);
  const own = config.commands.filter((command) => command.pluginName === config.name);
  const loaded = own.map(async (command) => ({ words: command.id.split(':'), command: await command.load() }));
  return (await Promise.all(loaded)).sort((a, b) => (a.words.join(' ') < b.words.join(' ') ? -1 : 1));
}

export interface Ran {
  stdout: string;
  stderr: string;
  exit: number;
}

/** Runs one command line in this process. */
export async function reptool(...words: string[]): Promise<Ran> {
  const before = process.exitCode;
  process.exitCode = undefined;
  try {
    const { stdout, stderr, error } = await runCommand(words, { root: TOP });
    const exit = (error as { oclif?: { exit?: number } } | undefined)?.oclif?.exit;
    return { stdout, stderr, exit: exit ?? Number(process.exitCode ?? (error === undefined ? 0 : 1)) };
  } finally {
    process.exitCode = before;
  }
}
