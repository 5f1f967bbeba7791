/** What the repository as a whole keeps to, whoever adds to it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';

const TOP = findTop(import.meta.dirname);

const ALLOWED_AT_TOP = new Set(
  ['package.json', 'package-lock.json', 'tsconfig.json', 'src', 'commands', 'test', 'man', 'scripts'].concat([
    'README.md',
    'ARCHITECTURE.md',
    'CHANGELOG.md',
    'LICENSE',
    'SECURITY.md',
  ]),
);

/** Made by install and build; never looked into. */
const MADE = new Set(['node_modules', 'dist', '.git', '.build', 'coverage']);

/** Licences that a package of the program may have. */
const LICENCES = new Set(
  ['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD'].concat([
    'BlueOak-1.0.0',
    'CC0-1.0',
    'Unlicense',
    'OLDAP-2.8',
  ]),
);

/** Written so that no pattern matches its own source. */
const FORBIDDEN_TEXT: { name: string; pattern: RegExp }[] = [
  { name: 'a package registry host', pattern: /\b(?:registry|npm)\.[\w-]+\.(?:org|com|net)\b/i },
  { name: 'a package registry host', pattern: /\b(?:npmjs|yarnpkg|npmmirror)\.(?:org|com)\b/i },
  { name: 'a package registry', pattern: /^(?:@[\w-]+:)?registry\s*=/m },
  { name: 'a path of one machine', pattern: /(?:^|[^\w.-])\/(?:work|farm)\//m },
];

interface LockedPackage {
  license?: string;
  resolved?: string;
  dev?: boolean;
}

interface PackageJson {
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
}

const files = listFiles();

describe('house', () => {
  it('top level holds only what is agreed', () => {
    const strangers = readdirSync(TOP).filter(
      (name) => !name.startsWith('.') && !MADE.has(name) && !ALLOWED_AT_TOP.has(name),
    );
    assert.deepEqual(strangers, []);
  });

  it('every command has a manual page', () => {
    const commands = files.filter((file) => file.startsWith('commands/') && file.endsWith('.ts'));
    assert.notEqual(commands.length, 0, 'no commands found');
    const missing = commands.map(manualPage).filter((page) => !existsSync(join(TOP, page)));
    assert.deepEqual(missing, []);
  });

  for (const { name, pattern } of FORBIDDEN_TEXT) {
    it(`no file names ${name} (${pattern.source.slice(0, 24)}…)`, () => {
      const found = files.flatMap((file) => {
        const hit = pattern.exec(readText(file));
        return hit ? [`${file}: ${hit[0]}`] : [];
      });
      assert.deepEqual(found, []);
    });
  }

  it('the lock file says which packages, not where from', () => {
    const found = Object.entries(locked()).flatMap(([path, entry]) => (entry.resolved ? [path] : []));
    assert.deepEqual(found, []);
  });

  it('packages of the program have licences on the list', () => {
    const found = Object.entries(locked())
      .filter(([path, entry]) => path !== '' && entry.dev !== true && !isAllowedLicence(entry.license ?? ''))
      .map(([path, entry]) => `${path}: ${entry.license ?? 'none'}`);
    assert.deepEqual(found, []);
  });

  it('package versions are exact', () => {
    const { dependencies, devDependencies } = packageJson();
    const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(([, v]) => !/^\d+\.\d+\.\d+$/.test(v));
    assert.deepEqual(loose, []);
  });

  it('what is compiled imports only dependencies, so that it builds under NODE_ENV=production', () => {
    const { dependencies } = packageJson();
    const found = sources().flatMap((file) =>
      importsOf(file)
        .filter((name) => !/^(?:\.|node:|#)/.test(name))
        .map((name) => /^(?:@[^/]+\/)?[^/]+/.exec(name)![0])
        .filter((name) => !(name in dependencies))
        .map((name) => `${file}: ${name}`),
    );
    assert.deepEqual(found, []);
  });

  it('fuse-native is loaded only when it is asked for', () => {
    const found = sources().filter((file) =>
      /^\s*(?:import|export)\s(?!type\b)(?:[^'";]*?\sfrom\s+)?['"]fuse-native['"]|^(?:const|let|var)\s[^\n]*require\(['"]fuse-native['"]\)/m.test(
        readText(file),
      ),
    );
    assert.deepEqual(found, []);
  });
});

/** `commands/site/add.ts` is `man/reptool-site-add.1`; an index file is its folder. */
function manualPage(command: string): string {
  const words = relative('commands', command)
    .replace(/\.ts$/, '')
    .split('/')
    .filter((word) => word !== 'index');
  return `man/${['reptool', ...words].join('-')}.1`;
}

/** An SPDX expression without brackets inside brackets: one side of OR is enough, all sides of AND are needed. */
function isAllowedLicence(expression: string): boolean {
  return expression
    .replace(/[()]/g, '')
    .split(' OR ')
    .some((side) => side.split(' AND ').every((name) => LICENCES.has(name.trim())));
}

function sources(): string[] {
  return files.filter((file) => /^(?:src|commands|test)\/.*\.ts$/.test(file));
}

/** Module names in static and dynamic imports, type-only ones too. */
function importsOf(file: string): string[] {
  const pattern = /^\s*(?:import|export)\s(?:[^'"`;]*?\sfrom\s+)?'([^']+)'|\bimport\('([^']+)'\)/gm;
  return [...readText(file).matchAll(pattern)].map((hit) => (hit[1] ?? hit[2])!);
}

function packageJson(): PackageJson {
  return JSON.parse(readText('package.json')) as PackageJson;
}

function locked(): Record<string, LockedPackage> {
  return (JSON.parse(readText('package-lock.json')) as { packages: Record<string, LockedPackage> }).packages;
}

/** The text of a file; of one that is binary, nothing. */
function readText(file: string): string {
  const data = readFileSync(join(TOP, file));
  return data.subarray(0, 8192).includes(0) ? '' : data.toString('utf8');
}

/** Files that are committed or would be; without git, all that is not made by install and build. */
function listFiles(): string[] {
  try {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
      cwd: TOP,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const names = listed.split('\0').filter((name) => name !== '' && isFile(name));
    if (names.includes('package.json')) return names;
  } catch {
    // No git, or not a repository: a release unpacked.
  }
  return readdirSync(TOP, { recursive: true, encoding: 'utf8' }).filter(
    (name) => !name.split('/').some((part) => MADE.has(part)) && isFile(name),
  );
}

function isFile(name: string): boolean {
  return statSync(join(TOP, name), { throwIfNoEntry: false })?.isFile() === true;
}

/** The folder with our package.json above the compiled test. */
function findTop(from: string): string {
  if (existsSync(join(from, 'package.json')) && basename(from) !== 'dist') return from;
  assert.notEqual(dirname(from), from, 'no package.json above the test');
  return findTop(dirname(from));
}
