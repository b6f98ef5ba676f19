import { expect, test } from 'vitest';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { choice, flag, integer, list, multiString, number, text } from '../../src/config/option.ts';
import { describeProblem, type Problem } from '../../src/config/problem.ts';
import { createSettings } from '../../src/config/settings.ts';

const table = {
  name: text({ default: 'plain', aliases: [{ name: 'old_name' }, { group: 'legacy' }] }),
  path: text({ default: '$root/sub' }),
  root: text({ default: '/r' }),
  secret: text({ secret: true }),
  count: integer({ default: 3, min: 1, max: 9 }),
  optional: integer(),
  ratio: number({ default: 1 }),
  on: flag({ default: false }),
  items: list({ default: [] }),
  many: multiString(),
  kind: choice(['one', 'two'], { default: 'one' }),
};

function settingsOf(...texts: readonly string[]) {
  const problems: Problem[] = [];
  const files = texts.map((content, index) => parseConfigFile(`/etc/${index + 1}.conf`, content, problems));
  return createSettings(files, { DEFAULT: table, other: table });
}

test('what no file gives has its default', () => {
  const settings = settingsOf('');
  expect(settings.read('DEFAULT', table)).toEqual({
    name: 'plain',
    path: '/r/sub',
    root: '/r',
    secret: undefined,
    count: 3,
    optional: undefined,
    ratio: 1,
    on: false,
    items: [],
    many: [],
    kind: 'one',
  });
  expect(settings.problems).toEqual([]);
  expect(settings.entries.every(({ source }) => source === 'default')).toBe(true);
});

test('a later file and a later line win, and the entry says which line that was', () => {
  const settings = settingsOf('[DEFAULT]\nname = a\ncount = 4\n', '[DEFAULT]\nname = b\nname = c\n');
  expect(settings.read('DEFAULT', table)).toMatchObject({ name: 'c', count: 4 });
  expect(settings.entries.find(({ option }) => option === 'name')).toEqual({
    section: 'DEFAULT',
    option: 'name',
    shown: 'c',
    source: { file: '/etc/2.conf', line: 3 },
  });
});

test('an option that may be given several times has the values of all files, oldest first', () => {
  const settings = settingsOf('[DEFAULT]\nmany = 1\nmany = 2\n', '[DEFAULT]\nmany = 3\n');
  expect(settings.read('DEFAULT', table).many).toEqual(['1', '2', '3']);
});

test('an older name counts where the present one is not in that file', () => {
  expect(settingsOf('[DEFAULT]\nold_name = x\n').read('DEFAULT', table).name).toBe('x');
  expect(settingsOf('[legacy]\nname = y\n').read('DEFAULT', table).name).toBe('y');
  expect(settingsOf('[DEFAULT]\nold_name = x\nname = z\n').read('DEFAULT', table).name).toBe('z');
  expect(settingsOf('[DEFAULT]\nname = z\n', '[DEFAULT]\nold_name = x\n').read('DEFAULT', table).name).toBe(
    'x',
  );
});

test('section names are compared without case, but for DEFAULT', () => {
  expect(settingsOf('[Other]\nname = x\n').read('other', table).name).toBe('x');
  expect(settingsOf('[default]\nname = x\n').read('DEFAULT', table).name).toBe('plain');
});

test('references look in their own section, then in DEFAULT, and in a named section', () => {
  const settings = settingsOf(
    '[DEFAULT]\nextra = e\n[legacy]\nroot = /d\n[other]\nname = $root-${extra}\npath = ${legacy.root}/$other.count\nroot = /o\n',
  );
  expect(settings.read('other', table)).toMatchObject({ name: '/o-e', path: '/d/3' });
});

test('the same reference in another section is another option, and no circle', () => {
  const settings = settingsOf('[DEFAULT]\nroot = <$other.name>\n[other]\nname = $root\nroot = /o\n');
  expect(settings.read('DEFAULT', table).root).toBe('</o>');
  expect(settings.problems).toEqual([]);
});

test('two dollar signs, or one after a backslash, are one dollar sign', () => {
  expect(
    settingsOf(String.raw`[DEFAULT]
name = a$$b\$c$1$
`).read('DEFAULT', table).name,
  ).toBe('a$b$c$1$');
});

