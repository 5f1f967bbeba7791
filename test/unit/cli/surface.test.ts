/**
 * The surface of the command line as data: a snapshot whose difference is reviewed, a schema for every --json, and
 * manual pages that say the same as --help. After `npm run build`, `npm run surface` writes the snapshot anew.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RepCommand } from '../../../src/cli/base.js';
import { checkSchema, schema, type Schema } from '../../support/schema.js';
import { ownCommands, reptool, TOP } from './support.js';

const SNAPSHOT = join(TOP, 'test/fixtures/cli/commands.json');
/** What --json prints, by command; those that begin with _ are shared. */
const SCHEMAS = join(TOP, 'test/fixtures/schemas');
const SECTIONS = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'EXAMPLES', 'EXIT STATUS', 'FILES', 'SEE ALSO'];

const SAY =
  'the surface of the command line changed. If that is meant: `npm run surface` writes the snapshot anew; review its difference';

type Own = Awaited<ReturnType<typeof ownCommands>>[number];

/** Arguments in order, optional ones in brackets; options with what they take, their default and environment. */
function surfaceOf({ words, command }: Own) {
  return {
    command: words.join(' '),
    args: Object.entries(command.args).map(([name, arg]) => {
      const all = `${name}${arg.multiple ? '...' : ''}${arg.options === undefined ? '' : ` ${arg.options.join('|')}`}`;
      return arg.required ? all : `[${all}]`;
    }),
    flags: flagsOf(command, true),
    exits: exitsOf(command),
  };
}

function exitsOf(command: Own['command']): readonly number[] {
  return (command as unknown as typeof RepCommand).exits;
}

function flagsOf(command: Own['command'], whole = false): string[] {
  const flags = Object.entries(command.flags ?? {}).map(([name, flag]) => {
    const values = flag.type === 'option' ? (flag.options?.join('|') ?? flag.helpValue ?? 'value') : undefined;
    const taken = values === undefined ? name : `${name} ${String(values)}`;
    if (!whole) return taken;
    const more = [
      flag.char === undefined ? '' : `-${flag.char}`,
      flag.required === true ? 'required' : '',
      flag.type === 'option' && flag.multiple === true ? 'repeatable' : '',
      flag.default === undefined || typeof flag.default === 'function' ? '' : `default ${String(flag.default)}`,
      flag.env === undefined ? '' : `env ${flag.env}`,
      flag.exclusive === undefined ? '' : `not with ${flag.exclusive.join(', ')}`,
    ].filter((word) => word !== '');
    return [taken, ...more].join('; ');
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

/** Names of all properties, of what lies deeper too. */
function propertiesOf(s: Schema): string[] {
  if (s.$ref !== undefined) return propertiesOf(schema(s.$ref));
  const own = Object.entries(s.properties ?? {}).flatMap(([name, each]) => [name, ...propertiesOf(each)]);
  return [...own, ...(s.items === undefined ? [] : propertiesOf(s.items))];
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
    assert.equal(text, readFileSync(SNAPSHOT, 'utf8'), SAY);
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

  it('--help shows the options and arguments of the manual page, and no others', async () => {
    for (const { words } of commands) {
      const name = words.join(' ');
      const { stdout, exit } = await reptool(...words, '--help');
      assert.equal(exit, 0, name);
      const section = (title: string): string[] => {
        const from = stdout.split('\n').slice(stdout.split('\n').findIndex((line) => line === title) + 1);
        return stdout.includes(`\n${title}\n`) ? from.slice(0, from.findIndex((line) => /^\S/.test(line)) >>> 0) : [];
      };
      const flags = ['FLAGS', 'GLOBAL FLAGS']
        .flatMap(section)
        .flatMap((line) => /^ {2,6}(?:-\w, )?--(?:\[no-\])?([\w-]+)/.exec(line)?.[1] ?? []);
      const args = section('ARGUMENTS').flatMap((line) => /^ {2}\[?([A-Z]+)\b/.exec(line)?.[1] ?? []);
      const page = pageOf(words);
      const inPage = items(page, 'OPTIONS').map((item) => /^--([\w-]+)/.exec(item)![1]!);
      assert.deepEqual(flags.sort(), inPage.sort(), `options of ${name}`);
      assert.deepEqual(args, items(page, 'ARGUMENTS'), `arguments of ${name}`);
    }
  });

  it('manual pages explain the exit statuses of their commands, and no others', () => {
    for (const { words, command } of commands) {
      const body = /^\.SH EXIT STATUS\n([^]*?)(?=^\.SH )/m.exec(pageOf(words))![1]!;
      const found = [...body.matchAll(/^\.TP\n\.B ([\d, ]+)$/gm)].flatMap((hit) => hit[1]!.split(', ').map(Number));
      assert.deepEqual([...new Set(found)].sort(), [...exitsOf(command)], words.join(' '));
    }
  });

  it('every command has a schema of its --json, and no other schema is there', () => {
    const wanted = commands.map(({ words }) => `${words.join('-')}.json`);
    const found = readdirSync(SCHEMAS).filter((name) => !name.startsWith('_'));
    assert.deepEqual(found.sort(), wanted.sort(), `one schema per command in ${SCHEMAS}`);
  });

  it('reptool-ctl(5) explains every word of status.json', () => {
    const page = readFileSync(join(TOP, 'man/reptool-ctl.5'), 'utf8').replace(/\\-/g, '-');
    const body = /^\.SH STATUS\.JSON\n([^]*?)(?=^\.SH )/m.exec(page)![1]!;
    const missing = propertiesOf(schema('_group')).filter(
      (name) => !new RegExp(`(?<![\\w-])${name}(?![\\w-])`).test(body),
    );
    assert.deepEqual(missing, []);
  });

  it('schemas say of every property whether it is there', () => {
    for (const name of readdirSync(SCHEMAS)) checkSchema(JSON.parse(readFileSync(join(SCHEMAS, name), 'utf8')), name);
  });

  it('reptool.1 names every other page', () => {
    const also = /^\.SH SEE ALSO\n([^]*)/m.exec(pageOf([]))![1]!;
    const named = [...also.matchAll(/^\.BR (\S+) \((\d)\)/gm)].map((hit) => `${plain(hit[1]!)}.${hit[2]!}`);
    const pages = readdirSync(join(TOP, 'man')).filter((name) => name !== 'reptool.1');
    assert.deepEqual(named.sort(), pages.sort());
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
