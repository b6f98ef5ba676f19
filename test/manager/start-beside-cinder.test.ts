/** What a start finds in Cinder's database: rows of this host, left by a dead process of ours or by cinder-backup. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { getVolume } from '../../src/database/volumes.ts';
import { reconcile } from '../../src/manager/init-host.ts';
import { createLostRequests } from '../../src/manager/lost-requests.ts';
import { createRequestRig, type RequestRig } from './recorded-requests.ts';
import { blockSize, createRig, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 8 * blockSize;
const { signal } = new AbortController();
let machine: Machine;
let rig: Rig;
let requests: RequestRig;

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(() => {
  rig = createRig(machine);
  requests = createRequestRig(rig);
});
afterEach(() => rig.close());

const start = () => reconcile(requests.environment, { hasQueue: true }, signal);

async function takenVolume(previous = 'available'): Promise<string> {
  const volumeId = await rig.addVolume(sizeBytes);
  await requests.setVolume(volumeId, { status: 'backing-up', previous_status: previous });
  return volumeId;
}

test('a backup that cinder-backup was making is in error, its volume is given back, its temporary volume goes', async () => {
  const volumeId = await takenVolume('in-use');
  const temporary = randomUUID();
  const backupId = await requests.addBackup(volumeId, 'creating', {
    service: rig.store.service,
    container: 'a/b',
    service_metadata: null,
    temp_volume_id: temporary,
  });
  const { reset } = await start();
  expect(reset).toBe(1);
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: 'incomplete backup reset on manager restart',
  });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({ status: 'in-use' });
  expect(requests.removedVolumes).toEqual([temporary]);
});

test('a temporary snapshot of a backup that failed goes', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const temporary = randomUUID();
  await requests.addBackup(volumeId, 'error', { temp_snapshot_id: temporary });
  await start();
  expect(requests.removedSnapshots).toEqual([temporary]);
  await start();
  expect(requests.removedSnapshots).toEqual([temporary]);
});

const watch = (isConnected = () => true) =>
  createLostRequests(requests.environment, {
    isConnected,
    isWorking: () => requests.isWorking,
    isBusy: (id) => rig.operations.isBusy(id),
  });

test('a backup whose request still waits in the queue is made when it comes', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  const { reset } = await start();
  expect(reset).toBe(0);
  const lost = watch();
  await lost.look(signal);
  await requests.send('create_backup.full', { backupId });
  await lost.look(signal);
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a backup whose request never comes ends in error at the second look, and its volume is given back', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  await start();
  const lost = watch();
  await lost.look(signal);
  expect((await rig.row(backupId)).status).toBe('creating');
  await lost.look(signal);
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: 'incomplete backup reset on manager restart',
  });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test.each([null, 2])(
  'a deleted backup that is to be imported again keeps its objects, at a start and if no request comes (count %s)',
  async (count) => {
    const { row } = await rig.backup(await rig.addVolume(sizeBytes));
    const stored = keysIn(rig);
    await rig.database.sql
      .updateTable('backups')
      .set({
        status: 'creating',
        volume_id: '00000000-0000-0000-0000-000000000000',
        object_count: count,
      })
      .where('id', '=', row.id)
      .execute();
    expect(await start()).toMatchObject({ reset: 0 });
    expect(await rig.row(row.id)).toMatchObject({ status: 'creating', failReason: null });
    const lost = watch();
    await lost.look(signal);
    await lost.look(signal);
    expect((await rig.row(row.id)).status).toBe('error');
    expect(keysIn(rig)).toEqual(stored);
  },
);

test('an import that no host ever took ends in error at the second look', async () => {
  const nowhere = '00000000-0000-0000-0000-000000000000';
  const importing = await requests.addBackup(nowhere, 'creating', { host: null });
  const placing = await requests.addBackup(await takenVolume(), 'creating', { host: null });
  const elsewhere = await requests.addBackup(nowhere, 'creating', { host: 'other' });
  const lost = watch();
  await lost.look(signal);
  expect((await rig.row(importing)).status).toBe('creating');
  await lost.look(signal);
  expect((await rig.row(importing)).status).toBe('error');
  for (const id of [placing, elsewhere]) expect((await rig.row(id)).status).toBe('creating');
});

test('what another driver was making is left to it', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  const stored = keysIn(rig);
  await rig.database.sql
    .updateTable('backups')
    .set({
      status: 'creating',
      object_count: null,
      service: 'cinder.backup.drivers.ceph.CephBackupDriver',
    })
    .where('id', '=', row.id)
    .execute();
  await start();
  expect((await rig.row(row.id)).status).toBe('error');
  expect(keysIn(rig)).toEqual(stored);
  expect(await rig.snapshotOwners(volumeId)).toEqual([row.id]);
});

test('looks count only while requests can come in', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  let connected = true;
  const lost = watch(() => connected);
  await lost.look(signal);
  connected = false;
  await lost.look(signal);
  connected = true;
  await lost.look(signal);
  expect((await rig.row(backupId)).status).toBe('creating');
});

test('a restore and a deletion whose requests never come are put right too', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  const restoring = await requests.addBackup(volumeId, 'restoring', { restore_volume_id: volumeId });
  const deleting = await requests.addBackup(volumeId, 'deleting');
  const lost = watch();
  expect(await lost.look(signal)).toEqual([]);
  const toGoOn = await lost.look(signal);
  expect(toGoOn.map(({ id }) => id)).toEqual([deleting]);
  expect((await rig.row(restoring)).status).toBe('available');
  expect(await rig.volumeStatus(volumeId)).toBe('error_restoring');
});

test('a restore that was interrupted leaves the volume in error_restoring, the backup available', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  const backupId = await requests.addBackup(volumeId, 'restoring', { restore_volume_id: volumeId });
  await start();
  expect(await rig.volumeStatus(volumeId)).toBe('error_restoring');
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a deletion whose request never came waits for a store that does not work', async () => {
  const backupId = await requests.addBackup(await rig.addVolume(sizeBytes), 'deleting');
  requests.isWorking = false;
  const lost = watch();
  for (let looks = 0; looks < 3; looks += 1) expect(await lost.look(signal)).toEqual([]);
  expect((await rig.row(backupId)).status).toBe('deleting');
  requests.isWorking = true;
  expect(await lost.look(signal)).toEqual([]);
  expect((await lost.look(signal)).map(({ id }) => id)).toEqual([backupId]);
});

test('a deletion goes on, but that of an encrypted backup waits for its request, and ends if none comes', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const plainId = await requests.addBackup(volumeId, 'deleting');
  const encryptedId = await requests.addBackup(volumeId, 'deleting', { encryption_key_id: randomUUID() });
  const { deleting } = await start();
  expect(deleting.map(({ id }) => id)).toEqual([plainId]);
  expect((await rig.row(encryptedId)).status).toBe('deleting');
  requests.isWorking = false;
  const lost = watch();
  await lost.look(signal);
  expect((await rig.row(encryptedId)).status).toBe('deleting');
  await lost.look(signal);
  expect((await rig.row(encryptedId)).status).toBe('error_deleting');
});

test('a deletion that only its user can do waits for its request', async () => {
  const backupId = await requests.addBackup(await rig.addVolume(sizeBytes), 'deleting');
  const found = await reconcile(requests.environment, { hasQueue: true, needsCaller: true }, signal);
  expect(found).toMatchObject({ reset: 0, deleting: [] });
  expect((await rig.row(backupId)).status).toBe('deleting');
});

test.each([
  ['ends with the signal', aborted],
  ['holds its calls', () => new Promise<never>(() => {})],
])(
  'a store that %s holds up a start once, and the objects stay for who deletes the backup',
  async (_what, hang) => {
    const slow = createRig(machine, { on: rig, agentTimeoutMs: 20 });
    const { environment } = createRequestRig(slow);
    const volumes = await Promise.all(Array.from({ length: 20 }, () => takenVolume()));
    const backups = await Promise.all(
      volumes.map((volumeId) =>
        requests.addBackup(volumeId, 'creating', {
          service: rig.store.service,
          container: 'a/b',
          service_metadata: `volume_x/20260101000000/az_nova_backup_${randomUUID()}`,
        }),
      ),
    );
    slow.store.remove = async (_container, _key, until) => await hang(until);
    expect(await reconcile(environment, { hasQueue: true }, signal)).toMatchObject({ reset: 20 });
    for (const id of backups) expect(await rig.row(id)).toMatchObject({ status: 'error', container: 'a/b' });
    for (const volumeId of volumes) expect(await rig.volumeStatus(volumeId)).toBe('available');
  },
);

test('rows of other hosts are left alone', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating', {
    host: 'other',
    service: rig.store.service,
  });
  expect(await start()).toMatchObject({ reset: 0, deleting: [] });
  expect((await rig.row(backupId)).status).toBe('creating');
  expect(await rig.volumeStatus(volumeId)).toBe('backing-up');
});

test.each([
  ['up keeps', 5, 'backing-up'],
  ['down does not keep', 100, 'in-use'],
])(
  'a backup of the same volume on a host that is %s it from being given back',
  async (_what, ago, status) => {
    await rig.addService('other', ago);
    const volumeId = await takenVolume('in-use');
    await requests.addBackup(volumeId, 'creating', { host: 'other', service: rig.store.service });
    const backupId = await requests.addBackup(volumeId, 'creating', { service: rig.store.service });
    await start();
    expect((await rig.row(backupId)).status).toBe('error');
    expect(await rig.volumeStatus(volumeId)).toBe(status);
  },
);

test('a volume that is gone does not keep its backup from being put right', async () => {
  const backupId = await requests.addBackup(randomUUID(), 'creating', { service: rig.store.service });
  await start();
  expect((await rig.row(backupId)).status).toBe('error');
});

async function aborted(until: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  until.addEventListener('abort', () => reject(until.reason), { once: true });
  if (until.aborted) reject(until.reason);
  return await promise;
}

test('agents that do not answer hold up a start once, however many backups they keep', async () => {
  const slow = createRig(machine, { on: rig, agentTimeoutMs: 20 });
  const { environment } = createRequestRig(slow);
  let waiting = 0;
  slow.overrides.deleteSnapshot = async (_volume, _snapshot, until) => {
    waiting += 1;
    await aborted(until);
  };
  const volumes = await Promise.all(Array.from({ length: 20 }, () => takenVolume()));
  for (const volumeId of volumes) {
    await requests.addBackup(volumeId, 'creating', { service: rig.store.service });
  }
  expect(await reconcile(environment, { hasQueue: true }, signal)).toMatchObject({ reset: 20 });
  expect(waiting).toBe(20);
  for (const volumeId of volumes) expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('an agent that does not answer keeps no volume', async () => {
  const volumeId = await takenVolume();
  await requests.setVolume(volumeId, { host: 'elsewhere@ceph#ceph' });
  const backupId = await requests.addBackup(volumeId, 'creating', { service: rig.store.service });
  await start();
  expect((await rig.row(backupId)).status).toBe('error');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});
