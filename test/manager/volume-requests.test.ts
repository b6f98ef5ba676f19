/** What cinder-volume is asked for, against what cinder-backup asks of it. */
import { expect, test, onTestFinished } from 'vitest';
import { readContext } from '../../src/bus/bus-context.ts';
import { decodeEnvelope, isJsonObject } from '../../src/bus/envelope.ts';
import type { OutgoingRequest } from '../../src/bus/rpc-client.ts';
import { parseRequest } from '../../src/bus/rpc-message.ts';
import { encodeMap } from '../../src/bus/versioned-object.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { requestSnapshotRemoval, requestVolumeRemoval } from '../../src/manager/volume-requests.ts';
import { wireFixture } from '../support/wire-fixtures.ts';

const { signal } = new AbortController();
const now = new Date('2026-11-22T09:13:18Z');

function createRequests() {
  const database = openSqliteDatabase(':memory:');
  onTestFinished(() => database.close());
  const sent: OutgoingRequest[] = [];
  const cast = async (request: OutgoingRequest) => await Promise.resolve(void sent.push(request));
  return {
    database,
    sent,
    deps: { bus: { cast }, context: readContext({}), database, clock: { now: () => now } },
  };
}

const time = (value: unknown) => (typeof value === 'string' ? new Date(value) : null);

async function recorded(name: string) {
  const { payload_raw: payload, routing_keys: routingKeys } = wireFixture(name);
  const request = parseRequest(await decodeEnvelope({ content: Buffer.from(payload), properties: {} }));
  return { ...request, routingKeys };
}

test('the removal of a temporary volume is asked for as cinder-backup asks', async () => {
  const { database, sent, deps } = createRequests();
  const { args, method, version, routingKeys } = await recorded('delete_volume.temp.in-use');
  const { volume } = args;
  const primitive = isJsonObject(volume ?? null) ? volume : {};
  const data = Object(primitive)['versioned_object.data'];
  const columns = Object.fromEntries(
    Object.entries(data).filter(([, value]) => value === null || typeof value !== 'object'),
  );
  await database.sql
    .insertInto('volumes')
    .values({
      ...columns,
      id: String(data.id),
      deleted: false,
      created_at: time(data.created_at),
      updated_at: time(data.updated_at),
    })
    .execute();
  const sourceId = String(data.display_name).slice('backup-vol-'.length);
  await requestVolumeRemoval(deps, { id: data.id, sourceId }, signal);
  const [request] = sent;
  expect(request).toMatchObject({
    method,
    version,
    target: { kind: 'server', topic: 'cinder-volume.refhost@ceph', server: 'refhost' },
  });
  expect(routingKeys).toEqual(['cinder-volume.refhost@ceph.refhost']);
  const ours = encodeMap(request?.args ?? {});
  expect(ours).toEqual({
    ...args,
    volume: { ...Object(primitive), 'versioned_object.data': columns },
  });
  const workers = await database.sql.selectFrom('workers').selectAll().execute();
  expect(workers).toMatchObject([{ resource_type: 'Volume', resource_id: data.id, status: 'backing-up' }]);
});

test('a volume that has no row is asked for by nobody', async () => {
  const { sent, deps } = createRequests();
  await requestVolumeRemoval(deps, { id: '4de2eec0-7cc8-4501-966a-439c352d67b2', sourceId: 'any' }, signal);
  expect(sent).toEqual([]);
});

test('a temporary snapshot is marked, and asked for at the host of its volume, or at its cluster', async () => {
  const { database, sent, deps } = createRequests();
  const [volumeId, snapshotId] = [
    '4de2eec0-7cc8-4501-966a-439c352d67b2',
    '7db933dc-9605-4def-a3ec-3376b5fd67f8',
  ];
  const common = { created_at: now, deleted: false, project_id: 'p', user_id: 'u' };
  await database.sql
    .insertInto('volumes')
    .values({
      ...common,
      id: volumeId,
      host: 'a@ceph#ceph',
      cluster_name: 'many@ceph',
      status: 'in-use',
      size: 1,
    })
    .execute();
  await database.sql
    .insertInto('snapshots')
    .values({
      ...common,
      id: snapshotId,
      volume_id: volumeId,
      display_name: `backup-snap-${volumeId}`,
      status: 'backing-up',
      volume_size: 1,
    })
    .execute();
  await requestSnapshotRemoval(deps, { id: snapshotId, sourceId: volumeId }, signal);
  expect(sent).toMatchObject([
    {
      method: 'delete_snapshot',
      version: '3.0',
      target: { kind: 'server', topic: 'cinder-volume.many@ceph', server: 'many' },
    },
  ]);
  const { snapshot } = encodeMap(sent[0]?.args ?? {});
  expect(snapshot).toMatchObject({
    'versioned_object.name': 'Snapshot',
    'versioned_object.version': '1.6',
    'versioned_object.data': {
      id: snapshotId,
      status: 'deleting',
      volume_id: volumeId,
      created_at: '2026-11-22T09:13:18Z',
    },
  });
  const row = await database.sql.selectFrom('snapshots').selectAll().executeTakeFirstOrThrow();
  expect(row.status).toBe('deleting');
});

const [source, other, temporary] = [
  '4de2eec0-7cc8-4501-966a-439c352d67b2',
  '7db933dc-9605-4def-a3ec-3376b5fd67f8',
  'bdbc1081-d9a5-444f-b987-3886923383d9',
];

test.each([
  ['of a user', 'database'],
  ['without a name', null],
  ['made for a backup of another volume', `backup-vol-${other}`],
])('a volume %s is not asked for, whatever the row of the backup says', async (_which, name) => {
  const { database, sent, deps } = createRequests();
  await database.sql
    .insertInto('volumes')
    .values({
      id: temporary,
      created_at: now,
      deleted: false,
      project_id: 'p',
      user_id: 'u',
      host: 'a@ceph#ceph',
      status: 'available',
      size: 1,
      display_name: name,
    })
    .execute();
  await expect(requestVolumeRemoval(deps, { id: temporary, sourceId: source }, signal)).rejects.toMatchObject(
    { code: 'state-invalid', message: expect.stringContaining(temporary) },
  );
  expect(sent).toEqual([]);
  expect(await database.sql.selectFrom('workers').selectAll().execute()).toEqual([]);
});

test.each([
  ['of a user', source, 'before the upgrade'],
  ['of another volume', other, `backup-snap-${source}`],
])('a snapshot %s is not asked for, and keeps its status', async (_which, volumeId, name) => {
  const { database, sent, deps } = createRequests();
  const common = { created_at: now, deleted: false, project_id: 'p', user_id: 'u', status: 'available' };
  await database.sql
    .insertInto('volumes')
    .values([source, other].map((id) => ({ ...common, id, host: 'a@ceph#ceph', size: 1 })))
    .execute();
  await database.sql
    .insertInto('snapshots')
    .values({ ...common, id: temporary, volume_id: volumeId, display_name: name, volume_size: 1 })
    .execute();
  await expect(
    requestSnapshotRemoval(deps, { id: temporary, sourceId: source }, signal),
  ).rejects.toMatchObject({ code: 'state-invalid' });
  expect(sent).toEqual([]);
  const { status } = await database.sql.selectFrom('snapshots').selectAll().executeTakeFirstOrThrow();
  expect(status).toBe('available');
});
