import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { deltaOptions } from '../../src/config/delta-options.ts';
import { renderSample } from '../../src/config/sample.ts';

const path = fileURLToPath(new URL('../../deploy/cinder-delta.conf.sample', import.meta.url));

test('the sample under deploy/ is that of the table (UPDATE_SAMPLE=1 writes it)', async () => {
  const text = renderSample('delta', deltaOptions);
  if (process.env['UPDATE_SAMPLE'] === '1') await writeFile(path, text);
  expect(await readFile(path, 'utf8')).toBe(text);
});

test('every option of ours is explained in a sentence', () => {
  for (const [name, { help }] of Object.entries(deltaOptions)) expect(help, name).toMatch(/^[A-Z].{20,}\.$/u);
});
