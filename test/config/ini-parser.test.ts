import { expect, test } from 'vitest';
import { parseIni } from '../../src/config/ini-parser.ts';

const values = (text: string) =>
  parseIni(text).assignments.map(({ section, key, value }) => [section, key, value]);

test('the first of "=" and ":" ends the key', () => {
  expect(values('[a]\nx = 1:2\ny: 1=2\n')).toEqual([
    ['a', 'x', '1:2'],
    ['a', 'y', '1=2'],
  ]);
});

test('a "#" inside a value is part of it, a password say', () => {
  expect(values('[DEFAULT]\ntransport_url = rabbit://u:p#x@h/\n')).toEqual([
    ['DEFAULT', 'transport_url', 'rabbit://u:p#x@h/'],
  ]);
});

test('lines that start with a space continue the value, until a blank line', () => {
  expect(values('[a]\nx = 1\n  2\n\t# 3\n\n')).toEqual([['a', 'x', '1\n2\n# 3']]);
  expect(parseIni('[a]\nx = 1\n\n  2\n').problems).toMatchObject([{ line: 4 }]);
});

test('one pair of matching quotes is dropped, of the first line only', () => {
  expect(values(`[a]\nx = " 1 "\ny = '2"\nz = ""q""\nw = "1\n  2"\nv = "\n`)).toEqual([
    ['a', 'x', ' 1 '],
    ['a', 'y', `'2"`],
    ['a', 'z', '"q"'],
    ['a', 'w', '"1\n2"'],
    ['a', 'v', ''],
  ]);
});

test('a repeated key gives one assignment each time, with its line', () => {
  expect(parseIni('[a]\nx = 1\n[b]\n[a]\nx = 2\n').assignments).toEqual([
    { section: 'a', key: 'x', value: '1', line: 2 },
    { section: 'a', key: 'x', value: '2', line: 5 },
  ]);
});

test('every bad line is reported, and the good ones are kept', () => {
  const { assignments, problems } = parseIni('early = 1\n[a\n[]\nnonsense\n= 3\n[ok]\nx = 1\n');
  expect(problems.map(({ line }) => line)).toEqual([1, 2, 3, 4, 5]);
  expect(assignments).toEqual([{ section: 'ok', key: 'x', value: '1', line: 7 }]);
});

test('section names keep their case and inner brackets', () => {
  expect(parseIni('[lvm.1]\n[A b]\n[x]y]\n').sections).toEqual(['lvm.1', 'A b', 'x]y']);
});

test('lines may end as on Unix, Windows or an old Mac', () => {
  expect(values('[a]\r\nx = 1\ry = 2\r\n')).toEqual([
    ['a', 'x', '1'],
    ['a', 'y', '2'],
  ]);
});
