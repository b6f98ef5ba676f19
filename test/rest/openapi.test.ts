import { readFile, writeFile } from 'node:fs/promises';
import { format, resolveConfig } from 'prettier';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { startMachine, type Machine } from '../manager/rig.ts';
import { serve } from './served.ts';

const file = new URL('../../openapi/service.yaml', import.meta.url);
let machine: Machine;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());

test('openapi/service.yaml is what the routes say (write it anew with UPDATE_OPENAPI=1)', async () => {
  const served = serve(machine);
  const { body } = await served.ask('GET', '/openapi.json');
  await served.close();
  const options = await resolveConfig(file);
  const text = await format(stringify(body, { aliasDuplicateObjects: false }), {
    ...options,
    parser: 'yaml',
  });
  if (process.env['UPDATE_OPENAPI'] === '1') await writeFile(file, text);
  expect(await readFile(file, 'utf8')).toBe(text);
});

test('describes every route of the service', async () => {
  const served = serve(machine);
  const { body } = await served.ask('GET', '/openapi.json');
  await served.close();
  expect(body.openapi).toBe('3.1.0');
  const calls = Object.entries<Record<string, unknown>>(body.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const project = '/v3/{project_id}';
  expect(calls.toSorted()).toEqual(
    [
      `GET ${project}/backups`,
      `GET ${project}/backups/detail`,
      `POST ${project}/backups`,
      `GET ${project}/backups/{id}`,
      `DELETE ${project}/backups/{id}`,
      `POST ${project}/backups/{id}/restore`,
      `POST ${project}/backups/{id}/action`,
      `GET ${project}/volumes`,
      `GET ${project}/volumes/detail`,
      `POST ${project}/volumes`,
      `GET ${project}/volumes/{id}`,
      `POST ${project}/volumes/{id}/action`,
      `GET ${project}/snapshots`,
      `GET ${project}/snapshots/detail`,
      `POST ${project}/snapshots`,
      `GET ${project}/snapshots/{id}`,
      `DELETE ${project}/snapshots/{id}`,
      'GET /v1/operations',
      'GET /v1/operations/{id}',
      'DELETE /v1/operations/{id}',
      'POST /v1/backups/{id}/verify',
      'GET /healthz',
      'GET /metrics',
    ].toSorted(),
  );
});
