import { randomUUID } from 'node:crypto';
import { rename, rm, truncate } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { getSnapshot, insertSnapshot } from '../../src/database/snapshots.ts';
import { getVolume } from '../../src/database/volumes.ts';
import type { Backup, BackupStatus } from '../../src/model/backup.ts';
import { BackupError } from '../../src/model/errors.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { gibibyte } from '../../src/model/volume.ts';
import { blockSize, context, createRig, keyOf, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

const signal = new AbortController().signal;
let machine: Machine;
let rig: Rig;
let volumeId: string;
let full: Backup;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine);
  volumeId = await rig.addVolume(40 * blockSize);
  ({ row: full } = await rig.backup(volumeId));
});
afterEach(() => rig.close());

/** Writes a status as a process left it that died there. */
async function leave(
  id: string,
  status: BackupStatus,
  columns: Record<string, string | number | null> = {},
): Promise<void> {
  await rig.database.sql
    .updateTable('backups')
    .set({ status, ...columns })
    .where('id', '=', id)
    .execute();
}

async function leaveVolume(id: string, status: string, previous: string | null): Promise<void> {
  const columns = { status, previous_status: previous };
  await rig.database.sql.updateTable('volumes').set(columns).where('id', '=', id).execute();
}

async function restart(): Promise<void> {
  await rig.manager.initHost(signal);
  await rig.volumes.reconcile(signal);
  while (rig.operations.list().some(({ state }) => state === 'running' || state === 'queued')) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const endings = ['_metadata', '_sha256file', '-00003'];
test.each([
  ['before it had a place', 0],
  ['after some of its objects', 1],
  ['after its objects and hash list', 2],
  ['after everything but the row', 3],
])('a create that died %s leaves an error, a free volume, and nothing else', async (_when, step) => {
  const { row } = await rig.backup(volumeId, { incremental: true });
  for (const ending of endings.slice(0, 3 - step)) {
    const { container, key } = keyOf(row, ending);
    await rig.objects.remove(container, key, signal);
  }
  await rig.database.sql
    .updateTable('backups')
    .set({ num_dependent_backups: 0 })
    .where('id', '=', full.id)
    .execute();
  const place = step === 0 ? { container: null, service_metadata: null } : {};
  await leave(row.id, 'creating', { object_count: null, ...place });
  await leaveVolume(volumeId, 'backing-up', 'in-use');
  await restart();
  expect(await rig.row(row.id)).toMatchObject({
    status: 'error',
    failReason: 'incomplete backup reset on manager restart',
  });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'in-use',
    previousStatus: 'error_backing-up',
  });
  if (step > 0) expect(keysIn(rig).some((key) => key.includes(row.id))).toBe(false);
  expect(await rig.snapshotOwners(volumeId)).not.toContain(row.id);
  const { operation } = await rig.backup(volumeId, { incremental: true, force: true });
  expect(operation.state).toBe('succeeded');
});

test('a create that died when its objects were counted keeps them for who deletes the backup', async () => {
  const stored = keysIn(rig);
  await leave(full.id, 'creating');
  await restart();
  expect(await rig.row(full.id)).toMatchObject({ status: 'error' });
  expect(keysIn(rig)).toEqual(stored);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(keysIn(rig)).toEqual([]);
});

test('a start whose database has no room removes half-made objects first, and waits for the rows', async () => {
  await rig.close();
  let left: boolean | undefined;
  const onLine = (line: string) => {
    if (line.includes('earlier work waits for the database'))
      left ??= keysIn(rig).some((key) => key.includes(half.id));
  };
  rig = createRig(machine, { onLine });
  volumeId = await rig.addVolume(40 * blockSize);
  const { row: half } = await rig.backup(volumeId);
  await leave(half.id, 'creating', { object_count: null });
  await leaveVolume(volumeId, 'backing-up', 'available');
  expect(keysIn(rig).some((key) => key.includes(half.id))).toBe(true);
  rig.failDatabase(1, 6);
  await restart();
  expect(left).toBe(false);
  expect((await rig.row(half.id)).status).toBe('error');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a restore that died leaves the volume in error_restoring and the backup available', async () => {
  const target = await rig.addVolume(40 * blockSize, 9);
  await leave(full.id, 'restoring', { restore_volume_id: target });
  await leaveVolume(target, 'restoring-backup', null);
  await restart();
  expect((await rig.row(full.id)).status).toBe('available');
  expect(await rig.volumeStatus(target)).toBe('error_restoring');
});

