import { afterAll, beforeAll, expect, test } from 'vitest';
import { createOperatorApp } from '../../src/rest/app.ts';
import { createMetrics } from '../../src/rest/metrics.ts';
import { blockSize, startMachine, type Machine } from '../manager/rig.ts';
import { serve } from './served.ts';

let machine: Machine;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());

test('with a token only its holder gets an answer, but for health', async () => {
  const served = serve(machine, 'a secret');
  const ask = async (token?: string) => {
    const headers = token === undefined ? {} : { 'x-auth-token': token };
    return await served.app.inject({ method: 'GET', url: '/v3/demo/backups', headers });
  };
  for (const token of [undefined, '', 'a secre', 'another']) {
    const answer = await ask(token);
    expect(answer.statusCode).toBe(401);
    expect(JSON.parse(answer.body).unauthorized.code).toBe(401);
  }
  expect((await ask('a secret')).statusCode).toBe(200);
  expect((await served.ask('GET', '/healthz')).body).toEqual({ status: 'ok', running: 0 });
  await served.close();
});

test('until the service is ready every answer is that it starts', async () => {
  const served = serve(machine);
  const { database, operations, manager } = served.rig;
  const metrics = createMetrics({ memory: served.rig.environment.resources.memory, operations: () => [] });
  let isReady = false;
  const app = createOperatorApp(
    { database, operations, metrics, manager },
    { access: {}, log: machine.log, isReady: () => isReady },
  );
  const ask = async () => (await app.inject({ method: 'GET', url: '/healthz' })).statusCode;
  expect(await ask()).toBe(503);
  isReady = true;
  expect(await ask()).toBe(200);
  await app.close();
  await served.close();
});

test('health fails when the database does not answer', async () => {
  const served = serve(machine);
  await served.rig.database.close();
  expect((await served.ask('GET', '/healthz')).status).toBeGreaterThanOrEqual(500);
  await served.app.close();
});

test('what is unexpected is told to the log, not to the client', async () => {
  const served = serve(machine);
  served.rig.overrides.listVolumes = () => Promise.reject(new TypeError('secret internals'));
  const { status, body } = await served.ask('GET', '/v3/demo/volumes');
  expect(status).toBe(500);
  expect(body.computeFault.message).not.toContain('secret');
  await served.close();
});

test('metrics count operations, bytes and the memory budget', async () => {
  const served = serve(machine);
  const volumeId = await served.rig.addVolume(20 * blockSize);
  await served.ask('POST', '/v3/demo/backups', { backup: { volume_id: volumeId } });
  await served.settle();
  const { body, headers } = await served.ask('GET', '/metrics');
  expect(headers['content-type']).toMatch(/^text\/plain/);
  expect(body).toContain(`cinder_delta_buffer_bytes{kind="ceiling"} ${64 * 1024 * 1024}`);
  expect(body).toContain('cinder_delta_buffer_bytes{kind="held"} 0');
  await served.close();
});

test.each([
  ['a name that leads here by DNS rebinding', { host: 'evil.example:8776' }],
  ['a page of another origin', { host: '127.0.0.1:8776', origin: 'http://evil.example' }],
])('without a token %s is refused', async (_what, headers) => {
  const served = serve(machine);
  const answer = await served.app.inject({ method: 'GET', url: '/v3/demo/backups', headers });
  expect(answer.statusCode).toBe(401);
  await served.close();
});

test('without a token programs of this machine are served, by every name of loopback', async () => {
  const served = serve(machine);
  for (const host of ['localhost:8776', '127.0.0.1:8776', '[::1]:8776']) {
    const answer = await served.app.inject({ method: 'GET', url: '/v3/demo/backups', headers: { host } });
    expect(answer.statusCode).toBe(200);
  }
  await served.close();
});

test('with a token the service may have any name', async () => {
  const served = serve(machine, 'a secret');
  const headers = { host: 'backup.example', origin: 'http://ui.example', 'x-auth-token': 'a secret' };
  const answer = await served.app.inject({ method: 'GET', url: '/v3/demo/backups', headers });
  expect(answer.statusCode).toBe(200);
  await served.close();
});
