/** delete_backup and reset_status as cinder-api sends them. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { defaultQuotaRules } from '../../src/database/quotas.ts';
import { BackupError } from '../../src/model/errors.ts';
import type { BackupStatus } from '../../src/model/backup.ts';
import { createRequestRig, project, type RequestRig } from './recorded-requests.ts';
import { blockSize, createRig, keyOf, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 40 * blockSize;
let machine: Machine;
let rig: Rig;
let requests: RequestRig;
let source: string;

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine, { quota: defaultQuotaRules });
  requests = createRequestRig(rig);
  source = await rig.addVolume(sizeBytes);
});
afterEach(() => rig.close());

async function makeBackup(parentId: string | null = null): Promise<string> {
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  await rig.change(source, 0, blockSize, parentId === null ? 1 : 2);
  const backupId = await requests.addBackup(source, 'creating', { parent_id: parentId });
  await requests.send('create_backup.full', { backupId });
  return backupId;
}

async function setStatus(backupId: string, status: BackupStatus, more: object = {}): Promise<void> {
  const { sql } = rig.database;
  await sql
    .updateTable('backups')
    .set({ status, ...more })
    .where('id', '=', backupId)
    .execute();
}

async function setUsage(backups: number, gigabytes: number): Promise<void> {
  const common = { created_at: new Date(), deleted: false, project_id: project, reserved: 0 };
  const { sql } = rig.database;
  await sql
    .insertInto('quota_usages')
    .values([
      { ...common, resource: 'backups', in_use: backups },
      { ...common, resource: 'backup_gigabytes', in_use: gigabytes },
    ])
    .execute();
}

async function usage(): Promise<unknown> {
  const rows = await rig.database.sql.selectFrom('quota_usages').selectAll().orderBy('id').execute();
  return rows.map((row) => [row.resource, row.in_use]);
}

const events = (verb: string) =>
  requests.told.map(({ event }) => event).filter((event) => event.startsWith(verb));

test('a deletion takes objects, row, the count of the parent and the quota', async () => {
  const parentId = await makeBackup();
  const backupId = await makeBackup(parentId);
  await setUsage(2, 2);
  await setStatus(backupId, 'deleting');
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'deleted', deleted: true });
  expect(await rig.row(parentId)).toMatchObject({ status: 'available', dependents: 0 });
  expect(keysIn(rig).some((key) => key.includes(backupId))).toBe(false);
  expect(await usage()).toEqual([
    ['backups', 1],
    ['backup_gigabytes', 1],
  ]);
  expect(events('delete')).toEqual(['delete.start', 'delete.end']);
  expect(requests.told.at(-1)).toMatchObject({ event: 'delete.end', status: 'deleted' });
});

test('a backup with children is not deleted, also if cinder-api did not see them', async () => {
  const parentId = await makeBackup();
  const childId = await makeBackup(parentId);
  const stored = keysIn(rig);
  await setStatus(parentId, 'deleting');
  await requests.send('delete_backup', { backupId: parentId });
  expect(await rig.row(parentId)).toMatchObject({
    status: 'available',
    failReason: `Incremental backups exist for this backup: ${childId}. Delete them first.`,
  });
  expect(keysIn(rig)).toEqual(stored);
});

test('a refused deletion leaves in error what an earlier one had begun to remove', async () => {
  const parentId = await makeBackup();
  await makeBackup(parentId);
  const { container, key } = keyOf(await rig.row(parentId), '_metadata');
  await rig.objects.remove(container, key, new AbortController().signal);
  await setStatus(parentId, 'deleting');
  await requests.send('delete_backup', { backupId: parentId });
  expect(await rig.row(parentId)).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining('Incremental backups exist for this backup'),
  });
});

test.each(['available', 'error'] as const)(
  'a deletion whose row another process sets to %s stops, and the backup is in error',
  async (status) => {
    const [quick, about] = [createRig(machine, { on: rig, watchIntervalMs: 5 }), await makeBackup()];
    const other = createRequestRig(quick);
    await setStatus(about, 'deleting');
    const hold = quick.store.hold('remove', /-00002$/);
    await other.send('delete_backup', { backupId: about }, { waits: false });
    const removing = await hold.reached;
    await setStatus(about, status);
    if (!removing.aborted) await once(removing, 'abort');
    hold.open();
    await other.settled();
    expect(await rig.row(about)).toMatchObject({
      status: 'error',
      failReason: 'Its deletion had begun when its status was set: delete it again.',
    });
    expect(keysIn(rig).some((key) => key.includes(about))).toBe(true);
  },
);

test('a backup that was set to available when all of it was removed is in error', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  const hold = rig.store.hold('removeContainer');
  await requests.send('delete_backup', { backupId }, { waits: false });
  await hold.reached;
  await setStatus(backupId, 'available');
  hold.open();
  await requests.settled();
  expect(await rig.row(backupId)).toMatchObject({ status: 'error', deleted: false });
});

test.each(['agent-unavailable', 'agent-failed', 'access-denied', 'not-found'] as const)(
  'an agent that answers %s does not keep a backup whose objects are gone',
  async (code) => {
    const backupId = await makeBackup();
    await setStatus(backupId, 'deleting');
    rig.overrides.deleteSnapshot = () => Promise.reject(new BackupError(code, 'no'));
    await requests.send('delete_backup', { backupId });
    expect(await rig.row(backupId)).toMatchObject({ status: 'deleted', deleted: true });
    expect(keysIn(rig)).toEqual([]);
  },
);

test('a backup that was never begun is deleted without a look at the store', async () => {
  const backupId = await requests.addBackup(source, 'deleting');
  await setUsage(1, 1);
  requests.hasWorked = false;
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'deleted' });
  expect(await usage()).toEqual([
    ['backups', 0],
    ['backup_gigabytes', 0],
  ]);
});

test('a store that went away leaves an error that can be deleted again', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  requests.isWorking = false;
  rig.store.plan({ call: 'remove', error: new BackupError('store-unavailable', 'the store is away') });
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'error', failReason: 'the store is away' });
});

test('a backup that is not deleting is refused, and the user is told', async () => {
  const backupId = await makeBackup();
  await requests.send('delete_backup', { backupId });
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_014_017', resource: backupId }]);
});

test('the row of a deleted backup no longer names the key that went with it', async () => {
  const backupId = await makeBackup();
  const key = randomUUID();
  await setStatus(backupId, 'deleting', { encryption_key_id: key });
  await requests.send('delete_backup', { backupId });
  expect(requests.removedKeys).toEqual([key]);
  expect(await rig.row(backupId)).toMatchObject({ deleted: true, encryptionKeyId: null });
});

test('until the store has worked it ends in error_deleting, and the user is told', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  requests.hasWorked = false;
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error_deleting',
    failReason: 'Delete backup is aborted due to backup service is down.',
  });
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_014_018', resource: backupId }]);
});

test('a backup of another driver is refused in the words of cinder', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting', { service: 'cinder.backup.drivers.gcs.GoogleBackupDriver' });
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining(
      'is not the backup service that was used to create this backup [cinder.backup.drivers.gcs.GoogleBackupDriver]',
    ),
  });
  expect(await requests.messages()).toEqual([]);
});

test('a store that refuses leaves an error that can be deleted again', async () => {
  const backupId = await makeBackup();
  await setUsage(1, 1);
  await setStatus(backupId, 'deleting');
  rig.store.plan({ call: 'remove', error: new BackupError('store-denied', 'the store refuses') });
  await requests.send('delete_backup', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'error', failReason: 'the store refuses' });
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_014_025', resource: backupId }]);
  expect(await usage()).toContainEqual(['backups', 1]);
  await setStatus(backupId, 'deleting');
  await requests.send('delete_backup', { backupId });
  expect((await rig.row(backupId)).status).toBe('deleted');
});

test('a forced deletion ends the making of the backup first, and gives its volume back', async () => {
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'in-use' });
  const backupId = await requests.addBackup(source, 'creating');
  const hold = rig.store.hold('put', /-00002$/);
  await requests.send('create_backup.full', { backupId }, { waits: false });
  const putting = await hold.reached;
  await setStatus(backupId, 'deleting');
  await requests.send('delete_backup.force', { backupId }, { waits: false });
  if (!putting.aborted) await once(putting, 'abort');
  hold.open();
  await requests.settled();
  expect(await rig.row(backupId)).toMatchObject({ status: 'deleted', deleted: true });
  expect(await rig.volumeStatus(source)).toBe('in-use');
  expect(requests.told.map(({ event }) => event)).toEqual([
    'create.start',
    'createprogress',
    'create.end',
    'delete.start',
    'delete.end',
  ]);
  expect(requests.told[2]).toMatchObject({ status: 'deleting' });
  expect(keysIn(rig)).toEqual([]);
  expect(await rig.snapshotOwners(source)).toEqual([]);
});

test('a request for a backup that is gone is done', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  await requests.send('delete_backup', { backupId });
  await requests.send('delete_backup', { backupId });
  expect(rig.operations.list().filter(({ state }) => state === 'failed')).toEqual([]);
});

test.each(['available', 'error'] as const)('a reset to %s is written and told', async (status) => {
  const backupId = await makeBackup();
  await setStatus(backupId, status === 'available' ? 'error' : 'available');
  await requests.send(`reset_status.${status}`, { backupId });
  expect((await rig.row(backupId)).status).toBe(status);
  expect(requests.told.at(-1)).toMatchObject({ event: 'reset_status.end', status });
});

test.each(['deleting', 'error', 'error_deleting'] as const)(
  'a backup that is %s and has lost objects is in error after a reset to available, and says why',
  async (status) => {
    const backupId = await makeBackup();
    await setStatus(backupId, status);
    const { container, key } = keyOf(await rig.row(backupId), '-00003');
    await rig.objects.remove(container, key, new AbortController().signal);
    await requests.send('reset_status.available', { backupId });
    expect(await rig.row(backupId)).toMatchObject({
      status: 'error',
      failReason: expect.stringContaining('1 missing, such as'),
    });
    expect(requests.told.at(-1)).toMatchObject({ event: 'reset_status.end', status: 'error' });
  },
);

test('a backup that was never finished does not become available by a reset', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'creating', { object_count: null });
  await removeAll();
  await requests.send('reset_status.available', { backupId });
  expect((await rig.row(backupId)).status).toBe('error');
});

test('a backup of a deletion that never began is available after a reset', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  await requests.send('reset_status.available', { backupId });
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a reset to error has the temporary volume removed', async () => {
  const backupId = await makeBackup();
  const temporary = randomUUID();
  await setStatus(backupId, 'available', { temp_volume_id: temporary, temp_snapshot_id: null });
  await requests.send('reset_status.error', { backupId });
  expect(requests.removedVolumes).toEqual([temporary]);
});

test('a reset of a backup of another driver is refused', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'error', { service: 'cinder.backup.drivers.gcs.GoogleBackupDriver' });
  await expect(requests.send('reset_status.available', { backupId })).rejects.toMatchObject({
    code: 'state-invalid',
    details: { cinder: { name: 'InvalidBackup' } },
  });
  expect((await rig.row(backupId)).status).toBe('error');
});

test('a reset of a backup that nobody works on any more gives its volume back', async () => {
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  const service = rig.store.service;
  const backupId = await requests.addBackup(source, 'creating', { service });
  await requests.send('reset_status.error', { backupId });
  expect((await rig.row(backupId)).status).toBe('error');
  expect(await rig.volumeStatus(source)).toBe('available');
});

test('a reset of a backup that waits for its place cancels it', async () => {
  const busy = createRig(machine, { on: rig, maxRunning: 1 });
  const waiting = createRequestRig(busy);
  const hold = busy.store.hold('put', /-00002$/);
  const [first, second] = [await rig.addVolume(sizeBytes), await rig.addVolume(sizeBytes)];
  const [running, queued] = await Promise.all(
    [first, second].map(async (volumeId) => {
      await waiting.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
      return await waiting.addBackup(volumeId, 'creating');
    }),
  );
  if (running === undefined || queued === undefined) throw new Error('no backups');
  await waiting.send('create_backup.full', { backupId: running }, { waits: false });
  await hold.reached;
  await waiting.send('create_backup.full', { backupId: queued }, { waits: false });
  await waiting.send('reset_status.error', { backupId: queued }, { waits: false });
  expect((await rig.row(queued)).status).toBe('error');
  expect(await rig.volumeStatus(second)).toBe('available');
  hold.open();
  await waiting.settled();
  expect((await rig.row(running)).status).toBe('available');
});

test('a reset of a restore that nobody works on leaves its volume to the restore that has it', async () => {
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  const [reset, other] = [await makeBackup(), await makeBackup()];
  const restoring = { status: 'restoring', restore_volume_id: volumeId };
  await rig.database.sql.updateTable('backups').set(restoring).where('id', 'in', [reset, other]).execute();
  await requests.send('reset_status.error', { backupId: reset });
  expect((await rig.row(reset)).status).toBe('error');
  expect(await rig.volumeStatus(volumeId)).toBe('restoring-backup');
  await requests.send('reset_status.error', { backupId: other });
  expect(await rig.volumeStatus(volumeId)).toBe('error');
});

/** A second host over the same rows and store, and a backup that the first one is making. */
async function twoHosts() {
  const [first, second] = [
    createRig(machine, { on: rig, host: 'host', watchIntervalMs: 5 }),
    createRig(machine, { on: rig, host: 'second', watchIntervalMs: 50 }),
  ];
  await rig.addService('host', 1);
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  const backupId = await requests.addBackup(source, 'creating');
  const hold = first.store.hold('put', /-00002$/);
  const [making, resetting] = [createRequestRig(first), createRequestRig(second)];
  await making.send('create_backup.full', { backupId }, { waits: false });
  await hold.reached;
  await rig.database.sql.updateTable('backups').set({ host: 'second' }).where('id', '=', backupId).execute();
  return { backupId, hold, making, resetting };
}

