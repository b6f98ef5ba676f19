/**
 * The rules of design.md section 5 as checks: ranks, owners of packages, no cycles, no barrels, file names and
 * length, one clock. They read the import statements of every file of src.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

/** A lower rank never imports a higher one. The agent stands beside the ranks: see `mayImport`. */
const ranks: Readonly<Record<string, number>> = {
  model: 0,
  async: 0,
  'log.ts': 0,
  config: 1,
  protocol: 1,
  layout: 1,
  openstack: 1,
  bus: 2,
  volume: 2,
  store: 2,
  database: 2,
  pipeline: 3,
  manager: 4,
  rest: 5,
  main: 6,
};

/** Which rooms may import a package. A new dependency needs a line here. */
const owners: Readonly<Record<string, readonly string[]>> = {
  '@aws-sdk/*': ['store'],
  '@fastify/*': ['agent', 'rest', 'main'],
  '@smithy/*': ['store'],
  amqplib: ['bus'],
  'bzip2-wasm': ['pipeline'],
  fastify: ['agent', 'rest', 'main'],
  'fastify-type-provider-zod': ['agent', 'rest', 'main'],
  koffi: ['agent', 'pipeline', 'store'],
  kysely: ['database'],
  mysql2: ['database'],
  pg: ['database'],
  pino: ['log.ts'],
  'prom-client': ['rest', 'main'],
  undici: ['openstack', 'store', 'volume'],
  zod: [
    'agent',
    'bus',
    'config',
    'layout',
    'main',
    'manager',
    'openstack',
    'protocol',
    'rest',
    'store',
    'volume',
  ],
};

/** Contracts that a lower rank may know by type. */
const typeOnlyImports = new Set(['layout -> store/object-store.ts']);

/** Words that say nothing about what a file holds. */
const emptyNames = [
  'index',
  'util',
  'utils',
  'helper',
  'helpers',
  'common',
  'types',
  'misc',
  'constants',
  'interfaces',
];
/** Of a file of src; a file of tests may hold more cases than a file of code may hold ideas. */
const maxLines = { src: 400, test: 600 };

type Import = { readonly from: string; readonly to: string; readonly typeOnly: boolean };
type Source = { readonly path: string; readonly text: string; readonly code: string };

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function readTree(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.m?ts$|\.mjs$/.test(entry.name))
    .map((entry) => {
      const file = join(entry.parentPath, entry.name);
      const text = readFileSync(file, 'utf8');
      return { path: relative(join(root, folder), file), text, code: withoutComments(text) };
    });
}

/** Comments become blanks; line comments only where they start a line or follow a space, so that URLs stay. */
function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, ' ').replaceAll(/(^|\s)\/\/.*$/gm, '$1');
}

function importsOf({ path, code }: Source): Import[] {
  const found: Import[] = [];
  const statement =
    /(?:^|[;}\s])(?:import|export)\s+(type\s+)?(?:[\w*${},\s]*?\sfrom\s*)?['"]([^'"\n]+)['"]/g;
  const dynamic =
    /\bimport\(\s*['"]([^'"\n]+)['"]\s*\)|new URL\(\s*['"](\.[^'"\n]+\.m?[jt]s)['"]\s*,\s*import\.meta\.url/g;
  for (const [, type, to] of code.matchAll(statement)) {
    if (to !== undefined) found.push({ from: path, to, typeOnly: type !== undefined });
  }
  for (const [, imported, located] of code.matchAll(dynamic)) {
    const to = imported ?? located;
    if (to !== undefined) found.push({ from: path, to, typeOnly: false });
  }
  return found;
}

const roomOf = (path: string): string => path.split('/')[0] ?? path;
const isRelative = (specifier: string): boolean => specifier.startsWith('.');
const targetOf = ({ from, to }: Import): string => join(dirname(from), to);

const sources = readTree('src');
const imports = sources.flatMap(importsOf);
const inside = imports.filter(({ to }) => isRelative(to));

