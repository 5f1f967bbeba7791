/**
 * The surface of the command line as data: a snapshot whose difference is reviewed, and manual pages that say
 * the same as --help. `UPDATE_SNAPSHOT=1 npx mocha` writes the snapshot anew.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ownCommands, TOP } from './support.js';

const SNAPSHOT = join(TOP, 'test/fixtures/cli/commands.json');
const SECTIONS = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'EXAMPLES', 'EXIT STATUS', 'FILES', 'SEE ALSO'];

type Own = Awaited<ReturnType<typeof ownCommands>>[number];

/** Arguments in order, required ones marked; options with what they take. */
function surfaceOf({ words, command }: Own) {
  return {
    command: words.join(' '),
    args: Object.entries(command.args).map(([name, arg]) => (arg.required ? name : `[${name}]`)),
    flags: flagsOf(command),
  };
}

function flagsOf(command: Own['command']): string[] {
  const flags = Object.entries(command.flags ?? {}).map(([name, flag]) => {
    const values = flag.type === 'option' ? (flag.options?.join('|') ?? flag.helpValue ?? 'value') : undefined;
    return values === undefined ? name : `${name} ${String(values)}`;
  });
  return [...flags, ...(command.enableJsonFlag ? ['json'] : [])].sort();
}

/** `.TP` items of a section, without the marks of roff: `--group NAME`, `DIR`. */
function items(page: string, section: string): string[] {
  const body = new RegExp(`^\\.SH ${section}\\n([^]*?)(?=^\\.SH )`, 'm').exec(page)?.[1] ?? '';
  return [...body.matchAll(/^\.TP\n\.(?:BI|B|I) (.*)$/gm)].map((hit) => plain(hit[1]!));
}

function plain(roff: string): string {
  return roff.replace(/\\-/g, '-').replace(/"/g, '').replace(/\s+/g, ' ').trim();
}

function pageOf(words: string[]): string {
  return readFileSync(join(TOP, 'man', `${['reptool', ...words].join('-')}.1`), 'utf8');
}

describe('cli surface', () => {
  let commands: Own[];

  before(async () => {
    commands = await ownCommands();
  });

  it('is the one of the snapshot', () => {
    const text = `${JSON.stringify(commands.map(surfaceOf), null, 2)}\n`;
    if (process.env['UPDATE_SNAPSHOT'] === '1') writeFileSync(SNAPSHOT, text);
    assert.equal(text, readFileSync(SNAPSHOT, 'utf8'), 'UPDATE_SNAPSHOT=1 writes it anew; review the difference');
  });

  it('manual pages name the options and arguments of their commands, and no others', () => {
    for (const own of commands) {
      const page = pageOf(own.words);
      const name = own.words.join(' ');
      const flags = flagsOf(own.command).map((flag) => `--${flag}`);
      assert.deepEqual(items(page, 'OPTIONS').sort(), flags.sort(), `OPTIONS of ${name}`);
      assert.deepEqual(items(page, 'ARGUMENTS'), Object.keys(own.command.args), `ARGUMENTS of ${name}`);
      const synopsis = plain(/^\.SH SYNOPSIS\n([^]*?)(?=^\.SH )/m.exec(page)![1]!);
      for (const flag of flags) assert.ok(synopsis.includes(flag.split(' ')[0]!), `SYNOPSIS of ${name}: ${flag}`);
      for (const arg of Object.keys(own.command.args)) assert.ok(synopsis.includes(arg), `SYNOPSIS of ${name}: ${arg}`);
    }
  });

  it('manual pages have their sections, and name themselves', () => {
    for (const file of readdirSync(join(TOP, 'man')).filter((name) => name.endsWith('.1'))) {
      const page = readFileSync(join(TOP, 'man', file), 'utf8');
      const found = [...page.matchAll(/^\.SH (.*)$/gm)].map((hit) => hit[1]!);
      for (const section of SECTIONS) assert.ok(found.includes(section), `${file}: ${section}`);
      const name = plain(/^\.SH NAME\n(.*)$/m.exec(page)?.[1] ?? '');
      assert.ok(name.startsWith(`${file.slice(0, -2)} - `), `${file}: NAME`);
    }
  });

  it('reptool.1 lists every command', () => {
    const listed = items(pageOf([]), 'COMMANDS');
    assert.deepEqual(listed.sort(), commands.map(({ words }) => words.join(' ')).sort());
  });

  it('every command has a summary, a description, examples and described options', () => {
    for (const { words, command } of commands) {
      const name = words.join(' ');
      assert.ok(command.summary?.endsWith('.'), `${name}: summary`);
      assert.ok((command.description ?? '').length > 20, `${name}: description`);
      assert.ok((command.examples ?? []).length > 0, `${name}: examples`);
      for (const [flag, { description }] of Object.entries(command.flags ?? {}))
        assert.ok(description, `${name} --${flag}: description`);
      assert.ok(command.enableJsonFlag, `${name}: --json`);
    }
  });
});
