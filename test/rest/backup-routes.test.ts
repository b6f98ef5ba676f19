import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { blockSize, keyOf, startMachine, type Machine } from '../manager/rig.ts';
import { serve, type Served } from './served.ts';

let machine: Machine;
let served: Served;
let volumeId: string;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  served = serve(machine);
  volumeId = await served.rig.addVolume(20 * blockSize);
});
afterEach(() => served.close());

async function backUp(fields: Record<string, unknown> = {}): Promise<string> {
  const { status, body } = await served.ask('POST', '/v3/demo/backups', {
    backup: { volume_id: volumeId, ...fields },
  });
  expect({ status, body }).toMatchObject({ status: 202 });
  await served.settle();
  return body.backup.id;
}

test('a backup is accepted with its summary and shown with every field of block storage v3', async () => {
  const answer = await served.ask('POST', '/v3/demo/backups', {
    backup: { volume_id: volumeId, name: 'first', description: 'd', metadata: { a: '1' } },
  });
  expect(answer.status).toBe(202);
  expect(Object.keys(answer.body.backup)).toEqual(['id', 'name', 'links']);
  expect(answer.headers['x-openstack-request-id']).toMatch(/^req-/);
  await served.settle();
  const { body } = await served.ask('GET', `/v3/demo/backups/${answer.body.backup.id}`);
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/;
  expect(body.backup).toEqual({
    id: answer.body.backup.id,
    status: 'available',
    size: 1,
    object_count: 5,
    availability_zone: 'nova',
    container: expect.stringMatching(/^[0-9a-f]{2}\//),
    created_at: expect.stringMatching(time),
    updated_at: expect.stringMatching(time),
    name: 'first',
    description: 'd',
    fail_reason: null,
    volume_id: volumeId,
    links: [
      { rel: 'self', href: `http://localhost:80/v3/demo/backups/${answer.body.backup.id}` },
      { rel: 'bookmark', href: `http://localhost:80/demo/backups/${answer.body.backup.id}` },
    ],
    is_incremental: false,
    has_dependent_backups: false,
    snapshot_id: null,
    data_timestamp: expect.stringMatching(time),
    metadata: { a: '1' },
    user_id: 'standalone',
  });
});

test('lists are of one project, narrowed and cut into pages', async () => {
  const ids = [await backUp({ name: 'a' }), await backUp({ name: 'b' }), await backUp({ name: 'a' })];
  const all = await served.ask('GET', '/v3/demo/backups/detail');
  expect(all.body.backups.map(({ id }: { id: string }) => id)).toEqual(ids.toReversed());
  expect(all.body.backups_links).toBeUndefined();
  const named = await served.ask('GET', '/v3/demo/backups?name=a');
  expect(named.body.backups).toHaveLength(2);
  const page = await served.ask('GET', '/v3/demo/backups?limit=2');
  expect(page.body.backups).toHaveLength(2);
  const next = new URL(page.body.backups_links[0].href);
  const rest = await served.ask('GET', next.pathname + next.search);
  expect(rest.body.backups.map(({ id }: { id: string }) => id)).toEqual([ids[0]]);
  expect((await served.ask('GET', '/v3/other/backups')).body.backups).toEqual([]);
  expect((await served.ask('GET', `/v3/other/backups/${ids[0]}`)).status).toBe(404);
});

test('a restore answers with backup and volume, and the volume gets the bytes', async () => {
  const id = await backUp();
  const target = await served.rig.addVolume(20 * blockSize, 7);
  const { status, body } = await served.ask('POST', `/v3/demo/backups/${id}/restore`, {
    restore: { volume_id: target },
  });
  expect(status).toBe(202);
  expect(body).toEqual({ restore: { backup_id: id, volume_id: target, volume_name: 'v' } });
  await served.settle();
  expect((await served.rig.bytes(target)).equals(await served.rig.bytes(volumeId))).toBe(true);
});

test('a restore with null makes a volume of the right size', async () => {
  const id = await backUp();
  const { body } = await served.ask('POST', `/v3/demo/backups/${id}/restore`, { restore: null });
  expect(body.restore.volume_name).toBe(`restore_backup_${id}`);
  await served.settle();
  const { body: shown } = await served.ask('GET', `/v3/demo/volumes/${body.restore.volume_id}`);
  expect(shown.volume).toMatchObject({
    status: 'available',
    size: 1,
    name: 'v',
    metadata: { src_backup_id: id },
  });
});

test('a parent is kept from deletion by its increment, which is named', async () => {
  const full = await backUp();
  const increment = await backUp({ incremental: 'True' });
  const { body: shown } = await served.ask('GET', `/v3/demo/backups/${increment}`);
  expect(shown.backup).toMatchObject({ is_incremental: true, status: 'available' });
  const refused = await served.ask('DELETE', `/v3/demo/backups/${full}`);
  expect(refused.status).toBe(409);
  expect(refused.body.conflictingRequest).toMatchObject({
    code: 409,
    message: expect.stringContaining(increment),
  });
  expect(refused.headers['x-cinder-delta-error']).toBe('state-invalid');
  expect(await served.ask('DELETE', `/v3/demo/backups/${increment}`)).toMatchObject({
    status: 202,
    body: '',
  });
  await served.settle();
  expect((await served.ask('GET', `/v3/demo/backups/${increment}`)).body.itemNotFound.code).toBe(404);
});

test('actions force a deletion and reset a status', async () => {
  const id = await backUp();
  const act = (body: unknown) => served.ask('POST', `/v3/demo/backups/${id}/action`, body);
  expect((await act({ 'os-reset_status': { status: 'ERROR' } })).status).toBe(202);
  expect((await served.ask('GET', `/v3/demo/backups/${id}`)).body.backup.status).toBe('error');
  expect((await act({ 'os-reset_status': { status: 'creating' } })).status).toBe(400);
  expect((await act({ 'os-unknown': {} })).status).toBe(400);
  expect((await act({ 'os-force_delete': {} })).status).toBe(202);
  await served.settle();
  expect((await served.ask('GET', `/v3/demo/backups/${id}`)).status).toBe(404);
});

test('a failed backup shows its reason', async () => {
  served.rig.store.plan({ call: 'put', error: new BackupError('store-full', 'no room in the store') });
  const id = await backUp();
  const { body } = await served.ask('GET', `/v3/demo/backups/${id}`);
  expect(body.backup).toMatchObject({ status: 'error', fail_reason: 'no room in the store' });
});

test.each([
  ['no volume', { backup: {} }, /volume_id/],
  [
    'a volume id that is a path',
    { backup: { volume_id: '../../etc/passwd' } },
    /volume_id: must be a lower-case UUID/,
  ],
  ['an unknown field', { backup: { volume_id: randomUUID(), evil: 1 } }, /evil/],
  ['a name that is too long', { backup: { volume_id: randomUUID(), name: 'n'.repeat(256) } }, /name/],
  ['control characters', { backup: { volume_id: randomUUID(), name: 'a\u0000b' } }, /control characters/],
  ['a flag that is none', { backup: { volume_id: randomUUID(), force: 'perhaps' } }, /force/],
  ['another document', { volume: {} }, /backup/],
  ['a list', [], /body/],
])('a request with %s is refused with a sentence', async (_what, payload, sentence) => {
  const { status, body } = await served.ask('POST', '/v3/demo/backups', payload);
  expect(status).toBe(400);
  expect(body.badRequest.code).toBe(400);
  expect(body.badRequest.message).toMatch(sentence);
});

async function send(payload: string, type: string): Promise<{ status: number; body: unknown }> {
  const headers = { 'content-type': type };
  const answer = await served.app.inject({ method: 'POST', url: '/v3/demo/backups', payload, headers });
  return { status: answer.statusCode, body: JSON.parse(answer.body) };
}

test('a body that is no JSON, too large, or of another kind is refused in the same shape', async () => {
  expect(await send('{"backup":', 'application/json')).toMatchObject({
    status: 400,
    body: { badRequest: {} },
  });
  expect(await send(`"${'x'.repeat(300_000)}"`, 'application/json')).toMatchObject({
    status: 413,
    body: { overLimit: { code: 413 } },
  });
  expect(await send('a=b', 'text/xml')).toMatchObject({ status: 415, body: { badMediaType: {} } });
  expect(await send('{"__proto__":{"x":1},"backup":{}}', 'application/json')).toMatchObject({ status: 400 });
});

test('what is not there is not found, in the shape of cinder', async () => {
  for (const url of ['/', '/v3/demo/nothing', `/v3/demo/backups/${randomUUID()}`, '/v3/de%2Fmo/backups/x']) {
    const { status, body } = await served.ask('GET', url);
    expect([404, 400]).toContain(status);
    expect(Object.keys(body)).toHaveLength(1);
  }
  const unknown = await served.ask('POST', '/v3/demo/backups', { backup: { volume_id: randomUUID() } });
  expect(unknown.body.itemNotFound.message).toMatch(/Volume .* could not be found/);
});

test('an operation tells progress, mode and reason; a verify tells every bad range', async () => {
  const id = await backUp();
  const { body } = await served.ask('GET', `/v1/operations?backup_id=${id}`);
  expect(body.operations).toHaveLength(1);
  expect(body.operations[0]).toMatchObject({
    verb: 'create',
    state: 'succeeded',
    mode: 'full',
    reason: 'no parent was asked for',
    seconds_left: 0,
    error: null,
    result: null,
    progress: { planned_bytes: 20 * blockSize, done_bytes: 20 * blockSize },
  });
  const row = await served.rig.row(id);
  const { container, key } = keyOf(row, '-00002');
  served.rig.objects.corrupt(container, key, (bytes) => {
    bytes[30] = (bytes[30] ?? 0) ^ 2;
    return bytes;
  });
  const started = await served.ask('POST', `/v1/backups/${id}/verify`);
  expect(started.status).toBe(202);
  await served.settle();
  const { body: ended } = await served.ask('GET', `/v1/operations/${started.body.operation.id}`);
  expect(ended.operation).toMatchObject({ verb: 'verify', state: 'succeeded' });
  expect(ended.operation.result.bad_ranges).toEqual([
    { offset: 4 * blockSize, length: 4 * blockSize, backup_id: id, object: key, reason: expect.any(String) },
  ]);
  expect(ended.operation.result).toMatchObject({ bad_count: 1, bad_bytes: 4 * blockSize });
  const { body: list } = await served.ask('GET', '/v1/operations');
  expect(list.operations[0].result).toEqual({
    checked_bytes: ended.operation.result.checked_bytes,
    bad_count: 1,
    bad_bytes: 4 * blockSize,
  });
  expect((await served.ask('GET', `/v1/operations/${randomUUID()}`)).status).toBe(404);
});

test('an operation is shown when it has ended, or after the wait that was asked for, or when the service closes', async () => {
  const id = await backUp();
  const hold = served.rig.store.hold('get', /-00002$/);
  const started = await served.ask('POST', `/v1/backups/${id}/verify`);
  await hold.reached;
  const url = `/v1/operations/${started.body.operation.id}`;
  const shown = async (seconds: string) => {
    const { body } = await served.ask('GET', `${url}?wait=${seconds}`);
    return body.operation.state;
  };
  expect(await shown('0')).toBe('running');
  expect(await shown('0.05')).toBe('running');
  for (const bad of ['-1', '51', 'soon', 'Infinity', '']) {
    const { status } = await served.ask('GET', `${url}?wait=${bad}`);
    expect([bad, status]).toEqual([bad, bad === '' ? 200 : 400]);
  }
  const waiting = shown('50');
  hold.open();
  expect(await waiting).toBe('succeeded');
  expect(await shown('50')).toBe('succeeded');

  const again = served.rig.store.hold('get', /-00002$/);
  const { body } = await served.ask('POST', `/v1/backups/${id}/verify`);
  await again.reached;
  const cut = served.ask('GET', `/v1/operations/${body.operation.id}?wait=50`);
  const closed = served.app.close();
  expect((await cut).body.operation.state).toBe('running');
  await closed;
  again.open();
  await served.settle();
});

test('an operation is cancelled by its id, and only while it runs', async () => {
  const id = await backUp();
  const hold = served.rig.store.hold('get', /-00002$/);
  const started = await served.ask('POST', `/v1/backups/${id}/verify`);
  await hold.reached;
  const url = `/v1/operations/${started.body.operation.id}`;
  expect(await served.ask('DELETE', url)).toMatchObject({ status: 202, body: '' });
  hold.open();
  await served.settle();
  expect((await served.ask('GET', url)).body.operation).toMatchObject({
    state: 'cancelled',
    error: { code: 'cancelled', message: 'the operation was cancelled by request' },
  });
  expect(await served.ask('DELETE', url)).toMatchObject({ status: 409, body: { conflictingRequest: {} } });
  expect((await served.ask('DELETE', `/v1/operations/${randomUUID()}`)).status).toBe(404);
});

test('a container that no store can have is a bad request', async () => {
  const target = await served.rig.addVolume(blockSize);
  const backup = { volume_id: target, container: '../elsewhere' };
  const { status, body } = await served.ask('POST', '/v3/demo/backups', { backup });
  expect(status).toBe(400);
  expect(body.badRequest.message).toContain('../elsewhere');
  expect(await served.rig.volumeStatus(target)).toBe('available');
});