test('a reset to available leaves a backup alone that another host is making', async () => {
  const { backupId, hold, making, resetting } = await twoHosts();
  await resetting.send('reset_status.available', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'creating', host: 'host' });
  expect(await rig.volumeStatus(source)).toBe('backing-up');
  hold.open();
  await making.settled();
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', host: 'host' });
  expect(await rig.volumeStatus(source)).toBe('available');
});

test('a reset to error cancels a backup that another host is making', async () => {
  const { backupId, hold, making, resetting } = await twoHosts();
  const reset = resetting.send('reset_status.error', { backupId });
  await reset;
  hold.open();
  await making.settled();
  expect((await rig.row(backupId)).status).toBe('error');
  expect(await rig.volumeStatus(source)).toBe('available');
});

test('a reset to available of a backup that is being deleted changes nothing, and its end is told', async () => {
  const backupId = await makeBackup();
  await setStatus(backupId, 'deleting');
  const hold = rig.store.hold('remove', /-00002$/);
  await requests.send('delete_backup', { backupId }, { waits: false });
  await hold.reached;
  await requests.send('reset_status.available', { backupId }, { waits: false });
  expect(requests.told.at(-1)).toMatchObject({ event: 'reset_status.end', status: 'deleting' });
  hold.open();
  await requests.settled();
  expect((await rig.row(backupId)).status).toBe('deleted');
});

test('a status that a reset cannot set is refused', async () => {
  const backupId = await makeBackup();
  await expect(
    requests.send('reset_status.error', { backupId, args: { status: 'deleting' } }),
  ).rejects.toMatchObject({ code: 'message-invalid' });
  expect((await rig.row(backupId)).status).toBe('available');
});

/** Somebody empties the store behind the backups' back. */
async function removeAll(): Promise<void> {
  const { signal } = new AbortController();
  for (const [container, objects] of rig.objects.containers) {
    for (const key of objects.keys()) await rig.objects.remove(container, key, signal);
  }
}
