/**
 * Which room may import which. Imports point one way, from a later storey to an earlier one; rooms of one
 * storey do not know each other. Type-only imports count. Nothing imports the daemon: it is started as a
 * process, by path.
 */
const STOREYS = [
  ['base'],
  ['registry'],
  ['fuse', 'index'],
  ['replog', 'dirtylog', 'snapshot'],
  ['slink'],
  ['device'],
  ['hub', 'cluster'],
  ['control'],
  ['daemon', 'cli'],
];

const rooms = STOREYS.flatMap((names, storey) => {
  const below = STOREYS.slice(0, storey).flat();
  return names.map((name) => ({ name, sees: [...below, name] }));
});

const direction = rooms.map(({ name, sees }) => ({
  name: `${name}-sees-only-what-is-below`,
  comment: `src/${name} may import ${sees.join(', ')}`,
  severity: 'error',
  from: { path: `^src/${name}/` },
  to: { path: '^(src|commands|test|scripts)/', pathNot: `^src/(${sees.join('|')})/` },
}));

module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'Two files that need each other are one file, or a third is missing.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    ...direction,
    {
      name: 'every-file-in-a-room',
      comment: 'A new folder under src/ needs its place among the storeys first.',
      severity: 'error',
      from: { path: '^src/', pathNot: `^src/(${rooms.map((room) => room.name).join('|')})/` },
      to: {},
    },
    {
      name: 'commands-see-only-src',
      comment: 'A command parses, asks and prints; it imports no other command, no test and not the daemon.',
      severity: 'error',
      from: { path: '^commands/' },
      to: { path: '^(src/daemon|commands|test|scripts)/' },
    },
    {
      name: 'resolvable',
      comment: 'An import that leads nowhere escapes every other rule.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'runtime-packages-are-dependencies',
      comment: 'What the program imports is there under NODE_ENV=production too.',
      severity: 'error',
      from: { path: '^(src|commands)/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], dependencyTypesNot: ['type-only', 'npm'] },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.mjs', '.cjs', '.json'],
    },
  },
};