function mayImport(each: Import): boolean {
  const from = roomOf(each.from);
  const target = targetOf(each);
  const to = roomOf(target);
  if (from === to) return true;
  if (each.typeOnly && typeOnlyImports.has(`${from} -> ${target}`)) return true;
  if (to === 'agent') return from === 'main';
  const upper = from === 'agent' ? 0 : ranks[from];
  const lower = ranks[to];
  if (upper === undefined || lower === undefined) return false;
  if (from === 'agent') return lower === 0 || to === 'config' || to === 'protocol';
  return lower < upper || (lower === 0 && to !== 'log.ts');
}

const nameOf = (specifier: string) => specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
const ownersOf = (name: string) => owners[name] ?? owners[`${name.split('/')[0]}/*`];

describe('the rooms', () => {
  it('are those of the design', () => {
    const known = new Set([...Object.keys(ranks), 'agent']);
    expect([...new Set(sources.map(({ path }) => roomOf(path)))].filter((room) => !known.has(room))).toEqual(
      [],
    );
  });

  it('import nothing of a higher rank, and nothing of a neighbour', () => {
    const broken = inside.filter((each) => !mayImport(each));
    expect(broken.map((each) => `${each.from} imports ${targetOf(each)}`)).toEqual([]);
  });

  it('import files that exist, with their ending', () => {
    const files = new Set(sources.map(({ path }) => path));
    const outside = inside.filter((each) => !files.has(targetOf(each)));
    expect(outside.map((each) => `${each.from} imports ${each.to}`)).toEqual([]);
  });

  it('have no import cycle but of types', () => {
    expect(findCycle(inside.filter(({ typeOnly }) => !typeOnly))).toEqual([]);
  });
});

