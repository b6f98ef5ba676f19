import { assert, constantFrom, integer, jsonValue, property } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createJsonParser } from '../../src/layout/json-parser.ts';
import { createJsonBuilder } from '../../src/layout/json-value.ts';

/** Parses `text` in pieces of `step` bytes and builds the value. */
function parse(text: Buffer, step: number, maxStringBytes = 1000): unknown {
  const builder = createJsonBuilder(10_000, 100_000, () => new Error('too large'));
  const parser = createJsonParser('doc', { maxDepth: 16, maxStringBytes }, builder);
  for (let at = 0; at < text.length; at += step) parser.push(text.subarray(at, at + step));
  parser.end();
  return builder.result;
}

test('every document gives the same value at every split, as JSON.parse gives it', () => {
  assert(
    property(
      jsonValue({ maxDepth: 6, stringUnit: 'binary' }),
      integer({ min: 1, max: 40 }),
      constantFrom(undefined, 1, '\t'),
      (value, step, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(parse(Buffer.from(text), step)).toEqual(JSON.parse(text));
      },
    ),
  );
});

test('escapes and characters of several bytes may be split anywhere', () => {
  const text = Buffer.from('{"a\\u00e9\\n": ["😀é\\ud83d\\ude00\\\\", -1.5e3, true]}');
  for (let step = 1; step <= text.length; step += 1) {
    expect(parse(text, step)).toEqual({ 'aé\n': ['😀é😀\\', -1500, true] });
  }
});

test('a key called __proto__ stays a key', () => {
  const value = parse(Buffer.from('{"__proto__": {"polluted": 1}}'), 3);
  expect(Object.keys(Object(value))).toEqual(['__proto__']);
  expect(Object.prototype).not.toHaveProperty('polluted');
});

describe('what is not JSON is corrupt', () => {
  const bad: readonly [string, string][] = [
    ['nothing', ''],
    ['white space', ' \n'],
    ['a cut object', '{"a": 1'],
    ['a cut string', '{"a": "b'],
    ['a cut word', '{"a": tru'],
    ['a trailing comma in an object', '{"a": 1,}'],
    ['a trailing comma in a list', '[1,]'],
    ['a missing comma', '[1 2]'],
    ['a missing colon', '{"a" 1}'],
    ['a key without quotes', '{a: 1}'],
    ['brackets that do not match', '[1}'],
    ['a closing bracket too many', '[1]]'],
    ['junk behind the end', '{} {}'],
    ['NaN', '[NaN]'],
    ['Infinity', '[-Infinity]'],
    ['a number beyond every double', '[1e999]'],
    ['a leading zero', '[01]'],
    ['a bare minus', '[-]'],
    ['a very long number', `[${'1'.repeat(100)}]`],
    ['a control character in a string', '["a\nb"]'],
    ['a bad escape', '["\\x"]'],
    ['a bad unicode escape', '["\\u12g4"]'],
    ['too deep nesting', `${'['.repeat(17)}${']'.repeat(17)}`],
    ['a string over the limit', `["${'x'.repeat(1001)}"]`],
    ['an endless string', `["${'x'.repeat(5000)}`],
    ['a byte order mark', '\ufeff[]'],
  ];
  for (const [what, text] of bad) {
    for (const step of [1, 7, 100_000]) {
      test(`${what}, in pieces of ${step}`, () => {
        expect(() => parse(Buffer.from(text), step)).toThrow(expect.objectContaining({ code: 'corrupt' }));
      });
    }
  }

  test('bytes that are not UTF-8', () => {
    const text = Buffer.concat([Buffer.from('["'), Buffer.from([0xc3, 0x28]), Buffer.from('"]')]);
    expect(() => parse(text, 100)).toThrow(/not UTF-8/);
  });
});
