import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { pythonJson, pythonJsonLine, pythonString } from '../../src/layout/python-json.ts';

const python = spawnSync('python3', ['-c', 'print(1)']).status === 0;

function dumps(value: unknown, options: string): string {
  const program = `import json,sys; sys.stdout.write(json.dumps(json.loads(sys.stdin.read()), ${options}))`;
  const run = spawnSync('python3', ['-c', program], { input: JSON.stringify(value), encoding: 'utf8' });
  expect(run.stderr).toBe('');
  return run.stdout;
}

const awkward = {
  plain: 'abc/"\\',
  control: '\u0000\u0007\b\t\n\u000b\f\r\u001f\u007f',
  accents: 'Grüße, žluťoučký, 日本語',
  astral: '😀 and \u{10ffff}',
  nested: { b: [1, 2, [], {}, null, true, false, -5, 0.5], a: { ключ: '\u0080' }, Z: 'upper sorts first' },
  '': 'empty key',
};

describe.skipIf(!python)('against python3', () => {
  test('a nested value is written as json.dumps(sort_keys=True, indent=2) writes it', () => {
    expect(pythonJson(awkward)).toBe(dumps(awkward, 'sort_keys=True, indent=2'));
  });

  test('a value on one line is written as json.dumps writes it', () => {
    expect(pythonJsonLine(awkward)).toBe(dumps(awkward, 'sort_keys=False'));
  });
});

test('a string escapes everything outside printable ASCII in lower-case hex', () => {
  expect(pythonString('é\u007f😀\ud800"')).toBe('"\\u00e9\\u007f\\ud83d\\ude00\\ud800\\""');
});