describe('packages', () => {
  const nodeModules = new Set(builtinModules.filter((name) => !name.startsWith('node:')));
  it('are imported only by the rooms that own them', () => {
    const foreign = imports
      .filter(({ to }) => !isRelative(to) && !to.startsWith('node:'))
      .filter(({ from, to }) => ownersOf(nameOf(to))?.includes(roomOf(from)) !== true);
    expect(foreign.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  it('of Node are named with node:', () => {
    const bare = imports.filter(({ to }) => nodeModules.has(to));
    expect(bare.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });
});

describe('files', () => {
  it('hand nothing on: there are no barrels', () => {
    const handedOn = /\bexport\s+(type\s+)?(\*[^;]*|\{[^}]*\}\s*)from\s*['"][^'"]+['"];?/g;
    const barrels = sources.filter(({ code }) => {
      const own = code.replaceAll(handedOn, '');
      return /\bexport\s*\*/.test(code) || (own !== code && own.trim() === '');
    });
    expect(barrels.map(({ path }) => path)).toEqual([]);
  });

  it('have names in kebab-case that say what they hold', () => {
    const bad = sources.filter(({ path }) => {
      const name = basename(path).replace(/(\.d)?\.(ts|mts|mjs)$/, '');
      return !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) || emptyNames.includes(name);
    });
    expect(bad.map(({ path }) => path)).toEqual([]);
  });

  for (const [folder, limit] of Object.entries(maxLines)) {
    it(`of ${folder} are at most ${limit} lines long`, () => {
      const long = readTree(folder)
        .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
        .filter(({ lines }) => lines > limit);
      expect(long.map(({ path, lines }) => `${path}: ${lines}`)).toEqual([]);
    });
  }

  it('ask the clock of model/clock.ts for the time', () => {
    const clocks = sources.filter(
      ({ path, code }) =>
        path !== 'model/clock.ts' && roomOf(path) !== 'main' && /\bDate\.now\(|\bnew Date\(\)/.test(code),
    );
    expect(clocks.map(({ path }) => path)).toEqual([]);
  });

  it('join signals by async/any-signal.ts, which forgets none', () => {
    const joined = sources.filter(
      ({ path, code }) => path !== 'async/any-signal.ts' && /\bAbortSignal\.any\(/.test(code),
    );
    expect(joined.map(({ path }) => path)).toEqual([]);
  });

  it('take ids and times before a transaction, which may run more than once', () => {
    const made = sources.flatMap(({ path, code }) =>
      callsOf('transaction', code)
        .concat(callsOf('inTransaction', code))
        .filter((call) => /\bclock\.now\(|\brandomUUID\(/.test(call))
        .map((call) => `${path}: ${call.slice(0, 60)}`),
    );
    expect(made).toEqual([]);
    expect(callsOf('transaction', 'a.transaction((sql) => f(sql, clock.now())); g()')).toEqual([
      'transaction((sql) => f(sql, clock.now()))',
    ]);
  });

  it('write to the console only in main', () => {
    const talkers = sources.filter(
      ({ path, code }) => roomOf(path) !== 'main' && /\bconsole\.\w+\(/.test(code),
    );
    expect(talkers.map(({ path }) => path)).toEqual([]);
  });
});

/** Each call of `name` with all that stands between its parentheses. */
function callsOf(name: string, code: string): string[] {
  const starts = [...code.matchAll(new RegExp(`\\b${name}\\(`, 'g'))].map(({ index }) => index);
  return starts.map((start) => {
    let depth = 0;
    for (let at = start + name.length; at < code.length; at += 1) {
      if (code[at] === '(') depth += 1;
      if (code[at] === ')') depth -= 1;
      if (depth === 0) return code.slice(start, at + 1);
    }
    return code.slice(start);
  });
}

const importsIn = (text: string) => importsOf({ path: 'bus/x.ts', text, code: withoutComments(text) });
const isAllowed = (from: string, to: string, typeOnly = false) =>
  mayImport({ from, to: relative(dirname(from), to), typeOnly });
const edge = (from: string, to: string): Import => ({ from, to: `./${to}`, typeOnly: false });

describe('these checks', () => {
  it('see every form of import', () => {
    const text = [
      `import a from './a.ts';`,
      `import type { B } from './b.ts';`,
      `import {\n  c,\n  type D,\n} from './c.ts';`,
      `import './e.ts';`,
      `export { f } from './f.ts';`,
      `const g = await import('./g.ts');`,
      `new Worker(new URL('./h.ts', import.meta.url));`,
      `import * as i from "node:fs";`,
    ].join('\n');
    expect(importsIn(text).map(({ to, typeOnly }) => `${to}${typeOnly ? ' (type)' : ''}`)).toEqual([
      './a.ts',
      './b.ts (type)',
      './c.ts',
      './e.ts',
      './f.ts',
      'node:fs',
      './g.ts',
      './h.ts',
    ]);
  });

  it('pass over comments', () => {
    expect(importsIn(`/* import a from './a.ts' */\n// import b from './b.ts'\n`)).toEqual([]);
  });

  it('find what is forbidden', () => {
    expect(isAllowed('layout/chain.ts', 'store/object-store.ts')).toBe(false);
    expect(isAllowed('layout/chain.ts', 'store/object-store.ts', true)).toBe(true);
    expect(isAllowed('bus/a.ts', 'store/b.ts')).toBe(false);
    expect(isAllowed('agent/a.ts', 'layout/b.ts')).toBe(false);
    expect(isAllowed('manager/a.ts', 'agent/b.ts')).toBe(false);
    expect(isAllowed('manager/a.ts', 'volume/b.ts')).toBe(true);
    expect(isAllowed('pipeline/a.ts', 'manager/b.ts', true)).toBe(false);
  });

  it('find a cycle', () => {
    expect(findCycle([edge('a.ts', 'b.ts'), edge('b.ts', 'c.ts'), edge('c.ts', 'b.ts')])).toEqual([
      'b.ts',
      'c.ts',
      'b.ts',
    ]);
  });
});

/** One cycle as a path that ends where it begins, or nothing. */
function findCycle(edges: readonly Import[]): string[] {
  const next = new Map<string, string[]>();
  for (const each of edges) next.set(each.from, [...(next.get(each.from) ?? []), targetOf(each)]);
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return [];
    path.push(file);
    for (const target of next.get(file) ?? []) {
      const cycle = visit(target);
      if (cycle.length > 0) return cycle;
    }
    path.pop();
    done.add(file);
    return [];
  };
  for (const file of next.keys()) {
    const cycle = visit(file);
    if (cycle.length > 0) return cycle;
  }
  return [];
}