test.each([
  ['of this host end with it', 'host', 'error_restoring'],
  ['of another host that is up keep it', 'other', 'restoring-backup'],
  ['of another host that is down do not keep it', 'dead', 'error_restoring'],
  ['of a host that is gone do not keep it', 'gone', 'error_restoring'],
])('other restores to the volume of a restore that died %s', async (_what, host, status) => {
  const { row: second } = await rig.backup(volumeId);
  const target = await rig.addVolume(40 * blockSize, 9);
  await leave(full.id, 'restoring', { restore_volume_id: target });
  await leave(second.id, 'restoring', { restore_volume_id: target, host });
  await leaveVolume(target, 'restoring-backup', null);
  await rig.addService('other', 50);
  await rig.addService('dead', 70);
  await rig.manager.initHost(signal);
  expect((await rig.row(full.id)).status).toBe('available');
  expect(await rig.volumeStatus(target)).toBe(status);
});

test('a deletion that died half-way goes on', async () => {
  const { container, key } = keyOf(full, '_metadata');
  await rig.objects.remove(container, key, signal);
  await leave(full.id, 'deleting');
  await restart();
  expect((await rig.row(full.id)).status).toBe('deleted');
  expect(keysIn(rig)).toEqual([]);
});

test('a backup of a snapshot that died gives the snapshot back', async () => {
  const snapshotId = randomUUID();
  const fields = { id: snapshotId, volumeId, projectId: 'demo', userId: 'u', volumeSizeGiB: 1 };
  await insertSnapshot(rig.database.sql, { ...fields, name: null, description: null }, new Date());
  await rig.database.sql.updateTable('snapshots').set({ status: 'backing-up' }).execute();
  await leave(full.id, 'creating', { snapshot_id: snapshotId });
  await restart();
  expect((await getSnapshot(rig.database.sql, snapshotId)).status).toBe('available');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('snapshots of failed, deleted and superseded backups go, those of unknown backups stay', async () => {
  const { row: newest } = await rig.backup(volumeId);
  const deleted = await rig.backup(volumeId);
  await rig.remove(deleted.row.id);
  const stranger = randomUUID();
  for (const id of [full.id, deleted.row.id, stranger, newest.id]) {
    await machine.client.createSnapshot('file', volumeName(volumeId), backupSnapshotName(id, 1), signal);
  }
  await restart();
  expect(new Set(await rig.snapshotOwners(volumeId))).toEqual(new Set([newest.id, stranger]));
});

test('the snapshot of the newest backup stays while that is restored', async () => {
  const { row: newest } = await rig.backup(volumeId);
  await rig.database.sql
    .updateTable('backups')
    .set({ status: 'restoring', host: 'peer' })
    .where('id', '=', newest.id)
    .execute();
  await restart();
  expect(await rig.snapshotOwners(volumeId)).toEqual([newest.id]);
});

test('snapshots of backups of another driver stay, and its newest backup does not take the place of ours', async () => {
  const service = 'cinder.backup.drivers.ceph.CephBackupDriver';
  const foreign = [(await rig.backup(volumeId)).row, (await rig.backup(volumeId)).row];
  for (const { id } of [full, ...foreign]) {
    const name = backupSnapshotName(id, 1);
    await machine.client.createSnapshot('file', volumeName(volumeId), name, signal);
    if (id !== full.id)
      await rig.database.sql.updateTable('backups').set({ service }).where('id', '=', id).execute();
  }
  await restart();
  const owners = new Set([full.id, ...foreign.map(({ id }) => id)]);
  expect(new Set(await rig.snapshotOwners(volumeId))).toEqual(owners);
});

test('backups of another host are left alone', async () => {
  await leave(full.id, 'creating', { host: 'peer' });
  await leaveVolume(volumeId, 'backing-up', 'available');
  await restart();
  expect((await rig.row(full.id)).status).toBe('creating');
  expect(await rig.volumeStatus(volumeId)).toBe('backing-up');
});

test('a volume that is backing-up for no backup is given back', async () => {
  await leaveVolume(volumeId, 'backing-up', 'in-use');
  await restart();
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
});

test('a store that is away does not keep a row stuck, nor the service from starting', async () => {
  await leave(full.id, 'creating');
  await leaveVolume(volumeId, 'backing-up', 'available');
  rig.store.plan({ error: new BackupError('store-unavailable', 'no answer'), times: 999 });
  rig.overrides.deleteSnapshot = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  rig.overrides.listVolumes = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  await restart();
  expect((await rig.row(full.id)).status).toBe('error');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('starting again changes nothing', async () => {
  await restart();
  const before = await rig.row(full.id);
  await restart();
  expect(await rig.row(full.id)).toEqual(before);
  expect(await rig.snapshotOwners(volumeId)).toEqual([full.id]);
});

test.each([
  ['creating', 'error'],
  ['extending', 'available'],
  ['restoring-backup', 'error_restoring'],
])('a volume that was %s is %s afterwards', async (before, after) => {
  await leaveVolume(volumeId, before, null);
  await restart();
  expect(await rig.volumeStatus(volumeId)).toBe(after);
});

test('snapshots that were being made or deleted get their end', async () => {
  const made = await rig.volumes.createSnapshot(context, {
    volumeId,
    name: null,
    description: null,
    force: false,
  });
  await rig.volumes.settle();
  const half = randomUUID();
  const fields = { id: half, volumeId, projectId: 'demo', userId: 'u', volumeSizeGiB: 1 };
  await insertSnapshot(rig.database.sql, { ...fields, name: null, description: null }, new Date());
  await rig.database.sql
    .updateTable('snapshots')
    .set({ status: 'deleting' })
    .where('id', '=', made.id)
    .execute();
  await restart();
  expect((await getSnapshot(rig.database.sql, half)).status).toBe('error');
  await expect(getSnapshot(rig.database.sql, made.id)).rejects.toMatchObject({ code: 'not-found' });
  const { snapshots } = await machine.client.volume('file', volumeName(volumeId), signal);
  expect(snapshots.map(({ name }) => name)).not.toContain(`snapshot-${made.id}`);
});

test('a volume whose snapshots cannot be listed does not keep those of others', async () => {
  const other = await rig.addVolume(4 * blockSize);
  for (const id of [volumeId, other]) {
    const name = backupSnapshotName(full.id, 1);
    await machine.client.createSnapshot('file', volumeName(id), name, signal);
  }
  const ids = [volumeId, other];
  await rig.database.sql.updateTable('backups').set({ deleted: true }).execute();
  for (const broken of ids) {
    rig.overrides.listSnapshots = (volume, stop) =>
      volume === volumeName(broken)
        ? Promise.reject(new BackupError('corrupt', 'a record is damaged'))
        : machine.client.snapshots('file', volume, stop);
    await rig.database.sql
      .updateTable('backups')
      .set({ volume_id: ids.find((id) => id !== broken) ?? '' })
      .execute();
    await restart();
  }
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
  expect(await rig.snapshotOwners(other)).toEqual([]);
});

test('needless snapshots of a volume that is gone go too', async () => {
  await machine.client.createSnapshot('file', volumeName(volumeId), backupSnapshotName(full.id, 1), signal);
  await rm(rig.path(volumeId));
  await rig.database.sql.updateTable('backups').set({ status: 'error' }).execute();
  expect(await rig.snapshotOwners(volumeId)).not.toEqual([]);
  await restart();
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test('needless snapshots of a volume that was migrated are found under the name that it has now', async () => {
  const nameId = randomUUID();
  await rename(rig.path(volumeId), rig.path(nameId));
  await rig.database.sql
    .updateTable('volumes')
    .set({ _name_id: nameId })
    .where('id', '=', volumeId)
    .execute();
  const name = backupSnapshotName(full.id, 1);
  await machine.client.createSnapshot('file', volumeName(nameId), name, signal);
  await rig.database.sql.updateTable('backups').set({ status: 'error' }).execute();
  await restart();
  expect(await rig.snapshotOwners(nameId)).toEqual([]);
});

test('only volumes that had a backup are asked for snapshots, and no list of all is made', async () => {
  await rig.addVolume(blockSize);
  const asked: string[] = [];
  rig.overrides.listVolumes = () => Promise.reject(new BackupError('bug', 'there are too many'));
  rig.overrides.listSnapshots = async (volume) => await Promise.resolve((asked.push(volume), []));
  await rig.manager.initHost(signal);
  expect(asked).toEqual([volumeName(volumeId)]);
});

test('an agent that does not answer is asked for the snapshots of one volume only', async () => {
  const { row } = await rig.backup(await rig.addVolume(blockSize));
  let asked = 0;
  rig.overrides.listSnapshots = () => {
    asked += 1;
    return Promise.reject(new BackupError('agent-unavailable', 'away'));
  };
  await rig.manager.initHost(signal);
  expect(asked).toBe(1);
  expect(row.status).toBe('available');
});

test('an extension that died after the storage had done it is finished', async () => {
  await leaveVolume(volumeId, 'extending', 'in-use');
  await truncate(rig.path(volumeId), 2 * gibibyte);
  await restart();
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({ status: 'in-use', sizeGiB: 2 });
});

test('an extension of which nobody can tell says so, and the volume can be reset by hand', async () => {
  await leaveVolume(volumeId, 'extending', null);
  rig.overrides.getVolume = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  await restart();
  expect(await rig.volumeStatus(volumeId)).toBe('error_extending');
  await rig.volumes.reset(context, volumeId, 'available');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a snapshot that cannot be deleted does not keep the service from starting', async () => {
  const wanted = { volumeId, name: null, description: null, force: false };
  const { id } = await rig.volumes.createSnapshot(context, wanted);
  await rig.volumes.settle();
  await rig.database.sql.updateTable('snapshots').set({ status: 'deleting' }).where('id', '=', id).execute();
  rig.overrides.deleteSnapshot = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  await restart();
  expect((await getSnapshot(rig.database.sql, id)).status).toBe('error');
});
