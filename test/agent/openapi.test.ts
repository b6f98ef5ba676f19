import { readFile, writeFile } from 'node:fs/promises';
import { format, resolveConfig } from 'prettier';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { agentOpenApi } from '../../src/agent/openapi.ts';

const file = new URL('../../openapi/agent.yaml', import.meta.url);

describe('openapi/agent.yaml', () => {
  test('is what the routes of the agent say (write it anew with UPDATE_OPENAPI=1)', async () => {
    const options = await resolveConfig(file);
    const text = await format(stringify(await agentOpenApi()), { ...options, parser: 'yaml' });
    if (process.env['UPDATE_OPENAPI'] === '1') await writeFile(file, text);
    expect(await readFile(file, 'utf8')).toBe(text);
  });

  test('describes every call of the protocol', async () => {
    const { paths } = (await agentOpenApi()) as { paths: Record<string, Record<string, unknown>> };
    const calls = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const volume = '/v1/backends/{backend}/volumes/{volume}';
    expect(calls.toSorted()).toEqual(
      [
        'GET /v1/backends',
        'GET /v1/backends/{backend}/volumes',
        'POST /v1/backends/{backend}/volumes',
        `GET ${volume}`,
        `POST ${volume}/resize`,
        `GET ${volume}/snapshots`,
        `POST ${volume}/snapshots`,
        `DELETE ${volume}/snapshots/{snapshot}`,
        `POST ${volume}/delta`,
        `POST ${volume}/digests`,
        `POST ${volume}/blocks`,
        `PUT ${volume}/data`,
      ].toSorted(),
    );
  });
});