test('a reference to nothing and one to itself are problems', () => {
  const settings = settingsOf('[DEFAULT]\nname = pa$word\nroot = $path\n');
  expect(settings.read('DEFAULT', table)).toMatchObject({ name: 'plain', root: '/r' });
  expect(settings.problems.map(describeProblem)).toEqual([
    '/etc/1.conf:2: [DEFAULT] name = pa$word: $word names no option; write $$ for a dollar sign',
    '[DEFAULT] path = $root/sub: it refers to itself: $path → $root → $path',
    '/etc/1.conf:3: [DEFAULT] root = $path: it refers to itself: $root → $path → $root',
  ]);
});

test('every bad value is a problem with its place and what it must be', () => {
  const settings = settingsOf(
    '[DEFAULT]\ncount = 12\nratio = fast\non = maybe\nkind = three\noptional = 1.5\n',
  );
  expect(settings.read('DEFAULT', table)).toMatchObject({ count: 3, ratio: 1, on: false, kind: 'one' });
  expect(settings.problems.map(describeProblem)).toEqual([
    '/etc/1.conf:2: [DEFAULT] count = 12: it must be an integer from 1 to 9',
    '/etc/1.conf:6: [DEFAULT] optional = 1.5: it must be an integer',
    '/etc/1.conf:3: [DEFAULT] ratio = fast: it must be a number',
    '/etc/1.conf:4: [DEFAULT] on = maybe: it must be true or false (also 1/0, yes/no, on/off)',
    '/etc/1.conf:5: [DEFAULT] kind = three: it must be one of one, two',
  ]);
});

test('an empty number is no value where there is no default, and a problem where there is one', () => {
  const settings = settingsOf('[DEFAULT]\noptional =\ncount =\n');
  expect(settings.read('DEFAULT', table)).toMatchObject({ optional: undefined, count: 3 });
  expect(settings.problems).toHaveLength(1);
});

test('a reference to an empty number is empty, and only the number is a problem', () => {
  const settings = settingsOf('[DEFAULT]\ncount =\nname = <$count>\n');
  expect(settings.read('DEFAULT', table)).toMatchObject({ name: '<>', count: 3 });
  expect(settings.problems.map(({ option }) => option)).toEqual(['count']);
});

test('a number that refers to nothing is an empty one', () => {
  const settings = settingsOf('[DEFAULT]\noptional = $secret\ncount = $secret\nname = <$count>\n');
  expect(settings.read('DEFAULT', table)).toMatchObject({ optional: undefined, name: '<>', count: 3 });
  expect(settings.problems.map(({ option }) => option)).toEqual(['count']);
});

test('lists are cut at commas, without spaces and trailing commas', () => {
  expect(settingsOf('[DEFAULT]\nitems = a, b,"c,,d, ,\n').read('DEFAULT', table).items).toEqual([
    'a',
    'b',
    '"c',
    '',
    'd',
    '',
  ]);
});

test('a secret is shown nowhere, not even in a problem', () => {
  const settings = settingsOf('[DEFAULT]\nsecret = hunter$2 $nix\n');
  settings.read('DEFAULT', table);
  settings.reject('DEFAULT', 'secret', 'it is bad');
  expect(JSON.stringify([settings.problems, settings.entries])).not.toContain('hunter');
  expect(settings.problems).toHaveLength(2);
});

test('an option missing in a section is taken from the fallback section', () => {
  const settings = settingsOf('[backend_defaults]\nname = shared\ncount = 5\n[ceph]\ncount = 6\n');
  expect(settings.read('ceph', table, 'backend_defaults')).toMatchObject({ name: 'shared', count: 6 });
});

test.each([
  ['1e2', '100.0'],
  ['71e21_0', '7.1e+211'],
  ['1_0.5', '10.5'],
  ['1e16', '1e+16'],
  ['9e15', '9000000000000000.0'],
  ['.0001', '0.0001'],
  ['2e-5', '2e-05'],
  ['-0', '-0.0'],
])('a reference to the number %s reads %s, as Python writes it', (written, shown) => {
  const settings = settingsOf(`[DEFAULT]\nratio = ${written}\nname = $ratio\n`);
  expect(settings.read('DEFAULT', table).name).toBe(shown);
  expect(settings.problems).toEqual([]);
});
